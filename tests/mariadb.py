"""A throwaway MariaDB server: its own data directory, its own port, gone afterwards."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pymysql

from tests.certificates import make_certificates

MISSING = "no MariaDB server binary: install Debian's mariadb-server, or put mariadbd and mariadb-install-db on PATH"


def find_binary(name: str) -> str | None:
    """Look on PATH and where Debian puts server binaries."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def is_installed() -> bool:
    return find_binary("mariadbd") is not None and find_binary("mariadb-install-db") is not None


WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = itertools.cycle(random.sample(range(10_000 + WORKER % 20 * 1000, 11_000 + WORKER % 20 * 1000), 1000))
"""Ports that no other worker of the tests uses, and that the system gives to no client: a service can start again."""


def free_port() -> int:
    for port in PORTS:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


@dataclass
class MariaDB:
    """A server process that a test may stop, kill, freeze and start again on the same port and data."""

    directory: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    host: str = "127.0.0.1"
    patience: ClassVar[float] = 30
    """Seconds that a start may take."""

    def start(self) -> None:
        """Start the server and wait until it responds; raise RuntimeError with its log where it does not."""
        log = self.directory / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(self.command(), stdout=output, stderr=output)
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(pymysql.err.OperationalError):
                if self.is_ready():
                    return
            time.sleep(0.05)
        raise RuntimeError(log.read_text(errors="replace"))

    def command(self) -> list[str]:
        return [
            str(find_binary("mariadbd")), "--no-defaults", *self._user(),
            f"--datadir={self.directory / 'data'}",
            f"--tmpdir={self.directory}",  # a server that starts deletes what others have in a common one
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}", f"--bind-address={self.host}", f"--port={self.port}",
            "--innodb-log-file-size=4M", "--innodb-buffer-pool-size=16M",
            # a server that knows no better than latin1 shows whether the service sets its own character set
            "--character-set-server=latin1", "--max-connections=400",
        ]  # fmt: skip

    def is_ready(self) -> bool:
        return bool(self.execute("SELECT 1"))

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """End the server; SIGKILL is a crash."""
        if self.process is not None:
            self.process.send_signal(with_signal)
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """Freeze the server: its sockets stay open and nothing responds."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        while not self._is_stopped(self.process.pid):  # a thread may go on until another has taken the signal
            time.sleep(0.001)

    @staticmethod
    def _is_stopped(process_id: int) -> bool:
        threads = Path(f"/proc/{process_id}/task").glob("*/stat")
        try:
            return all(thread.read_text().rpartition(") ")[2].startswith("T") for thread in threads)
        except (FileNotFoundError, ProcessLookupError):  # one that has ended meanwhile
            return False

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def execute(
        self, statement: str, *arguments: Any, database: str | None = None, init_command: str | None = None
    ) -> list[tuple[Any, ...]]:
        """Run one statement as root, commit, and return its rows."""
        connection = pymysql.connect(
            host=self.host,
            port=self.port,
            user="root",
            database=database,
            connect_timeout=5,
            read_timeout=60,
            init_command=init_command,
            autocommit=True,
            charset="utf8mb4",
        )
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return list(cursor.fetchall())

    def wait_for_lock(self, pending: Future[Any]) -> None:
        """Wait until a session waits for the lock of another, on behalf of what is pending."""
        while not self.execute("SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"):
            assert not pending.done()
            time.sleep(0.2)  # asked more often, the table is not renewed

    def kill_sessions(self, database_url: str) -> None:
        """End every connection to a database."""
        sessions = "SELECT id FROM information_schema.processlist WHERE db = %s"
        for (session,) in self.execute(sessions, database_url.rpartition("/")[2]):
            self.execute(f"KILL {session}")

    def create_database(self, name: str) -> str:
        """Make an empty database and return its URL for DATABASE_URL."""
        self.execute(f"CREATE DATABASE `{name}`")
        return f"{os.environ.get('TEST_MYSQL_SCHEME', 'mysql')}://root@{self.host}:{self.port}/{name}"

    def install(self) -> None:
        """Lay out the system tables in the data directory."""
        subprocess.run(
            [
                str(find_binary("mariadb-install-db")), "--no-defaults", *self._user(),
                f"--datadir={self.directory / 'data'}",
                f"--tmpdir={self.directory}",  # a server that starts deletes what others have in a common one
                "--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=4M",
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip

    @staticmethod
    def _user() -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []


class StrictMariaDB(MariaDB):
    """One as a hoster may have it: near to MySQL 8 in its defaults, and for TLS only."""

    def command(self) -> list[str]:
        certificates = make_certificates(self.directory, self.host)
        return [
            *super().command(),
            "--innodb-autoinc-lock-mode=2",  # ids of one statement need not follow each other
            "--innodb-force-primary-key=ON",
            "--server-id=1", "--log-bin=binlog", "--binlog-format=ROW",
            f"--ssl-ca={certificates.ca}", f"--ssl-cert={certificates.certificate}", f"--ssl-key={certificates.key}",
            "--require-secure-transport=ON",
        ]  # fmt: skip


@contextlib.contextmanager
def run_mariadb(kind: type[MariaDB] = MariaDB) -> Iterator[MariaDB]:
    """Run a throwaway server for the length of the block.

    Raises:
        RuntimeError: the binaries are not installed, or the server does not start (its log is in the message).

    """
    if not is_installed():
        raise RuntimeError(MISSING)
    with tempfile.TemporaryDirectory(prefix="mariadb-") as directory:
        server = kind(Path(directory))
        server.install()
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGKILL)


@contextlib.contextmanager
def open_session(server: MariaDB, database_url: str, statement: str) -> Iterator["pymysql.Connection[Any]"]:
    """Run a statement in a session of its own, which ends, and releases its locks, with the block."""
    name = database_url.rpartition("/")[2]
    session = pymysql.connect(host="127.0.0.1", port=server.port, user="root", database=name)
    with contextlib.closing(session), session.cursor() as cursor:
        cursor.execute(statement)
        yield session
