"""SIGTERM: requests in flight are completed, nothing new is taken, and the process is gone in time."""

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from litestar_app.__main__ import SHUTDOWN_TIMEOUT
from litestar_app.database.limits import THREADS, Timeouts
from litestar_app.http.problems import STOPPING_WRITE
from tests.conftest import Rows
from tests.faults.ledger import PATIENCE, STUDENTS, assert_is_problem, wait_until
from tests.mariadb import MariaDB, open_session
from tests.service import ANANYA, UNAVAILABLE, Service, connect

pytestmark = pytest.mark.faults

IN_FLIGHT = 2 * THREADS
MARGIN = 3 * Timeouts().lock
"""Seconds beyond what uvicorn is told: for threads that still wait for a lock, and for a busy machine."""


@pytest.fixture
def lock(service: Service, database_url: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A lock on all students, until `rollback`."""
    del service  # which has the students
    if database_url.startswith("sqlite"):
        path = request.getfixturevalue("sqlite_path")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
    else:
        server = request.getfixturevalue("mariadb")
        with open_session(server, database_url, "SELECT * FROM students FOR UPDATE") as session:
            yield session


@pytest.fixture(params=[1, 2], ids=["1 worker", "2 workers"])
def service(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[Service]:
    """A service with a student for each request, once all of its workers are up."""
    with Service(tmp_path, DATABASE_URL=database_url, WORKERS=request.param) as service:
        wait_until(lambda: service.log().count("startup complete") == request.param, "workers that have all started")
        for _ in range(IN_FLIGHT):
            assert service.client.post("/student", json=ANANYA).status_code == 201
        yield service
        assert "Traceback" not in service.log()


@contextmanager
def writes_in_flight(service: Service, pause: float = 0) -> Iterator[list[Future[httpx.Response]]]:
    """Change one student each, over connections that are open already, and go on when the service has begun to.

    With a pause in seconds, so much later for the second half of them.
    """
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(service.url, timeout=PATIENCE)) for _ in range(IN_FLIGHT)]
        for client in clients:
            assert client.get("/health/live").status_code == 200
        pool = stack.enter_context(ThreadPoolExecutor(IN_FLIGHT))
        futures = []
        for number, client in enumerate(clients, start=1):
            body = {**ANANYA, "name": f"In flight {number}"}
            futures.append(pool.submit(client.put, f"/student/{number}", json=body))
            if number == IN_FLIGHT // 2:
                time.sleep(pause)
        # each worker has read them when it has responded to others that came after them
        time.sleep(0.2)
        for _ in range(20):
            assert service.client.get("/health/live").status_code == 200
        assert not any(future.done() for future in futures)
        yield futures


def refuses_connections(service: Service) -> bool:
    try:
        socket.create_connection(("127.0.0.1", service.port)).close()
    except OSError:
        return True
    return False


def terminate(service: Service) -> list[psutil.Process]:
    """Send SIGTERM; return the processes that shall end."""
    assert service.process is not None
    process = psutil.Process(service.process.pid)
    processes = [process, *process.children(recursive=True)]
    process.terminate()
    return processes


def test_requests_in_flight_are_completed(service: Service, lock: Any, query: Callable[..., Rows]) -> None:
    """Writes wait for a lock when SIGTERM comes; it is released only once new connections are refused."""
    with writes_in_flight(service) as writes:
        processes = terminate(service)
        wait_until(lambda: refuses_connections(service), "a service that takes no connections")
        assert not any(write.done() for write in writes)
        lock.rollback()
        responses = [write.result() for write in writes]
    _, left = psutil.wait_procs(processes, PATIENCE)
    assert left == []
    assert [response.status_code for response in responses] == IN_FLIGHT * [200]
    assert query(STUDENTS) == [tuple(response.json().values()) for response in responses]


def test_body_that_never_ends_is_a_408(service: Service, query: Callable[..., Rows]) -> None:
    """Not a 500 and a traceback, once the service has waited long enough for the rest of it."""
    before = query(STUDENTS)
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        head = (
            b"PUT /student/1 HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 60\r\n\r\n"
        )
        client.sendall(head + b'{"name": "Ananya"')
        assert service.client.get("/health/live").status_code == 200
        _, left = psutil.wait_procs(terminate(service), SHUTDOWN_TIMEOUT + MARGIN)
        assert left == []
        client.settimeout(PATIENCE)
        assert client.recv(65536).startswith(b"HTTP/1.1 408 ")
    assert query(STUDENTS) == before


@pytest.mark.usefixtures("lock")
def test_lock_that_is_never_released_ends_in_time(service: Service, query: Callable[..., Rows]) -> None:
    """Every request in flight gets its response even then: the database is locked, and nothing has changed."""
    before = query(STUDENTS)
    # half of them are in the middle of their wait when the others have given up
    with writes_in_flight(service, pause=2) as writes:
        _, left = psutil.wait_procs(terminate(service), SHUTDOWN_TIMEOUT + MARGIN)
        assert left == []
        for write in writes:
            assert_is_problem(write.result(), 503, UNAVAILABLE)
    assert query(STUDENTS) == before


def test_import_that_waits_for_another_is_told_that_the_service_stops(
    tmp_path: Path, mariadb: MariaDB, mysql_url: str, mysql_query: Callable[..., Rows]
) -> None:
    """It is cancelled when the service has waited long enough, and gets a problem document as any other."""
    turn = "SELECT GET_LOCK(CONCAT(DATABASE(), '.import'), 5)"
    with (
        Service(tmp_path, DATABASE_URL=mysql_url) as service,
        open_session(mariadb, mysql_url, turn),
        ThreadPoolExecutor(1) as pool,
        connect(service.url, timeout=PATIENCE) as client,
    ):
        content, headers = b"name,department,cgpa\nA,CSE,1\n", {"Content-Type": "text/csv"}
        importing = pool.submit(client.post, "/students/import", content=content, headers=headers)
        waiting = (
            "SELECT 1 FROM information_schema.processlist WHERE info LIKE 'SELECT GET_LOCK%' AND state = 'User lock'"
        )
        wait_until(lambda: bool(mariadb.execute(waiting)), "an import that waits")
        _, left = psutil.wait_procs(terminate(service), SHUTDOWN_TIMEOUT + MARGIN)
        assert left == []
        assert_is_problem(importing.result(), 503, STOPPING_WRITE)
        assert "Traceback" not in service.log()
    assert mysql_query("SELECT * FROM students") == []


def test_export_that_nobody_reads_ends_with_the_service(tmp_path: Path, sqlite_path: Path) -> None:
    """Its thread too, and without a traceback."""
    with Service(tmp_path, DATABASE_URL=f"sqlite:///{sqlite_path}") as service:
        with closing(sqlite3.connect(sqlite_path)) as connection, connection:
            rows = [("x" * 100, "CSE", 8.9)] * 300_000
            connection.executemany("INSERT INTO students (name, department, cgpa) VALUES (?, ?, ?)", rows)
        with socket.create_connection(("127.0.0.1", service.port)) as deaf:
            deaf.sendall(b"GET /students/export HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(1)  # in which what it does not read fills the buffers
            began = time.monotonic()
            service.stop()
            assert time.monotonic() - began < SHUTDOWN_TIMEOUT + MARGIN
        assert "/students/export: the file ends incomplete: the service is stopping" in service.log()
        assert "Traceback" not in service.log()
