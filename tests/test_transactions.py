"""Units of work: what is committed together, what is retried, what is not, and what a failed COMMIT leaves behind."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from litestar_app.database.backend import RETRY_WITHIN
from litestar_app.database.config import AlchemyConfig
from litestar_app.database.limits import Timeouts
from litestar_app.database.unit_of_work import UnitOfWork
from litestar_app.database.writes import GroupError, Transactions
from litestar_app.exceptions import CommitUnknownError, RejectedError, RetryTransactionError
from litestar_app.students.record import STUDENT
from tests.conftest import Names, Rows
from tests.database import create, open_transactions, prepare
from tests.mariadb import MariaDB

DEFERRED = "CREATE TABLE child (id INTEGER REFERENCES students (id) DEFERRABLE INITIALLY DEFERRED)"


@pytest.fixture
def alchemy(database_url: str, sql_log: list[str]) -> Iterator[AlchemyConfig]:
    assert sql_log == []
    with prepare(database_url) as alchemy:
        yield alchemy


@pytest.fixture
def transactions(alchemy: AlchemyConfig) -> Iterator[Transactions]:
    with open_transactions(alchemy) as transactions:
        yield transactions


def fail(error: BaseException) -> Callable[[Session], None]:
    def work(session: Session) -> None:
        create("Doomed")(session)
        raise error

    return work


def reject(_session: Session) -> None:
    raise RejectedError


def violate_at_commit(session: Session) -> None:
    session.execute(text("INSERT INTO child VALUES (99)"))
    create("Doomed")(session)


def kinds(outcomes: list[object]) -> list[object]:
    return [type(outcome) if isinstance(outcome, BaseException) else outcome for outcome in outcomes]


def test_rejection_leaves_its_group_alone(transactions: Transactions, names: Names, sql_log: list[str]) -> None:
    """The others are committed with the group, and are not run again."""
    sql_log.clear()
    assert kinds(transactions.run([create("A"), reject, create("B")])) == ["A", RejectedError, "B"]
    assert names() == ["A", "B"]
    assert [statement.split()[0] for statement in sql_log].count("INSERT") == 2


@pytest.mark.parametrize("retry", [True, False])
@pytest.mark.parametrize("error", [ZeroDivisionError(), StopIteration(), KeyboardInterrupt()], ids=repr)
def test_failure_rolls_back_its_group(
    transactions: Transactions, names: Names, error: BaseException, *, retry: bool
) -> None:
    """Those beside it are run again, each alone; what has failed alone is not."""
    with pytest.raises(GroupError) as raised:
        transactions.run([create("A"), fail(error)], retry=retry)
    assert raised.value.reason is error
    assert transactions.run([fail(error)], retry=retry) == [error]
    assert names() == []


def test_contention_is_not_waited_for_where_others_would_wait_too(transactions: Transactions, names: Names) -> None:
    with pytest.raises(GroupError):
        transactions.run([fail(RetryTransactionError())], retry=False)
    assert names() == []


def test_failed_commit_leaves_nothing_behind(sqlite_url: str, query_file: Callable[..., Rows]) -> None:
    """Left open, the transaction would take the next writes with it: acknowledged, and lost."""
    with prepare(sqlite_url) as alchemy, open_transactions(alchemy) as transactions:
        query_file(DEFERRED)
        assert kinds(transactions.run([violate_at_commit])) == [IntegrityError]
        assert transactions.run([create("A")]) == ["A"]
        with pytest.raises(GroupError):
            transactions.run([violate_at_commit, create("B")])
        assert transactions.run([create("C")]) == ["C"]
    assert query_file("SELECT name FROM students ORDER BY id") == [("A",), ("C",)]


def test_retry_runs_the_whole_unit_again(transactions: Transactions, names: Names) -> None:
    tries = []

    def work(session: Session) -> int:
        create("A")(session)
        tries.append(1)
        if len(tries) < 3:
            raise RetryTransactionError
        return len(tries)

    assert transactions.run([work]) == [3]
    assert names() == ["A"]


def test_retries_end_with_the_lock_timeout(sqlite_url: str, query_file: Callable[..., Rows]) -> None:
    tries = []

    def work(session: Session) -> None:
        tries.append(time.monotonic())
        fail(RetryTransactionError())(session)

    with prepare(sqlite_url, Timeouts(lock=0.5)) as alchemy, open_transactions(alchemy) as transactions:
        assert kinds(transactions.run([work])) == [RetryTransactionError]
    assert tries[-2] - tries[0] < 0.5, "there was another one although the time was over"
    assert query_file("SELECT * FROM students") == []


def test_deadlock_is_retried(mysql_url: str, mysql_query: Callable[..., Rows]) -> None:
    """Two units that lock two rows crosswise: the server rolls one back, and that one is run again."""
    both_hold_one = threading.Barrier(2)
    tries: list[int] = []

    def change(first: int, second: int) -> list[Any]:
        def work(session: Session) -> None:
            tries.append(first)
            session.execute(text("UPDATE students SET cgpa = cgpa - 1 WHERE id = :id"), {"id": first})
            if len(tries) <= 2:
                both_hold_one.wait()
            session.execute(text("UPDATE students SET cgpa = cgpa - 1 WHERE id = :id"), {"id": second})

        with open_transactions(prepared) as transactions:
            return transactions.run([work])

    with prepare(mysql_url) as prepared, ThreadPoolExecutor(2) as pool:
        with open_transactions(prepared) as transactions:
            transactions.run([create("A"), create("B")])
        assert list(pool.map(change, (1, 2), (2, 1))) == [[None], [None]]
    assert mysql_query("SELECT cgpa FROM students") == [(6.9,), (6.9,)]
    assert len(tries) == 3


@pytest.mark.parametrize("retry", [True, False])
@pytest.mark.parametrize("size", [1, 2])
def test_unknown_commit_is_not_retried(mariadb: MariaDB, mysql_url: str, size: int, *, retry: bool) -> None:
    """The row may be stored or not: only the client can know whether a second one would do harm."""
    tries: list[int] = []

    def work(session: Session) -> None:
        tries.append(1)
        create("A")(session)

    def cut(_connection: Any) -> None:
        mariadb.kill_sessions(mysql_url)

    with prepare(mysql_url) as alchemy, open_transactions(alchemy) as transactions:
        event.listen(alchemy.get_engine(), "commit", cut)
        assert kinds(transactions.run([work] * size, retry=retry)) == [CommitUnknownError] * size
    assert len(tries) == size


def test_connection_lost_before_commit_is_a_failure(mysql_url: str, mysql_query: Callable[..., Rows]) -> None:
    """The server rolls back what was never committed."""

    def work(session: Session) -> None:
        create("A")(session)
        session.execute(text("KILL CONNECTION_ID()"))

    with prepare(mysql_url) as alchemy, open_transactions(alchemy) as transactions:
        assert kinds(transactions.run([work])) == [OperationalError]
    assert mysql_query("SELECT * FROM students") == []


def test_reason_of_a_lost_connection_is_kept(mariadb: MariaDB, mysql_url: str) -> None:
    """ROLLBACK fails too, in a statement that goes past SQLAlchemy, but it is not what has gone wrong."""

    def work(unit: UnitOfWork) -> None:
        for _ in range(2):
            unit.execute_fixed(STUDENT.by_id, {"student_id": 1})
            mariadb.kill_sessions(mysql_url)

    with prepare(mysql_url) as alchemy, open_transactions(alchemy) as transactions:
        (outcome,) = transactions.run([work])
    assert isinstance(outcome, Exception)
    assert outcome.args[0] in {2006, 2013}


def test_write_on_a_closed_idle_connection_is_retried(
    mariadb: MariaDB, mysql_url: str, mysql_query: Callable[..., Rows]
) -> None:
    """A writer keeps its connection; the server has closed it by a restart, or `wait_timeout`."""
    with prepare(mysql_url) as alchemy, open_transactions(alchemy) as transactions:
        for name in "AB":
            assert transactions.run([create(name)]) == [name]
            mariadb.kill_sessions(mysql_url)
    assert mysql_query("SELECT name FROM students") == [("A",), ("B",)]


def test_write_that_a_hung_server_lost_is_not_retried(mariadb: MariaDB, mysql_url: str) -> None:
    """The client would wait twice as long; the next write connects anew."""
    tries: list[int] = []

    def work(session: Session) -> None:
        tries.append(1)
        create("Lost")(session)

    timeouts = Timeouts(socket=RETRY_WITHIN + 0.2)
    with prepare(mysql_url, timeouts) as alchemy, open_transactions(alchemy) as transactions:
        assert transactions.run([create("A")]) == ["A"]
        mariadb.pause()
        try:
            assert kinds(transactions.run([work])) == [OperationalError]
        finally:
            mariadb.resume()
        assert transactions.run([create("B")]) == ["B"]
    assert tries == [1]


def test_lock_fails_the_whole_group_at_once(
    sqlite_url: str, sqlite_path: Path, sql_log: list[str], query_file: Callable[..., Rows]
) -> None:
    """Each unit would wait as long as the one before it, and in vain."""
    with prepare(sqlite_url, Timeouts(lock=0.1)) as alchemy, open_transactions(alchemy) as transactions:
        with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as lock:
            lock.execute("BEGIN IMMEDIATE")
            sql_log.clear()
            assert kinds(transactions.run([create("A"), create("B")])) == [sqlite3.OperationalError] * 2
            assert sql_log.count("BEGIN IMMEDIATE") == 1
        assert transactions.run([create("C")]) == ["C"]
    assert query_file("SELECT name FROM students") == [("C",)]


def test_sqlite_connections_are_durable(sqlite_url: str, sql_log: list[str]) -> None:
    """On each: a log that readers do not wait for, an fsync for each commit, and the lock taken first."""
    expected = {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1, "busy_timeout": 5000}
    assert sql_log == []
    with prepare(sqlite_url) as alchemy, open_transactions(alchemy) as transactions:
        with alchemy.get_engine().connect() as one, alchemy.get_engine().connect() as two:
            for connection in (one, two):
                cursor = connection.connection.cursor()
                assert {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in expected} == expected
        assert sql_log.count("PRAGMA synchronous=FULL") == 2  # which only some builds of SQLite have by themselves
        sql_log.clear()
        transactions.run([create("A")])
    statements = [statement for statement in sql_log if "PRAGMA" not in statement]
    assert [statements[0], statements[1].split()[0], *statements[2:]] == ["BEGIN IMMEDIATE", "INSERT", "COMMIT"]


def test_mysql_connections_are_strict(mysql_url: str) -> None:
    """No silent truncation, no gap locks, and waits that end."""
    with prepare(mysql_url, Timeouts(lock=3)) as alchemy, alchemy.get_engine().connect() as connection:
        names = "@@sql_mode, @@tx_isolation, @@innodb_lock_wait_timeout, @@lock_wait_timeout"
        sql_mode, *others = connection.exec_driver_sql(f"SELECT {names}").one()
    assert "STRICT_ALL_TABLES" in sql_mode
    assert others == ["READ-COMMITTED", 3, 3]


def test_cache_listener_stays_off(alchemy: AlchemyConfig, transactions: Transactions) -> None:
    """advanced-alchemy's listener costs a tenth of a write; it asks the `info` of the session after each COMMIT."""
    enabled: list[object] = []

    def look(session: Session) -> None:
        enabled.append(session.info.get("enable_cache_listener", True))

    event.listen(UnitOfWork, "after_commit", look)
    try:
        assert transactions.run([create("A"), create("B")]) == ["A", "B"]
        assert transactions.run([create("C")]) == ["C"]
    finally:
        event.remove(UnitOfWork, "after_commit", look)
    assert enabled == [False, False]
    with alchemy.get_session() as session:
        assert isinstance(session, UnitOfWork)
        assert session.info["enable_cache_listener"] is False
