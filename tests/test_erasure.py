"""`litestar students erase`: nothing of the person is left, and that something happened is."""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Rows, query_sqlite
from tests.service import ANANYA, Service, serve_database
from tests.test_cli import Commands
from tests.test_history import assert_changed, import_file, read_history, undo
from tests.test_import import HEADER, make_error, send

Query = Callable[..., Rows]
PERSON = {"name": "Zebulon Quackenbush", "department": "Xylology", "cgpa": 3.25}
SECRETS = (b"Zebulon", b"Quackenbush", b"Xylology")
PERSONS = "old.department = 'Xylology'"
TEXTS = (
    "SELECT name, department, cgpa FROM students",
    "SELECT before_name, before_department, before_cgpa, after_name, after_department, after_cgpa FROM history",
    "SELECT answer, request, `key` FROM idempotency_keys",
)


@pytest.fixture
def commands(tmp_path: Path, database_url: str) -> Commands:
    return Commands(tmp_path, database_url)


def find_secrets(directory: Path) -> list[tuple[str, bytes]]:
    """Look for the person in every byte of the files of the database."""
    files = [path for path in directory.glob("students.db*") if path.suffix != ".db-shm"]
    assert files
    return [(path.name, secret) for path in files for secret in SECRETS if secret in path.read_bytes()]


def test_nothing_of_the_person_is_left(commands: Commands, database_url: str, tmp_path: Path, query: Query) -> None:
    """Neither in a table nor, where it is SQLite, in a byte of its files; also while the service runs."""
    with Service(tmp_path, DATABASE_URL=database_url) as service:
        client = service.client
        assert commands.run("seed", "3000")[0] == 0
        first = client.post("/student", json=PERSON, headers={"Idempotency-Key": "one"})
        number = first.json()["id"]
        client.patch(f"/student/{number}", json={"name": "Zebedee Quackenbush"})
        update = f"id,{HEADER}{number},Zebulon Quackenbush,Xylology,4\r\n,Zebulon Quackenbush\u202e,CSE,4\r\n"
        last = import_file(client, update, mode="valid", headers={"Idempotency-Key": "two"})
        other = client.post("/student", json={**ANANYA, "name": "Zebulon Quackenbush the Other"}).json()["id"]
        assert commands.run("seed", "3000")[0] == 0
        client.delete(f"/student/{other}")
        assert commands.run("erase", str(other)) == (0, f"Erased: student {other}.\n", "")
        assert commands.run("erase", str(number)) == (0, f"Erased: student {number}.\n", "")
        assert [text for table in TEXTS for row in query(table) for text in row if "Quackenbush" in str(text)] == []
        if database_url.startswith("sqlite"):
            assert find_secrets(tmp_path) == []
        assert client.get(f"/student/{number}").status_code == 404
        assert read_history(client, number) == [
            ("local", action, import_id, None, None)
            for action, import_id in [("create", None), ("update", None), ("update", last), ("delete", None)]
        ]
        again = client.post("/student", json=PERSON, headers={"Idempotency-Key": "one"})
        nobody = {"id": number, "name": None, "department": None, "cgpa": None}
        assert (again.status_code, again.json()) == (201, nobody)
        report = send(client, update, mode="valid", headers={"Idempotency-Key": "two"}).json()
        assert (report["import"], report["rejected"], report["errors"]) == (last, 1, [])
        assert_changed(undo(client, last), [number])
        assert commands.run("erase", str(number))[0] == 0
        service.stop()
    if database_url.startswith("sqlite"):
        assert find_secrets(tmp_path) == []


def test_key_that_holds_the_name_is_erased(commands: Commands, database_url: str, query: Query, tmp_path: Path) -> None:
    """Also of a database of an earlier release, and where nothing but an import tells that it was this person."""
    name = "create-Zebulon-Quackenbush-2026"
    headers, file = {"Idempotency-Key": name}, {"Idempotency-Key": f"import-{name}"}
    row = f"{HEADER}Zebulon Quackenbush,Xylology,3.25\r\n"
    with serve_database(database_url) as client:
        assert client.post("/student", json=PERSON, headers=headers).json()["id"] == 1
        report = send(client, row, headers=file).json()
        digest = hashlib.sha256(json.dumps(PERSON, separators=(",", ":")).encode()).hexdigest()
        query("UPDATE idempotency_keys SET `key` = ?, request = ? WHERE answer LIKE ?", name, digest, '{"id"%')
        assert client.post("/student", json=PERSON, headers=headers).json()["id"] == 1
        assert client.post("/student", json=ANANYA, headers=headers).status_code == 422
        for number in ("1", "2"):
            assert commands.run("erase", number)[0] == 0
        stored = query("SELECT `key`, request FROM idempotency_keys")
        assert [request for _, request in stored] == ["", ""]
        assert "Quackenbush" not in str(stored)
        nobody = {"id": 1, "name": None, "department": None, "cgpa": None}
        assert client.post("/student", json=PERSON, headers=headers).json() == nobody
        assert send(client, row, headers=file).json() == report
        assert client.get("/students").json() == []
    if database_url.startswith("sqlite"):
        assert find_secrets(tmp_path) == []


def test_erased_student_is_not_created_by_an_undo(commands: Commands, database_url: str) -> None:
    """An import has created the person, its undo has deleted: the undo of that is not possible any more."""
    with serve_database(database_url) as client:
        first = import_file(client, HEADER + "Ananya,CSE,1\r\nZebulon,ECE,2\r\n")
        second = undo(client, first).json()["import"]
        assert commands.run("erase", "2")[0] == 0
        assert_changed(undo(client, second), [2])
        assert client.get("/students").json() == []


def test_others_keep_their_responses(commands: Commands, database_url: str) -> None:
    with serve_database(database_url) as client:
        keys = [{"Idempotency-Key": name} for name in "abc"]
        students = [client.post("/student", json={**ANANYA, "cgpa": 1}, headers=key).json() for key in keys[:2]]
        bad = HEADER + "Dora,CSE,11\r\n"
        report = send(client, bad, mode="valid", headers=keys[2]).json()
        assert report["errors"] == [make_error(2, "cgpa", "11", "expected a number from 0 to 10")]
        assert commands.run("erase", "1")[0] == 0
        assert client.post("/student", json={**ANANYA, "cgpa": 1}, headers=keys[1]).json() == students[1]
        assert send(client, bad, mode="valid", headers=keys[2]).json() == report


@pytest.mark.parametrize("history", ["on", "off"])
def test_unknown_student_is_exit_code_1(commands: Commands, history: str) -> None:
    expected = (1, "", "student-records: Student not found\n")
    assert commands.run("erase", "7", variables={"HISTORY": history}) == expected


def test_erase_works_without_history(commands: Commands, database_url: str, query: Query) -> None:
    with serve_database(database_url, history="off") as client:
        client.post("/student", json=PERSON)
    assert commands.run("erase", "1", variables={"HISTORY": "off"})[0] == 0
    assert query("SELECT * FROM students") == query("SELECT * FROM history") == []


def test_repeated_erasure_finishes_the_rewriting(tmp_path: Path, sqlite_url: str, sqlite_path: Path) -> None:
    """Without a history nothing tells that the student has been there but the id, which was given once."""
    commands, variables = Commands(tmp_path, sqlite_url), {"HISTORY": "off"}
    # in a process of its own: to read a file of SQLite here releases the locks of this one
    with Service(tmp_path, DATABASE_URL=sqlite_url, HISTORY="off") as service:
        client = service.client
        for _ in range(2):
            client.post("/student", json=PERSON)
        client.delete("/student/2")
        with contextlib.closing(sqlite3.connect(sqlite_path)) as reader:  # as a kill after COMMIT would leave it
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM students").fetchall()
            assert commands.run("erase", "1", variables=variables)[0] == 1
            assert find_secrets(tmp_path) != []
        assert commands.run("erase", "1", variables=variables) == (0, "Erased: student 1.\n", "")
        assert find_secrets(tmp_path) == []
        client.post("/student", json=PERSON)
        client.delete("/student/3")  # without a history that leaves nothing either, but in the log
        assert find_secrets(tmp_path) != []
        assert commands.run("erase", "3", variables=variables)[0] == 0
        assert find_secrets(tmp_path) == []
        expected = (1, "", "student-records: Student not found\n")
        assert commands.run("erase", "4", variables=variables) == expected


def test_stored_responses_alone_are_erased(commands: Commands, database_url: str, query: Query) -> None:
    """Of a student who has gone, or has another name, and of whom no history is kept."""
    one, two = ({"Idempotency-Key": name} for name in ("one", "two"))
    with serve_database(database_url, history="off") as client:
        assert client.post("/student", json=PERSON, headers=one).json()["id"] == 1
        assert client.post("/student", json=PERSON).json()["id"] == 2
        rename = f"id,{HEADER}2,Zebedee Quackenbush,CSE,1\r\n"
        assert send(client, rename, dry_run="true", headers=two).json()["changes"]
        client.patch("/student/2", json={"name": "Nobody", "department": "CSE"})
        client.delete("/student/1")
    for number in ("1", "2"):
        done = commands.run("erase", number, variables={"HISTORY": "off"})
        assert done == (0, f"Erased: student {number}.\n", "")
    assert [text for (text,) in query("SELECT answer FROM idempotency_keys") if "Quackenbush" in str(text)] == []


def test_student_whom_a_trigger_keeps_is_exit_code_1(tmp_path: Path, sqlite_url: str, sqlite_path: Path) -> None:
    with serve_database(sqlite_url) as client:
        client.post("/student", json=PERSON)
        query_sqlite(
            sqlite_path, f"CREATE TRIGGER keep BEFORE DELETE ON students WHEN {PERSONS} BEGIN SELECT RAISE(IGNORE); END"
        )
        expected: tuple[Any, ...] = (1, "", "student-records: A constraint of the database is violated\n")
        assert Commands(tmp_path, sqlite_url).run("erase", "1") == expected
        assert read_history(client, 1)[0][4] == {"id": 1, **PERSON}


def test_log_that_is_being_read_is_told(tmp_path: Path, sqlite_url: str, sqlite_path: Path) -> None:
    """It holds the person until nobody reads any more."""
    commands = Commands(tmp_path, sqlite_url)
    with serve_database(sqlite_url) as client, contextlib.closing(sqlite3.connect(sqlite_path)) as reader:
        client.post("/student", json=PERSON)
        reader.execute("BEGIN")
        assert len(reader.execute("SELECT * FROM students").fetchall()) == 1
        told = "Its file or its -wal may still hold it, since another transaction is in the way: run this again.\n"
        assert commands.run("erase", "1") == (1, "Erased: student 1.\n", told)
        assert find_secrets(tmp_path) != []
        reader.rollback()
        assert commands.run("erase", "1") == (0, "Erased: student 1.\n", "")
        assert find_secrets(tmp_path) == []
