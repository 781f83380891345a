"""Reads: on the event loop where they are short, never behind writes, and again after a connection was lost."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select

from litestar_app.database import PING, Database
from litestar_app.database.config import THREADS, AlchemyConfig, Timeouts
from litestar_app.database.reads import RETRY_WITHIN
from litestar_app.exceptions import DatabaseUnavailableError, QueueTimeoutError
from litestar_app.models import Student
from tests.conftest import Rows
from tests.database import prepare
from tests.mariadb import MariaDB, open_session
from tests.service import ANANYA, serve_database

RECOVER = """
import fcntl, os, sys
log_index = os.open(sys.argv[1], os.O_RDWR)
for lock in (120, 122):  # of writers, and of whoever recovers the log
    fcntl.lockf(log_index, fcntl.LOCK_EX, 1, lock)
os.pwrite(log_index, b"damaged!", 0)
print("recovering", flush=True)
sys.stdin.read()
"""


@contextmanager
def recovery(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Be another process that recovers the log of a file after a crash, for the length of the block."""
    command = [sys.executable, "-c", RECOVER, f"{path}-shm"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "recovering\n"
        yield process


def run(alchemy: AlchemyConfig, main: Callable[[Database], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine function with an open database."""

    async def open_and_run(database: Database) -> Any:
        async with asyncio.timeout(30), database.open():
            return await main(database)

    return asyncio.run(open_and_run(Database(alchemy)))


def test_read_waits_for_a_busy_file_on_a_thread(sqlite_url: str, sqlite_path: Path) -> None:
    """The event loop itself does not wait: it serves others meanwhile."""
    with serve_database(sqlite_url) as client, ThreadPoolExecutor(3) as pool:
        student = client.post("/student", json=ANANYA).json()
        with recovery(sqlite_path):
            reads = [pool.submit(client.get, "/student/1") for _ in range(3)]
            time.sleep(0.2)
            began = time.monotonic()
            assert client.get("/health/live").status_code == 200
            assert time.monotonic() - began < 1
            assert not any(read.done() for read in reads)
        assert [read.result().json() for read in reads] == [student] * 3


def test_read_of_a_file_that_stays_busy_is_a_503(sqlite_url: str, sqlite_path: Path) -> None:
    with serve_database(sqlite_url, Timeouts(lock=0.1)) as client:
        client.post("/student", json=ANANYA)
        with recovery(sqlite_path):
            response = client.get("/student/1")
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert client.get("/student/1").status_code == 200


@pytest.mark.parametrize("short", [True, False])
def test_statement_that_is_not_kept_is_read_too(database_url: str, short: bool) -> None:
    async def count(database: Database) -> Any:
        await database.fetch(PING, {}, short=short)
        return await database.fetch(select(func.count(Student.id)), {}, short=short)

    with prepare(database_url) as alchemy:
        assert run(alchemy, count) == [(0,)]


def test_short_reads_run_on_the_event_loop(sqlite_url: str) -> None:
    """In less time than the way to a thread takes; long ones run on a thread, and hold up nobody."""
    ran: list[tuple[str, str]] = []

    async def count(database: Database) -> None:
        for short in (True, False, True):
            await database.fetch(select(func.count(Student.id)), {}, short=short)

    def trace(driver: Any, _record: object) -> None:
        driver.set_trace_callback(lambda sql: ran.append((threading.current_thread().name[:6], sql[:12])))

    with prepare(sqlite_url) as alchemy:
        alchemy.get_engine().dispose()
        event.listen(alchemy.get_engine(), "connect", trace)
        run(alchemy, count)
    assert [thread for thread, sql in ran if sql == "SELECT count"] == ["MainTh", "reader", "MainTh"]


def test_reads_and_readiness_do_not_wait_for_writes(mariadb: MariaDB, mysql_url: str) -> None:
    """More writes than there are threads for them wait for one row; everything else is served at once."""
    with serve_database(mysql_url) as client, ThreadPoolExecutor(2 * THREADS) as pool:
        for _ in range(2):
            assert client.post("/student", json=ANANYA).status_code == 201
        with open_session(mariadb, mysql_url, "SELECT * FROM students WHERE id = 1 FOR UPDATE"):
            writes = [pool.submit(client.put, "/student/1", json=ANANYA) for _ in range(THREADS + 1)]
            time.sleep(0.3)
            began = time.monotonic()
            for path in ("/student/2", "/students", "/health/ready"):
                assert client.get(path).status_code == 200
            assert time.monotonic() - began < 4
            assert not any(write.done() for write in writes)
        assert {write.result().status_code for write in writes} == {200}


def test_write_that_waits_too_long_for_a_thread(mysql_url: str) -> None:
    """It is rejected, and not begun when a thread is free at last."""
    release = threading.Event()
    begun: list[object] = []

    async def write(database: Database) -> None:
        block = [asyncio.ensure_future(database.write(lambda _: release.wait(10))) for _ in range(THREADS)]
        late = asyncio.ensure_future(database.write(begun.append))
        await asyncio.sleep(0.3)
        release.set()
        assert await asyncio.gather(*block) == [True] * THREADS
        with pytest.raises(QueueTimeoutError):
            await late

    with prepare(mysql_url, Timeouts(queue=0.2)) as alchemy:
        run(alchemy, write)
    assert begun == []


def test_write_does_not_wait_for_the_row_of_another(mariadb: MariaDB, mysql_url: str) -> None:
    with serve_database(mysql_url) as client, ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            client.post("/student", json=ANANYA)
        with open_session(mariadb, mysql_url, "SELECT * FROM students WHERE id = 1 FOR UPDATE"):
            waiting = pool.submit(client.put, "/student/1", json=ANANYA)
            for _ in range(5):
                assert client.put("/student/2", json=ANANYA).status_code == 200
            assert not waiting.done()
        assert waiting.result().status_code == 200


def test_readiness_is_a_503_in_time(mariadb: MariaDB, mysql_url: str) -> None:
    with (
        serve_database(mysql_url, Timeouts(ready=0.3)) as client,
        open_session(mariadb, mysql_url, "LOCK TABLES students WRITE"),
    ):
        began = time.monotonic()
        response = client.get("/health/ready")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert 0.2 < time.monotonic() - began < 2


@pytest.mark.parametrize(("socket", "least", "most"), [(0.6, 1.2, 10), (RETRY_WITHIN + 0.5, RETRY_WITHIN + 0.5, 2.9)])
def test_reads_go_on_after_a_hung_server(
    mariadb: MariaDB, mysql_url: str, socket: float, least: float, most: float
) -> None:
    """A read that loses its connection is retried once, unless that took long; after a failure it connects anew."""
    with serve_database(mysql_url, Timeouts(socket=socket, ready=10)) as client:
        student = client.post("/student", json=ANANYA).json()
        assert client.get("/student/1").json() == student
        with open_session(mariadb, mysql_url, "LOCK TABLES students WRITE"), ThreadPoolExecutor(THREADS + 1) as pool:
            began = time.monotonic()
            responses = list(pool.map(client.get, ["/student/1"] * THREADS + ["/health/ready"]))
            assert least < time.monotonic() - began < most
        assert {response.status_code for response in responses} == {503}
        for path in ["/student/1"] * 2 * THREADS + ["/health/ready"]:
            assert client.get(path).status_code == 200


def test_closed_connections_are_replaced(mariadb: MariaDB, mysql_url: str, mysql_query: Callable[..., Rows]) -> None:
    """A restart or `wait_timeout` between two requests costs no request."""
    with serve_database(mysql_url) as client:
        for number in range(1, 4):
            assert client.post("/student", json=ANANYA).status_code == 201
            assert client.get("/student/1").status_code == 200
            assert client.get("/health/ready").status_code == 200
            mariadb.kill_sessions(mysql_url)
            assert mysql_query("SELECT COUNT(*) FROM students") == [(number,)]


@pytest.mark.parametrize(("cuts", "error"), [(1, None), (2, DatabaseUnavailableError)])
def test_connection_lost_while_it_is_set_up(mysql_url: str, cuts: int, error: type[Exception] | None) -> None:
    """SQLAlchemy passes on what the driver raises there as it is; it is an outage all the same."""
    left = [None] * cuts

    def cut(connection: Any, *_: object) -> None:
        if left:
            left.pop()
            connection._force_close()  # noqa: SLF001

    async def read(database: Database) -> None:
        with pytest.raises(error) if error else nullcontext():
            await database.fetch(PING, {})
        assert left == []
        assert await database.fetch(PING, {}) == ()

    with prepare(mysql_url) as alchemy:
        event.listen(alchemy.get_engine(), "checkout", cut)
        run(alchemy, read)
