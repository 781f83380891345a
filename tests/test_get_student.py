"""GET and HEAD /student/{id}."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.service import ANANYA

NOT_FOUND = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "Student not found"}


def test_get_returns_the_student(client: httpx.Client, ananya: dict[str, Any]) -> None:
    response = client.get(f"/student/{ananya['id']}")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.text == '{"id":1,"name":"Ananya","department":"CSE","cgpa":8.9}'


ODD_IDS = [
    "0", "2", "-1", "-0", "01", "+1", "1_0", "1.0", "1e0", "1 ", " 1", "0x1", "abc", "null", "true", "١", "1%00", "%FF",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "99999999999999999999", "9" * 5000, "🎓", "'",
    ";",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_an_id_that_names_no_student_is_not_found(client: httpx.Client, ananya: dict[str, Any], method: str) -> None:
    """However large or odd it is, and by every method."""
    for student_id in ODD_IDS:
        response = client.request(method, f"/student/{student_id}", json=ANANYA if method == "PUT" else None)
        assert response.status_code == 404, student_id
        assert response.headers["Content-Type"] == "application/problem+json"
        assert method == "HEAD" or response.json() == NOT_FOUND
    assert client.get("/students").json() == [ananya]


def test_head_answers_as_get_does_without_a_body(client: httpx.Client, ananya: dict[str, Any]) -> None:
    path = f"/student/{ananya['id']}"
    get, head = client.get(path), client.head(path)
    assert head.status_code == 200
    assert head.content == b""
    ours = {"content-type", "content-length"}
    assert {name: head.headers[name] for name in ours} == {name: get.headers[name] for name in ours}


def test_get_runs_one_statement(
    client: httpx.Client, ananya: dict[str, Any], statements: Callable[[], list[str]]
) -> None:
    client.get(f"/student/{ananya['id']}")
    assert statements() == ["SELECT"]
