"""Worker threads: all are started before the first work, none begins work too late, and they can be stopped."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from litestar_app.database import Database
from litestar_app.database.config import THREADS
from litestar_app.database.threads import WorkerThreads
from litestar_app.exceptions import DatabaseUnavailableError, QueueTimeoutError
from tests.database import prepare


class Resource:
    """What a thread works with; counts those that are open."""

    open = 0

    def __init__(self) -> None:
        Resource.open += 1

    def close(self) -> None:
        Resource.open -= 1


class Blocker:
    """Work that runs until it is released."""

    def __init__(self) -> None:
        self.begun, self.release = threading.Event(), threading.Event()

    def __call__(self, _resource: object) -> str:
        self.begun.set()
        assert self.release.wait(10)
        return "released"


@pytest.fixture
def blocker() -> Iterator[Blocker]:
    blocker = Blocker()
    yield blocker
    blocker.release.set()


def run(main: Callable[[WorkerThreads[Resource]], Coroutine[Any, Any, Any]], queue_timeout: float = 10) -> Any:
    """Run a coroutine function with one worker thread."""
    threads = WorkerThreads("worker", 1, Resource, queue_timeout)
    threads.start()
    try:
        return asyncio.run(asyncio.wait_for(main(threads), 30))
    finally:
        threads.stop(time.monotonic() + 10)


def named(*prefixes: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefixes)]


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
def test_all_threads_are_started_first(request: pytest.FixtureRequest, kind: str) -> None:
    """A thread that is started later may fail to start, when its work has been taken already."""

    async def main(database: Database) -> list[str]:
        async with database.open():
            return named("reader-", "writer-", "ping-")

    with prepare(request.getfixturevalue(f"{kind}_url")) as alchemy:
        names = asyncio.run(main(Database(alchemy)))
    assert len(names) == THREADS + 1 + {"sqlite": 1, "mysql": THREADS}[kind]
    assert named("reader-", "writer-", "ping-") == []


@pytest.mark.parametrize("fails_at", ["reader-0", "reader-5", "ping-0", "writer-0"])
def test_thread_that_cannot_be_started_stops_the_start(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    """And ends the threads that have been started."""
    start = threading.Thread.start

    def start_or_fail(thread: threading.Thread) -> None:
        if thread.name == fails_at:
            raise RuntimeError("can't start new thread")
        start(thread)

    async def main(database: Database) -> None:
        async with database.open():
            pytest.fail("it has started")

    monkeypatch.setattr(threading.Thread, "start", start_or_fail)
    with prepare(sqlite_url) as alchemy, pytest.raises(RuntimeError, match="can't start new thread"):
        asyncio.run(main(Database(alchemy)))
    assert named("reader-", "writer-", "ping-") == []


def test_late_work_is_rejected_and_never_begun(blocker: Blocker) -> None:
    begun: list[object] = []

    async def main(threads: WorkerThreads[Resource]) -> None:
        first = asyncio.ensure_future(threads.run(blocker))
        late = asyncio.ensure_future(threads.run(begun.append))
        await asyncio.sleep(0.2)
        blocker.release.set()
        assert await first == "released"
        with pytest.raises(QueueTimeoutError):
            await late
        await threads.run(begun.append)  # the next in time is run

    run(main, queue_timeout=0.1)
    assert len(begun) == 1


def test_stop_rejects_waiting_work_and_ends_the_rest(blocker: Blocker) -> None:
    begun: list[object] = []

    async def main(threads: WorkerThreads[Resource]) -> None:
        running = asyncio.ensure_future(threads.run(blocker))
        waiting = asyncio.ensure_future(threads.run(begun.append))
        await asyncio.to_thread(blocker.begun.wait, 10)
        threading.Timer(0.2, blocker.release.set).start()
        threads.stop(time.monotonic() + 10)
        assert await running == "released"
        for rejected in (waiting, threads.run(begun.append)):
            with pytest.raises(DatabaseUnavailableError, match="stopping"):
                await rejected

    run(main)
    assert (begun, named("worker-"), Resource.open) == ([], [], 0)


def test_stop_leaves_hung_work_behind(blocker: Blocker) -> None:
    """It ends at its deadline, and what the thread does afterwards disturbs nobody, even without an event loop."""

    async def main(threads: WorkerThreads[Resource]) -> None:
        hung = asyncio.ensure_future(threads.run(blocker))
        await asyncio.to_thread(blocker.begun.wait, 10)
        began = time.monotonic()
        threads.stop(began + 0.2)
        assert 0.1 < time.monotonic() - began < 5
        hung.cancel()

    run_threads = WorkerThreads("hung", 1, Resource, 10)
    run_threads.start()
    asyncio.run(main(run_threads))
    blocker.release.set()
    while named("hung-"):
        time.sleep(0.01)
    assert Resource.open == 0


def test_client_that_left_is_not_worked_for(blocker: Blocker) -> None:
    """Nor does one that leaves during its work make the thread fail."""
    begun: list[object] = []

    async def main(threads: WorkerThreads[Resource]) -> None:
        both = [asyncio.ensure_future(threads.run(work)) for work in (blocker, begun.append)]
        await asyncio.to_thread(blocker.begun.wait, 10)
        for left in both:
            left.cancel()
        await asyncio.wait(both)
        blocker.release.set()
        await threads.run(lambda _: None)

    run(main)
    assert begun == []


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError("x"), asyncio.CancelledError()], ids=repr)
def test_exceptions_are_raised_where_work_is_awaited(error: BaseException) -> None:
    def fail(_resource: object) -> None:
        raise error

    async def main(threads: WorkerThreads[Resource]) -> str:
        with pytest.raises(type(error)) as caught:
            await threads.run(fail)
        assert caught.value is error
        return await threads.run(lambda _: "next")

    assert run(main) == "next"
