"""Transfers: work that takes long, on a thread and a connection of its own, and hands on what it makes."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from itertools import chain
from tempfile import TemporaryFile
from typing import IO, TypeVar

from sqlalchemy import Connection

from litestar_app.database.reads import Reader
from litestar_app.database.threads import WorkerThreads

T = TypeVar("T")

AHEAD = 2
"""What a thread may make before the first of it is taken."""
PATIENCE = 5
"""Seconds in all for which a snapshot waits for its client; what is left then goes to a temporary file first."""
CHUNK = 64 * 1024
"""Bytes of that file that are handed on at once."""


class _AbandonedError(Exception):
    """Nobody takes any more."""


class _Channel:
    """Hands the bytes that a thread makes to the event loop, no faster than it is taken there."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = threading.Semaphore(AHEAD)
        self._is_closed = False

    def put(self, item: bytes, timeout: float | None = None) -> bool:
        """Hand one on, from the thread, when there is room; false where there is none in time."""
        has_room = self._room.acquire(timeout=timeout)
        self.check()
        if has_room:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        return has_room

    def check(self) -> None:
        """Raise where nobody takes any more."""
        if self._is_closed:
            raise _AbandonedError

    async def get(self) -> bytes | None:
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
    threads: WorkerThreads[Reader], work: Callable[[Connection], Generator[bytes, None, None]]
) -> AsyncGenerator[bytes, None]:
    """Run a generator on a thread and yield what it yields; end it where nobody takes that any more.

    A slow client does not make the connection's snapshot last: it would keep the database from cleaning up.
    """
    channel = _Channel()

    def run(reader: Reader) -> None:
        connection = reader.connect(any_text=True)
        steps = work(connection)
        patience: float = PATIENCE
        try:
            for item in steps:
                began = time.monotonic()
                if not channel.put(item, None if connection.invalidated else patience):
                    for part in _keep(chain([item], steps), reader, channel):
                        channel.put(part)
                patience = max(0, patience - (time.monotonic() - began))
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


def _keep(items: Iterator[bytes], reader: Reader, channel: _Channel) -> Iterator[bytes]:
    """Yield the bytes of all items from a file, with the connection closed; without room for it, as they come."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(TemporaryFile(buffering=0))
        except OSError:
            yield from items
            return
        size, left = 0, b""
        for left in items:
            channel.check()
            if not _write_whole(file, left):
                break
            size += len(left)
        else:
            reader.close()
            left = b""
        file.seek(0)
        while size:
            part = file.read(min(CHUNK, size))
            size -= len(part)
            yield part
    if left:
        yield left
        yield from items


def _write_whole(file: IO[bytes], data: bytes) -> bool:
    """Tell whether the disk had room for all of it."""
    with contextlib.suppress(OSError):
        return file.write(data) == len(data)
    return False


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
