"""A COMMIT that fails or whose response is lost: an error, no row by mistake, and a connection that is whole."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGKILL

import pytest

from litestar_app.database.limits import THREADS
from tests.conftest import Rows
from tests.faults.ledger import STUDENTS, UNKNOWN, assert_is_problem
from tests.faults.proxy import (
    Plan,
    Proxy,
    cut_before_commit,
    cut_before_the_response,
    respond_with,
    run_proxy,
    swallow,
)
from tests.mariadb import MariaDB
from tests.service import ANANYA, UNAVAILABLE, Service

pytestmark = pytest.mark.faults

DOOMED = {**ANANYA, "name": "Doomed"}
KEY = {"Idempotency-Key": "doomed"}
STORED = (1, "Ananya", "CSE", 8.9)
FAILS_AT_COMMIT = (
    "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
    "CREATE TABLE orphans (parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)",
    "CREATE TRIGGER fail AFTER INSERT ON students WHEN new.name = 'Doomed' BEGIN INSERT INTO orphans VALUES (1); END",
)


def assert_next_writes_are_kept(service: Service, query: Callable[..., Rows]) -> None:
    """More writes than there are connections, at once, so that each connection of the pool has to show itself.

    They are looked at behind the service's back, and again after it has been killed.
    """

    def create(number: int) -> tuple[object, ...]:
        response = service.client.post("/student", json={**ANANYA, "name": f"Next {number}"})
        assert response.status_code == 201
        return tuple(response.json().values())

    before = query(STUDENTS)
    with ThreadPoolExecutor(3 * THREADS) as pool:
        expected = sorted([*before, *pool.map(create, range(3 * THREADS))])
    assert sorted(query(STUDENTS)) == expected
    service.stop(SIGKILL)
    assert sorted(query(STUDENTS)) == expected


def assert_key_creates_one_student(service: Service, query: Callable[..., Rows]) -> None:
    first, again = (service.client.post("/student", json=DOOMED, headers=KEY) for _ in range(2))
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert query(f"{STUDENTS} WHERE name = 'Doomed'") == [tuple(first.json().values())]


def test_commit_that_a_constraint_fails(tmp_path: Path, sqlite_path: Path, query_file: Callable[..., Rows]) -> None:
    """The trap: a connection that goes back to the pool with its transaction open loses the writes of others."""
    with Service(tmp_path, DATABASE_URL=f"sqlite:///{sqlite_path}", LOG_LEVEL="warning") as service:
        assert service.client.post("/student", json=ANANYA).status_code == 201
        for statement in FAILS_AT_COMMIT:
            query_file(statement)
        for headers in ({}, KEY):
            response = service.client.post("/student", json=DOOMED, headers=headers)
            assert_is_problem(response, 409, "A constraint of the database is violated")
            assert query_file(STUDENTS) == [STORED]
            assert query_file("SELECT * FROM orphans") == query_file("SELECT * FROM idempotency_keys") == []
        query_file("DROP TRIGGER fail")
        assert_key_creates_one_student(service, query_file)
        assert_next_writes_are_kept(service, query_file)


@pytest.fixture
def proxy(mariadb: MariaDB) -> Iterator[Proxy]:
    with run_proxy(mariadb.port) as proxy:
        yield proxy


@pytest.fixture
def service(proxy: Proxy, mariadb: MariaDB, mysql_url: str, tmp_path: Path) -> Iterator[Service]:
    """A service that speaks to MariaDB through the proxy, with one student."""
    url = mysql_url.replace(f":{mariadb.port}/", f":{proxy.port}/")
    with Service(tmp_path, DATABASE_URL=url, LOG_LEVEL="warning") as service:
        assert service.client.post("/student", json=ANANYA).status_code == 201
        yield service


OF_GALERA = (1180, "HY000", "Error while appending fragment(provider status: Not connected to Primary Component)")
LOST_RESPONSES = [
    (cut_before_commit, 0),
    (cut_before_the_response, 1),
    (swallow, 0),
    (respond_with(*OF_GALERA), 0),  # other nodes may have it all the same
]


@pytest.mark.parametrize(("plan", "rows"), LOST_RESPONSES)
def test_commit_whose_response_is_lost(
    proxy: Proxy, service: Service, mysql_query: Callable[..., Rows], plan: Plan, rows: int
) -> None:
    """Never a 2xx, and never retried blindly; under a key the client's own retry gives exactly one row."""
    proxy.plans.append(plan)
    assert_is_problem(service.client.post("/student", json=DOOMED, headers=KEY), 503, UNKNOWN)
    assert proxy.plans == []
    assert "POST /student: 503: COMMIT failed, its outcome is unknown: " in service.log()
    assert mysql_query("SELECT count(*) FROM students WHERE name = 'Doomed'") == [(rows,)]
    assert_key_creates_one_student(service, mysql_query)
    assert_next_writes_are_kept(service, mysql_query)


def test_commit_that_the_server_refuses(proxy: Proxy, service: Service, mysql_query: Callable[..., Rows]) -> None:
    """The same trap as on SQLite: the transaction is still open in the server when COMMIT has failed."""
    refusal = respond_with(1180, "HY000", "Got error 28 'No space left on device' during COMMIT")
    for _ in range(THREADS):
        proxy.plans.append(refusal)
        assert_is_problem(service.client.post("/student", json=DOOMED, headers=KEY), 503, UNAVAILABLE)
        assert mysql_query(STUDENTS) == [STORED]
    assert_next_writes_are_kept(service, mysql_query)


def test_deadlock_that_commit_reports_is_retried(
    proxy: Proxy, service: Service, mysql_query: Callable[..., Rows]
) -> None:
    """As on a Galera cluster, where certification fails at COMMIT; the whole unit of work runs anew."""
    proxy.plans += 2 * [respond_with(1213, "40001", "Deadlock found when trying to get lock; try restarting")]
    response = service.client.post("/student", json=DOOMED, headers=KEY)
    assert response.status_code == 201
    assert proxy.plans == []
    assert mysql_query(STUDENTS) == [STORED, tuple(response.json().values())]
