"""Writes that come together share a COMMIT, and each gets its own outcome."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

from litestar_app.database import Database
from litestar_app.database.config import THREADS, AlchemyConfig, Timeouts
from litestar_app.exceptions import DatabaseUnavailableError
from tests.conftest import Names, Rows
from tests.database import create, prepare, run
from tests.mariadb import MariaDB, open_session


@pytest.fixture
def alchemy(database_url: str) -> Iterator[AlchemyConfig]:
    with prepare(database_url, Timeouts(close=1)) as alchemy:
        yield alchemy


@pytest.fixture
def names(query: Callable[..., Rows]) -> Names:
    """Read the names, in their order: of two groups on MySQL either may be the first."""
    return lambda: sorted(name for (name,) in query("SELECT name FROM students"))


def update(session: Session) -> None:
    """Change the first student, a unit of work that waits where that row is locked."""
    session.connection().exec_driver_sql("UPDATE students SET cgpa = 2 WHERE id = 1")


def write_together(alchemy: AlchemyConfig, works: list[Callable[[Session], str]], *, leave: bool = False) -> list[Any]:
    """Write while another write is under way, so that these wait together; the first may be cancelled meanwhile."""
    begun, release = threading.Event(), threading.Event()

    def first(session: Session) -> str:
        begun.set()
        assert release.wait(30)
        return create("First")(session)

    async def main(database: Database) -> list[Any]:
        one = asyncio.ensure_future(database.write(first))
        await asyncio.to_thread(begun.wait, 30)
        others = [asyncio.ensure_future(database.write(work)) for work in works]
        await asyncio.sleep(0)
        if leave:
            others[0].cancel()
        release.set()
        return list(await asyncio.gather(one, *others, return_exceptions=True))

    outcomes: list[Any] = run(alchemy, main)
    return outcomes


def test_waiting_writes_share_one_commit(alchemy: AlchemyConfig, names: Names) -> None:
    commits: list[Connection] = []
    event.listen(alchemy.get_engine(), "commit", commits.append)
    assert write_together(alchemy, [create("A"), create("B"), create("C")]) == ["First", "A", "B", "C"]
    assert names() == ["A", "B", "C", "First"]
    assert len(commits) == 2


def test_lock_of_a_row_holds_up_its_own_write(mariadb: MariaDB, mysql_url: str) -> None:
    """Those of its group are run again without it, and do not wait as long."""

    async def main(database: Database) -> None:
        await database.write(create("Locked"))
        with open_session(mariadb, mysql_url, "SELECT * FROM students WHERE id = 1 FOR UPDATE"):
            locked, *others = [
                asyncio.ensure_future(database.write(work)) for work in (update, create("A"), create("B"))
            ]
            assert await asyncio.gather(*others) == ["A", "B"]
            assert not locked.done()
            with pytest.raises(DatabaseUnavailableError, match="Lock wait timeout"):
                await locked

    with prepare(mysql_url, Timeouts(lock=3)) as alchemy:
        run(alchemy, main)


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
def test_failure_is_its_own_writers(alchemy: AlchemyConfig, names: Names, error: type[BaseException]) -> None:
    def fail(session: Session) -> str:
        create("Doomed")(session)
        raise error

    outcomes = write_together(alchemy, [create("A"), fail, create("B")])
    assert isinstance(outcomes.pop(2), error)
    assert outcomes == ["First", "A", "B"]
    assert names() == ["A", "B", "First"]


@pytest.mark.parametrize("others", [[], ["A"]], ids=["alone", "with another"])
def test_client_that_left_is_not_written(alchemy: AlchemyConfig, names: Names, others: list[str]) -> None:
    works = [create(name) for name in ["Gone", *others]]
    first, gone, *rest = write_together(alchemy, works, leave=True)
    assert isinstance(gone, asyncio.CancelledError)
    assert [first, *rest] == ["First", *others]
    assert names() == [*others, "First"]


def test_client_that_leaves_during_its_group(alchemy: AlchemyConfig, names: Names) -> None:
    """The row is stored, as nobody can stop it any more, and the others get their outcomes."""

    async def main(database: Database) -> list[Any]:
        loop = asyncio.get_running_loop()

        def see_it_leave(session: Session) -> str:
            gone = threading.Event()
            loop.call_soon_threadsafe(leaver.cancel)
            loop.call_soon_threadsafe(gone.set)
            assert gone.wait(30)
            return create("Gone")(session)

        leaver = asyncio.ensure_future(database.write(see_it_leave))
        last = asyncio.ensure_future(database.write(create("A")))
        return list(await asyncio.gather(leaver, last, return_exceptions=True))

    gone, a = run(alchemy, main)
    assert isinstance(gone, asyncio.CancelledError)
    assert (a, names()) == ("A", ["A", "Gone"])


def test_stop_writes_what_waits_and_rejects_the_rest(alchemy: AlchemyConfig, names: Names) -> None:
    async def main() -> list[Any]:
        database = Database(alchemy)
        async with asyncio.timeout(30), database.open():
            writes = [asyncio.ensure_future(database.write(create(name))) for name in "AB"]
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return list(await asyncio.gather(*writes, database.write(create("Late")), return_exceptions=True))

    *written, late = asyncio.run(main())
    assert written == ["A", "B"] == names()
    assert isinstance(late, DatabaseUnavailableError)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_stop_leaves_a_hung_write_behind(alchemy: AlchemyConfig, names: Names) -> None:
    """After `Timeouts.close`; the writes behind it are rejected, and not stored."""
    begun, release, threads = threading.Event(), threading.Event(), {*threading.enumerate()}

    def hang(_session: Session) -> str:
        begun.set()
        release.wait(30)
        raise ZeroDivisionError

    async def main() -> list[Any]:
        database = Database(alchemy)
        async with database.open():
            writes = [asyncio.ensure_future(database.write(hang))]
            await asyncio.to_thread(begun.wait, 30)
            writes.append(asyncio.ensure_future(database.write(create("Late"))))
            await asyncio.sleep(0)
        assert not writes[0].done()
        release.set()
        return list(await asyncio.gather(*writes, return_exceptions=True))

    hung, late = asyncio.run(asyncio.wait_for(main(), 30))
    assert (type(hung), type(late)) == (ZeroDivisionError, DatabaseUnavailableError)
    assert names() == []
    for thread in {*threading.enumerate()} - threads:  # no time was left to wait for any of them
        thread.join()


def test_writes_that_are_locked_leave_threads_for_others(mariadb: MariaDB, mysql_url: str) -> None:
    """One after the other, each in a group of its own, or many at once."""

    async def main(database: Database) -> None:
        await database.write(create("Locked"))
        with open_session(mariadb, mysql_url, "SELECT * FROM students WHERE id = 1 FOR UPDATE"):
            locked = []
            for count in (1, 1, 2 * THREADS):
                locked += [asyncio.ensure_future(database.write(update)) for _ in range(count)]
                await asyncio.sleep(0.1)
            assert await database.write(create("A")) == "A"
            assert not any(future.done() for future in locked)
            outcomes = await asyncio.gather(*locked, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {DatabaseUnavailableError}, "which is not that of a queue"
        assert await database.write(create("B")) == "B"

    with prepare(mysql_url, Timeouts(lock=6, queue=8)) as alchemy:
        run(alchemy, main)


def test_write_that_waits_too_long_to_be_retried(mariadb: MariaDB, mysql_url: str) -> None:
    """While as many wait for locks as may, another one is told why its group has failed."""

    async def main(database: Database) -> None:
        await database.write(create("Locked"))
        with open_session(mariadb, mysql_url, "SELECT * FROM students WHERE id = 1 FOR UPDATE"):
            locked = [asyncio.ensure_future(database.write(update)) for _ in range(THREADS // 2 + 1)]
            (late,), others = await asyncio.wait(locked, timeout=20, return_when=asyncio.FIRST_COMPLETED)
            with pytest.raises(DatabaseUnavailableError, match="Lock wait timeout"):
                await late
        assert await asyncio.gather(*others) == [None] * (THREADS // 2)

    with prepare(mysql_url, Timeouts(lock=40, queue=1)) as alchemy:
        run(alchemy, main)
