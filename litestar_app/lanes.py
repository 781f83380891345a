"""Where work on the database runs, so that the event loop stays free and writers do not disturb each other."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from litestar_app.database import CONNECTIONS
from litestar_app.transactions import Transactions

P = ParamSpec("P")
T = TypeVar("T")

QUEUE_SECONDS = 10.0
"""How long work waits for a thread before the answer is that the database is too busy.

Not for writes on SQLite: they wait for the group before theirs, and no longer.
"""


class TooBusyError(Exception):
    """The work waited for `QUEUE_SECONDS` and was not begun."""


class Lanes:
    """Three ways to run work.

    A lookup has a small bound on its cost: on SQLite it runs on the event loop itself, in less time than the way to a
    thread and back takes. A scan runs on a worker thread. Writes do too. SQLite lets one write at a time, so there
    one thread writes, and what comes while it does forms the next group: one transaction, one COMMIT for all of it.
    """

    def __init__(self, engine: Engine) -> None:
        self._sqlite = engine.dialect.name == "sqlite"
        self._transactions = Transactions(engine)
        self._readers = ThreadPoolExecutor(CONNECTIONS, "reader")
        self._writers = ThreadPoolExecutor(1, "writer") if self._sqlite else self._readers
        self._waiting: list[tuple[asyncio.Future[Any], Callable[[Connection], Any]]] = []
        self._writing = False

    async def lookup(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a read that costs little whatever the table holds."""
        if self._sqlite:
            try:
                return work(*args, **kwargs)
            except OperationalError:  # locked, for once: wait for it where that holds up nobody else
                pass
        return await self._run(self._readers, work, *args, **kwargs)

    async def scan(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a read of any length."""
        return await self._run(self._readers, work, *args, **kwargs)

    async def write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit of work as a transaction, as `Transactions.run` does; it has been committed when this returns."""

        def unit(connection: Connection) -> T:
            return work(connection, *args, **kwargs)

        if not self._sqlite:
            return await self._run(self._writers, self._transactions.run, unit)
        answer: asyncio.Future[T | BaseException] = asyncio.get_running_loop().create_future()
        self._waiting.append((answer, unit))
        if not self._writing:
            self._write_group()
        outcome = await answer
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def close(self) -> None:
        """Wait for the work that has begun, drop what has not, and end the threads."""
        self._readers.shutdown(cancel_futures=True)
        self._writers.shutdown()
        self._transactions.close()

    def _write_group(self) -> None:
        """Hand all that waits, and whose client does too, to the thread that writes."""
        group = [(answer, work) for answer, work in self._waiting if not answer.cancelled()]
        self._waiting.clear()
        self._writing = bool(group)
        if not group:
            return
        answers, works = zip(*group, strict=True)
        try:
            done = asyncio.get_running_loop().run_in_executor(self._writers, self._transactions.run_group, works)
        except RuntimeError as error:  # there is no such thread: it cannot be started, or the service has ended
            self._writing = False
            _pass_on(answers, [error for _ in answers])
        else:
            done.add_done_callback(lambda group_done: self._end_group(answers, group_done.result()))

    def _end_group(self, answers: Sequence[asyncio.Future[Any]], outcomes: Sequence[object]) -> None:
        self._write_group()  # first, so that the thread is busy while the loop answers
        _pass_on(answers, outcomes)

    @staticmethod
    async def _run(executor: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        latest = time.monotonic() + QUEUE_SECONDS

        def begin() -> T:
            if time.monotonic() > latest:
                raise TooBusyError("no thread was free in time")
            return work(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(executor, begin)


def _pass_on(answers: Sequence[asyncio.Future[Any]], outcomes: Sequence[object]) -> None:
    for answer, outcome in zip(answers, outcomes, strict=True):
        if not answer.cancelled():
            answer.set_result(outcome)
