"""Rows by their ids: those that are asked for while others are read share the next statement."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Select, Table, bindparam, select

from litestar_app.database.threads import resolve
from litestar_app.exceptions import QueueTimeoutError

if TYPE_CHECKING:
    from litestar_app.database import Database

CONCURRENT = 2
"""Statements at once. More of them share less."""
BATCH = 16
"""Rows of a statement at most."""
NAMES = [f"id_{number}" for number in range(BATCH)]


class _Entry(NamedTuple):
    """A row that waits to be read, what becomes of it, and until when it may wait, by the monotonic clock."""

    key: int
    future: asyncio.Future[Any]
    latest: float


class Loader:
    """Reads rows of a table by id.

    On a server, the way to a thread and to the server is most of what a row costs. On SQLite a row is read on the
    event loop, one after the other, so that none ever waits here.
    """

    def __init__(self, database: "Database", one: Select[Any], many: Select[Any]) -> None:
        """Take the statement of one row, whose id is `row_id`, and the one that `select_by_ids` has made."""
        self._database = database
        self._one = one
        self._many = many
        self._running = 0
        self._waiting: deque[_Entry] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self, key: int) -> Sequence[Any] | None:
        """Return a row, as it is committed by now or later; None where there is none.

        Raises:
            DatabaseUnavailableError: as `Database.fetch` does.

        """
        if self._running < CONCURRENT:
            self._running += 1
            error: Exception | None = None
            try:
                rows = await self._database.fetch(self._one, {"row_id": key})
            except Exception as caught:
                error = caught
                raise
            finally:
                self._end(error)
            return rows[0] if rows else None
        entry = _Entry(
            key, asyncio.get_running_loop().create_future(), time.monotonic() + self._database.timeouts.queue
        )
        self._waiting.append(entry)
        outcome: Sequence[Any] | Exception | None = await entry.future
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _end(self, error: Exception | None) -> None:
        """Begin the next statement, for what waits; what has waited too long is told why the last one has failed."""
        self._running -= 1
        batch: list[_Entry] = []
        while self._waiting and len(batch) < BATCH:
            entry = self._waiting.popleft()
            if entry.latest < time.monotonic():
                resolve(entry.future, error or QueueTimeoutError("no thread was free in time"))
            elif not entry.future.done():
                batch.append(entry)
        if batch:
            self._running += 1
            task = asyncio.create_task(self._read(batch))
            self._tasks.add(task)  # or nobody would hold it
            task.add_done_callback(self._tasks.discard)

    async def _read(self, batch: Sequence[_Entry]) -> None:
        keys = [entry.key for entry in batch]
        error: Exception | None = None
        ids = dict(zip(NAMES, keys + keys[-1:] * (BATCH - len(keys)), strict=True))
        try:
            rows = {row[0]: row for row in await self._database.fetch(self._many, ids)}
        except Exception as caught:  # noqa: BLE001  it is raised where each row is awaited
            error = caught
            outcomes: list[Any] = [error for _ in batch]
        else:
            outcomes = [rows.get(key) for key in keys]
        finally:
            self._end(error)
        for entry, outcome in zip(batch, outcomes, strict=True):
            resolve(entry.future, outcome)


def select_by_ids(table: Table) -> Select[Any]:
    """Make the statement that reads some rows: always as many ids, the last ones the same, so that it is fixed."""
    return select(table).where(table.c.id.in_([bindparam(name) for name in NAMES]))
