"""DELETE /student/{id}."""

from typing import Any

import httpx

from tests.service import ANANYA


def test_delete_removes_one_student(client: httpx.Client, ananya: dict[str, Any]) -> None:
    other = client.post("/student", json=ANANYA).json()
    response = client.delete(f"/student/{ananya['id']}")
    assert (response.status_code, response.json()) == (200, {"message": "Student deleted successfully"})
    assert client.get("/students").json() == [other]
    assert client.delete(f"/student/{ananya['id']}").status_code == 404
