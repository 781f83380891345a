"""PUT /student/{id}."""

from typing import Any

import httpx
import pytest

from tests.service import ANANYA

BORIS = {"name": "Boris", "department": "Physics", "cgpa": 7}


def test_update_replaces_all_but_the_id(client: httpx.Client, ananya: dict[str, Any]) -> None:
    other = client.post("/student", json=ANANYA).json()
    response = client.put(f"/student/{ananya['id']}", json=BORIS)
    assert response.status_code == 200
    assert response.text == '{"id":1,"name":"Boris","department":"Physics","cgpa":7.0}'
    assert client.get("/student/1").text == response.text
    assert client.get("/students").json() == [response.json(), other]


def test_response_of_get_can_be_sent_back(client: httpx.Client, ananya: dict[str, Any]) -> None:
    """A row that does not change is a success, not a student that is not there."""
    response = client.put(f"/student/{ananya['id']}", json=client.get(f"/student/{ananya['id']}").json())
    assert (response.status_code, response.json()) == (200, ananya)


@pytest.mark.parametrize("other_id", [2, 0, 10**30])
def test_another_id_in_the_body_is_rejected(client: httpx.Client, ananya: dict[str, Any], other_id: int) -> None:
    response = client.put(f"/student/{ananya['id']}", json={**BORIS, "id": other_id})
    assert response.status_code == 422
    assert response.json()["errors"] == [{"pointer": "/id", "detail": "expected 1, or none"}]
    assert client.get("/students").json() == [ananya]


def test_update_lists_every_problem(client: httpx.Client, ananya: dict[str, Any]) -> None:
    """PUT replaces; a forgotten or misspelt field must not silently keep its old value."""
    response = client.put(f"/student/{ananya['id']}", json={"name": "Boris", "cgpa": 11, "id": 2, "dept": "Physics"})
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == ["/department", "/cgpa", "/id", "/dept"]
    assert client.get("/students").json() == [ananya]
