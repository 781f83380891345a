"""SQLite: how its connections are set up, which tables can be served, and the file under a running service."""

import contextlib
import logging
import math
import os
import sqlite3
import threading
import time
from typing import Any

from advanced_alchemy.extensions.litestar import EngineConfig
from sqlalchemy import Connection, Engine, event

from litestar_app.exceptions import DatabaseFileError, SettingsError

logger = logging.getLogger("litestar_app")


def engine_config(pool_size: int, lock_timeout: float) -> EngineConfig:
    """Configure the engine; a statement waits `lock_timeout` seconds for a lock of another process."""
    return EngineConfig(
        # None: BEGIN is not left to the driver, see begin_immediate
        connect_args={"isolation_level": None, "timeout": lock_timeout},
        pool_size=pool_size,
        hide_parameters=True,
    )


CHECKPOINT_PAGES = 4000
"""Pages of the write-ahead log, 16 MB, after which they are written into the file. Each write changes a page of each
index, and many writes the same ones, so that fewer checkpoints write much less."""
MAX_LOG = 64 * 1024 * 1024
"""Bytes to which the log is cut by the first write after a checkpoint. Else that of a large import, as large as what it
changes, would stay until the service stops."""
MAX_CHECKPOINTS = 10
"""How often a checkpoint is tried that a reader or a writer keeps from being complete."""


class DatabaseFile:
    """The file that this process has open, and its write-ahead log.

    SQLite finds both by name, so a file that is moved, replaced or deleted under a running process loses writes, and a
    backup that is put in its place is destroyed: SQLite replays the old log onto it. Once either is not the one that
    was opened, every use of the database is refused until a restart.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._log = ""
        self._opened: list[tuple[int, int] | None] = []
        self._anchor: Connection | None = None
        self._is_lost = threading.Lock()
        self._checked = -math.inf

    def open(self, engine: Engine) -> None:
        """Keep a connection open, so that nobody deletes the log by closing the last one, and remember both files."""
        self._anchor = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._anchor.exec_driver_sql("SELECT id FROM students LIMIT 1").all()  # creates the log
        real_path = self._anchor.exec_driver_sql("SELECT file FROM pragma_database_list WHERE name = 'main'").scalar()
        self._log = f"{real_path}-wal"
        self._opened = self._identify_all()

    def close(self) -> None:
        """Close the connection; the last one folds the log back into the file, but not into one that was moved."""
        if self._anchor is not None:
            if self._opened and self._opened != self._identify_all():
                self._save_log()
            self._anchor.close()
            self._anchor = None
        self._opened = []

    def check(self, max_age: float = 0) -> None:
        """Raise DatabaseFileError once the file or its log is not the one that was opened.

        To look costs as much as to read a student; a look not older than `max_age` seconds counts.
        """
        now = time.monotonic()
        if not self._opened or now < self._checked + max_age:
            return
        if self._is_lost.locked() or self._opened != self._identify_all():
            self._checked = -math.inf
            if self._is_lost.acquire(blocking=False):
                self._report()
            raise DatabaseFileError(f"{self.path}, its -wal or its -shm is not the file that was opened")
        self._checked = now

    def _identify_all(self) -> list[tuple[int, int] | None]:
        return [identify(path) for path in (self.path, self._log, self._log.removesuffix("-wal") + "-shm")]

    def _save_log(self) -> None:
        """Write what the log holds into the file that was opened, wherever both are now, so that neither is needed."""
        if self._anchor is not None and identify(self._log) in {None, self._opened[1]}:
            for _ in range(MAX_CHECKPOINTS):
                _, pages, saved = self._anchor.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").one()
                if saved == pages:
                    return

    def _report(self) -> None:
        self._save_log()
        logger.error(
            "%s, its -wal or its -shm was moved, replaced or deleted under the service, which responds 503 now: "
            "stop it, put the right file in place, remove its -wal and -shm, and start it again",
            self.path,
        )


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
    """Tell which file has a name now; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116  a Path costs more than the question
    except OSError:
        return None
    return status.st_dev, status.st_ino


def set_up(engine: Engine, file: DatabaseFile) -> None:
    """Set up every connection and every transaction of an engine."""

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
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            file.check()
            connection.connection.dbapi_connection.execute("BEGIN IMMEDIATE")  # type: ignore[union-attr]

    def prepare_file(*_: object) -> None:
        file.check()
        create_private(file.path)

    event.listen(engine, "do_connect", prepare_file)
    event.listen(engine, "connect", set_pragmas)
    event.listen(engine, "begin", begin_immediate)


AFFINITIES = {
    "name": ("CHAR", "CLOB", "TEXT"),
    "department": ("CHAR", "CLOB", "TEXT"),
    "cgpa": ("REAL", "FLOA", "DOUB"),
}
"""What the type of a column must contain for SQLite to keep texts as text and numbers as doubles."""


def check_table(connection: Connection) -> None:
    """Raise SettingsError for a `students` table that cannot be served as it is."""
    rows = connection.exec_driver_sql("PRAGMA table_info(students)").all()
    columns = {
        name: (kind.upper(), is_required and default is None, key) for _, name, kind, is_required, default, key in rows
    }
    problems = [
        f"column {name} is {columns[name][0] or 'without a type'}; expected one with {' or '.join(kinds)} in its type"
        for name, kinds in AFFINITIES.items()
        if name in columns and not any(kind in columns[name][0] for kind in kinds)
    ]
    if "id" in columns and (columns["id"][0] != "INTEGER" or [key for *_, key in columns.values() if key] != [1]):
        problems.append("column id is not INTEGER PRIMARY KEY")
    raise_for_columns({name: required for name, (_, required, _) in columns.items()}, problems)


def enable_wal(engine: Engine) -> None:
    """Switch the file to write-ahead logging, which stays: readers and the writer do not wait for each other."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if (mode := connection.exec_driver_sql("PRAGMA journal_mode=WAL").scalar()) != "wal":
            raise SettingsError(f"SQLite cannot use a write-ahead log there, its journal_mode stays {mode!r}")


def raise_for_columns(required: dict[str, Any], problems: list[str]) -> None:
    """Raise SettingsError where a table exists, but lacks columns of ours, or needs values for others."""
    ours = ["id", "name", "department", "cgpa"]
    if required:
        problems += [f"column {name} is missing" for name in ours if name not in required]
        problems += [f"column {name} needs a value" for name in required if required[name] and name not in ours]
    if problems:
        raise SettingsError(f"its table students does not fit: {'; '.join(problems)}")
