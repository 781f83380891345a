"""What one machine carries, on SQLite and on MariaDB, as the table grows: `just capacity`."""

import argparse
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import partial
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self
from urllib.parse import quote

import httpx
import psutil
import pymysql

from litestar_app.students.record import LISTINGS
from litestar_app.students.schemas import StudentRead
from litestar_app.students.synthetic import make_students
from litestar_app.transfer.controller import MAX_FILE_BYTES
from tests.benchmarks.beside_import import Load, write_file
from tests.benchmarks.databases import DefaultServer
from tests.benchmarks.load import CONNECTIONS, HAS_WRK, OPERATIONS, Operation, apply_load
from tests.benchmarks.processes import weigh
from tests.benchmarks.rounds import show
from tests.mariadb import MariaDB, is_installed, run_mariadb
from tests.service import Service

LITESTAR = Path(sys.executable).with_name("litestar")
BUFFER_POOL = "1G"
"""What a department may give to MariaDB."""
BESIDE = 100_000
"""Students of the import beside which others read and write."""
SAMPLED = 40_000
"""Students at random, who are read and changed, and some of them deleted."""
DEEP = 50
"""Pages at random depths, each of which is read again and again."""
REPEATED = 3
"""How often a request is sent that takes long."""
PATIENCE = 3600
"""Seconds that an import, an export or a command may take."""
LINE = 200
"""Bytes that no student of ours has in a file."""
MB = 10**6


class DepartmentServer(DefaultServer):
    """A server as a department may have it; the rest are MariaDB's defaults."""

    patience = 300

    def command(self) -> list[str]:
        return [*super().command(), f"--innodb-buffer-pool-size={BUFFER_POOL}"]


class SQLite:
    """The file of the service."""

    name = "SQLite"
    placeholder = "?"

    def __init__(self, directory: Path) -> None:
        self.path = directory / "students.db"
        self.url = f"sqlite:///{self.path}"

    def connect(self) -> Any:
        return sqlite3.connect(self.path)

    def measure_size(self) -> dict[str, int]:
        """Return the bytes of each part."""
        with closing(self.connect()) as connection:
            pages = "SELECT name, sum(pgsize) FROM dbstat WHERE aggregate = 1 GROUP BY name"
            sizes: dict[str, int] = dict(connection.execute(pages).fetchall())
        history = sum(size for name, size in sizes.items() if "history" in name)
        log = self.path.with_name("students.db-wal")
        return {
            "students": sizes["students"],
            "indexes of students": sum(size for name, size in sizes.items() if name.startswith("ix_students")),
            "history with its index": history,
            "files in all": self.path.stat().st_size,
            "write-ahead log": log.stat().st_size if log.exists() else 0,
        }

    def back_up(self, service: Service) -> Path:
        """Copy the database by the command of the service."""
        target = service.directory / "backup.db"
        run(service, LITESTAR, "students", "backup", "--force", target)
        return target

    def restore(self, service: Service, backup: Path) -> None:
        """Replace its content by that of the backup, beside the service."""
        run(service, LITESTAR, "students", "restore", "--yes", backup)
        for kept in service.directory.glob("*.before-restore-*"):
            kept.unlink()


class MySQL:
    """A database of a MariaDB server."""

    name = "MariaDB"
    placeholder = "%s"

    def __init__(self, server: MariaDB) -> None:
        self._server = server
        self._database = "college"
        self.url = server.create_database(self._database)

    def connect(self, database: str | None = None) -> Any:
        return pymysql.connect(
            host=self._server.host, port=self._server.port, user="root", database=database or self._database
        )

    def measure_size(self) -> dict[str, int]:
        """Return the bytes of each part: those of a table and its indexes as InnoDB's statistics have them."""
        statement = (
            "SELECT data_length, index_length FROM information_schema.tables "
            "WHERE table_schema = DATABASE() AND table_name = 'students'"
        )
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            ((data, indexes),) = cursor.fetchall()
        root = self._server.directory / "data"
        files = {path.stem: path.stat().st_size for path in (root / self._database).glob("*.ibd")}
        common = [*root.glob("ibdata*"), *root.glob("undo*")]
        return {
            "students": data,
            "indexes of students": indexes,
            "history with its index": files["history"],
            "files in all": sum(files.values()),
            "redo log": (root / "ib_logfile0").stat().st_size,
            "undo log": sum(path.stat().st_size for path in common),
        }

    def back_up(self, service: Service) -> Path:
        """Dump the database as docs/how-to/backup.md says."""
        target = service.directory / "college.sql"
        options = ["--single-transaction", "--no-tablespaces", "--default-character-set=utf8mb4"]
        run(service, "mariadb-dump", *self._client(), *options, f"--result-file={target}", self._database)
        return target

    def restore(self, service: Service, backup: Path) -> None:
        """Load the dump into another database of the server, and drop it."""
        self._server.execute("CREATE DATABASE restored")
        with backup.open("rb") as dump:
            run(service, "mariadb", *self._client(), "restored", stdin=dump)
        self._server.execute("DROP DATABASE restored")

    def _client(self) -> list[str]:
        return [f"--host={self._server.host}", f"--port={self._server.port}", "--user=root"]


def run(service: Service, *command: str | Path, stdin: Any = None) -> None:
    """Run a command on the database of the service; RuntimeError with what it wrote where it fails."""
    finished = subprocess.run(
        command,
        cwd=service.directory,
        env=service.environment,
        stdin=stdin or subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(f"{command[0]} {finished.returncode}: {(finished.stdout + finished.stderr).strip()[-500:]}")


def make_lines() -> Iterator[bytes]:
    """Write students without end as lines of CSV: those of `seed`, with a number that makes names as rare as people."""
    rng = random.Random(1)
    for batch in make_students(1):
        for name, department, cgpa in batch:
            yield f"{name} {rng.randrange(10_000)},{department},{cgpa}\n".encode()


class Capacity:
    """A service on a database that grows, and what was measured at each size of it."""

    def __init__(self, database: SQLite | MySQL, directory: Path, history: str, seconds: int) -> None:
        self.database = database
        self.seconds = seconds
        self.cells: dict[str, dict[str, str]] = {}
        """By the title of the column, what was measured in each row."""
        self.failures = 0
        self._column: dict[str, str] = {}
        self._service = Service(directory, DATABASE_URL=database.url, LOG_LEVEL="warning", HISTORY=history)
        self._lines = make_lines()
        self._students = 0
        self._started = time.monotonic()

    def grow(self, students: int) -> None:
        """Import until there are so many students, then measure everything."""
        self._column = self.cells[f"{self.database.name}, {students:,}"] = {}
        if self._service.process is None:
            self._note("start, empty", self._start)
        self._students = self._count()  # the last size has been written to
        if self._students >= students or not self._fill(students):
            raise ValueError(f"{self._students:,} students cannot become {students:,}")
        self._note("memory after the imports", self._weigh)
        for name, size in self._try("size on disk", self.database.measure_size, {}).items():
            self._set(f"size: {name}", f"{size / MB:,.0f} MB, {size / students:,.0f} bytes a student")
        self._service.stop()
        self._note("start, full", self._start)
        before = os.getloadavg()[0]
        self._measure_requests()
        self._note("export of all as CSV", self._export)
        self._measure_backup()
        self._import_beside()
        ids = self._sample()
        for operation in OPERATIONS[2:5]:
            self._load(operation, ids)
        self._note("memory at the end", self._weigh)
        self._set("load average before and after", f"{before:.1f}, {os.getloadavg()[0]:.1f}")

    def _count(self) -> int:
        return int(require_ok(self._service.client.get("/students?limit=1&count=true")).headers["X-Total-Count"])

    def _fill(self, students: int) -> bool:
        """Import files of the size that the service accepts; tell whether that succeeded."""
        rates = []
        while self._students < students:
            rows, path = self._make_file(students - self._students)
            began = time.monotonic()
            created = self._try(f"import of {rows:,}", partial(self._import, path), 0)
            if created != rows:
                self._column["imports"] = f"! failed at {self._students:,} students"
                return False
            self._students += rows
            rates.append((rows, time.monotonic() - began))
            self._tell(f"{self._students:,} students, {rows / rates[-1][1]:,.0f} rows/s")
        total, seconds = (sum(column) for column in zip(*rates, strict=True))
        slowest, fastest = (pick(rows / taken for rows, taken in rates) for pick in (min, max))
        self._set(
            "imports",
            f"{total:,} in {len(rates)} files and {seconds:,.0f} s: {total / seconds:,.0f} rows/s "
            f"({slowest:,.0f} to {fastest:,.0f} a file)",
        )
        return True

    def _make_file(self, most: int) -> tuple[int, Path]:
        path, rows = self._service.directory / "students.csv", 0
        with path.open("wb") as file:
            size = file.write(b"name,department,cgpa\n")
            while rows < most and size < MAX_FILE_BYTES - LINE:
                size += file.write(next(self._lines))
                rows += 1
        return rows, path

    def _import(self, path: Path) -> int:
        with path.open("rb") as file:
            response = self._service.client.post(
                "/students/import", content=file, headers={"Content-Type": "text/csv"}, timeout=PATIENCE
            )
        return int(require_ok(response).json()["created"])

    def _measure_requests(self) -> None:
        ids = self._sample()
        get, front = OPERATIONS[:2]
        self._load(get, ids)
        self._load(front, ids)
        for sort in ("id", "name", "-cgpa"):
            self._load(Operation("deep", f"list 100 by cursor, sort={sort}", self._find_pages(sort)), ids)
        for label, path in (
            ("GET /departments", "/departments"),
            ("count=true", "/students?limit=1&count=true"),
            ("count=true, a department", "/students?limit=1&count=true&department=Physics"),
            ("a name that many have", "/students?name=Sharma"),
            ("a name that few have", f"/students?name={quote('Siobhán Fitzgerald 77')}"),
            ("a name that nobody has", "/students?name=Nobody"),
            ("a name that few have, of a department", f"/students?department=Physics&name={quote('Ruth Baker 77')}"),
            ("sort=-cgpa,name, which no index has", "/students?sort=-cgpa,name"),
            ("the last page by offset", f"/students?offset={self._students - 100}"),
            ("history of a student", "/student/1/history"),
        ):
            self._note(label, partial(self._time, path))

    def _find_pages(self, sort: str) -> dict[str, int]:
        """Choose pages at random depths by the cursors that a walk would have."""
        listing, pages = LISTINGS.create(sort=sort), {}
        with self._read_rows(DEEP, "*") as rows:
            for row in rows:
                pages[f"/students?cursor={listing.make_cursor(StudentRead(*row), is_backward=False).encode()}"] = 1
        return pages

    def _sample(self) -> Path:
        """Write the ids of students at random to a file; not that of the first, whom the load beside imports reads."""
        path = self._service.directory / "ids"
        with self._read_rows(min(SAMPLED, self._students // 2), "id") as rows:
            path.write_text("".join(f"{key}\n" for key in {key: None for (key,) in rows}))
        return path

    @contextmanager
    def _read_rows(self, count: int, columns: str) -> Iterator[Iterator[tuple[Any, ...]]]:
        """Read students at random past the service."""
        rng = random.Random(2)
        mark = self.database.placeholder
        statement = f"SELECT {columns} FROM students WHERE id >= {mark} ORDER BY id LIMIT 1"
        with closing(self.database.connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("SELECT max(id) FROM students")
            ((last,),) = cursor.fetchall()

            def read() -> Iterator[tuple[Any, ...]]:
                for _ in range(count):
                    cursor.execute(statement, [rng.randint(2, last)])
                    yield from cursor.fetchall()

            yield read()

    def _load(self, operation: Operation, ids: Path) -> None:
        def load() -> str:
            measured = apply_load(operation, self._service.port, self.seconds, 1, ids)
            if measured.errors:
                self.failures += 1
            errors = f"! {measured.errors} errors; " if measured.errors else ""
            return f"{errors}{measured.per_second:,.0f}/s, p50 {measured.p50_ms:.1f}, p99 {measured.p99_ms:.1f} ms"

        self._note(operation.label, load)

    def _time(self, path: str) -> str:
        times = []
        for _ in range(REPEATED):
            began = time.perf_counter()
            response = self._service.client.get(path)
            times.append(time.perf_counter() - began)
            if response.status_code != HTTPStatus.OK:
                self.failures += 1
                return f"! {response.status_code} after {times[-1]:.1f} s: {response.json().get('detail')}"
        return f"{statistics.median(times) * 1000:,.0f} ms (the first {times[0] * 1000:,.0f})"

    def _export(self) -> str:
        expected = self._count()
        began, size, lines = time.monotonic(), 0, 0
        with self._service.client.stream("GET", "/students/export") as response:
            if response.status_code != HTTPStatus.OK:
                response.read()
            require_ok(response)
            for part in response.iter_raw(2**20):
                size += len(part)
                lines += part.count(b"\n")
        seconds = time.monotonic() - began
        if lines != expected + 1:
            raise RuntimeError(f"{lines} lines of {expected} students")
        return f"{lines / seconds:,.0f} rows/s, {size / MB:,.0f} MB in {seconds:,.0f} s"

    def _measure_backup(self) -> None:
        """Back up beside the service, and restore that."""
        backup: Path | None = None

        def back_up() -> str:
            nonlocal backup
            began = time.monotonic()
            backup = self.database.back_up(self._service)
            return f"{time.monotonic() - began:,.0f} s, {backup.stat().st_size / MB:,.0f} MB"

        def restore() -> str:
            began = time.monotonic()
            assert backup is not None, "there is no backup"
            self.database.restore(self._service, backup)
            return f"{time.monotonic() - began:,.0f} s"

        self._note("backup", back_up)
        self._note("restore", restore)
        if backup is not None:
            backup.unlink()

    def _import_beside(self) -> None:
        """Import some more students beside readers and writers."""
        path = self._service.directory / "students.csv"
        write_file(path, BESIDE)
        load = Load(self._service)

        def import_beside() -> str:
            with load:
                began = time.monotonic()
                created = self._import(path)
                seconds = time.monotonic() - began
            if created != BESIDE:
                raise RuntimeError(f"{created} created")
            return f"{seconds:,.0f} s, {BESIDE / seconds:,.0f} rows/s"

        self._note(f"import of {BESIDE:,} beside a load", import_beside)
        for kind, seconds, (p50, p99, longest) in load.summarize():
            failed = load.failed[kind]
            self.failures += bool(failed)
            errors = f"! {failed} failed; " if failed else ""
            cell = f"{errors}{len(seconds):,}: p50 {p50:.1f}, p99 {p99:.1f}, longest {longest:,.0f} ms"
            self._set(f"{kind}s beside it", cell)

    def _start(self) -> str:
        began = time.monotonic()
        self._service.start()
        require_ok(self._service.client.get("/students?limit=1"))
        return f"{time.monotonic() - began:.1f} s"

    def _weigh(self) -> str:
        assert self._service.process is not None
        process = psutil.Process(self._service.process.pid)
        status = Path(f"/proc/{process.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        peak = "".join(f", at most {int(line.split()[1]) / 1024:,.0f} MiB" for line in lines if "VmHWM" in line)
        return f"{weigh([process]):,.0f} MiB{peak}"

    def _note(self, label: str, measure: Callable[[], str]) -> None:
        """Measure something; what befalls it stands in the table, and the rest is measured nevertheless."""
        self._set(label, self._try(label, measure, "! failed"))

    def _set(self, label: str, cell: str) -> None:
        self._column[label] = cell
        self._tell(f"{label}: {cell}")

    def _try(self, label: str, work: Callable[[], Any], instead: Any) -> Any:
        try:
            return work()
        except Exception as error:  # noqa: BLE001  whatever it is, it is told
            self.failures += 1
            self._tell(f"{label} FAILED: {type(error).__name__}: {error}")
            return instead

    def _tell(self, text: str) -> None:
        show(f"[{time.monotonic() - self._started:6,.0f} s] {self.database.name}: {text}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._service.__exit__()


def require_ok(response: httpx.Response) -> httpx.Response:
    """Return the response, or raise RuntimeError with what it says."""
    if response.status_code != HTTPStatus.OK:
        raise RuntimeError(f"{response.status_code}: {response.text[:500]}")
    return response


def print_table(columns: dict[str, dict[str, str]]) -> None:
    """Print what was measured as Markdown."""
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    print(f"\n| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {row} | {' | '.join(column.get(row, '') for column in columns.values())} |")
    sys.stdout.flush()


def describe_machine(directory: Path) -> str:
    """Say what it is measured on, without the name of a model; of a disk in memory, warn."""
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    fstype = next((mounts[path] for path in (directory, *directory.parents) if path in mounts), "unknown")
    if fstype in {"tmpfs", "ramfs"}:
        show(f"{directory} is in memory ({fstype}): set TMPDIR to a directory on a disk\n")
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total / 2**30
    return (
        f"{cores} cores, {memory:.0f} GiB of memory, {fstype}; other processes use {psutil.cpu_percent(1):.0f}% of the "
        f"cores. {CONNECTIONS} connections; MariaDB has a buffer pool of {BUFFER_POOL}."
    )


def main() -> int:
    """Measure both databases, or one, at each size; return 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "mariadb", "both"], default="both")
    parser.add_argument(
        "--students", type=int, nargs="+", default=[1_000_000, 10_000_000], help="sizes to which the table grows"
    )
    parser.add_argument("--history", choices=["on", "off"], default="on")
    parser.add_argument("--seconds", type=int, default=5, help="of load for each operation")
    arguments = parser.parse_args()
    if not HAS_WRK or (arguments.database != "sqlite" and not (is_installed() and shutil.which("mariadb-dump"))):
        parser.error("wrk and, for MariaDB, mariadb-server must be installed")
    sizes = sorted(arguments.students)
    if any(after - before < 2 * BESIDE for before, after in pairwise(sizes)):
        parser.error(f"sizes must be {2 * BESIDE:,} students apart, since the measures write some too")
    columns: dict[str, dict[str, str]] = {}
    failures = 0
    kinds = ["sqlite", "mariadb"] if arguments.database == "both" else [arguments.database]
    for kind in kinds:
        with TemporaryDirectory(prefix="capacity-") as name, ExitStack() as stack:
            directory = Path(name)
            print(describe_machine(directory), flush=True)
            server = stack.enter_context(run_mariadb(DepartmentServer) if kind == "mariadb" else nullcontext())
            database = SQLite(directory) if server is None else MySQL(server)
            capacity = stack.enter_context(Capacity(database, directory, arguments.history, arguments.seconds))
            for students in sizes:
                capacity.grow(students)
                columns |= capacity.cells
                print_table(columns)
            failures += capacity.failures
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
