"""An SQLite file that is moved, replaced or deleted under the running service: no acknowledged write is lost."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from litestar_app.database import Database
from litestar_app.exceptions import CommitUnknownError, DatabaseFileError
from tests.conftest import query_sqlite
from tests.database import make_transactions, prepare
from tests.service import ANANYA, Service

DELETE = text("DELETE FROM students")
INSERT = text("INSERT INTO students (name, department, cgpa) VALUES ('Ananya', 'CSE', 8.9)")
NAMES = "SELECT name FROM students ORDER BY id"


def replace_by_backup(path: Path) -> None:
    path.with_name("backup.db").replace(path)


def delete(path: Path) -> None:
    path.unlink()


def delete_log(path: Path) -> None:
    path.with_name("students.db-wal").unlink()
    path.with_name("students.db-shm").unlink()


def delete_index(path: Path) -> None:
    """Two processes that have another index of the log do not see each other's writes."""
    path.with_name("students.db-shm").unlink()


def delete_all(path: Path) -> None:
    delete_log(path)
    path.unlink()


def repoint(path: Path) -> None:
    """Have the name, which is a link, lead to the backup."""
    link = path.with_name("link")
    link.symlink_to(path.with_name("backup.db"))
    link.replace(path)


@pytest.mark.parametrize("change", [replace_by_backup, delete, delete_log, delete_index, delete_all, repoint])
def test_replaced_file_stops_all_use(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Reads, writes and readiness are 503, the log has one line that says what to do, and the backup stays whole."""
    path, backup = tmp_path / "students.db", tmp_path / "backup.db"
    if change is repoint:
        path.symlink_to("v1.db")
    with Service(tmp_path, LOG_LEVEL="warning") as service:
        client = service.client
        assert client.post("/student", json=ANANYA).status_code == 201
        query_sqlite(path, "VACUUM INTO ?", str(backup))
        assert client.post("/student", json={**ANANYA, "name": "Boris"}).status_code == 201
        change(path)
        for method, url in (
            ("POST", "/student"),
            ("PUT", "/student/1"),
            ("GET", "/student/1"),
            ("GET", "/health/ready"),
        ):
            assert client.request(method, url, json=ANANYA if method != "GET" else None).status_code == 503
        assert client.get("/students?limit=1000&offset=1000").status_code == 503
        assert client.get("/health/live").status_code == 200
        service.stop()
        (line,) = (line for line in service.log().splitlines() if "ERROR" in line)
    assert "stop it, put the right file in place, remove its -wal and -shm, and start it again" in line
    assert "Traceback" not in service.log()
    if change in {replace_by_backup, repoint}:
        for leftover in (*tmp_path.glob("students.db-*"), *tmp_path.glob("backup.db-*")):
            leftover.unlink()
        assert query_sqlite(path, "PRAGMA integrity_check") == [("ok",)]
        assert query_sqlite(path, NAMES) == [("Ananya",)]
    if change is repoint:
        assert query_sqlite(tmp_path / "v1.db", NAMES) == [("Ananya",), ("Boris",)]
    if change is delete_log:
        assert query_sqlite(path, NAMES) == [("Ananya",), ("Boris",)]
    if change is delete_all:
        assert not path.exists()


def test_deleted_log_loses_nothing_even_in_a_crash(sqlite_url: str, sqlite_path: Path, tmp_path: Path) -> None:
    """As soon as the service notices, it saves what its open log holds to the file itself."""
    with prepare(sqlite_url) as alchemy:
        assert alchemy.file is not None
        alchemy.file.open(alchemy.get_engine())
        transactions = make_transactions(alchemy)
        transactions.run([lambda session: session.execute(INSERT)])
        delete_log(sqlite_path)
        with pytest.raises(DatabaseFileError):
            alchemy.file.check()
        shutil.copy(sqlite_path, tmp_path / "copy.db")  # what a crash would leave
        assert query_sqlite(tmp_path / "copy.db", NAMES) == [("Ananya",)]
        transactions.close()
        alchemy.file.close()


@pytest.mark.parametrize("replace", [Path.touch, Path.mkdir], ids=["empty", "a directory"])
def test_file_replaced_before_the_start_stops_it(
    sqlite_url: str, sqlite_path: Path, replace: Callable[[Path], None]
) -> None:
    """Between the look at its tables and the first request."""

    async def main(database: Database) -> None:
        async with database.open():
            pytest.fail("it has started")

    with prepare(sqlite_url) as alchemy:
        alchemy.get_engine().dispose()
        sqlite_path.unlink()
        replace(sqlite_path)
        with pytest.raises(OperationalError):
            asyncio.run(main(Database(alchemy)))


def test_restore_as_documented(tmp_path: Path) -> None:
    """Back up while the service runs; stop, remove the log, put the copy in place, start."""
    path = tmp_path / "students.db"
    with Service(tmp_path) as service:
        service.client.post("/student", json=ANANYA)
        source, copy = sqlite3.connect(path), sqlite3.connect(tmp_path / "copy.db")
        source.backup(copy)
        source.close()
        copy.close()
        assert service.client.delete("/student/1").status_code == 200
        service.stop(SIGKILL)
        for suffix in ("-wal", "-shm"):
            path.with_name(f"students.db{suffix}").unlink()
        (tmp_path / "copy.db").replace(path)
        service.start()
        assert service.client.get("/students").json() == [{"id": 1, **ANANYA}]
        assert service.client.post("/student", json=ANANYA).json()["id"] == 2


def test_file_replaced_during_a_transaction(sqlite_url: str, sqlite_path: Path) -> None:
    """Its COMMIT went to a file that nobody will find: never a success."""
    with prepare(sqlite_url) as alchemy:
        assert alchemy.file is not None
        alchemy.file.open(alchemy.get_engine())
        transactions = make_transactions(alchemy)

        def move(session: Session) -> None:
            session.execute(DELETE)
            sqlite_path.rename(sqlite_path.with_name("moved.db"))

        assert [type(outcome) for outcome in transactions.run([move])] == [CommitUnknownError]
        outcomes = transactions.run([lambda session: session.execute(DELETE)])
        assert [type(outcome) for outcome in outcomes] == [DatabaseFileError]
        with pytest.raises(DatabaseFileError):
            alchemy.get_engine().connect()
        sqlite_path.with_name("moved.db").rename(sqlite_path)  # too late: another program may have used the name
        with pytest.raises(DatabaseFileError):
            alchemy.file.check()
        transactions.close()
        alchemy.file.close()
