"""Many clients who want the same thing at once, on two workers: one of them gets it."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import Rows
from tests.faults.ledger import STUDENTS, assert_is_problem
from tests.service import ANANYA, Service, connect

pytestmark = pytest.mark.faults

ROUNDS = 500
CLIENTS = 20
LOST_RACE = {404: "Student not found", 412: "The student has changed since this ETag; fetch it and retry"}


@pytest.fixture
def service(database_url: str, tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path, DATABASE_URL=database_url, LOG_LEVEL="warning", WORKERS=2) as service:
        yield service
        assert "Traceback" not in service.log()


def find_worker(service: Service, client: httpx.Client) -> int:
    """Tell which process serves a client's one connection."""
    stream = client.get("/health/live").extensions["network_stream"]
    address = stream.get_extra_info("client_addr")
    assert service.process is not None
    for worker in psutil.Process(service.process.pid).children(recursive=True):
        if any(connection.raddr == address for connection in worker.net_connections("tcp4")):
            return worker.pid
    raise LookupError(address)


def test_of_two_clients_with_one_etag_one_wins(service: Service, query: Callable[..., Rows]) -> None:
    """If-Match is checked in the transaction of the write, on each of two workers. Nobody wins against a DELETE."""
    wins: Counter[int] = Counter()
    with ExitStack() as stack:
        by_worker: dict[int, httpx.Client] = {}
        while len(by_worker) < 2:
            client = stack.enter_context(connect(service.url))
            by_worker[find_worker(service, client)] = client
        clients = list(by_worker.values())
        pool = stack.enter_context(ThreadPoolExecutor(2))
        current = clients[0].post("/student", json=ANANYA)
        for number in range(ROUNDS):
            path, tag = f"/student/{current.json()['id']}", {"If-Match": current.headers["ETag"]}
            bodies = [{**ANANYA, "name": f"round {number} client {client}"} for client in (0, 1)]
            other = {3: ("PATCH", {"cgpa": number / 100}), 4: ("DELETE", None)}.get(number % 5, ("PUT", bodies[1]))
            changes = [("PUT", bodies[0]), other]
            futures = [
                pool.submit(client.request, method, path, json=body, headers=tag)
                for client, (method, body) in zip(clients, changes, strict=True)
            ]
            responses = [future.result() for future in futures]
            winner = 0 if responses[0].status_code == 200 else 1
            status = 404 if changes[winner][0] == "DELETE" else 412
            assert responses[winner].status_code == 200
            assert_is_problem(responses[1 - winner], status, LOST_RACE[status])
            wins[winner] += 1
            if status == 404:
                assert query(STUDENTS) == []
                current = clients[0].post("/student", json=ANANYA)
            else:
                current = responses[winner]
                assert query(STUDENTS) == [tuple(current.json().values())]
                assert current.headers["ETag"] != tag["If-Match"]
    assert min(wins[0], wins[1]) > 0


def test_one_key_from_many_clients_creates_one_row(service: Service, query: Callable[..., Rows]) -> None:
    """Each client gets the one response, or a 409 while the first request runs, and then the one response."""
    rounds = 25
    with ThreadPoolExecutor(CLIENTS) as pool:
        for number in range(rounds):
            body, key = {**ANANYA, "name": f"round {number}"}, {"Idempotency-Key": f"key-{number}"}
            futures = [pool.submit(service.client.post, "/student", json=body, headers=key) for _ in range(CLIENTS)]
            responses = [future.result() for future in futures]
            won = [response for response in responses if response.status_code == 201]
            for response in responses:
                if response.status_code != 201:
                    assert_is_problem(response, 409, "The first request with this Idempotency-Key is still running")
            won.append(service.client.post("/student", json=body, headers=key))
            assert {r.status_code for r in won} == {201}
            assert len({(r.content, r.headers["Location"], r.headers["ETag"]) for r in won}) == 1
            assert query(f"{STUDENTS} WHERE name = ?", body["name"]) == [tuple(won[0].json().values())]
    assert query("SELECT count(*) FROM students") == [(rounds,)]
