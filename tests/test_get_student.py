"""GET /student/{id}, and ids that name no student."""

import itertools
from typing import Any

import httpx
import pytest

from tests.service import ANANYA

NOT_FOUND = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "Student not found"}
ODD_IDS = [
    "0", "2", "-1", "01", "+1", "1_0", "1.0", "1e0", " 1", "abc", "١", "1%00", "%FF", "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", "9" * 5000, "🎓", "'",
]  # fmt: skip


def test_get_returns_the_student(client: httpx.Client, ananya: dict[str, Any]) -> None:
    response = client.get(f"/student/{ananya['id']}")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.text == '{"id":1,"name":"Ananya","department":"CSE","cgpa":8.9}'


@pytest.mark.parametrize(
    ("method", "body"), [("GET", None), ("HEAD", None), ("PUT", ANANYA), ("PATCH", ANANYA), ("DELETE", None)]
)
def test_unknown_id_is_not_found(client: httpx.Client, ananya: dict[str, Any], method: str, body: Any) -> None:
    """However large or odd it is, by every method, and whatever version the client names."""
    for student_id, version in itertools.product(ODD_IDS, ["*", '"x"']):
        headers = {"If-Match": version, "If-None-Match": version}
        response = client.request(method, f"/student/{student_id}", json=body, headers=headers)
        assert response.status_code == 404, student_id
        assert response.headers["Content-Type"] == "application/problem+json"
        assert method == "HEAD" or response.json() == NOT_FOUND
    assert client.get("/students").json() == [ananya]
