"""Clean-up: what has expired is deleted, at start and hourly, in transactions that are short."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Table

from litestar_app.database import Database
from litestar_app.entries import IMPORTS, delete_expired, select_expired, select_newest
from litestar_app.idempotency import delete_expired_keys
from litestar_app.models import HISTORY

logger = logging.getLogger("litestar_app")

PERIOD = 60 * 60
"""Seconds from one clean-up to the next."""
MICROSECONDS = 1_000_000
"""In a second."""
PAUSE = 0.05
"""Seconds between two transactions, for other writers."""
DAY = 24 * 60 * 60
MAX_GAP = 7 * DAY
"""How long before everything may have expired, in seconds. If all did so long ago, the clock may be ahead, since an
hourly clean-up leaves nothing of that kind. Entries as young as this do not tell: a wrong clock has dated them."""


class CleanUp:
    """Deletes stored responses that have expired, and entries of the history where they expire.

    Each worker does it, of which one finds the most; the others find nothing.
    """

    def __init__(self, database: Database, history_days: int | None, period: float = PERIOD) -> None:
        """Take the days for which history is kept, None for ever, and seconds from one clean-up to the next."""
        self._database = database
        self._history_days = history_days
        self._period = period
        self._is_doubtful = False

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
        while await self._database.write(delete_expired_keys):  # noqa: ASYNC110  not a condition, but other writers
            await asyncio.sleep(PAUSE)
        if self._history_days is None:
            return
        now = time.time()
        oldest = now - self._history_days * DAY
        if not await self._is_clock_plausible(now, oldest):
            return
        for table in (IMPORTS, HISTORY):  # in this order, so that none can be undone of which entries are missing
            await self._delete_expired(table, round(oldest * MICROSECONDS))

    async def _is_clock_plausible(self, now: float, oldest: float) -> bool:
        """Tell whether it may be as late as the clock says, by the newest entry; log once if not."""
        ((newest,),) = await self._database.fetch(select_newest(round((now - MAX_GAP) * MICROSECONDS)), {}, short=False)
        was_doubtful, self._is_doubtful = (
            self._is_doubtful,
            (newest is not None and newest < (oldest - MAX_GAP) * MICROSECONDS),
        )
        if self._is_doubtful and not was_doubtful:
            logger.warning(
                "HISTORY_DAYS: nothing is deleted, since the clock may be ahead: it says %s, and the newest entry of "
                "the history, but for the last 7 days, is of %s. Correct the clock; if it is right, deletion resumes "
                "7 days after the next write",
                _format(now),
                _format(newest / MICROSECONDS),
            )
        return not self._is_doubtful

    async def _delete_expired(self, table: Table, oldest: int) -> None:
        first = -(2**63)
        while rows := await self._database.fetch(select_expired(table, oldest, first), {}, short=False):
            first = rows[0][0]
            await self._database.write(partial(delete_expired, table=table, oldest=oldest, first=first))
            await asyncio.sleep(PAUSE)


def _format(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
