"""Every error code of SQLite, MySQL and MariaDB that means something to this service: what it is, and what follows."""

import re
import sqlite3
from enum import Enum
from typing import NoReturn

from advanced_alchemy.exceptions import (
    DuplicateKeyError,
    ForeignKeyError,
    IntegrityError,
    MultipleResultsFoundError,
    NotFoundError,
)
from advanced_alchemy.exceptions import RepositoryError as AlchemyRepositoryError
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from litestar_app import metrics
from litestar_app.exceptions import (
    CommitUnknownError,
    ConstraintError,
    DatabaseFileError,
    DatabaseUnavailableError,
    QueueTimeoutError,
    RepositoryError,
    RetryTransactionError,
    StudentRecordsError,
    UnsupportedValueError,
)


class Failure(Enum):
    """What an error of the database is."""

    CONTENTION = "another transaction is in the way: the unit of work is retried"
    OUTAGE = "the database is full, busy, read-only, unreachable or restarting: 503; a start waits for it"
    REFUSED = "a right, a table, a column or a setting is in the way: the start fails; a running service responds 503"
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

REPOSITORY: dict[type[Exception], tuple[int, str]] = {
    NotFoundError: (404, "There is no such record"),
    MultipleResultsFoundError: (409, "Several records match, and one was expected"),
    DuplicateKeyError: (409, "There is such a record already"),
    ForeignKeyError: (409, "The record refers to one that does not exist, or another one refers to it"),
    IntegrityError: (409, ConstraintError.summary),
}
"""Of advanced-alchemy's repositories: the status of a response, and what it says."""
NOT_THERE = re.compile("no such (table|column)|has no column named")
"""What SQLite says of a table or a column that is missing; it has no code for that."""
NO_ROOM = {1040, 1203, 1226}
"""Codes of a server that has given out all connections: of its own, or of the account."""
MYSQL = {
    **dict.fromkeys([
        1205,  # lock wait timeout
        1213, 3058, 3132,  # deadlock; a Galera cluster reports it at COMMIT too
        1020,  # the row has changed since it was read
        1412,  # the table has changed since the transaction began
        3572,  # the lock of a row, for a statement that does not wait
        3101,  # Group Replication has rolled back what was to be committed
        1050, 1061,  # another process has just created this table or index
    ], Failure.CONTENTION),
    **dict.fromkeys([
        1053, 1080, 1927, 3168, 3169, 4031, 4081, 4082,  # the server ends, or has ended the connection
        1042, 1043, 1129, *range(1152, 1162), 1184,  # network; also a packet above max_allowed_packet, 1153
        *NO_ROOM, 1037, 1038, 1041, 1135, 1206, 1637, 3015, 3044, 3170, 3950, 3985,  # out of threads, memory or locks
        1047,  # a cluster node without quorum
        3781, 3782, 3796, 3797, 3798, 4094,  # Group Replication elects a primary, or waits for its members
        1015, 1016, 1021, 1024, 1026, 1030, 1114, 1180, 1810, 1811, 1878, 3019, 3675,  # disk full, or its errors
        1467,  # no ids left
        1036, 1290, 1792, 1836, 1874, 1881, 3032, 3989, 4049,  # read-only, offline
        1105, 1197, 1598, 1705, 3100, 3230, 3231,  # COMMIT failed: too large for a cluster or for the binary log
        1028, 1317, 1931, 1969, 3024, 3699,  # interrupted
    ], Failure.OUTAGE),
    **dict.fromkeys([
        1044, 1045, 1130, 1142, 1143, 1227, 1698, 1820, 1862, 3118, 3159, 3955, 4150, 4151,  # access
        1251, 1524, 2049, 2054, 2059, 2061,  # a way to log in that the server or the driver does not have
        1046, 1049, 1054, 1146,  # no such database, table or column
        1104, 1175, 1193, 1267, 1270, 1271, 1665, 3057, 3899,  # settings, of the server or of a table
    ], Failure.REFUSED),
    **dict.fromkeys([
        1022, 1062, 1169, 1557, 1586, 1761, 1762, 1859,  # unique
        1048, 1364, 3673,  # not null, no default
        1216, 1217, 1451, 1452, 3008,  # foreign key
        1369, 1526, 1644, 1748, 3819, 4025,  # CHECK, of a view too; no partition; SIGNAL of a trigger
    ], Failure.CONSTRAINT),
    **dict.fromkeys([
        1138, 1263, 1264, 1265, 1292, 1300, 1365, 1366, 1367, 1406, 1411, 1416, 1441, 1525, 1690, 1916, 1917, 1918,
        3155, 3156, 3752, 3854, 3903, 3904, 3907, 3988,
    ], Failure.VALUE),
    **dict.fromkeys([
        1064, 1065, 1149,  # syntax
        1052, 1055, 1056, 1057, 1058, 1066, 1093, 1096, 1110, 1111, 1136, 1137, 1140, 1210, 1222, 1241, 1242, 1247,
        1248, 1250, 1582, 1583,  # a statement that no server understands, whatever its tables and settings
    ], Failure.DEFECT),
}  # fmt: skip
"""Codes of MySQL and MariaDB. What is not here follows the rules of `_classify_code`."""
NO_SQL_NUMBER = "can not be used with MySQL"
"""What both drivers say of an infinity or a NaN, without a code."""
NO_SQLITE_INTEGER = "too large to convert to SQLite INTEGER"
"""What Python's driver says of an integer over 64 bits; it is no error of the database."""

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
MYSQL_LOST = {0, 1047, 1053, 1080, *range(1152, 1162), 1184, 1317, 1927, 2006, 2013, 2014, 2055, 3169, 4031, 4081, 4082}
"""Codes after which the connection cannot be used any more. 1317: MySQL reports a KILL of the connection by it too."""
OF_ONE_STATEMENT = {
    1021, 1024, 1026, 1028, 1030, 1105, 1114, 1153, 1180, 1197, 1206, 1317, 1467, 1598, 1705, 1810, 1811, 1878, 1931,
    1969, 3019, 3024, 3100, 3230, 3231, 3675, 3699,
}  # fmt: skip
"""Codes of outages in which another statement may succeed: a full disk or table, an interrupt, too much at once."""
FILE_ERRORS = range(1, 1000)
"""Codes of files and of the storage engine, such as 3 for a full disk."""
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
        if NOT_THERE.search(str(original)):
            return Failure.REFUSED
        return SQLITE.get(_sqlite_code(original), Failure.DEFECT)
    is_closed = isinstance(original, InvalidRequestError) and str(original) == CLOSED_AGAIN
    if is_closed or isinstance(original, (PoolTimeoutError, OSError)):  # no free connection; a socket, or the file
        return Failure.OUTAGE
    is_too_large = isinstance(original, OverflowError) and NO_SQLITE_INTEGER in str(original)
    if is_too_large or (NO_SQL_NUMBER in str(original) and type(original).__module__ in MYSQL_MODULES):
        return Failure.VALUE
    code = _mysql_code(original)
    return Failure.DEFECT if code is None else _classify_code(code)


def _classify_code(code: int) -> Failure:
    """Classify a code of MySQL or MariaDB, of the server or of the driver.

    What the table does not have is decided by who reports it. A driver has no connection, or not any more; a file or
    the storage engine fails. Anything else is refused by the server: by a right, a table or a column that is missing or
    has changed, or by a setting. The statements are tested; so a code that is not known is not a defect of theirs.
    """
    if code in MYSQL:
        return MYSQL[code]
    return Failure.OUTAGE if code == 0 or code in FILE_ERRORS or code in CLIENT_ERRORS else Failure.REFUSED


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
    code = _mysql_code(original)
    return code is not None and (code in OF_ONE_STATEMENT or code in FILE_ERRORS)


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
                raise DatabaseUnavailableError(_get_reason(error)) from error
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


def translate_error(error: Exception, method: str) -> Exception:
    """Return the exception of ours that an error of a session or of a repository amounts to, or the error itself.

    Where a write loses its connection, nobody knows what became of it.
    """
    cause = error.__cause__ if isinstance(error, AlchemyRepositoryError) else error
    if cause is None or isinstance(cause, OSError):  # of a file, or of another service
        return _name_repository_error(error)
    if method not in {"GET", "HEAD", "OPTIONS"} and is_lost(cause):
        return CommitUnknownError(unwrap(cause))
    match classify(cause):
        case Failure.CONTENTION | Failure.OUTAGE | Failure.REFUSED:
            return DatabaseUnavailableError(unwrap(cause))
        case Failure.VALUE:
            return UnsupportedValueError()
        case Failure.CONSTRAINT if error is cause:
            return ConstraintError()
    return _name_repository_error(error)


def _name_repository_error(error: Exception) -> Exception:
    return next((RepositoryError(*REPOSITORY[kind]) for kind in type(error).__mro__ if kind in REPOSITORY), error)


def _get_reason(error: BaseException) -> object:
    """Return what a log may say: not the words of a code that is not known, which may be those of a trigger."""
    original = unwrap(error)
    code = _mysql_code(original)
    if code is None or code in MYSQL or _classify_code(code) is not Failure.REFUSED:
        return original
    return f"the database server refuses a statement, with the code {code}"


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
