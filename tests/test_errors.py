"""What goes wrong behind the routes: a database that is locked, away or full, and defects of ours."""

import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from litestar_app.database.limits import Timeouts
from tests.conftest import Rows
from tests.database import break_writes
from tests.mariadb import MariaDB
from tests.service import ANANYA, assert_is_unavailable, serve_database


def test_lock_is_a_503_for_writes_only(
    database_url: str, locked: Callable[[], contextlib.AbstractContextManager[Any]]
) -> None:
    with serve_database(database_url, Timeouts(lock=0.2)) as client:
        student = client.post("/student", json=ANANYA).json()
        with locked():
            assert_is_unavailable(client.put("/student/1", json={**ANANYA, "name": "Boris"}))
            assert_is_unavailable(client.delete("/student/1"))
            assert client.get("/student/1").json() == student
            assert client.get("/students").json() == [student]
            assert client.get("/students?limit=1000&offset=1").json() == []
        assert client.delete("/student/1").status_code == 200


def test_stopped_server_is_a_503_until_it_is_back(mariadb: MariaDB, mysql_url: str) -> None:
    with serve_database(mysql_url) as client:
        student = client.post("/student", json=ANANYA).json()
        assert client.get("/student/1").json() == student  # on a connection that is kept
        mariadb.stop()
        try:
            assert client.get("/health/live").status_code == 200
            for method, path in (("GET", "/health/ready"), ("GET", "/student/1"), ("DELETE", "/student/1")):
                assert_is_unavailable(client.request(method, path))
            assert_is_unavailable(client.post("/student", json=ANANYA))
        finally:
            mariadb.start()
        assert client.get("/health/ready").status_code == 200
        assert client.get("/students").json() == [student]


@pytest.fixture
def broken(client: httpx.Client, query: Callable[..., Rows], database_url: str) -> httpx.Client:
    """A service whose writes fail by a defect, which is no outage."""
    client.post("/student", json=ANANYA)
    break_writes(query, database_url)
    return client


def test_defect_is_logged_under_the_id_of_its_response(broken: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    response = broken.post("/student", json=ANANYA)
    assert response.status_code == 500
    request_id = response.headers["X-Request-ID"]
    assert response.json() == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": f"A defect of this service; its log has the details under {request_id}",
        "request_id": request_id,
    }
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert record.getMessage() == f"POST /student: 500: request {request_id}"
    assert record.exc_info is not None
    assert broken.get("/health/live").status_code == 200


def test_log_holds_no_data_of_a_student(
    client: httpx.Client, query: Callable[..., Rows], caplog: pytest.LogCaptureFixture, database_url: str
) -> None:
    """Not of a 500, whose traceback may have the statement, and not of a write."""
    assert client.post("/student", json=ANANYA).status_code == 201
    query("ALTER TABLE students RENAME TO others")
    value = "nowhere()" if database_url.startswith("sqlite") else "(SELECT 1 UNION SELECT 2)"  # no server takes these
    query(f"CREATE VIEW students AS SELECT id, name, department, {value} AS cgpa FROM others")
    student = {"name": "Xenia", "department": "Secret", "cgpa": 1.2345}
    assert client.post("/student", json=student).status_code >= 500
    assert client.put("/student/1", json=student).status_code == 500
    assert client.get("/students?name=Xenia&department=Secret&cgpa_min=1.2345").status_code == 500
    assert "FROM students" in caplog.text
    assert [word for word in ("Xenia", "Secret", "1.2345") if word in caplog.text] == []


def test_violated_constraint_is_a_409(client: httpx.Client, query: Callable[..., Rows]) -> None:
    """An index that somebody added by hand is respected, and said."""
    query("CREATE UNIQUE INDEX one_name ON students (name)")
    assert client.post("/student", json=ANANYA).status_code == 201
    response = client.post("/student", json=ANANYA)
    assert response.status_code == 409
    assert response.json()["detail"] == "A constraint of the database is violated"
    assert len(client.get("/students").json()) == 1


SKIPPED: dict[str, dict[str, Any]] = {
    "INSERT": {"POST": ANANYA},
    "UPDATE": {"PUT": {**ANANYA, "cgpa": 1}, "PATCH": {"cgpa": 1}},
    "DELETE": {"DELETE": None},
}  # fmt: skip


@pytest.mark.parametrize("event", SKIPPED)
def test_write_that_a_trigger_skips_is_a_409(sqlite_url: str, query_file: Callable[..., Rows], event: str) -> None:
    """And no success, nor a student who is not there."""
    with serve_database(sqlite_url) as client:
        etag = client.post("/student", json=ANANYA).headers["ETag"]
        query_file(f"CREATE TRIGGER skip BEFORE {event} ON students BEGIN SELECT RAISE(IGNORE); END")
        for method, body in SKIPPED[event].items():
            for headers in ({}, {"If-Match": etag}):
                path = "/student" if method == "POST" else "/student/1"
                response = client.request(method, path, json=body, headers=headers)
                assert response.status_code == 409
                assert response.json()["detail"] == "A constraint of the database is violated"
        assert client.get("/students").json() == [{"id": 1, **ANANYA}]


def test_disconnect_in_a_body_is_no_defect(
    client: httpx.Client, query: Callable[..., Rows], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as connection:
        head = (
            b"POST /student HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n"
        )
        connection.sendall(head + b'{"name": "Ananya"')
    assert client.get("/health/live").status_code == 200
    assert query("SELECT * FROM students") == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
