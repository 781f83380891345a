"""SIGTERM: what is in flight is answered, nothing new is taken, and the process is gone in time."""

import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pymysql
import pytest

from litestar_app.__main__ import SHUTDOWN_TIMEOUT
from litestar_app.database.config import THREADS, Timeouts
from tests.conftest import Rows
from tests.faults.ledger import STUDENTS, Response, Wire, wait_until
from tests.service import ANANYA, Service

pytestmark = pytest.mark.faults

ENDED = {0, -SIGTERM}
IN_FLIGHT = 2 * THREADS
MARGIN = 3 * Timeouts().lock
"""Seconds beyond what uvicorn is told: for threads that still wait for a lock, and for a busy machine."""


@pytest.fixture
def locked(database_url: str, request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Lock the students in the database, for the length of a block or until `rollback`."""

    @contextmanager
    def lock() -> Iterator[Any]:
        if database_url.startswith("sqlite"):
            path = request.getfixturevalue("sqlite_path")
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
        else:
            name, port = database_url.rpartition("/")[2], request.getfixturevalue("mariadb").port
            with pymysql.connect(host="127.0.0.1", port=port, user="root", database=name) as session:
                session.cursor().execute("SELECT * FROM students FOR UPDATE")
                yield session

    return lock


@contextmanager
def writes_in_flight(service: Service, pause: float = 0) -> Iterator[list[Future[Response | None]]]:
    """Change one student each, over connections that are open already, and go on when the service has begun to.

    With a pause in seconds, so much later for the second half of them.
    """
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(service.port)) for _ in range(IN_FLIGHT)]
        for wire in wires:
            assert wire.ask("GET", "/health/live").status == 200
        pool = stack.enter_context(ThreadPoolExecutor(IN_FLIGHT))
        futures = []
        for number, wire in enumerate(wires, start=1):
            change = {**ANANYA, "name": f"In flight {number}"}
            futures.append(pool.submit(wire.send, "PUT", f"/student/{number}", change))
            if number == IN_FLIGHT // 2:
                time.sleep(pause)
        # each worker has read them when it has answered others that came after them
        time.sleep(0.2)
        for _ in range(20):
            with Wire(service.port) as wire:
                assert wire.ask("GET", "/health/live").status == 200
        assert not any(future.done() for future in futures)
        yield futures


def refuses_connections(service: Service) -> bool:
    try:
        socket.create_connection(("127.0.0.1", service.port)).close()
    except OSError:
        return True
    return False


def is_gone(pid: int) -> bool:
    """Tell whether a process and its workers, which are its group, have ended."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture(params=[1, 2], ids=["1 worker", "2 workers"])
def service(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[Service]:
    """A service with a student for each request, once all of its workers are up."""
    with Service(tmp_path, DATABASE_URL=database_url, WORKERS=request.param) as service:
        wait_until(lambda: service.log().count("startup complete") == request.param, "workers that have all started")
        with Wire(service.port) as wire:
            for _ in range(IN_FLIGHT):
                assert wire.ask("POST", "/student", ANANYA).status == 201
        yield service


def test_requests_in_flight_are_completed_and_new_ones_rejected(
    service: Service, locked: Callable[[], Any], query: Callable[..., Rows]
) -> None:
    """Writes wait for a lock when SIGTERM comes; it is released only once new connections are refused."""
    assert service.process is not None
    with locked() as lock, writes_in_flight(service) as writes:
        service.process.send_signal(SIGTERM)
        wait_until(lambda: refuses_connections(service), "a service that takes no connections")
        assert not any(write.done() for write in writes)
        lock.rollback()
        responses = [write.result() for write in writes]
    assert service.process.wait() in ENDED
    wait_until(lambda: is_gone(service.process.pid if service.process else 0), "the end of the workers")
    assert [response and response.status for response in responses] == IN_FLIGHT * [200]
    assert query(STUDENTS) == [tuple(response.json().values()) for response in responses if response]
    assert "Traceback" not in service.log()


def test_a_lock_that_is_never_released_does_not_keep_the_process(
    service: Service,
    locked: Callable[[], Any],
    query: Callable[..., Rows],
    record_property: Callable[[str, object], None],
) -> None:
    """Even then every request in flight is answered: that the database is locked, and nothing has changed."""
    assert service.process is not None
    before = query(STUDENTS)
    # half of them are in the middle of their wait when the others have given up
    with locked(), writes_in_flight(service, pause=2) as writes:
        begun = time.monotonic()
        service.process.send_signal(SIGTERM)
        assert service.process.wait(SHUTDOWN_TIMEOUT + MARGIN) in ENDED
        seconds = time.monotonic() - begun
        wait_until(lambda: is_gone(service.process.pid if service.process else 0), "the end of the workers")
        responses = [write.result() for write in writes]
    record_property("seconds until the process was gone", seconds)
    for response in responses:
        assert response is not None, "cut off"
        response.assert_is_outage()
    assert query(STUDENTS) == before
    assert "Traceback" not in service.log()
