"""PUT /student/{id}."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.conftest import Rows
from tests.service import ANANYA

BORIS = {"name": "Boris", "department": "Physics", "cgpa": 7}


def test_update_replaces_all_but_the_id(
    client: httpx.Client, ananya: dict[str, Any], query: Callable[..., Rows]
) -> None:
    response = client.put(f"/student/{ananya['id']}", json=BORIS)
    assert response.status_code == 200
    assert response.text == '{"id":1,"name":"Boris","department":"Physics","cgpa":7.0}'
    assert client.get("/student/1").text == response.text
    assert query("SELECT * FROM students") == [(1, "Boris", "Physics", 7.0)]


def test_update_leaves_the_other_students(client: httpx.Client, ananya: dict[str, Any]) -> None:
    other = client.post("/student", json=BORIS).json()
    client.put(f"/student/{ananya['id']}", json=BORIS)
    assert client.get(f"/student/{other['id']}").json() == other


def test_what_get_gave_can_be_sent_back(client: httpx.Client, ananya: dict[str, Any]) -> None:
    """A row that does not change is a success, not a student that is not there."""
    for _ in range(2):
        response = client.put(f"/student/{ananya['id']}", json=client.get(f"/student/{ananya['id']}").json())
        assert (response.status_code, response.json()) == (200, ananya)


@pytest.mark.parametrize("other_id", [2, 0, -1, 10**30])
def test_another_id_in_the_body_is_rejected(client: httpx.Client, ananya: dict[str, Any], other_id: int) -> None:
    response = client.put(f"/student/{ananya['id']}", json={**BORIS, "id": other_id})
    assert response.status_code == 422
    assert response.json()["errors"] == [{"pointer": "/id", "detail": "expected 1, or none"}]
    assert client.get("/students").json() == [ananya]


def test_a_wrong_id_is_listed_beside_the_other_problems(client: httpx.Client, ananya: dict[str, Any]) -> None:
    response = client.put(f"/student/{ananya['id']}", json={**BORIS, "id": 2, "cgpa": 11})
    assert [error["pointer"] for error in response.json()["errors"]] == ["/cgpa", "/id"]


def test_update_needs_every_field(client: httpx.Client, ananya: dict[str, Any]) -> None:
    """PUT replaces; a forgotten field must not silently keep its old value."""
    response = client.put(f"/student/{ananya['id']}", json={"name": "Boris"})
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == ["/department", "/cgpa"]
    assert client.get("/students").json() == [ananya]


def test_update_of_nobody_stores_nobody(client: httpx.Client) -> None:
    assert client.put("/student/1", json=ANANYA).status_code == 404
    assert client.get("/students").json() == []


def test_update_runs_one_statement(
    client: httpx.Client, ananya: dict[str, Any], statements: Callable[[], list[str]]
) -> None:
    client.put(f"/student/{ananya['id']}", json=BORIS)
    assert statements() == ["UPDATE"]
