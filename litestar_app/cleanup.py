"""Clean-up: what has expired is deleted, at start and hourly, in transactions that are short."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from sqlalchemy.orm import Session

from litestar_app.database import Database
from litestar_app.entries import delete_expired_entries, delete_expired_imports
from litestar_app.idempotency import delete_expired_keys

logger = logging.getLogger("litestar_app")

PERIOD = 60 * 60
"""Seconds from one clean-up to the next."""
PAUSE = 0.05
"""Seconds between two transactions, for other writers."""
DAY = 24 * 60 * 60


class CleanUp:
    """Deletes stored responses that have expired, and entries of the history where they expire.

    Each worker does it, of which one finds the most; the others find nothing.
    """

    def __init__(self, database: Database, history_days: int | None, period: float = PERIOD) -> None:
        """Take the days for which history is kept, None for ever, and seconds from one clean-up to the next."""
        self._database = database
        self._history_days = history_days
        self._period = period

    @asynccontextmanager
    async def open(self, _app: object = None) -> AsyncIterator[None]:
        """Clean up for the length of the block."""
        task = asyncio.create_task(self._repeat())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _repeat(self) -> None:
        while True:
            try:
                await self._clean_up()
            except Exception as error:  # noqa: BLE001  whatever it is, the service works without
                logger.warning("the clean-up failed, and is repeated in %g s: %s", self._period, error)
            await asyncio.sleep(self._period)

    async def _clean_up(self) -> None:
        steps: list[Callable[[Session], int]] = [delete_expired_keys]
        if self._history_days is not None:
            oldest = round((time.time() - self._history_days * DAY) * 1_000_000)
            steps += [partial(step, oldest=oldest) for step in (delete_expired_imports, delete_expired_entries)]
        for step in steps:
            while await self._database.write(step):  # noqa: ASYNC110  not for a condition, but for other writers
                await asyncio.sleep(PAUSE)
