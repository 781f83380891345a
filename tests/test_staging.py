"""What is staged on a connection of its own: others write meanwhile, and an abandoned one leaves nothing behind."""

import asyncio
import io
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from litestar_app.database import Database, transfers
from litestar_app.database.config import AlchemyConfig
from litestar_app.database.limits import TRANSFERS, Timeouts
from litestar_app.database.reads import Reader
from litestar_app.exceptions import QueueTimeoutError, RejectedError
from litestar_app.metrics import BUSY
from litestar_app.students.reports import Report
from litestar_app.transfer.imports import ImportOptions, ImportService
from tests.conftest import Names, Rows
from tests.database import create, prepare, run
from tests.faults.ledger import wait_until
from tests.mariadb import MariaDB, open_session


@pytest.fixture
def alchemy(database_url: str) -> Iterator[AlchemyConfig]:
    with prepare(database_url) as alchemy:
        yield alchemy


@pytest.fixture
def open_connections(alchemy: AlchemyConfig) -> Callable[[], int]:
    """Count the connections that this process has taken from its pool."""
    pool: Any = alchemy.get_engine().pool
    return pool.checkedout  # type: ignore[no-any-return]


def stage_name(connection: Connection) -> str:
    """Stage one student."""
    connection.exec_driver_sql("CREATE TEMPORARY TABLE staged (name VARCHAR(100))")
    connection.exec_driver_sql("INSERT INTO staged VALUES ('Staged')")
    connection.commit()
    return "staged"


def merge(session: Session) -> int:
    """Make a student of what is staged on this connection."""
    statement = "INSERT INTO students (name, department, cgpa) SELECT name, 'CSE', 8.9 FROM staged"
    session.execute(text(statement))
    return 1


def test_others_write_while_one_is_staged(alchemy: AlchemyConfig, names: Names) -> None:
    """They are committed before it is merged, and so is what is written while it waits to be merged."""
    is_staging, may_end = threading.Event(), threading.Event()

    def work(connection: Connection) -> str:
        result = stage_name(connection)
        is_staging.set()
        assert may_end.wait(30)
        return result

    async def main(database: Database) -> None:
        async def import_staged() -> Any:
            async with database.stage(work) as (connection, result):
                assert result == "staged"
                assert await database.write(create("B")) == "B"
                return await database.write(merge, connection)

        importing = asyncio.create_task(import_staged())
        await asyncio.to_thread(is_staging.wait, 30)
        assert await database.write(create("A")) == "A"
        may_end.set()
        assert await importing == 1
        assert await database.write(create("C")) == "C"

    run(alchemy, main)
    assert names() == ["A", "B", "Staged", "C"]


def test_failure_in_staging_is_raised(alchemy: AlchemyConfig, names: Names) -> None:
    def work(connection: Connection) -> str:
        stage_name(connection)
        raise ZeroDivisionError

    async def main(database: Database) -> None:
        for _ in range(2 * TRANSFERS):
            with pytest.raises(ZeroDivisionError):
                async with database.stage(work):
                    pytest.fail("it was not staged")
        async with database.stage(stage_name) as (connection, _):
            assert await database.write(merge, connection) == 1

    run(alchemy, main)
    assert names() == ["Staged"]


def test_abandoned_staging_leaves_nothing_behind(
    alchemy: AlchemyConfig, names: Names, open_connections: Callable[[], int]
) -> None:
    """Its connection is closed by the thread, whenever that ends; the thread takes the next one."""
    is_staging, may_end = threading.Semaphore(0), threading.Event()

    def work(connection: Connection) -> None:
        stage_name(connection)
        is_staging.release()
        assert may_end.wait(30)

    async def main(database: Database) -> None:
        async def import_staged(work: Callable[[Connection], Any]) -> Any:
            async with database.stage(work) as (connection, _):
                return await database.write(merge, connection)

        await database.write(create("A"))
        before = open_connections()
        for _ in range(TRANSFERS):
            importing = asyncio.create_task(import_staged(work))
            await asyncio.to_thread(is_staging.acquire, timeout=30)
            importing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await importing
        may_end.set()
        for _ in range(TRANSFERS):
            assert await import_staged(stage_name) == 1
        await asyncio.to_thread(wait_until, lambda: open_connections() <= before, "as few connections as before")

    run(alchemy, main)
    assert names() == ["A"] + ["Staged"] * TRANSFERS


def test_cancelled_merge_that_has_begun_is_whole_or_none(alchemy: AlchemyConfig, names: Names) -> None:
    """Its connection stays open until its thread has ended, and the event loop goes on meanwhile."""
    has_begun, may_end = threading.Event(), threading.Event()

    def merge_slowly(session: Session) -> int:
        merged = merge(session)
        has_begun.set()
        assert may_end.wait(30)
        return merged + merge(session)

    async def main(database: Database) -> None:
        async def import_staged() -> Any:
            async with database.stage(stage_name) as (connection, _):
                return await database.write(merge_slowly, connection)

        importing = asyncio.create_task(import_staged())
        await asyncio.to_thread(has_begun.wait, 30)
        importing.cancel()
        done, _ = await asyncio.wait([importing], timeout=0.1)
        assert not done
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await importing
        assert names() in ([], ["Staged", "Staged"])
        assert await database.write(create("B")) == "B"

    run(alchemy, main)


def test_cancelled_merge_that_waits_is_dropped(alchemy: AlchemyConfig, names: Names) -> None:
    """It had its turn after what holds every thread that merges."""
    has_begun, may_end = threading.Semaphore(0), threading.Event()

    def block(_: object) -> None:
        has_begun.release()
        assert may_end.wait(30)

    async def main(database: Database) -> None:
        async with database.stage(stage_name) as (connection, _):
            if alchemy.backend.has_one_writer:
                threads, count = database._writers, 1  # noqa: SLF001
            else:
                threads, count = database._mergers, TRANSFERS  # noqa: SLF001
            blocking = [asyncio.create_task(threads.run(block)) for _ in range(count)]
            for _ in range(count):
                await asyncio.to_thread(has_begun.acquire, timeout=30)
            merging = asyncio.create_task(database.write(merge, connection))
            await asyncio.sleep(0.01)
            merging.cancel()
            await asyncio.sleep(0.01)
            may_end.set()
            with pytest.raises(asyncio.CancelledError):
                await merging
            await asyncio.gather(*blocking)
            with pytest.raises(RejectedError):
                await database.write(decline, connection)

    def decline(_session: Session) -> None:
        raise RejectedError

    run(alchemy, main)
    assert names() == []


def test_merge_in_a_conflict_is_run_again_as_a_whole(
    mysql_url: str, mariadb: MariaDB, mysql_query: Callable[..., Rows]
) -> None:
    """On MariaDB another transaction may hold what the merge needs, and wait for what the merge holds."""
    attempts: list[int] = []
    with prepare(mysql_url) as alchemy:
        mysql_query("INSERT INTO students VALUES (1, 'A', 'CSE', 1), (2, 'B', 'CSE', 1)")
        may_go = threading.Event()

        def cross() -> None:
            """Lock what the merge will need, then what it has locked, with more to undo than it has."""
            hold = "UPDATE students SET cgpa = 3 WHERE id = 2"
            with open_session(mariadb, mysql_url, hold) as session, session.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO students (name, department, cgpa) SELECT 'X', 'Y', seq % 10 FROM seq_1_to_500"
                )
                is_held.set()
                assert may_go.wait(30)
                cursor.execute("UPDATE students SET cgpa = 3 WHERE id = 1")
                session.commit()

        def merge_both(session: Session) -> int:
            attempts.append(len(attempts))
            merge(session)
            session.execute(text("UPDATE students SET cgpa = 2 WHERE id = 1"))
            may_go.set()
            session.execute(text("UPDATE students SET cgpa = 2 WHERE id = 2"))
            return len(attempts)

        async def main(database: Database) -> None:
            async with database.stage(stage_name) as (connection, _):
                assert await database.write(merge_both, connection) == 2

        is_held = threading.Event()
        other = threading.Thread(target=cross)
        other.start()
        assert is_held.wait(30)
        run(alchemy, main)
        other.join()
    assert attempts == [0, 1]
    assert mysql_query("SELECT cgpa FROM students WHERE id < 3") == [(2.0,), (2.0,)]
    assert mysql_query("SELECT COUNT(*) FROM students WHERE name = 'Staged'") == [(1,)]
    assert mysql_query("SELECT COUNT(*) FROM students WHERE name = 'X'") == [(500,)]


def test_interrupt_of_what_has_ended_does_nothing(alchemy: AlchemyConfig) -> None:
    """It comes from a thread of its own, when the connection may have been closed."""
    reader = Reader(alchemy.get_engine(), {}, alchemy.backend)
    reader.interrupt()
    driver = reader.connect().connection.dbapi_connection
    assert driver is not None
    driver.close()
    reader.interrupt()
    reader.close()
    reader.interrupt()


def test_cancelled_merge_is_stopped_and_rolled_back(
    alchemy: AlchemyConfig, names: Names, open_connections: Callable[[], int]
) -> None:
    """A statement that would take for ever ends, nothing of the merge is stored, and the next write goes on."""
    has_begun = threading.Event()
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT"
    endless = f"{rows} COUNT(*) FROM n a, n b, n c, n d, n e WHERE a.i + b.i + c.i + d.i + e.i < 0"

    def merge_for_ever(session: Session) -> None:
        merge(session)
        has_begun.set()
        session.execute(text(endless))

    async def main(database: Database) -> None:
        idle = open_connections()

        async def import_staged() -> None:
            async with database.stage(stage_name) as (connection, _):
                await database.write(merge_for_ever, connection)

        importing = asyncio.create_task(import_staged())
        await asyncio.to_thread(has_begun.wait, 30)
        importing.cancel()
        await asyncio.gather(importing, return_exceptions=True)
        assert await database.write(create("A")) == "A"
        assert open_connections() <= idle + 1

    run(alchemy, main)
    assert names() == ["A"]


def test_fifth_staged_write_waits_and_is_rejected(database_url: str) -> None:
    """Each holds a connection, also while it waits to be merged; the others read and write on."""
    with prepare(database_url, Timeouts(queue=0.2)) as alchemy:

        async def main(database: Database) -> None:
            async with AsyncExitStack() as stack:
                for _ in range(TRANSFERS):
                    await stack.enter_async_context(database.stage(stage_name))
                with pytest.raises(QueueTimeoutError):
                    await stack.enter_async_context(database.stage(stage_name))
                assert await database.write(create("A")) == "A"
            async with database.stage(stage_name) as (connection, _):
                assert await database.write(merge, connection) == 1

        run(alchemy, main)


def test_write_waits_for_a_long_one_of_its_row(mysql_url: str, mysql_query: Callable[..., Rows]) -> None:
    """For as long as that takes, beyond the time that a lock of anybody else is waited for."""
    is_held = threading.Event()

    def hold(session: Session) -> None:
        session.execute(text("UPDATE students SET cgpa = 1 WHERE name = 'A'"))
        is_held.set()
        time.sleep(3)

    def change(session: Session) -> None:
        session.execute(text("UPDATE students SET cgpa = cgpa + 1 WHERE name = 'A'"))

    async def main(database: Database) -> None:
        async def import_staged() -> None:
            async with database.stage(stage_name) as (connection, _):
                await database.write(hold, connection)

        await database.write(create("A"))
        importing = asyncio.create_task(import_staged())
        await asyncio.to_thread(is_held.wait, 30)
        await database.write(change)
        await importing

    with prepare(mysql_url, Timeouts(lock=1)) as alchemy:
        run(alchemy, main)
    assert mysql_query("SELECT cgpa FROM students") == [(2.0,)]


def test_file_is_written_anew_unless_somebody_reads_it(sqlite_url: str, sqlite_path: Path) -> None:
    log, sizes = sqlite_path.with_name(f"{sqlite_path.name}-wal"), list[int]()

    async def main(database: Database) -> None:
        await database.write(create("A"))
        with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as other:
            other.execute("BEGIN")
            assert len(other.execute("SELECT name FROM students").fetchall()) == 1
            assert not await database.rewrite()
        assert await database.rewrite()
        sizes.append(await asyncio.to_thread(lambda: log.stat().st_size))
        with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert not await database.rewrite()

    with prepare(sqlite_url, Timeouts(lock=0.2)) as alchemy:
        run(alchemy, main)
    assert sizes == [0]


def test_server_is_left_alone_by_a_rewrite(mysql_url: str) -> None:
    async def main(database: Database) -> None:
        assert await database.rewrite()

    with prepare(mysql_url) as alchemy:
        run(alchemy, main)


BAD_ROWS = b"name,department,cgpa\n" + b"x,y,11\n" * 300_000


def test_abandoned_reading_of_a_file_ends(alchemy: AlchemyConfig) -> None:
    """The thread that stages rows, or writes the rejected ones, stops where nobody waits any more."""
    file = io.BytesIO(BAD_ROWS)
    options = ImportOptions(kind="csv", dry_run=True, all_errors=True)

    def count_busy() -> float:
        return BUSY.labels("import").read()[0]

    async def main(database: Database) -> None:
        imports = ImportService(database)
        out = io.BytesIO()
        rows: list[int] = []
        works: list[tuple[Callable[[], Any], Callable[[], int]]] = [
            (lambda: imports.write_rejected(file, options, Report(rejected=1), out), out.tell),
            (
                lambda: imports.import_file(file, options, "local", report_progress=rows.append),
                lambda: rows[-1] if rows else 0,
            ),
        ]

        def is_idle() -> bool:
            return count_busy() == 0

        for start, count in works:
            work = asyncio.ensure_future(start())
            await asyncio.to_thread(wait_until, count, "it has begun")
            assert count_busy() == 1
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            await asyncio.to_thread(wait_until, is_idle, "its thread has ended")
        assert 0 < out.tell() < len(BAD_ROWS) * 5
        assert 0 < rows[-1] < 300_000

    run(alchemy, main)


class FullFile(io.BytesIO):
    """A temporary file on a full disk."""

    def write(self, _data: object, /) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("is_full", [True, False])
def test_export_without_room_for_a_file_goes_on(is_full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it comes, in its order, no faster than the client takes it."""
    monkeypatch.setattr(transfers, "TemporaryFile", lambda **_: FullFile() if is_full else io.BytesIO())
    closed: list[bool] = []
    reader: Any = SimpleNamespace(close=lambda: closed.append(True))
    channel: Any = SimpleNamespace(check=lambda: None)
    assert b"".join(transfers._keep(iter([b"a", b"b", b"c"]), reader, channel)) == b"abc"  # noqa: SLF001
    assert closed == ([] if is_full else [True])  # the connection, which holds the snapshot
