"""Servers under measurement: started on a core of their own, asked, weighed and always stopped."""

import http.client
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import psutil

from tests.benchmarks.candidates import Candidate
from tests.mariadb import free_port

REPOSITORY = Path(__file__).parents[2]
SERVER_CORE, LOAD_CORE = 0, 1
PATIENCE = 60.0


def on_core(number: int, command: list[str]) -> list[str]:
    """Pin a command to one of our cores, where there are two and taskset is installed (Linux)."""
    taskset = shutil.which("taskset")
    cores = sorted(os.sched_getaffinity(0)) if taskset else []
    if taskset is None or len(cores) <= number:
        return command
    return [taskset, "--cpu-list", str(cores[number]), *command]


@dataclass
class Server:
    """A running candidate."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    start_seconds: float = 0.0

    def request(self, method: str, path: str, data: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Send one request on a connection of its own; return the status and what its JSON says."""
        body = msgspec.json.encode(data) if data else None
        status, headers, content = self.exchange(method, path, body, "application/json")
        is_json = headers.get_content_type() == "application/json"
        return status, msgspec.json.decode(content) if content and is_json else None

    def exchange(
        self, method: str, path: str, body: bytes | None = None, media_type: str = "", timeout: float = 10
    ) -> tuple[int, Message, bytes]:
        """Send one request on a connection of its own; return status, headers and body of the response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"Content-Type": media_type} if body else {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def family(self) -> list[psutil.Process]:
        """Return the process and its children."""
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def memory_mb(self) -> float:
        """Weigh the resident memory of the process and its children; pages that they share count in each."""
        return weigh(self.family())

    def log_tail(self) -> str:
        """Return the last lines that the server wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])

    def wait_for_answer(self, started: float) -> None:
        """Ask until there is a 200 and note how long that took; RuntimeError with its log if none comes."""
        while time.perf_counter() - started < PATIENCE and self.process.poll() is None:
            try:
                answered = self.request("GET", "/students?limit=1")[0] == http.HTTPStatus.OK
            except OSError:
                answered = False
            if answered:
                self.start_seconds = time.perf_counter() - started
                return
            time.sleep(0.005)
        raise RuntimeError(f"did not start: {self.log_tail()}")

    def stop(self) -> None:
        """Ask the server to end; kill what is left of it after five seconds."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def weigh(processes: list[psutil.Process]) -> float:
    """Return the resident memory of processes in MB."""
    return sum(process.memory_info().rss for process in processes) / 2**20


@contextmanager
def run_server(candidate: Candidate, database_url: str) -> Iterator[Server]:
    """Run a candidate on a free port for the length of the block."""
    port = free_port()
    command = on_core(SERVER_CORE, candidate.serve(port))
    url = database_url.replace("mysql:", f"{candidate.scheme}:")
    environment = {**os.environ, "DATABASE_URL": url, "PORT": str(port), "LOG_LEVEL": "warning"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling all modules at each start costs time and 7 MB
    with TemporaryDirectory(prefix="benchmark-") as directory:
        log = Path(directory) / "log"
        started = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        server = Server(process, port, log)
        try:
            server.wait_for_answer(started)
            yield server
        finally:
            server.stop()
