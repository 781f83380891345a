"""Somebody's own handlers on our application, with the plugin's session."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import get, post
from litestar.di import NamedDependency
from sqlalchemy import text
from sqlalchemy.orm import Session

from litestar_app.app import create_app
from litestar_app.database import Database
from litestar_app.database.config import create_alchemy_config
from litestar_app.database.limits import Timeouts
from litestar_app.exceptions import DatabaseUnavailableError
from litestar_app.settings import Settings
from tests.conftest import Names, locked_sqlite, query_sqlite
from tests.database import create, prepare
from tests.service import ANANYA, assert_is_unavailable, connect, serve_app

COUNT = text("SELECT COUNT(*) FROM students")
HAS_READ, MAY_WRITE = threading.Event(), threading.Event()


@get("/count", sync_to_thread=True)
def count(db_session: NamedDependency[Session]) -> int:
    return int(db_session.execute(COUNT).scalar_one())


@post("/add", sync_to_thread=True)
def add(db_session: NamedDependency[Session]) -> None:
    create("Added")(db_session)
    db_session.commit()


@post("/count-and-add", sync_to_thread=True)
def count_and_add(db_session: NamedDependency[Session]) -> None:
    """Name a student by how many there are, which must still hold at COMMIT."""
    number = int(db_session.execute(COUNT).scalar_one())
    HAS_READ.set()
    MAY_WRITE.wait(60)
    create(f"Number {number}")(db_session)
    db_session.commit()


@pytest.fixture
def extended(database_url: str) -> Iterator[httpx.Client]:
    """A client of an application with more routes, where a lock is waited for half a second."""
    settings = Settings(database_url=database_url)
    app = create_app(settings, create_alchemy_config(settings, Timeouts(lock=0.5)))
    for handler in (count, add, count_and_add):
        app.register(handler)
    HAS_READ.clear()
    MAY_WRITE.clear()
    with serve_app(app) as url, connect(url) as client:
        yield client


def test_read_does_not_wait_for_a_writer(
    extended: httpx.Client, locked: Callable[[], AbstractContextManager[Any]], names: Names
) -> None:
    assert extended.post("/add").status_code == 201
    with locked():
        assert extended.get("/count").json() == 1
    assert names() == ["Added"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_lock_that_stays_is_a_503(extended: httpx.Client, sqlite_path: Path, names: Names) -> None:
    with locked_sqlite(sqlite_path):
        assert_is_unavailable(extended.post("/add"))
    assert extended.post("/add").status_code == 201
    assert names() == ["Added"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_was_read_holds_at_commit(extended: httpx.Client, names: Names) -> None:
    """Another write in between is a 503, never a lost update; without one, the write succeeds."""
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(extended.post("/count-and-add")))
    thread.start()
    HAS_READ.wait()
    assert extended.post("/student", json=ANANYA).status_code == 201
    MAY_WRITE.set()
    thread.join()
    assert_is_unavailable(answers[0])
    assert extended.post("/count-and-add").status_code == 201
    assert names() == ["Ananya", "Number 1"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_file_replaced_before_commit_is_a_503(extended: httpx.Client, sqlite_path: Path) -> None:
    thread_answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: thread_answers.append(extended.post("/count-and-add")))
    thread.start()
    HAS_READ.wait()
    sqlite_path.rename(sqlite_path.with_name("moved.db"))
    MAY_WRITE.set()
    thread.join()
    assert_is_unavailable(thread_answers[0])
    assert query_sqlite(sqlite_path.with_name("moved.db"), "SELECT * FROM students") == []


def test_units_of_work_take_the_lock_first(sqlite_url: str, sql_log: list[str]) -> None:
    with prepare(sqlite_url) as alchemy:
        sql_log.clear()
        sessions: Any = alchemy.create_session_maker()
        with sessions() as session:
            session.execute(COUNT)
        with alchemy.get_engine().begin() as connection:
            connection.execute(COUNT)
    assert [statement for statement in sql_log if "BEGIN" in statement] == ["BEGIN", "BEGIN IMMEDIATE"]


def test_database_that_is_not_open_says_so_at_once(sqlite_url: str) -> None:
    """Before it is opened, and after it is closed."""

    async def main(database: Database) -> None:
        for is_opened in (False, True):
            if is_opened:
                async with database.open():
                    await database.write(create("A"))
            uses: list[Callable[[], Any]] = [
                lambda: database.write(create("B")),
                lambda: database.fetch(text("SELECT 1"), {}),  # type: ignore[arg-type]
                lambda: database.fetch(text("SELECT 1"), {}, short=False),  # type: ignore[arg-type]
                database.rewrite,
                database.ping,
                lambda: anext(database.stream(lambda _: (part for part in [b"x"]))),
                lambda: database.stage(lambda _: None).__aenter__(),
            ]
            for use in uses:
                with pytest.raises(DatabaseUnavailableError, match="the database is not open: "):
                    await use()

    with prepare(sqlite_url) as alchemy:
        asyncio.run(main(Database(alchemy)))
