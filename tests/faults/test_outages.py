"""MariaDB crashes or hangs under load: 503 meanwhile, recovery by itself, nothing lost."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.conftest import Rows
from tests.faults.ledger import STUDENTS, UNKNOWN, Ledger, Response, Wire, ask, wait_until, writing
from tests.mariadb import MariaDB, run_mariadb
from tests.service import ANANYA, Service

pytestmark = pytest.mark.faults


@pytest.fixture
def mariadb(mariadb: MariaDB) -> Iterator[MariaDB]:
    """A server of the test's own, which it may kill or freeze; the shared one is asked for to skip where that does."""
    del mariadb
    with run_mariadb() as server:
        yield server


def is_ready(service: Service) -> bool:
    return ask(service.port, "GET", "/health/ready").status == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_database_is_a_503_until_it_is_back_and_loses_nothing(  # noqa: PLR0913, PLR0917  fixtures
    workers: int,
    mariadb: MariaDB,
    mysql_url: str,
    mysql_query: Callable[..., Rows],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """The service is not restarted, and its writers just go on; unanswered keys are repeated in the end."""
    ledger, kills = Ledger(), 5
    with Service(tmp_path, DATABASE_URL=mysql_url, LOG_LEVEL="error", WORKERS=workers) as service:
        with writing(ledger, service.port, 16, "writer"):
            for _ in range(kills):
                ledger.wait_for("acknowledged", 100)
                mariadb.stop(SIGKILL)
                ledger.wait_for("503", 50)
                for method, path, data in [
                    ("GET", "/student/1", None),
                    ("GET", "/students", None),
                    ("POST", "/student", ANANYA),
                    ("PUT", "/student/1", ANANYA),
                    ("DELETE", "/student/1", None),
                    ("GET", "/health/ready", None),
                ]:
                    ask(service.port, method, path, data).assert_is_outage()
                assert ask(service.port, "GET", "/health/live").status == 200
                mariadb.start()
                wait_until(lambda: is_ready(service), "a service that is ready again")
        with Wire(service.port) as wire:
            ledger.repeat_unanswered(wire)
        verdict = ledger.compare(mysql_query(STUDENTS))
        assert ": 500: " not in service.log()  # what SQLAlchemy's pool says of connections that died is its own
    totals = {"kills": kills, **{what: ledger.count[what] for what in ("acknowledged", "unknown", "refused")}}
    totals |= {"lost": len(verdict.lost), "wrongly reported": len(verdict.wrong)}
    record_property("total: kills of MariaDB under the service", totals)
    assert (verdict.lost, verdict.wrong) == ([], [])
    assert mysql_query("CHECK TABLE students EXTENDED")[-1][2:] == ("status", "OK")


def test_a_hung_database_ends_requests_by_timeout_and_is_used_again_when_it_goes_on(
    mariadb: MariaDB,
    mysql_url: str,
    mysql_query: Callable[..., Rows],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Its sockets stay open and nothing comes: more requests than there are connections, and life goes on beside."""
    requests = [
        ("GET", "/student/1", None),
        ("GET", "/students", None),
        ("POST", "/student", {**ANANYA, "name": "Posted"}),
        ("PUT", "/student/1", {**ANANYA, "name": "Put"}),
        ("PATCH", "/student/2", {"name": "Patched"}),
        ("DELETE", "/student/3", None),
    ]
    longest = 0.0

    def send(request: tuple[str, str, object]) -> Response:
        nonlocal longest
        begun = time.monotonic()
        response = ask(service.port, *request)
        longest = max(longest, time.monotonic() - begun)
        return response

    with Service(tmp_path, DATABASE_URL=mysql_url, LOG_LEVEL="error") as service, Wire(service.port) as wire:
        for name in ("One", "Two", "Three"):
            assert wire.ask("POST", "/student", {**ANANYA, "name": name}).status == 201
        before = mysql_query(STUDENTS)
        with ThreadPoolExecutor(4 * len(requests)) as pool:
            list(pool.map(send, 4 * requests[:2]))  # so that there are connections to hang
            mariadb.pause()
            try:
                responses = [pool.submit(send, request) for request in 4 * requests]
                while not all(response.done() for response in responses):
                    assert wire.ask("GET", "/health/live").status == 200
                    wire.ask("GET", "/health/ready").assert_is_outage()
            finally:
                mariadb.resume()
        for response in responses:
            assert response.result().status == 503
            if UNKNOWN not in response.result().detail:
                response.result().assert_is_outage()
        wait_until(lambda: is_ready(service), "a service that is ready again")
        stored = mysql_query(STUDENTS)
        if not any(UNKNOWN in response.result().detail for response in responses):
            assert stored == before
        after = wire.ask("POST", "/student", {**ANANYA, "name": "After"})
        assert after.status == 201
        assert mysql_query(STUDENTS) == [*stored, tuple(after.json().values())]
        assert ": 500: " not in service.log()
    record_property("total: hung database", {"seconds at most for a response": round(longest)})
