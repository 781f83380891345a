"""Worker threads: all are started before the first work, none does what nobody waits for, and they can be stopped."""

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import pytest

from litestar_app.database import Database
from litestar_app.database.limits import THREADS
from litestar_app.database.threads import WorkerThreads
from litestar_app.exceptions import DatabaseUnavailableError, QueueTimeoutError
from tests.database import prepare, run


class Resource:
    """What a thread works with; counts those that are open."""

    open = 0

    def __init__(self) -> None:
        Resource.open += 1

    def close(self) -> None:
        Resource.open -= 1

    def interrupt(self) -> None:
        raise NotImplementedError


class Blocker:
    """Work that runs until it is released."""

    def __init__(self) -> None:
        self.begun, self.release = threading.Event(), threading.Event()

    def __call__(self, _resource: object) -> str:
        self.begun.set()
        assert self.release.wait(30)
        return "released"


@pytest.fixture
def blocker() -> Iterator[Blocker]:
    blocker = Blocker()
    yield blocker
    blocker.release.set()


def run_with_one_thread(main: Callable[[WorkerThreads[Resource]], Coroutine[Any, Any, None]]) -> None:
    threads = WorkerThreads("worker", 1, Resource, 30)
    threads.start()
    try:
        asyncio.run(asyncio.wait_for(main(threads), 60))
    finally:
        stop(threads)


def stop(threads: WorkerThreads[Any], seconds: float = 10) -> None:
    """Stop threads, and wait for them."""
    threads.stop()
    deadline = time.monotonic() + seconds
    while threads.is_running and time.monotonic() < deadline:
        time.sleep(0.01)


def named(*prefixes: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefixes)]


@pytest.mark.parametrize(("kind", "writers"), [("sqlite", 1), ("mysql", THREADS)])
def test_all_threads_are_started_first(request: pytest.FixtureRequest, kind: str, writers: int) -> None:
    """A thread that is started later may fail to start, when its work has been taken already."""

    async def main(_database: Database) -> list[str]:
        return named("reader-", "writer-", "ping-")

    with prepare(request.getfixturevalue(f"{kind}_url")) as alchemy:
        assert len(run(alchemy, main)) == THREADS + 1 + writers
    assert named("reader-", "writer-", "ping-") == []


@pytest.mark.parametrize("fails_at", ["reader-5", "writer-0"])
def test_thread_that_cannot_start_stops_the_start(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    """And ends the threads that have been started."""
    start = threading.Thread.start

    def start_or_fail(thread: threading.Thread) -> None:
        if thread.name == fails_at:
            raise RuntimeError("can't start new thread")
        start(thread)

    async def main(_database: Database) -> None:
        pytest.fail("it has started")

    monkeypatch.setattr(threading.Thread, "start", start_or_fail)  # no setting makes a system refuse a thread
    with prepare(sqlite_url) as alchemy, pytest.raises(RuntimeError, match="can't start new thread"):
        run(alchemy, main)
    assert named("reader-", "writer-", "ping-") == []


def test_stop_rejects_waiting_work_and_ends_the_rest(blocker: Blocker) -> None:
    begun: list[object] = []

    async def main(threads: WorkerThreads[Resource]) -> None:
        running = asyncio.ensure_future(threads.run(blocker))
        waiting = asyncio.ensure_future(threads.run(begun.append))
        await asyncio.to_thread(blocker.begun.wait, 30)
        threading.Timer(0.2, blocker.release.set).start()
        stop(threads, 30)
        assert await running == "released"
        for rejected in (waiting, threads.run(begun.append)):
            with pytest.raises(DatabaseUnavailableError, match="stopping"):
                await rejected

    run_with_one_thread(main)
    assert (begun, named("worker-"), Resource.open) == ([], [], 0)


def test_stop_leaves_hung_work_behind(blocker: Blocker) -> None:
    """What its thread does afterwards disturbs nobody, even without an event loop."""

    async def main() -> None:
        hung = asyncio.ensure_future(threads.run(blocker))
        await asyncio.to_thread(blocker.begun.wait, 30)
        stop(threads, 0.2)
        assert named("hung-") == ["hung-0"]
        hung.cancel()

    threads = WorkerThreads("hung", 1, Resource, 30)
    threads.start()
    asyncio.run(main())
    blocker.release.set()
    while named("hung-"):
        time.sleep(0.01)
    assert Resource.open == 0


def test_work_of_a_client_that_left_is_not_done(blocker: Blocker) -> None:
    """Nor does one that leaves during its work make the thread fail."""
    begun: list[object] = []

    async def main(threads: WorkerThreads[Resource]) -> None:
        both = [asyncio.ensure_future(threads.run(work)) for work in (blocker, begun.append)]
        await asyncio.to_thread(blocker.begun.wait, 30)
        for left in both:
            left.cancel()
        await asyncio.wait(both)
        blocker.release.set()
        await threads.run(lambda _: None)

    run_with_one_thread(main)
    assert begun == []


@pytest.mark.parametrize("interruptible", [True, False])
def test_work_that_waits_too_long_is_given_up(blocker: Blocker, *, interruptible: bool) -> None:
    """Where all threads may be busy for long, while they are; and it is not begun when one is free."""
    begun: list[object] = []

    async def main() -> None:
        running = asyncio.ensure_future(threads.run(blocker))
        await asyncio.to_thread(blocker.begun.wait, 30)
        late = asyncio.ensure_future(threads.run(begun.append))
        done, _ = await asyncio.wait([late], timeout=None if interruptible else 0.4)
        assert bool(done) is interruptible
        blocker.release.set()
        with pytest.raises(QueueTimeoutError, match="no thread was free in time"):
            await late
        assert await running == "released"
        assert await threads.run(lambda _: "next") == "next"

    threads = WorkerThreads("worker", 1, Resource, 0.2, interruptible=interruptible)
    threads.start()
    try:
        asyncio.run(asyncio.wait_for(main(), 60))
    finally:
        stop(threads)
    assert begun == []


def test_thread_keeps_nothing_of_its_last_work() -> None:
    """A table of an import has megabytes."""

    class Table:
        pass

    async def main(threads: WorkerThreads[Resource]) -> None:
        table = await threads.run(lambda _: Table())
        left = weakref.ref(table)
        del table
        while left() is not None:  # noqa: ASYNC110  no event tells it
            await asyncio.sleep(0.01)

    run_with_one_thread(main)


@pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError()], ids=repr)
def test_exceptions_are_raised_to_the_caller(error: BaseException) -> None:
    """And the thread works on."""

    def fail(_resource: object) -> None:
        raise error

    async def main(threads: WorkerThreads[Resource]) -> None:
        with pytest.raises(type(error)) as caught:
            await threads.run(fail)
        assert caught.value is error
        assert await threads.run(lambda _: "next") == "next"

    run_with_one_thread(main)


def test_few_threads_work_while_few_are_needed() -> None:
    """Each that does has a connection to a server; and what waits for a thread is done in its order."""
    begun: list[int] = []
    blockers = [Blocker() for _ in range(8)]

    def begin(number: int, _resource: Resource) -> None:
        begun.append(number)

    async def main() -> None:
        names = {await threads.run(lambda _: threading.current_thread().name) for _ in range(20)}
        assert len(names) < len(blockers), "the last one may not be idle again at once, and then another one is woken"
        running = [asyncio.ensure_future(threads.run(blocker)) for blocker in blockers]
        waiting = [asyncio.ensure_future(threads.run(partial(begin, number))) for number in range(5)]
        await asyncio.sleep(0)
        for blocker in blockers:
            assert await asyncio.to_thread(blocker.begun.wait, 30), "each has a thread"
        blockers[1].release.set()
        await asyncio.gather(*waiting)
        for blocker in blockers:
            blocker.release.set()
        await asyncio.gather(*running)

    threads = WorkerThreads("worker", len(blockers), Resource, 30)
    threads.start()
    try:
        asyncio.run(asyncio.wait_for(main(), 60))
    finally:
        stop(threads)
    assert (begun, named("worker-")) == ([*range(5)], [])
