"""`litestar students backup` and `restore`: what they make, what they refuse, and who may read it."""

import os
import shlex
import sqlite3
import stat
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from litestar_app.models import Student
from tests.conftest import query_sqlite
from tests.mariadb import MariaDB
from tests.service import ANANYA, Service, serve_database
from tests.test_cli import ALL, GOOD, Commands
from tests.test_tutorial import TUTORIAL_TABLE

NAMES = "SELECT name FROM students ORDER BY id"


@pytest.fixture
def commands(tmp_path: Path, sqlite_url: str) -> Commands:
    return Commands(tmp_path, sqlite_url)


def get_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def find_kept(directory: Path) -> list[Path]:
    return sorted(directory.glob("students.db.before-restore-*"))


@pytest.mark.parametrize("workers", [1, 2])
def test_service_runs_through_backup_and_restore(
    commands: Commands, tmp_path: Path, sqlite_path: Path, sqlite_url: str, workers: int
) -> None:
    """Ids that were given after the backup are not given again; keys are those of the backup."""
    backup = tmp_path / "backup.db"
    with Service(tmp_path, DATABASE_URL=sqlite_url, WORKERS=workers) as service:
        assert service.client.post("/student", json=ANANYA, headers={"Idempotency-Key": "1"}).json()["id"] == 1
        etag = service.client.get("/student/1").headers["ETag"]
        assert commands.run("backup", backup) == (0, f"Wrote {backup}: 1 students.\n", "")
        assert service.client.delete("/student/1").status_code == 200
        for number in range(2, 30):
            headers = {"Idempotency-Key": str(number)}
            assert service.client.post("/student", json=ANANYA, headers=headers).json()["id"] == number
        assert service.client.delete("/student/29").status_code == 200
        code, shown, errors = commands.run("restore", backup, "--yes")
        (kept,) = find_kept(tmp_path)
        assert (code, errors) == (0, "")
        assert shown == (
            f"Restored {sqlite_path} from {backup}.\n"
            f"What it held before is in {kept}; delete that when it is not needed.\n"
        )
        for _ in range(10):  # with two workers, of both
            assert service.client.get("/students").json() == [{"id": 1, **ANANYA}]
        assert service.client.put("/student/1", json=ANANYA, headers={"If-Match": etag}).status_code == 200
        repeated = [service.client.post("/student", json=ANANYA, headers={"Idempotency-Key": key}) for key in "12"]
        assert [response.json()["id"] for response in repeated] == [1, 30]
        service.stop()
    assert "ERROR" not in service.log()
    assert [id_ for (id_,) in query_sqlite(kept, "SELECT id FROM students ORDER BY id")] == list(range(2, 29))
    assert [get_mode(path) for path in (backup, kept)] == [0o600, 0o600]
    names = {backup.name, kept.name, "students.db", "service.log"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_restored_ids_go_on_in_every_kind_of_table(commands: Commands, tmp_path: Path, sqlite_path: Path) -> None:
    """A file of the tutorial has no sequence, and a backup without rows no entry in it."""
    assert commands.run("backup", tmp_path / "none.db")[0] == 1
    with closing(sqlite3.connect(sqlite_path)) as connection:
        connection.executescript(TUTORIAL_TABLE)
    assert commands.run("backup", tmp_path / "tutorial.db")[0] == 0
    sqlite_path.rename(tmp_path / "old.db")
    with serve_database(f"sqlite:///{tmp_path / 'empty.db'}") as client:
        assert client.get("/students").json() == []
    assert commands.run("restore", tmp_path / "empty.db", "--yes")[0] == 0  # without a database, it makes one
    assert get_mode(sqlite_path) == 0o600
    assert find_kept(tmp_path) == []
    for backup, expected in (("tutorial.db", [1, 2, 3]), ("empty.db", [])):
        assert commands.run("restore", tmp_path / backup, "--yes")[0] == 0
        assert [id_ for (id_,) in query_sqlite(sqlite_path, "SELECT id FROM students ORDER BY id")] == expected
        time.sleep(1.1)  # the kept files are named by the second
    with serve_database(f"sqlite:///{sqlite_path}") as client:
        assert client.post("/student", json=ANANYA).json()["id"] == 4
    assert len(find_kept(tmp_path)) == 2


def test_restore_makes_what_a_start_makes(commands: Commands, tmp_path: Path, sqlite_path: Path) -> None:
    """Of a backup with other pages and without our indexes, in the write-ahead log of a program that has crashed."""
    assert commands.run("seed", "5")[0] == 0
    backup = tmp_path / "100% #?.db"
    with closing(sqlite3.connect(backup)) as connection:
        connection.executescript(f"PRAGMA page_size=8192; {TUTORIAL_TABLE}; PRAGMA journal_mode=WAL")
        connection.execute("UPDATE students SET name = 'Zoë' WHERE id = 3")
        connection.commit()
        connection.execute("BEGIN")  # as long as this is open, nothing is folded back
        connection.execute(NAMES).fetchall()
        assert commands.run("restore", backup, "--yes")[0] == 0
    assert query_sqlite(sqlite_path, NAMES) == [("Ananya",), ("Rahul",), ("Zoë",)]
    indexes = {name for _, name, *_ in query_sqlite(sqlite_path, "PRAGMA index_list(students)")}
    assert indexes == {"ix_students_id"} | {index.name for index in Student.__table__.indexes}  # type: ignore[attr-defined]
    assert query_sqlite(sqlite_path, "PRAGMA integrity_check") == [("ok",)]
    assert query_sqlite(sqlite_path, "PRAGMA page_size") == [(4096,)]


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 3)


def make_table(columns: str) -> str:
    return f"CREATE TABLE students (id INTEGER PRIMARY KEY, {columns})"


REJECTED = {
    "name TEXT, cgpa REAL": "cannot be restored: its table students does not fit: column department is missing",
    "name TEXT, department TEXT, cgpa DECIMAL": "cannot be restored: its table students does not fit: column cgpa is",
}


def test_unfit_file_is_not_restored(commands: Commands, tmp_path: Path, sqlite_path: Path) -> None:
    """Each is one line and exit code 1, and leaves the database and its directory as they were."""
    assert commands.run("import", "-", given=GOOD.encode())[0] == 0
    files = {"database itself": sqlite_path, "text: file is not a database": tmp_path / "text"}
    files["d: database disk image is malformed"] = tmp_path / "d"
    (tmp_path / "text").write_text("id,name\n" * 1000)
    assert commands.run("backup", tmp_path / "d")[0] == 0
    damage(tmp_path / "d")
    for number, (columns, says) in enumerate(REJECTED.items()):
        files[says] = tmp_path / f"table{number}"
        query_sqlite(files[says], make_table(columns))
    before = sorted(tmp_path.iterdir())
    for says, file in files.items():
        code, shown, errors = commands.run("restore", file, "--yes")
        assert (code, shown, errors.count("\n")) == (1, "", 1)
        assert errors.startswith("student-records: ")
        assert says in errors
    assert query_sqlite(sqlite_path, ALL) == [("Ananya", "CSE", 8.9), ("=x", "ECE", 7.0)]
    assert sorted(tmp_path.iterdir()) == before


def test_damaged_database_is_not_backed_up(commands: Commands, tmp_path: Path, sqlite_path: Path) -> None:
    """And one that was backed up can be restored over it; what is damaged is kept."""
    assert commands.run("seed", "500")[0] == 0
    assert commands.run("backup", tmp_path / "good.db")[0] == 0
    with sqlite_path.open("r+b") as file:
        file.seek(4096 * 12)
        file.write(b"\xff" * 4096 * 3)
    (tmp_path / "old.db").write_text("old")
    code, shown, errors = commands.run("backup", "--force", tmp_path / "old.db")
    assert (code, shown, errors.count("\n")) == (1, "", 1)
    assert (tmp_path / "old.db").read_text() == "old"
    assert commands.run("restore", tmp_path / "good.db", "--yes")[0] == 0
    assert query_sqlite(sqlite_path, "PRAGMA integrity_check") == [("ok",)]
    assert query_sqlite(sqlite_path, "SELECT count(*) FROM students") == [(500,)]
    (kept,) = find_kept(tmp_path)
    assert b"\xff" * 4096 in kept.read_bytes()


def test_backup_replaces_only_when_told_to(commands: Commands, tmp_path: Path, sqlite_path: Path) -> None:
    assert commands.run("import", "-", given=GOOD.encode())[0] == 0
    (tmp_path / "old.db").write_text("old")
    (tmp_path / "old.db").chmod(0o644)
    before = sqlite_path.read_bytes()
    for arguments in (["old.db"], ["--force", "."], ["missing/new.db"], ["--force", "students.db"]):
        code, shown, errors = commands.run("backup", *arguments)
        assert (code, shown) == (2, "")
        assert "Traceback" not in errors
    assert (tmp_path / "old.db").read_text() == "old"
    assert sqlite_path.read_bytes() == before
    assert commands.run("backup", "--force", "old.db") == (0, "Wrote old.db: 2 students.\n", "")
    assert query_sqlite(tmp_path / "old.db", ALL) == query_sqlite(sqlite_path, ALL)
    assert get_mode(tmp_path / "old.db") == 0o600


def test_backup_can_be_read_where_nothing_can_be_written(commands: Commands, tmp_path: Path) -> None:
    """Its journal is none that wants files of its own beside it."""
    assert commands.run("seed", "3")[0] == commands.run("backup", "backup.db")[0] == 0
    with closing(sqlite3.connect(f"file:{tmp_path}/backup.db?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("delete",)]


def test_restore_asks_first(commands: Commands, sqlite_path: Path) -> None:
    """On a terminal; elsewhere it wants --yes."""
    assert commands.run("seed", "3")[0] == commands.run("backup", "backup.db")[0] == 0
    assert commands.run("seed", "2")[0] == 0
    assert commands.run("restore", "backup.db")[0] == 2
    for said, code, students in (("n", 1, 5), ("y", 0, 3)):
        assert commands.run_on_terminal("restore", "backup.db", said=said)[0] == code
        assert query_sqlite(sqlite_path, "SELECT count(*) FROM students") == [(students,)]


def test_restore_waits_for_a_write(commands: Commands, tmp_path: Path, sqlite_path: Path) -> None:
    """What that writes is kept, though it was committed after the restore began."""
    assert commands.run("seed", "3")[0] == commands.run("backup", "backup.db")[0] == 0
    with closing(sqlite3.connect(sqlite_path, isolation_level=None, check_same_thread=False)) as other:
        other.executescript("BEGIN IMMEDIATE; INSERT INTO students VALUES (77, 'Late', 'CSE', 1)")
        timer = threading.Timer(3, other.execute, ["COMMIT"])
        timer.start()
        assert commands.run("restore", "backup.db", "--yes")[0] == 0
        timer.join()
    (kept,) = find_kept(tmp_path)
    assert ("Late",) in query_sqlite(kept, NAMES)
    assert len(query_sqlite(sqlite_path, NAMES)) == 3
    assert query_sqlite(sqlite_path, "SELECT seq FROM sqlite_sequence WHERE name = 'students'") == [(77,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another user")
def test_owner_and_mode_of_the_database_stay(commands: Commands, sqlite_path: Path) -> None:
    assert commands.run("seed", "3")[0] == commands.run("backup", "backup.db")[0] == 0
    sqlite_path.chmod(0o640)
    os.chown(sqlite_path, 12345, 23456)
    assert commands.run("restore", "backup.db", "--yes")[0] == 0
    status = sqlite_path.stat()
    assert (status.st_uid, status.st_gid, get_mode(sqlite_path)) == (12345, 23456, 0o640)


def test_only_its_owner_reads_a_new_database(tmp_path: Path, sqlite_path: Path) -> None:
    """Nor its log and the log's index; the mode of a file that exists is left as it is."""
    links = tmp_path / "link.db"
    links.symlink_to(sqlite_path)
    mask = os.umask(0o022)
    try:
        with serve_database(f"sqlite:///{links}"):
            modes = {path.name: get_mode(path) for path in tmp_path.glob("students.db*")}
        sqlite_path.chmod(0o644)
        with serve_database(f"sqlite:///{links}"):
            assert get_mode(sqlite_path) == 0o644
    finally:
        os.umask(mask)
    assert modes == {"students.db": 0o600, "students.db-wal": 0o600, "students.db-shm": 0o600}


def test_server_has_tools_of_its_own(tmp_path: Path, mariadb: MariaDB, mysql_url: str) -> None:
    """The line that names them can be run as it is."""
    commands, name = Commands(tmp_path, mysql_url), mysql_url.rpartition("/")[2]
    assert commands.run("import", "-", given=GOOD.replace("Ananya", "Zoë 😀").encode())[0] == 0
    (tmp_path / "FILE").touch()
    before = mariadb.execute("SELECT * FROM students", database=name)
    for arguments in (["backup", "--force", "FILE"], ["restore", "--yes", "FILE"]):
        code, shown, errors = commands.run(*arguments)
        assert (code, shown, errors.count("\n")) == (1, "", 1)
        prefix = "student-records: 127.0.0.1 is a server with tools of its own: "
        assert errors.startswith(prefix)
        line = errors.removeprefix(prefix).replace(" (mysqldump)", "").replace(" (mysql)", "")
        tool, *options = shlex.split(line.replace("--password", "--password="))  # root has none here
        assert "mysql://" not in errors
        given = None
        if options[-2:] == ["<", "FILE"]:
            options, given = options[:-2], (tmp_path / "FILE").read_bytes()
            mariadb.execute("DELETE FROM students WHERE id = 1", database=name)
        subprocess.run([tool, *options], cwd=tmp_path, input=given, check=True)
    assert mariadb.execute("SELECT * FROM students", database=name) == before
    with serve_database(mysql_url) as client:
        assert client.post("/student", json=ANANYA).json()["id"] > 2
