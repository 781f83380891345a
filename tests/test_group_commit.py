"""Writes that come together share a COMMIT, and each gets its own outcome."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pymysql
import pytest
from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

from litestar_app.database import Database
from litestar_app.database.config import AlchemyConfig
from litestar_app.database.limits import THREADS, Timeouts
from litestar_app.database.unit_of_work import RowKey, UnitOfWork
from litestar_app.entries import record_change
from litestar_app.exceptions import ConstraintError, DatabaseUnavailableError, PreconditionFailedError
from litestar_app.http.conditions import parse_condition
from litestar_app.records.record import etag
from litestar_app.students.exceptions import StudentNotFoundError
from litestar_app.students.record import STUDENT
from litestar_app.students.schemas import StudentCreate, StudentPatch, StudentRead
from litestar_app.students.service import StudentService
from tests.conftest import Names, Rows
from tests.database import create, open_transactions, prepare, run
from tests.mariadb import MariaDB, open_session
from tests.service import ANANYA, serve_database

T = TypeVar("T")


@pytest.fixture
def alchemy(database_url: str) -> Iterator[AlchemyConfig]:
    with prepare(database_url, Timeouts(close=1)) as alchemy:
        yield alchemy


@pytest.fixture
def names(query: Callable[..., Rows]) -> Names:
    """Read the names, in their order: of two groups on MySQL either may be the first."""
    return lambda: sorted(name for (name,) in query("SELECT name FROM students"))


def update(session: UnitOfWork) -> None:
    """Change the first student, a unit of work that waits where that row is locked, unless it is told not to."""
    if not session.waits and session.get_bind().dialect.name != "sqlite":
        session.connection().exec_driver_sql("SELECT 1 FROM students WHERE id = 1 FOR UPDATE NOWAIT")
    session.connection().exec_driver_sql("UPDATE students SET cgpa = 2 WHERE id = 1")


def write_together(
    alchemy: AlchemyConfig, works: Sequence[Callable[[UnitOfWork], Any]], *, leave: bool = False
) -> list[Any]:
    """Write while another write is under way, so that these wait together; the first may be cancelled meanwhile."""
    begun, release = threading.Event(), threading.Event()

    def first(session: Session) -> str:
        begun.set()
        assert release.wait(30)
        return create("First")(session)

    async def main(database: Database) -> list[Any]:
        one = asyncio.ensure_future(database.write(first))
        await asyncio.to_thread(begun.wait, 30)
        others = [asyncio.ensure_future(database.write(work)) for work in works]
        await asyncio.sleep(0)
        if leave:
            others[0].cancel()
        release.set()
        return list(await asyncio.gather(one, *others, return_exceptions=True))

    outcomes: list[Any] = run(alchemy, main)
    return outcomes


def test_waiting_writes_share_one_commit(alchemy: AlchemyConfig, names: Names) -> None:
    commits: list[Connection] = []
    event.listen(alchemy.get_engine(), "commit", commits.append)
    assert write_together(alchemy, [create("A"), create("B"), create("C")]) == ["First", "A", "B", "C"]
    assert names() == ["A", "B", "C", "First"]
    assert len(commits) == 2


def test_lock_of_a_row_holds_up_its_own_write(mariadb: MariaDB, mysql_url: str) -> None:
    """Those of its group are run again without it, and do not wait as long."""

    async def main(database: Database) -> None:
        await database.write(create("Locked"))
        with open_session(mariadb, mysql_url, "SELECT * FROM students WHERE id = 1 FOR UPDATE"):
            locked, *others = [
                asyncio.ensure_future(database.write(work)) for work in (update, create("A"), create("B"))
            ]
            assert await asyncio.gather(*others) == ["A", "B"]
            assert not locked.done()
            with pytest.raises(DatabaseUnavailableError, match="Lock wait timeout"):
                await locked

    with prepare(mysql_url, Timeouts(lock=3)) as alchemy:
        run(alchemy, main)


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
def test_failure_is_its_own_writers(alchemy: AlchemyConfig, names: Names, error: type[BaseException]) -> None:
    def fail(session: Session) -> str:
        create("Doomed")(session)
        raise error

    outcomes = write_together(alchemy, [create("A"), fail, create("B")])
    assert isinstance(outcomes.pop(2), error)
    assert outcomes == ["First", "A", "B"]
    assert names() == ["A", "B", "First"]


@pytest.mark.parametrize("others", [[], ["A"]], ids=["alone", "with another"])
def test_client_that_left_is_not_written(alchemy: AlchemyConfig, names: Names, others: list[str]) -> None:
    works = [create(name) for name in ["Gone", *others]]
    first, gone, *rest = write_together(alchemy, works, leave=True)
    assert isinstance(gone, asyncio.CancelledError)
    assert [first, *rest] == ["First", *others]
    assert names() == [*others, "First"]


def test_client_that_leaves_during_its_group(alchemy: AlchemyConfig, names: Names) -> None:
    """The row is stored, as nobody can stop it any more, and the others get their outcomes."""

    async def main(database: Database) -> list[Any]:
        loop = asyncio.get_running_loop()

        def see_it_leave(session: Session) -> str:
            gone = threading.Event()
            loop.call_soon_threadsafe(leaver.cancel)
            loop.call_soon_threadsafe(gone.set)
            assert gone.wait(30)
            return create("Gone")(session)

        leaver = asyncio.ensure_future(database.write(see_it_leave))
        last = asyncio.ensure_future(database.write(create("A")))
        return list(await asyncio.gather(leaver, last, return_exceptions=True))

    gone, a = run(alchemy, main)
    assert isinstance(gone, asyncio.CancelledError)
    assert (a, names()) == ("A", ["A", "Gone"])


def test_stop_writes_what_waits_and_rejects_the_rest(alchemy: AlchemyConfig, names: Names) -> None:
    async def main() -> list[Any]:
        database = Database(alchemy)
        async with asyncio.timeout(30), database.open():
            writes = [asyncio.ensure_future(database.write(create(name))) for name in "AB"]
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return list(await asyncio.gather(*writes, database.write(create("Late")), return_exceptions=True))

    *written, late = asyncio.run(main())
    assert written == ["A", "B"] == names()
    assert isinstance(late, DatabaseUnavailableError)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_stop_leaves_a_hung_write_behind(alchemy: AlchemyConfig, names: Names) -> None:
    """After `Timeouts.close`; the writes behind it are rejected, and not stored."""
    begun, release, threads = threading.Event(), threading.Event(), {*threading.enumerate()}

    def hang(_session: Session) -> str:
        begun.set()
        release.wait(30)
        raise ZeroDivisionError

    async def main() -> list[Any]:
        database = Database(alchemy)
        async with database.open():
            writes = [asyncio.ensure_future(database.write(hang))]
            await asyncio.to_thread(begun.wait, 30)
            writes.append(asyncio.ensure_future(database.write(create("Late"))))
            await asyncio.sleep(0)
        assert not writes[0].done()
        release.set()
        return list(await asyncio.gather(*writes, return_exceptions=True))

    hung, late = asyncio.run(asyncio.wait_for(main(), 30))
    assert (type(hung), type(late)) == (ZeroDivisionError, DatabaseUnavailableError)
    assert names() == []
    for thread in {*threading.enumerate()} - threads:  # no time was left to wait for any of them
        thread.join()


def test_writes_that_are_locked_leave_threads_for_others(mariadb: MariaDB, mysql_url: str) -> None:
    """One after the other, each in a group of its own, or many at once."""

    async def main(database: Database) -> None:
        await database.write(create("Locked"))
        with open_session(mariadb, mysql_url, "SELECT * FROM students WHERE id = 1 FOR UPDATE"):
            locked = []
            for count in (1, 1, 2 * THREADS):
                locked += [asyncio.ensure_future(database.write(update)) for _ in range(count)]
                await asyncio.sleep(0.1)
            assert await database.write(create("A")) == "A"
            assert not any(future.done() for future in locked)
            outcomes = await asyncio.gather(*locked, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {DatabaseUnavailableError}, "which is not that of a queue"
        assert await database.write(create("B")) == "B"

    with prepare(mysql_url, Timeouts(lock=6, queue=8)) as alchemy:
        run(alchemy, main)


def test_lock_is_waited_for_as_long_whoever_else_waits(mariadb: MariaDB, mysql_url: str) -> None:
    """Where a try takes a second, as that of a unit of work which does not know NOWAIT, not all have one in time."""
    runs: Counter[int] = Counter()

    def make(number: int) -> Callable[[Session], None]:
        def work(session: Session) -> None:
            runs[number] += 1
            session.connection().exec_driver_sql("UPDATE students SET cgpa = 2 WHERE id = 1")

        return work

    async def main(database: Database) -> None:
        await database.write(create("Locked"))
        with open_session(mariadb, mysql_url, "SELECT * FROM students WHERE id = 1 FOR UPDATE"):
            locked = [asyncio.ensure_future(database.write(make(number))) for number in range(4 * THREADS)]
            for write in locked:
                with pytest.raises(DatabaseUnavailableError, match="Lock wait timeout"):
                    await write

    with prepare(mysql_url, Timeouts(lock=3, queue=60)) as alchemy:
        run(alchemy, main)
    assert len(runs) < 4 * THREADS


def exhaust_ids(query: Callable[..., Rows]) -> None:
    """Leave no id for the next student, whatever the database."""
    try:
        query("UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'students'")
    except pymysql.err.ProgrammingError:
        query("ALTER TABLE students AUTO_INCREMENT = 2147483647")
        query("INSERT INTO students (name, department, cgpa) VALUES ('Last', 'CSE', 1)")


def test_outage_of_one_statement_is_its_own_writers(alchemy: AlchemyConfig, query: Callable[..., Rows]) -> None:
    """A write without an id left fails; another one, of its group, is stored."""
    query("INSERT INTO students (id, name, department, cgpa) VALUES (1, 'First', 'CSE', 1)")
    exhaust_ids(query)

    async def main(database: Database) -> list[Any]:
        works: list[Callable[[UnitOfWork], Any]] = [create("A"), update, create("B")]
        return list(await asyncio.gather(*map(database.write, works), return_exceptions=True))

    outcomes = run(alchemy, main)
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailableError, type(None), DatabaseUnavailableError]
    assert query("SELECT cgpa FROM students WHERE id = 1") == [(2,)]


def test_table_that_is_locked_is_its_own_writers(mariadb: MariaDB, mysql_url: str) -> None:
    """As by a dump of the keys: who needs another table does not wait for it longer than the rest of its group."""

    def save_key(session: Session) -> None:
        session.connection().exec_driver_sql("DELETE FROM idempotency_keys WHERE `key` = 'x'")

    async def main(database: Database) -> None:
        await database.write(create("First"))
        with open_session(mariadb, mysql_url, "LOCK TABLES idempotency_keys WRITE"):
            locked = [asyncio.ensure_future(database.write(save_key)) for _ in range(THREADS)]
            other = asyncio.ensure_future(database.write(update))
            await other
            assert not any(write.done() for write in locked)
        assert await asyncio.gather(*locked) == [None] * THREADS

    with prepare(mysql_url, Timeouts(lock=30, queue=60)) as alchemy:
        run(alchemy, main)


class Students(StudentService):
    """The students of a database that is new."""

    def __init__(self, alchemy: AlchemyConfig) -> None:
        self.database = Database(alchemy)
        self.database.compile(STUDENT.reads)
        self.database.listen(record_change)
        super().__init__(self.database)

    async def create_all(self, count: int) -> list[StudentRead]:
        """Create students in one transaction, as all that begins together is written."""
        return await asyncio.gather(*[self.create(StudentCreate("Name", "CSE", 1), "nobody") for _ in range(count)])


def run_students(alchemy: AlchemyConfig, main: Callable[[Students], Coroutine[Any, Any, T]]) -> T:
    async def open_and_run() -> T:
        students = Students(alchemy)
        async with asyncio.timeout(60), students.database.open():
            return await main(students)

    return asyncio.run(open_and_run())


def test_changes_of_one_student_in_a_group_see_each_other(alchemy: AlchemyConfig, query: Callable[..., Rows]) -> None:
    """The row is read for all of them at once, but each sees what the one before it has done."""

    async def main(students: Students) -> list[Any]:
        first, *_ = await students.create_all(3)
        version = parse_condition(etag(first), None)
        commits: list[Connection] = []
        event.listen(alchemy.get_engine(), "commit", commits.append)
        outcomes = await asyncio.gather(
            students.change(1, StudentPatch(cgpa=2), "nobody", version),
            students.change(1, StudentPatch(cgpa=3), "nobody", version),
            students.change(2, StudentCreate("New", "ME", 4), "nobody"),
            students.change(1, StudentPatch(name="Other"), "nobody"),
            students.delete(2, "nobody"),
            students.change(2, StudentPatch(cgpa=5), "nobody"),
            students.delete(99, "nobody"),
            return_exceptions=True,
        )
        assert len(commits) == 1
        return outcomes

    outcomes = [None if out is None else getattr(out, "cgpa", type(out)) for out in run_students(alchemy, main)]
    assert outcomes == [2, PreconditionFailedError, 4, 2, None, StudentNotFoundError, StudentNotFoundError]
    assert query("SELECT id, name, cgpa FROM students ORDER BY id") == [(1, "Other", 2), (3, "Name", 1)]
    entries = "SELECT action, before_name, before_cgpa, after_name, after_cgpa FROM history WHERE student_id = "
    assert query(entries + "1 ORDER BY id")[1:] == [
        ("update", "Name", 1, "Name", 2),
        ("update", "Name", 2, "Other", 2),
    ]
    assert query(entries + "2 ORDER BY id")[1:] == [
        ("update", "Name", 1, "New", 4),
        ("delete", "New", 4, None, None),
    ]


def test_statements_of_a_group(mariadb: MariaDB, mysql_url: str) -> None:
    """Its rows are locked by one, for each sixteen of them, and all entries of the history inserted by another."""

    def count() -> Counter[str]:
        kinds = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_select', 'Com_insert', 'Com_update', 'Com_commit')"
        return Counter({name: int(value) for name, value in mariadb.execute(kinds)})

    async def main(students: Students) -> list[Counter[str]]:
        counts = [count()]
        await students.create_all(20)
        counts.append(count())
        await asyncio.gather(*[students.change(20 - number, StudentPatch(cgpa=2), "nobody") for number in range(20)])
        return [*counts, count()]

    with prepare(mysql_url) as alchemy:
        before, between, after = run_students(alchemy, main)
    assert between - before == {"Com_insert": 21, "Com_commit": 1}
    assert after - between == {"Com_select": 2, "Com_update": 20, "Com_insert": 1, "Com_commit": 1}


def test_rows_of_a_group_are_locked_in_their_order(mysql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else two groups could wait for each other; where one row is changed it is left to its unit of work."""
    locked: list[Sequence[RowKey]] = []
    monkeypatch.setattr(UnitOfWork, "lock_all", lambda _, rows: locked.append(rows))

    async def main(alchemy: AlchemyConfig) -> None:
        database = Database(alchemy)
        async with asyncio.timeout(60), database.open():
            for rows in ([3, 1, 2, 1, None], [4, 4], [None, 5]):
                works = [create(f"{row}") for row in rows]
                keys = [None if row is None else (STUDENT.table, row) for row in rows]
                written = [database.write(work, row=key) for work, key in zip(works, keys, strict=True)]
                assert await asyncio.gather(*written) == [f"{row}" for row in rows]

    with prepare(mysql_url) as alchemy:
        asyncio.run(main(alchemy))
    assert locked == [[(STUDENT.table, 1), (STUDENT.table, 2), (STUDENT.table, 3)]]


@pytest.mark.parametrize("scheme", ["mysql", "mariadb"])
@pytest.mark.parametrize("key", ["id INT PRIMARY KEY", "code CHAR(36) PRIMARY KEY DEFAULT (uuid()), id INT UNIQUE"])
def test_rows_beside_those_of_a_group_may_be_locked(mariadb: MariaDB, mysql_url: str, scheme: str, key: str) -> None:
    """Also in a small table, which a server would rather scan, and where the id is not its primary key."""
    mariadb.execute(
        f"CREATE TABLE students ({key} AUTO_INCREMENT, name VARCHAR(99), department VARCHAR(99), cgpa DOUBLE)",
        database=mysql_url.rpartition("/")[2],
    )
    with prepare(mysql_url.replace("mysql", scheme, 1), Timeouts(lock=1)) as alchemy:
        run_students(alchemy, lambda students: students.create_all(5))
        with (
            open_session(mariadb, mysql_url, "SELECT * FROM students WHERE id = 2 FOR UPDATE"),
            open_transactions(alchemy) as transactions,
        ):
            (outcome,) = transactions.run([lambda unit: unit.lock_all([(STUDENT.table, row) for row in (1, 3, 4, 5)])])
            assert outcome is None
            (outcome,) = transactions.run([lambda unit: unit.lock_all([(STUDENT.table, row) for row in (1, 2)])])
            assert "Lock wait timeout" in str(outcome)


TRIGGER = """
    CREATE TRIGGER partner AFTER UPDATE OF cgpa ON students WHEN new.id = 1
    BEGIN UPDATE students SET cgpa = new.cgpa WHERE id = 2; END
"""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_row_that_a_trigger_has_changed_in_its_group(alchemy: AlchemyConfig, query: Callable[..., Rows]) -> None:
    """Another program's trigger changes a second student; who knows only the version before that is rejected."""

    async def main(students: Students) -> list[Any]:
        version = parse_condition(",".join([etag(student) for student in await students.create_all(2)]), None)
        writes = [students.change(number, StudentPatch(cgpa=9.0 - number), "nobody", version) for number in (1, 2)]
        return list(await asyncio.gather(*writes, return_exceptions=True))

    query(TRIGGER)
    one, two = run_students(alchemy, main)
    assert (one.cgpa, type(two)) == (8, PreconditionFailedError)
    assert query("SELECT cgpa FROM students ORDER BY id") == [(8,), (8,)]


def test_row_that_a_foreign_key_has_deleted_in_its_group(mysql_url: str, mysql_query: Callable[..., Rows]) -> None:
    async def main(students: Students) -> list[Any]:
        await students.create_all(3)
        mysql_query("UPDATE students SET leader = 1 WHERE id = 2")
        same = [students.change(number, StudentPatch(cgpa=1), "nobody") for number in (2, 3)]
        return list(await asyncio.gather(students.delete(1, "nobody"), *same, return_exceptions=True))

    with prepare(mysql_url) as alchemy:
        mysql_query("ALTER TABLE students ADD leader INT REFERENCES students (id) ON DELETE CASCADE")
        deleted, follower, other = run_students(alchemy, main)
    assert (deleted, type(follower), other.id) == (None, StudentNotFoundError, 3)


def test_history_that_cannot_be_written_is_its_own_writers(alchemy: AlchemyConfig, query: Callable[..., Rows]) -> None:
    """It is inserted for all of a group; those whose entries fit are stored without the other."""

    async def main(students: Students) -> list[Any]:
        await students.create_all(2)
        writes = (
            students.change(1, StudentPatch(cgpa=2), "nobody"),
            students.change(2, StudentPatch(cgpa=3), "somebody"),
            students.create(StudentCreate("New", "CSE", 4), "nobody"),
        )
        return list(await asyncio.gather(*writes, return_exceptions=True))

    query(
        "CREATE TRIGGER refuse BEFORE INSERT ON history FOR EACH ROW "
        + {"sqlite": "WHEN new.who = 'somebody' BEGIN SELECT RAISE(ABORT, 'no'); END"}.get(
            alchemy.get_engine().dialect.name, "IF new.who = 'somebody' THEN SIGNAL SQLSTATE '45000'; END IF"
        )
    )
    one, two, new = run_students(alchemy, main)
    assert (one.cgpa, type(two), new.cgpa) == (2, ConstraintError, 4)
    assert query("SELECT cgpa FROM students ORDER BY id") == [(2,), (1,), (4,)]
    assert query("SELECT student_id FROM history WHERE action = 'update'") == [(1,)]


def test_many_locked_writes_leave_threads_for_others(mysql_url: str, mariadb: MariaDB) -> None:
    """A row that is locked is not waited for at first: of a hundred such writes each would hold a thread a second."""
    with serve_database(mysql_url, Timeouts(queue=2)) as client, ThreadPoolExecutor(64) as pool:
        for _ in range(2):
            assert client.post("/student", json=ANANYA).status_code == 201
        with open_session(mariadb, mysql_url, "SELECT * FROM students WHERE id = 1 FOR UPDATE"):
            bodies = [(1 + number % 2, {"cgpa": 1 + number / 100}) for number in range(64)]
            responses = pool.map(lambda args: client.patch(f"/student/{args[0]}", json=args[1]), bodies)
            statuses = [response.status_code for response in responses]
        assert statuses[1::2] == [200] * 32
        assert statuses[::2] == [503] * 32
