"""Writes that come together on SQLite share a COMMIT, and each gets its own outcome."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session

from litestar_app.database import Database
from litestar_app.database.config import AlchemyConfig, Timeouts
from litestar_app.exceptions import DatabaseUnavailableError
from tests.conftest import Rows
from tests.database import prepare
from tests.service import ANANYA, serve_database

INSERT = text("INSERT INTO students (name, department, cgpa) VALUES (:name, 'CSE', 8.9)")
Work = Callable[[Session], str]


@pytest.fixture
def alchemy(sqlite_url: str) -> Iterator[AlchemyConfig]:
    with prepare(sqlite_url, Timeouts(close=1)) as alchemy:
        yield alchemy


@pytest.fixture
def names(query_file: Callable[..., Rows], alchemy: AlchemyConfig) -> Callable[[], list[str]]:
    assert alchemy.is_sqlite
    return lambda: [name for (name,) in query_file("SELECT name FROM students ORDER BY id")]


def create(name: str) -> Work:
    def work(session: Session) -> str:
        session.execute(INSERT, {"name": name})
        return name

    return work


async def write_behind(
    database: Database, works: list[Work], meanwhile: Callable[[list[asyncio.Task[str]]], Awaitable[None]]
) -> list[Any]:
    """Write these while another write is under way, so that they wait together; do something else meanwhile."""
    begun, release = threading.Event(), threading.Event()

    def first(session: Session) -> str:
        begun.set()
        assert release.wait(10)
        return create("First")(session)

    one = asyncio.ensure_future(database.write(first))
    await asyncio.to_thread(begun.wait, 10)
    others = [asyncio.ensure_future(database.write(work)) for work in works]
    await asyncio.sleep(0)
    await meanwhile(others)
    release.set()
    return list(await asyncio.gather(one, *others, return_exceptions=True))


async def do_nothing(_others: object) -> None:
    pass


def run(alchemy: AlchemyConfig, works: list[Work], meanwhile: Any = do_nothing) -> list[Any]:
    async def main() -> list[Any]:
        database = Database(alchemy)
        async with asyncio.timeout(30), database.open():
            return await write_behind(database, works, meanwhile)

    return asyncio.run(main())


def test_writes_that_wait_share_one_commit(alchemy: AlchemyConfig, names: Callable[[], list[str]]) -> None:
    commits: list[Connection] = []
    event.listen(alchemy.get_engine(), "commit", commits.append)
    assert run(alchemy, [create("A"), create("B"), create("C")]) == ["First", "A", "B", "C"] == names()
    assert len(commits) == 2


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError, StopIteration])
def test_failure_is_its_own_writers(
    alchemy: AlchemyConfig, names: Callable[[], list[str]], error: type[BaseException]
) -> None:
    def fail(session: Session) -> str:
        create("Doomed")(session)
        raise error

    outcomes = run(alchemy, [create("A"), fail, create("B")])
    assert isinstance(outcomes.pop(2), RuntimeError if error is StopIteration else error)
    assert outcomes == ["First", "A", "B"] == names()


def test_client_that_left_is_not_written(alchemy: AlchemyConfig, names: Callable[[], list[str]]) -> None:
    async def leave(others: list[asyncio.Task[str]]) -> None:
        others[0].cancel()

    first, gone, a = run(alchemy, [create("Gone"), create("A")], leave)
    assert isinstance(gone, asyncio.CancelledError)
    assert [first, a] == ["First", "A"] == names()


def test_only_client_that_left_is_not_written(alchemy: AlchemyConfig, names: Callable[[], list[str]]) -> None:
    async def leave(others: list[asyncio.Task[str]]) -> None:
        others[0].cancel()

    assert run(alchemy, [create("Gone")], leave)[0] == "First"
    assert names() == ["First"]


def test_client_that_leaves_during_its_group(alchemy: AlchemyConfig, names: Callable[[], list[str]]) -> None:
    """The row is stored, as nobody can stop it any more, and the others get their outcomes."""

    async def main() -> list[Any]:
        database = Database(alchemy)
        loop = asyncio.get_running_loop()

        def see_it_leave(session: Session) -> str:
            gone = threading.Event()
            loop.call_soon_threadsafe(leaver.cancel)
            loop.call_soon_threadsafe(gone.set)
            assert gone.wait(10)
            return create("Gone")(session)

        async with asyncio.timeout(30), database.open():
            leaver = asyncio.ensure_future(database.write(see_it_leave))
            last = asyncio.ensure_future(database.write(create("A")))
            return list(await asyncio.gather(leaver, last, return_exceptions=True))

    gone, a = asyncio.run(main())
    assert isinstance(gone, asyncio.CancelledError)
    assert (a, names()) == ("A", ["Gone", "A"])


def test_stop_writes_what_waits(alchemy: AlchemyConfig, names: Callable[[], list[str]]) -> None:
    """A write after that is rejected."""

    async def main() -> list[Any]:
        database = Database(alchemy)
        async with asyncio.timeout(30):
            async with database.open():
                writes = [asyncio.ensure_future(database.write(create(name))) for name in "AB"]
                await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            late = database.write(create("Late"))
            return list(await asyncio.gather(*writes, late, return_exceptions=True))

    *written, late = asyncio.run(main())
    assert written == ["A", "B"] == names()
    assert isinstance(late, DatabaseUnavailableError)


def test_stop_does_not_wait_for_ever(alchemy: AlchemyConfig, names: Callable[[], list[str]]) -> None:
    """A write that hangs is left behind after `Timeouts.close`; those behind it are rejected, and not stored."""
    release = threading.Event()

    def hang(_session: Session) -> str:
        release.wait(20)
        raise ZeroDivisionError

    async def main() -> list[Any]:
        database = Database(alchemy)
        async with asyncio.timeout(30):
            async with database.open():
                writes = [asyncio.ensure_future(database.write(hang))]
                await asyncio.sleep(0.1)
                writes.append(asyncio.ensure_future(database.write(create("Late"))))
                await asyncio.sleep(0)
            release.set()
            return list(await asyncio.gather(*writes, return_exceptions=True))

    hung, late = asyncio.run(main())
    assert isinstance(hung, ZeroDivisionError | DatabaseUnavailableError)
    assert isinstance(late, DatabaseUnavailableError)
    assert names() == []


def test_many_clients_each_get_their_own(sqlite_url: str, query_file: Callable[..., Rows]) -> None:
    """Creations, rejections and failed preconditions, all at the same time."""
    with serve_database(sqlite_url) as client, ThreadPoolExecutor(32) as pool:
        client.post("/student", json=ANANYA)

        def send(number: int) -> tuple[int, Any]:
            if number % 3 == 0:
                return 404, client.put(f"/student/{10**6 + number}", json=ANANYA)
            if number % 3 == 1:
                return 412, client.patch("/student/1", json={"cgpa": 1}, headers={"If-Match": '"other"'})
            return 201, client.post("/student", json={**ANANYA, "name": f"Student {number}"})

        responses = list(pool.map(send, range(300)))
    assert all(response.status_code == expected for expected, response in responses)
    created = {response.json()["id"]: response.json()["name"] for expected, response in responses if expected == 201}
    assert dict(query_file("SELECT id, name FROM students WHERE id > 1")) == created
    assert len(created) == 100
