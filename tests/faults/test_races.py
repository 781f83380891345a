"""Many clients who want the same thing at once, on two workers: one of them gets it."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

import psutil
import pytest

from tests.conftest import Rows
from tests.faults.ledger import STUDENTS, Response, Wire
from tests.service import ANANYA, Service

pytestmark = pytest.mark.faults

ROUNDS = 500
CLIENTS = 20


@pytest.fixture
def service(database_url: str, tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path, DATABASE_URL=database_url, LOG_LEVEL="warning", WORKERS=2) as service:
        yield service


def find_worker(service: Service, wire: Wire) -> int:
    """Tell which process serves a connection."""
    assert service.process is not None
    for worker in psutil.Process(service.process.pid).children(recursive=True):
        for connection in worker.net_connections("tcp4"):
            if connection.raddr and connection.raddr.port == wire.local_port:
                return worker.pid
    raise LookupError(wire.local_port)


@pytest.fixture
def wires(service: Service) -> Iterator[tuple[Wire, Wire]]:
    """Two connections, each to a worker of its own."""
    with ExitStack() as stack:
        by_worker: dict[int, Wire] = {}
        while len(by_worker) < 2:
            wire = stack.enter_context(Wire(service.port))
            assert wire.ask("GET", "/health/live").status == 200
            by_worker[find_worker(service, wire)] = wire
        first, second = by_worker.values()
        yield first, second


def test_of_two_clients_with_one_etag_exactly_one_wins(
    wires: tuple[Wire, Wire], query: Callable[..., Rows], service: Service
) -> None:
    """If-Match is checked in the transaction of the write. Beside PUT there are PATCH and DELETE.

    Whoever comes after a DELETE is told that there is no such student.
    """
    wins: Counter[int] = Counter()
    with ThreadPoolExecutor(2) as pool:
        current = wires[0].ask("POST", "/student", ANANYA)
        for number in range(ROUNDS):
            student_id, etag = current.json()["id"], current.headers["ETag"]
            replacement = {**ANANYA, "name": f"round {number} client 0"}
            changes: list[tuple[str, object]] = [("PUT", replacement), ("PUT", {**replacement, "name": "other"})]
            changes[1] = {
                3: ("PATCH", {"cgpa": number / 100}),
                4: ("DELETE", None),
            }.get(number % 5, ("PUT", {**replacement, "name": f"round {number} client 1"}))
            barrier = Barrier(2)

            def send(client: int, *, path: str, etag: str, changes: list[tuple[str, object]], at: Barrier) -> Response:
                at.wait()
                return wires[client].ask(changes[client][0], path, changes[client][1], If_Match=etag)

            path = f"/student/{student_id}"
            futures = [
                pool.submit(send, client, path=path, etag=etag, changes=changes, at=barrier) for client in (0, 1)
            ]
            responses = [future.result() for future in futures]
            winner = 0 if responses[0].status == 200 else 1
            deleted = changes[winner][0] == "DELETE"
            assert responses[winner].status == 200, responses
            assert responses[1 - winner].status == (404 if deleted else 412), responses
            wins[winner] += 1
            if deleted:
                assert query(STUDENTS) == []
                current = wires[0].ask("POST", "/student", ANANYA)
            else:
                assert query(STUDENTS) == [tuple(responses[winner].json().values())]
                current = wires[0].ask("GET", path)
                assert current.json() == responses[winner].json()
                assert current.headers["ETag"] == responses[winner].headers["ETag"] != etag
    assert wins.total() == ROUNDS
    assert min(wins.values()) > 0
    assert "Traceback" not in service.log()


def test_one_key_from_many_clients_at_once_makes_one_row(service: Service, query: Callable[..., Rows]) -> None:
    """Each client gets the one response, or a 409 while the first request runs, and then the one response."""
    rounds = 25
    seen: Counter[int] = Counter()
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(service.port)) for _ in range(CLIENTS)]
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        barrier = Barrier(CLIENTS)

        def create(wire: Wire, number: int) -> Response:
            barrier.wait()
            return wire.ask("POST", "/student", {**ANANYA, "name": f"round {number}"}, Idempotency_Key=f"key-{number}")

        for number in range(rounds):
            responses = [future.result() for future in [pool.submit(create, wire, number) for wire in wires]]
            seen.update(response.status for response in responses)
            assert {response.status for response in responses} <= {201, 409}, responses
            won = [response for response in responses if response.status == 201]
            assert (
                len({(response.body, response.headers["Location"], response.headers["ETag"]) for response in won}) == 1
            )
            for response in responses:
                if response.status == 409:
                    assert response.detail == "The first request with this Idempotency-Key is still running"
            assert query(f"{STUDENTS} WHERE name = ?", f"round {number}") == [tuple(won[0].json().values())]
            again = wires[0].ask(
                "POST", "/student", {**ANANYA, "name": f"round {number}"}, Idempotency_Key=f"key-{number}"
            )
            assert (again.status, again.body) == (201, won[0].body)
    assert query("SELECT count(*) FROM students") == [(rounds,)]
    assert seen.total() == rounds * CLIENTS
    assert "Traceback" not in service.log()
