"""Statements that only read, on a connection that one thread keeps."""

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from sqlalchemy import CompoundSelect, Connection, Delete, Dialect, Engine, Insert, Select, Update
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from litestar_app.database import mysql
from litestar_app.database.failures import Failure, classify, is_lost
from litestar_app.database.hosts import Hosts
from litestar_app.database.sqlite import DatabaseFile, decode_any
from litestar_app.settings import Host

MAX_CHECK_AGE = 0.1
"""Seconds for which the event loop trusts the last look at the database file."""
RETRY_WITHIN = 1.0
"""Seconds within which a read that has lost its connection is retried; later than that the server hangs.

Of several hosts another may have taken over from one that hangs; then it is always retried.
"""


def current_host(hosts: Hosts | None) -> Host | None:
    """Return the host in use, where there are several."""
    return None if hosts is None else hosts.current


def has_hung(began: float, host: Host | None, hosts: Hosts | None) -> bool:
    """Tell whether what has lost its connection took so long that its host hangs, and no other has taken over since."""
    return time.monotonic() - began > RETRY_WITHIN and host == current_host(hosts)


FixedStatement: TypeAlias = Select[Any] | CompoundSelect[Any] | Insert | Update | Delete
"""One of the few that are kept, and so compiled once."""


class CompiledStatement(NamedTuple):
    """A statement as the driver takes it."""

    sql: str
    defaults: Mapping[str, object]
    positions: Sequence[str] | None
    """The order of the values, where the driver takes a sequence; PyMySQL takes a mapping."""


def compile_statement(statement: FixedStatement, dialect: Dialect) -> CompiledStatement:
    """Compile a statement, which is done once for a fixed one."""
    compiled = statement.compile(dialect=dialect)
    return CompiledStatement(str(compiled), compiled.params, compiled.positiontup)


def compile_statements(statements: Iterable[Select[Any]], engine: Engine) -> dict[Select[Any], CompiledStatement]:
    """Compile the fixed statements of a service, once."""
    return {statement: compile_statement(statement, engine.dialect) for statement in statements}


def interrupt(dbapi_connection: Any, engine: Engine) -> None:
    """Stop the statement that another thread runs on a connection of a driver; it may block."""
    # its thread has closed it meanwhile, or all connections are in use
    with contextlib.suppress(sqlite3.ProgrammingError, DBAPIError, PoolTimeoutError):
        if isinstance(dbapi_connection, sqlite3.Connection):
            dbapi_connection.interrupt()
        else:
            with mysql.without_waiting(), engine.connect() as other:
                host, _ = cast("Any", other.connection.dbapi_connection).session
                if host == dbapi_connection.session[0]:  # else its number is somebody else's there
                    other.exec_driver_sql(f"KILL {dbapi_connection.session[1]}")


class Reader:
    """Reads on one connection, in autocommit: each statement sees what is committed by then.

    To take a connection from the pool, ping it and give it back costs more than the query. A fixed statement goes
    to the driver as it was compiled, any other through SQLAlchemy. After a failure the next read connects anew.
    """

    def __init__(
        self,
        engine: Engine,
        compiled: Mapping[Select[Any], CompiledStatement],
        file: DatabaseFile | None = None,
        hosts: Hosts | None = None,
        *,
        waits: bool = True,
    ) -> None:
        """Take the file of SQLite, or the hosts, if several; and whether to wait for a lock on the file."""
        self._engine = engine
        self._compiled = compiled
        self._file = file
        self._hosts = hosts
        self._waits = waits
        self._connection: Connection | None = None
        self._dbapi_connection: Any = None  # SQLAlchemy's connection would connect anew where another thread asks it
        self._is_interrupted = False
        self._last_used = 0.0

    def fetch(self, statement: Select[Any], values: Mapping[str, object]) -> Sequence[Any]:
        """Return all rows; a read is retried once where its connection turns out to be lost."""
        began, self._is_interrupted = time.monotonic(), False
        host = current_host(self._hosts)
        try:
            return self._execute(statement, values)
        except Exception as error:
            if "Could not decode to UTF-8" in str(error):  # of another program
                self._dbapi_connection.text_factory = decode_any
                return self._execute(statement, values)
            if classify(error) is Failure.CONTENTION:  # the connection is whole, and to open another can block
                raise
            self.close()
            if self._is_interrupted or not is_lost(error) or has_hung(began, host, self._hosts):
                raise
        try:
            return self._execute(statement, values)
        except Exception:
            self.close()
            raise

    def check_writable(self) -> None:
        """Raise what a write would fail with at the moment, as far as a server of MySQL tells."""
        try:
            mysql.check_writable((self._connection or self.connect()).connection.dbapi_connection)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection without asking the server for anything."""
        connection, self._connection, self._dbapi_connection = self._connection, None, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def interrupt(self) -> None:
        """Stop the statement that another thread runs on this connection."""
        self._is_interrupted = True
        if self._dbapi_connection is not None:
            interrupt(self._dbapi_connection, self._engine)

    def _execute(self, statement: Select[Any], values: Mapping[str, object]) -> Sequence[Any]:
        if self._file is not None:
            self._file.check(0 if self._waits else MAX_CHECK_AGE)
        elif self._dbapi_connection is not None and (
            mysql.is_idle(self._last_used)
            or (self._hosts is not None and not self._hosts.is_current(self._dbapi_connection))
        ):
            self.close()
        self._last_used = time.monotonic()
        connection = self._connection or self.connect()
        if (compiled := self._compiled.get(statement)) is None:
            return connection.execute(statement, values).all()
        parameters = {**compiled.defaults, **values}
        cursor = cast("DBAPIConnection", connection.connection.dbapi_connection).cursor()
        try:
            positions = compiled.positions
            cursor.execute(compiled.sql, [parameters[name] for name in positions] if positions else parameters)
            return cursor.fetchall()
        finally:
            cursor.close()

    def connect(self, *, autocommit: bool = True, any_text: bool = False) -> Connection:
        """Open the connection, which takes long where the file is locked; the first read does it where nobody has.

        Texts of another program that are not UTF-8 end a statement, unless it is known before that there may be any.
        """
        connection = self._connection = self._engine.connect()
        self._dbapi_connection = connection.connection.dbapi_connection
        if self._file is not None and not any_text:
            self._dbapi_connection.text_factory = str  # a third faster
        if autocommit:
            connection.execution_options(isolation_level="AUTOCOMMIT")
        if not self._waits:
            connection.exec_driver_sql("PRAGMA busy_timeout=0")
        return connection

    def release(self) -> Connection:
        """Leave the connection to the caller."""
        connection, self._connection, self._dbapi_connection = self._connection, None, None
        return cast("Connection", connection)
