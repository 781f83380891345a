"""DELETE /student/{id}."""

from collections.abc import Callable
from typing import Any

import httpx

from tests.conftest import Rows
from tests.service import ANANYA


def test_delete_removes_the_student(client: httpx.Client, ananya: dict[str, Any], query: Callable[..., Rows]) -> None:
    response = client.delete(f"/student/{ananya['id']}")
    assert response.status_code == 200
    assert response.json() == {"message": "Student deleted successfully"}
    assert client.get(f"/student/{ananya['id']}").status_code == 404
    assert query("SELECT * FROM students") == []


def test_a_second_delete_finds_nobody(client: httpx.Client, ananya: dict[str, Any]) -> None:
    assert [client.delete(f"/student/{ananya['id']}").status_code for _ in range(2)] == [200, 404]


def test_delete_leaves_the_other_students(client: httpx.Client, ananya: dict[str, Any]) -> None:
    other = client.post("/student", json=ANANYA).json()
    client.delete(f"/student/{ananya['id']}")
    assert client.get("/students").json() == [other]


def test_delete_runs_one_statement(
    client: httpx.Client, ananya: dict[str, Any], statements: Callable[[], list[str]]
) -> None:
    client.delete(f"/student/{ananya['id']}")
    assert statements() == ["DELETE"]
