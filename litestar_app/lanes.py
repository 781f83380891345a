"""Where work on the database runs, so that the event loop stays free and writers do not disturb each other."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from litestar_app.database import CONNECTIONS

P = ParamSpec("P")
T = TypeVar("T")

QUEUE_SECONDS = 10.0
"""How long work waits for a thread before the answer is that the database is too busy."""


class TooBusyError(Exception):
    """The work waited for `QUEUE_SECONDS` and was not begun."""


class Lanes:
    """Three ways to run a unit of work.

    A lookup has a small bound on its cost: on SQLite it runs on the event loop itself, in less time than the way to a
    thread and back takes. A scan runs on a worker thread. Writes do too; SQLite lets one write at a time, so there
    they form one line, first come, first served, instead of polling for the lock.
    """

    def __init__(self, engine: Engine) -> None:
        self._on_loop = engine.dialect.name == "sqlite"
        self._readers = ThreadPoolExecutor(CONNECTIONS, "reader")
        self._writers = ThreadPoolExecutor(1, "writer") if self._on_loop else self._readers

    async def lookup(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a read that costs little whatever the table holds."""
        if self._on_loop:
            try:
                return work(*args, **kwargs)
            except OperationalError:  # locked, for once: wait for it where that holds up nobody else
                pass
        return await self._run(self._readers, work, *args, **kwargs)

    async def scan(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a read of any length."""
        return await self._run(self._readers, work, *args, **kwargs)

    async def write(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a transaction that writes."""
        return await self._run(self._writers, work, *args, **kwargs)

    def close(self) -> None:
        """Wait for the work that has begun, drop what has not, and end the threads."""
        self._readers.shutdown(cancel_futures=True)
        self._writers.shutdown(cancel_futures=True)

    @staticmethod
    async def _run(executor: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        latest = time.monotonic() + QUEUE_SECONDS

        def begin() -> T:
            if time.monotonic() > latest:
                raise TooBusyError("no thread was free in time")
            return work(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(executor, begin)
