"""The database without the service in front of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from litestar_app.database.config import AlchemyConfig, Timeouts, create_alchemy_config
from litestar_app.database.writes import Transactions
from litestar_app.settings import Settings


@contextmanager
def prepare(database_url: str, timeouts: Timeouts | None = None) -> Iterator[AlchemyConfig]:
    """Prepare a database as a start does; close its connections at the end of the block."""
    alchemy = create_alchemy_config(Settings(database_url=database_url), timeouts)
    try:
        alchemy.prepare_database()
        yield alchemy
    finally:
        alchemy.get_engine().dispose()


def make_transactions(alchemy: AlchemyConfig) -> Transactions:
    """Make what one thread writes with."""
    sessions = cast("Any", alchemy.create_session_maker())
    return Transactions(sessions, alchemy.get_engine(), alchemy.timeouts.lock, alchemy.file)
