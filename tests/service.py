"""The service under test: on a thread of this process, or as a process of its own that can be killed."""

import asyncio
import contextlib
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, cast

import httpx
import psutil
import uvicorn

from litestar_app.access.keys import make_key
from litestar_app.app import create_app
from litestar_app.database.config import create_alchemy_config
from litestar_app.database.limits import Timeouts
from litestar_app.server.protocol import Connections, Limits
from litestar_app.settings import Settings
from tests.mariadb import free_port

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""What httpx need not make anew, by reading every certificate of the world, for each client of plain HTTP."""
UNAVAILABLE = "The database is locked, full or unreachable; nothing was stored, retry later"
"""The detail of a 503 after which a retry does no harm."""
PROBLEM = {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": UNAVAILABLE}
ANANYA = {"name": "Ananya", "department": "CSE", "cgpa": 8.9}


(_editor, EDITOR_SECRET), (_reader, READER_SECRET) = make_key("registrar", "editor"), make_key("teacher", "reader")
API_KEYS = ", ".join(f"{key.name}:{key.role}:{key.id}:{key.sha256}" for key in (_editor, _reader))
AS_EDITOR = {"Authorization": f"Bearer {EDITOR_SECRET}"}
AS_READER = {"Authorization": f"Bearer {READER_SECRET}"}


def assert_is_unavailable(response: httpx.Response) -> None:
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert (response.headers["Content-Type"], response.json()) == ("application/problem+json", PROBLEM)


class QuickServer(uvicorn.Server):
    """Looks at `should_exit` more often than every tenth of a second: there is one of these for every test."""

    async def main_loop(self) -> None:
        while not self.should_exit:
            await self.on_tick(0)
            await asyncio.sleep(0.005)


@contextlib.contextmanager
def serve_app(app: Any, limits: Limits | None = None, **options: Any) -> Iterator[str]:
    """Serve an application by uvicorn with our protocol, on a thread; yield its URL."""
    options.setdefault("http", cast("type[asyncio.Protocol]", Connections(limits)))
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=5, **options)
    server = QuickServer(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def connect(url: str, **options: Any) -> httpx.Client:
    """Make a client that threads may share: without limits, or it closes connections in use (httpcore #1110)."""
    return httpx.Client(**{"base_url": url, "verify": PLAIN, "timeout": 30, "limits": httpx.Limits(), **options})


@contextlib.contextmanager
def serve_database(
    database_url: str, timeouts: Timeouts | None = None, headers: dict[str, str] | None = None, **others: Any
) -> Iterator[httpx.Client]:
    """Serve a database, on a thread, with other settings too; yield a client that sends the headers."""
    settings = Settings(database_url=database_url, **others)
    app = create_app(settings, create_alchemy_config(settings, timeouts))
    with serve_app(app) as url, connect(url, headers=headers) as client:
        yield client


class Service:
    """`python -m litestar_app` in a directory, with these variables and no others that it would read."""

    def __init__(self, directory: Path, python: str = sys.executable, **variables: Any) -> None:
        self.python = python
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # it outlives the process, and is more patient than a service whose database hangs
        self.client = connect(self.url, timeout=180, headers={"Connection": "close"})
        ours = {name.upper() for name in Settings.__struct_fields__}
        unwanted = ours | {"PYTHONDONTWRITEBYTECODE"}  # which would make every start compile everything again
        self.environment = {name: value for name, value in os.environ.items() if name not in unwanted}
        self.environment |= {"PORT": str(self.port), **{name: str(value) for name, value in variables.items()}}
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it responds; raise RuntimeError with what it wrote where it does not."""
        self.launch()
        assert self.process is not None
        while self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                self.client.get("/health/live")
                return
            time.sleep(0.02)
        raise RuntimeError(self.log())

    def command(self) -> list[str]:
        return [self.python, "-m", "litestar_app"]

    def launch(self) -> None:
        """Start it and do not wait."""
        with (self.directory / "service.log").open("a") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                env=self.environment,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """End it, workers included, and return its exit code; SIGKILL is a crash."""
        assert self.process is not None
        if with_signal is not signal.SIGKILL:
            self.process.send_signal(with_signal)
            return self.process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, with_signal)
        code = self.process.wait()
        while find_processes(self):  # a worker may close its files after its parent has ended
            time.sleep(0.01)
        return code

    def log(self) -> str:
        return (self.directory / "service.log").read_text()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop(signal.SIGKILL)


def find_processes(service: Service) -> list[psutil.Process]:
    """Find the processes of a service, also those whose parent has ended."""
    assert service.process is not None
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == service.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members


def find_workers(service: Service) -> list[psutil.Process]:
    """Find the workers that have not died; those of a service with one are none."""
    assert service.process is not None
    workers = []
    for child in psutil.Process(service.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has died, and the supervisor has not seen it yet
            if any("spawn_main" in part for part in child.cmdline()):
                workers.append(child)
    return workers


def kill_one_worker(service: Service) -> None:
    find_workers(service)[0].kill()
