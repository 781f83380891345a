"""How many connections to MySQL a process has, and what a server does to it that grants few."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pymysql
import pytest

from litestar_app.database.limits import POOL_SIZE, THREADS, TRANSFERS, Sizes, Timeouts, size_threads
from litestar_app.database.mysql import MySQL
from litestar_app.exceptions import SettingsError
from litestar_app.settings import MIN_CONNECTIONS, Settings
from tests.conftest import Rows
from tests.database import prepare
from tests.mariadb import MariaDB
from tests.service import ANANYA, UNAVAILABLE, serve_database

ROWS = 3000
FILE = "name,department,cgpa\n" + "".join(f"Import {number},CSE,{number % 10}\n" for number in range(ROWS))
CSV = {"Content-Type": "text/csv"}


@pytest.fixture
def limit(mariadb: MariaDB, mysql_url: str) -> Callable[[int], str]:
    """Make a user with few connections, and return the URL of the database for it."""

    def limit(count: int) -> str:
        mariadb.execute(f"CREATE OR REPLACE USER limited WITH MAX_USER_CONNECTIONS {count}")
        mariadb.execute(f"GRANT ALL ON `{mysql_url.rpartition('/')[2]}`.* TO limited")
        return mysql_url.replace("root@", "limited@")

    return limit


@contextmanager
def count_sessions(mariadb: MariaDB, database_url: str) -> Iterator[list[int]]:
    """Count the sessions on a database again and again, for the length of a block."""
    counts: list[int] = []
    name, is_over = database_url.rpartition("/")[2], threading.Event()

    def count() -> None:
        while not is_over.wait(0.02):
            ((found,),) = mariadb.execute("SELECT COUNT(*) FROM information_schema.processlist WHERE db = %s", name)
            counts.append(found)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield counts
    finally:
        is_over.set()
        thread.join()


def test_default_is_what_the_threads_need() -> None:
    assert Settings().max_database_connections == POOL_SIZE
    assert size_threads(POOL_SIZE) == Sizes(THREADS, TRANSFERS)


@pytest.mark.parametrize("connections", range(MIN_CONNECTIONS, POOL_SIZE + 1))
def test_threads_have_a_connection_each(connections: int) -> None:
    sizes = size_threads(connections)
    short = sizes.short * (1 + sizes.has_scanners)
    assert min(sizes.short, sizes.long) >= 1
    assert short + 3 * sizes.long + sizes.has_pinger <= connections
    assert connections < MIN_CONNECTIONS + 3 or short + 3 * sizes.long + sizes.has_pinger < connections  # to interrupt


def work_at_once(client: httpx.Client) -> dict[str, set[int]]:
    """Read, scan, write, import and export at the same time; return the statuses of each."""

    def export() -> int:
        with client.stream("GET", "/students/export?format=ndjson") as response:
            return response.status_code if len([*response.iter_lines()]) >= 1 else 0

    paths = {"get": "/student/1", "list": "/students", "scan": "/students?name=n&count=true", "ready": "/health/ready"}
    work: dict[str, Callable[[], int]] = {
        **{kind: lambda path=path: client.get(path).status_code for kind, path in paths.items()},  # type: ignore[misc]
        "post": lambda: client.post("/student", json=ANANYA).status_code,
        "put": lambda: client.put("/student/1", json={**ANANYA, "cgpa": 1}).status_code,
        "export": export,
    }
    with ThreadPoolExecutor(len(work) + 1) as pool:
        importing = pool.submit(client.post, "/students/import", content=FILE, headers=CSV)
        running = {kind: [pool.submit(one) for _ in range(8)] for kind, one in work.items()}
        statuses = {kind: {future.result() for future in futures} for kind, futures in running.items()}
        return statuses | {"import": {importing.result().status_code}}


FINE = {
    "get": {200}, "list": {200}, "scan": {200}, "ready": {200}, "post": {201}, "put": {200}, "export": {200},
    "import": {200},
}  # fmt: skip


@pytest.mark.parametrize("granted", [MIN_CONNECTIONS, 5, 8])
def test_server_that_grants_few_connections_is_served(
    mariadb: MariaDB, mysql_url: str, limit: Callable[[int], str], mysql_query: Callable[..., Rows], granted: int
) -> None:
    """Whatever is done at the same time; it only takes longer."""
    with serve_database(limit(granted)) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        with count_sessions(mariadb, mysql_url) as counts:
            assert work_at_once(client) == FINE
        assert max(counts) <= granted
    assert mysql_query("SELECT COUNT(*) FROM students") == [(1 + 8 + ROWS,)]


def test_setting_limits_the_connections(mariadb: MariaDB, mysql_url: str) -> None:
    with serve_database(mysql_url, max_database_connections=6) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        with count_sessions(mariadb, mysql_url) as counts:
            assert work_at_once(client) == FINE
        assert 3 < max(counts) <= 6


def test_fewer_connections_than_the_setting_are_told(
    limit: Callable[[int], str], caplog: pytest.LogCaptureFixture
) -> None:
    with prepare(limit(5)) as alchemy:
        assert isinstance(alchemy.backend, MySQL)
        assert alchemy.backend.connections == 5
    message = "The database server grants 5 connections: this process uses 5, not 43 (MAX_DATABASE_CONNECTIONS)"
    assert caplog.messages == [message]


def test_workers_share_what_is_granted(limit: Callable[[int], str]) -> None:
    with prepare(limit(20), workers=2) as alchemy:
        assert isinstance(alchemy.backend, MySQL)
        assert alchemy.backend.connections == 10


def connect_instead(mariadb: MariaDB, url: str) -> "pymysql.Connection[Any]":
    """Open a connection in place of one of the service, which may be faster and connect again."""
    while True:
        mariadb.kill_sessions(url)
        with suppress(pymysql.err.OperationalError):
            return pymysql.connect(host="127.0.0.1", port=mariadb.port, user="limited")


@pytest.mark.parametrize("is_given_back", [True, False])
def test_connection_that_the_server_does_not_have_is_waited_for(
    mariadb: MariaDB, limit: Callable[[int], str], is_given_back: bool
) -> None:
    """Then the response is 503; and the start fails in one line."""
    url = limit(5)
    with serve_database(url, Timeouts(lock=20 if is_given_back else 0.3)) as client, ExitStack() as stack:
        for _ in range(5):
            stack.callback(connect_instead(mariadb, url).close)
        if is_given_back:
            threading.Timer(0.5, stack.close).start()
        response = client.get("/students")
        if is_given_back:
            assert response.status_code == 200
            assert client.post("/student", json=ANANYA).status_code == 201
            return
        assert (response.status_code, response.json()["detail"]) == (503, UNAVAILABLE)
        assert client.get("/health/ready").status_code == 503
        with pytest.raises(SettingsError, match="max_user_connections"), prepare(url, Timeouts(start=0.2, lock=0.1)):
            pass


@pytest.mark.parametrize("lacks", ["the pool", "the server"])
def test_interrupt_without_a_connection_to_spare_is_given_up(limit: Callable[[int], str], lacks: str) -> None:
    """At once, by a server that grants no more; what is to be interrupted goes on to its end."""
    settings = {"max_database_connections": 4} if lacks == "the pool" else {}
    with prepare(limit(4 if lacks == "the server" else 10), Timeouts(ready=1, lock=3600), **settings) as alchemy:
        engine = alchemy.get_engine()
        with ExitStack() as stack:
            first, *_ = [stack.enter_context(engine.connect()) for _ in range(4)]
            alchemy.backend.interrupt(first.connection.dbapi_connection, engine)
            assert first.exec_driver_sql("SELECT 1").scalar_one() == 1
