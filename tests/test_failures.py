"""What each error of a database is, and what follows from it."""

import asyncio
import re
import sqlite3
import ssl
from contextlib import nullcontext
from typing import Any

import pymysql
import pytest
from advanced_alchemy.exceptions import DuplicateKeyError, IntegrityError, NotFoundError
from pymysql.constants import CR, ER
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from litestar_app.database import failures
from litestar_app.database.failures import (
    Failure,
    classify,
    is_lost,
    raise_if_commit_unknown,
    raise_translated,
    translate_error,
)
from litestar_app.exceptions import (
    CommitUnknownError,
    ConstraintError,
    DatabaseFileError,
    DatabaseUnavailableError,
    RepositoryError,
    RetryTransactionError,
    UnsupportedValueError,
)
from litestar_app.students.exceptions import StudentNotFoundError

SQLITE = {
    Failure.CONTENTION: "BUSY BUSY_SNAPSHOT BUSY_RECOVERY LOCKED LOCKED_SHAREDCACHE",
    Failure.OUTAGE: "NOMEM READONLY READONLY_DBMOVED IOERR IOERR_FSYNC IOERR_WRITE FULL CANTOPEN PROTOCOL",
    Failure.REFUSED: "PERM CORRUPT CORRUPT_VTAB NOTADB",
    Failure.CONSTRAINT: "CONSTRAINT CONSTRAINT_UNIQUE CONSTRAINT_CHECK CONSTRAINT_TRIGGER CONSTRAINT_NOTNULL",
    Failure.VALUE: "TOOBIG",
    Failure.DEFECT: "ERROR SCHEMA MISUSE RANGE MISMATCH",
}
MYSQL = {
    Failure.CONTENTION: [1020, 1050, 1061, 1205, 1213, 1412, 3058, 3101, 3572],
    Failure.OUTAGE: [
        0, 1, 3, 28, 167, 1467,
        1021, 1026, 1030, 1036, 1037, 1038, 1040, 1041, 1047, 1053, 1114, 1129, 1135, 1152, 1153, 1158, 1159, 1160,
        1161, 1180, 1197, 1203, 1206, 1226, 1290, 1317, 1637, 1792, 1836, 1874, 1881, 1927, 1969, 2002, 2003, 2005,
        2006, 2013, 2014, 2026, 2055, 1105, 1598, 3024, 3032, 3100, 3168, 3169, 3230, 3797, 3989, 4031,
    ],
    Failure.REFUSED: [
        1044, 1045, 1049, 1054, 1104, 1130, 1142, 1143, 1146, 1175, 1193, 1227, 1251, 1267, 1524, 1665, 1698, 1820,
        1862, 2054, 2059, 2061, 3057, 3118, 3159, 3955, 4151, 6123,
    ],
    Failure.CONSTRAINT: [1048, 1062, 1216, 1217, 1364, 1451, 1452, 1526, 1644, 3819, 4025],
    Failure.VALUE: [1264, 1265, 1292, 1365, 1366, 1406, 1690, 3854],
    Failure.DEFECT: [1064],
}  # fmt: skip
LOST = {0, 1047, 1053, 1152, 1153, 1158, 1159, 1160, 1161, 1317, 1927, 2006, 2013, 2014, 2055, 3169, 4031}
CODES = {
    name: code
    for module in (CR, ER)
    for name, code in vars(module).items()
    if isinstance(code, int) and "ERROR_" not in name
}
"""The codes that the driver knows, by their names."""
BY_NAME = {
    "DENIED|PRIVILEGED|PASSWORD|AUTH": Failure.REFUSED,
    "DEADLOCK|LOCK_WAIT": Failure.CONTENTION,
    "DISK_FULL|_FULL$|OUT_?OF_?(RESOURCES|MEMORY|SORTMEMORY)|CON_COUNT|USER_(LIMIT|CONNECTIONS)": Failure.OUTAGE,
    "^NET_|SERVER_SHUTDOWN|ABORT|INTERRUPTED|(STATEMENT|QUERY)_TIMEOUT|AS_READONLY": Failure.OUTAGE,
    "^DUP_(KEY|ENTRY|UNIQUE)$|REFERENCED|BAD_NULL|CONSTRAINT_FAILED|NO_DEFAULT_FOR_FIELD": Failure.CONSTRAINT,
    "^(WARN_DATA|TRUNCATED|ILLEGAL_VALUE|DATA_)": Failure.VALUE,
    "^(NO_SUCH|BAD)_(DB|TABLE|FIELD|INDEX)|^UNKNOWN_(TABLE|SYSTEM|CHARACTER|COLLATION)|SAFE_MODE|BIG_SELECT|COLLATIONS":
        Failure.REFUSED,
}  # fmt: skip
"""What the names of codes mean, as regular expressions."""
BY_CLASS = {pymysql.err.IntegrityError: Failure.CONSTRAINT, pymysql.err.DataError: Failure.VALUE}
OF_DEFINITIONS = {"CANNOT_ADD_FOREIGN", "NO_DEFAULT", "PRIMARY_CANT_HAVE_NULL"}
"""Codes of tables and variables, of which none of our rows is to blame."""
DEFECTS = {
    "PARSE_ERROR",
    "EMPTY_QUERY",
    "SYNTAX_ERROR",
    "NON_UNIQ_ERROR",
    "WRONG_FIELD_WITH_GROUP",
    "WRONG_GROUP_FIELD",
    "WRONG_SUM_SELECT",
    "WRONG_VALUE_COUNT",
    "NONUNIQ_TABLE",
    "UPDATE_TABLE_USED",
    "NO_TABLES_USED",
    "FIELD_SPECIFIED_TWICE",
    "INVALID_GROUP_FUNC_USE",
    "WRONG_VALUE_COUNT_ON_ROW",
    "CANT_REOPEN_TABLE",
    "MIX_OF_GROUP_FUNC_AND_FIELDS",
    "WRONG_ARGUMENTS",
    "OPERAND_COLUMNS",
    "WRONG_NUMBER_OF_COLUMNS_IN_SELECT",
    "SUBQUERY_NO_1_ROW",
    "ILLEGAL_REFERENCE",
    "DERIVED_MUST_HAVE_ALIAS",
    "TABLENAME_NOT_ALLOWED_HERE",
}
"""Statements that no server understands."""


def sqlite_error(name: str) -> sqlite3.Error:
    error = sqlite3.DatabaseError("made up")
    error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{name}")
    return error


CASES: list[tuple[BaseException, Failure, bool]] = [
    *((sqlite_error(name), kind, name.startswith("IOERR")) for kind, names in SQLITE.items() for name in names.split()),
    *((pymysql.err.OperationalError(n, "x"), kind, n in LOST) for kind, numbers in MYSQL.items() for n in numbers),
    (sqlite3.OperationalError("no such table: students"), Failure.REFUSED, False),
    (sqlite3.OperationalError("no such column: students.cgpa"), Failure.REFUSED, False),
    (sqlite3.OperationalError("table students has no column named cgpa"), Failure.REFUSED, False),
    (pymysql.err.InterfaceError(0, ""), Failure.OUTAGE, True),
    (pymysql.err.InternalError("Packet sequence number wrong"), Failure.OUTAGE, True),
    (pymysql.err.Error("Already closed"), Failure.OUTAGE, True),
    (pymysql.err.ProgrammingError("x"), Failure.DEFECT, False),
    (pymysql.err.ProgrammingError("inf can not be used with MySQL"), Failure.VALUE, False),
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


def of_mysql(code: int) -> Failure:
    return classify(pymysql.err.OperationalError(code, "x"))


def test_table_of_cases_is_complete() -> None:
    primary = {getattr(sqlite3, f"SQLITE_{name}") for names in SQLITE.values() for name in names.split()}
    assert primary >= failures.SQLITE.keys()


def test_every_code_of_the_driver_is_something_else_than_a_defect() -> None:
    """But for statements that no server understands; nor is one a defect that the driver does not know."""
    assert {name for name, code in CODES.items() if of_mysql(code) is Failure.DEFECT} == DEFECTS
    unknown = set(range(7000)) - set(CODES.values())
    assert {code for code in unknown if of_mysql(code) is Failure.DEFECT} <= failures.MYSQL.keys()


@pytest.mark.parametrize("pattern", BY_NAME)
def test_codes_are_classified_as_their_names_say(pattern: str) -> None:
    kinds = {name: of_mysql(code) for name, code in CODES.items() if re.search(pattern, name)}
    assert kinds
    assert {name: kind for name, kind in kinds.items() if kind is not BY_NAME[pattern]} == {}


def test_codes_are_classified_as_the_driver_does() -> None:
    """It has classes for constraints and values only."""
    skipped = {CODES[name] for name in OF_DEFINITIONS}
    ours = {code: of_mysql(code) for code in pymysql.err.error_map.keys() - skipped}
    theirs = {code: BY_CLASS.get(kind) for code, kind in pymysql.err.error_map.items()}
    assert {code for code in ours if theirs[code] not in {None, ours[code]}} == set()


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
    (1317, "Query execution was interrupted"): True,
    (3100, "Error on observer while running replication hook 'before_commit'."): False,
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


def make_repository_error(kind: type[Exception], cause: Exception | None) -> Exception:
    """Make an error of advanced-alchemy as its repositories raise it."""
    error = kind()
    error.__cause__ = cause
    return error


CONNECTION_LOST = pymysql.err.OperationalError(2013, "Lost connection")
TWICE = pymysql.err.IntegrityError(1062, "Duplicate entry")
OF_SESSIONS: list[tuple[Exception, str, type[Exception], int | None]] = [
    (CONNECTION_LOST, "POST", CommitUnknownError, 503),
    (CONNECTION_LOST, "GET", DatabaseUnavailableError, 503),
    (make_repository_error(IntegrityError, CONNECTION_LOST), "PUT", CommitUnknownError, 503),
    (pymysql.err.OperationalError(1205, "Lock wait timeout"), "POST", DatabaseUnavailableError, 503),
    (pymysql.err.DataError(1406, "Data too long"), "POST", UnsupportedValueError, 422),
    (TWICE, "POST", ConstraintError, 409),
    (make_repository_error(DuplicateKeyError, TWICE), "POST", RepositoryError, 409),
    (make_repository_error(NotFoundError, None), "GET", RepositoryError, 404),
    (OSError("of a file"), "POST", OSError, None),
    (ValueError("of a handler"), "POST", ValueError, None),
]


@pytest.mark.parametrize(("error", "method", "kind", "status"), OF_SESSIONS, ids=map(str, range(len(OF_SESSIONS))))
def test_errors_of_sessions_and_repositories_become_ours(
    error: Exception, method: str, kind: type[Exception], status: int | None
) -> None:
    """A write that has lost its connection may be stored; an error of something else stays as it is."""
    translated = translate_error(error, method)
    assert (type(translated), getattr(translated, "status", None)) == (kind, status)
    assert status is not None or translated is error
