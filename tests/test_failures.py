"""What each error of a database is, and what follows from it."""

import asyncio
import sqlite3
import ssl
from contextlib import nullcontext
from typing import Any

import pymysql
import pytest
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from litestar_app.database import failures
from litestar_app.database.failures import Failure, classify, is_lost, raise_if_commit_unknown, raise_translated
from litestar_app.exceptions import (
    CommitUnknownError,
    ConstraintError,
    DatabaseFileError,
    DatabaseUnavailableError,
    RetryTransactionError,
    StudentNotFoundError,
    UnsupportedValueError,
)

SQLITE = {
    Failure.CONTENTION: "BUSY BUSY_SNAPSHOT BUSY_RECOVERY LOCKED LOCKED_SHAREDCACHE",
    Failure.OUTAGE: "NOMEM READONLY READONLY_DBMOVED IOERR IOERR_FSYNC IOERR_WRITE FULL CANTOPEN PROTOCOL",
    Failure.REFUSED: "PERM CORRUPT CORRUPT_VTAB NOTADB",
    Failure.CONSTRAINT: "CONSTRAINT CONSTRAINT_UNIQUE CONSTRAINT_CHECK CONSTRAINT_TRIGGER CONSTRAINT_NOTNULL",
    Failure.VALUE: "TOOBIG",
    Failure.DEFECT: "ERROR SCHEMA MISUSE RANGE MISMATCH",
}
MYSQL = {
    Failure.CONTENTION: [1020, 1050, 1061, 1205, 1213, 3100, 3101, 3572],
    Failure.OUTAGE: [
        0, 3, 167, 1467,
        1021, 1026, 1030, 1037, 1038, 1040, 1041, 1047, 1053, 1114, 1129, 1135, 1152, 1158, 1159, 1160, 1161, 1180,
        1203, 1206, 1226, 1290, 1317, 1637, 1792, 1836, 1927, 1969, 2002, 2003, 2005, 2006, 2013, 2014, 2026, 2055,
        1105, 1598, 3024, 3032, 3169, 4031,
    ],
    Failure.REFUSED: [
        1044, 1045, 1049, 1130, 1142, 1143, 1146, 1227, 1251, 1698, 1820, 1862, 2054, 2059, 2061, 3118, 3159, 4151,
    ],
    Failure.CONSTRAINT: [1048, 1062, 1216, 1217, 1364, 1451, 1452, 1526, 1644, 3819, 4025],
    Failure.VALUE: [1264, 1265, 1292, 1365, 1366, 1406, 1690],
    Failure.DEFECT: [1054, 1064],
}  # fmt: skip
LOST = {0, 1047, 1053, 1927, 2006, 2013, 2014, 2055, 3169, 4031}


def sqlite_error(name: str) -> sqlite3.Error:
    error = sqlite3.DatabaseError("made up")
    error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{name}")
    return error


CASES: list[tuple[BaseException, Failure, bool]] = [
    *((sqlite_error(name), kind, name.startswith("IOERR")) for kind, names in SQLITE.items() for name in names.split()),
    *((pymysql.err.OperationalError(n, "x"), kind, n in LOST) for kind, numbers in MYSQL.items() for n in numbers),
    (sqlite3.OperationalError("no such table: students"), Failure.REFUSED, False),
    (pymysql.err.InterfaceError(0, ""), Failure.OUTAGE, True),
    (pymysql.err.InternalError("Packet sequence number wrong"), Failure.OUTAGE, True),
    (pymysql.err.Error("Already closed"), Failure.OUTAGE, True),
    (pymysql.err.ProgrammingError("x"), Failure.DEFECT, False),
    (sqlite3.ProgrammingError("Cannot operate on a closed database."), Failure.DEFECT, False),
    (ConnectionResetError(), Failure.OUTAGE, True),
    (PoolTimeoutError("QueuePool limit"), Failure.OUTAGE, False),
    (InvalidRequestError("This connection is closed"), Failure.OUTAGE, False),
    (ssl.SSLEOFError(), Failure.OUTAGE, True),
    (RetryTransactionError(), Failure.CONTENTION, False),
    (ZeroDivisionError(), Failure.DEFECT, False),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), Failure.DEFECT, False),
    (asyncio.CancelledError(), Failure.DEFECT, False),
]
TRANSLATED: dict[Failure, Any] = {
    Failure.CONTENTION: DatabaseUnavailableError,
    Failure.OUTAGE: DatabaseUnavailableError,
    Failure.REFUSED: DatabaseUnavailableError,
    Failure.CONSTRAINT: ConstraintError,
    Failure.VALUE: UnsupportedValueError,
}


def test_table_of_cases_is_complete() -> None:
    assert {number for numbers in MYSQL.values() for number in numbers} >= failures.MYSQL.keys()
    primary = {getattr(sqlite3, f"SQLITE_{name}") for names in SQLITE.values() for name in names.split()}
    assert primary >= failures.SQLITE.keys()


@pytest.mark.parametrize("wrapped", [False, True], ids=["raw", "wrapped"])
@pytest.mark.parametrize(("error", "kind", "lost"), CASES, ids=lambda case: repr(case)[:50])
def test_error_is_classified(error: BaseException, kind: Failure, lost: bool, wrapped: bool) -> None:
    """Whether SQLAlchemy has wrapped it, or passes on what the driver raised."""
    given = DBAPIError("INSERT", None, error) if wrapped else error
    assert (classify(given), is_lost(given)) == (kind, lost)
    expected = TRANSLATED.get(kind, type(given))
    with pytest.raises(expected) as caught:
        raise_translated(given)
    assert type(caught.value) is expected
    assert caught.value is given or caught.value.__cause__ is given


UNKNOWN_AT_COMMIT = {
    (2013, "Lost connection"): True,
    (2026, "SSL connection error"): True,
    (1105, "Unknown error"): False,
    (1047, "WSREP has not yet prepared node for application use"): True,
    (1180, "Error while appending fragment(provider status: Not connected to Primary Component)"): True,
    (1180, "Got error 28 'No space left on device' during COMMIT"): False,
    (1213, "Deadlock found"): False,
}


@pytest.mark.parametrize("arguments", UNKNOWN_AT_COMMIT)
def test_errors_that_leave_the_outcome_of_commit_open(arguments: tuple[int, str]) -> None:
    error = pymysql.err.OperationalError(*arguments)
    with pytest.raises(CommitUnknownError) if UNKNOWN_AT_COMMIT[arguments] else nullcontext():
        raise_if_commit_unknown(DBAPIError("COMMIT", None, error))


def test_driver_that_fails_during_commit_leaves_its_outcome_open() -> None:
    """As where the rest of a packet is missing, or memory."""
    for error in (IndexError("index out of range"), MemoryError()):
        with pytest.raises(CommitUnknownError):
            raise_if_commit_unknown(error)


@pytest.mark.parametrize(
    "error",
    [StudentNotFoundError(), CommitUnknownError("x"), DatabaseFileError("x"), InvalidRequestError("x")],
    ids=repr,
)
def test_other_exceptions_stay_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        raise_translated(error)
    assert caught.value is error
