"""Shares: how many of the places for exports, or for imports, one caller may hold, so that others find some."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from msgspec import Struct

from litestar_app.transfer.exceptions import ShareInUseError

T = TypeVar("T")


class _Share(Struct):
    """What one caller may hold, and how many requests of that caller are here: they hold or wait."""

    free: asyncio.Semaphore
    requests: int = 0


class Shares:
    """Shares of the same size for every caller; nothing is kept of a caller without requests."""

    def __init__(self, what: str, size: int, timeout: float) -> None:
        """Take what is shared, in the plural; how many places are a share; seconds that a request waits for its own."""
        self._what = what
        self._size = size
        self._timeout = timeout
        self._shares: dict[str, _Share] = {}

    @asynccontextmanager
    async def take(self, caller: str) -> AsyncIterator[None]:
        """Hold a place of a caller's share for the length of a block.

        Raises:
            ShareInUseError: none became free in time.

        """
        share = self._shares.setdefault(caller, _Share(asyncio.Semaphore(self._size)))
        share.requests += 1
        try:
            await self._wait(share.free)
            try:
                yield
            finally:
                share.free.release()
        finally:
            share.requests -= 1
            if not share.requests:
                del self._shares[caller]

    async def stream(self, caller: str, parts: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Yield the parts while a place is held for them, from before the first is made."""
        async with self.take(caller):
            try:
                async for part in parts:
                    yield part
            finally:
                await parts.aclose()

    async def _wait(self, free: asyncio.Semaphore) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await free.acquire()
        except TimeoutError:
            raise ShareInUseError(
                f"This caller has as many {self._what} under way as one may have at once ({self._size}); "
                "retry when one of them has ended"
            ) from None


class TransferShares:
    """The shares of exports and those of imports."""

    def __init__(self, size: int, timeout: float) -> None:
        """Take how many places are a share, and seconds that a request waits for its own."""
        self.exports = Shares("exports", size, timeout)
        self.imports = Shares("imports", size, timeout)
