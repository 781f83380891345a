"""Every error code of SQLite, MySQL and MariaDB that means something to this service: what it is, and what follows."""

import sqlite3
from enum import Enum
from typing import NoReturn

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from litestar_app import metrics
from litestar_app.exceptions import (
    CommitUnknownError,
    ConstraintError,
    DatabaseFileError,
    DatabaseUnavailableError,
    QueueTimeoutError,
    RetryTransactionError,
    StudentRecordsError,
    UnsupportedValueError,
)


class Failure(Enum):
    """What an error of the database is."""

    CONTENTION = "another transaction is in the way: the unit of work is run again"
    OUTAGE = "the database is full, unreachable or restarting: 503, and at start it is waited for"
    REFUSED = "no right, no such database: the start fails; a service that runs responds 503"
    CONSTRAINT = "a constraint is violated: 409"
    VALUE = "a value does not fit its column: 422"
    DEFECT = "anything else: 500"


SQLITE = {
    **dict.fromkeys([
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED,
    ], Failure.CONTENTION),
    **dict.fromkeys([
        sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL,
    ], Failure.OUTAGE),
    **dict.fromkeys([
        sqlite3.SQLITE_PERM, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB,
    ], Failure.REFUSED),
    sqlite3.SQLITE_CONSTRAINT: Failure.CONSTRAINT,
    sqlite3.SQLITE_TOOBIG: Failure.VALUE,
}  # fmt: skip
"""Primary result codes."""

MYSQL = {
    **dict.fromkeys([
        1205,  # lock wait timeout
        1213,  # deadlock; a Galera cluster says it at COMMIT too
        1020,  # the row has changed since it was read
        3572,  # the lock of a row, for a statement that does not wait
        3100, 3101,  # Group Replication has rolled back what was to be committed
        1050, 1061,  # another process has just created this table or index
    ], Failure.CONTENTION),
    **dict.fromkeys([
        0, 2002, 2003, 2005, 2006, 2013, 2014, 2026, 2055, 1053, 1927, 3169, 4031,  # no connection, or not any more
        1037, 1038, 1040, 1041, 1135, 1203, 1206, 1226, 1637,  # out of connections, threads, memory or locks
        1047,  # a cluster node without quorum
        3, 1021, 1026, 1030, 1114, 1180,  # disk full
        167, 1467,  # no ids left
        1129, 1152, 1158, 1159, 1160, 1161,  # network
        1290, 1792, 1836, 3032,  # read-only, offline
        1105, 1598,  # COMMIT has failed: a transaction is too large for a cluster, or the binary log
        1317, 1969, 3024,  # interrupted
    ], Failure.OUTAGE),
    **dict.fromkeys([
        1044, 1045, 1130, 1142, 1143, 1227, 1251, 1698, 1820, 1862, 2054, 2059, 2061, 3118, 3159, 4151,  # access
        1049, 1146,  # no such database, no such table
    ], Failure.REFUSED),
    **dict.fromkeys([
        1062, 1048, 1364, 1216, 1217, 1451, 1452,  # unique, not null, no default, foreign key
        1526, 1644, 3819, 4025,  # no partition, SIGNAL of a trigger, CHECK of MySQL and of MariaDB
    ], Failure.CONSTRAINT),
    **dict.fromkeys([1264, 1265, 1292, 1365, 1366, 1406, 1690], Failure.VALUE),
}  # fmt: skip
"""Codes of the server (below 2000, and from 3000 on) and of the client library."""

OURS: dict[type[BaseException], str] = {
    CommitUnknownError: "commit_unknown",
    QueueTimeoutError: "queue_timeout",
    DatabaseFileError: "file_replaced",
}
"""What counts as a failure beside those of the drivers."""

for name in (*(failure.name.lower() for failure in Failure), *OURS.values()):
    metrics.ERRORS.labels(name)  # so that each is there from the start, as 0

CLOSED_AGAIN = "This connection is closed"
"""What SQLAlchemy's pool says where the database host has changed twice while a connection was taken."""
MYSQL_MODULES = {"pymysql.err", "MySQLdb", "MySQLdb._exceptions"}
"""Where the drivers have their exceptions."""
MYSQL_LOST = {0, 1047, 1053, 1927, 2006, 2013, 2014, 2055, 3169, 4031}
"""Codes after which the connection cannot be used any more."""
OF_ONE_STATEMENT = {3, 167, 1021, 1026, 1030, 1105, 1114, 1180, 1206, 1317, 1467, 1598, 1969, 3024}
"""Codes of outages in which another statement may succeed: a full disk or table, no ids left, an interrupt."""
CLIENT_ERRORS = range(2000, 3000)
"""Codes of the drivers, which know nothing of what the server does meanwhile."""
ERROR_DURING_COMMIT, OF_GALERA = 1180, "provider status"
"""Without these words COMMIT has failed and nothing is stored, as on a full disk.

With them a node of a Galera cluster has lost the others during COMMIT, and they may have got the change just before: of
448 such changes in a trial 8 were stored.
"""


def unwrap(error: BaseException) -> BaseException:
    """Return the driver's error, whether SQLAlchemy has wrapped it or not."""
    return getattr(error, "orig", None) or error


def classify(error: BaseException) -> Failure:
    """Tell what an error is, whether SQLAlchemy has wrapped it or the driver raised it as it is."""
    original = unwrap(error)
    if isinstance(original, RetryTransactionError):
        return Failure.CONTENTION
    if isinstance(original, sqlite3.Error):
        if "no such table" in str(original):  # which has no code of its own
            return Failure.REFUSED
        return SQLITE.get(_sqlite_code(original), Failure.DEFECT)
    is_closed = isinstance(original, InvalidRequestError) and str(original) == CLOSED_AGAIN
    if is_closed or isinstance(original, (PoolTimeoutError, OSError)):  # no free connection; a socket, or the file
        return Failure.OUTAGE
    code = _mysql_code(original)
    return Failure.DEFECT if code is None else MYSQL.get(code, Failure.DEFECT)


def is_lost(error: BaseException) -> bool:
    """Tell whether the connection cannot be used any more, so that nobody knows what became of its COMMIT."""
    original = unwrap(error)
    if isinstance(original, sqlite3.Error):
        return _sqlite_code(original) == sqlite3.SQLITE_IOERR
    return isinstance(original, OSError) or _mysql_code(original) in MYSQL_LOST


def is_of_one_statement(error: BaseException) -> bool:
    """Tell whether others may succeed where this outage has made a statement fail."""
    original = unwrap(error)
    if isinstance(original, sqlite3.Error):
        return _sqlite_code(original) == sqlite3.SQLITE_FULL
    return _mysql_code(original) in OF_ONE_STATEMENT


def raise_translated(error: BaseException) -> NoReturn:
    """Raise the exception of ours that an error of the database amounts to, or the error itself.

    Raises:
        DatabaseUnavailableError: contention that has lasted too long, an outage, or a right that was taken away.
        ConstraintError: a constraint is violated.
        UnsupportedValueError: a value does not fit its column.

    """
    if isinstance(error, RetryTransactionError) or not isinstance(error, StudentRecordsError):
        failure = classify(error)
        metrics.ERRORS.labels(failure.name.lower()).inc()
        match failure:
            case Failure.CONTENTION | Failure.OUTAGE | Failure.REFUSED:
                raise DatabaseUnavailableError(unwrap(error)) from error
            case Failure.CONSTRAINT:
                raise ConstraintError from error
            case Failure.VALUE:
                raise UnsupportedValueError from error
    elif name := OURS.get(type(error)):
        metrics.ERRORS.labels(name).inc()
    try:
        raise error
    finally:
        del error  # or the frames of its traceback, with all that an import holds, would stay until they are collected


def raise_if_commit_unknown(error: BaseException) -> None:
    """Raise CommitUnknownError for an error of COMMIT, unless the database itself says that it has failed."""
    reason = unwrap(error)
    if isinstance(reason, sqlite3.Error):
        has_failed = not is_lost(reason)
    else:
        code = _mysql_code(reason)
        is_galera = code == ERROR_DURING_COMMIT and OF_GALERA in str(reason)
        has_failed = code is not None and code not in MYSQL_LOST and code not in CLIENT_ERRORS and not is_galera
    if not has_failed:
        raise CommitUnknownError(f"COMMIT failed, its outcome is unknown: {reason}") from error


def _sqlite_code(error: sqlite3.Error) -> int:
    """Return the primary result code, or 0 where the error has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _mysql_code(error: object) -> int | None:
    """Return the code of an error of PyMySQL or mysqlclient, without an import of either; 0 where it lost its place."""
    if not isinstance(error, Exception) or type(error).__module__ not in MYSQL_MODULES:
        return None
    if error.args and isinstance(error.args[0], int):
        return error.args[0]
    return 0 if type(error).__name__ in {"Error", "InterfaceError", "InternalError"} else None
