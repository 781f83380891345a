"""A COMMIT that fails or whose response is lost: an error, no row by mistake, and a connection that is whole."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGKILL

import pymysql
import pytest

from litestar_app.database.config import THREADS
from tests.conftest import Rows
from tests.faults.ledger import STUDENTS, Response, Wire, ask, wait_until
from tests.faults.proxy import (
    Link,
    Plan,
    Proxy,
    cut_before_the_response,
    cut_before_the_server_gets_it,
    respond_with,
    run_proxy,
    swallow,
)
from tests.mariadb import MariaDB
from tests.service import ANANYA, Service

pytestmark = pytest.mark.faults

DOOMED = {**ANANYA, "name": "Doomed"}
STORED = (1, "Ananya", "CSE", 8.9)
FAILS_AT_COMMIT = """
CREATE TABLE parents (id INTEGER PRIMARY KEY);
CREATE TABLE orphans (parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED);
CREATE TRIGGER on_insert AFTER INSERT ON students WHEN new.name = 'Doomed'
    BEGIN INSERT INTO orphans VALUES (1); END;
CREATE TRIGGER on_update AFTER UPDATE ON students WHEN new.name = 'Doomed'
    BEGIN INSERT INTO orphans VALUES (1); END;
CREATE TRIGGER on_delete AFTER DELETE ON students WHEN old.name = 'Undying'
    BEGIN INSERT INTO orphans VALUES (1); END;
"""


def assert_the_next_writes_are_kept(service: Service, query: Callable[..., Rows], before: Rows) -> None:
    """More writes than there are connections, at once, so that each connection of the pool has to show itself.

    They are looked at behind the service's back, and again after it has been killed.
    """
    names = [f"Next {number}" for number in range(3 * THREADS)]

    def create(name: str) -> Response:
        return ask(service.port, "POST", "/student", {**ANANYA, "name": name})

    with ThreadPoolExecutor(len(names)) as pool:
        responses = list(pool.map(create, names))
    assert {response.status for response in responses} == {201}
    expected = sorted(
        [*before, *((response.json()["id"], response.json()["name"], "CSE", 8.9) for response in responses)]
    )
    assert sorted(query(STUDENTS)) == expected
    with Wire(service.port) as wire:
        assert [tuple(student.values()) for student in wire.ask("GET", "/students").json()] == expected
    service.stop(SIGKILL)
    assert sorted(query(STUDENTS)) == expected


@pytest.fixture
def deferred(tmp_path: Path, sqlite_path: Path) -> Iterator[Service]:
    """A service on SQLite where what is named Doomed, and the end of an Undying one, fail at COMMIT only."""
    with Service(tmp_path, DATABASE_URL=f"sqlite:///{sqlite_path}", LOG_LEVEL="warning") as service:
        connection = sqlite3.connect(sqlite_path)
        connection.executescript(FAILS_AT_COMMIT)
        connection.close()
        with Wire(service.port) as wire:
            wire.ask("POST", "/student", ANANYA)
            wire.ask("POST", "/student", {**ANANYA, "name": "Undying"})
        yield service


@pytest.mark.parametrize(
    ("method", "path", "data", "headers"),
    [
        ("POST", "/student", DOOMED, {}),
        ("POST", "/student", DOOMED, {"Idempotency_Key": "doomed"}),
        ("PUT", "/student/1", DOOMED, {}),
        ("PUT", "/student/1", DOOMED, {"If_Match": "*"}),
        ("PATCH", "/student/1", {"name": "Doomed"}, {}),
        ("DELETE", "/student/2", None, {}),
    ],
)
def test_a_commit_that_a_constraint_refuses_is_an_error_and_leaves_the_connection_whole(  # noqa: PLR0913, PLR0917  fixtures and a table of cases
    deferred: Service,
    query_file: Callable[..., Rows],
    method: str,
    path: str,
    data: object,
    headers: dict[str, str],
) -> None:
    """The trap: a connection that goes back to the pool with its transaction open loses the writes of others."""
    before = [STORED, (2, "Undying", "CSE", 8.9)]
    with Wire(deferred.port) as wire:
        for _ in range(2):
            response = wire.ask(method, path, data, **headers)
            assert response.status == 409
            assert response.detail == "A constraint of the database is violated"
            assert query_file(STUDENTS) == before
            assert query_file("SELECT * FROM orphans") == []
            assert query_file("SELECT * FROM idempotency_keys") == []
    assert_the_next_writes_are_kept(deferred, query_file, before)


def test_a_key_that_came_with_a_failed_commit_can_be_used_again(
    deferred: Service, query_file: Callable[..., Rows]
) -> None:
    with Wire(deferred.port) as wire:
        assert wire.ask("POST", "/student", DOOMED, Idempotency_Key="doomed").status == 409
        query_file("DROP TRIGGER on_insert")
        first = wire.ask("POST", "/student", DOOMED, Idempotency_Key="doomed")
        again = wire.ask("POST", "/student", DOOMED, Idempotency_Key="doomed")
    assert first.status == again.status == 201
    assert first.body == again.body
    assert query_file("SELECT count(*) FROM students WHERE name = 'Doomed'") == [(1,)]


def test_a_file_that_another_process_has_locked_is_a_503_and_works_again_when_it_is_free(
    tmp_path: Path, sqlite_path: Path, query_file: Callable[..., Rows]
) -> None:
    """Reads go on meanwhile. In WAL no lock can come between BEGIN IMMEDIATE and COMMIT, so this is where it waits."""
    with Service(tmp_path, LOG_LEVEL="warning") as service, Wire(service.port) as wire:
        assert wire.ask("POST", "/student", ANANYA).status == 201
        lock = sqlite3.connect(sqlite_path, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        with ThreadPoolExecutor(2) as pool:
            create = pool.submit(ask, service.port, "POST", "/student", DOOMED, Idempotency_Key="doomed")
            update = pool.submit(ask, service.port, "PUT", "/student/1", DOOMED)
            while not (create.done() and update.done()):
                assert wire.ask("GET", "/student/1").json()["name"] == "Ananya"
                assert wire.ask("GET", "/health/ready").status == 200
        for refused in (create.result(), update.result()):
            refused.assert_is_outage()
        lock.rollback()
        lock.close()
        assert query_file(STUDENTS) == [STORED]
        assert wire.ask("POST", "/student", DOOMED, Idempotency_Key="doomed").status == 201
        assert_the_next_writes_are_kept(service, query_file, query_file(STUDENTS))


def test_a_lock_that_is_released_in_time_is_waited_for(
    tmp_path: Path, sqlite_path: Path, query_file: Callable[..., Rows]
) -> None:
    with Service(tmp_path, LOG_LEVEL="warning") as service, Wire(service.port) as wire:
        lock = sqlite3.connect(sqlite_path, isolation_level=None, check_same_thread=False)
        lock.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.5, lock.rollback)
        release.start()
        assert wire.ask("POST", "/student", ANANYA).status == 201
        release.join()
        lock.close()
    assert query_file(STUDENTS) == [STORED]


@pytest.fixture
def proxy(mariadb: MariaDB) -> Iterator[Proxy]:
    with run_proxy(mariadb.port) as proxy:
        yield proxy


@pytest.fixture
def proxied(proxy: Proxy, mariadb: MariaDB, mysql_url: str, tmp_path: Path) -> Iterator[Service]:
    """A service that speaks to MariaDB through the proxy, with one student."""
    url = mysql_url.replace(f":{mariadb.port}/", f":{proxy.port}/")
    with Service(tmp_path, DATABASE_URL=url, LOG_LEVEL="warning") as service:
        with Wire(service.port) as wire:
            assert wire.ask("POST", "/student", ANANYA).status == 201
        yield service


def kill_in_the_server(mariadb: MariaDB) -> Plan:
    """Make a plan by which an administrator ends the connection between the last statement and COMMIT."""

    def kill(link: Link, packet: bytes) -> None:
        find = f"SELECT id FROM information_schema.processlist WHERE host LIKE '%:{link.server_port}'"
        ((connection_id,),) = mariadb.execute(find)
        mariadb.execute(f"KILL {connection_id}")
        wait_until(lambda: not mariadb.execute(find), "the end of the connection")
        link.server.sendall(packet)

    return kill


@pytest.mark.parametrize("headers", [{}, {"Idempotency_Key": "doomed"}], ids=["without a key", "with a key"])
@pytest.mark.parametrize("kind", ["cut before", "cut after", "killed", "no response"])
def test_a_connection_lost_during_commit_is_reported_as_an_unknown_outcome(  # noqa: PLR0913, PLR0917  fixtures and a table of cases
    kind: str,
    headers: dict[str, str],
    proxy: Proxy,
    proxied: Service,
    mariadb: MariaDB,
    mysql_query: Callable[..., Rows],
) -> None:
    """Never a 2xx, and never retried blindly; under a key the client's own retry gives exactly one row."""
    plans = {
        "cut before": cut_before_the_server_gets_it,
        "cut after": cut_before_the_response,
        "killed": kill_in_the_server(mariadb),
        "no response": swallow,
    }
    rows = 1 if kind == "cut after" else 0
    proxy.plans.append(plans[kind])
    with Wire(proxied.port) as wire:
        wire.ask("POST", "/student", DOOMED, **headers).assert_outcome_is_unknown()
        assert proxy.plans == []
        assert mysql_query("SELECT count(*) FROM students WHERE name = 'Doomed'") == [(rows,)]
        if headers:
            first = wire.ask("POST", "/student", DOOMED, **headers)
            again = wire.ask("POST", "/student", DOOMED, **headers)
            assert first.status == again.status == 201
            assert first.body == again.body
            assert mysql_query(f"{STUDENTS} WHERE name = 'Doomed'") == [tuple(first.json().values())]
    assert_the_next_writes_are_kept(proxied, mysql_query, mysql_query(STUDENTS))


@pytest.mark.parametrize(
    ("method", "data", "after"),
    [
        ("PUT", DOOMED, [(1, "Doomed", "CSE", 8.9)]),
        ("PATCH", {"name": "Doomed"}, [(1, "Doomed", "CSE", 8.9)]),
        ("DELETE", None, []),
    ],
)
def test_a_change_whose_commit_was_lost_is_not_reported_as_done(  # noqa: PLR0913, PLR0917  fixtures and a table of cases
    proxy: Proxy, proxied: Service, mysql_query: Callable[..., Rows], method: str, data: object, after: Rows
) -> None:
    with Wire(proxied.port) as wire:
        proxy.plans.append(cut_before_the_server_gets_it)
        wire.ask(method, "/student/1", data).assert_outcome_is_unknown()
        assert mysql_query(STUDENTS) == [STORED]
        proxy.plans.append(cut_before_the_response)
        wire.ask(method, "/student/1", data).assert_outcome_is_unknown()
        assert mysql_query(STUDENTS) == after
    assert_the_next_writes_are_kept(proxied, mysql_query, after)


@pytest.mark.parametrize("headers", [{}, {"Idempotency_Key": "doomed"}], ids=["without a key", "with a key"])
def test_a_commit_that_the_server_refuses_is_an_error_and_leaves_the_connection_whole(
    headers: dict[str, str], proxy: Proxy, proxied: Service, mysql_query: Callable[..., Rows]
) -> None:
    """The same trap as on SQLite: the transaction is still open in the server when COMMIT has failed."""
    refusal = respond_with(1180, "HY000", "Got error 28 'No space left on device' during COMMIT")
    with Wire(proxied.port) as wire:
        for _ in range(THREADS):
            proxy.plans.append(refusal)
            wire.ask("POST", "/student", DOOMED, **headers).assert_is_outage()
            assert mysql_query(STUDENTS) == [STORED]
    assert_the_next_writes_are_kept(proxied, mysql_query, [STORED])


@pytest.mark.parametrize("headers", [{}, {"Idempotency_Key": "doomed"}], ids=["without a key", "with a key"])
def test_a_deadlock_that_commit_reports_is_tried_again_and_gives_one_row(
    headers: dict[str, str], proxy: Proxy, proxied: Service, mysql_query: Callable[..., Rows]
) -> None:
    """As on a Galera cluster, where certification fails at COMMIT; the whole unit of work runs anew."""
    proxy.plans += 2 * [respond_with(1213, "40001", "Deadlock found when trying to get lock; try restarting")]
    with Wire(proxied.port) as wire:
        response = wire.ask("POST", "/student", DOOMED, **headers)
    assert response.status == 201
    assert proxy.plans == []
    assert mysql_query(STUDENTS) == [STORED, tuple(response.json().values())]


def test_a_connection_killed_while_a_statement_waits_is_an_error_and_nothing_has_changed(
    mariadb: MariaDB, mysql_url: str, mysql_query: Callable[..., Rows], tmp_path: Path
) -> None:
    """A real KILL, by an administrator, while the row is locked by another session."""
    database = mysql_url.rpartition("/")[2]
    waiting = (
        "SELECT id FROM information_schema.processlist WHERE db = %s AND command = 'Query' AND info LIKE 'UPDATE%%'"
    )
    with Service(tmp_path, DATABASE_URL=mysql_url, LOG_LEVEL="warning") as service, Wire(service.port) as wire:
        assert wire.ask("POST", "/student", ANANYA).status == 201
        with (
            pymysql.connect(host="127.0.0.1", port=mariadb.port, user="root", database=database) as session,
            ThreadPoolExecutor(1) as pool,
        ):
            session.cursor().execute("SELECT * FROM students FOR UPDATE")
            update = pool.submit(ask, service.port, "PUT", "/student/1", DOOMED)
            wait_until(lambda: mariadb.execute(waiting, database), "an update that waits")
            mariadb.execute(f"KILL {mariadb.execute(waiting, database)[0][0]}")
            response = update.result()
        response.assert_is_outage()
        assert mysql_query(STUDENTS) == [STORED]
        assert_the_next_writes_are_kept(service, mysql_query, [STORED])
