"""Clients that go away in the middle of a request: no half-written student, and nothing of them is left behind."""

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from litestar_app.database.config import POOL_SIZE, THREADS
from tests.conftest import Rows
from tests.faults.ledger import STUDENTS, Response, Wire, ask, wait_until
from tests.service import ANANYA, Service

pytestmark = pytest.mark.faults

CLIENTS = 1000
SENDERS = 16


def make_request(number: int) -> tuple[bytes, bytes]:
    """Make the head and the body of a creation."""
    body = json.dumps({"name": f"client {number}", "department": "CSE", "cgpa": 8.9}).encode()
    head = (
        f"POST /student HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body


def half_of_the_headers(head: bytes, _body: bytes) -> bytes:
    return head[: len(head) // 2]


def half_of_the_body(head: bytes, body: bytes) -> bytes:
    return head + body[: len(body) // 2]


def all_of_it(head: bytes, body: bytes) -> bytes:
    return head + body


@pytest.fixture
def service(database_url: str, tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path, DATABASE_URL=database_url) as service:
        yield service


@pytest.fixture
def count_connections(
    database_url: str, request: pytest.FixtureRequest, service: Service
) -> Callable[[], tuple[int, int]]:
    """Count what the process has open, and the sessions that MariaDB has with it."""

    def count() -> tuple[int, int]:
        assert service.process is not None
        files = psutil.Process(service.process.pid).num_fds()
        if database_url.startswith("sqlite"):
            return files, 0
        find = "SELECT count(*) FROM information_schema.processlist WHERE db = %s"
        ((sessions,),) = request.getfixturevalue("mariadb").execute(find, database_url.rpartition("/")[2])
        return files, sessions

    return count


def use_every_connection(service: Service) -> None:
    """Read and write at once on more clients than there are connections."""
    requests = [("GET", "/students?limit=1", None), ("PUT", "/student/1", ANANYA), ("GET", "/health/ready", None)]

    def send(request: tuple[str, str, object]) -> Response:
        return ask(service.port, *request)

    with ThreadPoolExecutor(4 * THREADS) as pool:
        responses = list(pool.map(send, 10 * THREADS * requests))
    assert {response.status for response in responses} == {200}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("part", [half_of_the_headers, half_of_the_body, all_of_it])
def test_a_client_that_goes_away_leaves_nothing_half_done_and_no_connection(
    part: Callable[[bytes, bytes], bytes],
    reset: bool,
    service: Service,
    query: Callable[..., Rows],
    count_connections: Callable[[], tuple[int, int]],
) -> None:
    """A thousand of them. A complete request may be carried out, once and whole, although nobody reads its response."""

    def send_and_go(number: int) -> None:
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(part(*make_request(number)))
            time.sleep(number % 10 / 1000)  # some go away before the service has looked, some while it waits for more
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert ask(service.port, "POST", "/student", ANANYA).status == 201
    use_every_connection(service)
    files, sessions = count_connections()
    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(send_and_go, range(CLIENTS)))
    use_every_connection(service)

    def is_whole() -> bool:
        files_now, sessions_now = count_connections()
        # a worker thread that had nothing to do before has opened its own by now
        return files_now <= files + POOL_SIZE and sessions_now <= POOL_SIZE

    assert sessions <= POOL_SIZE
    wait_until(is_whole, f"as few open files and sessions as before, {files} and {sessions}")
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(service.port)) for _ in range(THREADS + 1)]
        pool = stack.enter_context(ThreadPoolExecutor(len(wires)))
        last = list(pool.map(lambda wire: wire.ask("POST", "/student", {**ANANYA, "name": "last"}), wires))
    assert {response.status for response in last} == {201}
    rows = query(STUDENTS)
    names = [name for _, name, *_ in rows if name not in {"Ananya", "last"}]
    assert len(names) == len(set(names))
    assert set(names) <= ({f"client {number}" for number in range(CLIENTS)} if part is all_of_it else set())
    assert {(department, cgpa) for *_, department, cgpa in rows} == {("CSE", 8.9)}
    assert len(rows) == 1 + len(names) + len(last)
    log = service.log()
    assert "Traceback" not in log
    assert " 500" not in log
