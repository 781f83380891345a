"""The database without the service in front of it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy import text
from sqlalchemy.orm import Session

from litestar_app.database import Database
from litestar_app.database.config import AlchemyConfig, create_alchemy_config
from litestar_app.database.limits import Timeouts
from litestar_app.database.writes import Transactions
from litestar_app.settings import Settings

INSERT = text("INSERT INTO students (name, department, cgpa) VALUES (:name, 'CSE', 8.9)")

BREAK_WRITES = {
    "sqlite": "CREATE TRIGGER broken_{0} BEFORE {0} ON students BEGIN SELECT nowhere(NEW.name); END",
    "mysql": "CREATE TRIGGER broken_{0} BEFORE {0} ON students FOR EACH ROW "
    "SIGNAL SQLSTATE '42000' SET MYSQL_ERRNO = 1064, MESSAGE_TEXT = NEW.name",
}
"""What makes each write of an event fail by a defect, on each database; on MySQL the message is a name."""


def break_writes(query: Callable[[str], object], database_url: str) -> None:
    """Have each INSERT and UPDATE of students fail by a defect."""
    for event in ("INSERT", "UPDATE"):
        query(BREAK_WRITES[database_url.partition("+")[0].partition(":")[0]].format(event))


@contextmanager
def prepare(database_url: str, timeouts: Timeouts | None = None, **others: Any) -> Iterator[AlchemyConfig]:
    """Prepare a database as a start does, with other settings too; close its connections at the end of the block."""
    alchemy = create_alchemy_config(Settings(database_url=database_url, **others), timeouts)
    try:
        alchemy.prepare_database()
        yield alchemy
    finally:
        alchemy.get_engine().dispose()


def run(alchemy: AlchemyConfig, main: Callable[[Database], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine function with an open database."""

    async def open_and_run(database: Database) -> Any:
        async with asyncio.timeout(60), database.open():
            return await main(database)

    return asyncio.run(open_and_run(Database(alchemy)))


@contextmanager
def open_transactions(alchemy: AlchemyConfig) -> Iterator[Transactions]:
    """Open what one thread writes with."""
    sessions = cast("Any", alchemy.create_session_maker())
    transactions = Transactions(sessions, alchemy.get_engine(), alchemy.timeouts.lock, alchemy.backend)
    yield transactions
    transactions.close()


def create(name: str) -> Callable[[Session], str]:
    """Make a unit of work that creates a student and returns the name."""

    def work(session: Session) -> str:
        session.execute(INSERT, {"name": name})
        return name

    return work
