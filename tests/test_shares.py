"""Shares: one caller never holds every place for exports or for imports."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import Any

import pytest

from litestar_app.access.keys import make_key
from litestar_app.database.limits import SHARE, Timeouts
from litestar_app.transfer.exceptions import ShareInUseError
from litestar_app.transfer.shares import Shares
from tests.conftest import Names
from tests.service import API_KEYS, AS_EDITOR, serve_database
from tests.test_import import send


def test_caller_waits_for_its_own_share_only() -> None:
    async def main() -> None:
        shares = Shares("exports", 1, 0.1)
        async with shares.take("first"), shares.take("second"):
            with pytest.raises(ShareInUseError, match="This caller has as many exports under way"):
                async with shares.take("first"):
                    pass
        async with shares.take("first"):
            pass

    asyncio.run(main())


def test_request_takes_the_place_of_one_that_ends() -> None:
    async def main() -> None:
        shares = Shares("exports", 1, 30)
        order: list[int] = []

        async def use(number: int) -> None:
            async with shares.take("first"):
                order.append(number)
                await asyncio.sleep(0)

        await asyncio.gather(*(use(number) for number in range(5)))
        assert order == [0, 1, 2, 3, 4]

    asyncio.run(main())


@pytest.mark.parametrize("end", ["whole", "closed", "failed", "cancelled"])
def test_stream_gives_its_place_back(end: str) -> None:
    """However it ends; and the parts are closed with it."""

    async def main() -> None:
        shares, closed = Shares("exports", 1, 30), asyncio.Event()

        async def make_parts() -> AsyncGenerator[int, None]:
            try:
                yield 1
                if end == "failed":
                    raise ZeroDivisionError
                if end == "cancelled":
                    await asyncio.sleep(1000)
                yield 2
            finally:
                closed.set()

        async def read(parts: AsyncGenerator[int, None]) -> None:
            async for _ in parts:
                pass

        parts = shares.stream("first", make_parts())
        assert await anext(parts) == 1
        if end == "closed":
            await parts.aclose()
        reading = asyncio.ensure_future(read(parts))
        if end == "cancelled":
            await asyncio.sleep(0.01)
            reading.cancel()
        await asyncio.wait([reading])
        assert closed.is_set()
        async with shares.take("first"):
            pass
        outcome = None if reading.cancelled() else reading.exception()
        assert reading.cancelled() is (end == "cancelled")
        assert isinstance(outcome, ZeroDivisionError) is (end == "failed")

    asyncio.run(main())


def test_editor_leaves_places_for_others(
    database_url: str, locked: Callable[[], AbstractContextManager[Any]], names: Names
) -> None:
    """Imports that wait for a lock; another caller's begins beside them, and all but the one too many succeed."""
    key, secret = make_key("other", "editor")
    other, keys = {"Authorization": f"Bearer {secret}"}, f"{API_KEYS},other:editor:{key.id}:{key.sha256}"
    with (
        serve_database(database_url, Timeouts(queue=2, lock=100), api_keys=keys) as client,
        ThreadPoolExecutor(SHARE + 2) as pool,
    ):
        with locked():
            mine = [
                pool.submit(send, client, f"name,department,cgpa\nA{number},CSE,1\n", headers=AS_EDITOR)
                for number in range(SHARE + 1)
            ]
            (refused,), _ = wait(mine, return_when=FIRST_COMPLETED)
            theirs = pool.submit(send, client, "name,department,cgpa\nB,CSE,1\n", headers=other)
            response = refused.result()
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
            assert response.json()["detail"].startswith("This caller has as many imports under way")
        mine.remove(refused)
        assert [one.result().status_code for one in (*mine, theirs)] == [200] * (SHARE + 1)
    assert len(names()) == SHARE + 1
    assert "B" in names()
