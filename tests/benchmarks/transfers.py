"""What a page deep in the table, an import and an export of a CSV file cost; a part of `just bench`."""

import base64
import csv
import io
import random
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import msgspec
import psutil

from tests.benchmarks.candidates import BASELINE, SERVICE, Candidate
from tests.benchmarks.contract import require
from tests.benchmarks.databases import Database, fresh_sqlite, make_row
from tests.benchmarks.isolation import run_isolated
from tests.benchmarks.load import Operation, apply_load
from tests.benchmarks.processes import SERVER_CORE, Server, on_core, run_server, weigh
from tests.benchmarks.results import Transfer, TransferTurn
from tests.benchmarks.rounds import show

PAGE, IMPORT, EXPORT = "page", "import", "export"
PAGE_SIZE = 100
DEPTHS = 50
"""Pages at random, each of which is read again and again."""
SAMPLING = 0.01
"""Seconds between two looks at the memory."""
TIMEOUT = 600
"""Seconds that a server may take for a file."""
BOUNDARY = "benchmark"


@dataclass(frozen=True)
class Routes:
    """How a candidate is asked for what all of them do."""

    page: Callable[[Server, int], str]
    """Returns the path of the page behind an id."""
    export: str = "/students/export"
    header: str = "name,department,cgpa"
    has_import: bool = True


def follow_link(server: Server, after: int) -> str:
    """Take the next page from the header of the page before it, which is found by its offset."""
    _, headers, _ = server.exchange("GET", f"/students?limit={PAGE_SIZE}&offset={after - PAGE_SIZE}")
    found = re.search(r'<([^>]+)>; rel="next"', headers.get("Link", ""))
    if found is None:
        raise RuntimeError("the service has no next page")
    return found.group(1)


def make_drf_cursor(_: Server, after: int) -> str:
    """Write the cursor as CursorPagination writes it into the links of its pages."""
    return f"/students/pages?cursor={quote(base64.b64encode(b'p=%d' % after))}"


ROUTES = {
    SERVICE: Routes(follow_link),
    BASELINE: Routes(lambda _, after: f"/students?limit={PAGE_SIZE}&offset={after}"),
    # a column for the primary key always needs to be present
    "drf": Routes(make_drf_cursor, header="name,department,cgpa,id"),
    "datasette": Routes(
        lambda _, after: f"/students/students.json?_size={PAGE_SIZE}&_next={after}",
        export="/students/students.csv?_stream=on",
        has_import=False,
    ),
}


def take_transfer_turn(turn: TransferTurn, candidate: Candidate, rows: int, seconds: int) -> None:
    """Let a candidate import a file into an empty database, export it and give pages; note everything in `turn`."""
    routes = ROUTES[candidate.name]
    file = make_file(routes.header, rows)
    with fresh_sqlite() as database:
        with run_server(candidate, database.url) as server:
            turn.transfers[IMPORT] = send_import(server, file) if routes.has_import else run_import(database, file)
        check_stored(database, rows)
        with run_server(candidate, database.url) as server:  # anew: an export would use memory that the import has left
            turn.transfers[EXPORT], content = request_export(server, routes.export)
            check_exported(content, rows)
            turn.pages[PAGE] = apply_load(plan_pages(server, routes, rows), server.port, seconds, 1)
            if turn.pages[PAGE].errors:
                raise RuntimeError(f"{turn.pages[PAGE].errors} pages failed; the end of its log: {server.log_tail()}")
    for name, transfer in turn.transfers.items():
        show(f"  {name} {rows / transfer.seconds:,.0f} rows/s, {transfer.growth_mb:.0f} MB")
    show(f"  {PAGE} {turn.pages[PAGE].per_second:,.0f}")


def make_file(header: str, rows: int) -> bytes:
    """Write a CSV file of students without ids."""
    empty = "," * (header.count(",") - 2)
    lines = (f"{name},{department},{cgpa}{empty}" for _, name, department, cgpa in map(make_row, range(1, rows + 1)))
    return "\n".join([header, *lines, ""]).encode()


@contextmanager
def watch(processes: list[psutil.Process], before: float) -> Iterator[Transfer]:
    """Note how long the block takes, and how far the memory of processes grows over `before`."""
    transfer = Transfer(0.0, 0.0)
    finished = threading.Event()

    def sample() -> None:
        while not finished.wait(SAMPLING):
            try:
                transfer.growth_mb = max(transfer.growth_mb, weigh(processes) - before)
            except psutil.NoSuchProcess:
                return

    sampler = threading.Thread(target=sample)
    sampler.start()
    started = time.perf_counter()
    try:
        yield transfer
    finally:
        transfer.seconds = round(time.perf_counter() - started, 4)
        finished.set()
        sampler.join()
        transfer.growth_mb = round(transfer.growth_mb, 1)


def send_import(server: Server, file: bytes) -> Transfer:
    """Send a file as a form does."""
    head = (
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=file; filename=students.csv\r\n"
        "Content-Type: text/csv\r\n\r\n"
    )
    body = head.encode() + file + f"\r\n--{BOUNDARY}--\r\n".encode()
    media_type = f"multipart/form-data; boundary={BOUNDARY}"
    family = server.family()
    with watch(family, weigh(family)) as transfer:
        status, _, content = server.exchange("POST", "/students/import", body, media_type, TIMEOUT)
    require(status == HTTPStatus.OK, f"the import ({status}: {content[:500]!r})")
    return transfer


def run_import(database: Database, file: bytes) -> Transfer:
    """Import a file by sqlite-utils, as Datasette's documentation advises: a command, whose start counts too."""
    path = Path(database.url.removeprefix("sqlite:///"))
    csv_path = path.with_suffix(".csv")
    csv_path.write_bytes(file)
    arguments = ["insert", str(path), "students", str(csv_path), "--csv"]
    command = on_core(SERVER_CORE, run_isolated("sqlite_utils", ["sqlite-utils"], arguments))
    with subprocess.Popen(command) as process, watch([psutil.Process(process.pid)], 0.0) as transfer:
        process.wait()
    require(process.returncode == 0, "sqlite-utils insert")
    return transfer


def request_export(server: Server, path: str) -> tuple[Transfer, bytes]:
    """Fetch a file of all students."""
    family = server.family()
    with watch(family, weigh(family)) as transfer:
        status, _, content = server.exchange("GET", path, timeout=TIMEOUT)
    require(status == HTTPStatus.OK, f"the export ({status}: {content[:500]!r})")
    return transfer, content


def check_stored(database: Database, rows: int) -> None:
    """Look at every row behind the candidate's back; RuntimeError where it is not what the file has."""
    with closing(database.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT name, department, cgpa FROM students")
        stored = sorted(map(tuple, cursor.fetchall()))
    require(stored == sorted(make_row(key)[1:] for key in range(1, rows + 1)), "the import")


def check_exported(content: bytes, rows: int) -> None:
    """Read the file; RuntimeError where it does not have all students and a header."""
    lines = list(csv.reader(io.StringIO(content.decode(), newline="")))
    students = sorted((name, department, float(cgpa)) for _, name, department, cgpa in lines[1:])
    require(lines[0][1:] == ["name", "department", "cgpa"], "the header of the export")
    require(students == sorted(make_row(key)[1:] for key in range(1, rows + 1)), "the export")


def plan_pages(server: Server, routes: Routes, rows: int) -> Operation:
    """Choose pages at random depths, and check each."""
    paths = []
    for after in random.Random(1).sample(range(PAGE_SIZE, rows - PAGE_SIZE), DEPTHS):
        path = routes.page(server, after)
        students = read_page(server.exchange("GET", path)[2])
        require(students == list(range(after + 1, after + PAGE_SIZE + 1)), f"GET {path}")
        paths.append(path)
    return Operation(PAGE, "page", dict.fromkeys(paths, 1))


def read_page(content: bytes) -> list[int]:
    """Return the ids of a page: an array, or one with the next page beside it; Datasette gives arrays as rows."""
    page = msgspec.json.decode(content)
    students = page if isinstance(page, list) else page.get("results") or page["rows"]
    return [student[0] if isinstance(student, list) else student["id"] for student in students]
