"""Several hosts of MySQL: two servers that are no cluster, so that a row tells which of them was written to."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from signal import SIGKILL
from typing import Any

import httpx
import pymysql
import pytest

from litestar_app.database.config import create_alchemy_config
from litestar_app.database.limits import THREADS, Timeouts
from litestar_app.database.reads import Reader
from litestar_app.exceptions import SettingsError
from litestar_app.settings import Settings
from tests.database import prepare
from tests.faults.ledger import UNKNOWN, assert_is_problem, wait_until
from tests.faults.proxy import Link, run_proxy
from tests.mariadb import MariaDB, free_port, run_mariadb
from tests.service import ANANYA, UNAVAILABLE, serve_database

Servers = tuple[MariaDB, MariaDB]
QUICK = Timeouts(start=0, probe=0.05, stable=0.3)
PATIENT = Timeouts(probe=0.05, stable=3600)


@pytest.fixture(scope="module")
def both(mariadb: MariaDB) -> Iterator[Servers]:
    """Two servers of these tests' own; the shared one is asked for to skip where that does."""
    del mariadb
    with ExitStack() as stack:
        yield stack.enter_context(run_mariadb()), stack.enter_context(run_mariadb())


@pytest.fixture
def servers(both: Servers) -> Iterator[Servers]:
    """Both with an empty database, and fit for the next test at the end."""
    for server in both:
        with prepare(server.create_database("college")):
            pass
    yield both
    for server in both:
        if server.process is None:
            server.start()
        server.resume()
        server.execute("SET GLOBAL read_only = OFF")
        server.execute("DROP DATABASE college")


@pytest.fixture
def url(servers: Servers) -> str:
    first, second = servers
    return f"mysql://root@127.0.0.1:{first.port},127.0.0.1:{second.port}/college"


def post(client: httpx.Client, name: str, count: int = 3 * THREADS) -> None:
    """Create so many students that each thread has to show its connection."""
    for _ in range(count):
        assert client.post("/student", json={**ANANYA, "name": name}).status_code == 201


def get_names(client: httpx.Client) -> set[str]:
    """Get the first student so often that each thread has to show its connection."""
    return {client.get("/student/1").json()["name"] for _ in range(3 * THREADS)}


def read_names(server: MariaDB) -> set[str]:
    return {name for (name,) in server.execute("SELECT name FROM students", database="college")}


def wait_for_host(client: httpx.Client, server: MariaDB, name: str) -> None:
    """Wait until what is written is found on a server."""

    def is_there() -> bool:
        post(client, name, 1)
        return name in read_names(server)

    wait_until(is_there, f"writes on {server.port}")


def name_of(server: MariaDB) -> str:
    return f"127.0.0.1:{server.port}"


def connect(server: MariaDB) -> "pymysql.Connection[Any]":
    return pymysql.connect(host="127.0.0.1", port=server.port, user="root")


def number_of(session: "pymysql.Connection[Any]") -> int:
    return int(session.thread_id())  # type: ignore[no-untyped-call]


def test_next_host_takes_over_and_gives_back(url: str, servers: Servers, caplog: pytest.LogCaptureFixture) -> None:
    """No request fails that comes after the kill, and none when the preferred host is used again."""
    first, second = servers
    with serve_database(url, QUICK) as client:
        post(client, "One")
        assert get_names(client) == {"One"}
        first.stop(SIGKILL)
        post(client, "Two")
        assert get_names(client) == {"Two"}
        first.start()
        wait_for_host(client, first, "Three")
        post(client, "Four")
        assert get_names(client) == {"One"}
    assert read_names(first) == {"One", "Three", "Four"}
    assert read_names(second) == {"Two", "Three"}
    lost, back = [message for message in caplog.messages if "host" in message]
    assert lost.startswith(f"The database host is now {name_of(second)} ({name_of(first)}: ")
    assert back == f"The database host is now {name_of(first)}"


def test_host_that_returns_takes_over_only_when_it_is_stable(url: str, servers: Servers) -> None:
    first, second = servers
    with serve_database(url, PATIENT) as client:
        first.stop(SIGKILL)
        post(client, "One")
        first.start()
        post(client, "Two")
        assert read_names(first) == set()
        second.stop(SIGKILL)
        post(client, "Three")
        assert read_names(first) == {"Three"}


def test_read_only_host_is_skipped_while_it_is_that(url: str, servers: Servers) -> None:
    """As a replica is, and a node of a group that is not its primary."""
    first, second = servers
    first.execute("SET GLOBAL read_only = ON")
    with serve_database(url, QUICK) as client:
        post(client, "One")
        assert read_names(second) == {"One"}
        second.execute("SET GLOBAL read_only = ON")
        first.execute("SET GLOBAL read_only = OFF")
        wait_for_host(client, first, "Two")


def test_hung_host_keeps_no_request_for_long(url: str, servers: Servers) -> None:
    """What waits for a response of it fails, or begins anew, as soon as another one has taken over."""
    first, second = servers
    with serve_database(url, QUICK) as client:
        post(client, "One")
        client.get("/student/1")
        first.pause()
        began = time.monotonic()
        with ThreadPoolExecutor(2 * THREADS) as pool:
            reads = [pool.submit(client.get, "/students") for _ in range(THREADS)]
            writes = [pool.submit(client.post, "/student", json={**ANANYA, "name": "Two"}) for _ in range(THREADS)]
        assert {future.result().status_code for future in reads + writes} <= {200, 201}
        assert time.monotonic() - began < QUICK.socket
        assert read_names(second) == {"Two"}


def test_commit_that_waits_for_a_hung_host_is_unknown(url: str, servers: Servers) -> None:
    first, second = servers
    with run_proxy(first.port) as proxy:
        with serve_database(url.replace(f":{first.port}", f":{proxy.port}", 1), QUICK) as client:
            post(client, "One")

            def hang(_link: Link, _packet: bytes) -> None:
                first.pause()

            proxy.plans.append(hang)
            try:
                assert_is_problem(client.post("/student", json={**ANANYA, "name": "Two"}), 503, UNKNOWN)
                post(client, "Three")
            finally:
                first.resume()  # or the proxy would not end
        assert read_names(second) == {"Three"}
        assert "Three" not in read_names(first)


def test_no_host_is_ready(url: str, servers: Servers) -> None:
    """The service is live and not ready, begins to work when a host does, and does not start before."""
    first, second = servers
    with serve_database(url, QUICK) as client:
        post(client, "One")
        for server in servers:
            server.stop(SIGKILL)
        for response in (client.get("/health/ready"), client.get("/students"), client.post("/student", json=ANANYA)):
            assert_is_problem(response, 503, UNAVAILABLE)
        assert client.get("/health/live").status_code == 200
        alchemy = create_alchemy_config(Settings(database_url=url), QUICK)
        with pytest.raises(SettingsError) as caught:
            alchemy.prepare_database()
        message = str(caught.value)
        assert f"no host is ready: {name_of(first)}: Can't connect" in message
        assert f"; {name_of(second)}: Can't connect" in message
        second.start()
        wait_until(lambda: client.get("/health/ready").status_code == 200, "ready")
        post(client, "Two")
    assert read_names(second) == {"Two"}


def test_refused_password_stops_the_start_at_once(servers: Servers) -> None:
    """As with one host, whatever is wrong with the others; and no line shows the password."""
    url = f"mysql://nobody:secret@127.0.0.1:{free_port()},127.0.0.1:{servers[1].port}/college"
    alchemy = create_alchemy_config(Settings(database_url=url), Timeouts(start=60))
    with pytest.raises(SettingsError, match="Access denied") as caught:
        alchemy.prepare_database()
    assert "secret" not in str(caught.value)


def test_interrupt_hits_nobody_on_another_host(url: str, servers: Servers) -> None:
    """The number of a session means another session there."""
    first, second = servers
    alchemy = create_alchemy_config(Settings(database_url=url), QUICK)
    alchemy.prepare_database()
    engine = alchemy.get_engine()
    reader = Reader(engine, {}, alchemy.backend)
    others = [connect(second)]
    while (number := reader.connect().exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()) <= number_of(others[-1]):
        reader.close()
    while number_of(others[-1]) < number:
        others.append(connect(second))
    assert number_of(others[-1]) == number
    first.stop(SIGKILL)
    with engine.connect():
        reader.interrupt()
    for other in others:
        other.ping(reconnect=False)
        other.close()
    reader.close()
    engine.dispose()


def test_connection_of_the_pool_does_not_keep_a_host(url: str, servers: Servers) -> None:
    first, second = servers
    alchemy = create_alchemy_config(Settings(database_url=url), QUICK)
    alchemy.prepare_database()
    engine = alchemy.get_engine()

    def port() -> int:
        with engine.connect() as connection:
            return int(connection.exec_driver_sql("SELECT @@port").scalar_one())

    assert port() == first.port
    first.execute("SET GLOBAL read_only = ON")
    alchemy.backend.open(engine)
    wait_until(lambda: port() == second.port, "the other host")
    alchemy.backend.close()
    engine.dispose()
