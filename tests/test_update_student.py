"""PUT /student/{id}."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.conftest import Rows
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


@pytest.mark.parametrize("number", ["1.0", "1e0", "10E-1"])
@pytest.mark.usefixtures("ananya")
def test_id_may_be_written_as_a_float(client: httpx.Client, number: str) -> None:
    """As pandas does; every other rule holds."""
    headers = {"Content-Type": "application/json"}
    body = f'{{"id": {number}, "name": "Boris", "department": "Physics", "cgpa": 7}}'
    assert client.put("/student/1", content=body, headers=headers).json() == {"id": 1, **BORIS}
    response = client.put("/student/1", content=body.replace("7}", "11}"), headers=headers)
    assert [error["pointer"] for error in response.json()["errors"]] == ["/cgpa"]
    response = client.put("/student/1", content=body.replace(number, "1.5"), headers=headers)
    assert [error["pointer"] for error in response.json()["errors"]] == ["/id"]


def test_text_that_is_sent_as_it_is_stored_stays(
    client: httpx.Client, ananya: dict[str, Any], query: Callable[..., Rows]
) -> None:
    """Of a table of another program, or an earlier release: who edits the CGPA does not edit the name."""
    stored = {**ananya, "name": "Jose\u0301  Mary", "department": "C\u00a0SE"}
    query("UPDATE students SET name = ?, department = ?", stored["name"], stored["department"])
    tag = client.get("/student/1").headers["ETag"]
    same = client.put("/student/1", json=stored)
    assert (same.json(), same.headers["ETag"]) == (stored, tag)
    assert client.patch("/student/1", json={"name": stored["name"]}).headers["ETag"] == tag
    assert client.put("/student/1", json={**stored, "cgpa": 7}).json() == {**stored, "cgpa": 7}
    assert client.patch("/student/1", json={"name": "Jose\u0301 Mary"}).json()["name"] == "José Mary"
    assert query("SELECT name, department, cgpa FROM students") == [("José Mary", "C\u00a0SE", 7.0)]


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
