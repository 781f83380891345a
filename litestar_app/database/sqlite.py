"""SQLite: how its connections are set up, which tables can be served, and the file under a running service."""

import contextlib
import logging
import math
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from advanced_alchemy.extensions.litestar import EngineConfig
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from litestar_app.database.backend import Backend
from litestar_app.database.failures import Failure, classify
from litestar_app.database.limits import POOL_SIZE, THREADS, TRANSFERS, Sizes, Timeouts
from litestar_app.exceptions import DatabaseFileError, DatabaseUnavailableError, SettingsError
from litestar_app.models import STUDENTS

if TYPE_CHECKING:
    from litestar_app.database.reads import Reader

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger("litestar_app")


CHECKPOINT_PAGES = 4000
"""Pages of the write-ahead log, 16 MB, after which they are written into the file. Each write changes a page of each
index, and many writes the same ones, so that fewer checkpoints write much less."""
MAX_LOG = 64 * 1024 * 1024
"""Bytes to which the log is cut by the first write after a checkpoint. Else that of a large import, as large as what it
changes, would stay until the service stops."""
MAX_CHECKPOINTS = 10
"""How often a checkpoint is tried that a reader or a writer keeps from being complete."""


DEFERRED = "sqlite_begin_deferred"
"""Execution option of transactions that take the write lock when they first write. One that has read before fails then
if another has written meanwhile, as SQLite says at once: what it has read does not hold any more."""


class DatabaseFile:
    """The file that this process has open, and its write-ahead log.

    SQLite finds both by name, so a file that is moved, replaced or deleted under a running process loses writes, and a
    backup that is put in its place is destroyed: SQLite replays the old log onto it. Once either is not the one that
    was opened, every use of the database is refused until a restart. The log is then folded into the file that was
    opened, and moved out of the way of the file that has its name now.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._real_path = path
        self._opened: list[tuple[int, int] | None] = []
        self._anchor: Connection | None = None
        self._is_lost = threading.Lock()
        self._is_pending = False
        """Whether the log is still to be folded into the file after both were parted."""
        self._checked = -math.inf

    @property
    def _log(self) -> str:
        return f"{self._real_path}-wal"

    @property
    def _index(self) -> str:
        return f"{self._real_path}-shm"

    @property
    def _log_aside(self) -> str:
        return name_aside(self._log, self._opened[1])

    @property
    def _index_aside(self) -> str:
        return name_aside(self._index, self._opened[2])

    def open(self, engine: Engine) -> None:
        """Keep a connection open, so that nobody deletes the log by closing the last one, and remember both files.

        Raises:
            SettingsError: the files cannot be looked at.

        """
        self._anchor = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._anchor.exec_driver_sql("SELECT id FROM students LIMIT 1").all()  # creates the log
        real_path = self._anchor.exec_driver_sql("SELECT file FROM pragma_database_list WHERE name = 'main'").scalar()
        self._real_path = str(real_path)
        try:
            self._opened = self._identify_all()
        except OSError as error:
            raise SettingsError(f"DATABASE_URL {self.path} cannot be used: {error}") from None

    def close(self) -> None:
        """Close the connection; the last one folds the log back into the file, but not into one that was moved."""
        if self._anchor is not None:
            with contextlib.suppress(DatabaseUnavailableError):
                self.check()
            if self._is_pending and self._save_log("PASSIVE"):
                logger.warning("%s: the file that was open now holds everything that was stored", self.path)
            self._anchor.close()
            self._anchor = None
        self._opened = []

    def check(self, max_age: float = 0) -> None:
        """Raise DatabaseFileError once the file or its log is not the one that was opened.

        To look costs as much as to read a student; a look not older than `max_age` seconds counts.

        Raises:
            DatabaseFileError: from then on, always.
            DatabaseUnavailableError: nobody can tell, for a reason that may pass, such as a missing permission.

        """
        now = time.monotonic()
        if not self._opened or now < self._checked + max_age:
            return
        try:
            is_lost = self._is_lost.locked() or self._opened != self._identify_all()
        except OSError as error:
            self._checked = -math.inf
            raise DatabaseUnavailableError(f"the database file cannot be looked at: {error}") from error
        if is_lost:
            self._checked = -math.inf
            if self._is_lost.acquire(blocking=False):
                self._report()
            raise DatabaseFileError(f"{self.path}, its -wal or its -shm is not the file that was opened")
        self._checked = now

    def _identify_all(self) -> list[tuple[int, int] | None]:
        return [identify(path) for path in (self.path, self._log, self._index)]

    def _report(self) -> None:
        """Save what the log holds, move the log aside if another file has its name, and log what is left to do."""
        logger.error(
            "%s, its -wal or its -shm was moved, replaced or deleted under the service, which responds 503 now: %s",
            self.path,
            self._rescue(),
        )

    def _rescue(self) -> str:
        """Return what was done, and what is left to do."""
        try:
            is_in_place = identify(self._real_path) == self._opened[0]
            log = identify(self._log)
        except OSError as error:
            return f"nothing was done about it ({error}); stop it, and see which of these files are there"
        if is_in_place:
            return self._rescue_in_place(log)
        self._is_pending = not self._save_log("TRUNCATE")
        try:
            self._move_aside()
            done = [self._describe_content()]
        except OSError as error:
            return (
                f"its -wal could not be moved aside ({error}) and would destroy another file of that name: let no "
                "program open one, stop the service, move -wal and -shm away, put the right file in place, and start it"
            )
        if names := [name for name in (self._log_aside, self._index_aside) if os.path.exists(name)]:  # noqa: PTH110
            done.append(f"its -wal and -shm would damage another file of that name and are now {' and '.join(names)}")
        return f"{'; '.join(done)}; stop the service, put the right file in place, and start it again"

    def _rescue_in_place(self, log: tuple[int, int] | None) -> str:
        """Save what the log holds while another program may use the file with the log, or the index, there is now."""
        is_own_log = log in {None, self._opened[1]}
        is_saved = is_own_log and self._save_log("PASSIVE")
        self._is_pending = is_own_log and not is_saved
        remedy = "stop it, put the right file in place, remove its -wal and -shm, and start it again"
        if is_saved:
            return remedy
        copy, is_copied = self._make_copy("saved")
        if is_copied:
            return f"{copy}; {remedy}"
        if log == self._opened[1]:
            return f"{copy}; the newest writes are only in its -wal: keep that"
        return f"{copy}; the newest writes are in no file that has a name, and are lost when the service stops"

    def _describe_content(self) -> str:
        """Say where everything is that was stored: in a copy, if the file was deleted or a transaction still reads."""
        if self._opened[0] and count_names(self._opened[0]) == 0:
            return f"it was deleted, and {self._make_copy('deleted')[0]}"
        if self._is_pending:
            copy, is_copied = self._make_copy("saved")
            return copy if is_copied else f"{copy}; the newest writes are only in {self._log_aside}: keep that"
        return "the file that was open holds everything that was stored"

    def _make_copy(self, suffix: str) -> tuple[str, bool]:
        """Copy everything that was stored to a file of its own; describe that, and tell whether it is done."""
        copy = f"{self._real_path}.{suffix}-{self._opened[0][1] if self._opened[0] else 0}"
        try:
            with lock_directory(os.path.dirname(copy)):  # noqa: PTH120
                if os.path.exists(copy):  # noqa: PTH110  of another process, or of an earlier event, and older then
                    copy = f"{copy}-{time.time_ns()}"
                self._copy(copy)
        except (OSError, sqlite3.Error) as error:
            return f"what it held could not be copied to {copy} ({error})", False
        return f"{copy} holds everything that was stored", True

    def _copy(self, target: str) -> None:
        part = f"{target}.part"
        create_private(part)
        source: Any = cast("Connection", self._anchor).connection.dbapi_connection
        try:
            with contextlib.closing(sqlite3.connect(part)) as connection:
                source.backup(connection)
                connection.execute("PRAGMA journal_mode=DELETE")  # or it could be read with the right to write only
            os.rename(part, target)  # noqa: PTH104
        except BaseException:
            os.unlink(part)  # noqa: PTH108
            raise

    def _save_log(self, mode: str) -> bool:
        """Write what the log holds into the file that was opened, wherever both are now; TRUNCATE also empties it.

        Returns whether all of it is there; a transaction that reads may keep the newest writes in the log.
        """
        if self._anchor is None:
            return False
        try:
            self._anchor.exec_driver_sql("PRAGMA busy_timeout=0")  # nobody may wait here
            for _ in range(MAX_CHECKPOINTS):
                _, pages, saved = self._anchor.exec_driver_sql(f"PRAGMA wal_checkpoint({mode})").one()
                if saved == pages:
                    return True
        except SQLAlchemyError as error:
            logger.warning("%s: its -wal could not be written into the file: %s", self.path, error.args[0])
        return False

    def _move_aside(self) -> None:
        """Rename the log and its index while they are ours; the index first, since without the log it misleads.

        Those of another program, which has opened the new file, stay. Processes of this service do it one by one, or
        one could rename what another program has just created.
        """
        with lock_directory(os.path.dirname(self._real_path)):  # noqa: PTH120  a string, as all these
            if self._opened[2] and identify(self._index) == self._opened[2]:
                os.rename(self._index, self._index_aside)  # noqa: PTH104
            if self._opened[1] and identify(self._log) == self._opened[1]:
                os.rename(self._log, self._log_aside)  # noqa: PTH104


def name_aside(path: str, file: tuple[int, int] | None) -> str:
    """Return the name to which a file is moved aside; no other file has it, since it holds the number of the inode."""
    return f"{path}.aside-{file[1] if file else 0}"


def count_names(file: tuple[int, int]) -> int | None:
    """Tell how many names a file has that this process has open; None if the system does not say."""
    with contextlib.suppress(OSError):
        for descriptor in os.listdir("/dev/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):  # closed meanwhile
                status = os.fstat(int(descriptor))
                if (status.st_dev, status.st_ino) == file:
                    return status.st_nlink
    return None


@contextlib.contextmanager
def lock_directory(path: str) -> Iterator[None]:
    """Keep out other processes of this service, where the system can."""
    if sys.platform == "win32":  # where files that are open cannot be renamed anyway
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without such locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def create_private(path: str) -> None:
    """Create a file that only its owner may read, as its -wal and -shm then are, where there is none yet.

    What keeps it from being created, SQLite reports when it opens it. One that exists is not even opened: to close it
    would release the locks that this process has on it.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(os.path.realpath(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def decode_any(text: bytes) -> str:
    """Decode a text of another program, which need not be UTF-8."""
    return text.decode(errors="replace")


def identify(path: str) -> tuple[int, int] | None:
    """Tell which file has a name now; None if there is none; OSError if nobody can tell."""
    try:
        status = os.stat(path)  # noqa: PTH116  a Path costs more than the question
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


AFFINITIES = {
    "name": ("CHAR", "CLOB", "TEXT"),
    "department": ("CHAR", "CLOB", "TEXT"),
    "cgpa": ("REAL", "FLOA", "DOUB"),
}
"""What the type of a column must contain for SQLite to keep texts as text and numbers as doubles."""


def raise_for_columns(required: dict[str, Any], problems: list[str]) -> None:
    """Raise SettingsError where a table exists, but lacks columns of ours, or needs values for others."""
    ours = STUDENTS.columns.keys()
    if required:
        problems += [f"column {name} is missing" for name in ours if name not in required]
        problems += [f"column {name} needs a value" for name in required if required[name] and name not in ours]
    if problems:
        raise SettingsError(f"its table students does not fit: {'; '.join(problems)}")


class SQLite(Backend):
    """A file, which one transaction at a time writes."""

    has_one_writer = True
    start_failures = frozenset({Failure.CONTENTION})

    def __init__(self, path: str, timeouts: Timeouts) -> None:
        self.file = DatabaseFile(path)
        self._timeouts = timeouts

    def configure_engine(self) -> EngineConfig:
        """Return the options of the engine; a statement waits `timeouts.lock` seconds for another process."""
        return EngineConfig(
            # None: BEGIN is not left to the driver, see begin_immediate
            connect_args={"isolation_level": None, "timeout": self._timeouts.lock},
            pool_size=POOL_SIZE,
            hide_parameters=True,
        )

    def set_up(self, engine: Engine) -> None:
        """Set up the connections and transactions of an engine."""
        file = self.file

        def set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
            for pragma in (
                "synchronous=FULL",
                "secure_delete=ON",
                "foreign_keys=ON",
                f"wal_autocheckpoint={CHECKPOINT_PAGES}",
                f"journal_size_limit={MAX_LOG}",
            ):
                connection.execute(f"PRAGMA {pragma}")
            connection.text_factory = decode_any

        def begin_immediate(connection: Connection) -> None:
            """Take the write lock first, so that what a transaction has read still holds when it writes."""
            options = connection.get_execution_options()
            if options.get("isolation_level") != "AUTOCOMMIT":
                file.check()
                begin = "BEGIN" if options.get(DEFERRED) else "BEGIN IMMEDIATE"
                connection.connection.dbapi_connection.execute(begin)  # type: ignore[union-attr]

        def check_file(connection: Connection) -> None:
            """See that what a session of somebody's own commits goes to the file that has the name."""
            if connection.get_execution_options().get(DEFERRED):
                file.check()

        def prepare_file(*_: object) -> None:
            file.check()
            create_private(file.path)

        event.listen(engine, "do_connect", prepare_file)
        event.listen(engine, "connect", set_pragmas)
        event.listen(engine, "begin", begin_immediate)
        event.listen(engine, "commit", check_file)

    def bind_sessions(self, engine: Engine) -> Engine:
        """Return an engine whose transactions take the write lock when they first write."""
        return engine.execution_options(**{DEFERRED: True})

    def check_table(self, connection: Connection) -> None:
        """Raise SettingsError for a `students` table that cannot be served as it is."""
        rows = connection.exec_driver_sql("PRAGMA table_info(students)").all()
        columns = {
            name: (kind.upper(), is_required and default is None, key)
            for _, name, kind, is_required, default, key in rows
        }
        problems = [
            f"column {name} is {columns[name][0] or 'without a type'}; expected one with "
            f"{' or '.join(kinds)} in its type"
            for name, kinds in AFFINITIES.items()
            if name in columns and not any(kind in columns[name][0] for kind in kinds)
        ]
        if "id" in columns and (columns["id"][0] != "INTEGER" or [key for *_, key in columns.values() if key] != [1]):
            problems.append("column id is not INTEGER PRIMARY KEY")
        raise_for_columns({name: required for name, (_, required, _) in columns.items()}, problems)

    def finish_preparation(self, engine: Engine) -> None:
        """Switch the file to write-ahead logging, which stays: readers and the writer do not wait for each other."""
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if (mode := connection.exec_driver_sql("PRAGMA journal_mode=WAL").scalar()) != "wal":
                raise SettingsError(f"SQLite cannot use a write-ahead log there, its journal_mode stays {mode!r}")

    def open(self, engine: Engine) -> None:
        """Note which file the name belongs to."""
        self.file.open(engine)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    @property
    def sizes(self) -> Sizes:
        """All threads, since a connection costs nothing."""
        return Sizes(THREADS, TRANSFERS)

    def check(self, max_age: float = 0) -> None:
        """Raise DatabaseFileError if the file is not the one that was opened."""
        self.file.check(max_age)

    def set_up_reader(self, connection: Connection, *, any_text: bool, waits: bool) -> None:
        """Decode strictly, which is a third faster, and perhaps fail at a lock instead of waiting."""
        if not any_text:
            cast("Any", connection.connection.dbapi_connection).text_factory = str
        if not waits:
            connection.exec_driver_sql("PRAGMA busy_timeout=0")

    def accept_any_text(self, error: Exception, dbapi_connection: Any) -> bool:
        """Prepare to read text of another program that is not UTF-8, if that was the error."""
        if "Could not decode to UTF-8" not in str(error):
            return False
        dbapi_connection.text_factory = decode_any
        return True

    def interrupt(self, dbapi_connection: Any, engine: Engine) -> None:
        """Stop the statement that another thread runs on a connection."""
        del engine
        with contextlib.suppress(sqlite3.ProgrammingError):  # its thread has closed it meanwhile
            dbapi_connection.interrupt()

    def rewrite(self, reader: "Reader") -> bool:
        """Write the file anew and empty its log; False if a lock, a reader of the log or a full disk prevents it.

        `secure_delete` leaves copies in pages whose rows have moved. Other writers wait meanwhile.
        """
        try:
            connection = reader.connect()
            connection.exec_driver_sql("VACUUM")
            return connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar() == 0
        except DBAPIError as error:
            if classify(error) not in {Failure.CONTENTION, Failure.OUTAGE}:
                raise
            return False
        finally:
            reader.close()
