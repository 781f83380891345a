"""The database as the services see it: `fetch` reads, `write` runs a unit of work."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Select, select

from litestar_app.database.config import AlchemyConfig
from litestar_app.database.failures import Failure, classify, raise_translated, unwrap
from litestar_app.database.limits import GROUPS, SCANNERS, THREADS, TRANSFERS
from litestar_app.database.reads import Reader, compile_statements
from litestar_app.database.threads import WorkerThreads
from litestar_app.database.transfers import stage, stream
from litestar_app.database.unit_of_work import Listener, RowKey, UnitOfWork
from litestar_app.database.writes import GroupCommit, Outcome, Transactions, Work, is_retryable
from litestar_app.exceptions import DatabaseUnavailableError, QueueTimeoutError, RejectedError
from litestar_app.models import HISTORY, STUDENTS, IdempotencyKey, Import

T = TypeVar("T")

INTERRUPT_AGAIN = 0.2
"""Seconds after which work that goes on is interrupted again."""
PINGS = [select(table).limit(1) for table in (STUDENTS, HISTORY, Import.__table__, IdempotencyKey.__table__)]
"""Read each column once that a request needs."""


class Database:
    """The only place that knows threads, groups and retries.

    Short reads, long ones, writes and the ping have threads of their own, so that none of them waits for another where
    the server grants enough connections. Writes that come while others are written share the next COMMIT.
    """

    def __init__(self, alchemy: AlchemyConfig) -> None:
        """Take the configuration of advanced-alchemy's plugin."""
        timeouts, engine, backend = alchemy.timeouts, alchemy.get_engine(), alchemy.backend
        sessions = cast("Callable[..., UnitOfWork]", alchemy.create_session_maker())
        self._listeners: list[Listener] = []
        self._compiled = compile_statements(PINGS, engine)
        begin = partial(sessions, listeners=self._listeners, compiled={})

        def make_reader(*, waits: bool = True) -> Reader:
            return Reader(engine, self._compiled, backend, waits=waits)

        def make_transactions() -> Transactions:
            return Transactions(begin, engine, timeouts.lock, backend)

        self.timeouts = timeouts
        self._engine = engine
        self._backend = backend
        self._loop_reader = make_reader(waits=False) if backend.has_one_writer else None
        self._readers = WorkerThreads("reader", THREADS, make_reader, timeouts.queue)
        self._scanners = WorkerThreads("scanner", SCANNERS, make_reader, timeouts.queue, interruptible=True)
        self._exporters = WorkerThreads("export", TRANSFERS, make_reader, timeouts.queue, interruptible=True)
        self._importers = WorkerThreads("import", TRANSFERS, make_reader, timeouts.queue, interruptible=True)
        self._pinger = WorkerThreads("ping", 1, make_reader, timeouts.queue)
        writers, groups = (1, 1) if backend.has_one_writer else (THREADS, GROUPS)
        self._writers = WorkerThreads("writer", writers, make_transactions, timeouts.queue)
        self._mergers = WorkerThreads("merge", TRANSFERS, make_transactions, timeouts.queue)
        """Write what was staged, each on the connection on which it was, so that they need none of their own."""
        self._all_threads: list[WorkerThreads[Any]] = []
        self._group_commit = GroupCommit(
            self._writers, groups, THREADS // 2, timeouts.lock, locks_rows=not backend.has_one_writer
        )
        self._is_open = False
        self._staged = asyncio.Semaphore(TRANSFERS)
        self._long_writes = 0
        """How many hold locks on MySQL for longer than another write otherwise waits for one."""

    def compile(self, statements: Iterable[Select[Any]]) -> None:
        """Compile reads once; any other statement is compiled by SQLAlchemy, which keeps it for a while."""
        self._compiled |= compile_statements(statements, self._engine)

    def listen(self, listener: Listener) -> None:
        """Call the listener with each change, in the transaction of that change."""
        self._listeners.append(listener)

    async def fetch(self, statement: Select[Any], values: Mapping[str, object], *, short: bool = True) -> Sequence[Any]:
        """Return the rows of a statement that only reads.

        A short one, of about a millisecond at most, runs on the event loop where the database is SQLite: in less
        time than the way to a thread and back takes. Another one is stopped in the database when this is cancelled.

        Raises:
            DatabaseUnavailableError: the database is locked, unreachable or restarting, or no thread was free.

        """
        try:
            if short and self._loop_reader is not None and self._is_open:
                try:
                    return self._loop_reader.fetch(statement, values)
                except Exception as error:
                    if classify(error) is not Failure.CONTENTION:
                        raise
            threads = self._readers if short else self._scanners
            return await threads.run(lambda reader: reader.fetch(statement, values))
        except Exception as error:  # noqa: BLE001  raised again as one of ours
            raise_translated(error)

    async def write(
        self, work: Callable[[UnitOfWork], T], connection: Connection | None = None, *, row: RowKey | None = None
    ) -> T:
        """Run a unit of work in a transaction; it has been committed when this returns.

        The row that it changes, if given, is locked together with those of others. It may need a certain
        connection, as for what is staged there. Then it returns only when that is not used any more, also where it is
        cancelled.

        It is run again as a whole while other transactions are in its way. Where this raises, nothing is stored, but
        for one exception.

        Raises:
            CommitUnknownError: that one; the change may or may not be stored.
            RejectedError: what the unit of work raised.
            DatabaseUnavailableError: the database is locked, full, unreachable or restarting.
            ConstraintError: a constraint of the database is violated.
            UnsupportedValueError: a value does not fit its column.

        """
        try:
            if connection is None:
                outcome = await self._run(work, row=row)
            else:
                outcome = await self._run_to_end(work, connection)
        except Exception as error:  # noqa: BLE001  raised again as one of ours
            raise_translated(error)
        try:
            if isinstance(outcome, BaseException):
                raise_translated(outcome)
            return cast("T", outcome)
        finally:
            del outcome  # which would hold itself, by its traceback

    async def _run(self, work: Work, connection: Connection | None = None, row: RowKey | None = None) -> Outcome:
        if connection is not None and not self._backend.has_one_writer:  # beside the groups, which it would hold up
            (outcome,) = await self._mergers.run(lambda transactions: transactions.run([work], connection))
            return outcome
        while True:
            outcome = await self._group_commit.write(work, connection, row)
            is_in_the_way = is_retryable(outcome) or isinstance(outcome, QueueTimeoutError)
            if self._backend.has_one_writer or not self._long_writes or not is_in_the_way:
                return outcome

    async def _run_to_end(self, work: Work, connection: Connection) -> Outcome:
        """Return only when no thread uses the connection any more; cancelled, stop the work, or drop it before."""
        is_abandoned = threading.Event()
        dbapi_connection = connection.connection.dbapi_connection

        def run_unless_abandoned(session: UnitOfWork) -> Any:
            if is_abandoned.is_set():
                raise RejectedError
            return work(session)

        running = asyncio.ensure_future(self._run(run_unless_abandoned, connection))
        self._long_writes += 1
        running.add_done_callback(self._end_long_write)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            is_abandoned.set()
            while not running.done():  # an interrupt between two statements stops neither
                await asyncio.to_thread(self._backend.interrupt, dbapi_connection, self._engine)
                await asyncio.wait([running], timeout=INTERRUPT_AGAIN)
            raise

    def _end_long_write(self, _: object) -> None:
        self._long_writes -= 1

    async def stream(self, work: Callable[[Connection], Generator[bytes, None, None]]) -> AsyncGenerator[bytes, None]:
        """Run a generator on a thread and a connection of its own, in autocommit; yield its bytes.

        It is stopped, in the database too, when nobody takes them. It may raise what `fetch` raises.
        """
        try:
            async for item in stream(self._exporters, work):
                yield item
        except Exception as error:  # noqa: BLE001  raised again as one of ours
            raise_translated(error)

    @asynccontextmanager
    async def stage(self, work: Callable[[Connection], T]) -> AsyncIterator[tuple[Connection, T]]:
        """Prepare a write on a thread and a connection of its own, in temporary tables, without the lock to write.

        The connection is for that write, and is closed at the end of the block. It may raise what `fetch` raises.
        """
        try:
            async with self._take_place(), stage(self._importers, work) as staged:
                yield staged
        except Exception as error:  # noqa: BLE001  raised again as one of ours
            raise_translated(error)

    async def run_long(self, work: Callable[[], T]) -> T:
        """Run work that needs no connection on a thread for imports, so that as many of both run as of one.

        Raises:
            DatabaseUnavailableError: no thread was free in time; the work was not begun.

        """
        return await self._importers.run(lambda _: work())

    @asynccontextmanager
    async def _take_place(self) -> AsyncIterator[None]:
        """Bound what is staged and waits to be written: each has a connection."""
        try:
            async with asyncio.timeout(self.timeouts.queue):
                await self._staged.acquire()
        except TimeoutError:
            raise QueueTimeoutError("no place was free in time") from None
        try:
            yield
        finally:
            self._staged.release()

    async def rewrite(self) -> bool:
        """Write SQLite's file anew and empty its log, so that nothing is left of what was deleted.

        `secure_delete` leaves copies in pages whose rows have moved. Other writers wait meanwhile. Returns False where
        a lock, a reader of the log, or a full disk is in the way; True on MySQL, which is left alone.
        """
        return await self._importers.run(self._backend.rewrite)

    async def ping(self) -> None:
        """Return when the database has responded, has the tables and takes writes; or DatabaseUnavailableError."""
        try:
            async with asyncio.timeout(self.timeouts.ready):
                await self._pinger.run(self._look)
        except Exception as error:  # whatever it is, the service cannot do its work
            raise DatabaseUnavailableError(unwrap(error)) from error

    def _look(self, reader: Reader) -> None:
        for ping in PINGS:
            reader.fetch(ping, {})
        reader.check_writable()

    def _start_threads(self) -> None:
        """Start as many as there are connections for."""
        sizes = self._backend.sizes
        short: list[WorkerThreads[Any]] = [self._readers, self._writers]
        long: list[WorkerThreads[Any]] = [self._scanners, self._exporters, self._importers, self._mergers]
        if not sizes.has_scanners:
            self._readers = self._scanners
            del short[0]
        if not sizes.has_pinger:
            self._pinger = self._readers
        for threads in short:
            threads.limit(sizes.short)
        for threads in long:
            threads.limit(sizes.long)
        self._staged = asyncio.Semaphore(sizes.long)
        if self._backend.has_one_writer:  # which writes the staged rows too
            long.remove(self._mergers)
        self._all_threads = [*short, *long, *([] if self._pinger is self._readers else [self._pinger])]
        for threads in self._all_threads:
            threads.start()

    @asynccontextmanager
    async def open(self, _app: object = None) -> AsyncIterator[None]:
        """Start the threads; at the end finish what has begun, within `timeouts.close`, and dispose of the engine."""
        groups: asyncio.Task[None] | None = None
        try:
            self._backend.open(self._engine)
            if self._loop_reader is not None:
                self._loop_reader.connect()
            self._start_threads()
            groups = self._group_commit.start()
            self._is_open = True
            yield
        finally:
            await self._close(groups)

    async def _close(self, groups: "asyncio.Task[None] | None") -> None:
        deadline = time.monotonic() + self.timeouts.close
        if groups is not None:
            self._group_commit.stop()
            await asyncio.wait([groups], timeout=self.timeouts.close)
        for threads in self._all_threads:
            threads.stop()
        running = self._all_threads
        while running and time.monotonic() < deadline:
            await asyncio.sleep(0.005)  # in which requests that are cancelled let go of their threads
            running = [threads for threads in running if threads.is_running]
        self._is_open = False
        if self._loop_reader is not None:
            self._loop_reader.close()
        self._backend.close()
        self._engine.dispose()  # the plugin disposes only of the first engine of a process
