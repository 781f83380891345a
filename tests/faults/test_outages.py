"""MariaDB crashes or hangs under load: 503 meanwhile, recovery by itself, nothing lost."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGKILL

import httpx
import pytest

from tests.conftest import Rows
from tests.faults.ledger import STUDENTS, UNKNOWN, Ledger, assert_is_problem, is_unknown, wait_until, writing
from tests.mariadb import MariaDB, run_mariadb
from tests.service import ANANYA, UNAVAILABLE, Service, kill_one_worker

pytestmark = pytest.mark.faults

REQUESTS = [
    ("GET", "/student/1", None),
    ("GET", "/students", None),
    ("POST", "/student", {**ANANYA, "name": "Posted"}),
    ("PUT", "/student/1", {**ANANYA, "name": "Put"}),
    ("PATCH", "/student/2", {"name": "Patched"}),
    ("DELETE", "/student/3", None),
]


@pytest.fixture
def mariadb(mariadb: MariaDB) -> Iterator[MariaDB]:
    """A server of the test's own, which it may kill or freeze; the shared one is asked for to skip where that does."""
    del mariadb
    with run_mariadb() as server:
        yield server


def wait_until_ready(service: Service) -> None:
    wait_until(lambda: service.client.get("/health/ready").status_code == 200, "a service that is ready again")


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_database_is_a_503_until_it_is_back(
    workers: int, mariadb: MariaDB, mysql_url: str, mysql_query: Callable[..., Rows], tmp_path: Path
) -> None:
    """The service is not restarted, and its writers just go on; unanswered keys are repeated in the end."""
    ledger = Ledger()
    with Service(tmp_path, DATABASE_URL=mysql_url, LOG_LEVEL="error", WORKERS=workers) as service:
        with writing(ledger, service, 16, "writer"):
            for _ in range(5):
                ledger.wait_for("acknowledged", 100)
                mariadb.stop(SIGKILL)
                ledger.wait_for("503", 50)
                for method, path, body in [*REQUESTS, ("GET", "/health/ready", None)]:
                    assert_is_problem(service.client.request(method, path, json=body), 503, UNAVAILABLE)
                assert service.client.get("/health/live").status_code == 200
                mariadb.start()
                wait_until_ready(service)
        ledger.retry_unanswered(service.client)
        ledger.check(mysql_query(STUDENTS))
        assert ": 500: " not in service.log()
    assert mysql_query("CHECK TABLE students EXTENDED")[-1][2:] == ("status", "OK")


def test_hung_database_is_a_503_until_it_goes_on(
    mariadb: MariaDB, mysql_url: str, mysql_query: Callable[..., Rows], tmp_path: Path
) -> None:
    """Its sockets stay open and nothing comes: more requests than there are connections, and life goes on beside."""

    def send(request: tuple[str, str, object]) -> httpx.Response:
        return service.client.request(*request[:2], json=request[2])

    with Service(tmp_path, DATABASE_URL=mysql_url, LOG_LEVEL="error") as service:
        for name in ("One", "Two", "Three"):
            assert service.client.post("/student", json={**ANANYA, "name": name}).status_code == 201
        before = mysql_query(STUDENTS)
        with ThreadPoolExecutor(4 * len(REQUESTS)) as pool:
            list(pool.map(send, 4 * REQUESTS[:2]))  # so that there are connections to hang
            mariadb.pause()
            try:
                futures = [pool.submit(send, request) for request in 4 * REQUESTS]
                while not all(future.done() for future in futures):
                    assert service.client.get("/health/live").status_code == 200
                    assert_is_problem(service.client.get("/health/ready"), 503, UNAVAILABLE)
            finally:
                mariadb.resume()
        responses = [future.result() for future in futures]
        for response in responses:
            assert_is_problem(response, 503, UNKNOWN if is_unknown(response) else UNAVAILABLE)
        wait_until_ready(service)
        stored = mysql_query(STUDENTS)
        if not any(is_unknown(response) for response in responses):
            assert stored == before
        after = service.client.post("/student", json={**ANANYA, "name": "After"})
        assert after.status_code == 201
        assert mysql_query(STUDENTS) == [*stored, tuple(after.json().values())]
        assert ": 500: " not in service.log()


@pytest.mark.parametrize("in_flight", [0, 4])
def test_sigterm_while_the_database_hangs(mariadb: MariaDB, mysql_url: str, tmp_path: Path, in_flight: int) -> None:
    """The service ends in time: what is under way gets a 503, and what hangs is left behind."""

    def send(request: tuple[str, str, object]) -> httpx.Response:
        return service.client.request(*request[:2], json=request[2])

    with (
        Service(tmp_path, DATABASE_URL=mysql_url) as service,
        ThreadPoolExecutor(4 * len(REQUESTS)) as pool,
    ):
        for name in ("One", "Two", "Three"):
            assert service.client.post("/student", json={**ANANYA, "name": name}).status_code == 201
        list(pool.map(send, 4 * REQUESTS[:2]))  # so that there are connections to hang
        mariadb.pause()
        try:
            futures = [pool.submit(send, request) for request in in_flight * REQUESTS]
            time.sleep(1)
            began = time.monotonic()
            service.stop()
            assert time.monotonic() - began < 45
        finally:
            mariadb.resume()
        assert {future.result().status_code for future in futures} <= {503}
        assert "Traceback" not in service.log()


def test_worker_that_dies_in_an_outage_is_replaced_after_it(mariadb: MariaDB, mysql_url: str, tmp_path: Path) -> None:
    """The others, and their supervisor, go on meanwhile."""
    with Service(tmp_path, DATABASE_URL=mysql_url, WORKERS=2) as service:
        wait_until(lambda: service.log().count("startup complete") == 2, "two workers")
        time.sleep(1.5)  # in which the supervisor has seen that all have started
        mariadb.stop()
        try:
            kill_one_worker(service)
            wait_until(lambda: "cannot be used" in service.log(), "a worker that does not start")
        finally:
            mariadb.start()
        wait_until(lambda: service.log().count("startup complete") == 3, "a third worker")
        assert service.client.post("/student", json=ANANYA).status_code == 201
        assert "Traceback" not in service.log()
