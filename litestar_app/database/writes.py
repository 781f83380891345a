"""Units of work: committed all or nothing, run again while others are in their way, several to one COMMIT."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias, cast

from sqlalchemy import Connection, Engine
from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from litestar_app import metrics
from litestar_app.database.backend import Backend
from litestar_app.database.failures import Failure, classify, is_lost, is_of_one_statement, raise_if_commit_unknown
from litestar_app.database.threads import NOT_OPEN, WorkerThreads, resolve
from litestar_app.database.unit_of_work import RowKey, UnitOfWork
from litestar_app.exceptions import (
    CommitUnknownError,
    DatabaseFileError,
    DatabaseUnavailableError,
    RejectedError,
    RetryTransactionError,
)

RETRY_WAIT = wait_random_exponential(multiplier=0.01, max=0.5)
"""Seconds between two tries."""
Work: TypeAlias = Callable[[UnitOfWork], Any]
"""The writes of one request. They may be retried, so they change nothing but rows."""
Outcome: TypeAlias = Any | BaseException
"""The value that a work returned, or the exception that it raised."""


class GroupError(Exception):
    """Nothing of a group is stored, for a reason that need not be that of each unit of work in it."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(reason)
        self.reason = reason


class Transactions:
    """Runs units of work on one thread, in sessions of the plugin."""

    def __init__(
        self,
        sessions: Callable[..., UnitOfWork],
        engine: Engine,
        lock_timeout: float,
        backend: Backend,
    ) -> None:
        """Take how long a work is retried, in seconds."""
        self._sessions = sessions
        self._engine = engine
        self._backend = backend
        self._lock_timeout = lock_timeout
        self._session: UnitOfWork | None = None
        self._last_used = 0.0
        self._retrying = Retrying(
            retry=retry_if_exception(is_retryable),
            stop=stop_after_delay(lock_timeout),
            wait=RETRY_WAIT,
            before_sleep=lambda _: metrics.RETRIES.inc(),
            reraise=True,
        )

    def run(
        self,
        group: Sequence[Work],
        connection: Connection | None = None,
        *,
        retry: bool = True,
        waits: bool = True,
    ) -> list[Outcome]:
        """Run units of work with one COMMIT for all of them, and return what became of each.

        They run on the connection that this thread keeps, or on one that is given; again and again, if wanted, while
        other transactions are in their way. They may be told not to wait for the lock of a row. One that is rejected
        has changed nothing, and the others are committed.

        Raises:
            GroupError: any other exception has rolled back all of them, and each may succeed in a transaction of its
                own. Where none would, each has that exception as its outcome.

        """
        try:
            if retry:
                return self._retrying(self._commit, group, connection, waits=waits)
            return self._commit(group, connection, waits=waits)
        except BaseException as error:
            failure = classify(error)
            if failure is Failure.CONTENTION:
                is_final = retry
            else:
                is_of_all = failure is Failure.OUTAGE and not is_of_one_statement(error)
                is_final = len(group) == 1 or is_of_all or isinstance(error, CommitUnknownError)
            if is_final:
                return [error for _ in group]
            if failure is Failure.CONTENTION:
                metrics.RETRIES.inc()
            raise GroupError(error) from error

    def close(self) -> None:
        """Close the connection that is kept, and with it whatever a failed COMMIT has left open."""
        session, self._session = self._session, None
        if session is not None:
            connection = cast("Connection", session.bind)
            connection.invalidate()
            connection.close()

    def interrupt(self) -> None:
        """Let it go on: what has begun to be written is written, whoever waits for it."""

    def _commit(self, group: Sequence[Work], connection: Connection | None, *, waits: bool) -> list[Outcome]:
        began, was_kept, is_committing = time.monotonic(), connection is None and self._session is not None, False
        host = self._backend.host
        try:
            with self._begin(connection) as session:
                session.start(waits=waits)
                outcomes = [_run_or_reject(work, session) for work in group]
                session.finish()
                is_committing = True
            self._backend.check()
        except DatabaseFileError as error:
            if is_committing:
                raise CommitUnknownError("the database file was replaced during COMMIT") from error
            raise
        except BaseException as error:
            if is_committing:
                raise_if_commit_unknown(error)
            elif was_kept and is_lost(error) and not self._backend.has_hung(began, host):
                # the server had closed an idle connection, or left, and has rolled back what it was sent
                raise RetryTransactionError(error) from error
            raise
        return outcomes

    @contextmanager
    def _begin(self, connection: Connection | None) -> Iterator[UnitOfWork]:
        """Begin a transaction on the connection that this thread keeps, which no failed transaction has used.

        To take one from the pool, ping it and give it back are two of four round trips to a server.
        """
        if connection is not None:  # its owner closes it
            with self._sessions(bind=connection) as session, session.begin():
                yield session
            return
        if self._session is not None:
            dbapi_connection = cast("Connection", self._session.bind).connection.dbapi_connection
            if self._backend.is_stale(dbapi_connection, self._last_used):
                self.close()
        self._last_used = time.monotonic()
        is_new = self._session is None
        if self._session is None:
            self._session = self._sessions(bind=self._engine.connect())
        try:
            if is_new:
                self._backend.set_up_writer(cast("Connection", self._session.bind))
            with self._session.begin():
                yield self._session
        except BaseException:
            self.close()
            raise


def _run_or_reject(work: Work, session: UnitOfWork) -> Outcome:
    try:
        return work(session)
    except RejectedError as rejection:
        return rejection.with_traceback(None)  # whose frames hold all that an import has read


def is_retryable(error: object) -> bool:
    """Tell whether the unit of work may succeed when it is run again."""
    return isinstance(error, BaseException) and classify(error) is Failure.CONTENTION


class _Entry(NamedTuple):
    """A unit of work that waits, what becomes of it, and the connection that it needs, if it is a certain one."""

    work: Work
    future: asyncio.Future[Outcome]
    connection: Connection | None
    row: RowKey | None
    """The row that it locks, if known."""
    latest: float
    """By the monotonic clock; it does not wait for a lock any more after that."""


class GroupCommit:
    """Collects the writes that come while others are written, and has them written as groups with one COMMIT each.

    COMMIT, an fsync, is most of what a write costs, and the way to a thread and back much of the rest. SQLite lets one
    transaction write at a time, so one group is written after the other, and waits for the file's lock; a server writes
    several at once. Where a group fails, as there for the lock of a row, each of it is run again alone, while the next
    group is written: as often as there is time for it, and without holding a thread meanwhile.

    The rows of a group are locked together, in the order of their ids: that is one round trip, and no deadlock.
    """

    def __init__(
        self,
        threads: WorkerThreads[Transactions],
        groups: int,
        alone: int,
        lock_timeout: float,
        *,
        locks_rows: bool,
    ) -> None:
        """Take how many groups are written at once, how many that run alone, and for how many seconds they do.

        `locks_rows` if the database locks rows, not the whole file.
        """
        self._threads = threads
        self._locks_rows = locks_rows
        self._groups = groups
        self._lock_timeout = lock_timeout
        self._alone = asyncio.Semaphore(alone)
        self._queue: asyncio.Queue[_Entry | None] = asyncio.Queue()
        self._is_open = False
        self._waiting = metrics.WAITING.labels(threads.name)

    async def write(self, work: Work, connection: Connection | None = None, row: RowKey | None = None) -> Outcome:
        """Return what became of a unit of work, once its group is committed or has failed.

        With a connection of its own it is a group of its own.
        """
        if not self._is_open:
            raise DatabaseUnavailableError(NOT_OPEN)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.inc()
        self._queue.put_nowait(_Entry(work, future, connection, row, time.monotonic() + self._lock_timeout))
        return await future

    def start(self) -> "asyncio.Task[None]":
        """Take writes from now on; the task ends when the service has stopped."""
        self._is_open = True
        return asyncio.create_task(self._run())

    async def _run(self) -> None:
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
            for _, group in groupby(waiting, key=lambda entry: entry.connection):
                await self._write_group([*group], tasks)
            del entries, waiting  # or their outcomes would stay until the next group comes
        self._queue.put_nowait(None)  # for those that write other groups

    async def _write_group(self, group: Sequence[_Entry], tasks: asyncio.TaskGroup) -> None:
        try:
            await self._commit(group, retry=self._groups == 1)
        except GroupError as error:
            for entry in group:
                tasks.create_task(self._write_alone(entry, error))

    async def _write_alone(self, entry: _Entry, error: GroupError) -> None:
        """Write what a group has failed with."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(GroupError),
            stop=stop_after_delay(entry.latest - time.monotonic()),
            wait=RETRY_WAIT,
            reraise=True,
        )
        try:
            await retrying(self._try_alone, entry, error)
        except GroupError as last:
            resolve(entry.future, last.reason)

    async def _try_alone(self, entry: _Entry, error: GroupError) -> None:
        try:
            async with asyncio.timeout(max(0, entry.latest - time.monotonic())):
                await self._alone.acquire()
        except TimeoutError:
            raise error from None
        try:
            await self._commit([entry], retry=False, waits=False)
        finally:
            self._alone.release()

    async def _commit(self, group: Sequence[_Entry], *, retry: bool, waits: bool = True) -> None:
        """Commit a group on a thread, and resolve all of it, but where this raises GroupError."""
        present = [entry for entry in group if not entry.future.done()]
        if not present:
            return
        works, connection = [entry.work for entry in present], present[0].connection
        rows = sorted({entry.row for entry in present if entry.row}, key=lambda row: (row[0].name, row[1]))
        if len(rows) > 1 and self._locks_rows:
            works.insert(0, lambda unit: unit.lock_all(rows))
        outcomes: list[Outcome]
        try:
            outcomes = await self._threads.run(
                lambda transactions: transactions.run(works, connection, retry=retry, waits=waits)
            )
        except GroupError:
            raise
        except Exception as error:  # noqa: BLE001  no thread; it is raised where each unit of work is awaited
            outcomes = [error for _ in present]
        for entry, outcome in zip(present, outcomes[-len(present) :], strict=True):
            resolve(entry.future, outcome)

    def stop(self) -> None:
        """Let the task end when the writes that are waiting now have been written."""
        self._is_open = False
        self._queue.put_nowait(None)
