"""Writes that come together on SQLite: one COMMIT for all of them, and none of them suffers for another."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pymysql
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError, OperationalError

from litestar_app import database
from litestar_app.database import create_alchemy_config, prepare_database
from litestar_app.lanes import Lanes
from litestar_app.settings import Settings
from litestar_app.transactions import OvertakenError, Transactions
from tests.conftest import query_sqlite
from tests.mariadb import MariaDB
from tests.service import ANANYA, serve_database


@pytest.fixture
def engine(sqlite_url: str, sent: list[str]) -> Iterator[Engine]:
    engine = create_alchemy_config(Settings(database_url=sqlite_url)).get_engine()
    prepare_database(engine)
    with engine.begin() as connection:
        deferred = "CREATE TABLE child (id INTEGER REFERENCES students (id) DEFERRABLE INITIALLY DEFERRED)"
        connection.execute(text(deferred))
    sent.clear()
    yield engine
    engine.dispose()


@pytest.fixture
def lanes(engine: Engine) -> Iterator[Lanes]:
    lanes = Lanes(engine)
    yield lanes
    lanes.close()


@pytest.fixture
def stored(sqlite_path: Path) -> Callable[[], list[str]]:
    return lambda: [name for (name,) in query_sqlite(sqlite_path, "SELECT name FROM students ORDER BY id")]


def create(connection: Connection, name: str) -> str:
    connection.execute(text("INSERT INTO students (name, department, cgpa) VALUES (:n, 'CSE', 8.9)"), {"n": name})
    return name


def raise_after_a_change(connection: Connection) -> str:
    create(connection, "Doomed")
    raise ZeroDivisionError


def fail_at_commit(connection: Connection) -> str:
    connection.execute(text("INSERT INTO child VALUES (99)"))
    return create(connection, "Doomed")


async def write_behind_another(
    lanes: Lanes, *works: Callable[[Connection], str], leaves: Callable[[Connection], str] | None = None
) -> list[str | BaseException]:
    """Write these while another write is under way, so that they wait for it together; one may not wait to the end."""
    begun, release = threading.Event(), threading.Event()

    def first(connection: Connection) -> str:
        begun.set()
        assert release.wait(10)
        return create(connection, "First")

    async with asyncio.timeout(30):
        one = asyncio.ensure_future(lanes.write(first))
        await asyncio.to_thread(begun.wait, 10)
        others = [asyncio.ensure_future(lanes.write(work)) for work in works]
        await asyncio.sleep(0)
        if leaves:
            others[works.index(leaves)].cancel()
        release.set()
        return await asyncio.gather(one, *others, return_exceptions=True)


def test_writes_that_wait_share_one_commit(lanes: Lanes, sent: list[str], stored: Callable[[], list[str]]) -> None:
    names = ["Ananya", "Boris", "Chen"]
    works = [lambda connection, name=name: create(connection, name) for name in names]
    assert asyncio.run(write_behind_another(lanes, *works)) == ["First", *names] == stored()
    assert sent.count("COMMIT") == 2


@pytest.mark.parametrize(
    ("bad", "error"), [(raise_after_a_change, ZeroDivisionError), (fail_at_commit, IntegrityError)]
)
def test_one_that_fails_takes_nobody_with_it(
    lanes: Lanes, stored: Callable[[], list[str]], bad: Callable[[Connection], str], error: type[Exception]
) -> None:
    outcomes = asyncio.run(
        write_behind_another(lanes, lambda c: create(c, "Ananya"), bad, lambda c: create(c, "Boris"))
    )
    assert [outcome for outcome in outcomes if isinstance(outcome, str)] == ["First", "Ananya", "Boris"] == stored()
    assert isinstance(outcomes[2], error)


def test_one_that_was_overtaken_is_tried_again(engine: Engine, stored: Callable[[], list[str]]) -> None:
    tries = []

    def overtaken(connection: Connection) -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OvertakenError
        return create(connection, "Chen")

    works = [lambda c: create(c, "Ananya"), overtaken, lambda c: create(c, "Boris")]
    assert Transactions(engine).run_group(works) == ["Ananya", "Chen", "Boris"] == stored()


def test_behind_a_lock_all_wait_together_and_not_in_turns(
    sqlite_url: str,
    sqlite_path: Path,
    stored: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    sent: list[str],
) -> None:
    monkeypatch.setitem(database.SQLITE.connect_args, "timeout", 0.1)  # type: ignore[arg-type]
    engine = create_alchemy_config(Settings(database_url=sqlite_url)).get_engine()
    prepare_database(engine)
    lock = sqlite3.connect(sqlite_path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    sent.clear()
    transactions = Transactions(engine)
    outcomes = transactions.run_group([lambda c: create(c, "Ananya"), lambda c: create(c, "Boris")])
    lock.close()
    assert [type(outcome) for outcome in outcomes] == [OperationalError, OperationalError]
    assert sent.count("BEGIN IMMEDIATE") == 1
    assert transactions.run_group([lambda c: create(c, "Chen")]) == ["Chen"] == stored()
    transactions.close()
    engine.dispose()


def test_who_waits_behind_a_lock_in_a_group_that_fell_apart_does_not_wait_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("litestar_app.transactions.LOCK_SECONDS", 0.1)
    busy = sqlite3.OperationalError("database is locked")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
    late: list[str] = []

    def wait(_connection: Connection) -> str:
        raise OperationalError("", None, busy)

    def come_late(connection: Connection) -> str:
        late.append("called")
        return create(connection, "Ananya")

    outcomes = Transactions(engine).run_group([raise_after_a_change, wait, come_late])
    assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError, OperationalError, OperationalError]
    assert late == []


def test_whoever_has_gone_before_the_turn_comes_is_left_out(lanes: Lanes, stored: Callable[[], list[str]]) -> None:
    works = [lambda c: create(c, "Gone"), lambda c: create(c, "Ananya")]
    first, gone, ananya = asyncio.run(write_behind_another(lanes, *works, leaves=works[0]))
    assert isinstance(gone, asyncio.CancelledError)
    assert [first, ananya] == ["First", "Ananya"] == stored()


def test_whoever_goes_while_the_group_runs_leaves_the_others_their_answers(
    lanes: Lanes, stored: Callable[[], list[str]]
) -> None:
    async def go_meanwhile() -> list[str | BaseException]:
        leaver: list[asyncio.Future[str]] = []
        loop = asyncio.get_running_loop()

        def see_it_go(connection: Connection) -> str:
            gone = threading.Event()
            loop.call_soon_threadsafe(leaver[0].cancel)
            loop.call_soon_threadsafe(gone.set)
            assert gone.wait(10)
            return create(connection, "Gone")

        async with asyncio.timeout(30):
            first = asyncio.ensure_future(lanes.write(lambda c: create(c, "First")))
            await asyncio.sleep(0)
            leaver.append(asyncio.ensure_future(lanes.write(see_it_go)))
            last = lanes.write(lambda c: create(c, "Ananya"))
            return list(await asyncio.gather(first, leaver[0], last, return_exceptions=True))

    first, gone, ananya = asyncio.run(go_meanwhile())
    assert isinstance(gone, asyncio.CancelledError)
    assert [first, ananya] == ["First", "Ananya"]
    assert stored() == ["First", "Gone", "Ananya"]


@pytest.mark.parametrize("error", [StopIteration, asyncio.CancelledError, KeyboardInterrupt])
def test_nobody_waits_for_ever_whatever_another_raises(
    lanes: Lanes, stored: Callable[[], list[str]], error: type[BaseException]
) -> None:
    def bad(_connection: Connection) -> str:
        raise error

    async def write() -> list[str | BaseException]:
        works = [lambda c: create(c, "Ananya"), bad, lambda c: create(c, "Boris")]
        outcomes = await write_behind_another(lanes, *works)
        return [*outcomes, await lanes.write(lambda c: create(c, "Chen"))]

    if error is KeyboardInterrupt:  # asyncio raises it again from the loop, as it should
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(write())
        return
    outcomes = asyncio.run(write())
    assert isinstance(outcomes.pop(2), RuntimeError if error is StopIteration else error)
    assert outcomes == ["First", "Ananya", "Boris", "Chen"] == stored()


def test_a_thread_that_cannot_be_started_is_an_error_and_the_next_write_tries_again(
    lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write() -> list[str | BaseException]:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start_nothing)
            (failed,) = await asyncio.gather(lanes.write(lambda c: create(c, "Ananya")), return_exceptions=True)
        async with asyncio.timeout(30):
            return [failed, await lanes.write(lambda c: create(c, "Boris"))]

    def start_nothing(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    failed, boris = asyncio.run(write())
    assert isinstance(failed, RuntimeError)
    assert boris == "Boris"


def test_what_comes_when_the_service_has_ended_is_an_error(lanes: Lanes, stored: Callable[[], list[str]]) -> None:
    async def write() -> list[str | BaseException]:
        begun = threading.Event()

        def first(connection: Connection) -> str:
            begun.set()
            return create(connection, "First")

        one = asyncio.ensure_future(lanes.write(first))
        await asyncio.to_thread(begun.wait, 10)
        two = asyncio.ensure_future(lanes.write(lambda c: create(c, "Late")))
        await asyncio.sleep(0)
        lanes.close()
        async with asyncio.timeout(30):
            return list(await asyncio.gather(one, two, return_exceptions=True))

    first, late = asyncio.run(write())
    assert first == "First"
    assert isinstance(late, RuntimeError)
    assert stored() == ["First"]


def test_on_mysql_nobody_waits_for_the_lock_of_another(mysql_url: str, mariadb: MariaDB) -> None:
    """There the server takes several writes at a time."""
    name = mysql_url.rpartition("/")[2]
    session = pymysql.connect(host="127.0.0.1", port=mariadb.port, user="root", database=name)
    with serve_database(mysql_url) as client, ThreadPoolExecutor(1) as pool, session, session.cursor() as cursor:
        for _ in range(2):
            client.post("/student", json=ANANYA)
        cursor.execute("SELECT * FROM students WHERE id = 1 FOR UPDATE")
        waits = pool.submit(client.put, "/student/1", json=ANANYA)
        for _ in range(5):
            assert client.put("/student/2", json=ANANYA).status_code == 200
        assert not waits.done()
        session.rollback()
        assert waits.result().status_code == 200


def test_many_clients_at_once_get_each_their_own(sqlite_url: str, sqlite_path: Path) -> None:
    """Creations, and changes of students who are there and who are not, all at the same time."""
    with serve_database(sqlite_url) as client, ThreadPoolExecutor(32) as pool:
        client.post("/student", json=ANANYA)

        def ask(number: int) -> tuple[int, httpx.Response]:
            if number % 3 == 0:
                return 404, client.put(f"/student/{10**6 + number}", json=ANANYA)
            if number % 3 == 1:
                return 412, client.patch("/student/1", json={"cgpa": 1}, headers={"If-Match": '"other"'})
            return 201, client.post("/student", json={**ANANYA, "name": f"Student {number}"})

        answers = list(pool.map(ask, range(300)))
    assert all(answer.status_code == expected for expected, answer in answers)
    created = {answer.json()["id"]: answer.json()["name"] for expected, answer in answers if expected == 201}
    assert dict(query_sqlite(sqlite_path, "SELECT id, name FROM students WHERE id > 1")) == created
    assert len(created) == 100
