"""The event loop stays free, whatever the database does: reads on it go on while writers wait and scans run."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.service import ANANYA, Service, connect

MILLION = """
INSERT INTO students (id, name, department, cgpa)
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000000)
SELECT n, 'Student ' || n, 'CSE', 8.9 FROM numbers
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A process of its own, with a million students."""
    with Service(tmp_path, LOG_LEVEL="warning") as service:
        connection = sqlite3.connect(tmp_path / "students.db")
        with connection:
            connection.execute(MILLION)
        connection.close()
        yield service


def count_answers_during(service: Service, work: "Future[httpx.Response]") -> int:
    """Ask for one student and for life, in turn, until the work is done."""
    count = 0
    with connect(service.url) as client:
        while not work.done():
            assert client.get("/student/500000").status_code == 200
            assert client.get("/health/live").status_code == 200
            count += 2
    return count


def test_reads_go_on_while_a_writer_waits_for_the_lock(service: Service, tmp_path: Path) -> None:
    lock = sqlite3.connect(tmp_path / "students.db", isolation_level=None, check_same_thread=False)
    lock.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        write = pool.submit(service.client.post, "/student", json=ANANYA)
        release = threading.Timer(1, lock.rollback)
        release.start()
        count = count_answers_during(service, write)
        release.join()
    lock.close()
    assert write.result().status_code == 201
    assert count > 20  # a loop that waits with the writer would give a few


def test_reads_go_on_while_a_million_rows_are_walked(service: Service) -> None:
    """On the loop, each of these scans would let one response through."""
    scans = 20

    def scan() -> httpx.Response:
        for _ in range(scans):
            response = service.client.get("/students?offset=999000&limit=1000")
            assert [response.json()[0]["id"], len(response.json())] == [999001, 1000]
        return response

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(scan)
        count = count_answers_during(service, work)
    work.result()
    assert count > 5 * scans
