"""`litestar students backup` and `restore`: what they make, what they refuse, and who may read it."""

import os
import re
import shlex
import signal
import socket
import sqlite3
import stat
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest

from litestar_app.database.backup import BackupError, back_up, prepare_restore, restore
from litestar_app.settings import Settings
from tests.conftest import query_sqlite
from tests.database import prepare
from tests.mariadb import MariaDB
from tests.service import ANANYA, Service, serve_database
from tests.test_cli import ALL, GOOD, Commands
from tests.test_tutorial import TUTORIAL_TABLE

NAMES = "SELECT name FROM students ORDER BY id"
IDS = "SELECT id FROM students ORDER BY id"
THREE = (
    "INSERT INTO students (name, department, cgpa) VALUES ('Ananya', 'CSE', 8.9), ('Zoë', 'Law', 7), ('=x', 'IT', 5)"
)

MANY = """INSERT INTO students (name, department, cgpa)
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT 50000)
SELECT n, 'CSE', 5 FROM numbers"""


@pytest.fixture
def commands(tmp_path: Path, sqlite_url: str) -> Commands:
    return Commands(tmp_path, sqlite_url)


@pytest.fixture
def three(sqlite_path: Path, sqlite_url: str) -> Path:
    """A database of three students that nobody uses."""
    with prepare(sqlite_url):
        query_sqlite(sqlite_path, THREE)
    return sqlite_path


def restore_file(database: Path, file: Path) -> Path | None:
    with prepare_restore(Settings(database_url=f"sqlite:///{database}"), file) as copy:
        return restore(database, copy)


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
    assert [id_ for (id_,) in query_sqlite(kept, IDS)] == list(range(2, 29))
    assert [get_mode(path) for path in (backup, kept)] == [0o600, 0o600]
    names = {backup.name, kept.name, "students.db", "service.log"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_restored_ids_go_on_in_every_kind_of_table(tmp_path: Path, sqlite_path: Path) -> None:
    """A file of the tutorial has no sequence, and a backup without rows no entry in it."""
    tutorial, empty = tmp_path / "tutorial.db", tmp_path / "empty.db"
    with closing(sqlite3.connect(tutorial)) as connection:
        connection.executescript(TUTORIAL_TABLE)
    with prepare(f"sqlite:///{empty}"):
        pass
    assert restore_file(sqlite_path, empty) is None  # without a database, it makes one
    assert get_mode(sqlite_path) == 0o600
    for file, expected in ((tutorial, [1, 2, 3]), (empty, [])):
        assert restore_file(sqlite_path, file) in find_kept(tmp_path)
        assert [id_ for (id_,) in query_sqlite(sqlite_path, IDS)] == expected
    with serve_database(f"sqlite:///{sqlite_path}") as client:
        assert client.post("/student", json=ANANYA).json()["id"] == 4


def test_restore_revives_no_revoked_key(tmp_path: Path, three: Path) -> None:
    """Keys are those of the database; one that only the backup has, as on a new machine, is added."""
    key = "INSERT INTO api_keys VALUES (?, ?, 'editor', 'x', 1, NULL, ?)"
    query_sqlite(three, key, "a", "old", None)
    query_sqlite(three, key, "b", "gone", None)
    back_up(three, tmp_path / "backup.db")
    query_sqlite(three, "UPDATE api_keys SET revoked_at = 2 WHERE id = 'a'")
    query_sqlite(three, "DELETE FROM api_keys WHERE id = 'b'")
    query_sqlite(three, key, "c", "new", None)
    restore_file(three, tmp_path / "backup.db")
    keys = query_sqlite(three, "SELECT id, revoked_at FROM api_keys ORDER BY id")
    assert keys == [("a", 2), ("b", None), ("c", None)]


def test_restore_replaces_a_database_without_tables(tmp_path: Path, sqlite_path: Path, three: Path) -> None:
    """As another program, or a start that failed, may have left it; a table of that is kept, and gone."""
    back_up(three, tmp_path / "backup.db")
    three.unlink()
    query_sqlite(sqlite_path, "CREATE TABLE other (x)")
    kept = restore_file(sqlite_path, tmp_path / "backup.db")
    assert kept is not None
    assert query_sqlite(sqlite_path, NAMES) == [("Ananya",), ("Zoë",), ("=x",)]
    assert query_sqlite(kept, "SELECT name FROM sqlite_master") == [("other",)]


def test_restore_makes_what_a_start_makes(tmp_path: Path, three: Path) -> None:
    """Of a backup with other pages and without our indexes, in the write-ahead log of a program that runs."""
    backup = tmp_path / "100% #?.db"
    with closing(sqlite3.connect(backup)) as connection:
        connection.executescript(f"PRAGMA page_size=8192; {TUTORIAL_TABLE}; PRAGMA journal_mode=WAL")
        connection.execute("UPDATE students SET name = 'Boris' WHERE id = 3")
        connection.commit()  # and as long as this is open, nothing is folded back
        restore_file(three, backup)
    assert query_sqlite(three, NAMES) == [("Ananya",), ("Rahul",), ("Boris",)]
    indexes = {name for _, name, *_ in query_sqlite(three, "PRAGMA index_list(students)")}
    assert {"ix_students_id", "ix_students_name", "ix_students_department_cgpa"} < indexes
    assert query_sqlite(three, "PRAGMA integrity_check") == [("ok",)]
    assert query_sqlite(three, "PRAGMA page_size") == [(4096,)]


def damage(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * page)
        file.write(b"\xff" * 4096)


def test_unfit_file_is_not_restored(tmp_path: Path, three: Path) -> None:
    """Each says what is wrong with which file, and leaves the database and its directory as they were."""
    text, damaged, loose = tmp_path / "text", tmp_path / "damaged", tmp_path / "loose"
    text.write_text("id,name\n" * 1000)
    for path in (damaged, loose):
        back_up(three, path)
    damage(damaged, 1)
    with closing(sqlite3.connect(loose)) as connection:
        connection.executescript("PRAGMA writable_schema=1; UPDATE sqlite_master SET rootpage = 2 WHERE rootpage = 3")
    files = {
        f"{three} is the database itself": three,
        f"{text}: file is not a database": text,
        f"{damaged}: database disk image is malformed": damaged,
        f"{loose} is damaged: ": loose,
    }
    for number, (columns, problem) in enumerate(
        [
            ("name TEXT, cgpa REAL", "column department is missing"),
            ("name, department TEXT, cgpa REAL", "column name is"),
        ]
    ):
        path = tmp_path / f"table{number}"
        query_sqlite(path, f"CREATE TABLE students (id INTEGER PRIMARY KEY, {columns})")
        files[f"{path} cannot be restored: its table students does not fit: {problem}"] = path
    before = sorted(tmp_path.iterdir())
    for says, file in files.items():
        with pytest.raises(BackupError, match=re.escape(says)):
            restore_file(three, file)
    assert query_sqlite(three, IDS) == [(1,), (2,), (3,)]
    assert sorted(tmp_path.iterdir()) == before


def test_backup_that_is_not_complete_is_not_restored(tmp_path: Path, three: Path) -> None:
    """Cut anywhere, or longer than it was; nor one in which a value has changed, which its index shows."""
    backup, other = tmp_path / "backup.db", tmp_path / "other.db"
    back_up(three, backup)
    whole, before = backup.read_bytes(), [*sorted(tmp_path.iterdir()), other]
    position = whole.rindex(b"Ananya")
    damaged = {
        whole[:-1]: f"{other} is not complete: it has {len(whole) - 1} of {len(whole)} bytes",
        whole[:-4096]: f"{other} is not complete: it has {len(whole) - 4096} of {len(whole)} bytes",
        whole[:4097]: f"{other} is not complete: it has 4097 of {len(whole)} bytes",
        whole[:100]: f"{other} is not complete: it has 100 of {len(whole)} bytes",
        whole[:50]: f"{other} is not complete: it has 50 of 4096 bytes",
        whole[:10]: f"{other}: file is not a database",
        b"": f"{other}: no such table: students",
        whole + b"x": f"{other} is damaged: 1 bytes follow its last page",
        whole + bytes(4096): f"{other} is damaged: 4096 bytes follow its last page",
        whole[:position] + b"Bnanya" + whole[position + 6 :]: f"{other} is damaged: ",
    }
    for content, says in damaged.items():
        other.write_bytes(content)
        with pytest.raises(BackupError, match=re.escape(says)) as raised:
            restore_file(three, other)
        assert "\n" not in str(raised.value)
    assert query_sqlite(three, IDS) == [(1,), (2,), (3,)]
    assert sorted(tmp_path.iterdir()) == sorted(before)


def test_what_is_no_file_is_not_restored(commands: Commands, tmp_path: Path, three: Path) -> None:
    """A pipe that nobody writes into, a device, a directory, a socket: one line at once, and no wait."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("pipe", "socket", "/dev/zero", "/dev/null"):
            says = f"student-records: {name} is not a regular file\n"
            assert commands.run("restore", "--yes", name) == (1, "", says)
        assert commands.run("restore", "--yes", "directory")[0] == 2
        for name in ("pipe", "socket", "directory"):
            assert commands.run("backup", "--force", name)[0] == 2
    assert query_sqlite(three, IDS) == [(1,), (2,), (3,)]


def test_damaged_database_is_not_backed_up(tmp_path: Path, three: Path) -> None:
    """And one that was backed up can be restored over it; what is damaged is kept."""
    good, old = tmp_path / "good.db", tmp_path / "old.db"
    assert back_up(three, good) == 3
    ((root,),) = query_sqlite(three, "SELECT rootpage FROM sqlite_master WHERE name = 'ix_students_cgpa'")
    damage(three, root - 1)
    old.write_text("old")
    with pytest.raises(BackupError):
        back_up(three, old)
    assert old.read_text() == "old"
    kept = restore_file(three, good)
    assert query_sqlite(three, "PRAGMA integrity_check") == [("ok",)]
    assert query_sqlite(three, IDS) == [(1,), (2,), (3,)]
    assert kept is not None
    assert b"\xff" * 4096 in kept.read_bytes()


def test_backup_replaces_only_when_told_to(commands: Commands, tmp_path: Path, three: Path) -> None:
    old, before = tmp_path / "old.db", three.read_bytes()
    old.write_text("old")
    old.chmod(0o644)
    for arguments in (["old.db"], ["--force", "."], ["missing/new.db"], ["--force", "students.db"]):
        code, shown, errors = commands.run("backup", *arguments)
        assert (code, shown) == (2, "")
        assert "Traceback" not in errors
    assert (old.read_text(), three.read_bytes()) == ("old", before)
    assert commands.run("backup", "--force", "old.db") == (0, "Wrote old.db: 3 students.\n", "")
    assert query_sqlite(old, ALL) == query_sqlite(three, ALL)
    assert get_mode(old) == 0o600


def test_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor on a file system without links; and no part is left."""
    target = tmp_path / "backup.db"

    def refuse(*_: object) -> None:
        raise PermissionError

    for link in (os.link, refuse):
        monkeypatch.setattr(os, "link", link)
        target.write_text("theirs")
        with pytest.raises(BackupError, match=r"backup\.db has appeared meanwhile and was left alone"):
            back_up(three, target)
        assert target.read_text() == "theirs"
        target.unlink()
        assert back_up(three, target) == 3
        assert (query_sqlite(target, IDS), get_mode(target)) == ([(1,), (2,), (3,)], 0o600)
        assert back_up(three, target, replaces=True) == 3
        target.unlink()
    assert list(tmp_path.iterdir()) == [three]


def test_file_that_appears_during_a_backup_stays(commands: Commands, tmp_path: Path, three: Path) -> None:
    """The command has looked for it when it began."""
    query_sqlite(three, MANY)
    with commands.start("backup", "backup.db", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not list(tmp_path.glob(".backup.db.*")):
            assert process.poll() is None
        process.send_signal(signal.SIGSTOP)
        (tmp_path / "backup.db").write_text("theirs")
        process.send_signal(signal.SIGCONT)
        assert process.stderr is not None
        assert process.stderr.read() == b"student-records: backup.db has appeared meanwhile and was left alone\n"
    assert (process.returncode, (tmp_path / "backup.db").read_text()) == (1, "theirs")


def test_backup_can_be_read_where_nothing_can_be_written(tmp_path: Path, three: Path) -> None:
    """Its journal is none that wants files of its own beside it."""
    back_up(three, tmp_path / "backup.db")
    assert query_sqlite(tmp_path / "backup.db", "PRAGMA journal_mode") == [("delete",)]


def test_missing_database_is_not_created_by_a_backup(commands: Commands, tmp_path: Path, sqlite_path: Path) -> None:
    says = f"student-records: {sqlite_path}: unable to open database file\n"
    assert commands.run("backup", "backup.db") == (1, "", says)
    assert list(tmp_path.iterdir()) == []


def test_restore_asks_first(commands: Commands, tmp_path: Path, three: Path) -> None:
    """On a terminal; elsewhere it wants --yes."""
    back_up(three, tmp_path / "backup.db")
    query_sqlite(three, THREE)
    assert commands.run("restore", "backup.db")[0] == 2
    for said, code, students in (("n", 1, 6), ("y", 0, 3)):
        assert commands.run_on_terminal("restore", "backup.db", said=said)[0] == code
        assert query_sqlite(three, "SELECT count(*) FROM students") == [(students,)]


def test_restores_within_a_second_keep_each_content(tmp_path: Path, three: Path) -> None:
    back_up(three, tmp_path / "backup.db")
    for name in ("First", "Second", "Third"):
        query_sqlite(three, "INSERT INTO students (name, department, cgpa) VALUES (?, 'CSE', 1)", name)
        restore_file(three, tmp_path / "backup.db")
    kept = [query_sqlite(path, "SELECT name FROM students WHERE id > 3") for path in find_kept(tmp_path)]
    assert sorted(kept) == [[("First",)], [("Second",)], [("Third",)]]


def test_restore_waits_for_a_write(tmp_path: Path, three: Path) -> None:
    """What that writes is kept, though it is committed after the restore began."""
    back_up(three, tmp_path / "backup.db")
    with closing(sqlite3.connect(three, isolation_level=None, check_same_thread=False)) as other:
        other.executescript("BEGIN IMMEDIATE; INSERT INTO students VALUES (77, 'Late', 'CSE', 1)")
        timer = threading.Timer(1, other.execute, ["COMMIT"])
        timer.start()
        kept = restore_file(three, tmp_path / "backup.db")
        timer.join()
    assert kept is not None
    assert ("Late",) in query_sqlite(kept, NAMES)
    assert len(query_sqlite(three, NAMES)) == 3
    assert query_sqlite(three, "SELECT seq FROM sqlite_sequence WHERE name = 'students'") == [(77,)]


def test_restore_gives_up_on_a_lock_that_stays(tmp_path: Path, three: Path) -> None:
    back_up(three, tmp_path / "backup.db")
    with (
        prepare_restore(Settings(database_url=f"sqlite:///{three}"), tmp_path / "backup.db") as copy,
        closing(sqlite3.connect(three, isolation_level=None)) as other,
    ):
        other.executescript("BEGIN IMMEDIATE; INSERT INTO students VALUES (77, 'Late', 'CSE', 1)")
        with pytest.raises(BackupError, match="is locked: another process writes"):
            restore(three, copy, lock_timeout=0.1)
        other.execute("COMMIT")
    assert query_sqlite(three, IDS) == [(1,), (2,), (3,), (77,)]
    assert find_kept(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another user")
def test_owner_and_mode_of_the_database_stay(tmp_path: Path, three: Path) -> None:
    back_up(three, tmp_path / "backup.db")
    three.chmod(0o640)
    os.chown(three, 12345, 23456)
    restore_file(three, tmp_path / "backup.db")
    status = three.stat()
    assert (status.st_uid, status.st_gid, get_mode(three)) == (12345, 23456, 0o640)


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
