"""The engine: how SQLite and MySQL are set up, and how the database is made ready at the start."""

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from advanced_alchemy.extensions.litestar import EngineConfig, SQLAlchemySyncConfig
from advanced_alchemy.extensions.litestar.plugins.init.config.sync import default_handler_maker
from litestar.types import Message, Scope
from sqlalchemy import Connection, Dialect, Engine, Select, event, inspect, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.schema import CreateTable

from litestar_app.models import Student
from litestar_app.settings import Settings, SettingsError


class FileReplacedError(Exception):
    """The file of SQLite that is open is no longer the one that has its name."""


START_SECONDS = 10.0
"""How long a start waits for the database to answer."""
LOCK_SECONDS = 5
"""How long a statement waits for a lock that somebody else holds."""
CONNECTIONS = 8
"""Connections, and so worker threads, of one process."""
SQLITE_LOCKED = {5, 6}
"""SQLite's result codes for a lock that somebody else holds."""
MYSQL_REFUSED = {1044, 1045, 1049, 1054, 1142, 1698}
"""MySQL's codes for no right, no such database and no such column: they do not pass by themselves."""

SQLITE = EngineConfig(
    # None: BEGIN is ours to say, see _begin_sqlite_transaction
    connect_args={"isolation_level": None, "timeout": LOCK_SECONDS},
    pool_size=CONNECTIONS,
)
MYSQL = EngineConfig(
    connect_args={
        "charset": "utf8mb4",
        "connect_timeout": 5,
        "read_timeout": 10,
        "write_timeout": 10,
        "init_command": f"SET SESSION sql_mode='TRADITIONAL', innodb_lock_wait_timeout={LOCK_SECONDS}",
    },
    isolation_level="READ COMMITTED",  # no locks on gaps, which would make strangers wait for each other
    pool_size=CONNECTIONS,
    pool_pre_ping=True,
    pool_recycle=1800,
)


def create_alchemy_config(settings: Settings) -> SQLAlchemySyncConfig:
    """Configure advanced-alchemy's plugin, which owns the engine, the sessions and the `database` commands."""
    sqlite = settings.url.get_backend_name() == "sqlite"
    config = SQLAlchemySyncConfig(
        connection_string=settings.url.render_as_string(hide_password=False),
        engine_config=SQLITE if sqlite else MYSQL,
        set_default_exception_handler=False,  # it answers 409 to a lost connection
        enable_touch_updated_timestamp_listener=False,
        enable_file_object_listener=False,
    )
    close = default_handler_maker(config.session_scope_key)

    async def close_session(message: Message, scope: Scope) -> None:
        close(message, scope)

    config.before_send_handler = close_session  # AA's own is sync, and Litestar takes it to a thread twice a response
    try:
        engine = config.get_engine()
    except (SQLAlchemyError, TypeError, ValueError) as error:
        raise SettingsError(f"DATABASE_URL cannot be used: {error}") from None
    if sqlite:
        event.listen(engine, "do_connect", _refuse_to_replace(str(settings.url.database)))
        event.listen(engine, "connect", _prepare_sqlite_connection)
        event.listen(engine, "begin", _begin_sqlite_transaction)
    else:
        event.listen(engine, "do_connect", _prepare_mysql_connection)
    return config


def check_database(settings: Settings) -> None:
    """Prepare the database and let go of it again; raise SettingsError as `prepare_database` does."""
    engine = create_alchemy_config(settings).get_engine()
    prepare_database(engine)
    engine.dispose()


def prepare_database(engine: Engine) -> None:
    """Wait for the database, create the tables that it lacks, and see that ours has its columns.

    Safe when several processes start at once.

    Raises:
        SettingsError: no answer within `START_SECONDS`, no right to it, or a `students` table that is not ours.

    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with engine.begin() as connection:
                for table in Student.metadata.sorted_tables:
                    if not inspect(connection).has_table(table.name):
                        connection.execute(CreateTable(table, if_not_exists=True))
                connection.execute(select(Student.__table__).limit(0))
        except (SQLAlchemyError, TypeError, ValueError) as error:  # the last two: a driver's, for a part of the URL
            if not _may_pass(error) or time.monotonic() > deadline:
                url = engine.url.render_as_string()  # without the password
                reason = getattr(error, "orig", None) or error
                raise SettingsError(f"DATABASE_URL (or MYSQL_*) {url} cannot be used: {reason}") from None
            time.sleep(0.2)
        else:
            return


def _may_pass(error: Exception) -> bool:
    if not isinstance(error, OperationalError | InterfaceError) or error.orig is None:
        return False
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in SQLITE_LOCKED
    return error.orig.args[0] not in MYSQL_REFUSED


class Reader:
    """Runs statements that only read, each on a connection that its thread keeps.

    Taking a connection from the pool, asking whether it is alive and giving it back costs more than the query does.
    In autocommit every statement sees what is committed by then.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sqlite = engine.dialect.name == "sqlite"
        self._driver_error = engine.dialect.loaded_dbapi.Error
        self._local = threading.local()
        self._kept: set[Connection] = set()
        self._plans: dict[Select[Any], tuple[str, Mapping[str, object], Sequence[str] | None]] = {}

    def fetch(self, statement: Select[Any], values: Mapping[str, object]) -> Sequence[Any]:
        """Return all rows; a connection that turns out to be lost is replaced, once, since a read can be repeated."""
        try:
            return self._execute(statement, values)
        except (DBAPIError, FileReplacedError):
            if not self._connection().invalidated:
                raise
        self._forget()
        return self._execute(statement, values)

    def close(self) -> None:
        """Close what the threads have kept, so that SQLite folds its log back into the one file."""
        for connection in self._kept:
            connection.close()

    def _execute(self, statement: Select[Any], values: Mapping[str, object]) -> Sequence[Any]:
        connection = self._connection()
        if self._sqlite:
            _check_file(connection)
        with contextlib.suppress(self._driver_error):  # SQLAlchemy's own way says it in its own terms
            return self._execute_at_once(connection, statement, values)
        return connection.execute(statement, values).all()

    def _execute_at_once(
        self, connection: Connection, statement: Select[Any], values: Mapping[str, object]
    ) -> Sequence[Any]:
        """Hand the statement that SQLAlchemy has made to the driver; the way through it takes much longer."""
        if (plan := self._plans.get(statement)) is None:
            compiled = statement.compile(connection)
            plan = self._plans[statement] = str(compiled), compiled.params, compiled.positiontup
        sql, defaults, positions = plan
        parameters = {**defaults, **values}
        cursor = cast("DBAPIConnection", connection.connection.dbapi_connection).cursor()
        try:
            cursor.execute(sql, [parameters[name] for name in positions] if positions else parameters)
            return cursor.fetchall()
        finally:
            cursor.close()

    def _connection(self) -> Connection:
        try:
            return cast("Connection", self._local.connection)
        except AttributeError:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()
            if self._sqlite and _on_event_loop():
                connection.exec_driver_sql("PRAGMA busy_timeout=0")  # waiting is for threads
            self._kept.add(connection)
            self._local.connection = connection
            return connection

    def _forget(self) -> None:
        self._kept.remove(self._local.connection)
        self._local.connection.close()
        del self._local.connection


def _on_event_loop() -> bool:
    return asyncio._get_running_loop() is not None  # noqa: SLF001  documented, and does not raise as the other does


def _prepare_mysql_connection(dialect: Dialect, _record: object, _arguments: object, given: dict[str, Any]) -> None:
    if "password" in given:
        given["password"] = given["password"].encode()  # in UTF-8; PyMySQL would take a text as Latin-1
    pymysql: Any = dialect.loaded_dbapi
    # a table of another program may say DECIMAL for a cgpa
    given["conv"] = {**pymysql.converters.conversions, pymysql.constants.FIELD_TYPE.NEWDECIMAL: float}


def _refuse_to_replace(path: str) -> Callable[..., None]:
    """Make the check that SQLite does not make: a file that is missing later than at the start is not made anew."""
    opened = False

    def check(*_: object) -> None:
        nonlocal opened
        if opened and not os.path.exists(path):  # noqa: PTH110  as _check_file
            raise FileReplacedError(f"{path} has been moved or deleted")
        opened = True

    return check


def _prepare_sqlite_connection(connection: Any, record: ConnectionPoolEntry) -> None:
    ((_, _, path),) = connection.execute("PRAGMA database_list")
    record.info["file"] = path, os.stat(path).st_ino  # noqa: PTH116  as below
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite_transaction(connection: Connection) -> None:
    """Take the lock first, so that what a transaction read still holds when it writes, and no write fails half-way."""
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        _check_file(connection)
        try:
            connection.connection.dbapi_connection.execute("BEGIN IMMEDIATE")  # type: ignore[union-attr]
        except sqlite3.OperationalError as error:
            raise OperationalError("BEGIN IMMEDIATE", None, error) from error


def _check_file(connection: Connection) -> None:
    """See that the connection is to the file that has its name now: what is written to another one is lost."""
    path, inode = connection.info["file"]
    try:
        if os.stat(path).st_ino == inode:  # noqa: PTH116  a Path costs more than the question
            return
    except FileNotFoundError:
        raise FileReplacedError(f"{path} has been moved or deleted") from None
    connection.invalidate()  # the next one opens what has the name now
    raise FileReplacedError(f"{path} has been replaced")
