"""Serve: how the process ends by a signal at any moment, and the exit code of a start that fails."""

import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.service import Service

PREPARED = "CREATE TABLE students (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, department TEXT, cgpa REAL)"


def wait_for_end(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that are left after ten seconds; the parent of an orphan may never collect it."""
    deadline = time.monotonic() + 10
    while processes and time.monotonic() < deadline:
        time.sleep(0.02)
        processes = [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    return processes


def session_of(service: Service) -> list[psutil.Process]:
    assert service.process is not None
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == service.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[Service]:
    """A service whose port another process is listening on."""
    service = Service(tmp_path)
    with socket.create_server(("127.0.0.1", service.port)):
        yield service


def test_port_that_is_taken_ends_the_start_before_the_database(taken: Service) -> None:
    taken.launch()
    assert taken.process is not None
    assert taken.process.wait() == 1
    assert taken.log().startswith(f"student-records: HOST='127.0.0.1', PORT={taken.port}: cannot listen there: ")
    assert taken.log().count("\n") == 1
    assert [path.name for path in taken.directory.iterdir()] == ["service.log"]


@pytest.mark.parametrize("workers", [1, 2])
def test_port_that_is_taken_meanwhile_ends_with_exit_code_1(tmp_path: Path, workers: int) -> None:
    """The start waits for a locked database between its check of the port and its use."""
    path = tmp_path / "students.db"
    service = Service(tmp_path, WORKERS=workers)
    with sqlite3.connect(path, isolation_level=None) as lock:
        lock.execute(PREPARED)
        lock.execute("BEGIN EXCLUSIVE")
        service.launch()
        assert service.process is not None
        wait_until_open(service, path)
        with socket.create_server(("127.0.0.1", service.port)):
            lock.execute("ROLLBACK")
            assert service.process.wait(30) == 1
    lock.close()
    assert "Traceback" not in service.log()
    assert "address already in use" in service.log().lower()
    assert wait_for_end(session_of(service)) == []


def wait_until_open(service: Service, path: Path) -> None:
    """Wait until the service has the database file open, which is after its check of the port."""
    assert service.process is not None
    process = psutil.Process(service.process.pid)
    while not any(Path(file.path) == path for file in process.open_files()):
        assert service.process.poll() is None, service.log()
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("delay", [0.3, 0.8, 1.3, 1.6, 2.0, 2.6])
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
    assert service.process.wait(15) in {0, -number}
    assert wait_for_end(session_of(service)) == []
    assert "Traceback" not in service.log()


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_a_running_service_without_traceback(tmp_path: Path, workers: int) -> None:
    with Service(tmp_path, WORKERS=workers) as service:
        assert service.process is not None
        os.killpg(service.process.pid, signal.SIGINT)
        assert service.process.wait(15) == (0 if workers > 1 else -signal.SIGINT)
        assert wait_for_end(session_of(service)) == []
        assert "Traceback" not in service.log()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["service.log", "students.db"]


def test_workers_end_in_order_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    with Service(tmp_path, WORKERS=2) as service:
        assert service.process is not None
        workers = psutil.Process(service.process.pid).children(recursive=True)
        assert len(workers) >= 2
        service.process.kill()
        service.process.wait()
        assert wait_for_end(workers) == []
        assert service.log().count("Finished server process") == 2
        service.start()


def test_worker_that_cannot_start_ends_the_service(tmp_path: Path) -> None:
    """The file is replaced by what is no database after the supervisor has prepared it."""
    service = Service(tmp_path, WORKERS=2)
    service.launch()
    assert service.process is not None
    while "Started parent process" not in service.log():
        assert service.process.poll() is None, service.log()
        time.sleep(0.005)
    for path in tmp_path.glob("students.db*"):
        path.write_text("no database" * 1000)
    assert service.process.wait(30) == 1
    assert "failed to start, stopping the parent process" in service.log()
    assert wait_for_end(session_of(service)) == []
