"""Coming from the tutorial: its file, its five calls, its names."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import query_sqlite
from tests.service import serve_database

# what SQLAlchemy makes of the tutorial's Column(Integer, primary_key=True, index=True), Column(String), Column(Float)
TUTORIAL_TABLE = """
CREATE TABLE students (id INTEGER NOT NULL, name VARCHAR, department VARCHAR, cgpa FLOAT, PRIMARY KEY (id));
CREATE INDEX ix_students_id ON students (id);
INSERT INTO students (name, department, cgpa) VALUES ('Ananya', 'CSE', 8.9), ('Rahul', 'ECE', 8), (NULL, NULL, NULL);
"""


@pytest.fixture
def client(sqlite_path: Path, sqlite_url: str) -> Iterator[httpx.Client]:
    connection = sqlite3.connect(sqlite_path)
    connection.executescript(TUTORIAL_TABLE)
    connection.close()
    with serve_database(sqlite_url) as client:
        yield client


def test_a_file_of_the_tutorial_is_served_as_it_is(client: httpx.Client) -> None:
    assert client.get("/students").json() == [
        {"id": 1, "name": "Ananya", "department": "CSE", "cgpa": 8.9},
        {"id": 2, "name": "Rahul", "department": "ECE", "cgpa": 8.0},
        {"id": 3, "name": None, "department": None, "cgpa": None},
    ]
    assert client.get("/student/3").json() == {"id": 3, "name": None, "department": None, "cgpa": None}


def test_its_table_stays_as_it_is(client: httpx.Client, sqlite_path: Path) -> None:
    client.put("/student/3", json={"name": "Zoë", "department": "Law", "cgpa": 7.5})
    columns = query_sqlite(sqlite_path, "SELECT name, type FROM pragma_table_info('students')")
    assert columns == [("id", "INTEGER"), ("name", "VARCHAR"), ("department", "VARCHAR"), ("cgpa", "FLOAT")]
    assert query_sqlite(sqlite_path, "SELECT * FROM students WHERE id = 3") == [(3, "Zoë", "Law", 7.5)]


def test_the_five_calls_of_its_client_work(client: httpx.Client) -> None:
    """Written as a reader of the tutorial writes it: no headers, no pages, any 2xx is fine."""
    created = client.post("/student", json={"name": "Priya", "department": "IT", "cgpa": 9.2})
    assert created.is_success
    student = created.json()
    assert student == {"id": 4, "name": "Priya", "department": "IT", "cgpa": 9.2}
    assert student in client.get("/students").json()
    assert client.get(f"/student/{student['id']}").json() == student
    updated = client.put(f"/student/{student['id']}", json={"name": "Priya", "department": "AI", "cgpa": 9.5})
    assert updated.json() == {"id": 4, "name": "Priya", "department": "AI", "cgpa": 9.5}
    assert client.delete(f"/student/{student['id']}").json() == {"message": "Student deleted successfully"}
    missing = client.get(f"/student/{student['id']}")
    assert (missing.status_code, missing.json()["detail"]) == (404, "Student not found")
