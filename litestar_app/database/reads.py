"""Statements that only read, on a connection that one thread keeps."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from sqlalchemy import CompoundSelect, Connection, Delete, Dialect, Engine, Insert, Select, Update
from sqlalchemy.engine.interfaces import DBAPIConnection

from litestar_app.database.backend import Backend
from litestar_app.database.failures import Failure, classify, is_lost

MAX_CHECK_AGE = 0.1
"""Seconds for which the event loop trusts the last look at the database file."""

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


class Reader:
    """Reads on one connection, in autocommit: each statement sees what is committed by then.

    To take a connection from the pool, ping it and give it back costs more than the query. A fixed statement goes
    to the driver as it was compiled, any other through SQLAlchemy. After a failure the next read connects anew.
    """

    def __init__(
        self,
        engine: Engine,
        compiled: Mapping[Select[Any], CompiledStatement],
        backend: Backend,
        *,
        waits: bool = True,
    ) -> None:
        """Take the statements compiled so far, and whether to wait for a lock on the file of SQLite."""
        self._engine = engine
        self._compiled = compiled
        self._backend = backend
        self._waits = waits
        self._connection: Connection | None = None
        self._dbapi_connection: Any = None  # SQLAlchemy's connection would connect anew where another thread asks it
        self._is_interrupted = False
        self._last_used = 0.0

    def fetch(self, statement: Select[Any], values: Mapping[str, object]) -> Sequence[Any]:
        """Return all rows; a read is retried once where its connection turns out to be lost."""
        began, self._is_interrupted = time.monotonic(), False
        host = self._backend.host
        try:
            return self._execute(statement, values)
        except Exception as error:
            if self._backend.accept_any_text(error, self._dbapi_connection):
                return self._execute(statement, values)
            if classify(error) is Failure.CONTENTION:  # the connection is whole, and to open another can block
                raise
            self.close()
            if self._is_interrupted or not is_lost(error) or self._backend.has_hung(began, host):
                raise
        try:
            return self._execute(statement, values)
        except Exception:
            self.close()
            raise

    def check_writable(self) -> None:
        """Raise the error that a write would fail with now, if the database tells."""
        try:
            self._backend.check_writable((self._connection or self.connect()).connection.dbapi_connection)
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
            self._backend.interrupt(self._dbapi_connection, self._engine)

    def _execute(self, statement: Select[Any], values: Mapping[str, object]) -> Sequence[Any]:
        self._backend.check(0 if self._waits else MAX_CHECK_AGE)
        if self._dbapi_connection is not None and self._backend.is_stale(self._dbapi_connection, self._last_used):
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
        if autocommit:
            connection.execution_options(isolation_level="AUTOCOMMIT")
        self._backend.set_up_reader(connection, any_text=any_text, waits=self._waits)
        return connection

    def release(self) -> Connection:
        """Leave the connection to the caller."""
        connection, self._connection, self._dbapi_connection = self._connection, None, None
        return cast("Connection", connection)
