"""What the system refuses: open files, memory, threads. A request that needs them is a 503 that says so."""

import errno
import gc
import resource
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from litestar import Litestar

from litestar_app.app import create_app
from litestar_app.exceptions import ResourceError
from litestar_app.resources import FILES, MEMORY, find_refusal
from litestar_app.settings import Settings
from tests.faults.ledger import assert_is_problem
from tests.service import ANANYA, Service, connect, serve_app


class LimitedService(Service):
    """A service that may open so many files in each process."""

    def __init__(self, directory: Path, files: int, **variables: Any) -> None:
        super().__init__(directory, **variables)
        self.files = files

    def command(self) -> list[str]:
        """Start it as `ulimit -n` in a shell does."""
        return ["/bin/sh", "-c", f'ulimit -n {self.files} && exec "$0" -m litestar_app', self.python]


def ask(service: Service, number: int) -> httpx.Response | None:
    """Send a request of one of many kinds; None where the connection was refused."""
    rows = b"name,department,cgpa\n" + b"Ananya,Physics,8.9\n" * 20_000
    csv = {"Content-Type": "text/csv"}
    kinds: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("GET", "/docs", {}),
        ("GET", "/docs/assets/swagger-ui.css", {}),
        ("GET", "/openapi.json", {}),
        ("POST", "/student", {"json": ANANYA}),
        ("GET", "/students?name=a&count=true", {}),
        ("GET", "/students/export", {}),
        ("GET", "/students/export?format=xlsx", {}),
        ("POST", "/students/import?dry_run=true", {"content": rows, "headers": csv}),
        ("GET", "/departments", {}),
        ("GET", "/health/ready", {}),
    )
    method, path, options = kinds[number % len(kinds)]
    with suppress(httpx.TransportError):
        return service.client.request(method, path, **options)
    return None


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("files", [64, 100, 256])
def test_low_limit_of_open_files_starves_nothing(tmp_path: Path, files: int, workers: int) -> None:
    """It bounds the connections, and the start says so once."""
    with LimitedService(tmp_path, files, WORKERS=workers) as service, ThreadPoolExecutor(24) as pool:
        responses = [response for response in pool.map(lambda n: ask(service, n), range(240)) if response is not None]
        assert {response.status_code for response in responses} <= {200, 201, 503}
        assert len([response for response in responses if response.is_success]) > 20
        for _ in range(5 * workers):
            for path in ("/docs", "/docs/assets/swagger-ui.css", "/students", "/health/ready", "/metrics"):
                assert service.client.get(path).status_code == 200
            assert service.client.post("/student", json=ANANYA).status_code == 201
        assert service.log().count(f"A process may open {files} files, which is enough for {files // 4} connect") == 1
        assert "Traceback" not in service.log()


@contextmanager
def limited(service: Service, what: int, limit: int) -> Iterator[None]:
    """Lower a limit of a process that runs, for a while."""
    assert service.process is not None
    before = resource.prlimit(service.process.pid, what)
    resource.prlimit(service.process.pid, what, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(service.process.pid, what, before)


def test_no_file_can_be_opened(tmp_path: Path) -> None:
    """Of a page, of the database for one more thread, of the temporary directory; and then they can again."""
    with Service(tmp_path) as service, connect(service.url) as client:
        assert service.process is not None
        assert client.get("/health/live").status_code == 200  # its connection stays open
        used = {int(path.name) for path in Path(f"/proc/{service.process.pid}/fd").iterdir()}
        first_free = min(set(range(len(used) + 1)) - used)
        paths = ("/docs/assets/swagger-ui.css", "/students?name=a&count=true", "/students/export?format=xlsx")
        with limited(service, resource.RLIMIT_NOFILE, first_free):
            for path in paths:
                assert_is_problem(client.get(path), 503, str(ResourceError(FILES)))
            assert client.get("/students").status_code == 200
        for path in paths:
            assert client.get(path).status_code == 200
        assert "Traceback" not in service.log()


def test_no_thread_can_be_started(tmp_path: Path) -> None:
    with Service(tmp_path) as service, connect(service.url) as client:
        assert service.process is not None
        assert client.get("/health/live").status_code == 200
        size = psutil.Process(service.process.pid).memory_info().vms
        with limited(service, resource.RLIMIT_AS, size + 2 * 2**20):  # the stack of a thread takes 8
            assert_is_problem(client.get("/metrics"), 503, str(ResourceError(MEMORY)))
            assert client.get("/students").status_code == 200
        assert client.get("/metrics").status_code == 200
        assert "Traceback" not in service.log()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENFILE, "x"), FILES),
        (OSError(errno.ENOMEM, "x"), MEMORY),
        (MemoryError(), MEMORY),
        (OSError(errno.ENOENT, "x"), None),
        (RuntimeError("x"), None),
    ],
)
def test_refusals_are_told_from_other_errors(error: Exception, reason: str | None) -> None:
    wrapped = ValueError("x")
    wrapped.__cause__ = error
    assert find_refusal(error) == find_refusal(wrapped) == reason


HALF_IMPORTED = """
import sys, threading, time
from io import BytesIO
from litestar_app.resources import FILES, find_refusal
from litestar_app.transfer.formats.encoders import write_xlsx

class Refuse:
    refused = False

    def find_spec(self, name, path=None, target=None):
        if name == "xlsxwriter.worksheet" and not self.refused:
            self.refused = True
            time.sleep(0.5)  # in which the other thread comes to wait for the same module
            raise OSError(24, "Too many open files")

sys.meta_path.insert(0, Refuse())
outcomes = []

def export():
    try:
        write_xlsx([[(1, "Ananya", "CSE", 8.9)]], BytesIO())
        outcomes.append("written")
    except Exception as error:
        outcomes.append(find_refusal(error))

threads = [threading.Thread(target=export) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sorted(map(str, outcomes)) == sorted([FILES, "written", "written", "written"]), outcomes
"""


def test_import_that_fails_for_want_of_a_file_fails_in_one_thread_only() -> None:
    subprocess.run([sys.executable, "-c", HALF_IMPORTED], check=True)


def count_applications() -> int:
    gc.collect()
    return sum(type(thing) is Litestar for thing in gc.get_objects())


def test_application_that_has_stopped_is_released(database_url: str) -> None:
    """All but the newest; a test suite of somebody who extends it makes hundreds, of 2 MiB each."""

    def serve() -> None:
        app = create_app(Settings(database_url=database_url))
        with serve_app(app) as url, connect(url) as client:
            assert client.get("/students?sort=name&limit=1").status_code == 200
            assert client.post("/student", json=ANANYA).status_code == 201

    before = count_applications()
    for _ in range(3):
        serve()
    assert count_applications() <= before + 1
