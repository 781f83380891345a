"""POST /student."""

from collections.abc import Callable

import httpx
import pytest

from tests.conftest import Rows
from tests.service import ANANYA, serve_database


def test_create_returns_the_student_and_its_location(client: httpx.Client, query: Callable[..., Rows]) -> None:
    response = client.post("/student", json=ANANYA)
    assert (response.status_code, response.json()) == (201, {"id": 1, **ANANYA})
    assert response.headers["Location"] == "/student/1"
    assert client.get("/student/1").json() == response.json()
    assert query("SELECT * FROM students") == [(1, "Ananya", "CSE", 8.9)]


NORMALISED = {
    " \t\u2003Mary  Ann\n": "Mary Ann",
    "Mary\u00a0Ann": "Mary Ann",
    "Mary \u202f\u3000 Ann": "Mary Ann",
    "Jose\u0301": "José",
    "\u1112\u1161\u11ab": "한",
    "e\u0301" * 100: "é" * 100,
    "x" + " " * 200 + "y": "x y",
    "می\u200cخواهم": "می\u200cخواهم",
}


@pytest.mark.parametrize(("sent", "stored"), NORMALISED.items(), ids=ascii)
def test_texts_are_normalised(client: httpx.Client, query: Callable[..., Rows], sent: str, stored: str) -> None:
    """Unicode NFC, no white space at the ends, one space for each run of spaces; then the length counts."""
    for response in (
        client.post("/student", json={"name": sent, "department": sent, "cgpa": 8.9}),
        client.put("/student/1", json={"name": f" {sent}", "department": f"{sent} ", "cgpa": 8.9}),
        client.patch("/student/1", json={"name": f"{sent}\u00a0"}),
    ):
        assert response.json() == {"id": 1, "name": stored, "department": stored, "cgpa": 8.9}
    assert query("SELECT name, department FROM students") == [(stored, stored)]
    assert client.get("/students", params={"department": sent[:100]}).json() == (
        [] if sent[100:] else [response.json()]
    )


NAMES = ["x", "𝒜" * 100, "👩‍🎓 Zoë", "O'Brien; DROP TABLE students %_\\", "ﬁ", "مريم", "می\u200cخواهم"]
CGPAS = [0, 10, 9.999999999999999, 5e-324]


@pytest.mark.parametrize(("field", "value"), [*(("name", name) for name in NAMES), *(("cgpa", cgpa) for cgpa in CGPAS)])
def test_create_stores_a_value_as_it_is(
    client: httpx.Client, query: Callable[..., Rows], field: str, value: str | float
) -> None:
    response = client.post("/student", json={**ANANYA, field: value})
    assert (response.status_code, response.json()) == (201, {"id": 1, **ANANYA, field: value})
    assert client.get("/student/1").json() == response.json()
    assert query(f"SELECT id FROM students WHERE {field} = ?", value) == [(1,)]


def test_minus_zero_is_stored_as_zero(client: httpx.Client) -> None:
    zero = '{"id":1,"name":"Ananya","department":"CSE","cgpa":0.0}'
    assert client.post("/student", json={**ANANYA, "cgpa": -0.0}).text == zero
    assert client.get("/student/1").text == zero
    assert client.patch("/student/1", json={"cgpa": -0.0}).text == zero


def test_ids_are_never_reused(client: httpx.Client, database_url: str) -> None:
    """Not after a delete, and not after a restart of the service."""
    assert [client.post("/student", json=ANANYA).json()["id"] for _ in range(3)] == [1, 2, 3]
    assert client.delete("/student/3").status_code == 200
    assert client.post("/student", json=ANANYA).json()["id"] == 4
    assert client.delete("/student/4").status_code == 200
    with serve_database(database_url) as restarted:
        assert restarted.post("/student", json=ANANYA).json()["id"] == 5
