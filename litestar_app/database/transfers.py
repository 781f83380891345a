"""Transfers: work that takes long, on a thread and a connection of its own, and hands on what it makes."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from typing import Generic, TypeVar

from sqlalchemy import Connection

from litestar_app.database.reads import Reader
from litestar_app.database.threads import WorkerThreads

T = TypeVar("T")

AHEAD = 2
"""What a thread may make before the first of it is taken."""


class _AbandonedError(Exception):
    """Nobody takes any more."""


class _Channel(Generic[T]):
    """Hands what a thread makes to the event loop, no faster than it is taken there."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[T | None] = asyncio.Queue()
        self._room = threading.Semaphore(AHEAD)
        self._is_closed = False

    def put(self, item: T) -> None:
        """Hand one on, from the thread; wait until there is room."""
        self._room.acquire()
        if self._is_closed:
            raise _AbandonedError
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def get(self) -> T | None:
        """Take one, or None at the end."""
        item = await self._queue.get()
        self._room.release()
        return item

    def end(self) -> None:
        """Have None come after what has been put."""
        self._queue.put_nowait(None)

    def close(self) -> None:
        """Let the thread go on, and end."""
        self._is_closed = True
        self._room.release()


async def stream(
    threads: WorkerThreads[Reader], work: Callable[[Connection], Generator[T, None, None]]
) -> AsyncGenerator[T, None]:
    """Run a generator on a thread and yield what it yields; end it where nobody takes that any more."""
    channel: _Channel[T] = _Channel()

    def run(reader: Reader) -> None:
        steps = work(reader.connect(any_text=True))
        try:
            for item in steps:
                channel.put(item)
        finally:
            reader.close()  # first: PyMySQL's cursor would read all the rows that are left when it is deleted
            steps.close()

    task = asyncio.ensure_future(threads.run(run))
    task.add_done_callback(lambda _: channel.end())
    try:
        while (item := await channel.get()) is not None:
            yield item
        await task
    finally:
        channel.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def stage(threads: WorkerThreads[Reader], work: Callable[[Connection], T]) -> AsyncIterator[tuple[Connection, T]]:
    """Do work on a thread; yield its connection, for what comes after it, and its result."""
    connections: list[Connection] = []
    is_abandoned = threading.Event()

    def close() -> None:
        with contextlib.suppress(IndexError):  # of the thread and the event loop one has closed it
            connection = connections.pop()
            connection.invalidate()  # and with it the temporary tables
            connection.close()

    def run(reader: Reader) -> T:
        try:
            result = work(reader.connect(autocommit=False, any_text=True))
            connections.append(reader.release())
        finally:
            reader.close()
        if is_abandoned.is_set():
            close()
        return result

    try:
        result = await threads.run(run)
        yield connections[0], result
    finally:
        is_abandoned.set()
        close()
