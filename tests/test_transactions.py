"""Units of work: what is committed together, what is retried, what is not, and what a failed COMMIT leaves behind."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from litestar_app.database.config import AlchemyConfig, Timeouts
from litestar_app.database.reads import RETRY_WITHIN
from litestar_app.database.writes import Transactions
from litestar_app.exceptions import CommitUnknownError, RejectedError, RetryTransactionError
from tests.conftest import Rows
from tests.database import make_transactions, prepare
from tests.mariadb import MariaDB, open_session

INSERT = text("INSERT INTO students (name, department, cgpa) VALUES (:name, 'CSE', 8.9)")
DEFERRED = "CREATE TABLE child (id INTEGER REFERENCES students (id) DEFERRABLE INITIALLY DEFERRED)"
Names = Callable[[], list[str]]


@pytest.fixture
def alchemy(database_url: str, sql_log: list[str]) -> Iterator[AlchemyConfig]:
    assert sql_log == []
    with prepare(database_url) as alchemy:
        yield alchemy


@pytest.fixture
def transactions(alchemy: AlchemyConfig) -> Iterator[Transactions]:
    transactions = make_transactions(alchemy)
    yield transactions
    transactions.close()


@pytest.fixture
def names(query: Callable[..., Rows]) -> Names:
    return lambda: [name for (name,) in query("SELECT name FROM students ORDER BY id")]


def create(name: str) -> Callable[[Session], str]:
    def work(session: Session) -> str:
        session.execute(INSERT, {"name": name})
        return name

    return work


def fail(error: BaseException) -> Callable[[Session], None]:
    def work(session: Session) -> None:
        session.execute(INSERT, {"name": "Doomed"})
        raise error

    return work


def reject(_session: Session) -> None:
    raise RejectedError


def violate_at_commit(session: Session) -> None:
    session.execute(text("INSERT INTO child VALUES (99)"))
    session.execute(INSERT, {"name": "Doomed"})


@contextmanager
def cut_during_commit(alchemy: AlchemyConfig) -> Iterator[None]:
    """Cut the connection to MySQL whenever a COMMIT is about to be sent."""

    def cut(connection: Any) -> None:
        connection.connection.dbapi_connection._force_close()  # noqa: SLF001

    event.listen(alchemy.get_engine(), "commit", cut)
    yield
    event.remove(alchemy.get_engine(), "commit", cut)


def kinds(outcomes: list[object]) -> list[object]:
    return [type(outcome) if isinstance(outcome, BaseException) else outcome for outcome in outcomes]


def test_group_is_committed_at_once(alchemy: AlchemyConfig, transactions: Transactions, names: Names) -> None:
    commits: list[Connection] = []
    event.listen(alchemy.get_engine(), "commit", commits.append)
    assert transactions.run([create("A"), create("B")]) == ["A", "B"] == names()
    assert len(commits) == 1


def test_rejection_leaves_its_group_alone(transactions: Transactions, names: Names, sql_log: list[str]) -> None:
    """The others are committed with the group, and are not run again."""
    sql_log.clear()
    assert kinds(transactions.run([create("A"), reject, create("B")])) == ["A", RejectedError, "B"]
    assert names() == ["A", "B"]
    assert [statement.split()[0] for statement in sql_log].count("INSERT") == 2


@pytest.mark.parametrize("error", [ZeroDivisionError(), StopIteration(), KeyboardInterrupt()], ids=repr)
def test_failure_splits_its_group(transactions: Transactions, names: Names, error: BaseException) -> None:
    assert transactions.run([create("A"), fail(error), create("B")]) == ["A", error, "B"]
    assert names() == ["A", "B"]


def test_failed_commit_leaves_nothing_behind(sqlite_url: str, query_file: Callable[..., Rows]) -> None:
    """Left open, the transaction would take the next writes with it: acknowledged, and lost."""
    with prepare(sqlite_url) as alchemy:
        query_file(DEFERRED)
        transactions = make_transactions(alchemy)
        for group in ([violate_at_commit], [create("A")], [violate_at_commit, create("B")], [create("C")]):
            outcomes = transactions.run(group)
            assert [type(outcome) for outcome in outcomes if not isinstance(outcome, str)] in ([], [IntegrityError])
        transactions.close()
    assert query_file("SELECT name FROM students ORDER BY id") == [("A",), ("B",), ("C",)]


def test_retry_runs_the_whole_unit_again(transactions: Transactions, names: Names) -> None:
    tries = []

    def work(session: Session) -> int:
        session.execute(INSERT, {"name": "A"})
        tries.append(1)
        if len(tries) < 3:
            raise RetryTransactionError
        return len(tries)

    assert transactions.run([work]) == [3]
    assert names() == ["A"]


def test_retry_ends_with_the_lock_timeout(database_url: str, query: Callable[..., Rows]) -> None:
    tries = []

    def work(_session: Session) -> None:
        tries.append(time.monotonic())
        raise RetryTransactionError

    with prepare(database_url, Timeouts(lock=0.3)) as alchemy:
        transactions = make_transactions(alchemy)
        assert kinds(transactions.run([work])) == [RetryTransactionError]
        transactions.close()
    assert len(tries) > 1
    assert tries[-1] - tries[0] < 1.1  # the timeout and a pause, not the sum of several
    assert query("SELECT * FROM students") == []


def test_conflict_is_not_retried(transactions: Transactions, names: Names) -> None:
    tries = []

    def work(session: Session) -> None:
        tries.append(1)
        for _ in range(2):
            session.execute(text("INSERT INTO students (id, name, department, cgpa) VALUES (1, 'A', 'B', 1)"))

    assert kinds(transactions.run([work])) == [IntegrityError]
    assert (len(tries), names()) == (1, [])


def test_deadlock_is_retried(mysql_url: str) -> None:
    """Two units that lock two rows crosswise: the server rolls one back, and that one is run again."""
    with prepare(mysql_url) as alchemy:
        make_transactions(alchemy).run([create("A"), create("B")])
        both_hold_one = threading.Barrier(2)
        tries: list[int] = []

        def work(session: Session, first: int, second: int) -> None:
            tries.append(first)
            session.execute(text("UPDATE students SET cgpa = cgpa - 1 WHERE id = :id"), {"id": first})
            if len(tries) <= 2:
                both_hold_one.wait()
            session.execute(text("UPDATE students SET cgpa = cgpa - 1 WHERE id = :id"), {"id": second})

        units = [lambda session: work(session, 1, 2), lambda session: work(session, 2, 1)]
        threads = [threading.Thread(target=make_transactions(alchemy).run, args=[[unit]]) for unit in units]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with alchemy.get_engine().connect() as connection:
            assert connection.execute(text("SELECT cgpa FROM students")).scalars().all() == [6.9, 6.9]
    assert len(tries) == 3


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("retries", [0, 1])
def test_unknown_commit_is_not_retried(mysql_url: str, size: int, retries: int) -> None:
    """The row may be stored or not: only the client can know whether a second one would do harm."""
    tries: list[int] = []

    def work(session: Session) -> None:
        tries.append(1)
        if len(tries) == retries:
            raise RetryTransactionError
        session.execute(INSERT, {"name": "A"})

    with prepare(mysql_url) as alchemy, cut_during_commit(alchemy):
        assert kinds(make_transactions(alchemy).run([work] * size)) == [CommitUnknownError] * size
    assert len(tries) == size + retries


def test_connection_lost_before_commit_is_a_failure(mysql_url: str, mysql_query: Callable[..., Rows]) -> None:
    """The server rolls back what was never committed."""

    def work(session: Session) -> None:
        session.execute(INSERT, {"name": "A"})
        session.execute(text("KILL CONNECTION_ID()"))

    with prepare(mysql_url) as alchemy:
        assert kinds(make_transactions(alchemy).run([work])) == [OperationalError]
    assert mysql_query("SELECT * FROM students") == []


def test_idle_connection_that_was_closed_costs_no_write(
    mariadb: MariaDB, mysql_url: str, mysql_query: Callable[..., Rows]
) -> None:
    """A writer keeps its connection; the server has closed it by a restart, or `wait_timeout`."""
    with prepare(mysql_url) as alchemy:
        transactions = make_transactions(alchemy)
        for name in "AB":
            assert transactions.run([create(name)]) == [name]
            mariadb.kill_sessions(mysql_url)
        transactions.close()
    assert mysql_query("SELECT name FROM students") == [("A",), ("B",)]


def test_write_that_a_hung_server_lost_is_not_retried(mariadb: MariaDB, mysql_url: str) -> None:
    """The client would wait twice as long; the next write connects anew."""
    tries: list[int] = []

    def work(session: Session) -> None:
        tries.append(1)
        session.execute(INSERT, {"name": "Lost"})

    with prepare(mysql_url, Timeouts(socket=RETRY_WITHIN + 0.2)) as alchemy:
        transactions = make_transactions(alchemy)
        assert transactions.run([create("A")]) == ["A"]
        with open_session(mariadb, mysql_url, "LOCK TABLES students WRITE"):
            assert kinds(transactions.run([work])) == [OperationalError]
        assert transactions.run([create("B")]) == ["B"]
        transactions.close()
    assert tries == [1]


def test_lock_fails_the_whole_group_at_once(
    sqlite_url: str, sqlite_path: object, sql_log: list[str], query_file: Callable[..., Rows]
) -> None:
    """Each unit would wait as long as the one before it, and in vain."""
    with prepare(sqlite_url, Timeouts(lock=0.1)) as alchemy:
        transactions = make_transactions(alchemy)
        lock = sqlite3.connect(str(sqlite_path), isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        sql_log.clear()
        assert kinds(transactions.run([create("A"), create("B")])) == [sqlite3.OperationalError] * 2
        assert sql_log.count("BEGIN IMMEDIATE") == 1
        lock.close()
        assert transactions.run([create("C")]) == ["C"]
        transactions.close()
    assert query_file("SELECT name FROM students") == [("C",)]


def test_lock_ends_a_group_that_was_split(transactions: Transactions, names: Names) -> None:
    """Once one of a split group has waited for a lock in vain, those behind it are not begun."""
    begun: list[Session] = []
    outcomes = transactions.run([fail(ZeroDivisionError()), fail(RetryTransactionError()), begun.append])
    assert kinds(outcomes) == [ZeroDivisionError, RetryTransactionError, RetryTransactionError]
    assert (begun, names()) == ([], [])


def test_sqlite_connections_are_durable(sqlite_url: str, sql_log: list[str]) -> None:
    """On each: a log that readers do not wait for, an fsync for each commit, and the lock taken first."""
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}
    assert sql_log == []
    with prepare(sqlite_url) as alchemy:
        with alchemy.get_engine().connect() as one, alchemy.get_engine().connect() as two:
            for connection in (one, two):
                cursor = connection.connection.cursor()
                assert {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in expected} == expected
        sql_log.clear()
        transactions = make_transactions(alchemy)
        transactions.run([create("A")])
        transactions.close()
    assert [statement.split()[0] for statement in sql_log if "PRAGMA" not in statement] == ["BEGIN", "INSERT", "COMMIT"]
    assert "BEGIN IMMEDIATE" in sql_log


def test_mysql_connections_are_strict(mysql_url: str) -> None:
    """No silent truncation, no gap locks, and waits that end."""
    with prepare(mysql_url, Timeouts(lock=3)) as alchemy, alchemy.get_engine().connect() as connection:
        values = connection.execute(
            text("SELECT @@sql_mode, @@tx_isolation, @@innodb_lock_wait_timeout, @@lock_wait_timeout")
        ).one()
    assert "STRICT_ALL_TABLES" in values[0]
    assert tuple(values)[1:] == ("READ-COMMITTED", 3, 3)
