"""An SQLite file that is moved, replaced or deleted under the running service: no acknowledged write is lost."""

import logging
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import Engine, QueuePool, text
from sqlalchemy.orm import Session

from litestar_app.app import create_app
from litestar_app.database import sqlite
from litestar_app.database.config import create_alchemy_config
from litestar_app.database.reads import MAX_CHECK_AGE
from litestar_app.database.sqlite import MAX_LOG, SQLite
from litestar_app.exceptions import CommitUnknownError, DatabaseFileError, SettingsError
from litestar_app.settings import Settings
from tests.conftest import query_sqlite
from tests.database import create, open_transactions, prepare
from tests.service import ANANYA, UNAVAILABLE, Service, serve_app, serve_database

NAMES = "SELECT name FROM students ORDER BY id"


def replace_by_backup(path: Path) -> None:
    path.with_name("backup.db").replace(path)


def delete_log(path: Path) -> None:
    path.with_name("students.db-wal").unlink()
    path.with_name("students.db-shm").unlink()


def replace_log(path: Path) -> None:
    """Put a copy of the log in its place."""
    log = path.with_name("students.db-wal")
    shutil.copy(log, path.with_name("copy"))
    path.with_name("copy").replace(log)


def delete_index(path: Path) -> None:
    """Two processes that have another index of the log do not see each other's writes."""
    path.with_name("students.db-shm").unlink()


def delete_all(path: Path) -> None:
    delete_log(path)
    path.unlink()


def move_away(path: Path) -> None:
    path.rename(path.with_name("v1.db"))


def repoint(path: Path) -> None:
    """Have the name, which is a link, lead to the backup."""
    link = path.with_name("link")
    link.symlink_to(path.with_name("backup.db"))
    link.replace(path)


@pytest.mark.parametrize(
    "change", [replace_by_backup, Path.unlink, move_away, delete_log, replace_log, delete_index, delete_all, repoint]
)
def test_replaced_file_stops_all_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None]
) -> None:
    """The log has one line that says what to do, the backup stays whole, and a deleted log survives even a crash."""
    path, backup = tmp_path / "students.db", tmp_path / "backup.db"
    if change is repoint:
        path.symlink_to("v1.db")
    with serve_database(f"sqlite:///{path}") as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        query_sqlite(path, "VACUUM INTO ?", str(backup))
        assert client.post("/student", json={**ANANYA, "name": "Boris"}).status_code == 201
        change(path)
        for method, url, body in (
            ("POST", "/student", ANANYA),
            ("PUT", "/student/1", ANANYA),
            ("GET", "/student/1", None),
            ("GET", "/health/ready", None),
            ("GET", "/students?limit=1000&offset=1000", None),
        ):
            response = client.request(method, url, json=body)
            assert (response.status_code, response.json()["detail"]) == (503, UNAVAILABLE)
        assert client.get("/health/live").status_code == 200
        if change in {delete_log, delete_index}:
            shutil.copy(path, tmp_path / "crashed.db")  # what a crash would leave
            assert query_sqlite(tmp_path / "crashed.db", NAMES) == [("Ananya",), ("Boris",)]
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    if change in {replace_by_backup, Path.unlink, move_away, delete_all}:
        assert not path.with_name("students.db-wal").exists()
        assert not path.with_name("students.db-shm").exists()
        assert "; stop the service, put the right file in place, and start it again" in record.getMessage()
    else:
        assert "stop it, put the right file in place, remove its -wal and -shm, and start it" in record.getMessage()
    if change in {replace_by_backup, Path.unlink, delete_all}:  # whose content has no other name
        (deleted,) = tmp_path.glob("students.db.deleted-*")
        assert f"it was deleted, and {deleted} holds everything that was stored" in record.getMessage()
        assert query_sqlite(deleted, NAMES) == [("Ananya",), ("Boris",)]
        assert stat.S_IMODE(deleted.stat().st_mode) == 0o600
    for leftover in (*tmp_path.glob("students.db-*"), *tmp_path.glob("backup.db-*")):
        leftover.unlink()
    if change in {replace_by_backup, repoint}:
        assert query_sqlite(path, "PRAGMA integrity_check") == [("ok",)]
        assert query_sqlite(path, NAMES) == [("Ananya",)]
    if change in {move_away, repoint}:
        assert query_sqlite(tmp_path / "v1.db", NAMES) == [("Ananya",), ("Boris",)]
    if change is delete_all:
        assert not path.exists()


def test_file_in_its_place_is_not_damaged(tmp_path: Path, sqlite_path: Path, sqlite_url: str) -> None:
    """Every acknowledged write is in the file that was moved; another program writes into the new one meanwhile."""
    moved, other = tmp_path / "moved.db", tmp_path / "other.db"
    with Service(tmp_path, DATABASE_URL=sqlite_url) as service:
        for number in range(50):
            assert service.client.post("/student", json={**ANANYA, "name": f"old {number}"}).status_code == 201
        query_sqlite(sqlite_path, "VACUUM INTO ?", str(other))
        with closing(sqlite3.connect(other)) as connection, connection:
            connection.executemany("INSERT INTO students (name, department, cgpa) VALUES (?, '', 1)", [("x",)] * 3000)
        for number in range(50):
            assert service.client.post("/student", json={**ANANYA, "name": f"new {number}"}).status_code == 201
        sqlite_path.rename(moved)
        other.rename(sqlite_path)
        while "was moved, replaced or deleted" not in service.log():  # without a request
            time.sleep(0.05)
        with closing(sqlite3.connect(sqlite_path)) as connection:
            assert connection.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
            for _ in range(2):
                with connection:
                    connection.execute("INSERT INTO students (name, department, cgpa) VALUES ('theirs', '', 1)")
                assert service.client.get("/health/ready").status_code == 503
            assert sqlite_path.with_name("students.db-wal").exists()
            service.stop()
            assert sqlite_path.with_name("students.db-wal").exists()
        assert "the file that was open holds everything that was stored" in service.log()
    for path, count in ((moved, 100), (sqlite_path, 3052)):
        assert query_sqlite(path, "PRAGMA integrity_check") == [("ok",)]
        assert query_sqlite(path, "SELECT count(*) FROM students") == [(count,)]


def test_log_of_another_program_is_left_alone(sqlite_url: str, sqlite_path: Path) -> None:
    """It has opened the new file already, and the service's own log has gone with the old one."""
    moved = sqlite_path.with_name("moved")
    moved.mkdir()
    with serve_database(sqlite_url) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        for suffix in ("-wal", "-shm", ""):
            sqlite_path.with_name(f"students.db{suffix}").rename(moved / f"students.db{suffix}")
        with closing(sqlite3.connect(sqlite_path)) as other:
            other.execute("PRAGMA journal_mode=WAL")
            with other:
                other.execute("CREATE TABLE theirs (x)")
            assert client.post("/student", json=ANANYA).status_code == 503
            with other:
                other.execute("INSERT INTO theirs VALUES (1)")
            assert query_sqlite(sqlite_path, "SELECT x FROM theirs") == [(1,)]
    assert query_sqlite(moved / "students.db", NAMES) == [("Ananya",)]
    assert [*sqlite_path.parent.glob("*.aside-*")] == []


@pytest.mark.parametrize("change", [move_away, delete_index, delete_log, replace_log])
def test_reader_does_not_keep_the_newest_writes_from_being_saved(
    sqlite_url: str, sqlite_path: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None]
) -> None:
    """The log cannot be folded in while a snapshot is read, also not by an orderly stop; a copy has everything."""
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as reader:
        with serve_database(sqlite_url) as client:
            reader.execute("BEGIN")
            assert reader.execute(NAMES).fetchall() == []
            assert client.post("/student", json=ANANYA).status_code == 201
            change(sqlite_path)
            assert client.post("/student", json=ANANYA).status_code == 503
        (copy,) = sqlite_path.parent.glob("students.db.saved-*")
        assert f"{copy} holds everything that was stored" in caplog.text
    assert query_sqlite(copy, NAMES) == [("Ananya",)]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_copy_of_an_earlier_event_is_not_taken_for_the_newest(sqlite_url: str, sqlite_path: Path) -> None:
    """The file is the same one at both events, and so is the number of its inode."""
    for number in (1, 2):
        with (
            closing(sqlite3.connect(sqlite_path, isolation_level=None)) as reader,
            serve_database(sqlite_url) as client,
        ):
            reader.execute("BEGIN")
            assert len(reader.execute(NAMES).fetchall()) == number - 1
            assert client.post("/student", json=ANANYA).status_code == 201
            delete_index(sqlite_path)
            assert client.post("/student", json=ANANYA).status_code == 503
    copies = sqlite_path.parent.glob("students.db.saved-*")
    assert sorted(len(query_sqlite(copy, NAMES)) for copy in copies) == [1, 2]


@pytest.mark.parametrize(
    ("change", "where"), [(delete_index, "only in its -wal"), (delete_log, "lost when the service")]
)
def test_copy_that_cannot_be_made_is_told(
    sqlite_url: str, sqlite_path: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None], where: str
) -> None:
    """What is left to do differs: a log that was deleted holds nothing any more once the service stops."""
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as reader, serve_database(sqlite_url) as client:
        reader.execute("BEGIN")
        assert reader.execute(NAMES).fetchall() == []
        assert client.post("/student", json=ANANYA).status_code == 201
        sqlite_path.with_name(f"students.db.saved-{sqlite_path.stat().st_ino}.part").mkdir()
        change(sqlite_path)
        assert client.post("/student", json=ANANYA).status_code == 503
    (line,) = (record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR)
    assert "could not be copied" in line
    assert f"the newest writes are {'' if 'wal' in where else 'in no file that has a name, and are '}{where}" in line


def test_log_is_folded_in_at_the_stop_once_nobody_reads(
    sqlite_url: str, sqlite_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = sqlite_path.with_name("moved.db")
    with serve_database(sqlite_url) as client, closing(sqlite3.connect(sqlite_path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute(NAMES).fetchall() == []
        assert client.post("/student", json=ANANYA).status_code == 201
        sqlite_path.rename(moved)
        assert client.post("/student", json=ANANYA).status_code == 503
        (log,) = sqlite_path.parent.glob("students.db-wal.aside-*")
    assert "the file that was open now holds everything that was stored" in caplog.text
    log.unlink()
    assert query_sqlite(moved, NAMES) == [("Ananya",)]


def test_log_that_cannot_be_moved_aside_is_told(
    sqlite_url: str, sqlite_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory has the name that it would get."""
    with serve_database(sqlite_url) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        log = sqlite_path.with_name("students.db-wal")
        log.with_name(f"{log.name}.aside-{log.stat().st_ino}").mkdir()
        sqlite_path.rename(sqlite_path.with_name("moved.db"))
        assert client.get("/health/ready").status_code == 503
    assert "its -wal could not be moved aside" in caplog.text
    assert log.stat().st_size == 0  # so that there is nothing to replay
    assert query_sqlite(sqlite_path.with_name("moved.db"), NAMES) == [("Ananya",)]


def test_failed_look_passes(sqlite_url: str, sqlite_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A missing right, a disk or a network that fails: 503 with the reason, and 200 when it is over."""
    with serve_database(sqlite_url) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        for suffix in ("", "-wal", "-shm"):
            path = sqlite_path.with_name(f"students.db{suffix}")
            path.rename(path.with_name("away"))
            path.symlink_to(path)  # ELOOP, which the superuser gets too
            time.sleep(2 * MAX_CHECK_AGE)
            for method, url in (("POST", "/student"), ("GET", "/student/1"), ("GET", "/health/ready")):
                response = client.request(method, url, json=ANANYA if method == "POST" else None)
                assert (response.status_code, response.json()["detail"]) == (503, UNAVAILABLE)
            path.unlink()
            path.with_name("away").rename(path)
            assert client.get("/health/ready").status_code == 200
            assert client.post("/student", json=ANANYA).status_code == 201
    assert "the database file cannot be looked at: " in caplog.text
    assert "was moved, replaced or deleted" not in caplog.text
    assert query_sqlite(sqlite_path, NAMES) == [("Ananya",)] * 4


def test_log_that_somebody_reads_cannot_be_saved(sqlite_url: str, sqlite_path: Path) -> None:
    """What has come since they began to read stays in the log, and nobody waits for them."""
    with serve_database(sqlite_url) as client, closing(sqlite3.connect(sqlite_path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute(NAMES).fetchall() == []
        assert client.post("/student", json=ANANYA).status_code == 201
        delete_index(sqlite_path)
        assert client.post("/student", json=ANANYA).status_code == 503


def test_log_of_a_large_transaction_does_not_stay(sqlite_url: str, sqlite_path: Path) -> None:
    log = sqlite_path.with_name("students.db-wal")
    with serve_database(sqlite_url) as client:
        with closing(sqlite3.connect(sqlite_path)) as other, other:
            other.execute("CREATE TABLE others AS SELECT zeroblob(?)", [MAX_LOG + 2**20])
        assert log.stat().st_size > MAX_LOG
        assert client.post("/student", json=ANANYA).status_code == 201
        assert log.stat().st_size <= MAX_LOG


def test_service_that_ends_leaves_no_connection(sqlite_url: str) -> None:
    """Not even the second one of a process, whose engine the plugin forgets."""
    for _ in range(2):
        alchemy = create_alchemy_config(Settings(database_url=sqlite_url))
        pool = cast("QueuePool", alchemy.get_engine().pool)
        with serve_app(create_app(alchemy=alchemy)):
            assert pool.checkedout() > 0
        assert pool.checkedin() == pool.checkedout() == 0


def test_file_replaced_during_a_transaction(sqlite_url: str, sqlite_path: Path) -> None:
    """Its COMMIT went to a file that nobody will find: never a success. Moving the file back does not help."""

    def move(session: Session) -> None:
        session.execute(text("DELETE FROM students"))
        sqlite_path.rename(sqlite_path.with_name("moved.db"))

    with prepare(sqlite_url) as alchemy, open_transactions(alchemy) as transactions:
        alchemy.backend.close()  # which may come before a start has opened it
        alchemy.backend.open(alchemy.get_engine())
        assert [type(outcome) for outcome in transactions.run([move])] == [CommitUnknownError]
        sqlite_path.with_name("moved.db").rename(sqlite_path)  # another program may have used the name meanwhile
        assert [type(outcome) for outcome in transactions.run([create("A")])] == [DatabaseFileError]
        with pytest.raises(DatabaseFileError):
            alchemy.get_engine().connect()
        alchemy.backend.close()
    assert query_sqlite(sqlite_path, NAMES) == []


@pytest.fixture
def open_file(sqlite_url: str) -> Iterator[tuple[SQLite, Engine]]:
    """A file that is open, as a service has it."""
    with prepare(sqlite_url) as alchemy:
        assert isinstance(alchemy.backend, SQLite)
        alchemy.backend.open(alchemy.get_engine())
        yield alchemy.backend, alchemy.get_engine()
        alchemy.backend.close()


def refuse(_path: str) -> None:
    raise PermissionError(13, "Permission denied")


def test_file_that_cannot_be_identified_does_not_start(
    open_file: tuple[SQLite, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, engine = open_file
    backend.close()
    monkeypatch.setattr(sqlite, "identify", refuse)
    with pytest.raises(SettingsError, match="Permission denied"):
        backend.open(engine)


def test_nothing_is_done_about_files_that_cannot_be_seen(
    open_file: tuple[SQLite, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "identify", refuse)
    assert open_file[0].file._rescue().startswith("nothing was done about it ([Errno 13]")  # noqa: SLF001


def test_log_that_cannot_be_saved_is_told(open_file: tuple[SQLite, Engine], caplog: pytest.LogCaptureFixture) -> None:
    file = open_file[0].file
    assert file._save_log("PASSIVE")  # noqa: SLF001
    assert file._anchor is not None  # noqa: SLF001
    file._anchor.close()  # noqa: SLF001
    assert not file._save_log("PASSIVE")  # noqa: SLF001
    assert "its -wal could not be written into the file" in caplog.text
    assert not sqlite.DatabaseFile(file.path)._save_log("PASSIVE")  # noqa: SLF001  never opened


def test_index_of_sqlite_is_never_impossible(open_file: tuple[SQLite, Engine]) -> None:
    assert not open_file[0].is_impossible_index(ValueError())
    assert not open_file[0].is_missing_table(ValueError())


def test_copy_that_fails_leaves_no_part_of_it(open_file: tuple[SQLite, Engine], tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    (target / "full").mkdir(parents=True)
    with pytest.raises(OSError, match=r"copy\.db"):
        open_file[0].file._copy(str(target))  # noqa: SLF001
    assert not target.with_name("copy.db.part").exists()


def test_names_of_a_file_that_is_not_open_are_not_known() -> None:
    assert sqlite.count_names((0, 0)) is None
