"""POST /student."""

from collections.abc import Callable

import httpx
import pytest

from tests.conftest import Rows
from tests.service import ANANYA, serve_database


def test_create_answers_with_the_student_and_its_place(client: httpx.Client) -> None:
    response = client.post("/student", json=ANANYA)
    assert response.status_code == 201
    assert response.json() == {"id": 1, **ANANYA}
    assert response.headers["Location"] == "/student/1"
    assert client.get(response.headers["Location"]).json() == response.json()


def test_create_stores_exactly_four_columns(client: httpx.Client, query: Callable[..., Rows]) -> None:
    client.post("/student", json=ANANYA)
    assert query("SELECT * FROM students") == [(1, "Ananya", "CSE", 8.9)]


def test_create_trims_white_space_at_both_ends(client: httpx.Client) -> None:
    response = client.post("/student", json={"name": " \t\u2003Mary  Ann\n", "department": " CSE ", "cgpa": 8.9})
    assert response.json() == {"id": 1, "name": "Mary  Ann", "department": "CSE", "cgpa": 8.9}


@pytest.mark.parametrize(
    "name",
    [
        "x",
        "x" * 100,
        "é" * 100,
        "𝒜" * 100,
        "👩‍🎓 Zoë",
        "O'Brien; DROP TABLE students",
        "%_\\",
        "ﬁ",
        "日本語",
        "مريم",
        "می\u200cخواهم",
    ],
)
def test_create_takes_every_name_as_it_is(client: httpx.Client, name: str) -> None:
    response = client.post("/student", json={**ANANYA, "name": name})
    assert response.status_code == 201
    assert client.get("/student/1").json() == {"id": 1, **ANANYA, "name": name}


@pytest.mark.parametrize("cgpa", [0, 10, 8.9, 0.1, 9.999999999999999, 5e-324, 1e-10, 7.123456789012345])
def test_create_keeps_every_bit_of_a_cgpa(client: httpx.Client, query: Callable[..., Rows], cgpa: float) -> None:
    response = client.post("/student", json={**ANANYA, "cgpa": cgpa})
    assert response.json()["cgpa"] == cgpa
    assert client.get("/student/1").json()["cgpa"] == cgpa
    assert query("SELECT id FROM students WHERE cgpa = ?", cgpa) == [(1,)]


def test_create_stores_minus_zero_as_zero(client: httpx.Client) -> None:
    body = '{"name": "Ananya", "department": "CSE", "cgpa": -0.0}'
    response = client.post("/student", content=body, headers={"Content-Type": "application/json"})
    assert response.text == '{"id":1,"name":"Ananya","department":"CSE","cgpa":0.0}'
    assert client.get("/student/1").text == response.text


def test_create_rejects_an_id(client: httpx.Client) -> None:
    """The database gives ids; a body that brings one is a mistake that must not pass silently."""
    response = client.post("/student", json={"id": 7, **ANANYA})
    assert response.status_code == 422
    assert response.json()["errors"] == [
        {"pointer": "/id", "detail": "no such field; expected only name, department, cgpa"}
    ]
    assert client.get("/students").json() == []


def test_ids_are_never_given_twice(client: httpx.Client, database_url: str) -> None:
    """Not after a delete, and not after a restart of the service."""
    assert [client.post("/student", json=ANANYA).json()["id"] for _ in range(3)] == [1, 2, 3]
    assert client.delete("/student/3").status_code == 200
    assert client.post("/student", json=ANANYA).json()["id"] == 4
    assert client.delete("/student/4").status_code == 200
    with serve_database(database_url) as restarted:
        assert restarted.post("/student", json=ANANYA).json()["id"] == 5


def test_create_runs_one_statement(client: httpx.Client, statements: Callable[[], list[str]]) -> None:
    client.post("/student", json=ANANYA)
    assert statements() == ["INSERT"]
