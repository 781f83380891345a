"""Units of work: what is tried again, what is not, and what a failed COMMIT leaves behind."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import IntegrityError, OperationalError

from litestar_app import database, transactions
from litestar_app.database import create_alchemy_config, prepare_database
from litestar_app.settings import Settings
from litestar_app.transactions import OutcomeUnknownError, Transactions


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_alchemy_config(Settings(database_url=database_url)).get_engine()
    prepare_database(engine)
    yield engine
    engine.dispose()


INSERT = text("INSERT INTO students (name, department, cgpa) VALUES ('Ananya', 'CSE', 8.9)")


def count(engine: Engine) -> int:
    with engine.connect() as connection:
        number: int = connection.execute(text("SELECT COUNT(*) FROM students")).scalar_one()
        return number


@contextmanager
def cut_during_commit(engine: Engine) -> Iterator[None]:
    """Cut the cable to MySQL whenever a COMMIT is about to be sent."""

    def cut(connection: Connection) -> None:
        connection.connection.dbapi_connection._force_close()  # type: ignore[union-attr]  # noqa: SLF001

    event.listen(engine, "commit", cut)
    yield
    event.remove(engine, "commit", cut)


def test_a_unit_of_work_that_raises_stores_nothing(engine: Engine) -> None:
    def work(connection: Connection) -> None:
        connection.execute(INSERT)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Transactions(engine).run(work)
    assert count(engine) == 0


def test_an_overtaken_unit_of_work_is_tried_again_as_a_whole(engine: Engine) -> None:
    tries = []

    def work(connection: Connection) -> int:
        connection.execute(INSERT)
        tries.append(count)
        if len(tries) < 3:
            raise transactions.OvertakenError
        return len(tries)

    assert Transactions(engine).run(work) == 3
    assert count(engine) == 1


def test_trying_again_ends(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "LOCK_SECONDS", 0.3)
    tries = []

    def work(_connection: Connection) -> None:
        tries.append(1)
        raise transactions.OvertakenError

    with pytest.raises(transactions.OvertakenError):
        Transactions(engine).run(work)
    assert len(tries) > 2


def test_a_deadlock_is_tried_again(mysql_url: str) -> None:
    """Two units of work that take two rows crosswise: the server ends one of them, and it is done again."""
    engine = create_alchemy_config(Settings(database_url=mysql_url)).get_engine()
    prepare_database(engine)
    with engine.begin() as connection:
        connection.execute(INSERT)
        connection.execute(INSERT)
    both_have_one = threading.Barrier(2)
    tries: list[int] = []

    def work(first: int, second: int, connection: Connection) -> None:
        tries.append(first)
        connection.execute(text("UPDATE students SET cgpa = cgpa - 1 WHERE id = :id"), {"id": first})
        if len(tries) <= 2:
            both_have_one.wait()
        connection.execute(text("UPDATE students SET cgpa = cgpa - 1 WHERE id = :id"), {"id": second})

    crosswise = [partial(work, 1, 2), partial(work, 2, 1)]
    threads = [threading.Thread(target=Transactions(engine).run, args=[unit]) for unit in crosswise]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT cgpa FROM students")).scalars().all() == [6.9, 6.9]
    assert len(tries) == 3
    engine.dispose()


def test_a_conflict_is_not_tried_again(engine: Engine) -> None:
    tries = []

    def work(connection: Connection) -> None:
        tries.append(1)
        for _ in range(2):
            connection.execute(text("INSERT INTO students (id, name, department, cgpa) VALUES (1, 'A', 'B', 1)"))

    with pytest.raises(IntegrityError):
        Transactions(engine).run(work)
    assert len(tries) == 1
    assert count(engine) == 0


def test_a_commit_that_fails_does_not_poison_the_pool(sqlite_url: str) -> None:
    """Left open, the transaction would take the next requests with it: answered, and lost."""
    engine = create_alchemy_config(Settings(database_url=sqlite_url)).get_engine()
    prepare_database(engine)
    deferred = "CREATE TABLE child (id INTEGER REFERENCES students (id) DEFERRABLE INITIALLY DEFERRED)"
    with engine.begin() as connection:
        connection.execute(text(deferred))

    def fail_at_commit(connection: Connection) -> None:
        connection.execute(INSERT)
        connection.execute(text("INSERT INTO child VALUES (99)"))

    transact = Transactions(engine).run
    for _ in range(database.CONNECTIONS + 2):
        with pytest.raises(IntegrityError):
            transact(fail_at_commit)
        transact(lambda connection: connection.execute(INSERT))
    engine.dispose()  # whatever was left open is rolled back here
    assert count(engine) == database.CONNECTIONS + 2
    engine.dispose()


@pytest.mark.parametrize("overtaken", [0, 1], ids=["at first", "when tried again"])
def test_a_commit_whose_outcome_nobody_knows_is_neither_success_nor_tried_again(mysql_url: str, overtaken: int) -> None:
    engine = create_alchemy_config(Settings(database_url=mysql_url)).get_engine()
    prepare_database(engine)
    tries = []

    def work(connection: Connection) -> None:
        tries.append(1)
        if len(tries) == overtaken:
            raise transactions.OvertakenError
        connection.execute(INSERT)

    with cut_during_commit(engine), pytest.raises(OutcomeUnknownError):
        Transactions(engine).run(work)
    assert len(tries) == 1 + overtaken
    engine.dispose()


def test_a_group_whose_commit_has_no_known_outcome_is_not_run_again(mysql_url: str) -> None:
    engine = create_alchemy_config(Settings(database_url=mysql_url)).get_engine()
    prepare_database(engine)
    calls = []

    def work(connection: Connection) -> None:
        calls.append(1)
        connection.execute(INSERT)

    with cut_during_commit(engine):
        outcomes = Transactions(engine).run_group([work, work])
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknownError, OutcomeUnknownError]
    assert len(calls) == 2
    engine.dispose()


def test_a_connection_lost_before_commit_is_a_plain_failure(mysql_url: str) -> None:
    """The server rolls back what was never committed, so this one may be tried again by the client."""
    engine = create_alchemy_config(Settings(database_url=mysql_url)).get_engine()
    prepare_database(engine)

    def work(connection: Connection) -> None:
        connection.execute(INSERT)
        connection.execute(text("KILL CONNECTION_ID()"))

    with pytest.raises(OperationalError):
        Transactions(engine).run(work)
    assert count(engine) == 0
    engine.dispose()


def test_sqlite_keeps_what_it_acknowledges(sqlite_url: str) -> None:
    """On every connection: a log that readers do not wait for, an fsync for each commit, and the lock taken first."""
    engine = create_alchemy_config(Settings(database_url=sqlite_url)).get_engine()
    prepare_database(engine)
    pragmas = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}
    with engine.connect() as one, engine.connect() as two:
        for connection in (one, two):
            driver = connection.connection
            found = {name: driver.cursor().execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas}
            assert found == pragmas
    engine.dispose()
    sent: list[str] = []
    event.listen(engine, "connect", lambda driver, _record: driver.set_trace_callback(sent.append))
    transactions = Transactions(engine)
    transactions.run(lambda connection: connection.execute(INSERT))
    transactions.close()
    engine.dispose()
    assert [statement.split()[0] for statement in sent if not statement.startswith("PRAGMA")] == [
        "BEGIN", "INSERT", "COMMIT",
    ]  # fmt: skip
    assert "BEGIN IMMEDIATE" in sent
