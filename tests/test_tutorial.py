"""Coming from the tutorial: its file and its five calls."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
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
    with closing(sqlite3.connect(sqlite_path)) as connection:
        connection.executescript(TUTORIAL_TABLE)
    with serve_database(sqlite_url) as client:
        yield client


def test_file_of_the_tutorial_is_served_as_it_is(client: httpx.Client, sqlite_path: Path) -> None:
    nobody = {"id": 3, "name": None, "department": None, "cgpa": None}
    assert client.get("/student/3").json() == nobody
    assert client.get("/students").json() == [
        {"id": 1, "name": "Ananya", "department": "CSE", "cgpa": 8.9},
        {"id": 2, "name": "Rahul", "department": "ECE", "cgpa": 8.0},
        nobody,
    ]
    assert client.put("/student/3", json={"name": "Zoë", "department": "Law", "cgpa": 7.5}).status_code == 200
    assert client.post("/student", json={"name": "Priya", "department": "IT", "cgpa": 9.2}).json()["id"] == 4
    assert client.delete("/student/1").json() == {"message": "Student deleted successfully"}
    rows = [(2, "Rahul", "ECE", 8.0), (3, "Zoë", "Law", 7.5), (4, "Priya", "IT", 9.2)]
    assert query_sqlite(sqlite_path, "SELECT * FROM students") == rows
    columns = query_sqlite(sqlite_path, "SELECT name, type FROM pragma_table_info('students')")
    assert columns == [("id", "INTEGER"), ("name", "VARCHAR"), ("department", "VARCHAR"), ("cgpa", "FLOAT")]
