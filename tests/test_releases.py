"""A database of every earlier release starts and keeps everything: its tables as SQL, as that release made them."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Rows
from tests.service import ANANYA, serve_database

KEYS_1_0 = """CREATE TABLE idempotency_keys ({key} VARCHAR(255) NOT NULL, request VARCHAR(64) NOT NULL,
answer TEXT NOT NULL, created_at BIGINT NOT NULL, CONSTRAINT pk_idempotency_keys PRIMARY KEY ({key}),
CONSTRAINT uq_idempotency_keys_created_at UNIQUE (created_at, {key})){end}"""
STUDENTS_1_0 = """CREATE TABLE students ({id}, name VARCHAR(100) NOT NULL, department VARCHAR(100) NOT NULL,
cgpa DOUBLE NOT NULL{pk}){end}"""
ON_SQLITE = {"key": '"key"', "id": "id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", "pk": "", "end": ""}
ON_MYSQL = {
    "key": "`key`",
    "id": "id INTEGER NOT NULL AUTO_INCREMENT",
    "pk": ", CONSTRAINT pk_students PRIMARY KEY (id)",
    "end": " ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_bin",
}
ROWS_1_0 = [
    """INSERT INTO idempotency_keys VALUES ('old', '42a0666496c1de7d8533a79c3880c95e057bcbe710c641b93686f49474fee7ba',
    '{{"id":1,"name":"Ananya","department":"CSE","cgpa":8.9}}', {now})""",
    "INSERT INTO students VALUES (1, 'Ananya', 'CSE', 8.9), (2, 'Zoë', 'Law', 7.5), (3, 'Rahul', 'ECE', 8)",
    "DELETE FROM students WHERE id = 3",  # the last; its id is not given again
]
RELEASES = {"1.0.0": [KEYS_1_0, STUDENTS_1_0, *ROWS_1_0]}
"""Statements by release. A release that changes a table adds its own here."""


@pytest.mark.parametrize("release", RELEASES)
def test_database_of_an_earlier_release_keeps_everything(
    release: str, database_url: str, query: Callable[..., Rows], request: pytest.FixtureRequest
) -> None:
    is_sqlite = database_url.startswith("sqlite")
    words = {**(ON_SQLITE if is_sqlite else ON_MYSQL), "now": int(time.time())}
    statements = [statement.format(**words) for statement in RELEASES[release]]
    if is_sqlite:
        path: Path = request.getfixturevalue("sqlite_path")
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(f"PRAGMA journal_mode=WAL; {'; '.join(statements)}")
    else:
        for statement in statements:
            query(statement)
    zoe = {"id": 2, "name": "Zoë", "department": "Law", "cgpa": 7.5}
    with serve_database(database_url) as client:
        assert client.get("/students").json() == [{"id": 1, **ANANYA}, zoe]
        repeated = client.post("/student", json=ANANYA, headers={"Idempotency-Key": "old"})
        assert (repeated.status_code, repeated.json()) == (201, {"id": 1, **ANANYA})
        assert client.post("/student", json=ANANYA).json()["id"] == 4
        assert client.put("/student/2", json={**ANANYA, "name": "Zoë"}).status_code == 200
        assert client.get("/students?department=CSE&sort=-id&limit=1").json() == [{"id": 4, **ANANYA}]
    with serve_database(database_url) as client:  # and again, now with what this release has added
        assert [student["id"] for student in client.get("/students").json()] == [1, 2, 4]
    assert query("SELECT count(*) FROM students") == [(3,)]
