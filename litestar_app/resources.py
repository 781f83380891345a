"""What the system itself may refuse a request: open files, memory, threads, room for temporary files."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from threading import Lock

from litestar_app.exceptions import ResourceError

FILES = "The service may open no more files (ulimit -n)"
MEMORY = "The system grants the service no more memory or threads"
TEMPORARY = "The temporary directory (TMPDIR) is full, missing or not writable"
REASONS = {errno.EMFILE: FILES, errno.ENFILE: FILES, errno.ENOMEM: MEMORY}
LATE_IMPORT = Lock()
"""Held while a thread imports a module that few requests need.

An import can fail for want of a file; one that waits for it in another thread would then get half of the module.
"""
NO_THREAD = "can't start new thread"
"""What Python says in a RuntimeError, and nowhere else."""


def find_refusal(error: BaseException | None) -> str | None:
    """Say what the system has refused, if that is what an error comes from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in REASONS:
            return REASONS[error.errno]
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_THREAD in str(error)):
            return MEMORY
        if isinstance(error, sqlite3.Error):
            code = getattr(error, "sqlite_errorcode", 0)
            if code == sqlite3.SQLITE_IOERR_GETTEMPPATH:
                return TEMPORARY
            if code & 0xFF == sqlite3.SQLITE_CANTOPEN:  # of the database or of a temporary file; it does not say why
                return _find_out()
        error = error.__cause__ or error.__context__
    return None


def _find_out() -> str | None:
    """Say why SQLite can open no file; None if the reason is the database file itself."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return REASONS.get(error.errno or 0)
    try:
        TemporaryFile().close()
    except OSError:
        return TEMPORARY
    return None


@contextmanager
def using_temporary_files() -> Iterator[None]:
    """Raise ResourceError for an OSError in a block that needs temporary files."""
    try:
        yield
    except OSError as error:
        raise ResourceError(find_refusal(error) or TEMPORARY) from error
