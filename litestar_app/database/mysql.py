"""MySQL and MariaDB: how their connections are set up, and which tables can be served."""

import contextlib
import math
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

from advanced_alchemy.extensions.litestar import EngineConfig
from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

from litestar_app.database.hosts import Hosts
from litestar_app.database.sqlite import raise_for_columns
from litestar_app.settings import MYSQLDB, Host

NO_SUCH_TABLE = {1146}
TOO_LONG_FOR_INDEX = {1071, 1170}  # a VARCHAR of a thousand characters, a TEXT
MAX_IDLE = 60
"""Seconds after which a connection that nobody has used is replaced.

Less than a server's wait_timeout; and firewalls forget connections, some after four minutes, without a word to anybody.
"""
WRITE_TIMEOUT = 120
"""Seconds for which the server waits for an export to take its rows; longer than for its client to do so."""
INDEX_TIMEOUT = 3600
"""Seconds that making an index may take, which is minutes for ten million students."""
CONNECT_TIMEOUT = 5
"""Seconds that opening the socket may take."""


def engine_config(pool_size: int, lock_timeout: float, socket_timeout: float) -> EngineConfig:
    """Configure the engine; a statement waits `lock_timeout` seconds, at least one, for a lock of another session."""
    seconds = max(1, round(lock_timeout))
    return EngineConfig(
        connect_args={
            "charset": "utf8mb4",
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": socket_timeout,
            "write_timeout": socket_timeout,
            "init_command": "SET SESSION sql_mode='TRADITIONAL', "
            f"innodb_lock_wait_timeout={seconds}, lock_wait_timeout={seconds}, net_write_timeout={WRITE_TIMEOUT}",
        },
        isolation_level="READ COMMITTED",  # no gap locks, which would make unrelated writes wait for each other
        pool_size=pool_size,
        pool_pre_ping=True,
        pool_recycle=MAX_IDLE,
        hide_parameters=True,
    )


def set_up(engine: Engine, addresses: Sequence[Host], interval: float, stable_after: float) -> Hosts | None:
    """Set up every connection of an engine; return the hosts where there are several."""
    hosts = Hosts(addresses, interval, stable_after) if len(addresses) > 1 else None

    def connect(dialect: Dialect, _record: object, _arguments: object, given: dict[str, Any]) -> Any:
        if "password" in given:  # mysqlclient has another name for it, and is right about its characters
            given["password"] = given["password"].encode()  # in UTF-8; PyMySQL would encode a text as Latin-1
        if dialect.driver == MYSQLDB:  # pragma: no cover  tests with TEST_MYSQL_SCHEME; it takes whole seconds only
            given |= {name: math.ceil(given[name]) for name in ("read_timeout", "write_timeout")}
        if hosts is None:
            return None
        return hosts.connect(lambda **others: dialect.connect(**{**given, **others}))

    def forget_rows(dbapi_connection: Any, _record: object, _error: object) -> None:
        """Keep PyMySQL from reading the rest of a result, and failing, when the result is deleted after its socket."""
        if (result := getattr(dbapi_connection, "_result", None)) is not None:
            result.unbuffered_active = False

    def note_session(dbapi_connection: Any, _record: object) -> None:
        """Note what to KILL, and where: mysqlclient does not tell another thread while the connection is in use."""
        dbapi_connection.session = (
            (getattr(dbapi_connection, "host", None), getattr(dbapi_connection, "port", None)),
            dbapi_connection.thread_id(),
        )

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", note_session)
    event.listen(engine, "invalidate", forget_rows)
    if hosts is not None:
        event.listen(engine, "checkout", lambda dbapi_connection, _record, _proxy: hosts.check(dbapi_connection))
    return hosts


@contextlib.contextmanager
def wait_longer(connection: Connection, seconds: float) -> Iterator[None]:
    """Let the server work for longer on a statement before it counts as hung; mysqlclient cannot be told any more."""
    dbapi_connection: Any = connection.connection.dbapi_connection
    usual = getattr(dbapi_connection, "_read_timeout", None)
    dbapi_connection._read_timeout = seconds  # noqa: SLF001  PyMySQL has no other way
    try:
        yield
    finally:
        dbapi_connection._read_timeout = usual  # noqa: SLF001


def is_idle(last_used: float) -> bool:
    """Tell whether a connection has not been used for too long, by the monotonic clock."""
    return time.monotonic() - last_used > MAX_IDLE


def shorten_lock_wait(connection: Connection) -> None:
    """Have a statement wait a second for a lock, the least there is: others of its group wait with it.

    Past SQLAlchemy, which would begin a transaction that the session then does not commit.
    """
    with contextlib.closing(cast("DBAPIConnection", connection.connection.dbapi_connection).cursor()) as cursor:
        cursor.execute("SET SESSION innodb_lock_wait_timeout=1, lock_wait_timeout=1")


def check_table(connection: Connection) -> None:
    """Raise SettingsError for a `students` table that cannot be served as it is."""
    engines = connection.exec_driver_sql(
        "SELECT table_name, engine FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name IN ('students', 'idempotency_keys', 'history', 'imports')"
    ).all()
    columns = {
        name: (kind, is_nullable == "NO" and default is None and "auto_increment" not in extra, key, extra)
        for name, kind, is_nullable, default, key, extra in connection.exec_driver_sql(
            "SELECT column_name, column_type, is_nullable, column_default, column_key, extra "
            "FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'students'"
        )
    }
    problems = [
        f"{table} has the engine {engine}, without transactions: ALTER TABLE {table} ENGINE=InnoDB"
        for table, engine in engines
        if engine != "InnoDB"
    ]
    problems += [
        f"column {name} is generated"
        for name, (*_, extra) in columns.items()
        if re.search("(VIRTUAL|STORED|PERSISTENT) GENERATED", extra) and name in {"name", "department", "cgpa"}
    ]
    problems += [
        f"column {name} is {columns[name][0].upper()}; expected VARCHAR or TEXT"
        for name in ("name", "department")
        if name in columns and not re.match(r"(var)?char\(|(tiny|medium|long)?text", columns[name][0])
    ]
    if "cgpa" in columns and columns["cgpa"][0] != "double":
        problems.append(f"column cgpa is {columns['cgpa'][0].upper()}: ALTER TABLE students MODIFY cgpa DOUBLE")
    if "id" in columns:
        kind, _, key, extra = columns["id"]
        if not re.match(r"(tiny|small|medium|big)?int\b", kind) or key not in {"PRI", "UNI"}:
            problems.append(f"column id is {kind.upper()}; expected a unique integer")
        if "auto_increment" not in extra:
            problems.append("column id has no AUTO_INCREMENT")
    raise_for_columns({name: required for name, (_, required, *_) in columns.items()}, problems)


def has_triggers(connection: Connection) -> bool:
    """Tell whether the `students` table has triggers, which may store something else than what is written."""
    statement = (
        "SELECT COUNT(*) FROM information_schema.triggers "
        "WHERE event_object_schema = DATABASE() AND event_object_table = 'students'"
    )
    return bool(connection.exec_driver_sql(statement).scalar())


def has_code(error: Exception, codes: set[int]) -> bool:
    """Tell whether the server has rejected a statement with one of these codes."""
    original = getattr(error, "orig", None)
    return original is not None and original.args[0] in codes


def widen_answers(connection: Connection) -> None:
    """Make room for long reports in a table of version 1.0, where a response of more than 64 KB was not to be kept."""
    kind = (
        "SELECT data_type FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND table_name = 'idempotency_keys' AND column_name = 'answer'"
    )
    if connection.exec_driver_sql(kind).scalar() == "text":
        connection.exec_driver_sql("ALTER TABLE idempotency_keys MODIFY answer MEDIUMTEXT NOT NULL")
