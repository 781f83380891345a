"""Imports beside other clients, clients that go away in one, kills and full disks: every row of a file or none."""

import contextlib
import random
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGKILL
from typing import Any

import httpx
import psutil
import pytest

from litestar_app.exceptions import ResourceError
from litestar_app.resources import TEMPORARY
from tests.conftest import Rows, query_sqlite
from tests.faults.ledger import assert_is_problem, wait_until
from tests.service import ANANYA, UNAVAILABLE, Service

pytestmark = pytest.mark.faults

ROWS = 100_000
COUNT = "SELECT COUNT(*), COUNT(DISTINCT name) FROM students"
CSV = {"Content-Type": "text/csv"}
HEADER = "name,department,cgpa\r\n"


def make_csv(rows: int) -> bytes:
    return (HEADER + "".join(f"student {number},Physics,{number % 11}\r\n" for number in range(rows))).encode()


def count_open_files(process: psutil.Process) -> int:
    """Count files and sockets, without the descriptors of SQLite's database file.

    SQLite closes none of those while another connection of the process is open; it uses them again instead.
    """
    count = 0
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += not str(descriptor.readlink()).endswith(".db")
    return count


def send(service: Service, content: bytes, **headers: str) -> httpx.Response:
    return service.client.post("/students/import", content=content, headers={**CSV, **headers})


@pytest.fixture
def service(database_url: str, tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path, DATABASE_URL=database_url, LOG_LEVEL="warning") as service:
        yield service


def test_reads_and_writes_beside_an_import_succeed(service: Service, query: Callable[..., Rows]) -> None:
    """Every one of them, and some of both before the import ends."""
    writes, reads, is_done = [0] * 8, [0] * 4, threading.Event()

    def write(number: int) -> None:
        while not is_done.is_set():
            response = service.client.post("/student", json={**ANANYA, "name": f"beside {number} {writes[number]}"})
            assert response.status_code == 201
            writes[number] += 1

    def read(number: int) -> None:
        while not is_done.is_set():
            assert service.client.get("/students?limit=10").status_code == 200
            reads[number] += 1

    with ThreadPoolExecutor(12) as pool:
        beside = [pool.submit(write, number) for number in range(8)] + [
            pool.submit(read, number) for number in range(4)
        ]
        try:
            response = send(service, make_csv(ROWS))
        finally:
            is_done.set()
    assert [future.result() for future in beside] == [None] * 12
    assert (response.status_code, response.json()["created"]) == (200, ROWS)
    assert min(*writes, *reads) > 0
    assert query(COUNT) == [(ROWS + sum(writes), ROWS + sum(writes))]
    assert service.log() == ""


PARTS = {"half of the upload": (0.5, 0.0), "all, at once": (1.0, 0.0), "all, in the staging": (1.0, 0.15)}


@pytest.mark.parametrize(("part", "seconds"), PARTS.values(), ids=PARTS)
def test_disconnected_imports_leave_nothing_behind(
    service: Service, query: Callable[..., Rows], part: float, seconds: float
) -> None:
    """All rows or none are stored, nothing stays open, and the file can be imported again."""
    content = make_csv(ROWS)
    head = (
        f"POST /students/import HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: text/csv\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    assert service.process is not None
    process = psutil.Process(service.process.pid)
    assert send(service, make_csv(10)).status_code == 200
    query("DELETE FROM students")
    files = count_open_files(process)
    for number in range(12):
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(head.encode() + content[: int(len(content) * part)])
            time.sleep(seconds)
            if number % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # up to eight threads that had nothing to do before have opened their own by now
    wait_until(lambda: count_open_files(process) <= files + 8, f"about as few open files as before, {files}")
    ((stored, different),) = query(COUNT)
    assert (stored % ROWS, different) in {(0, 0), (0, ROWS)}
    response = send(service, content)
    assert (response.status_code, response.json()["created"]) == (200, ROWS)
    assert query(COUNT) == [(stored + ROWS, ROWS)]
    assert service.log() == ""


def test_kills_in_an_import_store_all_rows_or_none(
    database_url: str, tmp_path: Path, query: Callable[..., Rows]
) -> None:
    """And a retry under the same key stores them once, whatever became of the first."""
    content, chance = make_csv(ROWS // 4), random.Random(1)
    with Service(tmp_path, DATABASE_URL=database_url, LOG_LEVEL="warning") as service, ThreadPoolExecutor(1) as pool:
        for number in range(8):
            key = {"Idempotency-Key": f"kill-{number}"}
            importing = pool.submit(send, service, content, **key)
            time.sleep(chance.uniform(0.05, 1.0))
            service.stop(SIGKILL)
            assert isinstance(importing.exception(), httpx.TransportError | None)
            service.start()
            ((stored, _),) = query(COUNT)
            assert stored in {number * len(content.splitlines()[1:]), (number + 1) * len(content.splitlines()[1:])}
            response = send(service, content, **key)
            assert (response.status_code, response.json()["created"]) == (200, ROWS // 4)
            assert query(COUNT) == [((number + 1) * ROWS // 4, ROWS // 4)]
        assert "Traceback" not in service.log()
    if database_url.startswith("sqlite"):
        assert query("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize(("what", "rows"), [("database", 15_000), ("uploads", 50_000)])
def test_import_on_a_full_disk_stores_nothing(what: str, rows: int, small_disk: Path, tmp_path: Path) -> None:
    """And all of it once there is room."""
    path = (small_disk if what == "database" else tmp_path) / "students.db"
    variables: dict[str, Any] = {} if what == "database" else {"TMPDIR": small_disk}
    detail = UNAVAILABLE if what == "database" else str(ResourceError(TEMPORARY))
    with Service(tmp_path, DATABASE_URL=f"sqlite:///{path}", LOG_LEVEL="warning", **variables) as service:
        assert service.client.post("/student", json=ANANYA).status_code == 201
        for _ in range(2):
            assert_is_problem(send(service, make_csv(rows)), 503, detail)
            form = service.client.post("/students/import", files={"file": ("a.csv", make_csv(rows), "text/csv")})
            assert_is_problem(form, 503, detail)
            assert query_sqlite(path, COUNT) == [(1, 1)]
            assert service.client.get("/student/1").json() == {"id": 1, **ANANYA}
        response = send(service, make_csv(100))
        assert (response.status_code, response.json()["created"]) == (200, 100)
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        response = send(service, make_csv(rows))
        assert (response.status_code, response.json()["created"]) == (200, rows)
        assert query_sqlite(path, COUNT) == [(1 + 100 + rows, 1 + rows)]
        assert query_sqlite(path, "PRAGMA integrity_check") == [("ok",)]
        assert "Traceback" not in service.log()


LIMIT = 64 * 1024 * 1024


def test_large_file_is_not_held_in_memory(service: Service, query: Callable[..., Rows]) -> None:
    """Of 64 MiB, spooled to the disk; the service grows by less than 150 MiB."""
    line = f"{'student of a long name ' * 2}%07d,Department of Physics,8.9\r\n"
    rows = (LIMIT - 100) // len(line % 0)
    content = (HEADER + "".join(line % number for number in range(rows))).encode()
    assert LIMIT - 1000 < len(content) <= LIMIT
    assert service.process is not None
    process = psutil.Process(service.process.pid)
    assert service.client.get("/students").status_code == 200
    before = peak = process.memory_info().rss
    with ThreadPoolExecutor(1) as pool:
        importing = pool.submit(send, service, content)
        while not importing.done():
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.02)
    assert (importing.result().status_code, importing.result().json()["created"]) == (200, rows)
    assert query(COUNT) == [(rows, rows)]
    print(f"grew by {(peak - before) / 1024**2:.0f} MiB for {rows} rows")  # noqa: T201  shown by pytest -s
    assert peak - before < 150 * 1024**2
