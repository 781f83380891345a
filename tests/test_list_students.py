"""GET /students."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.conftest import Rows


@pytest.fixture
def students(client: httpx.Client, query: Callable[..., Rows]) -> list[dict[str, Any]]:
    """Two hundred and fifty students, stored behind the service's back."""
    rows = [{"id": n, "name": f"Student {n}", "department": "CSE", "cgpa": n / 100} for n in range(1, 251)]
    values = ", ".join(f"({row['id']}, '{row['name']}', 'CSE', {row['cgpa']})" for row in reversed(rows))
    assert client.get("/students").json() == []
    query(f"INSERT INTO students (id, name, department, cgpa) VALUES {values}")
    return rows


@pytest.mark.parametrize(
    ("query_string", "first", "last"),
    [
        ("", 0, 100),
        ("&&&", 0, 100),
        ("limit=1", 0, 1),
        ("limit=1000", 0, 250),
        ("limit=10&offset=7", 7, 17),
        ("limit=1000&offset=3", 3, 250),  # passes more rows than a short page, so a reader thread runs it
        ("offset=9007199254740991", 250, 250),
    ],
)
def test_list_returns_the_page_in_id_order(
    client: httpx.Client, students: list[dict[str, Any]], query_string: str, first: int, last: int
) -> None:
    response = client.get(f"/students?{query_string}")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == students[first:last]


PARAMETERS = "limit, offset, cursor, sort, department, name, cgpa_min, cgpa_max, count"
BAD_QUERIES = [
    ("limit=0", "'limit': expected an integer from 1 to 1000, got 0"),
    ("limit=1001", "'limit': expected an integer from 1 to 1000, got 1001"),
    ("limit=", "'limit': expected an integer from 1 to 1000, got ''"),
    ("limit=010", "'limit': expected an integer from 1 to 1000, got '010'"),
    ("limit=%2B1", "'limit': expected an integer from 1 to 1000, got '+1'"),
    ("limit=1%D9%A1", "'limit': expected an integer from 1 to 1000, got '1١'"),
    ("limit=" + "9" * 5000, f"'limit': expected an integer from 1 to 1000, got '{'9' * 5000}'"),
    ("offset=-1", "'offset': expected an integer from 0 to 9007199254740991, got -1"),
    ("offset=9007199254740992", "'offset': expected an integer from 0 to 9007199254740991, got 9007199254740992"),
    ("limit=1&limit=2", "'limit': given more than once"),
    ("Limit=1", f"'Limit': not one of this route's ({PARAMETERS})"),
    ("a%00=", f"'a\\x00': not one of this route's ({PARAMETERS})"),
]


@pytest.mark.parametrize(("query_string", "problem"), BAD_QUERIES, ids=lambda value: ascii(value)[:40])
def test_wrong_query_is_rejected_by_name(idle_client: httpx.Client, query_string: str, problem: str) -> None:
    response = idle_client.get(f"/students?{query_string}")
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"
    detail = f"query parameter {problem}"
    assert response.json() == {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": detail}


def test_long_query_is_rejected(idle_client: httpx.Client) -> None:
    response = idle_client.get("/students?limit=1" + "&" * 8192)
    assert (response.status_code, response.json()["detail"]) == (400, "The query is over 8192 bytes")
