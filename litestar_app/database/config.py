"""advanced-alchemy's plugin, configured: the engine, the sessions, and the tables at start."""

import logging
import sqlite3
import time
from contextlib import nullcontext
from typing import Any, cast

from advanced_alchemy.extensions.litestar import SQLAlchemySyncConfig, SyncSessionConfig
from advanced_alchemy.extensions.litestar.plugins.init.config.sync import default_handler_maker
from litestar import Litestar
from litestar.types import Message, Scope
from msgspec import Struct
from sqlalchemy import Connection, Index, Table, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from litestar_app.database import mysql, sqlite
from litestar_app.database.failures import Failure, classify, unwrap
from litestar_app.database.hosts import Hosts
from litestar_app.database.unit_of_work import UnitOfWork
from litestar_app.exceptions import SettingsError
from litestar_app.models import Student
from litestar_app.settings import MIN_CONNECTIONS, Settings

logger = logging.getLogger("litestar_app")

THREADS = 8
"""Threads that read, and on MySQL as many that write."""
GROUPS = 2
"""Groups of writes that are written at once on MySQL. More share fewer COMMITs; of one, a lock would hold up all."""
SCANNERS = 4
"""Threads for reads that pass many rows."""
TRANSFERS = 4
"""Threads for exports, and as many for imports, which no slow reader of an export holds up."""
SHARE = TRANSFERS // 2
"""Exports, and as many imports, that one caller may have under way, so that others find a thread."""
POOL_SIZE = 2 * THREADS + 2 * (SCANNERS + 2 * TRANSFERS) + 3
"""A connection for each thread and to interrupt the long ones, for the ping, the event loop and the start."""


class Sizes(Struct, frozen=True):
    """How many threads of each kind share the connections; each thread keeps one."""

    short: int
    """That read, and as many that write."""
    long: int
    """That scan, as many that export, and as many that import."""
    has_scanners: bool = True
    """Whether scans have threads of their own; else those that do them do all reads."""
    has_pinger: bool = True
    """Whether the ping has one; else it takes its turn among the short reads."""


ONE_OF_EACH = 5
"""Connections that a reader, a writer, a scan, an export and an import have, one each."""


def size_threads(connections: int) -> Sizes:
    """Share connections among the threads; two more than one of each kind are for the ping and for interrupts.

    Of what is left, short work gets more than long work.
    """
    spare = max(0, connections - ONE_OF_EACH - 2)
    return Sizes(
        short=min(THREADS, 1 + spare // 4),
        long=min(TRANSFERS, 1 + spare // 8),
        has_scanners=connections >= ONE_OF_EACH,
        has_pinger=connections > ONE_OF_EACH,
    )


class Timeouts(Struct, frozen=True):
    """How long the database, or what holds it up, is waited for, in seconds."""

    start: float = 10
    """For a database that does not respond when the service starts."""
    lock: float = 5
    """For a lock that another process or session holds; and how long a unit of work is retried."""
    queue: float = 10
    """For a thread that is free."""
    socket: float = 10
    """For MySQL to respond, after which it counts as hung."""
    probe: float = 1
    """Between two probes of several hosts of MySQL."""
    stable: float = 5
    """For which one of them must be ready before it takes over from another one that is."""
    ready: float = 2
    """For the response to a ping."""
    send: float = 60
    """For a client to take what an export sends, whose snapshot keeps the database from cleaning up."""
    send_rate: float = 50_000
    """Bytes a second that it must take on average, beyond that time: 0.4 Mbit/s."""
    close: float = 10
    """For work that has begun, when the service stops."""


class AlchemyConfig(SQLAlchemySyncConfig):
    """The plugin's configuration, with a start that fails where a table cannot be created or served."""

    timeouts: Timeouts
    file: sqlite.DatabaseFile | None
    hosts: Hosts | None = None
    """Where there are several."""
    connections: int = POOL_SIZE
    """To the database, at most; fewer once a server has granted fewer to all workers."""
    workers: int = 1

    @property
    def is_sqlite(self) -> bool:
        """Tell the databases apart."""
        return self.file is not None

    def create_all_metadata(self, app: Litestar) -> None:
        """Create the missing tables when the application starts; the plugin's own swallows an OperationalError."""
        del app
        self.prepare_database()

    def prepare_database(self) -> None:
        """Wait for the database, create what it lacks, and see that its tables can be served and written.

        Safe when several processes start at once. Nothing is created where it fails.

        Raises:
            SettingsError: no response within `timeouts.start`, no right to it, or a table that cannot be served.

        """
        deadline = time.monotonic() + self.timeouts.start
        waits_for = {Failure.CONTENTION} if self.is_sqlite else {Failure.CONTENTION, Failure.OUTAGE}
        url = self.get_engine().url.render_as_string()  # without the password
        while True:
            try:
                self._prepare_once()
            except SettingsError as error:
                self.get_engine().dispose()
                raise SettingsError(f"DATABASE_URL (or MYSQL_*) {url} cannot be used: {error}") from None
            # the last ones are a driver's, for a part of the URL
            except (SQLAlchemyError, sqlite3.Error, OSError, RuntimeError, TypeError, ValueError) as error:
                if classify(error) not in waits_for or time.monotonic() > deadline:
                    self.get_engine().dispose()
                    reason = str(unwrap(error)).replace("\n", " ")
                    raise SettingsError(f"DATABASE_URL (or MYSQL_*) {url} cannot be used: {reason}") from None
                time.sleep(0.2)
            else:
                return

    def _prepare_once(self) -> None:
        backend = sqlite if self.is_sqlite else mysql
        tables = Student.metadata.sorted_tables
        with self.get_engine().begin() as connection:
            if not self.is_sqlite:
                mysql.check_server(connection)
                self._fit(mysql.read_granted(connection))
            backend.check_table(connection)
            if not self.is_sqlite:  # there a table that is created stays, whatever happens next
                _check_rights(connection, tables)
            for table in tables:
                table.create(connection, checkfirst=True)
                for index in table.indexes:
                    _create_index(connection, index)
            if not self.is_sqlite:
                mysql.widen_answers(connection)
            _check_rights(connection, tables)
            if self.is_sqlite or mysql.has_triggers(connection):
                _check_row(connection)
        if self.is_sqlite:
            sqlite.enable_wal(self.get_engine())

    def _fit(self, granted: int) -> None:
        """Use no more connections than the server grants the workers of this service, if they are the only ones."""
        fitting = max(MIN_CONNECTIONS, granted // self.workers)
        if fitting >= self.connections:
            return
        if size_threads(fitting) != size_threads(self.connections):
            reason = (
                "The database server grants %s connections: this process uses %s, not %s (MAX_DATABASE_CONNECTIONS)"
            )
            logger.warning(reason, granted, fitting, self.connections)
        self.connections = fitting


def _create_index(connection: Connection, index: Index) -> None:
    """Create an index where it is missing and possible; without it, lists in its order are slow."""
    is_sqlite = connection.dialect.name == "sqlite"
    try:
        with nullcontext() if is_sqlite else mysql.wait_longer(connection, mysql.INDEX_TIMEOUT):
            index.create(connection, checkfirst=True)
    except SQLAlchemyError as error:
        if not mysql.has_code(error, mysql.TOO_LONG_FOR_INDEX):
            raise
        logger.warning("index %s is not created, so some lists are slow: %s", index.name, error.args[0])


def _check_rights(connection: Connection, tables: list[Table]) -> None:
    """Run each kind of statement on no row; the server checks the rights first, and only then looks for the table."""
    for table in tables:
        nothing = table.c[0] != table.c[0]
        columns = [column.name for column in table.c]
        for statement in (
            select(table).where(nothing),
            insert(table).from_select(columns, select(table).where(nothing)),
            update(table).where(nothing).values({columns[0]: table.c[0]}),
            delete(table).where(nothing),
        ):
            try:
                connection.execute(statement)
            except SQLAlchemyError as error:
                if not mysql.has_code(error, mysql.NO_SUCH_TABLE):
                    raise


def _check_row(connection: Connection) -> None:
    """Insert a row, update it, delete it and take all of it back; SettingsError where a trigger makes it another."""
    table = cast("Table", Student.__table__)
    given: dict[str, Any] = {"name": "aB é", "department": "cD é", "cgpa": 5.123456789012345}
    changed: dict[str, Any] = {"name": "eF é", "department": "gH é", "cgpa": 5.678901234567891}
    savepoint = connection.begin_nested()
    try:
        inserted = connection.execute(insert(table).values(given)).lastrowid
        this = table.c.id == inserted
        stored = [*connection.execute(select(table).where(this))]
        for values in (changed, {"cgpa": 5.0}):  # the last would be an integer in some columns of SQLite
            connection.execute(update(table).where(this).values(values))
            stored += [*connection.execute(select(table).where(this))]
        expected = [(inserted, *row.values()) for row in (given, changed, changed | {"cgpa": 5.0})]
        if stored != expected or type(stored[2][3]) is not float:
            raise SettingsError("its table students does not fit: a row is not stored as it is given")
        if connection.execute(delete(table).where(this)).rowcount != 1:
            raise SettingsError("its table students does not fit: a row is not deleted")
    except SQLAlchemyError as error:
        if classify(error) not in {Failure.CONSTRAINT, Failure.VALUE}:
            raise
        if "students.id" in str(error):  # any other constraint of another program may well forbid this row
            raise SettingsError("its table students does not fit: the database does not give its ids") from None
    finally:
        savepoint.rollback()


def create_alchemy_config(settings: Settings, timeouts: Timeouts | None = None) -> AlchemyConfig:
    """Configure the plugin, which owns the engine, the sessions, the tables and the `litestar database` commands."""
    timeouts = timeouts or Timeouts()
    is_sqlite = settings.url.get_backend_name() == "sqlite"
    config = AlchemyConfig(
        connection_string=settings.url.render_as_string(hide_password=False),
        engine_config=sqlite.engine_config(POOL_SIZE, timeouts.lock)
        if is_sqlite
        else mysql.engine_config(
            settings.max_database_connections, timeouts.lock, timeouts.socket, pool_timeout=timeouts.ready
        ),
        # its listeners cost a tenth of a write, and nothing here uses what they do
        session_config=SyncSessionConfig(
            class_=UnitOfWork, autoflush=False, expire_on_commit=False, info={"enable_cache_listener": False}
        ),
        enable_touch_updated_timestamp_listener=False,
        enable_file_object_listener=False,
        create_all=True,
        set_default_exception_handler=False,  # it responds 409 to a lost connection
    )
    config.timeouts = timeouts
    close = default_handler_maker(config.session_scope_key)

    async def close_session(message: Message, scope: Scope) -> None:
        close(message, scope)

    config.before_send_handler = close_session  # the plugin's own, not being async, takes two thread hops a response
    config.file = sqlite.DatabaseFile(str(settings.url.database)) if is_sqlite else None
    engine = config.get_engine()
    if config.file is not None:
        sqlite.set_up(engine, config.file)
        # the plugin's own sessions, one for a request that asks for it: they read without waiting for a writer
        config.session_config.bind = engine.execution_options(**{sqlite.DEFERRED: True})
    else:
        config.hosts = mysql.set_up(engine, settings.hosts, timeouts.probe, timeouts.stable, timeouts.lock)
        config.connections, config.workers = settings.max_database_connections, settings.workers
    return config
