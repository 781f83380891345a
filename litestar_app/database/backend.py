"""The backend: every way in which one database differs from the other, behind one class."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from advanced_alchemy.extensions.litestar import EngineConfig
from sqlalchemy import Connection, Engine

from litestar_app.database.failures import Failure
from litestar_app.database.limits import Sizes
from litestar_app.settings import Host

if TYPE_CHECKING:
    from litestar_app.database.reads import Reader

RETRY_WITHIN = 1.0
"""Seconds within which a statement that lost its connection is retried; after that, its server counts as hung."""


class Backend:
    """One kind of database. The methods of this class do nothing; a backend overrides those that it needs."""

    has_one_writer: bool
    """Whether a transaction locks the whole database, so that reads are fast on the event loop."""
    start_failures: frozenset[Failure]
    """Failures that may pass while the service starts."""

    def configure_engine(self) -> EngineConfig:
        """Return the options of the engine."""
        raise NotImplementedError

    def set_up(self, engine: Engine) -> None:
        """Set up the connections and transactions of an engine."""

    def bind_sessions(self, engine: Engine) -> Engine:
        """Return the engine of the plugin's request sessions, which never wait for a writer to read."""
        return engine

    # at start

    def check_server(self, connection: Connection) -> None:
        """Raise SettingsError if the server cannot be used."""

    def check_table(self, connection: Connection) -> None:
        """Raise SettingsError for a `students` table that cannot be served as it is."""

    def may_change_rows(self, connection: Connection) -> bool:
        """Tell whether the table may store a row differently from how it was written."""
        del connection
        return True

    @contextmanager
    def create_index(self, connection: Connection) -> Iterator[None]:
        """Allow an index the time that it takes."""
        del connection
        yield

    def is_impossible_index(self, error: Exception) -> bool:
        """Tell whether the table of another program cannot have this index."""
        del error
        return False

    def is_missing_table(self, error: Exception) -> bool:
        """Tell whether a statement failed only since its table is still to be created."""
        del error
        return False

    def upgrade_tables(self, connection: Connection) -> None:
        """Change the tables of an earlier release."""

    def finish_preparation(self, engine: Engine) -> None:
        """Do the last step of a start, outside a transaction."""

    # while the service runs

    def open(self, engine: Engine) -> None:
        """Begin to watch the database."""

    def close(self) -> None:
        """Stop watching."""

    @property
    def sizes(self) -> Sizes:
        """The number of threads for each kind of work."""
        raise NotImplementedError

    @property
    def host(self) -> Host | None:
        """The host in use, if there are several."""
        return None

    def has_hung(self, began: float, host: Host | None) -> bool:
        """Tell whether a lost connection means a hung server; not if another host has taken over since."""
        return time.monotonic() - began > RETRY_WITHIN and host == self.host

    def check(self, max_age: float = 0) -> None:
        """Raise if the database is not the one that was opened; trust the last look for `max_age` seconds."""

    def is_stale(self, dbapi_connection: Any, last_used: float) -> bool:
        """Tell whether to replace a connection that a thread has kept."""
        del dbapi_connection, last_used
        return False

    def set_up_reader(self, connection: Connection, *, any_text: bool, waits: bool) -> None:
        """Set up a connection that only reads, as `Reader.connect` describes."""

    def set_up_writer(self, connection: Connection) -> None:
        """Set up a connection that a writing thread keeps."""

    def accept_any_text(self, error: Exception, dbapi_connection: Any) -> bool:
        """Prepare to read text that is not UTF-8, if that was the error; tell whether it was."""
        del error, dbapi_connection
        return False

    def interrupt(self, dbapi_connection: Any, engine: Engine) -> None:
        """Stop the statement that another thread runs on a connection; it may block."""
        raise NotImplementedError

    def check_writable(self, dbapi_connection: Any) -> None:
        """Raise the error that a write would fail with now, if the database tells."""

    def rewrite(self, reader: "Reader") -> bool:
        """Write the database anew, so that nothing is left of deleted rows; False if a lock prevents it."""
        del reader
        return True
