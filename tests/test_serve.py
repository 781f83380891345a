"""The process: what stops its start and with which exit code, and what is left of it when it ends."""

import gc
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest
from sqlalchemy import make_url

from tests.conftest import query_sqlite
from tests.mariadb import MariaDB, free_port
from tests.service import ANANYA, API_KEYS, Service, find_processes, find_workers, kill_one_worker, serve_database

PREPARED = "CREATE TABLE students (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, department TEXT, cgpa REAL)"


def assert_all_end(service: Service) -> None:
    deadline = time.monotonic() + 30
    while left := find_processes(service):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def wait_until(service: Service, condition: Callable[[], bool]) -> None:
    """Wait for something that comes while the service starts."""
    assert service.process is not None
    while not condition():
        assert service.process.poll() is None, service.log()
        time.sleep(0.005)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a database that has the table already, so that a start waits for it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as lock:
        lock.execute(PREPARED)
        lock.execute("BEGIN EXCLUSIVE")
        yield


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"PORT": "http"}, "PORT='http' is not possible: expected an integer from 1 to 65535"),
        ({"HOST": "x.invalid", "PORT": "8999"}, "HOST='x.invalid', PORT=8999: cannot listen there: "),
        ({"DATABASE_URL": "sqlite:////no/x"}, "DATABASE_URL (or MYSQL_*) sqlite+pysqlite:////no/x cannot be used: "),
    ],
)
def test_wrong_setting_stops_the_start_with_one_line(tmp_path: Path, variables: dict[str, str], says: str) -> None:
    service = Service(tmp_path, **variables)
    service.launch()
    assert service.process is not None
    assert service.process.wait() == 1
    assert service.log().startswith(f"student-records: {says}")
    assert service.log().count("\n") == 1


@pytest.mark.parametrize(
    ("variables", "code", "says"),
    [
        ({"PORT": "http"}, 1, "PORT='http' is not possible: expected an integer from 1 to 65535"),
        ({"DATABASE_URL": "sqlite:////no/x"}, 3, "DATABASE_URL (or MYSQL_*) sqlite+pysqlite:////no/x cannot be used: "),
    ],
)
def test_uvicorn_itself_says_the_same_line(tmp_path: Path, variables: dict[str, str], code: int, says: str) -> None:
    """For those who start `uvicorn litestar_app.main:app`, as the tutorial does; its own lines stand around it."""
    environment = Service(tmp_path, **variables).environment
    command = [sys.executable, "-m", "uvicorn", "litestar_app.main:app", "--port", str(free_port())]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == code
    assert ended.stderr.count(f"student-records: {says}") == 1
    assert "Traceback" not in ended.stderr


def test_taken_port_ends_the_start_before_the_database(tmp_path: Path) -> None:
    service = Service(tmp_path)
    with socket.create_server(("127.0.0.1", service.port)):
        service.launch()
        assert service.process is not None
        assert service.process.wait() == 1
    assert service.log().startswith(f"student-records: HOST='127.0.0.1', PORT={service.port}: cannot listen there: ")
    assert service.log().count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["service.log"]


@pytest.mark.parametrize("workers", [1, 2])
def test_port_that_is_taken_meanwhile_is_exit_code_1(tmp_path: Path, workers: int) -> None:
    """The start waits for a locked database between its check of the port and its use."""
    path = tmp_path / "students.db"
    service = Service(tmp_path, WORKERS=workers)
    with locked(path):
        service.launch()
        assert service.process is not None
        process = psutil.Process(service.process.pid)
        wait_until(service, lambda: any(Path(file.path) == path for file in process.open_files()))
        taken = socket.create_server(("127.0.0.1", service.port))
    with taken:
        assert service.process.wait() == 1
    assert "Traceback" not in service.log()
    assert "address already in use" in service.log().lower()
    assert_all_end(service)


def test_worker_that_cannot_start_ends_the_service(tmp_path: Path) -> None:
    """The file is replaced by what is no database after the supervisor has prepared it."""
    service = Service(tmp_path, WORKERS=2)
    service.launch()
    assert service.process is not None
    wait_until(service, lambda: "Started parent process" in service.log())
    for path in tmp_path.glob("students.db*"):
        path.write_text("no database" * 1000)
    assert service.process.wait() == 1
    assert "failed to start, stopping the parent process" in service.log()
    assert_all_end(service)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("delay", [0.3, 1.3, 2.6])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_signal_during_the_start_leaves_nothing(
    tmp_path: Path, workers: int, delay: float, number: signal.Signals
) -> None:
    """Ctrl-C reaches the workers as well: a terminal sends it to every process in the foreground."""
    service = Service(tmp_path, WORKERS=workers)
    service.launch()
    assert service.process is not None
    time.sleep(delay)
    (os.killpg if number is signal.SIGINT else os.kill)(service.process.pid, number)
    assert service.process.wait() in {0, -number}
    assert_all_end(service)
    assert "Traceback" not in service.log()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_stopped_service_leaves_one_file(tmp_path: Path, workers: int, number: signal.Signals) -> None:
    """SQLite's log is folded into students.db, the default, which can then be copied as it is."""
    with Service(tmp_path, WORKERS=workers) as service:
        wait_until(service, lambda: service.log().count("startup complete") == workers)
        assert service.client.post("/student", json=ANANYA).status_code == 201
        assert service.client.get("/students?limit=1000&offset=1000").json() == []
        assert service.process is not None
        (os.killpg if number is signal.SIGINT else os.kill)(service.process.pid, number)
        # uvicorn ends in order and then lets the signal have its way; its supervisor does not
        assert service.process.wait() == (0 if workers > 1 else -number)
        assert_all_end(service)
    assert service.log().count("Started server process") == workers
    assert "Traceback" not in service.log()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["service.log", "students.db"]
    assert query_sqlite(tmp_path / "students.db", "SELECT * FROM students") == [(1, "Ananya", "CSE", 8.9)]


def test_workers_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    """In order; and the service can be started again."""
    with Service(tmp_path, WORKERS=2) as service:
        wait_until(service, lambda: service.log().count("startup complete") == 2)
        assert service.process is not None
        service.process.kill()
        service.process.wait()
        assert_all_end(service)
        assert service.log().count("Finished server process") == 2
        service.start()


def test_worker_is_not_replaced_on_another_file(tmp_path: Path, sqlite_path: Path) -> None:
    """It would write to that one, through the log of the other workers' file; they respond 503."""
    with Service(tmp_path, DATABASE_URL=f"sqlite:///{sqlite_path}", WORKERS=2) as service:
        wait_until(service, lambda: service.log().count("startup complete") == 2)
        assert service.client.post("/student", json=ANANYA).status_code == 201
        query_sqlite(sqlite_path, "VACUUM INTO ?", str(tmp_path / "backup.db"))
        time.sleep(1.5)  # in which the supervisor has seen that all have started
        (tmp_path / "backup.db").replace(sqlite_path)
        kill_one_worker(service)
        time.sleep(3)
        assert {service.client.post("/student", json=ANANYA).status_code for _ in range(20)} == {503}
        assert service.log().count("startup complete") == 2


def test_garbage_collector_leaves_alone_what_the_start_has_made(sqlite_url: str) -> None:
    """While the service runs; a full collection would stop it for as long as hundreds of requests take."""
    before = gc.get_freeze_count(), gc.get_threshold()
    with serve_database(sqlite_url) as client:
        assert client.get("/student/1").status_code == 404
        assert gc.get_freeze_count() > before[0] + 10_000
        assert gc.get_threshold()[0] > before[1][0]
    assert (gc.get_freeze_count(), gc.get_threshold()) == before


SLOW = """
import sys, time
if "spawn_main" in " ".join(sys.orig_argv):
    time.sleep(7)
"""


def test_worker_whose_imports_are_slow_is_waited_for(tmp_path: Path) -> None:
    """For longer than one that serves may take to respond; at the start and after SIGHUP."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(SLOW)
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(__file__).parents[1])])
    with Service(tmp_path, WORKERS=2, PYTHONPATH=path) as service:
        wait_until(service, lambda: service.log().count("startup complete") == 2)
        assert service.process is not None
        old = find_workers(service)
        service.process.send_signal(signal.SIGHUP)
        wait_until(service, lambda: not any(worker.is_running() for worker in old))
        assert service.log().count("startup complete") == 4
        assert "died" not in service.log()


def test_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    with Service(tmp_path, WORKERS=2) as service:
        wait_until(service, lambda: service.log().count("startup complete") == 2)
        time.sleep(1.5)  # in which the supervisor has seen that both serve
        find_workers(service)[0].suspend()
        wait_until(service, lambda: service.log().count("startup complete") == 3)
        assert service.log().count("does not respond and is killed") == 1


@pytest.mark.parametrize("delay", [0, 1, 2])
def test_worker_that_dies_at_the_start_is_replaced(tmp_path: Path, delay: float) -> None:
    service = Service(tmp_path, WORKERS=2)
    service.launch()
    wait_until(service, lambda: len(find_workers(service)) == 2)
    time.sleep(delay)
    kill_one_worker(service)
    wait_until(service, lambda: service.log().count("startup complete") >= 2)
    assert service.client.get("/health/ready").status_code == 200
    assert service.stop() == 0


FAILS_ONCE = """
import os, sys
if "spawn_main" in " ".join(sys.orig_argv):
    try:
        os.mkdir("one-has-failed")
    except FileExistsError:
        pass
    else:
        os._exit(3)
"""


def test_worker_that_fails_to_start_is_replaced_if_another_does_not(tmp_path: Path) -> None:
    """With the exit code that uvicorn has for it."""
    (tmp_path / "sitecustomize.py").write_text(FAILS_ONCE)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    with Service(tmp_path, WORKERS=2, PYTHONPATH=path) as service:
        wait_until(service, lambda: service.log().count("startup complete") == 2)
        assert service.stop() == 0


def test_restarts_lose_no_request_and_many_of_them_are_few(tmp_path: Path) -> None:
    with Service(tmp_path, WORKERS=2) as service:
        wait_until(service, lambda: service.log().count("startup complete") == 2)
        assert service.process is not None
        old = find_workers(service)
        for _ in range(50):
            service.process.send_signal(signal.SIGHUP)
            time.sleep(0.03)
        while any(worker.is_running() for worker in old):
            assert service.client.get("/health/ready").status_code == 200
        assert service.stop() == 0
    assert 4 <= service.log().count("Started server process") <= 8
    assert "Traceback" not in service.log()


def test_sigterm_during_a_restart_ends_the_service(tmp_path: Path) -> None:
    """At once, though the restart waits for a worker that completes a request."""
    with Service(tmp_path, WORKERS=2) as service:
        wait_until(service, lambda: service.log().count("startup complete") == 2)
        assert service.process is not None
        head = (
            b"POST /student HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        )
        with ExitStack() as stack:
            for _ in range(8):  # some for each worker
                client = stack.enter_context(socket.create_connection(("127.0.0.1", service.port)))
                client.sendall(head)
            service.process.send_signal(signal.SIGHUP)
            wait_until(service, lambda: "Terminated child process" in service.log())
            service.process.send_signal(signal.SIGTERM)
            wait_until_refused(service)
            assert service.process.poll() is None
        assert service.process.wait() == 0
        assert service.log().count("Started server process") == 3
        assert_all_end(service)
    assert "Traceback" not in service.log()


def wait_until_refused(service: Service) -> None:
    with suppress(OSError):
        while True:
            socket.create_connection(("127.0.0.1", service.port)).close()
            time.sleep(0.02)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_first_process_of_a_container_ends_during_its_start(
    tmp_path: Path, workers: int, number: signal.Signals
) -> None:
    """The kernel ignores a signal for which process 1 has no handler."""
    service = Service(tmp_path, WORKERS=workers)
    (tmp_path / "uvicorn.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "litestar_app"]
    environment = service.environment | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as unshare:
        assert unshare.stdout is not None
        if unshare.stdout.readline() != "importing\n":
            assert "CI" not in os.environ
            pytest.skip("a first process needs the right to make a namespace")
        (first,) = psutil.Process(unshare.pid).children()
        first.send_signal(number)
        assert unshare.wait() == 0


def test_start_says_where_everything_is(tmp_path: Path) -> None:
    """Once, and not in each worker; the database with its whole path."""
    with Service(tmp_path, WORKERS=2, LOG_FORMAT="text", ROOT_PATH="/students-api") as service:
        wait_until(service, lambda: service.log().count("startup complete") == 2)
        for line in (
            f"Database: SQLite, {tmp_path}/students.db",
            f"Documentation: {service.url}/docs, behind the proxy /students-api/docs",
            "Who may connect: programs on this machine only; no API key exists",
        ):
            assert service.log().count(f"INFO     {line}\n") == 1
    with Service(tmp_path, API_KEYS=API_KEYS, HOST="0.0.0.0") as service:
        lines = [msgspec.json.decode(line) for line in service.log().splitlines() if line.startswith("{")]
        messages = [line["message"] for line in lines if line["logger"] == "litestar_app"]
        assert f"Documentation: http://localhost:{service.port}/docs" in messages
        assert "Who may connect: clients with an API key" in messages


def test_start_never_says_a_password(tmp_path: Path, mariadb: MariaDB, mysql_url: str) -> None:
    url = make_url(mysql_url).set(username="registrar", password="never@said")
    mariadb.execute("CREATE OR REPLACE USER registrar IDENTIFIED BY 'never@said'")
    mariadb.execute(f"GRANT ALL ON `{url.database}`.* TO registrar")
    with Service(tmp_path, DATABASE_URL=url.render_as_string(hide_password=False)) as service:
        assert f"Database: MySQL, {url.database} on {url.host}:{url.port}" in service.log()
        assert "never" not in service.log()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_do_not_matter(tmp_path: Path, closed: str) -> None:
    """As daemons start programs; the database never gets the number of one of them, and so no log."""
    service = Service(tmp_path)
    command = ["sh", "-c", f"exec {sys.executable} -m litestar_app {closed}"]
    with subprocess.Popen(command, cwd=tmp_path, env=service.environment, start_new_session=True) as process:
        while process.poll() is None:
            with suppress(httpx.TransportError):
                assert service.client.post("/student", json=ANANYA).status_code == 201
                break
        numbers = [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in range(3)]
        assert not any("students.db" in name for name in numbers)
        process.terminate()
    assert process.returncode == -signal.SIGTERM
