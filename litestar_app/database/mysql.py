"""MySQL and MariaDB: how their connections are set up, and which tables can be served."""

import contextlib
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from advanced_alchemy.extensions.litestar import EngineConfig
from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from litestar_app.database.backend import Backend
from litestar_app.database.failures import NO_ROOM, Failure
from litestar_app.database.hosts import READ_ONLY, Hosts, check_ready
from litestar_app.database.limits import Sizes, Timeouts, size_threads
from litestar_app.database.sqlite import raise_for_columns
from litestar_app.exceptions import SettingsError
from litestar_app.models import STUDENTS
from litestar_app.settings import MIN_CONNECTIONS, MYSQLDB, Host, Settings

logger = logging.getLogger("litestar_app")

NO_SUCH_TABLE = {1146}
TOO_LONG_FOR_INDEX = {1071, 1170}  # a VARCHAR of a thousand characters, a TEXT
GENERATED = re.compile("(VIRTUAL|STORED|PERSISTENT) GENERATED")
GIVEN = re.compile(f"auto_increment|DEFAULT_GENERATED|{GENERATED.pattern}")
"""What the server says of a column that has a value without being given one, beside its default."""
MAX_IDLE = 60
"""Seconds after which a connection that nobody has used is replaced.

Less than a server's wait_timeout; and firewalls forget connections, some after four minutes, without a word to anybody.
"""
WAIT_TIMEOUT = 150
"""Seconds after which the server ends a session that does nothing, and releases its locks: of a service that is frozen,
or whose machine is gone. Twice as long as a connection is kept idle."""
WRITE_TIMEOUT = 120
"""Seconds for which the server waits for an export to take its rows; longer than for its client to do so."""
INDEX_TIMEOUT = 3600
"""Seconds that making an index may take, which is minutes for ten million students."""
CONNECT_TIMEOUT = 5
"""Seconds that opening the socket may take."""
TRY_AGAIN = 0.1
"""Seconds between two tries to connect to a server that has given out all connections."""
UNSUPPORTED = {
    "tidb": "TiDB, whose ids do not ascend across its servers, so that an undo could miss entries",
    "vitess": "Vitess, whose ids and locks are those of one shard",
}
"""Servers that speak MySQL's protocol and cannot be used, by a word of their version."""
SETTINGS = {
    "sql_mode": "'TRADITIONAL'",
    "sql_safe_updates": "0",  # or an UPDATE of staged rows is an error, 1175
    "sql_big_selects": "1",  # or max_join_size makes a long list an error, 1104
    "sql_select_limit": "18446744073709551615",  # or a list and an export would end early, without an error
    "completion_type": "0",  # or COMMIT could end the session
    "net_write_timeout": str(WRITE_TIMEOUT),
    "wait_timeout": str(WAIT_TIMEOUT),
}
"""Variables of every session, whatever the server has for others. MySQL 8.0 to 9 and MariaDB have all of them."""

_urgent = threading.local()
"""Whether this thread waits for no connection, in its attribute `is_on`."""


def _wait_for_room(open_connection: Callable[[], Any], seconds: float) -> Any:
    """Open a connection, once the server has one to give."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return open_connection()
        except Exception as error:
            if not error.args or error.args[0] not in NO_ROOM or time.monotonic() > deadline:
                raise
        time.sleep(TRY_AGAIN)


@contextlib.contextmanager
def without_waiting() -> Iterator[None]:
    """Have this thread fail at once when the server has no connection to give."""
    _urgent.is_on = True
    try:
        yield
    finally:
        _urgent.is_on = False


def raise_for_table(engines: Sequence[tuple[Any, ...]], described: Sequence[tuple[Any, ...]]) -> None:
    """Raise SettingsError for tables with these engines, and `students` with these columns, as the server has them."""
    columns = {
        name: (kind, is_nullable == "NO" and default is None and not GIVEN.search(extra), key, extra)
        for name, kind, is_nullable, default, key, extra in described
    }
    problems = [
        f"{table} has the engine {engine}, without transactions: ALTER TABLE {table} ENGINE=InnoDB"
        for table, engine in engines
        if engine != "InnoDB"
    ]
    problems += [
        f"column {name} is generated"
        for name, (*_, extra) in columns.items()
        if GENERATED.search(extra) and name in STUDENTS.columns
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


def has_code(error: Exception, codes: set[int]) -> bool:
    """Tell whether the server has rejected a statement with one of these codes."""
    original = getattr(error, "orig", None)
    return original is not None and original.args[0] in codes


class MySQL(Backend):
    """A server of MySQL or MariaDB, or a cluster of several hosts, which lock rows."""

    has_one_writer = False
    start_failures = frozenset({Failure.CONTENTION, Failure.OUTAGE})

    def __init__(self, settings: Settings, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._workers = settings.workers
        addresses = settings.hosts
        self._hosts = Hosts(addresses, timeouts.probe, timeouts.stable) if len(addresses) > 1 else None
        self.connections = settings.max_database_connections
        """At most; fewer once a server has granted fewer to all workers."""

    def configure_engine(self) -> EngineConfig:
        """Return the options of the engine.

        A statement waits `timeouts.lock` seconds, at least one, for a lock of another session.
        """
        timeouts = self._timeouts
        seconds = str(max(1, round(timeouts.lock)))
        variables = SETTINGS | {"innodb_lock_wait_timeout": seconds, "lock_wait_timeout": seconds}
        return EngineConfig(
            connect_args={
                "charset": "utf8mb4",
                "connect_timeout": CONNECT_TIMEOUT,
                "read_timeout": timeouts.socket,
                "write_timeout": timeouts.socket,
                "init_command": "SET SESSION " + ", ".join(f"{name}={value}" for name, value in variables.items()),
            },
            isolation_level="READ COMMITTED",  # no gap locks, which would make unrelated writes wait for each other
            pool_size=self.connections,
            max_overflow=0,
            pool_timeout=max(1, round(timeouts.ready)),
            pool_pre_ping=True,
            pool_recycle=MAX_IDLE,
            hide_parameters=True,
        )

    def set_up(self, engine: Engine) -> None:
        """Set up the connections of an engine.

        While a server has given out all connections, another one is tried for `timeouts.lock` seconds.
        """
        hosts, patience = self._hosts, self._timeouts.lock

        def connect(dialect: Dialect, _record: object, _arguments: object, given: dict[str, Any]) -> Any:
            if "password" in given:  # mysqlclient has another name for it, and is right about its characters
                given["password"] = given["password"].encode()  # in UTF-8; PyMySQL would encode a text as Latin-1
            if dialect.driver == MYSQLDB:  # pragma: no cover  tests with TEST_MYSQL_SCHEME; it takes whole seconds only
                given |= {name: math.ceil(given[name]) for name in ("read_timeout", "write_timeout")}

            def open_connection() -> Any:
                if hosts is None:
                    return dialect.connect(**given)
                return hosts.connect(lambda **others: dialect.connect(**{**given, **others}))

            return _wait_for_room(open_connection, 0 if getattr(_urgent, "is_on", False) else patience)

        def forget_rows(dbapi_connection: Any, _record: object, _error: object) -> None:
            """Keep PyMySQL from reading the rest of a result when it is deleted after its socket, which would fail."""
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

    def check_server(self, connection: Connection) -> None:
        """Raise SettingsError for a server that speaks MySQL's protocol and gives less than this service needs."""
        versions = " ".join(map(str, connection.exec_driver_sql("SELECT VERSION(), @@version_comment").one())).lower()
        for word, what in UNSUPPORTED.items():
            if word in versions:
                raise SettingsError(f"it is {what}; expected MySQL 8.0.22 or newer, or MariaDB 10.6 or newer")
        limits = connection.exec_driver_sql("SELECT @@max_user_connections, @@max_connections").one()
        self._fit(int(min(limit for limit in limits if limit > 0)))

    def _fit(self, granted: int) -> None:
        """Use no more connections than the server grants the workers of this service, if they are the only ones."""
        fitting = max(MIN_CONNECTIONS, granted // self._workers)
        if fitting >= self.connections:
            return
        if size_threads(fitting) != size_threads(self.connections):
            reason = (
                "The database server grants %s connections: this process uses %s, not %s (MAX_DATABASE_CONNECTIONS)"
            )
            logger.warning(reason, granted, fitting, self.connections)
        self.connections = fitting

    def check_table(self, connection: Connection) -> None:
        """Raise SettingsError for a `students` table that cannot be served as it is."""
        engines = connection.exec_driver_sql(
            "SELECT table_name, engine FROM information_schema.tables "
            "WHERE table_schema = DATABASE() AND table_name IN ('students', 'idempotency_keys', 'history', 'imports')"
        ).all()
        columns = connection.exec_driver_sql(
            "SELECT column_name, column_type, is_nullable, column_default, column_key, extra "
            "FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'students'"
        ).all()
        raise_for_table([tuple(row) for row in engines], [tuple(row) for row in columns])

    def may_change_rows(self, connection: Connection) -> bool:
        """Tell whether the `students` table has triggers, which may store something else than what is written."""
        statement = (
            "SELECT COUNT(*) FROM information_schema.triggers "
            "WHERE event_object_schema = DATABASE() AND event_object_table = 'students'"
        )
        return bool(connection.exec_driver_sql(statement).scalar())

    @contextlib.contextmanager
    def create_index(self, connection: Connection) -> Iterator[None]:
        """Let the server work for an hour before it counts as hung; mysqlclient cannot be told any more."""
        dbapi_connection: Any = connection.connection.dbapi_connection
        usual = getattr(dbapi_connection, "_read_timeout", None)
        dbapi_connection._read_timeout = INDEX_TIMEOUT  # noqa: SLF001  PyMySQL has no other way
        try:
            yield
        finally:
            dbapi_connection._read_timeout = usual  # noqa: SLF001

    def is_impossible_index(self, error: Exception) -> bool:
        """Tell whether a column is too long for an index."""
        return has_code(error, TOO_LONG_FOR_INDEX)

    def is_missing_table(self, error: Exception) -> bool:
        """Tell whether the table of a statement is missing; the server checks the rights to it first."""
        return has_code(error, NO_SUCH_TABLE)

    def upgrade_tables(self, connection: Connection) -> None:
        """Make room for responses of more than 64 KB in a table of version 1.0."""
        kind = (
            "SELECT data_type FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND table_name = 'idempotency_keys' AND column_name = 'answer'"
        )
        if connection.exec_driver_sql(kind).scalar() == "text":
            connection.exec_driver_sql("ALTER TABLE idempotency_keys MODIFY answer MEDIUMTEXT NOT NULL")

    def open(self, engine: Engine) -> None:
        """Begin to probe the hosts."""
        del engine
        if self._hosts is not None:
            self._hosts.open()

    def close(self) -> None:
        """Stop probing the hosts."""
        if self._hosts is not None:
            self._hosts.close()

    @property
    def sizes(self) -> Sizes:
        """The threads that the connections suffice for, but the one that probes the hosts."""
        return size_threads(self.connections - (self._hosts is not None))

    @property
    def host(self) -> Host | None:
        """The host in use, if there are several."""
        return None if self._hosts is None else self._hosts.current

    def is_stale(self, dbapi_connection: Any, last_used: float) -> bool:
        """Tell whether a connection has been idle for too long, or belongs to another host."""
        is_idle = time.monotonic() - last_used > MAX_IDLE
        return is_idle or (self._hosts is not None and not self._hosts.is_current(dbapi_connection))

    def set_up_writer(self, connection: Connection) -> None:
        """Have a statement wait a second for a lock, the least there is: others of its group wait with it.

        Past SQLAlchemy, which would begin a transaction that the session then does not commit.
        """
        with contextlib.closing(cast("DBAPIConnection", connection.connection.dbapi_connection).cursor()) as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout=1, lock_wait_timeout=1")

    def interrupt(self, dbapi_connection: Any, engine: Engine) -> None:
        """Kill the session of a connection, from another one; it may block."""
        # all connections may be in use
        with contextlib.suppress(DBAPIError, PoolTimeoutError), without_waiting(), engine.connect() as other:
            host, _ = cast("Any", other.connection.dbapi_connection).session
            if host == dbapi_connection.session[0]:  # else its number is somebody else's there
                other.exec_driver_sql(f"KILL {dbapi_connection.session[1]}")

    def check_writable(self, dbapi_connection: Any) -> None:
        """Raise what a write would fail with on a server that is read-only, or not to be used for another reason.

        A user with the right to do so writes on one that is read-only for others.
        """
        try:
            check_ready(dbapi_connection)
        except Exception as error:
            if error.args[:1] != (READ_ONLY,):
                raise
            with dbapi_connection.cursor() as cursor:
                cursor.execute("UPDATE students SET cgpa = cgpa WHERE 1 = 0")
