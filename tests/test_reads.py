"""Reads: on the event loop where they are short, never behind writes, and again after a connection was lost."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select

from litestar_app.database import Database, mysql
from litestar_app.database.backend import RETRY_WITHIN
from litestar_app.database.limits import THREADS, Timeouts
from litestar_app.models import Student
from litestar_app.records.listing import SHORT_PAGE
from litestar_app.students.record import LISTINGS
from litestar_app.students.service import StudentService
from tests.conftest import Rows
from tests.database import prepare, run
from tests.faults.proxy import run_proxy
from tests.mariadb import MariaDB, open_session
from tests.service import ANANYA, assert_is_unavailable, serve_database

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
def recovery(path: Path) -> Iterator[None]:
    """Be another process that recovers the log of a file after a crash, for the length of the block."""
    command = [sys.executable, "-c", RECOVER, f"{path}-shm"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "recovering\n"
        yield


def test_read_waits_for_a_busy_file_on_a_thread(sqlite_url: str, sqlite_path: Path) -> None:
    """The event loop does not wait: it serves others meanwhile, sooner than their client gives up."""
    with serve_database(sqlite_url, Timeouts(lock=100)) as client, ThreadPoolExecutor(3) as pool:
        student = client.post("/student", json=ANANYA).json()
        with recovery(sqlite_path):
            reads = [pool.submit(client.get, "/student/1") for _ in range(3)]
            time.sleep(0.2)
            assert client.get("/health/live").status_code == 200
            assert not any(read.done() for read in reads)
        assert [read.result().json() for read in reads] == [student] * 3


def test_read_of_a_file_that_stays_busy_is_a_503(sqlite_url: str, sqlite_path: Path) -> None:
    with serve_database(sqlite_url, Timeouts(lock=0.1)) as client:
        student = client.post("/student", json=ANANYA).json()
        with recovery(sqlite_path):
            assert_is_unavailable(client.get("/student/1"))
        assert client.get("/student/1").json() == student


def test_short_reads_run_on_the_event_loop(sqlite_url: str) -> None:
    """In less time than the way to a thread takes; long ones run on a thread, and hold up nobody."""
    threads: list[str] = []

    def trace(driver: Any, _record: object) -> None:
        def log(sql: str) -> None:
            if "FROM students" in sql and not sql.endswith("LIMIT 1"):
                threads.append(threading.current_thread().name[:6])

        driver.set_trace_callback(log)

    async def read(database: Database) -> None:
        students = StudentService(database)
        for limit, offset in ((SHORT_PAGE, 0), (SHORT_PAGE, 1), (1, SHORT_PAGE)):
            page = await students.list_page(LISTINGS.create(limit=limit, offset=offset))
            assert page.records == []  # and a short look for a page before, where there is an offset
        assert await database.fetch(select(func.count(Student.id)), {}) == [(0,)]  # which is not compiled once

    with prepare(sqlite_url) as alchemy:
        alchemy.get_engine().dispose()
        event.listen(alchemy.get_engine(), "connect", trace)
        run(alchemy, read)
    assert threads == ["MainTh", "scanne", "MainTh", "scanne", "MainTh", "MainTh"]


def test_reads_do_not_wait_for_writes(mariadb: MariaDB, mysql_url: str) -> None:
    """More writes than there are threads for them wait for one row; everything else is served meanwhile."""
    with (
        serve_database(mysql_url, Timeouts(lock=100, queue=100)) as client,
        ThreadPoolExecutor(THREADS + 1) as pool,
    ):
        for _ in range(2):
            assert client.post("/student", json=ANANYA).status_code == 201
        with open_session(mariadb, mysql_url, "SELECT * FROM students WHERE id = 1 FOR UPDATE"):
            writes = [pool.submit(client.put, "/student/1", json=ANANYA) for _ in range(THREADS + 1)]
            time.sleep(0.3)
            for path in ("/student/2", "/students", "/health/ready"):
                assert client.get(path).status_code == 200
            assert not any(write.done() for write in writes)
        assert {write.result().status_code for write in writes} == {200}


def test_readiness_is_a_503_in_time(mariadb: MariaDB, mysql_url: str) -> None:
    """Long before the lock and the socket time out, which would be too late for the client too."""
    with (
        serve_database(mysql_url, Timeouts(ready=0.3, lock=100, socket=100)) as client,
        open_session(mariadb, mysql_url, "LOCK TABLES students WRITE"),
    ):
        assert_is_unavailable(client.get("/health/ready"))


@pytest.mark.parametrize(("socket", "tries"), [(0.5, 2), (RETRY_WITHIN + 0.5, 1)])
def test_read_that_a_hung_server_lost(
    mariadb: MariaDB, mysql_url: str, sql_log: list[str], socket: float, tries: int
) -> None:
    """It is retried once, unless it took long to notice; the next read connects anew."""
    if socket < 1 and "mysqldb" in mysql_url:
        pytest.skip("mysqlclient notices after whole seconds")
    with serve_database(mysql_url, Timeouts(socket=socket)) as client:
        student = client.post("/student", json=ANANYA).json()
        for _ in range(THREADS):
            assert client.get("/student/1").json() == student
        with open_session(mariadb, mysql_url, "LOCK TABLES students WRITE"):
            sql_log.clear()
            assert_is_unavailable(client.get("/student/1"))
            assert len([sql for sql in sql_log if "FROM students" in sql]) == tries
        for _ in range(THREADS):
            assert client.get("/student/1").json() == student


def test_closed_connections_are_replaced(mariadb: MariaDB, mysql_url: str) -> None:
    """A restart or `wait_timeout` between two requests costs no request."""
    with serve_database(mysql_url) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        for _ in range(2):
            for path in ["/student/1"] * THREADS + ["/health/ready"]:
                assert client.get(path).status_code == 200
            mariadb.kill_sessions(mysql_url)


def test_text_of_another_program_need_not_be_utf_8(sqlite_url: str, query_file: Callable[..., Rows]) -> None:
    """It is shown as far as it can be read: by the event loop, by a thread, in a transaction, in a file."""
    with serve_database(sqlite_url) as client:
        query_file("INSERT INTO students VALUES (7, CAST(X'4AF672' AS TEXT), 'CSE', 5)")
        student = {"id": 7, "name": "J\ufffdr", "department": "CSE", "cgpa": 5.0}
        found = client.get("/student/7")
        assert found.json() == student
        assert client.get("/students").json() == client.get("/students?name=j").json() == [student]
        assert client.get("/students/export?format=ndjson").json() == student
        changed = client.patch("/student/7", json={"cgpa": 6}, headers={"If-Match": found.headers["ETag"]})
        assert (changed.status_code, changed.json()) == (200, student | {"cgpa": 6.0})


def test_table_that_has_gone_is_a_503(database_url: str, query: Callable[..., Rows]) -> None:
    """Until it is there again."""
    with serve_database(database_url) as client:
        query("ALTER TABLE students RENAME TO others")
        for method, path in (("GET", "/students"), ("POST", "/student"), ("GET", "/health/ready")):
            assert_is_unavailable(client.request(method, path, json=ANANYA if method == "POST" else None))
        query("ALTER TABLE others RENAME TO students")
        assert client.post("/student", json=ANANYA).status_code == 201


def test_connections_that_have_rested_are_replaced(
    mariadb: MariaDB, mysql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall may have forgotten them, and tells nobody: the next requests would wait for a 503."""
    with run_proxy(mariadb.port) as proxy:
        url = mysql_url.replace(f":{mariadb.port}/", f":{proxy.port}/")
        with serve_database(url, Timeouts(socket=1)) as client:
            for _ in range(2):
                assert client.post("/student", json=ANANYA).status_code == 201
                for path in ("/student/1", "/students", "/students?sort=name", "/health/ready"):
                    assert client.get(path).status_code == 200
                monkeypatch.setattr(mysql, "MAX_IDLE", 0)
                proxy.forget_links()
