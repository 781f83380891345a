"""Pages of a table of a million students next to those of a thousand, and exports: `just bench-listing`."""

import asyncio
import random
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pymysql

from litestar_app.database import Database
from litestar_app.database.config import create_alchemy_config
from litestar_app.records.listing import Listing
from litestar_app.settings import Settings
from litestar_app.students.record import LISTINGS
from litestar_app.students.schemas import StudentRead
from litestar_app.students.service import StudentService
from litestar_app.transfer.export import Format, export
from tests.database import prepare
from tests.mariadb import is_installed, run_mariadb
from tests.service import Service

SMALL, LARGE = 1000, 1_000_000
ROUNDS = 12
DEPTHS = 3
"""Students at random, from each of whom a page is read forwards and backwards."""
FILTERS: tuple[dict[str, Any], ...] = ({}, {"department": ["Department 1"]}, {"cgpa_min": 9.0})
SORTS = ("id", "-id", "name", "-name", "department", "-department", "cgpa", "-cgpa")
CASES = [
    {**filters, "sort": sort}
    for filters in FILTERS
    for sort in SORTS
    if "cgpa_min" not in filters or sort.endswith("cgpa")
]
EXPORTS: list[tuple[Format, str]] = [("csv", "id"), ("csv", "name"), ("ndjson", "id"), ("xlsx", "id")]

Row = tuple[int, str, str, float]


def make_rows(count: int) -> Iterator[Row]:
    """Make students in twelve departments, the first of which have the most."""
    rng = random.Random(1)
    for number in range(1, count + 1):
        department = f"Department {min(int(rng.expovariate(0.3)), 11)}"
        yield number, f"Student {rng.randrange(10**7)}", department, rng.randrange(1001) / 100


def fill_sqlite(path: Path, count: int) -> str:
    """Make a file with students, and return its URL."""
    url = f"sqlite:///{path}"
    with prepare(url), closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO students VALUES (?, ?, ?, ?)", make_rows(count))
    return url


def fill_mysql(port: int, url: str, count: int) -> str:
    """Put students into an empty database, and return its URL."""
    name = url.rpartition("/")[2]
    with prepare(url), closing(pymysql.connect(host="127.0.0.1", port=port, user="root", database=name)) as connection:
        rows = list(make_rows(count))
        for first in range(0, count, 5000):
            values = rows[first : first + 5000]
            connection.cursor().executemany("INSERT INTO students VALUES (%s, %s, %s, %s)", values)
            connection.commit()
    return url


async def time_page(students: StudentService, listing: Listing) -> float:
    """Return the microseconds that a page takes, in the median."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await students.list_page(listing)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


async def time_pages(url: str, count: int) -> list[tuple[float, float]]:
    """Return for each case the microseconds of the first page, and of the slowest of those by cursor."""
    database = Database(create_alchemy_config(Settings(database_url=url)))
    rng = random.Random(3)
    rows = [StudentRead(*row) for row in make_rows(count)]
    results = []
    async with database.open():
        students = StudentService(database)
        for case in CASES:
            listing = LISTINGS.create(**case)
            matching = [
                row
                for row in rng.sample(rows, min(count, 1000))
                if row.department in (listing.filters.department or [row.department])
                and row.cgpa is not None
                and row.cgpa >= (listing.filters.cgpa_min or 0)
            ]
            cursors = [
                listing.make_cursor(row, is_backward=is_backward).encode()
                for row in matching[:DEPTHS]
                for is_backward in (False, True)
            ]
            first = await time_page(students, listing)
            results.append(
                (first, max([await time_page(students, LISTINGS.create(cursor=cursor)) for cursor in cursors]))
            )
    return results


async def time_exports(url: str) -> None:
    """Print the rows per second of exports in this process, and how much memory they took."""
    process = psutil.Process()
    database = Database(create_alchemy_config(Settings(database_url=url)))
    async with database.open():
        for kind, sort in EXPORTS:
            before = peak = process.memory_info().rss
            began = time.perf_counter()
            async for _ in export(database, LISTINGS.create(sort=sort), kind):
                peak = max(peak, process.memory_info().rss)
            seconds = time.perf_counter() - began
            print(f"| {kind}, sort={sort}, in process | {LARGE / seconds:,.0f} | {(peak - before) / 2**20:.1f} |")


def time_http_exports(url: str, directory: Path) -> None:
    """Print the rows per second of exports from a service, and how much its memory grew."""
    with Service(directory, DATABASE_URL=url, LOG_LEVEL="warning") as service:
        assert service.process is not None
        process = psutil.Process(service.process.pid)
        for kind, sort in EXPORTS:
            before = peak = process.memory_info().rss
            began = time.perf_counter()
            with service.client.stream("GET", f"/students/export?format={kind}&sort={sort}") as response:
                for _ in response.iter_raw(2**20):
                    peak = max(peak, process.memory_info().rss)
            seconds = time.perf_counter() - began
            print(f"| {kind}, sort={sort}, over HTTP | {LARGE / seconds:,.0f} | {(peak - before) / 2**20:.1f} |")


def report(name: str, urls: dict[int, str], directory: Path) -> None:
    """Measure a database with few and one with many students, and print both side by side."""
    small, large = (asyncio.run(time_pages(urls[count], count)) for count in (SMALL, LARGE))
    print(f"\n| {name}, µs of a page of 100 | first of 1,000 | first of 1,000,000 | by cursor of 1,000,000 | ratio |")
    print("|---|---:|---:|---:|---:|")
    for case, (first, _), (first_of_many, deep) in zip(CASES, small, large, strict=True):
        ratio = max(first_of_many, deep) / first
        asked = "&".join(f"{key}={value[0] if isinstance(value, list) else value}" for key, value in case.items())
        print(f"| `{asked}` | {first:,.0f} | {first_of_many:,.0f} | {deep:,.0f} | {ratio:.2f} |")
    print(f"\n| {name}: export of 1,000,000 | rows/s | memory growth, MiB |\n|---|---:|---:|")
    asyncio.run(time_exports(urls[LARGE]))
    time_http_exports(urls[LARGE], directory)
    sys.stdout.flush()


def main() -> None:
    """Measure SQLite, and MariaDB where it is installed."""
    with TemporaryDirectory(prefix="benchmark-") as name, ExitStack() as stack:
        directory = Path(name)
        urls = {count: fill_sqlite(directory / f"{count}.db", count) for count in (SMALL, LARGE)}
        report("SQLite", urls, directory)
        if is_installed():
            server = stack.enter_context(run_mariadb())
            urls = {
                count: fill_mysql(server.port, server.create_database(f"b{count}"), count) for count in (SMALL, LARGE)
            }
            report("MariaDB", urls, directory)


if __name__ == "__main__":
    main()
