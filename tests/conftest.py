"""What every test has: a fresh database on SQLite and on MariaDB, and the service in front of it."""

import os
import sqlite3
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from selenium import webdriver
from sqlalchemy import Engine, event

from tests.browser import open_browser
from tests.mariadb import MISSING, MariaDB, StrictMariaDB, is_installed, open_session, run_mariadb
from tests.service import ANANYA, API_KEYS, AS_EDITOR, serve_database

Rows = list[tuple[Any, ...]]
Names = Callable[[], list[str]]
BY_ITSELF = ("api_keys", "ORDER BY idempotency_keys.created_at")
FRAME = {"PRAGMA", "SET", "BEGIN", "COMMIT"}
"""What frames a connection or a transaction, and is not what a request asks."""


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A server for the whole run; absent binaries skip its tests, but never where CI is set."""
    if not is_installed():
        assert "CI" not in os.environ, MISSING
        pytest.skip(MISSING)
    with run_mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def strict_mariadb(mariadb: MariaDB) -> Iterator[MariaDB]:
    """Another one, with other settings and TLS; the first is asked for to skip where that does."""
    del mariadb
    with run_mariadb(StrictMariaDB) as server:
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have `-k mysql` select every test on MariaDB."""
    for item in items:
        if "mariadb" in getattr(item, "fixturenames", ()):
            item.extra_keyword_matches.add("mysql")


@pytest.fixture
def mysql_url(mariadb: MariaDB) -> Iterator[str]:
    """An empty database on the MariaDB server."""
    name = f"test_{uuid.uuid4().hex}"
    yield mariadb.create_database(name)
    mariadb.execute(f"DROP DATABASE `{name}`")


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "students.db"


@pytest.fixture
def sqlite_url(sqlite_path: Path) -> str:
    return f"sqlite:///{sqlite_path}"


@pytest.fixture(params=["sqlite", "mysql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def client(database_url: str, sql_log: list[str]) -> Iterator[httpx.Client]:
    """A client of the service on an empty database of each kind."""
    assert not sql_log
    with serve_database(database_url) as client:
        yield client


@pytest.fixture(scope="module")
def idle_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client for requests that do not reach the database; a module shares it."""
    with serve_database(f"sqlite:///{tmp_path_factory.mktemp('idle')}/students.db") as client:
        yield client


@pytest.fixture(scope="module")
def keyed_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The same, with the key of an editor, of a service that has keys."""
    url = f"sqlite:///{tmp_path_factory.mktemp('keyed')}/students.db"
    with serve_database(url, headers=AS_EDITOR, api_keys=API_KEYS) as client:
        yield client


@pytest.fixture
def query_file(sqlite_path: Path) -> Callable[..., Rows]:
    """Look into the file behind the service's back."""
    return lambda statement, *values: query_sqlite(sqlite_path, statement, *values)


@pytest.fixture
def mysql_query(mariadb: MariaDB, mysql_url: str) -> Callable[..., Rows]:
    """Look into the database on MariaDB behind the service's back."""
    return lambda statement, *values: mariadb.execute(statement, *values, database=mysql_url.rpartition("/")[2])


@pytest.fixture
def query(database_url: str, request: pytest.FixtureRequest) -> Callable[..., Rows]:
    """Look into the database behind the service's back."""
    if database_url.startswith("sqlite"):
        return cast("Callable[..., Rows]", request.getfixturevalue("query_file"))
    mysql_query = request.getfixturevalue("mysql_query")
    return lambda statement, *values: mysql_query(statement.replace("?", "%s"), *values)


@pytest.fixture
def names(query: Callable[..., Rows]) -> Names:
    """Read the names of all students behind the service's back, in the order of their ids."""
    return lambda: [name for (name,) in query("SELECT name FROM students ORDER BY id")]


def query_sqlite(path: Path, statement: str, *values: Any) -> Rows:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, values).fetchall()


@pytest.fixture
def sql_log() -> Iterator[list[str]]:
    """Every SQL statement that this process sends, as the drivers see it."""
    sql_log: list[str] = []

    def trace(driver: Any, _record: object) -> None:
        if isinstance(driver, sqlite3.Connection):
            driver.set_trace_callback(sql_log.append)
            return
        query = driver.query

        def log(sql: str | bytes, *arguments: Any, **options: Any) -> Any:
            sql_log.append(sql if isinstance(sql, str) else sql.decode())
            return query(sql, *arguments, **options)

        driver.query = log

    event.listen(Engine, "connect", trace)
    yield sql_log
    event.remove(Engine, "connect", trace)


@pytest.fixture
def statements(client: httpx.Client, sql_log: list[str]) -> Callable[[], list[str]]:
    """Give the statements that have been sent since the service started, but for the frame of each.

    Nor those that the service sends by itself: for its API keys, and for what has expired.
    """
    client.get("/students")  # so that what a first request sets up is behind us
    sql_log.clear()

    def read() -> list[str]:
        asked = [statement for statement in sql_log if not any(text in statement for text in BY_ITSELF)]
        words = [statement.split()[0] for statement in asked]
        return [word for word in words if word not in FRAME]

    return read


@pytest.fixture
def ananya(client: httpx.Client) -> dict[str, Any]:
    """A student who is stored."""
    response = client.post("/student", json=ANANYA)
    assert response.status_code == 201
    return dict(response.json())


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    with open_browser(tmp_path) as browser:
        yield browser


@contextmanager
def locked_sqlite(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


@pytest.fixture
def locked(database_url: str, request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[Any]]:
    """Make a lock on all students that another program holds for the length of a block."""
    if database_url.startswith("sqlite"):
        return lambda: locked_sqlite(request.getfixturevalue("sqlite_path"))
    server = request.getfixturevalue("mariadb")
    return lambda: open_session(server, database_url, "SELECT * FROM students FOR UPDATE")


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of one megabyte, or as a parameter says; its tests are skipped where it cannot be had, but not in CI."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', '1m')}", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        reason = f"a small disk needs the right to mount: {mounted.stderr.strip()}"
        assert "CI" not in os.environ, reason
        pytest.skip(reason)
    yield place
    subprocess.run(["umount", str(place)], check=True)
