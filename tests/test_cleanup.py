"""Clean-up: what has expired goes at start and again and again, in parts; what has not stays."""

import asyncio
import logging
import time
from collections.abc import Callable

import pytest

from litestar_app.database import Database
from litestar_app.entries import MAX_EXPIRED
from litestar_app.operations.cleanup import DAY, CleanUp
from tests.conftest import Rows
from tests.database import prepare, run
from tests.service import ANANYA, serve_database
from tests.test_history import FILE, import_file, undo

Query = Callable[..., Rows]
COUNTS = (
    "SELECT (SELECT COUNT(*) FROM idempotency_keys), (SELECT COUNT(*) FROM imports), (SELECT COUNT(*) FROM history)"
)


def fill(query: Query, number: int, age: float) -> None:
    """Add keys, imports and entries that are some seconds old."""
    at = int((time.time() - age) * 1e6)
    for first in range(0, number, 500):
        numbers = range(first, min(number, first + 500))
        entries = ", ".join(f"({one}, {at}, 'local', 'create')" for one in numbers)
        query(f"INSERT INTO history (student_id, at, who, action) VALUES {entries}")
    for one in range(5):
        query("INSERT INTO idempotency_keys VALUES (?, '', '', ?)", f"{age} {one}", at // 1_000_000)
        query(
            "INSERT INTO imports (at, who, created, updated, deleted, unchanged, rejected, first_entry, last_entry) "
            "VALUES (?, 'local', 0, 0, 0, 0, 0, 1, 1)",
            at,
        )


async def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  nothing tells when a table has changed
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(("days", "left"), [(None, (5, 10, 2 * MAX_EXPIRED + 20)), (30, (5, 5, 10))])
def test_start_deletes_what_has_expired(
    database_url: str, query: Query, days: int | None, left: tuple[int, int, int]
) -> None:
    """In parts; without HISTORY_DAYS the history stays for ever. Several processes may do it at once."""
    with prepare(database_url):
        fill(query, 2 * MAX_EXPIRED + 10, 31 * DAY)
        fill(query, 10, 0.9 * DAY)

    async def main(database: Database) -> None:
        async with CleanUp(database, days).open(), CleanUp(database, days).open():
            await wait_until(lambda: query(COUNTS) == [left])

    with prepare(database_url) as alchemy:
        run(alchemy, main)


def test_clean_up_is_repeated_and_survives_a_failure(
    database_url: str, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "litestar_app")

    async def main(database: Database) -> None:
        query("ALTER TABLE idempotency_keys RENAME TO gone")
        async with CleanUp(database, 1, period=0.05).open():
            await wait_until(lambda: bool(caplog.messages))
            query("ALTER TABLE gone RENAME TO idempotency_keys")
            for _ in range(2):
                fill(query, 10, 2 * DAY)
                await wait_until(lambda: query(COUNTS) == [(0, 0, 0)])

    with prepare(database_url) as alchemy:
        run(alchemy, main)
    assert all(message.startswith("the clean-up failed, and is repeated in 0.05 s: ") for message in caplog.messages)
    assert all("\n" not in message for message in caplog.messages)


@pytest.mark.parametrize(("age", "is_deleted"), [(36, True), (38, False), (3650, False)])
def test_clock_that_is_ahead_deletes_nothing(
    database_url: str, query: Query, caplog: pytest.LogCaptureFixture, age: int, *, is_deleted: bool
) -> None:
    """By the newest entry that is older than a week: a wrong clock has dated what has come since."""
    caplog.set_level(logging.WARNING, "litestar_app")
    with prepare(database_url):
        fill(query, 2 * MAX_EXPIRED, (age + 100) * DAY)
        fill(query, 10, age * DAY)
        fill(query, 10, 5 * DAY)  # written while the clock was wrong

    async def main(database: Database) -> None:
        async with CleanUp(database, 30, period=0.05).open():
            await wait_until(lambda: query(COUNTS) == [(0, 5, 10)] if is_deleted else bool(caplog.messages))
            await asyncio.sleep(0.5)  # and again
        assert query(COUNTS) == [(0, 5, 10) if is_deleted else (0, 15, 2 * MAX_EXPIRED + 20)]

    with prepare(database_url) as alchemy:
        run(alchemy, main)
    assert len(caplog.messages) == (0 if is_deleted else 1)
    assert all("HISTORY_DAYS: nothing is deleted, since the clock may be ahead" in line for line in caplog.messages)


def test_deletion_resumes_a_week_after_the_next_write(database_url: str, query: Query) -> None:
    """The service was not used for years, and the clock is right."""
    with prepare(database_url):
        fill(query, 10, 3650 * DAY)
        fill(query, 10, 7.1 * DAY)

    async def main(database: Database) -> None:
        async with CleanUp(database, 30).open():
            await wait_until(lambda: query(COUNTS) == [(0, 5, 10)])

    with prepare(database_url) as alchemy:
        run(alchemy, main)


@pytest.mark.parametrize("ahead", [3650, 20])
def test_entries_of_a_clock_that_was_ahead_stop_nothing(database_url: str, query: Query, ahead: int) -> None:
    """More of them than are looked at together, with lower ids than those that have expired; others in between."""
    number = MAX_EXPIRED + 10
    with prepare(database_url):
        for age in (-ahead, 60, -ahead - 1, 50, 31):
            fill(query, number, age * DAY)
        fill(query, 10, DAY / 2)

    async def main(database: Database) -> None:
        async with CleanUp(database, 30).open():
            await wait_until(lambda: query("SELECT COUNT(*) FROM history") == [(2 * number + 10,)])

    with prepare(database_url) as alchemy:
        run(alchemy, main)


def test_expired_import_cannot_be_undone(database_url: str, query: Query) -> None:
    """A part of its entries may be there still, so it goes first."""
    with serve_database(database_url) as client:
        client.post("/student", json=ANANYA)
        import_file(client, FILE)
        query("UPDATE imports SET at = at - ?", int(2 * DAY * 1e6))
    with serve_database(database_url, history_days=1) as client:
        while client.get("/imports").json():
            time.sleep(0.02)
        assert undo(client, 1).status_code == 404
        assert len(client.get("/student/1/history").json()) == 2
