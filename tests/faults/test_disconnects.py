"""Clients that go away in the middle of a request: no half-written student, and nothing of them is left behind."""

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from litestar_app.database.limits import POOL_SIZE, THREADS
from tests.conftest import Rows
from tests.faults.ledger import STUDENTS, wait_until
from tests.service import ANANYA, Service

pytestmark = pytest.mark.faults

CLIENTS = 1000


@pytest.fixture
def service(database_url: str, tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path, DATABASE_URL=database_url) as service:
        yield service


def make_request(number: int) -> tuple[bytes, bytes]:
    """Make the head and the body of a creation."""
    body = json.dumps({**ANANYA, "name": f"client {number}"}).encode()
    head = (
        f"POST /student HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body


def use_every_connection(service: Service) -> None:
    """Read and write at once on more clients than there are connections."""
    requests = [("GET", "/students?limit=1", None), ("PUT", "/student/1", ANANYA), ("GET", "/health/ready", None)]
    with ThreadPoolExecutor(4 * THREADS) as pool:
        responses = list(pool.map(lambda r: service.client.request(*r[:2], json=r[2]), 10 * THREADS * requests))
    assert {response.status_code for response in responses} == {200}


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("part", ["half of the head", "half of the body", "all"])
def test_disconnected_clients_leave_nothing_behind(
    part: str, is_reset: bool, service: Service, query: Callable[..., Rows]
) -> None:
    """A complete request may be carried out, once and whole, although nobody reads its response."""

    def send_and_go(number: int) -> None:
        head, body = make_request(number)
        sent = {
            "half of the head": head[: len(head) // 2],
            "half of the body": head + body[: len(body) // 2],
            "all": head + body,
        }
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(sent[part])
            time.sleep(number % 10 / 1000)  # some go away before the service has looked, some while it waits for more
            if is_reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert service.process is not None
    process = psutil.Process(service.process.pid)
    assert service.client.post("/student", json=ANANYA).status_code == 201
    use_every_connection(service)
    files = process.num_fds()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(send_and_go, range(CLIENTS)))
    # what nobody waits for any more is carried out all the same, and may be more than MAX_REQUESTS
    wait_until(lambda: service.client.get("/students?limit=1").status_code == 200, "less than MAX_REQUESTS")
    use_every_connection(service)
    # a thread that had nothing to do before has opened its own by now
    wait_until(lambda: process.num_fds() <= files + POOL_SIZE, f"about as few open files as before, {files}")
    last = [service.client.post("/student", json={**ANANYA, "name": "last"}).status_code for _ in range(THREADS + 1)]
    assert last == [201] * len(last)
    rows = query(STUDENTS)
    names = [name for _, name, *_ in rows if name not in {"Ananya", "last"}]
    assert len(names) == len(set(names)) == len(rows) - 1 - len(last)
    assert set(names) <= ({f"client {number}" for number in range(CLIENTS)} if part == "all" else set())
    assert {(department, cgpa) for *_, department, cgpa in rows} == {("CSE", 8.9)}
    assert "Traceback" not in service.log()
    assert '"status":500' not in service.log()
