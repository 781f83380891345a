"""Backup and restore under load, killed half-way and without room: nothing is lost, nothing is half done."""

import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import query_sqlite
from tests.faults.ledger import STUDENTS, Ledger, wait_until, writing
from tests.faults.test_full_disk import fill
from tests.service import ANANYA, Service, connect
from tests.test_backup import find_kept
from tests.test_cli import Commands

pytestmark = pytest.mark.faults

ROWS = f"{STUDENTS} ORDER BY id"


@pytest.mark.parametrize("workers", [1, 2])
def test_backup_has_every_write_acknowledged_before_it(
    tmp_path: Path, sqlite_path: Path, sqlite_url: str, workers: int
) -> None:
    """The ledger of the first writers is complete when the backup begins, while others go on."""
    commands, first, second = Commands(tmp_path, sqlite_url), Ledger(), Ledger()
    with Service(tmp_path, DATABASE_URL=sqlite_url, LOG_LEVEL="warning", WORKERS=workers) as service:
        with writing(first, service, 8, "first"):
            first.wait_for("acknowledged", 200)
        with writing(second, service, 8, "second"):
            for number in range(3):
                second.wait_for("acknowledged", 50)
                assert commands.run("backup", f"{number}.db")[0] == 0
            second.wait_for("acknowledged", 50)
        for number in range(3):
            rows = query_sqlite(tmp_path / f"{number}.db", STUDENTS)
            first.check(row for row in rows if row[1].startswith("first"))
            assert query_sqlite(tmp_path / f"{number}.db", "PRAGMA integrity_check") == [("ok",)]
        rows = query_sqlite(sqlite_path, STUDENTS)
        second.check(row for row in rows if row[1].startswith("second"))
    assert first.count["unknown"] == second.count["unknown"] == second.count["503"] == 0


class Creators:
    """Threads that create students of distinct names, and remember the id of each that was acknowledged."""

    def __init__(self, service: Service) -> None:
        self.ids: dict[str, int] = {}
        self.unavailable = 0
        self._service = service
        self._stop = threading.Event()

    def run(self, label: int) -> None:
        with connect(self._service.url) as client:
            for number in range(1_000_000):
                if self._stop.is_set():
                    return
                name = f"{label} {number}"
                response = client.post("/student", json={**ANANYA, "name": name})
                if response.status_code == 503:
                    self.unavailable += 1
                    continue
                assert response.status_code == 201
                self.ids[name] = response.json()["id"]

    def stop(self) -> None:
        self._stop.set()

    def wait_for(self, more: int) -> None:
        target = len(self.ids) + more
        wait_until(lambda: len(self.ids) >= target, f"{target} students")


@pytest.mark.parametrize("workers", [1, 2])
def test_restore_under_load_divides_the_writes(
    tmp_path: Path, sqlite_path: Path, sqlite_url: str, workers: int
) -> None:
    """Each acknowledged one is in what was kept or in the database, under an id that no other has ever had."""
    commands = Commands(tmp_path, sqlite_url)
    with Service(tmp_path, DATABASE_URL=sqlite_url, LOG_LEVEL="warning", WORKERS=workers) as service:
        assert commands.run("seed", "20000")[0] == commands.run("backup", "backup.db")[0] == 0
        stored = query_sqlite(tmp_path / "backup.db", ROWS)
        creators = Creators(service)
        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(creators.run, label) for label in range(8)]
            for _ in range(2):
                creators.wait_for(100)
                with service.client.stream("GET", "/students/export") as export:  # which keeps its snapshot
                    lines = iter(export.iter_lines())
                    assert next(lines).startswith("id,")
                    assert commands.run("restore", "backup.db", "--yes")[0] == 0
                    assert sum(1 for _ in lines) > 20_000
            creators.wait_for(100)
            creators.stop()
            for future in running:
                future.result()
        places = [query_sqlite(path, ROWS) for path in (*find_kept(tmp_path), sqlite_path)]
        assert all(rows[:20_000] == stored for rows in places)
        found = [(name, id_) for rows in places for id_, name, *_ in rows[20_000:]]
        assert sorted(found) == sorted(creators.ids.items())
        assert len({id_ for _, id_ in found}) == len(found)
        assert service.client.get("/health/ready").status_code == 200
        service.stop()
    assert query_sqlite(sqlite_path, "PRAGMA integrity_check") == [("ok",)]
    assert "Traceback" not in service.log()


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_killed_command_leaves_the_old_content(
    tmp_path: Path, sqlite_path: Path, sqlite_url: str, command: str
) -> None:
    """Wherever it is killed, while the service runs: the file is the old one or the new one, and whole."""
    commands = Commands(tmp_path, sqlite_url)
    assert commands.run("seed", "60000")[0] == commands.run("backup", "backup.db")[0] == 0
    assert commands.run("seed", "1000")[0] == 0
    target, counts = (
        (tmp_path / "backup.db", [60_000, 61_000]) if command == "backup" else (sqlite_path, [61_000, 60_000])
    )
    arguments = [command, "backup.db", "--force" if command == "backup" else "--yes"]
    seen = set()
    with Service(tmp_path, DATABASE_URL=sqlite_url, LOG_LEVEL="warning") as service:
        directories = f".{target.name}*"
        for attempt in range(12):
            with commands.start(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                wait_until(lambda: list(tmp_path.glob(directories)) or process.poll() is not None, "its beginning")
                time.sleep(attempt * 0.12)
                process.send_signal(signal.SIGKILL)
            ((students,),) = query_sqlite(target, "SELECT count(*) FROM students")
            seen.add(students)
            assert students in counts
            assert query_sqlite(target, "PRAGMA integrity_check") == [("ok",)]
            assert service.client.get("/student/60000").status_code == 200
            assert service.client.put("/student/1", json=ANANYA).status_code == 200
            if students == counts[1]:
                break
            for left in tmp_path.glob(directories):
                shutil.rmtree(left)
        service.stop()
    assert counts[0] in seen
    assert "Traceback" not in service.log()


@pytest.mark.parametrize("small_disk", ["4m"], indirect=True)
def test_full_disk_leaves_the_old_content(small_disk: Path, tmp_path: Path) -> None:
    """Of the backup, of the database and of the directory; and with room both work."""
    path, url = small_disk / "students.db", f"sqlite:///{small_disk / 'students.db'}"
    commands = Commands(tmp_path, url)
    assert commands.run("seed", "2000")[0] == commands.run("backup", small_disk / "backup.db")[0] == 0
    with Service(tmp_path, DATABASE_URL=url, LOG_LEVEL="warning") as service:
        assert service.client.delete("/student/1").status_code == 200
        ballast = fill(small_disk)
        before = {file.name: file.read_bytes() for file in small_disk.iterdir() if file.name != "students.db-shm"}
        for arguments in (["backup", "--force"], ["restore", "--yes"]):
            code, shown, errors = commands.run(*arguments, small_disk / "backup.db")
            assert (code, shown, errors.count("\n")) == (1, "", 1)
            assert "full" in errors or "No space left" in errors
        after = {file.name: file.read_bytes() for file in small_disk.iterdir() if file.name != "students.db-shm"}
        assert after == before
        assert_is_missing(service.client.get("/student/1"))
        ballast.unlink()
        assert commands.run("restore", small_disk / "backup.db", "--yes")[0] == 0
        assert service.client.get("/student/1").status_code == 200
        service.stop()
    assert query_sqlite(path, "PRAGMA integrity_check") == [("ok",)]
    (kept,) = find_kept(small_disk)
    kept.unlink()
    assert commands.run("backup", "--force", small_disk / "backup.db")[0] == 0


def assert_is_missing(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["detail"]) == (404, "Student not found")
