"""Idempotency-Key on POST /student."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

from litestar_app.idempotency import delete_expired_keys
from tests.conftest import Rows
from tests.database import prepare, run
from tests.service import ANANYA, serve_database

KEY = {"Idempotency-Key": "4a1f-once"}


def test_same_key_returns_the_first_response(client: httpx.Client, query: Callable[..., Rows]) -> None:
    """However the body is spelled."""
    first = client.post("/student", json=ANANYA, headers=KEY)
    body = '{ "cgpa": 8.90, "department": " CSE ", "name": "\\u0041nanya" }'
    again = client.post("/student", content=body, headers={**KEY, "Content-Type": "application/json"})
    assert first.status_code == again.status_code == 201
    assert again.text == first.text
    for header in ("Location", "ETag", "Content-Type"):
        assert again.headers[header] == first.headers[header]
    assert query("SELECT COUNT(*) FROM students") == [(1,)]


def test_first_response_survives_update_delete_restart(client: httpx.Client, database_url: str) -> None:
    first = client.post("/student", json=ANANYA, headers=KEY)
    client.put("/student/1", json={**ANANYA, "name": "Boris"})
    assert client.post("/student", json=ANANYA, headers=KEY).text == first.text
    client.delete("/student/1")
    with serve_database(database_url) as restarted:
        assert restarted.post("/student", json=ANANYA, headers=KEY).text == first.text
        assert restarted.get("/students").json() == []


def test_same_key_with_another_request_is_rejected(client: httpx.Client) -> None:
    first = client.post("/student", json=ANANYA, headers=KEY)
    response = client.post("/student", json={**ANANYA, "name": "Boris"}, headers=KEY)
    assert response.status_code == 422
    assert response.json()["detail"] == "This Idempotency-Key was used with another request; use a new one"
    assert client.get("/students").json() == [first.json()]


def test_other_keys_and_no_key_create_other_students(client: httpx.Client) -> None:
    for headers in (KEY, {"Idempotency-Key": "4A1F-ONCE"}, {}, {}):
        assert client.post("/student", json=ANANYA, headers=headers).status_code == 201
    assert len(client.get("/students").json()) == 4


BAD_KEYS = [*([key] for key in ("", "x" * 256, "with space", "é")), ["a", "a"]]


@pytest.mark.parametrize("keys", BAD_KEYS)
def test_invalid_key_is_rejected(client: httpx.Client, keys: list[str]) -> None:
    response = client.post("/student", json=ANANYA, headers=[(b"Idempotency-Key", key.encode()) for key in keys])
    problem = "given more than once" if len(keys) == 2 else "expected 1 to 255 visible ASCII characters"
    assert (response.status_code, response.json()["detail"]) == (400, f"header Idempotency-Key: {problem}")
    assert client.get("/students").json() == []


def test_two_content_types_are_rejected(client: httpx.Client) -> None:
    """Two programs could take either of them."""
    for path, body in (("/student", b"{}"), ("/students/import", b"name,department,cgpa\n")):
        for second in (b"application/json", b"text/csv"):
            fields = [(b"Content-Type", b"application/json"), (b"Content-Type", second)]
            response = client.post(path, content=body, headers=fields)
            assert (response.status_code, response.json()["detail"]) == (
                400,
                "header Content-Type: given more than once",
            )


@pytest.mark.parametrize("key", ["7f3a", "x" * 255, '"'])
def test_quoted_key_is_the_same_key(client: httpx.Client, key: str) -> None:
    """The draft standard has it quoted; most clients send it bare."""
    first = client.post("/student", json=ANANYA, headers={"Idempotency-Key": key})
    again = client.post("/student", json=ANANYA, headers={"Idempotency-Key": f'"{key}"'})
    assert (first.status_code, again.text) == (201, first.text)


def test_blanks_around_a_key_are_none_of_it(client: httpx.Client) -> None:
    """As of any header field (RFC 9110, 5.5); httpx would not send them."""
    connection = HTTPConnection(client.base_url.host, client.base_url.port)
    for key in ("a1", "a1 \t"):
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        connection.request("POST", "/student", json.dumps(ANANYA), headers)
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["id"]) == (201, 1)
    connection.close()


def test_retry_across_an_update_is_the_same_request(client: httpx.Client, query: Callable[..., Rows]) -> None:
    """Earlier releases trimmed a text, made the fingerprint of that, and stored the key as it was sent."""
    body = {"name": " Jose\u0301  Mary ", "department": "CSE", "cgpa": 8.9}
    first = client.post("/student", json=body, headers=KEY)
    trimmed = {**body, "name": body["name"].strip()}  # type: ignore[attr-defined]
    fingerprint = hashlib.sha256(json.dumps(trimmed, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()
    query("UPDATE idempotency_keys SET request = ?, `key` = ?", fingerprint, KEY["Idempotency-Key"])
    assert client.post("/student", json=body, headers=KEY).text == first.text
    assert first.json()["name"] == "Jos\u00e9 Mary"


def test_key_expires_after_a_day(client: httpx.Client, query: Callable[..., Rows]) -> None:
    client.post("/student", json=ANANYA, headers=KEY)
    query("UPDATE idempotency_keys SET created_at = created_at - ?", 24 * 60 * 60 - 60)
    assert client.post("/student", json=ANANYA, headers=KEY).json()["id"] == 1
    query("UPDATE idempotency_keys SET created_at = created_at - ?", 120)
    assert client.post("/student", json=ANANYA, headers=KEY).json()["id"] == 2
    assert query("SELECT COUNT(*) FROM idempotency_keys") == [(1,)]


def test_key_survives_a_start_while_the_clock_is_ahead(database_url: str, query: Callable[..., Rows]) -> None:
    """Deleted, it would let a retry create the student again once the clock is right."""
    month = 30 * 24 * 60 * 60
    with serve_database(database_url) as client:
        assert client.post("/student", json=ANANYA, headers=KEY).json()["id"] == 1
    query("UPDATE idempotency_keys SET created_at = created_at - ?", month)  # as if the clock were ahead by that
    with prepare(database_url) as alchemy:
        assert run(alchemy, lambda database: database.write(delete_expired_keys)) == 0
    query("UPDATE idempotency_keys SET created_at = created_at + ?", month)
    with serve_database(database_url) as client:
        assert client.post("/student", json=ANANYA, headers=KEY).json()["id"] == 1
        assert len(client.get("/students").json()) == 1


def test_stored_key_and_request_cannot_be_guessed(client: httpx.Client, query: Callable[..., Rows]) -> None:
    """Neither the key, which may hold a name, nor the SHA-256 of a request that somebody guesses."""
    for key in ("create-Ananya-Rao-2026", "4a1f"):
        assert client.post("/student", json=ANANYA, headers={"Idempotency-Key": key}).status_code == 201
    rows = query("SELECT `key`, request FROM idempotency_keys")
    guess = hashlib.sha256(json.dumps(ANANYA, separators=(",", ":")).encode()).hexdigest()
    assert "Ananya" not in str(rows)
    assert guess not in str(rows)
    assert rows[0][1] != rows[1][1]
    for stored, _ in rows:  # nor does the database hold what would open it
        for key in (stored, stored.split()[1]):
            response = client.post("/student", json=ANANYA, headers={"Idempotency-Key": key})
            assert response.status_code == 400 if " " in key else response.json()["id"] > 2


def test_expired_keys_are_deleted_by_and_by(client: httpx.Client, query: Callable[..., Rows]) -> None:
    """No request waits for all of them; one that is still there counts as absent."""
    client.post("/student", json=ANANYA, headers={"Idempotency-Key": "k0"})
    copy = "INSERT INTO idempotency_keys SELECT ?, request, answer, created_at FROM idempotency_keys LIMIT 1"
    for number in range(1, 250):
        query(copy, f"k{number}")
    query("UPDATE idempotency_keys SET created_at = created_at - ?", 2 * 24 * 60 * 60)
    query("UPDATE idempotency_keys SET created_at = created_at + 1 WHERE `key` = 'k9'")  # the last to be deleted
    left = []
    for key in ("k9", "new-1", "new-2"):
        assert client.post("/student", json=ANANYA, headers={"Idempotency-Key": key}).status_code == 201
        left.append(query("SELECT COUNT(*) FROM idempotency_keys"))
    assert left == [[(150,)], [(51,)], [(3,)]]
    assert len(client.get("/students").json()) == 4


def test_second_request_while_the_first_runs_is_a_409(
    client: httpx.Client, ananya: dict[str, Any], locked: Callable[[], AbstractContextManager[Any]]
) -> None:
    """Until the response to the first is known, nobody can repeat it."""
    with ThreadPoolExecutor(2) as pool:
        with locked():
            both = [pool.submit(client.post, "/student", json=ANANYA, headers=KEY) for _ in range(2)]
            (second,), (first,) = wait(both, return_when=FIRST_COMPLETED)
        assert second.result().status_code == 409
        assert second.result().json()["detail"] == "The first request with this Idempotency-Key is still running"
        assert first.result().status_code == 201
    assert client.get("/students").json() == [ananya, first.result().json()]


def test_concurrent_requests_create_one_student(client: httpx.Client, database_url: str) -> None:
    """To two services on one database, so that no process alone keeps count."""
    with serve_database(database_url) as other, ThreadPoolExecutor(20) as pool:
        for number in range(5):
            headers = {"Idempotency-Key": f"round-{number}"}
            tries = [(client, other)[n % 2] for n in range(20)]
            responses = list(pool.map(lambda c: c.post("/student", json=ANANYA, headers=headers), tries))  # noqa: B023
            assert {response.status_code for response in responses} <= {201, 409}
            assert len({response.text for response in responses if response.status_code == 201}) == 1
            assert len(client.get("/students").json()) == number + 1
