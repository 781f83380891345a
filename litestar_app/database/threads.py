"""Threads for work that blocks, with something of its own for each of them."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from litestar_app import metrics
from litestar_app.exceptions import DatabaseUnavailableError, QueueTimeoutError

NOT_OPEN = "the database is not open: the service is stopping, or it is mounted in an application without its lifespan"


def resolve(future: asyncio.Future[Any], outcome: Any) -> None:
    """Give an outcome, which may be an exception, to whoever waits for it."""
    if not future.done():
        future.set_result(outcome)


class Resource(Protocol):
    """What a thread works with, and closes when it ends."""

    def close(self) -> None:
        """Let go of whatever is open."""

    def interrupt(self) -> None:
        """Stop, from another thread, what is being done; it may block."""


R = TypeVar("R", bound=Resource)
T = TypeVar("T")


class WorkerThreads(Generic[R]):
    """A fixed number of threads, all of which are started before the first work comes.

    An executor of the standard library starts a thread after it has taken the work, so that work is done later which
    was reported as failed; and the interpreter waits for its threads, however long they hang.
    """

    def __init__(
        self, name: str, count: int, make: Callable[[], R], queue_timeout: float, *, interruptible: bool = False
    ) -> None:
        """Take how many threads there are, what makes the resource of each, and seconds that work may wait for one.

        Interruptible work is stopped where nobody waits for it any more.
        """
        self.name = name
        self._interruptible = interruptible
        self._busy, self._waiting = metrics.BUSY.labels(name), metrics.WAITING.labels(name)
        self._count = metrics.THREADS.labels(name)
        self.queue_timeout = queue_timeout
        self._lock = threading.Lock()
        self._jobs: deque[_Job[R, Any]] = deque()
        self._idle: list[SimpleQueue[_Job[R, Any] | None]] = []
        """What wakes the threads without work; the last one first, so that few connect while few are needed."""
        self._threads = [
            threading.Thread(target=self._run, args=(make,), name=f"{name}-{number}", daemon=True)
            for number in range(count)
        ]
        self._is_open = self._is_stopped = False

    def limit(self, count: int) -> None:
        """Have no more threads than this, from the start on."""
        del self._threads[count:]

    def start(self) -> None:
        """Start all threads, or raise RuntimeError."""
        for thread in self._threads:
            thread.start()
        self._count.inc(len(self._threads))
        self._is_open = True

    async def run(self, work: Callable[[R], T]) -> T:
        """Run work on a thread and return what it returns.

        Raises:
            QueueTimeoutError: no thread was free in time; the work was not begun.
            DatabaseUnavailableError: the threads have not been started, or have been stopped; the work was not begun.

        """
        if not self._is_open:
            raise DatabaseUnavailableError(NOT_OPEN)
        job = _Job(work, time.monotonic() + self.queue_timeout)
        self._waiting.inc()
        self._put(job)
        # all threads may be busy for long, and then none of them looks how late it is
        timer = job.expire_later(self.queue_timeout) if self._interruptible else None
        try:
            outcome = await job.future
        except asyncio.CancelledError:
            if self._interruptible:
                with contextlib.suppress(RuntimeError):  # no thread can be started: then it goes on to its end
                    threading.Thread(target=job.interrupt, name="interrupt", daemon=True).start()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    @property
    def is_running(self) -> bool:
        """Tell whether a thread has not ended yet."""
        return any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Reject the work that has not begun, and let each thread end after what it does."""
        if self._is_open:
            self._count.dec(len(self._threads))
        self._is_open = False
        with self._lock:
            self._is_stopped = True
            jobs, self._jobs = self._jobs, deque()
            idle, self._idle = self._idle, []
        for job in jobs:
            self._waiting.dec()
            resolve(job.future, DatabaseUnavailableError(NOT_OPEN))
        for thread in idle:
            thread.put(None)

    def _put(self, job: "_Job[R, Any]") -> None:
        with self._lock:
            if not self._idle:
                self._jobs.append(job)
                return
            thread = self._idle.pop()
        thread.put(job)

    def _get(self, thread: "SimpleQueue[_Job[R, Any] | None]") -> "_Job[R, Any] | None":
        with self._lock:
            if self._jobs:
                return self._jobs.popleft()
            if self._is_stopped:
                return None
            self._idle.append(thread)
        return thread.get()

    def _run(self, make: Callable[[], R]) -> None:
        resource = make()
        thread: SimpleQueue[_Job[R, Any] | None] = SimpleQueue()
        while (job := self._get(thread)) is not None:
            self._waiting.dec()
            self._busy.inc()
            try:
                job.run(resource)
            finally:
                self._busy.dec()
            del job  # or what it has made would stay until the next one comes
        resource.close()


class _Job(Generic[R, T]):
    """Work that waits for a thread, and the future of what comes of it; exceptions are results as any other."""

    def __init__(self, work: Callable[[R], T], latest: float) -> None:
        self._work = work
        self._latest = latest
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T | BaseException] = self._loop.create_future()
        self._resource: R | None = None
        self._has_begun = False
        self._is_interrupted = False
        self._lock = threading.Lock()

    def expire_later(self, seconds: float) -> asyncio.TimerHandle:
        """Give up the work in some seconds, unless it has begun by then."""
        return self._loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        with self._lock:
            if not self._has_begun:
                resolve(self.future, QueueTimeoutError("no thread was free in time"))

    def run(self, resource: R) -> None:
        """Do the work, unless it has waited too long or nobody waits for it any more."""
        with self._lock:
            if self.future.done():
                return
            self._has_begun = True
        outcome: T | BaseException
        try:
            if time.monotonic() > self._latest:
                raise QueueTimeoutError("no thread was free in time")  # noqa: TRY301  an outcome as any other
            self._resource = resource
            outcome = self._work(resource)
        except BaseException as error:  # noqa: BLE001  it is raised where the work is awaited
            outcome = error
        with self._lock:
            self._resource = None
        if self._is_interrupted:
            resource.close()  # it may have had the time to end well, and the next work must not be hit
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            self._loop.call_soon_threadsafe(resolve, self.future, outcome)

    def interrupt(self) -> None:
        """Stop the work if it is being done."""
        with self._lock:  # so that the thread does not begin something else meanwhile
            if self._resource is not None:
                self._is_interrupted = True
                self._resource.interrupt()
