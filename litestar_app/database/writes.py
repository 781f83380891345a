"""Units of work: committed all or nothing, run again while others are in their way, several to one COMMIT."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias, cast

from sqlalchemy import Connection, Dialect, Engine, Insert, Select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session, sessionmaker
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from litestar_app import metrics
from litestar_app.database import mysql
from litestar_app.database.failures import Failure, classify, is_lost, raise_if_commit_unknown
from litestar_app.database.hosts import Hosts
from litestar_app.database.reads import CompiledStatement, compile_statement, current_host, has_hung
from litestar_app.database.sqlite import DatabaseFile
from litestar_app.database.threads import WorkerThreads
from litestar_app.exceptions import (
    CommitUnknownError,
    DatabaseFileError,
    DatabaseUnavailableError,
    QueueTimeoutError,
    RejectedError,
    RetryTransactionError,
)

UnitOfWork: TypeAlias = Callable[[Session], Any]
"""What is done in one transaction. It may be run again, so it changes nothing but rows."""
Outcome: TypeAlias = Any | BaseException
"""What a unit of work returned or raised."""


def execute_fixed(session: Session, statement: Select[Any] | Insert, values: Mapping[str, object]) -> Any:
    """Execute one of a few statements in a unit of work, and return the first row, if any.

    It goes to the driver as it was compiled once: a sixth of what SQLAlchemy takes.
    """
    connection = session.connection()
    sql, defaults, positions = _compile(statement, connection.dialect)
    parameters = {**defaults, **values}
    cursor = cast("DBAPIConnection", connection.connection.dbapi_connection).cursor()
    try:
        cursor.execute(sql, [parameters[name] for name in positions] if positions else parameters)
        return cursor.fetchone()
    finally:
        cursor.close()


@cache
def _compile(statement: Select[Any] | Insert, dialect: Dialect) -> CompiledStatement:
    return compile_statement(statement, dialect)


class Transactions:
    """Runs units of work on one thread, in sessions of the plugin."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        engine: Engine,
        lock_timeout: float,
        file: DatabaseFile | None = None,
        hosts: Hosts | None = None,
    ) -> None:
        """Take how long a unit of work is retried, in seconds; the file of SQLite, or the hosts, if several."""
        self._sessions = sessions
        self._engine = engine
        self._file = file
        self._lock_timeout = lock_timeout
        self._hosts = hosts
        self._session: Session | None = None
        self._retrying = Retrying(
            retry=retry_if_exception(is_retryable),
            stop=stop_after_delay(lock_timeout),
            wait=wait_random_exponential(multiplier=0.01, max=0.5),
            before_sleep=lambda _: metrics.RETRIES.inc(),
            reraise=True,
        )

    def run(self, group: Sequence[UnitOfWork], connection: Connection | None = None) -> list[Outcome]:
        """Run units of work with one COMMIT for all of them, and return what became of each.

        They run on the connection that this thread keeps, or on one that is given.

        One that is rejected has changed nothing, and the others are committed. Any other exception rolls back the
        group, and each is run in a transaction of its own, so that none fails because of another.
        """
        try:
            return self._retrying(self._commit, group, connection)
        except BaseException as error:  # noqa: BLE001  each is raised where its unit of work is awaited
            if len(group) == 1 or is_retryable(error) or isinstance(error, CommitUnknownError):
                return [error for _ in group]
        outcomes: list[Outcome] = []
        for number, work in enumerate(group):
            outcomes += self.run([work], connection)
            if is_retryable(outcomes[-1]):  # the others would wait as long, and in vain
                return outcomes + [outcomes[-1] for _ in group[number + 1 :]]
        return outcomes

    def close(self) -> None:
        """Close the connection that is kept, and with it whatever a failed COMMIT has left open."""
        session, self._session = self._session, None
        if session is not None:
            connection = cast("Connection", session.bind)
            connection.invalidate()
            connection.close()

    def interrupt(self) -> None:
        """Let it go on: what has begun to be written is written, whoever waits for it."""

    def run_once(self, group: Sequence[UnitOfWork]) -> list[Outcome] | None:
        """Run units of work with one COMMIT for all of them; None where nothing is stored and each has to run alone."""
        began = time.monotonic()
        try:
            return self._commit(group)
        except BaseException as error:  # noqa: BLE001  raised where each unit of work is awaited
            is_locked = is_retryable(error) and time.monotonic() - began > self._lock_timeout  # the whole table
            is_down = classify(error) is Failure.OUTAGE
            if is_locked or is_down or isinstance(error, CommitUnknownError):
                return [error for _ in group]
            if is_retryable(error):
                metrics.RETRIES.inc()
            return None

    def _commit(self, group: Sequence[UnitOfWork], connection: Connection | None = None) -> list[Outcome]:
        began, was_kept, is_committing = time.monotonic(), connection is None and self._session is not None, False
        host = current_host(self._hosts)
        try:
            with self._begin(connection) as session:
                outcomes = [_run_or_reject(work, session) for work in group]
                is_committing = True
            if self._file is not None:
                self._file.check()
        except DatabaseFileError as error:
            if is_committing:
                raise CommitUnknownError("the database file was replaced during COMMIT") from error
            raise
        except BaseException as error:
            if is_committing:
                raise_if_commit_unknown(error)
            elif was_kept and is_lost(error) and not has_hung(began, host, self._hosts):
                # the server had closed an idle connection, or left, and has rolled back what it was sent
                raise RetryTransactionError(error) from error
            raise
        return outcomes

    @contextmanager
    def _begin(self, connection: Connection | None) -> Iterator[Session]:
        """Begin a transaction on the connection that this thread keeps, which no failed transaction has used.

        To take one from the pool, ping it and give it back are two of four round trips to a server.
        """
        if connection is not None:  # its owner closes it
            with self._sessions(bind=connection) as session, session.begin():
                yield session
            return
        if self._hosts is not None and self._session is not None:
            driver = cast("Connection", self._session.bind).connection.dbapi_connection
            if not self._hosts.is_current(driver):
                self.close()
        if self._session is None:
            kept = self._engine.connect()
            if self._file is None:
                mysql.shorten_lock_wait(kept)
            self._session = self._sessions(bind=kept)
        try:
            with self._session.begin():
                yield self._session
        except BaseException:
            self.close()
            raise


def _run_or_reject(work: UnitOfWork, session: Session) -> Outcome:
    try:
        return work(session)
    except RejectedError as rejection:
        return rejection


def is_retryable(error: object) -> bool:
    """Tell whether the unit of work may succeed when it is run again."""
    return isinstance(error, BaseException) and classify(error) is Failure.CONTENTION


class _Entry(NamedTuple):
    """A unit of work that waits, what becomes of it, and the connection that it needs, if it is a certain one."""

    work: UnitOfWork
    future: asyncio.Future[Outcome]
    connection: Connection | None


def _resolve(group: Sequence[_Entry], outcomes: Sequence[Outcome]) -> None:
    for entry, outcome in zip(group, outcomes, strict=True):
        if not entry.future.done():
            entry.future.set_result(outcome)


class GroupCommit:
    """Collects the writes that come while others are written, and has them written as groups with one COMMIT each.

    COMMIT, an fsync, is most of what a write costs, and the way to a thread and back much of the rest. SQLite lets one
    transaction write at a time, so one group is written after the other; a server writes several at once, and what
    fails there in a group, as for the lock of a row, is run again alone, while the next group is written. Only some
    threads wait for locks, so that one is free for what meets none.
    """

    def __init__(self, threads: WorkerThreads[Transactions], groups: int, retries: int) -> None:
        """Take how many groups are written at once, and how many threads may wait for locks."""
        self._threads = threads
        self._groups = groups
        self._retries = asyncio.Semaphore(retries)
        self._queue: asyncio.Queue[_Entry | None] = asyncio.Queue()
        self._is_open = True
        self._waiting = metrics.WAITING.labels(threads.name)

    async def write(self, work: UnitOfWork, connection: Connection | None = None) -> Outcome:
        """Return what became of a unit of work, once its group is committed or has failed.

        With a connection of its own it is a group of its own.
        """
        if not self._is_open:
            raise DatabaseUnavailableError("the service is stopping")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.inc()
        self._queue.put_nowait(_Entry(work, future, connection))
        return await future

    async def run(self) -> None:
        """Write groups until the service stops."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._groups):
                tasks.create_task(self._write_groups(tasks))

    async def _write_groups(self, tasks: asyncio.TaskGroup) -> None:
        is_last = False
        while not is_last:
            entries = [await self._queue.get()]
            while not self._queue.empty():
                entries.append(self._queue.get_nowait())
            is_last = None in entries
            waiting = [entry for entry in entries if entry is not None]
            self._waiting.dec(len(waiting))
            for connection, group in groupby(waiting, key=lambda entry: entry.connection):
                if present := [entry for entry in group if not entry.future.cancelled()]:
                    await self._write_group(present, connection, tasks)
        self._queue.put_nowait(None)  # for those that write other groups

    async def _write_group(
        self, group: Sequence[_Entry], connection: Connection | None, tasks: asyncio.TaskGroup
    ) -> None:
        works = [entry.work for entry in group]
        outcomes: list[Outcome] | None
        try:
            if self._groups == 1:
                outcomes = await self._threads.run(lambda transactions: transactions.run(works, connection))
            else:
                outcomes = await self._threads.run(lambda transactions: transactions.run_once(works))
        except Exception as error:  # noqa: BLE001  it is raised where each unit of work is awaited
            outcomes = [error for _ in group]
        if outcomes is None:
            for entry in group:
                tasks.create_task(self._write_alone(entry, is_first=len(group) > 1))
            return
        _resolve(group, outcomes)

    async def _write_alone(self, entry: _Entry, *, is_first: bool) -> None:
        """Write what a group has failed with: first at once, and if that fails too as often as there is time for it."""
        outcomes: list[Outcome] | None = None
        try:
            if is_first:
                outcomes = await self._threads.run(lambda transactions: transactions.run_once([entry.work]))
            if outcomes is None:
                async with asyncio.timeout(self._threads.queue_timeout):
                    await self._retries.acquire()
                try:
                    outcomes = await self._threads.run(lambda transactions: transactions.run([entry.work]))
                finally:
                    self._retries.release()
        except TimeoutError:
            outcomes = [QueueTimeoutError("no thread was free in time")]
        except Exception as error:  # noqa: BLE001  it is raised where the unit of work is awaited
            outcomes = [error]
        _resolve([entry], outcomes)

    def stop(self) -> None:
        """Let `run` end when the writes that are waiting now have been written."""
        self._is_open = False
        self._queue.put_nowait(None)
