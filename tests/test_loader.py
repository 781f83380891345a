"""Rows by id: those that are asked for together share statements, and each gets its own outcome."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import Select

from litestar_app.database import Database
from litestar_app.database.config import AlchemyConfig
from litestar_app.database.limits import Timeouts
from litestar_app.database.loader import BATCH, CONCURRENT, Loader
from litestar_app.exceptions import DatabaseUnavailableError, QueueTimeoutError
from litestar_app.students.record import STUDENT
from tests.database import create, prepare


class SlowDatabase(Database):
    """Counts its statements, each of which waits until it may go on."""

    def __init__(self, alchemy: AlchemyConfig) -> None:
        super().__init__(alchemy)
        self.compile([STUDENT.by_id, STUDENT.by_ids])
        self.statements: list[Select[Any]] = []
        self.may_go_on = asyncio.Event()
        self.error: Exception | None = None

    async def fetch(self, statement: Select[Any], values: Mapping[str, object], *, short: bool = True) -> Sequence[Any]:
        self.statements.append(statement)
        await self.may_go_on.wait()
        if self.error is not None:
            raise self.error
        return await super().fetch(statement, values, short=short)


@pytest.fixture
def alchemy(database_url: str) -> Iterator[AlchemyConfig]:
    with prepare(database_url, Timeouts(queue=1)) as alchemy:
        yield alchemy


def load(alchemy: AlchemyConfig, ids: list[int], error: Exception | None = None, *, too_late: bool = False) -> Any:
    """Ask for ids while no statement goes on; cancel the last; return statements, outcomes and what comes after it."""

    async def main() -> Any:
        database = SlowDatabase(alchemy)
        loader = Loader(database, STUDENT.by_id, STUDENT.by_ids)
        async with asyncio.timeout(60), database.open():
            for name in "ABC":
                await database.write(create(name))
            loading = [asyncio.ensure_future(loader.load(number)) for number in ids]
            await asyncio.sleep(0)
            loading[-1].cancel()
            if too_late:
                await asyncio.sleep(1.5)
            database.error = error
            database.may_go_on.set()
            outcomes = await asyncio.gather(*loading, return_exceptions=True)
            database.error = None
            return database.statements, outcomes, await loader.load(2)

    return asyncio.run(main())


def test_rows_share_statements(alchemy: AlchemyConfig) -> None:
    ids = [number % 4 + 1 for number in range(CONCURRENT + 2 * BATCH + 2)]
    statements, outcomes, (_, name, *_) = load(alchemy, ids)
    assert isinstance(outcomes.pop(), asyncio.CancelledError)
    assert [row and row[:2] for row in outcomes] == [(n, "ABC"[n - 1]) if n < 4 else None for n in ids[:-1]]
    assert statements == [STUDENT.by_id] * CONCURRENT + [STUDENT.by_ids] * 3 + [STUDENT.by_id]
    assert name == "B"


def test_failure_of_a_statement_is_that_of_its_rows(alchemy: AlchemyConfig) -> None:
    error = DatabaseUnavailableError("x")
    _, outcomes, (_, name, *_) = load(alchemy, [1] * (CONCURRENT + 3), error)
    assert (outcomes[:-1], name) == ([error] * (CONCURRENT + 2), "B")


@pytest.mark.parametrize("error", [None, DatabaseUnavailableError("x")], ids=repr)
def test_row_that_has_waited_too_long_is_not_read(alchemy: AlchemyConfig, error: Exception | None) -> None:
    """It is told what those before it have waited for, as where the server hangs."""
    statements, outcomes, (_, name, *_) = load(alchemy, [1] * (CONCURRENT + 3), error, too_late=True)
    assert [type(outcome) for outcome in outcomes[CONCURRENT:-1]] == [type(error) if error else QueueTimeoutError] * 2
    assert (statements, name) == ([STUDENT.by_id] * (CONCURRENT + 1), "B")
