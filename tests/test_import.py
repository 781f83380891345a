"""POST /students/import: what a file changes, what the report says, and what is rejected as a whole."""

import asyncio
import codecs
import csv
import gc
import io
import json
import sqlite3
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import httpx
import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litestar_app.app import create_app
from litestar_app.database.limits import Timeouts
from litestar_app.settings import Settings
from litestar_app.transfer.exceptions import ImportRejectedError
from tests.conftest import Rows
from tests.files import make_xlsx
from tests.mariadb import MariaDB, open_session
from tests.service import ANANYA, serve_database
from tests.test_bodies import BAD_TEXTS, CGPA, EMPTY, TEXT

CSV, NDJSON, JSON, XLSX = (
    "text/csv",
    "application/x-ndjson",
    "application/json",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
)
TABS, JSONL = "text/tab-separated-values", "application/jsonl"
HEADER = "name,department,cgpa\r\n"
ID = "expected an integer, the id of a student, or an empty cell"
UNKNOWN = "no student has this id; leave it empty to create a student"
REJECTED = "A row is rejected, so nothing was imported; errors lists the problems"
KEY = {"Idempotency-Key": "4a1f-once"}
STORED = [(1, "Ananya", "CSE", 8.9), (2, "Boris", "ECE", 7.4), (3, "Boris", "ECE", 6.0), (5, "Dora", "CSE", 9.5)]
SELECT = "SELECT id, name, department, cgpa FROM students ORDER BY id"
NULLABLE = "id INTEGER PRIMARY KEY {}, name VARCHAR(100), department VARCHAR(100), cgpa DOUBLE"
Query = Callable[..., Rows]


def send(client: httpx.Client, content: str | bytes, kind: str = CSV, **options: Any) -> httpx.Response:
    """Import a file; `options` are headers and the parameters of the query."""
    headers = {"Content-Type": kind, **options.pop("headers", {})}
    return client.post("/students/import", content=content, headers=headers, params=options)


def upload(client: httpx.Client, content: bytes, name: str, kind: str, **params: Any) -> httpx.Response:
    """Import a file as a form of a browser does."""
    return client.post("/students/import", files={"file": (name, content, kind)}, params=params)


def make_report(**members: Any) -> dict[str, Any]:
    """Make a whole report, in the order of its members."""
    counts = dict.fromkeys(
        ("created", "updated", "unchanged", "rejected", "renamed", "duplicates", "blank", "above_header"), 0
    )
    empty: dict[str, Any] = {
        "import": None,
        "dry_run": False,
        **counts,
        "ignored_columns": [],
        "ignored_sheets": [],
        "changes": [],
        "errors": [],
    }
    assert set(members) <= set(empty)
    return {**empty, **members}


def make_error(row: int, column: str | None, value: str, detail: str) -> dict[str, Any]:
    return {"row": row, "column": column, "value": value, "detail": detail}


def make_change(row: int, before: tuple[Any, ...] | None, after: tuple[Any, ...]) -> dict[str, Any]:
    """Make the change of a row: of a student with an id, or of a new one, which has none yet."""
    student_id = None if before is None else before[0]
    names = ("id", "name", "department", "cgpa")
    return {
        "row": row,
        "id": student_id,
        "before": None if before is None else dict(zip(names, before, strict=True)),
        "after": dict(zip(names, (student_id, *after), strict=True)),
    }


def make_problem(status: int, title: str, detail: str, **members: Any) -> dict[str, Any]:
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **members}


def assert_imported(response: httpx.Response, **members: Any) -> None:
    number = response.json()["import"]
    assert (number is None) is members.get("dry_run", False)
    report = {**make_report(**members), "import": number}
    assert response.text == json.dumps(report, ensure_ascii=False, separators=(",", ":"))
    assert (response.status_code, response.headers["Content-Type"]) == (200, JSON)
    assert response.headers["Cache-Control"] == "no-store"


def assert_rejected(response: httpx.Response, **members: Any) -> None:
    expected = make_problem(422, "Unprocessable Content", REJECTED, **make_report(**members))
    assert response.text == json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
    assert (response.status_code, response.headers["Content-Type"]) == (422, "application/problem+json")
    assert response.headers["Cache-Control"] == "no-store"


@pytest.fixture
def read(query: Query) -> Callable[[], Rows]:
    """Read all students behind the service's back."""
    return lambda: query(SELECT)


def store(query: Query, students: Sequence[tuple[Any, ...]]) -> None:
    if students:
        marks = ", ".join(["(?, ?, ?, ?)"] * len(students))
        query(
            f"INSERT INTO students (id, name, department, cgpa) VALUES {marks}",
            *(value for student in students for value in student),
        )


@pytest.fixture
def stored(client: httpx.Client, query: Query) -> httpx.Client:
    """A client of a service that has four students, two of them namesakes."""
    store(query, STORED)
    return client


@pytest.fixture
def other_table(database_url: str, query: Query) -> Iterator[httpx.Client]:
    """A client of a service on a table of another program, with NULLs."""
    sqlite = database_url.startswith("sqlite")
    query(f"CREATE TABLE students ({NULLABLE.format('' if sqlite else 'AUTO_INCREMENT')})")
    store(query, [(1, None, "CSE", 8.9), (2, "Boris", None, None), (3, None, None, None)])
    with serve_database(database_url) as client:
        yield client


@pytest.fixture
def locked_for_writers(
    database_url: str, request: pytest.FixtureRequest, locked: Callable[[], AbstractContextManager[Any]]
) -> Callable[[], AbstractContextManager[Any]]:
    """Make a lock on all students under which they can be read."""
    if not database_url.startswith("sqlite"):
        return locked

    @contextmanager
    def lock() -> Iterator[None]:
        path = request.getfixturevalue("sqlite_path")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    return lock


def test_rows_are_created_in_their_order(client: httpx.Client, read: Callable[[], Rows]) -> None:
    """In one step of ten thousand rows and across them."""
    content = HEADER + "".join(f"student {number},CSE,{number % 11}\r\n" for number in range(10_500))
    assert_imported(send(client, content), created=10_500)
    assert [row[1:] for row in read()] == [(f"student {n}", "CSE", float(n % 11)) for n in range(10_500)]


def test_row_with_an_id_updates_that_student(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    content = "ID, Cgpa ,DEPARTMENT,name\r\n5,9.4,CSE,Dora\r\n,1,X,New\r\n1,8.9,CSE,Ananya\r\n2,7.4,EEE, Boris\r\n"
    assert_imported(send(stored, content), created=1, updated=2, unchanged=1)
    assert read() == [STORED[0], (2, "Boris", "EEE", 7.4), STORED[2], (5, "Dora", "CSE", 9.4), (6, "New", "X", 1.0)]


@pytest.mark.parametrize("row", ["4,x,y,1", "9223372036854775807,x,y,1", "-1,x,y,1", "0,x,y,1"])
def test_unknown_id_is_an_error(stored: httpx.Client, read: Callable[[], Rows], row: str) -> None:
    errors = [make_error(3, "id", row.partition(",")[0], UNKNOWN)]
    assert_rejected(send(stored, f"id,{HEADER}1,New name,CSE,1\r\n{row}\r\n"), unchanged=0, rejected=1, errors=errors)
    assert read() == STORED


def test_missing_columns_stay_as_they_are(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    assert_imported(send(stored, "id,cgpa\r\n1,9\r\n2,7.4\r\n"), updated=1, unchanged=1)
    rows = '{"id": 5, "name": "Dorothea"}\n{"id": 1, "cgpa": 9}\n'
    assert_imported(send(stored, rows, NDJSON), updated=1, renamed=1, unchanged=1)
    assert read() == [(1, "Ananya", "CSE", 9.0), *STORED[1:3], (5, "Dorothea", "CSE", 9.5)]


def test_row_without_id_needs_every_column(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    errors = [make_error(3, column, "", f"missing; expected {TEXT}") for column in ("name", "department")]
    assert_rejected(send(stored, "id,cgpa\r\n1,9\r\n,9\r\n"), rejected=1, errors=errors)
    assert read() == STORED


def test_empty_cell_is_an_error(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    content = f"id,{HEADER}1,,CSE,\r\n,Eve,,1\r\n5,Dora,CSE,9.5\r\n"
    errors = [
        make_error(2, "name", "", EMPTY),
        make_error(2, "cgpa", "", f"empty; expected {CGPA}"),
        make_error(3, "department", "", EMPTY),
    ]
    assert_rejected(send(stored, content), unchanged=1, rejected=2, errors=errors)
    assert read() == STORED


def test_empty_cell_of_a_null_stays_null(other_table: httpx.Client, read: Callable[[], Rows]) -> None:
    """So that an export of a table of another program comes back, and can be completed."""
    export = other_table.get("/students/export").text
    assert export == f"id,{HEADER}1,,CSE,8.9\r\n2,Boris,,\r\n3,,,\r\n"
    assert_imported(send(other_table, export), unchanged=3)
    edited = export.replace("2,Boris,,\r\n", "2,Boris,,7.4\r\n").replace("1,,CSE", "1,Ananya,CSE")
    assert_imported(send(other_table, edited), updated=2, renamed=1, unchanged=1)
    assert read() == [(1, "Ananya", "CSE", 8.9), (2, "Boris", None, 7.4), (3, None, None, None)]
    errors = [make_error(2, "name", "", EMPTY)]
    assert_rejected(send(other_table, f"id,{HEADER}1,,CSE,8.9\r\n"), rejected=1, errors=errors)


FOREIGN = [
    (1, "", "CSE", 95.0),
    (2, "A  B", " CSE", 8.9),
    (3, "Jose\u0301", "C\u00a0S ", -1.0),
    (4, "a\x07b", "Jos\ufffd", 10.000000001),
    (5, "\u200b", "a\tb", 25 / 3),
    (6, "x" * 143, "=1  +1", 1e300),
    (7, None, "", None),
    (8, " 't  Hooft", '"A"  "B"', 0.0),
]


@pytest.fixture
def foreign_table(database_url: str, query: Query) -> Iterator[httpx.Client]:
    """A client of a service on a table of another program, with texts and numbers that break our rules."""
    sqlite = database_url.startswith("sqlite")
    texts = "name VARCHAR(200), department VARCHAR(200), cgpa DOUBLE"
    key, charset = ("", "") if sqlite else ("AUTO_INCREMENT", "CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    query(f"CREATE TABLE students (id INTEGER PRIMARY KEY {key}, {texts}) {charset}")
    store(query, FOREIGN)
    with serve_database(database_url) as client:
        yield client


BLANK = ["\t", "\n", "\r\n", "\u3000", "\u00a0 ", " \t", "\x0b", "  ", "\u2028"]


@pytest.mark.parametrize(("kind", "media_type"), [("csv", CSV), ("ndjson", NDJSON), ("xlsx", XLSX)])
def test_exported_white_space_is_unchanged(
    client: httpx.Client, query: Query, read: Callable[[], Rows], kind: str, media_type: str
) -> None:
    """An empty cell, or other white space, stands for it no more than for another text."""
    students = [(number, text, f"{text}CSE", 5.0) for number, text in enumerate(BLANK, 1)]
    students += [(number + 20, "A", text, 5.0) for number, text in enumerate(BLANK)]
    store(query, students)
    content = client.get("/students/export", params={"format": kind}).content
    assert_imported(send(client, content, media_type), unchanged=len(students))
    for cell in ('""', '"  "', '"\n"'):
        for row in (f"id,name\r\n1,{cell}\r\n", f"name,department,cgpa\r\n{cell},CSE,1\r\n"):
            (error,) = send(client, row).json()["errors"]
            assert (error["row"], error["column"], error["detail"]) == (2, "name", EMPTY)
    assert read() == students


@pytest.mark.parametrize(("kind", "media_type"), [("csv", CSV), ("ndjson", NDJSON), ("xlsx", XLSX)])
def test_exported_blobs_are_unchanged(
    sqlite_url: str, query_file: Callable[..., Rows], kind: str, media_type: str
) -> None:
    """SQLite may hold them where texts belong. One that is not UTF-8 is an error, since a file cannot have it."""
    query_file("CREATE TABLE students (id INTEGER PRIMARY KEY, name VARCHAR, department VARCHAR, cgpa FLOAT)")
    query_file("INSERT INTO students VALUES (1, X'416E6E', 'CSE', 8), (2, 'Bob', X'4353FF45', 7), (3, X'', 'ECE', 6)")
    students = query_file(SELECT)
    with serve_database(sqlite_url) as client:
        content = client.get("/students/export", params={"format": kind}).content
        if kind == "csv":
            assert content.decode().splitlines()[1:] == ["1,Ann,CSE,8.0", "2,Bob,CS\ufffdE,7.0", "3,,ECE,6.0"]
        errors = [make_error(2 if kind == "ndjson" else 3, "department", "CS\ufffdE", BAD_TEXTS["Jos\ufffd"])]
        response = send(client, content, media_type, mode="valid")
        assert_imported(response, unchanged=2, rejected=1, errors=errors)
        assert query_file(SELECT) == students


@pytest.mark.parametrize("kind", ["csv", "ndjson", "xlsx"])
def test_exported_rows_of_another_program_are_unchanged(
    foreign_table: httpx.Client, read: Callable[[], Rows], kind: str
) -> None:
    """A cell that equals what is stored is unchanged, even if it breaks a rule."""
    media_type = {"csv": CSV, "xlsx": XLSX, "ndjson": NDJSON}[kind]
    content = foreign_table.get("/students/export", params={"format": kind}).content
    assert_imported(send(foreign_table, content, media_type, dry_run=True), dry_run=True, unchanged=len(FOREIGN))
    assert_imported(send(foreign_table, content, media_type), unchanged=len(FOREIGN))
    assert read() == FOREIGN


def test_edit_of_a_row_of_another_program_changes_that_cell(
    foreign_table: httpx.Client, read: Callable[[], Rows]
) -> None:
    """What is edited obeys the rules, and is normalised; what is not stays as it is."""
    rows = [dict(zip(("id", "name", "department", "cgpa"), student, strict=True)) for student in FOREIGN]
    edits: dict[int, tuple[str, Any, Any]] = {
        1: ("cgpa", 9.5, 9.5), 2: ("department", "C  S  E", "C S E"), 3: ("name", "Jose\u0301 ", "José"),
        4: ("cgpa", 10, 10.0), 5: ("name", "Eve", "Eve"), 6: ("name", "y", "y"), 7: ("name", "Zoe\u0308", "Zoë"),
    }  # fmt: skip
    expected = [list(student) for student in FOREIGN]
    for number, (field, sent, stored) in edits.items():
        rows[number - 1][field] = sent
        expected[number - 1][("id", "name", "department", "cgpa").index(field)] = stored
    dry = send(foreign_table, json.dumps(rows), JSON, dry_run=True).json()
    assert [tuple(change["after"].values()) for change in dry["changes"]] == [tuple(row) for row in expected[:7]]
    assert_imported(send(foreign_table, json.dumps(rows), JSON), updated=7, renamed=4, unchanged=1)
    assert read() == [tuple(row) for row in expected]


def test_broken_rule_of_an_edit_is_that_cells_error(foreign_table: httpx.Client, read: Callable[[], Rows]) -> None:
    """One for each cell, in the order of the rows; cells beside it that are as stored are none."""
    rows = [
        '{"id": 1, "name": "", "department": "CSE", "cgpa": 96}',
        '{"id": 4, "name": "a\\u0007c", "department": "Jos\ufffd", "cgpa": 10.000000001}',
        '{"id": 6, "cgpa": 1e301}',
        '{"id": 99, "name": "a\\u0007b"}',
        '{"name": "a\\u0007b", "department": "Jos\ufffd", "cgpa": 11}',
        '{"id": 2, "name": "A  B", "department": " CSE", "cgpa": 9}',
    ]
    bell = BAD_TEXTS["a\x07b"]
    errors = [
        make_error(1, "cgpa", "96", f"expected {CGPA}"),
        make_error(2, "name", "a\x07c", bell),
        make_error(3, "cgpa", "1e301", f"expected {CGPA}"),
        make_error(4, "id", "99", UNKNOWN),
        make_error(4, "name", "a\x07b", bell),
        make_error(5, "name", "a\x07b", bell),
        make_error(5, "department", "Jos\ufffd", BAD_TEXTS["Jos\ufffd"]),
        make_error(5, "cgpa", "11", f"expected {CGPA}"),
    ]
    content = "\n".join(rows)
    assert_rejected(send(foreign_table, content, NDJSON), rejected=5, errors=errors)
    assert read() == FOREIGN
    response = send(foreign_table, content, NDJSON, headers={"Accept": "text/csv"})
    lines = list(csv.reader(io.StringIO(response.content.decode("utf-8-sig"), newline="")))
    assert [line[-1] for line in lines[1:4]] == [f"cgpa: expected {CGPA}", f"name: {bell}", f"cgpa: expected {CGPA}"]
    assert lines[4][-1] == f"id: {UNKNOWN}; name: {bell}"
    assert_imported(send(foreign_table, content, NDJSON, mode="valid"), updated=1, rejected=5, errors=errors)
    assert read() == [*FOREIGN[:1], (2, "A  B", " CSE", 9.0), *FOREIGN[2:]]


def test_match_by_a_name_that_is_not_normalised(foreign_table: httpx.Client, read: Callable[[], Rows]) -> None:
    """The student is found by what is stored, and by what would be."""
    rows: list[dict[str, Any]] = [
        {"name": "A  B", "department": " CSE", "cgpa": 9},
        {"name": "Jose\u0301", "department": "C\u00a0S ", "cgpa": -1},
        {"name": "a\x07b", "department": "Jos\ufffd", "cgpa": 1},
        {"name": "Jose\u0301", "department": "C  S", "cgpa": 2},
    ]
    response = send(foreign_table, json.dumps(rows), JSON, match="name,department", mode="valid")
    twin = "the same student as in row 2"
    assert_imported(response, updated=2, unchanged=1, rejected=1, errors=[make_error(4, None, "", twin)])
    assert read()[1:4] == [(2, "A  B", " CSE", 9.0), FOREIGN[2], (4, "a\x07b", "Jos\ufffd", 1.0)]
    unknown = [{"name": "a\x07b", "department": "X", "cgpa": 1}]
    errors = [make_error(1, "name", "a\x07b", BAD_TEXTS["a\x07b"])]
    assert_rejected(send(foreign_table, json.dumps(unknown), JSON, match="name,department"), rejected=1, errors=errors)


@pytest.mark.parametrize(("normal", "sent"), [("A B", "A  B"), ("Jos\u00e9", "Jose\u0301"), ("A B", "A\u00a0B")])
def test_match_prefers_the_student_who_is_stored_as_sent(
    client: httpx.Client, query: Query, read: Callable[[], Rows], normal: str, sent: str
) -> None:
    """To the one who is stored as the texts would be once normalised; two who are stored as sent are an error."""
    students = [(number, text, f"{text} Department", 5.0) for number, text in enumerate([normal, sent], 1)]
    store(query, students)
    as_sent, as_normal = ({"name": student[1], "department": student[2]} for student in reversed(students))
    content = json.dumps([{**as_sent, "cgpa": 7}])
    assert_imported(send(client, content, JSON, match="name,department"), updated=1)
    assert read() == [students[0], (*students[1][:3], 7.0)]
    content = json.dumps([{**as_normal, "cgpa": 6}])
    assert_imported(send(client, content, JSON, match="name,department"), updated=1)
    assert read() == [(*students[0][:3], 6.0), (*students[1][:3], 7.0)]
    store(query, [(3, *students[1][1:])])
    content = json.dumps([{**as_sent, "cgpa": 8}])
    errors = [make_error(1, None, "", "2 students have this name and department; name one by its id")]
    assert_rejected(send(client, content, JSON, match="name,department"), rejected=1, errors=errors)


def test_infinity_of_another_program_is_unchanged(sqlite_url: str, query_file: Callable[..., Rows]) -> None:
    """SQLite may hold it; MySQL has none, so there it is an error, and no failure."""
    query_file("CREATE TABLE students (id INTEGER PRIMARY KEY, name VARCHAR, department VARCHAR, cgpa FLOAT)")
    query_file("INSERT INTO students VALUES (1, 'A', 'B', 9e999), (2, 'A', 'C', -9e999)")
    with serve_database(sqlite_url) as client:
        for kind, media_type in (("csv", CSV), ("ndjson", NDJSON)):
            content = client.get("/students/export", params={"format": kind}).content
            assert_imported(send(client, content, media_type), unchanged=2)


def test_infinity_is_an_error(stored: httpx.Client) -> None:
    for number in ("inf", "-inf"):
        errors = [make_error(2, "cgpa", number, f"expected {CGPA}")]
        assert_rejected(send(stored, f"id,cgpa\r\n1,{number}\r\n"), rejected=1, errors=errors)


def test_composed_and_decomposed_names_are_one_student(client: httpx.Client, read: Callable[[], Rows]) -> None:
    rows = "name;department;cgpa\nJos{};CSE;8\n"
    assert_imported(send(client, rows.format("é")), created=1)
    assert_imported(send(client, rows.format("e\u0301"), match="name,department"), unchanged=1)
    assert_imported(send(client, rows.format("e\u0301")), created=1, duplicates=1)
    assert read() == [(1, "José", "CSE", 8.0), (2, "José", "CSE", 8.0)]


def test_dry_run_shows_the_cgpa_that_will_be_stored(
    client: httpx.Client, query: Query, read: Callable[[], Rows]
) -> None:
    """A cell that a spreadsheet has rounded is not written, beside one that is."""
    store(query, [(1, "Ananya", "CSE", 9.999999999999998), (2, "Boris", "ECE", 25 / 3), (3, "Cy", "X", 1.0)])
    for content, kind in (
        ("id,name,department,cgpa\r\n1,Ana,CSE,10\r\n2,Boris,EEE,8.33333333333333\r\n3,Cy,X,-0\r\n", CSV),
        (
            make_xlsx([["id", "name", "department", "cgpa"], [1, "Ana", "EEE", 10], [2, "Bo", "X", 8.33333333333333]]),
            XLSX,
        ),
        ('{"id": 1, "name": "Ana", "cgpa": 10}\n{"id": 2, "cgpa": 8.33333333333333}\n', NDJSON),
    ):
        before = read()
        dry = send(client, content, kind, dry_run=True).json()
        assert read() == before
        assert send(client, content, kind).status_code == 200
        stored = {row[0]: row for row in read()}
        assert dry["changes"]
        for change in dry["changes"]:
            assert tuple(change["after"].values()) == stored[change["id"]]


def test_match_by_name_and_department(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    """Ids are ignored; letters of another case are another student, on every database."""
    content = f"id,{HEADER}77,Ananya,CSE,9\r\n1,Dora,CSE,9.5\r\n,ananya,CSE,1\r\n,Ananya,cse,2\r\n"
    response = send(stored, content, match="name,department")
    assert_imported(response, created=2, updated=1, unchanged=1, ignored_columns=["id"])
    created = [(6, "ananya", "CSE", 1.0), (7, "Ananya", "cse", 2.0)]
    assert read() == [(1, "Ananya", "CSE", 9.0), *STORED[1:], *created]


def test_two_students_that_match_are_an_error(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    errors = [make_error(3, None, "", "2 students have this name and department; name one by its id")]
    response = send(stored, f"{HEADER}Eve,CSE,9\r\nBoris,ECE,1\r\n", match="name,department")
    assert_rejected(response, rejected=1, errors=errors)
    assert read() == STORED


def test_match_none_creates_every_row(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    """As when an export is loaded into another database."""
    response = send(stored, stored.get("/students/export").text, match="none")
    assert_imported(response, created=4, duplicates=4, ignored_columns=["id"])
    assert read() == [*STORED, *((number, *row[1:]) for number, row in enumerate(STORED, 6))]


@pytest.mark.parametrize("match", ["none", "name,department"])
def test_match_without_id_needs_every_column(stored: httpx.Client, read: Callable[[], Rows], match: str) -> None:
    response = send(stored, "id,name,cgpa\r\n1,x,1\r\n", match=match)
    detail = f"match={match} needs a column for each of name, department, cgpa; department is missing"
    assert (response.status_code, response.json()) == (422, make_problem(422, "Unprocessable Content", detail))
    assert read() == STORED


def test_same_student_twice_is_an_error_of_the_second(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    by_id = f"id,{HEADER}1,Ananya,CSE,8.8\r\n5,Dora,CSE,9.5\r\n1,Ananya,CSE,8.7\r\n1,Ananya,CSE,8.6\r\n"
    twin = "the same student as in row 2"
    errors = [make_error(4, "id", "1", twin), make_error(5, "id", "1", twin)]
    assert_imported(send(stored, by_id, mode="valid"), updated=1, unchanged=1, rejected=2, errors=errors)
    by_name = f"{HEADER}Eve,CSE,1\r\nEVE,CSE,3\r\n Eve,CSE ,2\r\n"
    response = send(stored, by_name, mode="valid", match="name,department")
    assert_imported(response, created=2, rejected=1, errors=[make_error(4, None, "", twin)])
    created = [(6, "Eve", "CSE", 1.0), (7, "EVE", "CSE", 3.0)]
    assert read() == [(1, "Ananya", "CSE", 8.8), *STORED[1:], *created]


def test_duplicates_are_created_rows_with_a_namesake(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    """As when a file without ids is imported again; they are reported and stored."""
    content = f"{HEADER}Ananya,CSE,1\r\nBoris,ECE,2\r\nAnanya,ECE,3\r\n"
    assert_imported(send(stored, content), created=3, duplicates=2)
    assert_imported(send(stored, content), created=3, duplicates=3)
    assert len(read()) == len(STORED) + 6


def test_duplicates_are_created_rows_with_the_name_of_an_earlier_row(stored: httpx.Client) -> None:
    """Normalised, and of rows that are written: a rejected one is no student."""
    twice = f"{HEADER}Eve,CSE,1\r\n Eve , CSE,2\r\nEve,ECE,3\r\nEve,CSE,4\r\nBoris,ECE,5\r\n"
    created = [("Eve", "CSE"), ("Eve", "CSE"), ("Eve", "ECE"), ("Eve", "CSE"), ("Boris", "ECE")]
    changes = [
        make_change(row, None, (name, department, float(row - 1))) for row, (name, department) in enumerate(created, 2)
    ]
    assert_imported(send(stored, twice, dry_run=True), dry_run=True, created=5, duplicates=3, changes=changes)
    assert_imported(send(stored, twice), created=5, duplicates=3)
    rejected = f"{HEADER}New,CSE,11\r\nNew,CSE,2\r\n"
    report = send(stored, rejected, mode="valid").json()
    assert (report["created"], report["rejected"], report["duplicates"]) == (1, 1, 0)
    renamed = f"id,{HEADER}1,Zoe,CSE,1\r\n,Zoe,CSE,1\r\n"
    assert_imported(send(stored, renamed), created=1, updated=1, renamed=1, duplicates=1)
    by_name = f"{HEADER}Uma,CSE,1\r\nUma,CSE,1\r\n"
    report = send(stored, by_name, mode="valid", match="name,department").json()
    assert (report["created"], report["rejected"], report["duplicates"]) == (1, 1, 0)


BAD = f"id,{HEADER}1,Ana,CSE,9\r\n,x,y,11\r\n4,x,y,1\r\n,\t,y,z\r\n,Eve,X,1\r\nA,x,y,1\r\n"
BAD_ERRORS = [
    make_error(3, "cgpa", "11", f"expected {CGPA}"),
    make_error(4, "id", "4", UNKNOWN),
    make_error(5, "name", "\t", EMPTY),
    make_error(5, "cgpa", "z", f"expected {CGPA}"),
    make_error(7, "id", "A", ID),
]


def test_mode_valid_writes_the_good_rows(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    assert_imported(send(stored, BAD, mode="valid"), created=1, updated=1, renamed=1, rejected=4, errors=BAD_ERRORS)
    assert read() == [(1, "Ana", "CSE", 9.0), *STORED[1:], (6, "Eve", "X", 1.0)]


def test_dry_run_shows_changes_and_writes_nothing(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    before = dict(zip(("id", "name", "department", "cgpa"), STORED[0], strict=True))
    changes = [
        {"row": 2, "id": 1, "before": before, "after": {"id": 1, "name": "Ana", "department": "CSE", "cgpa": 9.0}},
        {"row": 6, "id": None, "before": None, "after": {"id": None, "name": "Eve", "department": "X", "cgpa": 1.0}},
    ]
    members: Any = {"dry_run": True, "rejected": 4, "errors": BAD_ERRORS, "changes": changes}
    assert_imported(send(stored, BAD, mode="valid", dry_run=True), created=1, updated=1, renamed=1, **members)
    assert_rejected(send(stored, BAD, dry_run=True), **members)
    kept = [{"row": 3, "id": 1, "before": before, "after": {**before, "cgpa": 9.0}}]  # what has no column
    response = send(stored, "id,cgpa\r\n5,9.5\r\n1,9\r\n", dry_run=True)
    assert_imported(response, dry_run=True, updated=1, unchanged=1, changes=kept)
    assert read() == STORED


def test_dry_run_lists_a_thousand_changes(client: httpx.Client, read: Callable[[], Rows]) -> None:
    report = send(client, HEADER + "x,y,1\r\n" * 1001, dry_run=True).json()
    assert [change["row"] for change in report.pop("changes")] == list(range(2, 1002))
    assert report == {
        name: value
        for name, value in make_report(dry_run=True, created=1001, duplicates=1000).items()
        if name != "changes"
    }
    assert read() == []


def test_thousand_errors_are_listed_and_all_counted(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    """In the order of the rows, whichever step has found them."""
    content = f"id,{HEADER}" + "9,x,y,1\r\n,x,y,11\r\n" * 600
    twin = "the same student as in row 2"
    both = [
        (make_error(2 * n, "id", "9", twin), make_error(2 * n + 1, "cgpa", "11", f"expected {CGPA}"))
        for n in range(1, 501)
    ]
    errors = [error for pair in both for error in pair]
    errors[0] = make_error(2, "id", "9", UNKNOWN)
    assert_rejected(send(stored, content), rejected=1200, errors=errors)
    assert read() == STORED


def test_values_are_cut_at_a_hundred_characters(client: httpx.Client) -> None:
    errors = [make_error(2, "name", "é" * 100, BAD_TEXTS["x" * 101])]
    assert_rejected(send(client, f"{HEADER}{'é' * 101},y,1\r\n"), rejected=1, errors=errors)


def test_blank_rows_and_columns_of_others_are_reported(client: httpx.Client, read: Callable[[], Rows]) -> None:
    content = "Email,name,department,Büro,cgpa,\r\n\r\na@x,Ananya,CSE,,8.9,\r\n,,,,,\r\n ,Boris,ECE,1,7.4\r\n\r\n"
    assert_imported(send(client, content), created=2, blank=3, ignored_columns=["Email", "Büro"])
    assert read() == [(1, "Ananya", "CSE", 8.9), (2, "Boris", "ECE", 7.4)]


def test_file_without_rows_changes_nothing(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    for content, kind in ((HEADER, CSV), ("[]", JSON), (make_xlsx([["name", "department", "cgpa"]]), XLSX)):
        assert_imported(send(stored, content, kind))
    assert read() == STORED


ROW = {"name": "Ananya", "department": "CSE", "cgpa": 8.9}
SHEET = make_xlsx([["name", "department", "cgpa"], ["Ananya", "CSE", 8.9]])
FILES = {
    "CSV": (f"{HEADER}Ananya,CSE,8.9\r\n".encode(), CSV),
    "CSV in another case": (f"{HEADER}Ananya,CSE,8.9\r\n".encode(), "Text/CSV; header=present"),
    "semicolons": (b"name;department;cgpa\nAnanya;CSE;8,9\n", CSV),
    "sep=": (b'sep=;\nname;department;cgpa\n"Ananya";CSE;8,9\n', CSV),
    "tabs in UTF-16": ("\ufeffname\tdepartment\tcgpa\rAnanya\tCSE\t8,9\r".encode("utf-16-le"), CSV),
    "tabs by their media type": (b"name\tdepartment\tcgpa\nAnanya\tCSE\t8,9\n", TABS),
    "NDJSON": (json.dumps(ROW).encode() + b"\n", NDJSON),
    "JSON lines": (json.dumps(ROW).encode() + b"\n", JSONL),
    "JSON": (json.dumps([ROW]).encode(), JSON),
    "xlsx": (SHEET, XLSX),
}


@pytest.mark.parametrize(("content", "kind"), FILES.values(), ids=FILES)
def test_every_media_type_is_imported(
    client: httpx.Client, read: Callable[[], Rows], content: bytes, kind: str
) -> None:
    assert_imported(send(client, content, kind), created=1)
    assert read() == [(1, "Ananya", "CSE", 8.9)]


@pytest.mark.parametrize(("content", "_kind"), FILES.values(), ids=FILES)
def test_content_of_a_form_decides(client: httpx.Client, read: Callable[[], Rows], content: bytes, _kind: str) -> None:
    """Windows says `application/vnd.ms-excel` for CSV."""
    for number, kind in enumerate(("application/vnd.ms-excel", "application/octet-stream", ""), 1):
        assert_imported(
            upload(client, content, "students.csv", kind, match="none"), created=1, duplicates=min(1, number - 1)
        )
    assert read() == [(number, "Ananya", "CSE", 8.9) for number in (1, 2, 3)]


def test_charset_of_the_query_comes_first(client: httpx.Client, read: Callable[[], Rows]) -> None:
    """Then that of the Content-Type; a byte order mark comes before both."""
    content = f"{HEADER}José,Ökologie,9\r\n"
    latin = content.encode("windows-1252")
    assert_imported(send(client, latin, f"{CSV}; charset=windows-1252"), created=1)
    assert_imported(send(client, latin, f"{CSV}; charset=utf-8", charset="windows-1252"), created=1, duplicates=1)
    assert_imported(send(client, content.encode("utf-8-sig"), CSV, charset="windows-1252"), created=1, duplicates=2 - 1)
    assert_imported(upload(client, latin, "a.csv", CSV, charset="windows-1252"), created=1, duplicates=1)
    assert_imported(upload(client, latin, "a.csv", f"{CSV}; charset=windows-1252"), created=1, duplicates=1)
    response = send(client, latin)
    assert (response.status_code, response.json()["title"]) == (422, "Unprocessable Content")
    assert read() == [(number, "José", "Ökologie", 9.0) for number in (1, 2, 3, 4, 5)]


UNREADABLE = {
    "no header": (
        b"Grades of 2026\n",
        CSV,
        (
            "Row 1 is not a header with the columns name, department, cgpa and perhaps id: it lacks name, department, "
            "cgpa and has “Grades of 2026”. The header must be one of the first 20 rows"
        ),
    ),
    "JSON cut off": (b'[{"id": 1, "cgpa": 9}', JSON, "After element 1: the JSON array is not closed"),
}


@pytest.mark.parametrize(("content", "kind", "detail"), UNREADABLE.values(), ids=UNREADABLE)
def test_file_that_cannot_be_read_is_a_422(
    stored: httpx.Client, read: Callable[[], Rows], content: bytes, kind: str, detail: str
) -> None:
    for accept in ("*/*", "text/csv"):
        response = send(stored, content, kind, headers={"Accept": accept})
        assert (response.status_code, response.json()) == (422, make_problem(422, "Unprocessable Content", detail))
        assert response.headers["Content-Type"] == "application/problem+json"
    assert read() == STORED


KINDS = f"{CSV}, {TABS}, {NDJSON}, {JSONL}, {JSON}, {XLSX}, multipart/form-data"
EXPECTED = f"Expected a file with Content-Type: {KINDS}; no Content-Encoding"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/vnd.ms-excel"},
        {"Content-Type": ""},
        {},
        {"Content-Type": CSV, "Content-Encoding": "gzip"},
    ],
)
def test_other_media_types_are_a_415(client: httpx.Client, read: Callable[[], Rows], headers: dict[str, str]) -> None:
    response = client.post("/students/import", content=f"{HEADER}x,y,1\r\n".encode(), headers=headers)
    assert response.status_code == 415
    assert response.json() == make_problem(415, "Unsupported Media Type", EXPECTED)
    assert read() == []


def test_old_workbook_is_a_415(client: httpx.Client) -> None:
    ole = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(512)
    detail = (
        "The file is encrypted, or a spreadsheet of the old format (.xls); "
        "save it as .xlsx (Excel workbook) or as CSV UTF-8, without a password"
    )
    for response in (
        send(client, ole, XLSX),
        send(client, ole),
        upload(client, ole, "a.xls", "application/vnd.ms-excel"),
    ):
        assert (response.status_code, response.json()) == (415, make_problem(415, "Unsupported Media Type", detail))


NOT_OURS = "not one of this route's (dry_run, mode, match, charset)"


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ("mode=some", "'mode': expected all or valid, got 'some'"),
        ("match=", "'match': expected id, none or name,department, got ''"),
        ("match=name", "'match': expected id, none or name,department, got 'name'"),
        ("dry_run=perhaps", "'dry_run': expected true or false, got 'perhaps'"),
        ("dry-run=true", f"'dry-run': {NOT_OURS}"),
        ("format=csv", f"'format': {NOT_OURS}"),
        ("mode=all&mode=valid", "'mode': given more than once"),
    ],
)
def test_impossible_query_is_a_400(idle_client: httpx.Client, params: str, problem: str) -> None:
    response = idle_client.post(
        f"/students/import?{params}", content=f"{HEADER}x,y,1\r\n", headers={"Content-Type": CSV}
    )
    assert (response.status_code, response.headers["Content-Type"]) == (400, "application/problem+json")
    assert response.json() == make_problem(400, "Bad Request", f"query parameter {problem}")
    assert idle_client.get("/students").json() == []


FORM_ERROR = "Expected a form with one file, in the part named file"
FORMS: dict[str, Any] = {
    "no file": {"files": {"other": ("a.csv", b"x", CSV)}},
    "two files": {"files": [("file", ("a.csv", b"x", CSV)), ("file", ("b.csv", b"x", CSV))]},
    "text": {"files": {"file": (None, b"x")}},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_form_without_one_file_is_a_400(client: httpx.Client, read: Callable[[], Rows], form: dict[str, Any]) -> None:
    response = client.post("/students/import", **form)
    assert (response.status_code, response.json()) == (400, make_problem(400, "Bad Request", FORM_ERROR))
    assert read() == []


FIELD = b'--b\r\nContent-Disposition: form-data; name="other"'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"x"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", FIELD + b"\r\n\r\n\xff\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", FIELD + b"\r\nContent-Type: text/plain; charset=x\r\n\r\nx\r\n--b--\r\n"),
    ],
)
def test_damaged_form_is_a_400(client: httpx.Client, kind: str, body: bytes) -> None:
    response = client.post("/students/import", content=body, headers={"Content-Type": kind})
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"


def test_form_of_many_parts_is_a_400(client: httpx.Client) -> None:
    response = client.post("/students/import", files=[(f"a{number}", (None, b"x")) for number in range(1001)])
    detail = "The form has more than 1000 parts, or one with too long a header"
    assert (response.status_code, response.json()) == (400, make_problem(400, "Bad Request", detail))


@pytest.mark.parametrize("part", ['name="file"', 'name="file"; filename="a.csv"', 'name="other"; filename="a.csv"'])
def test_no_part_of_a_form_is_held_in_memory(sqlite_url: str, part: str) -> None:
    app = create_app(Settings(database_url=sqlite_url))
    chunks = [
        f"--b\r\nContent-Disposition: form-data; {part}\r\n\r\n".encode(),
        *[b" " * 65536] * 256,
        b"\r\n--b--\r\n",
    ]
    messages = iter([{"type": "http.request", "body": chunk, "more_body": chunk[-4:] != b"--\r\n"} for chunk in chunks])
    statuses: list[int] = []

    async def receive() -> Any:
        if (message := next(messages, None)) is None:
            await asyncio.Event().wait()
        return message

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    async def call() -> int:
        scope: Any = {"type": "http", "method": "POST", "path": "/students/import", "query_string": b""}
        headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b")]
        async with app.lifespan():
            tracemalloc.start()
            try:
                await app(scope | {"headers": headers, "client": ("127.0.0.1", 1)}, receive, send)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    assert asyncio.run(call()) < 8 * 1024 * 1024
    assert statuses == [422 if "a.csv" in part and "other" not in part else 400]


def test_file_of_many_short_rejected_rows_is_a_422(idle_client: httpx.Client) -> None:
    """Of a row of two bytes, a thousand cells would be written as rejected."""
    columns = ",".join(map(str, range(900)))
    response = send(idle_client, f"{columns},{HEADER}" + "x\n" * 5000, mode="valid", headers={"Accept": "text/csv"})
    assert (response.status_code, response.json().keys()) == (422, {"type", "title", "status", "detail"})
    assert "rows up to row" in response.json()["detail"]
    response = send(idle_client, f"{columns},{HEADER}" + "x\n" * 500, dry_run=True, headers={"Accept": "text/csv"})
    assert response.content.count(b"\n") == 501


MAX_BODY = 64 * 1024 * 1024 + 64 * 1024


def test_file_over_the_limit_is_a_413(client: httpx.Client, read: Callable[[], Rows]) -> None:
    """The limit is that of the file; a form may have a little around it."""
    content = f"{HEADER}x,y,1\r\n".encode() + b" " * 64 * 1024 * 1024
    detail = "The file is over 64 MiB"
    for response in (send(client, content), upload(client, content, "a.csv", CSV)):
        assert (response.status_code, response.json()) == (413, make_problem(413, "Content Too Large", detail))
    assert read() == []


def test_body_over_the_limit_is_a_413(client: httpx.Client, read: Callable[[], Rows]) -> None:
    """Where its length is not told, it is counted while it arrives."""
    detail = "The file is over 64 MiB"

    def stream() -> Iterator[bytes]:
        for _ in range(MAX_BODY // 65536 + 1):
            yield b" " * 65536

    for content in (b" " * (MAX_BODY + 1), stream()):
        try:
            response = client.post("/students/import", content=content, headers={"Content-Type": CSV})
        except httpx.WriteError:  # the service has closed before all was sent
            continue
        assert (response.status_code, response.json()) == (413, make_problem(413, "Content Too Large", detail))
    assert read() == []


def test_rejected_rows_are_corrected_and_sent_again(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    """All of them, however many, and with every problem; what was good is imported once."""
    many = "".join(f"n{number},X,1{number}\r\n" for number in range(1500))
    content = f"name,department,cgpa,note\r\nAna,CSE,9,\r\n'=x,ECE,11,\"a\r\nb\"\r\n,ECE,z,'@n\r\n{many}"
    response = send(stored, content, mode="valid", headers={"Accept": "text/csv"})
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == 'attachment; filename="rejected.csv"'
    assert response.headers["Cache-Control"] == "no-store"
    assert response.content.startswith(codecs.BOM_UTF8)  # which comes before the charset of whoever sends it again
    lines = list(csv.reader(io.StringIO(response.content.decode("utf-8-sig"), newline=""), strict=True))
    assert lines[:4] == [
        ["name", "department", "cgpa", "note", "error"],
        ["'=x", "ECE", "11", "a\r\nb", f"cgpa: expected {CGPA}"],
        ["", "ECE", "z", "'@n", f"name: {EMPTY}; cgpa: expected {CGPA}"],
        ["n1", "X", "11", "", f"cgpa: expected {CGPA}"],
    ]
    assert len(lines) == 1 + 2 + 1499
    assert read() == [*STORED, (6, "Ana", "CSE", 9.0), (7, "n0", "X", 10.0)]
    corrected = [[*line[:2], "1", *line[3:]] for line in lines[1:]]
    corrected[1][0] = "Eve"
    text = io.StringIO(newline="")
    csv.writer(text).writerows([lines[0], *corrected])
    again = send(stored, text.getvalue())
    assert_imported(again, created=1501, ignored_columns=["note", "error"])
    assert [row[1:] for row in read()[6:8]] == [("=x", "ECE", 1.0), ("Eve", "ECE", 1.0)]
    assert len(read()) == 4 + 2 + 1501


def test_rejected_rows_of_mode_all_are_a_422_file(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    """Only they: the others were right, but nothing was written."""
    response = send(stored, f"id,{HEADER}1,Ana,CSE,9\r\n4,x,y,1\r\n", headers={"Accept": "text/csv"})
    assert (response.status_code, response.headers["Content-Type"]) == (422, "text/csv; charset=utf-8")
    assert response.text == f"\ufeffid,name,department,cgpa,error\r\n4,x,y,1,id: {UNKNOWN}\r\n"
    assert read() == STORED
    nothing = send(stored, f"id,{HEADER}1,Ana,CSE,9\r\n", headers={"Accept": "text/csv"})
    assert (nothing.status_code, nothing.text) == (200, "\ufeffid,name,department,cgpa,error\r\n")
    assert read() == [(1, "Ana", "CSE", 9.0), *STORED[1:]]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("Text/CSV", "text/csv; charset=utf-8"),
        ("text/*", "text/csv; charset=utf-8"),
        ("application/json, text/csv", "text/csv; charset=utf-8"),
        ("text/csv ; q=0.5, */*;q=0.1", "text/csv; charset=utf-8"),
        ("application/json, text/csv;q=0", JSON),
        ("application/json, text/csv;q=0.9", JSON),
        ("text/csv;q=0, text/*", JSON),
        ("text/csvx, text/html, */*;q=0.8", JSON),
        (", ;q, text/csv;q=1e999", "text/csv; charset=utf-8"),
    ],
)
def test_rejected_rows_are_for_who_prefers_csv(idle_client: httpx.Client, accept: str, kind: str) -> None:
    response = send(idle_client, HEADER, headers={"Accept": accept})
    assert (response.status_code, response.headers["Content-Type"]) == (200, kind)


def test_same_key_returns_the_first_report(stored: httpx.Client, database_url: str, read: Callable[[], Rows]) -> None:
    """After other changes and a restart too, with errors and all."""
    first = send(stored, BAD, mode="valid", headers=KEY)
    assert_imported(first, created=1, updated=1, renamed=1, rejected=4, errors=BAD_ERRORS)
    assert stored.delete("/student/1").status_code == 200
    assert send(stored, BAD, mode="valid", headers=KEY).text == first.text
    with serve_database(database_url) as restarted:
        assert send(restarted, BAD, mode="valid", headers=KEY).text == first.text
    assert read() == [*STORED[1:], (6, "Eve", "X", 1.0)]


def test_report_of_an_earlier_release_is_returned(stored: httpx.Client, query: Query) -> None:
    """It has no such members."""
    content = f"Title\r\nid,{HEADER}1,Ana,CSE,9\r\n"
    first = send(stored, content, headers=KEY).json()
    assert (first["renamed"], first["above_header"]) == (1, 1)
    old = {name: value for name, value in first.items() if name not in {"renamed", "above_header"}}
    query("UPDATE idempotency_keys SET answer = ?", json.dumps(old))
    assert send(stored, content, headers=KEY).json() == {**first, "renamed": 0, "above_header": 0}


def test_accept_is_no_other_request(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    """The rejected rows are found again, and what is stored lists a thousand problems at most."""
    rows = "".join(f"{number},x,D,5\r\n" for number in range(100, 1600))
    as_csv = KEY | {"Accept": "text/csv"}
    first = send(stored, f"id,{HEADER}{rows},Eve,D,5\r\n", mode="valid", headers=as_csv)
    assert (first.status_code, first.text.count("\n")) == (200, 1501)
    report = send(stored, f"id,{HEADER}{rows},Eve,D,5\r\n", mode="valid", headers=KEY).json()
    assert (report["created"], report["rejected"], len(report["errors"])) == (1, 1500, 1000)
    assert len(read()) == len(STORED) + 1


def test_long_report_is_kept_in_a_table_of_version_1_0(mysql_url: str, mysql_query: Query) -> None:
    """Its column for responses had room for 64 KB."""
    rows = "".join(f"{'x' * 100},CSE,{'9' * 100}\r\n" for _ in range(400))
    with serve_database(mysql_url):
        mysql_query("ALTER TABLE idempotency_keys MODIFY answer TEXT NOT NULL")
    with serve_database(mysql_url) as client:
        first, again = [send(client, HEADER + rows, mode="valid", headers=KEY) for _ in range(2)]
    assert (first.status_code, first.json()["rejected"], len(first.content) > 2**16) == (200, 400, True)
    assert (again.status_code, again.text) == (200, first.text)


def test_rejected_import_writes_nothing_and_keeps_no_key(stored: httpx.Client, read: Callable[[], Rows]) -> None:
    """So the corrected file may have the same key."""
    assert_rejected(send(stored, BAD, headers=KEY), rejected=4, errors=BAD_ERRORS)
    assert read() == STORED
    assert_imported(send(stored, "id,cgpa\r\n1,9\r\n", headers=KEY), updated=1)
    assert read() == [(1, "Ananya", "CSE", 9.0), *STORED[1:]]


OTHERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "body": (f"{HEADER}x,y,2\r\n", CSV, {}),
    "mode": (f"{HEADER}x,y,1\r\n", CSV, {"mode": "valid"}),
    "match": (f"{HEADER}x,y,1\r\n", CSV, {"match": "none"}),
    "dry run": (f"{HEADER}x,y,1\r\n", CSV, {"dry_run": True}),
    "charset": (f"{HEADER}x,y,1\r\n", f"{CSV}; charset=windows-1252", {}),
}
REUSED = "This Idempotency-Key was used with another request; use a new one"


@pytest.mark.parametrize(("content", "kind", "params"), OTHERS.values(), ids=OTHERS)
def test_same_key_with_another_import_is_a_422(
    client: httpx.Client, read: Callable[[], Rows], content: str, kind: str, params: dict[str, Any]
) -> None:
    assert_imported(send(client, f"{HEADER}x,y,1\r\n", headers=KEY), created=1)
    response = send(client, content, kind, headers=KEY, **params)
    assert (response.status_code, response.json()) == (422, make_problem(422, "Unprocessable Content", REUSED))
    form = client.post("/students/import", files={"file": ("a.csv", f"{HEADER}x,y,1\r\n".encode(), CSV)}, headers=KEY)
    assert (form.status_code, form.json()) == (422, make_problem(422, "Unprocessable Content", REUSED))
    student = client.post("/student", json=ROW, headers=KEY)
    assert (student.status_code, student.json()) == (422, make_problem(422, "Unprocessable Content", REUSED))
    assert read() == [(1, "x", "y", 1.0)]


def test_key_of_a_student_is_no_key_of_an_import(client: httpx.Client, read: Callable[[], Rows]) -> None:
    assert client.post("/student", json=ROW, headers=KEY).status_code == 201
    response = send(client, f"{HEADER}x,y,1\r\n", headers=KEY)
    assert (response.status_code, response.json()) == (422, make_problem(422, "Unprocessable Content", REUSED))
    assert read() == [(1, "Ananya", "CSE", 8.9)]


def test_second_import_while_the_first_runs_is_a_409(
    stored: httpx.Client, read: Callable[[], Rows], locked: Callable[[], AbstractContextManager[Any]]
) -> None:
    content = "id,cgpa\r\n1,9\r\n"
    with ThreadPoolExecutor(2) as pool:
        with locked():
            both = [pool.submit(send, stored, content, headers=KEY) for _ in range(2)]
            (second,), (first,) = wait(both, return_when=FIRST_COMPLETED)
        detail = "The first request with this Idempotency-Key is still running"
        assert (second.result().status_code, second.result().json()) == (409, make_problem(409, "Conflict", detail))
        assert_imported(first.result(), updated=1)
    assert read() == [(1, "Ananya", "CSE", 9.0), *STORED[1:]]


def test_reads_go_on_while_an_import_waits(
    stored: httpx.Client, read: Callable[[], Rows], locked_for_writers: Callable[[], AbstractContextManager[Any]]
) -> None:
    """An import that waits for a lock is merged when it is released, and reads go on meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        with locked_for_writers():
            importing = pool.submit(send, stored, "id,cgpa\r\n1,9\r\n")
            for _ in range(20):
                assert stored.get("/student/1").json()["cgpa"] == 8.9
            assert not importing.done()
        assert_imported(importing.result(), updated=1)
    assert read() == [(1, "Ananya", "CSE", 9.0), *STORED[1:]]


def test_twins_are_found_by_one_statement(
    client: httpx.Client, read: Callable[[], Rows], statements: Callable[[], list[str]]
) -> None:
    """However many there are; each row but the first of its student is rejected."""
    rows = "".join(f"N{number % 1000},D,5\r\n" for number in range(3000))
    statements()
    report = send(client, HEADER + rows, match="name,department", mode="valid").json()
    assert statements().count("SELECT") < 15
    assert (report["created"], report["rejected"]) == (1000, 2000)
    assert report["errors"][0] == make_error(1002, None, "", "the same student as in row 2")
    assert [name for _, name, *_ in read()] == [f"N{number}" for number in range(1000)]


def test_imports_at_once_create_each_student_once(client: httpx.Client, read: Callable[[], Rows]) -> None:
    """Each finds those whom the one before it has created."""
    content = HEADER + "".join(f"N{number},D,5\r\n" for number in range(2000))
    with ThreadPoolExecutor(3) as pool:
        responses = list(pool.map(lambda _: send(client, content, match="name,department"), range(3)))
    counts = sorted((response.json()["created"], response.json()["unchanged"]) for response in responses)
    assert counts == [(0, 2000), (0, 2000), (2000, 0)]
    assert len(read()) == 2000


def test_every_row_is_counted_while_others_delete(client: httpx.Client, query: Query) -> None:
    """A student who is deleted between two statements of the merge is a row with an unknown id."""
    count = 3000
    store(query, [(number, f"N{number}", "D", 5.0) for number in range(1, count + 1)])
    content = "id,cgpa\r\n" + "".join(f"{number},{6 + number % 3}\r\n" for number in range(1, count + 1))
    with ThreadPoolExecutor(4) as pool:
        importing = pool.submit(send, client, content, mode="valid")
        deleting = [pool.submit(client.delete, f"/student/{number}") for number in range(1, count, 7)]
        report = importing.result().json()
    assert {response.result().status_code for response in deleting} == {200}
    assert sum(report[name] for name in ("created", "updated", "unchanged", "rejected")) == count


def test_import_waits_for_a_rename(mariadb: MariaDB, mysql_url: str) -> None:
    """Who has another name afterwards is not the student of the row."""
    with serve_database(mysql_url) as client, ThreadPoolExecutor(1) as pool:
        client.post("/student", json=ANANYA)
        with open_session(mariadb, mysql_url, "UPDATE students SET name = 'Renamed'") as session:
            row = HEADER + "Ananya,CSE,2\r\n"
            imported = pool.submit(send, client, row, match="name,department")
            mariadb.wait_for_lock(imported)
            session.commit()
        report = imported.result().json()
        assert (report["created"], report["updated"]) == (1, 0)
        students = client.get("/students").json()
    assert students == [{"id": 1, **ANANYA, "name": "Renamed"}, {"id": 2, **ANANYA, "cgpa": 2.0}]


def test_cgpa_that_a_spreadsheet_has_rounded_is_unchanged(client: httpx.Client, query: Query) -> None:
    """LibreOffice and Excel keep 15 digits; a file of another program says what it means."""
    third = 25 / 3
    foreign = [(4, "Di", "CSE", 269 / 3), (5, "Ed", "CSE", 2e20 / 3), (6, "Flo", "CSE", -269 / 3)]
    store(query, [(1, "Ananya", "CSE", third), (2, "Boris", "CSE", 2 / 3), (3, "Cy", "CSE", 10.0), *foreign])
    rounded = "id,cgpa\r\n1,8.33333333333333\r\n2,0.666666666666667\r\n3,10\r\n"
    rounded += "4,89.6666666666667\r\n5,6.66666666666667E+19\r\n6,-89.6666666666667\r\n"
    assert_imported(send(client, rounded), unchanged=6)
    errors = [make_error(2, "cgpa", "89.66666666667", f"expected {CGPA}")]
    assert_rejected(send(client, "id,cgpa\r\n4,89.66666666667\r\n"), rejected=1, errors=errors)
    assert_imported(send(client, make_xlsx([["id", "cgpa"], [1, 8.33333333333333]]), XLSX), unchanged=1)
    assert client.get("/student/1").json()["cgpa"] == third
    assert_imported(send(client, '{"id": 1, "cgpa": 8.33333333333333}\n', NDJSON), updated=1)
    assert_imported(send(client, "id,cgpa\r\n1,8.33333333333334\r\n"), updated=1)
    assert client.get("/student/1").json()["cgpa"] == 8.33333333333334


NAMES = ["=1+1", "'=x", "''=x", "'t Hooft", "-x", "+x", "@x", "＝x", "'＝x", "'", "a,b", 'a"b', "0", "é\u200dx"]


@pytest.mark.parametrize("kind", ["csv", "xlsx", "ndjson"])
def test_edit_of_one_cell_changes_that_student(
    client: httpx.Client, query: Query, read: Callable[[], Rows], kind: str
) -> None:
    """And no name loses its apostrophe or becomes a formula."""
    students = [(number, name, name[::-1] + "x", 8.9) for number, name in enumerate(NAMES, 1)]
    store(query, students)
    content = client.get("/students/export", params={"format": kind}).content
    media_type = {"csv": CSV, "xlsx": XLSX, "ndjson": NDJSON}[kind]
    assert_imported(send(client, content, media_type), unchanged=len(NAMES))
    if kind == "xlsx":
        workbook = openpyxl.load_workbook(io.BytesIO(content))
        sheet = workbook.active
        assert sheet is not None
        sheet["D5"] = 9.25
        workbook.save(file := io.BytesIO())
        edited = file.getvalue()
    else:
        lines = content.splitlines(keepends=True)
        at = 3 if kind == "ndjson" else 4
        lines[at] = lines[at].replace(b"8.9", b"9.25")
        edited = b"".join(lines)
    assert_imported(send(client, edited, media_type), updated=1, unchanged=len(NAMES) - 1)
    assert read() == [(*student[:3], 9.25 if student[0] == 4 else 8.9) for student in students]


FIELDS = ("name", "department", "cgpa")
names = st.sampled_from(["A", "a", "É"])
departments = st.sampled_from(["X", "x"])
grades = st.sampled_from([1.0, 2.0])
existing = st.dictionaries(
    st.integers(1, 6), st.tuples(st.none() | names, st.none() | departments, st.none() | grades), max_size=5
)
rows = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.none() | st.integers(1, 7),
            "name": st.none() | names,
            "department": st.none() | departments,
            "cgpa": st.none() | grades,
        },
    ),
    max_size=6,
)
Values = tuple[Any, ...]
Model = tuple[dict[str, int], list[int], dict[int, Values], list[Values]]


def model(stored: dict[int, Values], sent: list[dict[str, Any]], match: str, mode: str) -> Model:
    """Import in plain Python: the counts, the rejected rows, the students by id, and those that are created."""
    counts = dict.fromkeys(("created", "updated", "unchanged", "rejected", "renamed", "duplicates"), 0)
    pairs: set[Any] = set()
    after, created, rejected, seen = dict(stored), [], [], set()
    for position, row in enumerate(sent, 1):
        given_id = row.get("id") if match == "id" else None
        complete = all(row.get(field) is not None for field in FIELDS)
        if given_id is None and not complete:
            rejected.append(position)
            continue
        key: Any = given_id if match == "id" else (row["name"], row["department"])
        is_twin = match != "none" and key is not None and key in seen
        seen.add(key)
        same = [number for number, student in stored.items() if student[:2] == (row.get("name"), row.get("department"))]
        found = {"id": [given_id] if given_id in stored else [], "none": [], "name,department": same}[match]
        if is_twin or len(found) > 1 or (given_id is not None and not found):
            rejected.append(position)
        elif not found:
            created.append(tuple(row[field] for field in FIELDS))
            counts["created"] += 1
            counts["duplicates"] += bool(same) or created[-1][:2] in pairs
            pairs.add(created[-1][:2])
        else:
            old = stored[found[0]]
            new = tuple(row.get(field, value) for field, value in zip(FIELDS, old, strict=True))
            if any(value is None and before is not None for value, before in zip(new, old, strict=True)):
                rejected.append(position)
            else:
                after[found[0]] = new
                counts["unchanged" if new == old else "updated"] += 1
                counts["renamed"] += new[0] != old[0]
                pairs.add((row.get("name"), row.get("department")))
    counts["rejected"] = len(rejected)
    if rejected and mode == "all":
        return {**counts, "created": 0, "updated": 0, "renamed": 0, "duplicates": 0}, rejected, stored, []
    return counts, rejected, after, created


modes = st.tuples(st.sampled_from(["id", "none", "name,department"]), st.sampled_from(["all", "valid"]))


@given(students=existing, sent=rows, modes=modes)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_import_is_what_plain_python_does(
    other_table: httpx.Client,
    query: Query,
    students: dict[int, Values],
    sent: list[dict[str, Any]],
    modes: tuple[str, str],
) -> None:
    match, mode = modes
    query("DELETE FROM students")
    store(query, [(number, *student) for number, student in students.items()])
    counts, rejected, after, created = model(students, sent, match, mode)
    dry = send(other_table, json.dumps(sent), JSON, match=match, mode=mode, dry_run=True)
    assert query(SELECT) == sorted((number, *student) for number, student in students.items())
    response = send(other_table, json.dumps(sent), JSON, match=match, mode=mode)
    assert response.status_code == dry.status_code == (422 if rejected and mode == "all" else 200)
    report = response.json()
    assert {name: report[name] for name in counts} == counts
    assert {name: dry.json()[name] for name in counts} == counts
    assert sorted({error["row"] for error in report["errors"]}) == rejected
    rows = query(SELECT)
    assert rows[: len(after)] == sorted((number, *student) for number, student in after.items())
    assert [row[1:] for row in rows[len(after) :]] == created


def test_import_that_waits_for_its_turn_holds_up_nobody(mariadb: MariaDB, mysql_url: str) -> None:
    """Writes beside it wait for a lock as long as ever; only beside a merge, which has locks itself, is it longer."""
    with serve_database(mysql_url, Timeouts(lock=1)) as client, ThreadPoolExecutor(1) as pool:
        assert client.post("/student", json=ANANYA).status_code == 201
        with open_session(mariadb, mysql_url, "SELECT GET_LOCK(CONCAT(DATABASE(), '.import'), 5)"):
            content, headers = b"name,department,cgpa\nA,CSE,1\n", {"Content-Type": "text/csv"}
            importing = pool.submit(client.post, "/students/import", content=content, headers=headers)
            waiting = "SELECT 1 FROM information_schema.processlist WHERE info LIKE 'SELECT GET_LOCK%'"
            while not mariadb.execute(waiting):
                assert not importing.done()
            with open_session(mariadb, mysql_url, "SELECT * FROM students FOR UPDATE"):
                assert client.patch("/student/1", json={"cgpa": 1}).status_code == 503
            assert not importing.done()
        assert importing.result().json()["created"] == 1


def test_rejected_import_leaves_nothing_for_the_garbage_collector(client: httpx.Client) -> None:
    """Which comes late; an error that referred to itself would keep all that has been read until then."""
    gc.collect()
    gc.disable()
    try:
        assert send(client, "name,department,cgpa\nAnanya,CSE,95\n").status_code == 422
        deadline = time.monotonic() + 30
        while any(isinstance(one, ImportRejectedError) for one in gc.get_objects()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        gc.enable()
