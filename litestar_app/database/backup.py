"""Copies of an SQLite database, made and restored while other processes use it."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from litestar_app.database.config import create_alchemy_config
from litestar_app.database.sqlite import create_private
from litestar_app.exceptions import SettingsError, StudentRecordsError
from litestar_app.settings import Settings

LOCK_TIMEOUT = 30
"""Seconds to wait for a write of another process, such as the merge of a large import."""


class BackupError(StudentRecordsError):
    """A copy of the database cannot be made, or not restored; the message says which file and why."""


def back_up(database: Path, target: Path, *, replaces: bool = False) -> int:
    """Copy the database into a file, which appears when it is complete, checked and on the disk; count its students.

    Only its owner may read it, from its first byte on. It may replace a file of that name.

    Raises:
        BackupError: the database cannot be copied, it is damaged, or there is a file that may not be replaced.

    """
    with _open(database) as source:
        return _save(source, target, database, replaces=replaces)


@contextlib.contextmanager
def prepare_restore(settings: Settings, source: Path) -> Iterator[Path]:
    """Make a copy that `restore` takes, next to the database: checked, and with all that a start of the service adds.

    Raises:
        BackupError: the source is no SQLite database, is damaged or not complete, or its table cannot be served.

    """
    if not source.is_file():  # to open a pipe would wait for whoever writes into it
        raise BackupError(f"{source} is not a regular file")
    database = Path(str(settings.url.database))
    if database.exists() and database.samefile(source):
        raise BackupError(f"{source} is the database itself")
    with TemporaryDirectory(dir=database.parent, prefix=f".{database.name}.") as directory:
        copy = Path(directory, "copy.db")
        # without a log or a journal there is nothing that another process has not written into it yet
        is_whole = not any(source.with_name(f"{source.name}{suffix}").exists() for suffix in ("-wal", "-journal"))
        _check_size(source, is_whole=is_whole)
        with _open(source, options="mode=ro&immutable=1" if is_whole else "mode=ro") as connection:
            _save(connection, copy, source)
        _check_indexes(copy, source)
        with _open(copy, source) as connection:
            connection.executescript("PRAGMA synchronous=OFF; REINDEX")
        url = settings.url.set(database=str(copy)).render_as_string()
        alchemy = create_alchemy_config(msgspec.structs.replace(settings, database_url=url))
        try:
            alchemy.prepare_database()
        except SettingsError as error:
            raise BackupError(f"{source} cannot be restored: {str(error).partition(' cannot be used: ')[2]}") from None
        finally:
            alchemy.get_engine().dispose()
        yield copy


def restore(database: Path, copy: Path, lock_timeout: float = LOCK_TIMEOUT) -> Path | None:
    """Make the content of the database that of a prepared copy; return where the former content is, if there was any.

    It is one transaction, so that other processes see either content, and no write is lost between the two: what is
    kept is what is replaced. An id that was given since the copy was made is not given again.

    Raises:
        BackupError: another process writes for too long, or the database itself is damaged; it is as it was.

    """
    is_new = not database.exists()
    kept: list[Path] = []
    create_private(str(database))
    with _open(database) as target, _open(copy, database) as source, _open(database) as former:
        if not is_new:
            target.execute("PRAGMA journal_mode=WAL")  # as the service does; else the lock would keep out `former` too
            ((page_size,),) = target.execute("PRAGMA page_size")
            if source.execute("PRAGMA page_size").fetchone() != (page_size,):
                # that of a file with a write-ahead log cannot be changed
                source.executescript(f"PRAGMA journal_mode=DELETE; PRAGMA page_size={page_size}; VACUUM")
        ((pages,),) = source.execute("PRAGMA page_count")

        def keep_former(status: int, remaining: int, _total: int) -> None:
            """Between the two steps of the copying the lock is held, and nobody sees the new content yet."""
            if status not in {sqlite3.SQLITE_OK, sqlite3.SQLITE_DONE}:
                raise BackupError(f"{database} is locked: another process writes")
            if remaining and not is_new:
                _carry_over(source, former)
                kept.append(_name_kept(database))
                _save(former, kept[0])

        target.execute("PRAGMA synchronous=FULL")
        target.execute(f"PRAGMA busy_timeout={round(lock_timeout * 1000)}")
        source.backup(target, pages=-(-pages // 2), progress=keep_former)
        target.execute("PRAGMA busy_timeout=0")
        # else the next write of the service would pay for it; the log is cut only where nobody reads it
        target.executescript("PRAGMA wal_checkpoint(PASSIVE); PRAGMA wal_checkpoint(TRUNCATE)")
    return kept[0] if kept else None


def _name_kept(database: Path) -> Path:
    """Name a file that does not exist yet by the time of now."""
    first = f"{database.name}.before-restore-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    names = (database.with_name(name) for name in chain([first], (f"{first}-{number}" for number in count(2))))
    return next(name for name in names if not name.exists())


def _carry_over(source: sqlite3.Connection, former: sqlite3.Connection) -> None:
    """Have no id given again, and no API key that was revoked since the copy was made be valid again."""
    tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
    known, given = ({name for (name,) in connection.execute(tables)} for connection in (source, former))
    sequences: dict[str, int] = {}
    if "students" in given:  # of the tutorial, it has no sequence
        sequences |= former.execute("SELECT 'students', coalesce(max(id), 0) FROM students")
    if "sqlite_sequence" in given:
        for name, seq in former.execute("SELECT name, seq FROM sqlite_sequence"):
            sequences[name] = max(seq, sequences.get(name, 0))
    with source:
        source.execute("BEGIN")
        if "sqlite_sequence" in known:
            for name in sequences.keys() & known:
                sequence = "SELECT max(coalesce(max(seq), 0), ?) FROM sqlite_sequence WHERE name = ?"
                ((seq,),) = source.execute(sequence, [sequences[name], name])
                source.execute("DELETE FROM sqlite_sequence WHERE name = ?", [name])
                source.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", [name, seq])
        if "api_keys" in given:
            columns = ", ".join(name for _, name, *_ in former.execute("PRAGMA table_info(api_keys)"))
            rows = former.execute(f"SELECT {columns} FROM api_keys").fetchall()  # noqa: S608  names of columns
            places = ", ".join("?" * len(columns.split(", ")))
            source.executemany(f"INSERT OR REPLACE INTO api_keys ({columns}) VALUES ({places})", rows)  # noqa: S608


def _save(source: sqlite3.Connection, target: Path, checked: Path | None = None, *, replaces: bool = False) -> int:
    """Copy to a file; where the name of what is copied is given, see that it is whole, and count its students."""
    with TemporaryDirectory(dir=target.absolute().parent, prefix=f".{target.name}.") as directory:
        part = Path(directory, "part.db")
        create_private(str(part))
        with _open(part, checked or target) as connection:
            connection.execute("PRAGMA synchronous=OFF")  # synced once, below
            source.backup(connection)
            connection.execute("PRAGMA journal_mode=DELETE")  # or it could not be read where nothing can be written
            students = _check(connection, checked) if checked else 0
        _sync(part)
        _name(part, target, replaces=replaces)
    _sync(target.absolute().parent)
    return students


def _name(part: Path, target: Path, *, replaces: bool) -> None:
    """Give a complete file its name, which no other file may have got meanwhile unless it may be replaced.

    Raises:
        BackupError: there is another one.

    """
    try:
        if not replaces:
            try:
                os.link(part, target)
            except FileExistsError:
                raise
            except OSError:  # a file system without links: take the name by an empty file
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                replaces = True
        if replaces:
            part.replace(target)
    except FileExistsError:
        raise BackupError(f"{target} has appeared meanwhile and was left alone") from None


HEADER = b"SQLite format 3\0"


def _check_size(file: Path, *, is_whole: bool) -> None:
    """Raise BackupError unless a database is as long as its header says; SQLite takes one that lacks some bytes.

    With a log or a journal beside it, it need only consist of whole pages. What is no database at all, SQLite tells.
    """
    with file.open("rb") as opened:
        header, size = opened.read(100), os.fstat(opened.fileno()).st_size
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    if not header.startswith(HEADER) or not page_size:
        return
    pages = int.from_bytes(header[28:32], "big")
    if not is_whole or not pages or header[24:28] != header[92:96]:  # the last two: of a SQLite before 3.7
        pages = -(-size // page_size)
    if size < pages * page_size:
        raise BackupError(f"{file} is not complete: it has {size} of {pages * page_size} bytes")
    if size > pages * page_size:
        raise BackupError(f"{file} is damaged: {size - pages * page_size} bytes follow its last page")


def _check(connection: sqlite3.Connection, name: Path) -> int:
    """Check all pages, and count the students; to look up each row in each index too takes seventy times as long."""
    ((first,), *_) = connection.execute("PRAGMA quick_check")
    if first != "ok":
        raise BackupError(f"{name} is damaged: {' '.join(first.split())}")
    ((students,),) = connection.execute("SELECT count(*) FROM students")
    return int(students)


def _check_indexes(file: Path, name: Path) -> None:
    """Look up each row in each index, before these are made anew: so a value shows that has changed on a disk."""
    with _open(file, name) as connection:
        ((first,), *_) = connection.execute("PRAGMA integrity_check(1)")
    if first != "ok":
        raise BackupError(f"{name} is damaged: {' '.join(first.split())}")


@contextlib.contextmanager
def _open(path: Path, name: Path | None = None, options: str = "mode=rw") -> Iterator[sqlite3.Connection]:
    """Open a file that exists, in autocommit, until the end of the block; what fails there is said of it, or of a name.

    Raises:
        BackupError: any error of SQLite.

    """
    try:
        uri = f"{path.absolute().as_uri()}?{options}"
        connection = sqlite3.connect(uri, timeout=LOCK_TIMEOUT, isolation_level=None, uri=True)
        with contextlib.closing(connection):
            yield connection
    except sqlite3.Error as error:
        raise BackupError(f"{name or path}: {error}") from error


def _sync(path: Path) -> None:
    """Have the disk write a file, or the names in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
