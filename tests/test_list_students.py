"""GET and HEAD /students."""

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


def test_an_empty_table_is_an_empty_array(client: httpx.Client) -> None:
    response = client.get("/students")
    assert (response.status_code, response.text) == (200, "[]")


def test_list_gives_the_first_hundred_in_the_order_of_ids(client: httpx.Client, students: list[dict[str, Any]]) -> None:
    response = client.get("/students")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == students[:100]


@pytest.mark.parametrize(
    ("query_string", "first", "last"),
    [
        ("limit=1", 0, 1),
        ("limit=1000", 0, 250),
        ("offset=0", 0, 100),
        ("offset=240", 240, 250),
        ("limit=10&offset=7", 7, 17),
        ("limit=1000&offset=3", 3, 250),  # walks over more than a short page, so it takes the other lane
        ("offset=250", 250, 250),
        ("offset=9007199254740991", 250, 250),
    ],
)
def test_list_gives_the_page_asked_for(
    client: httpx.Client, students: list[dict[str, Any]], query_string: str, first: int, last: int
) -> None:
    response = client.get(f"/students?{query_string}")
    assert response.status_code == 200
    assert response.json() == students[first:last]


@pytest.mark.parametrize(
    ("query_string", "detail"),
    [
        ("limit=0", "query parameter 'limit': Expected `int` >= 1"),
        ("limit=1001", "query parameter 'limit': Expected `int` <= 1000"),
        ("limit=-1", "query parameter 'limit': Expected `int` >= 1"),
        ("limit=ten", "query parameter 'limit': expected an integer, got 'ten'"),
        ("limit=", "query parameter 'limit': expected an integer, got ''"),
        ("limit=1.0", "query parameter 'limit': expected an integer, got '1.0'"),
        ("limit=010", "query parameter 'limit': expected an integer, got '010'"),
        ("limit=1_0", "query parameter 'limit': expected an integer, got '1_0'"),
        ("limit=%2B1", "query parameter 'limit': expected an integer, got '+1'"),
        ("limit=nan", "query parameter 'limit': expected an integer, got 'nan'"),
        ("offset=-1", "query parameter 'offset': Expected `int` >= 0"),
        ("offset=9007199254740992", "query parameter 'offset': Expected `int` <= 9007199254740991"),
        ("limit=1&limit=2", "query parameter 'limit': given more than once"),
        ("limti=1", "query parameter 'limti': not one of this route's (limit, offset)"),
        ("Limit=1", "query parameter 'Limit': not one of this route's (limit, offset)"),
        ("a%00=", "query parameter 'a\\x00': not one of this route's (limit, offset)"),
    ],
)
def test_a_wrong_query_is_rejected_by_name(idle_client: httpx.Client, query_string: str, detail: str) -> None:
    response = idle_client.get(f"/students?{query_string}")
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json() == {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": detail}


@pytest.mark.parametrize(
    ("query_string", "status"),
    [
        ("limit=" + "9" * 5000, 400), ("limit=%D9%A1", 400), ("limit=%FF", 400), ("%FF=1", 400), ("=", 400),
        ("limit", 400), ("&&&=", 400), ("&&&", 200), ("", 200),
    ],
)  # fmt: skip
def test_an_odd_query_is_rejected_unless_it_is_empty(idle_client: httpx.Client, query_string: str, status: int) -> None:
    assert idle_client.get(f"/students?{query_string}").status_code == status


def test_head_answers_as_get_does_without_a_body(client: httpx.Client, students: list[dict[str, Any]]) -> None:
    get, head = client.get("/students"), client.head("/students")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"] == str(len(get.content))
    assert len(students) == 250


def test_list_runs_one_statement(client: httpx.Client, statements: Callable[[], list[str]]) -> None:
    """No counting query runs where nobody asks for a count."""
    client.get("/students?limit=10")
    assert statements() == ["SELECT"]
