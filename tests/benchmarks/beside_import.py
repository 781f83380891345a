"""What a large import does to the requests beside it: `python -m tests.benchmarks.beside_import`."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import httpx

from tests.mariadb import is_installed, run_mariadb
from tests.service import ANANYA, Service

ROWS = {"SQLite": 1_000_000, "MariaDB": 200_000}
"""The server of the tests has a small buffer pool, so that it takes longer over each."""
READERS, WRITERS = 4, 2
QUIET = 5
"""Seconds of the same requests before the import."""


class Load:
    """Threads that send one request after the other, and remember how long each took and its status."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stopped = threading.Event()
        self.seconds: dict[str, list[float]] = {"read": [], "write": []}
        self.failed: dict[str, int] = {"read": 0, "write": 0}
        kinds = ["read"] * READERS + ["write"] * WRITERS
        self._threads = [threading.Thread(target=self._run, args=[kind]) for kind in kinds]

    def _run(self, kind: str) -> None:
        with httpx.Client(base_url=self._service.url, timeout=120) as client:
            while not self._stopped.is_set():
                began = time.perf_counter()
                response = client.get("/student/1") if kind == "read" else client.put("/student/1", json=ANANYA)
                self.failed[kind] += response.status_code != httpx.codes.OK
                self.seconds[kind].append(time.perf_counter() - began)
                time.sleep(0.002)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def summarize(self) -> Iterator[tuple[str, list[float], list[float]]]:
        """Yield each kind of request, its seconds, and the p50, the p99 and the longest of them in ms."""
        for kind, seconds in self.seconds.items():
            p50, p99 = (statistics.quantiles(seconds, n=100)[part] * 1000 for part in (49, 98))
            yield kind, seconds, [p50, p99, max(seconds) * 1000]

    def report(self, name: str) -> None:
        """Print a line for each kind of request."""
        for kind, seconds, (p50, p99, longest) in self.summarize():
            print(
                f"| {name}, {kind}s | {len(seconds):,} | {self.failed[kind]} | {p50:.1f} | {p99:.1f} | {longest:.0f} |"
            )


def write_file(path: Path, rows: int) -> None:
    """Write a file of new students."""
    with path.open("w") as file:
        file.write("name,department,cgpa\n")
        file.writelines(f"Student {n},Department {n % 40},{n % 1001 / 100}\n" for n in range(rows))


def measure(name: str, url: str, directory: Path) -> None:
    """Import into a service under load, and print what the load saw before and meanwhile."""
    with Service(directory, DATABASE_URL=url, LOG_LEVEL="warning") as service:
        assert service.client.post("/student", json=ANANYA).status_code == httpx.codes.CREATED
        with Load(service) as before:
            time.sleep(QUIET)
        before.report(f"{name}, before")
        write_file(directory / "students.csv", ROWS[name])
        began = time.perf_counter()
        with Load(service) as beside, (directory / "students.csv").open("rb") as file:
            imported = service.client.post("/students/import", content=file, headers={"Content-Type": "text/csv"})
        seconds = time.perf_counter() - began
        assert imported.json()["created"] == ROWS[name], imported.text
        beside.report(f"{name}, beside {ROWS[name]:,} rows in {seconds:.0f} s")


def main() -> None:
    """Measure SQLite, and MariaDB where it is installed."""
    with TemporaryDirectory(prefix="benchmark-") as name, ExitStack() as stack:
        directory = Path(name)
        print("| requests | number | not 200 | p50, ms | p99, ms | longest, ms |\n|---|---:|---:|---:|---:|---:|")
        measure("SQLite", f"sqlite:///{directory}/students.db", directory)
        if is_installed():
            server = stack.enter_context(run_mariadb())
            measure("MariaDB", server.create_database("beside"), directory)


if __name__ == "__main__":
    main()
