"""The process: how it starts, what stops the start, and what is left when it ends."""

import re
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import httpx
import pytest

from tests.conftest import query_sqlite
from tests.mariadb import MariaDB, free_port
from tests.service import ANANYA, Service, connect

ENDED = {0, -SIGTERM}
"""uvicorn ends in order and then lets the signal have its way, which a supervisor counts as clean."""


def run_to_its_end(service: Service) -> str:
    service.launch()
    assert service.process is not None
    assert service.process.wait() == 1
    return service.log()


def test_a_file_in_the_working_directory_is_the_default(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        assert service.client.post("/student", json=ANANYA).status_code == 201
        assert service.stop() in ENDED
    assert query_sqlite(tmp_path / "students.db", "SELECT * FROM students") == [(1, "Ananya", "CSE", 8.9)]


def test_students_are_there_after_a_restart_and_after_a_kill(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        for count, end in enumerate((SIGTERM, SIGKILL, SIGTERM), start=1):
            assert service.client.post("/student", json=ANANYA).json()["id"] == count
            service.stop(end)
            service.start()
            assert [student["id"] for student in service.client.get("/students").json()] == [*range(1, count + 1)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_service_leaves_one_file(tmp_path: Path, workers: int) -> None:
    """SQLite's log is folded into students.db, which can then be copied as it is."""
    with Service(tmp_path, WORKERS=workers) as service:
        service.client.get("/students")
        service.client.post("/student", json=ANANYA)
        service.client.get("/students?limit=1000&offset=1000")
        service.stop()
    assert query_sqlite(tmp_path / "students.db", "SELECT COUNT(*) FROM students") == [(1,)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["service.log", "students.db"]


def test_nothing_acknowledged_is_lost_by_a_kill_under_load(database_url: str, tmp_path: Path) -> None:
    """Sixteen writers, killed in the middle: whatever got its 201 is there, whole and under its own id."""
    acknowledged: dict[int, str] = {}
    lock = threading.Lock()

    def write(writer: int) -> None:
        with connect(service.url) as client:
            for number in range(10_000):
                name = f"writer {writer} number {number}"
                try:
                    response = client.post("/student", json={**ANANYA, "name": name})
                except httpx.TransportError:
                    return
                if response.status_code == 201:
                    with lock:
                        acknowledged[response.json()["id"]] = name
                        if len(acknowledged) >= wanted:
                            enough.set()

    with Service(tmp_path, DATABASE_URL=database_url) as service:
        for kill in (1, 2):
            wanted, enough = 300 * kill, threading.Event()
            with ThreadPoolExecutor(16) as writers:
                futures = [writers.submit(write, writer) for writer in range(16)]
                assert enough.wait(60)
                service.stop(SIGKILL)
            for future in futures:
                future.result()
            service.start()
        stored: dict[int, str] = {}
        for offset in range(0, 20_000, 1000):
            page = service.client.get(f"/students?limit=1000&offset={offset}").json()
            stored |= {student["id"]: student["name"] for student in page}
    assert len(acknowledged) >= 600
    assert acknowledged.items() <= stored.items()


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"PORT": "http"}, "PORT='http' is not possible: expected an integer, in digits only"),
        ({"HOST": "x.invalid", "PORT": "8999"}, "HOST='x.invalid', PORT=8999: cannot listen there: "),
        ({"DATABASE_URL": "mysql://u:secret@127.0.0.1:1/d?foo=1"}, "DATABASE_URL has the parameter 'foo': expected "),
        ({"DATABASE_URL": "oracle://x/y"}, "DATABASE_URL starts with oracle://; expected sqlite, mysql or mariadb"),
        (
            {"DATABASE_URL": "sqlite:////nowhere/x.db"},
            "DATABASE_URL (or MYSQL_*) sqlite+pysqlite:////nowhere/x.db cannot be used: unable to open database file",
        ),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(tmp_path: Path, variables: dict[str, Any], says: str) -> None:
    log = run_to_its_end(Service(tmp_path, **variables))
    assert log.startswith(f"student-records: {says}")
    assert log.count("\n") == 1
    assert "secret" not in log


def test_a_database_that_cannot_be_reached_stops_the_start_with_one_line(tmp_path: Path) -> None:
    port = free_port()
    log = run_to_its_end(Service(tmp_path, DATABASE_URL=f"mysql://root:secret@127.0.0.1:{port}/college"))
    assert log.count("\n") == 1
    assert log.startswith(
        f"student-records: DATABASE_URL (or MYSQL_*) mysql+pymysql://root:***@127.0.0.1:{port}/college cannot be used: "
    )
    assert "secret" not in log


def test_a_wrong_password_stops_the_start_with_one_line(tmp_path: Path, mariadb: MariaDB) -> None:
    service = Service(
        tmp_path, MYSQL_USER="nobody", MYSQL_PASSWORD="secret", MYSQL_PORT=mariadb.port, MYSQL_DATABASE="x"
    )
    log = run_to_its_end(service)
    assert log.count("\n") == 1
    assert "Access denied" in log
    assert "secret" not in log


def test_a_file_that_is_no_database_stops_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "students.db").write_text("name,department,cgpa\n" * 100)
    log = run_to_its_end(Service(tmp_path))
    url = "sqlite+pysqlite:///students.db"
    assert log == f"student-records: DATABASE_URL (or MYSQL_*) {url} cannot be used: file is not a database\n"


def test_a_table_of_somebody_else_stops_the_start_with_one_line(tmp_path: Path) -> None:
    query_sqlite(tmp_path / "students.db", "CREATE TABLE students (id INTEGER PRIMARY KEY, email TEXT)")
    log = run_to_its_end(Service(tmp_path))
    assert log.count("\n") == 1
    assert "its table students does not fit: column name is missing; column department is missing;" in log


def test_uvicorn_itself_says_the_same_line(tmp_path: Path) -> None:
    """For those who start `uvicorn litestar_app.main:app`, as the tutorial does."""
    service = Service(tmp_path, PORT="http")
    command = [sys.executable, "-m", "uvicorn", "litestar_app.main:app", "--port", str(free_port())]
    ended = subprocess.run(command, cwd=tmp_path, env=service.environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "student-records: PORT='http' is not possible: expected an integer, in digits only\n"


def test_a_database_that_comes_up_late_is_waited_for(tmp_path: Path, mariadb: MariaDB, mysql_url: str) -> None:
    mariadb.stop()
    service = Service(tmp_path, DATABASE_URL=mysql_url)
    service.launch()
    mariadb.start()
    try:
        for _ in range(200):
            try:
                assert service.client.get("/health/ready").status_code == 200
                break
            except httpx.TransportError:
                threading.Event().wait(0.05)
        else:
            pytest.fail(service.log())
    finally:
        service.stop(SIGKILL)


def test_processes_that_start_at_once_do_not_trip_over_the_tables(database_url: str, tmp_path: Path) -> None:
    services = []
    for number in range(4):
        directory = tmp_path / str(number)
        directory.mkdir()
        services.append(Service(directory, DATABASE_URL=database_url))
    try:
        with ThreadPoolExecutor(len(services)) as pool:
            list(pool.map(Service.start, services))
        ids = [service.client.post("/student", json=ANANYA).json()["id"] for service in services]
        assert ids == [1, 2, 3, 4]
    finally:
        for service in services:
            service.stop(SIGKILL)


def test_several_workers_serve_one_database(tmp_path: Path) -> None:
    with Service(tmp_path, WORKERS=2) as service:
        ids = {service.client.post("/student", json=ANANYA).json()["id"] for _ in range(20)}
        assert ids == set(range(1, 21))
        assert service.stop() in ENDED
        assert len(set(re.findall(r"Started server process \[(\d+)\]", service.log()))) == 2


def test_sqlite_is_set_up_to_keep_what_it_acknowledges(tmp_path: Path) -> None:
    with Service(tmp_path):
        connection = sqlite3.connect(tmp_path / "students.db")
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        ((ddl,),) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'students'")
        connection.close()
    assert "AUTOINCREMENT" in ddl


def test_a_password_of_any_characters_lets_in(tmp_path: Path, mariadb: MariaDB, mysql_url: str) -> None:
    password = "pä${HOME}сс @:/%'\"\\"
    name = mysql_url.rpartition("/")[2]
    mariadb.execute("CREATE OR REPLACE USER clerk IDENTIFIED BY %s", password)
    mariadb.execute(f"GRANT ALL ON `{name}`.* TO clerk")
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    (tmp_path / ".env").write_text(f"MYSQL_USER=clerk\nMYSQL_PASSWORD='{quoted}'\nMYSQL_DATABASE={name}\n")
    with Service(tmp_path, MYSQL_PORT=mariadb.port) as service:
        assert service.client.post("/student", json=ANANYA).status_code == 201


NO_THREADS = """
import threading
start = threading.Thread.start
def fail(thread):
    if thread.name.startswith("writer"):
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = fail
from litestar_app.__main__ import serve
serve()
"""


def test_start_without_threads_fails(tmp_path: Path) -> None:
    """Threads start with the service: one that comes later, and fails, would leave writes that were reported failed."""
    service = Service(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-c", NO_THREADS],
        cwd=tmp_path,
        env=service.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "can't start new thread" in ended.stderr
