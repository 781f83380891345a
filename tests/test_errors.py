"""What goes wrong behind the routes: a database that is locked, away or full, and defects of ours."""

import contextlib
import logging
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pymysql
import pytest
from litestar_app.services import StudentService

from litestar_app import database, transactions
from tests.conftest import Rows
from tests.mariadb import MariaDB
from tests.service import ANANYA, serve_database

BUSY = "The database is locked, full or unreachable; nothing was stored, retry later"


def assert_says_try_again(response: httpx.Response) -> None:
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json() == {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": BUSY}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a lock no longer than the fifth of a second, so that the tests need not wait either."""
    monkeypatch.setattr(transactions, "LOCK_SECONDS", 0.2)
    monkeypatch.setitem(database.SQLITE.connect_args, "timeout", 0.2)  # type: ignore[arg-type]
    monkeypatch.setitem(
        database.MYSQL.connect_args,  # type: ignore[arg-type]
        "init_command",
        "SET SESSION sql_mode='TRADITIONAL', innodb_lock_wait_timeout=1",
    )


@contextlib.contextmanager
def locked_sqlite(path: Path) -> Iterator[None]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


@contextlib.contextmanager
def locked_mysql(server: MariaDB, name: str) -> Iterator[None]:
    connection = pymysql.connect(host="127.0.0.1", port=server.port, user="root", database=name)
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT * FROM students FOR UPDATE")
        yield
        connection.rollback()


@pytest.fixture
def locked(database_url: str, request: pytest.FixtureRequest) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Make a lock on all students that another program holds for the length of a block."""
    if database_url.startswith("sqlite"):
        return lambda: locked_sqlite(request.getfixturevalue("sqlite_path"))
    return lambda: locked_mysql(request.getfixturevalue("mariadb"), database_url.rpartition("/")[2])


@pytest.mark.usefixtures("impatient")
def test_a_lock_is_a_503_and_passes(
    database_url: str, locked: Callable[[], contextlib.AbstractContextManager[None]]
) -> None:
    with serve_database(database_url) as client:
        student = client.post("/student", json=ANANYA).json()
        with locked():
            assert_says_try_again(client.put("/student/1", json={**ANANYA, "name": "Boris"}))
            assert_says_try_again(client.delete("/student/1"))
            assert client.get("/student/1").json() == student  # who reads does not wait for who writes
            assert client.get("/students").json() == [student]
            assert client.get("/students?limit=1000&offset=1").json() == []
        assert client.get("/students").json() == [student]
        assert client.put("/student/1", json={**ANANYA, "name": "Boris"}).status_code == 200
        assert client.delete("/student/1").status_code == 200


def test_a_lock_that_is_given_up_in_time_is_only_a_wait(
    client: httpx.Client, locked: Callable[[], contextlib.AbstractContextManager[None]]
) -> None:
    client.post("/student", json=ANANYA)
    with ThreadPoolExecutor(1) as other:
        with locked():
            update = other.submit(client.put, "/student/1", json={**ANANYA, "name": "Boris"})
            time.sleep(0.3)
            assert not update.done()
        assert update.result().json() == {"id": 1, **ANANYA, "name": "Boris"}


def test_a_database_server_that_goes_away_is_a_503_and_comes_back(mariadb: MariaDB, mysql_url: str) -> None:
    with serve_database(mysql_url) as client:
        student = client.post("/student", json=ANANYA).json()
        assert client.get("/student/1").json() == student  # on a connection that is kept
        mariadb.stop()
        try:
            assert_says_try_again(client.get("/student/1"))
            assert_says_try_again(client.get("/students"))
            assert_says_try_again(client.post("/student", json=ANANYA))
            assert_says_try_again(client.put("/student/1", json=ANANYA))
            assert_says_try_again(client.delete("/student/1"))
        finally:
            mariadb.start()
        assert client.get("/students").json() == [student]


def test_connections_that_the_server_has_closed_are_replaced_unseen(mariadb: MariaDB, mysql_url: str) -> None:
    """A restart or `wait_timeout` between two requests costs no request."""
    with serve_database(mysql_url) as client:
        for _ in range(3):
            assert client.post("/student", json=ANANYA).status_code == 201
            assert client.get("/student/1").status_code == 200
            for (connection_id,) in mariadb.execute(
                "SELECT id FROM information_schema.processlist WHERE db = %s", mysql_url.rpartition("/")[2]
            ):
                mariadb.execute(f"KILL {connection_id}")
        assert [student["id"] for student in client.get("/students").json()] == [1, 2, 3]


def test_a_table_that_is_gone_is_a_defect_and_no_outage(sqlite_path: Path, sqlite_url: str) -> None:
    with serve_database(sqlite_url) as client:
        client.post("/student", json=ANANYA)
        connection = sqlite3.connect(sqlite_path)
        connection.execute("DROP TABLE students")
        connection.close()
        assert client.get("/student/1").status_code == 500
        assert client.post("/student", json=ANANYA).status_code == 500
        assert client.get("/health/live").status_code == 200


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service with a defect in it."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(StudentService, "get_student", fail)


@pytest.mark.usefixtures("broken")
def test_a_defect_is_logged_with_its_traceback_under_the_id_that_the_answer_carries(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.get("/student/1")
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
    assert record.getMessage() == f"GET /student/1: 500: request {request_id}"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1.2_3", True), ("x" * 65, False), ("a b", False), ("<script>", False)]
)
def test_a_request_id_of_the_client_is_kept_where_it_is_harmless(client: httpx.Client, given: str, kept: bool) -> None:
    response = client.get("/student/1", headers={"X-Request-ID": given})
    assert (response.headers["X-Request-ID"] == given) is kept


def test_a_conflict_with_what_is_stored_is_a_409(client: httpx.Client, query: Callable[..., Rows]) -> None:
    """An index that somebody added by hand is respected, and said."""
    query("CREATE UNIQUE INDEX one_name ON students (name)")
    assert client.post("/student", json=ANANYA).status_code == 201
    response = client.post("/student", json=ANANYA)
    assert response.status_code == 409
    assert response.json()["detail"] == "A constraint of the database is violated"
    assert len(client.get("/students").json()) == 1


def test_a_client_that_hangs_up_is_no_defect(
    client: httpx.Client, query: Callable[..., Rows], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as connection:
        head = b"POST /student HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n"
        connection.sendall(head + b'{"name": "Ananya"')
    assert client.get("/health/live").status_code == 200
    assert query("SELECT * FROM students") == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
