"""The quiet measure: every ASGI application called in its own process, without server and sockets, on SQLite."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.benchmarks.candidates import BASELINE, CANDIDATES, Candidate, select_candidates
from tests.benchmarks.databases import SEEDED, Database, fresh_sqlite
from tests.benchmarks.processes import REPOSITORY, SERVER_CORE, on_core
from tests.benchmarks.report import format_table, with_ratio

REQUESTS = {"get": 200, "list": 20, "post": 30, "put": 30, "delete": 30}
LABELS = {"get": "GET one", "list": "list 100", "post": "POST", "put": "PUT", "delete": "DELETE"}


@dataclass
class Worker:
    """A process with one candidate in it, waiting for commands."""

    candidate: Candidate
    database: Database
    process: subprocess.Popen[str]

    def measure(self, kind: str) -> float:
        """Return the microseconds that one request took, the mean of a batch."""
        count = REQUESTS[kind]
        first_to_delete = 1
        if self.candidate.stores:
            first_to_delete = self.database.reset(to_delete=count if kind == "delete" else 0)
        return float(self.ask(f"{kind} {count} {first_to_delete}")) / count * 1e6

    def ask(self, command: str | None = None) -> str:
        """Send a command, if any, and return the next line; RuntimeError where the process has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if command:
            self.process.stdin.write(f"{command}\n")
            self.process.stdin.flush()
        response = self.process.stdout.readline()
        if not response:
            raise RuntimeError(f"{self.candidate.name} has failed")
        return response


@contextmanager
def run_worker(candidate: Candidate) -> Iterator[Worker]:
    """Start a candidate on a seeded database for the length of the block."""
    command = candidate.run("tests.benchmarks.asgi_worker", candidate.application, str(SEEDED))
    with fresh_sqlite() as database:
        process = subprocess.Popen(
            on_core(SERVER_CORE, command),
            cwd=REPOSITORY,
            env={**os.environ, "DATABASE_URL": database.url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            worker = Worker(candidate, database, process)
            worker.ask()
            if candidate.stores:
                database.insert(1, SEEDED)
            yield worker
            process.communicate(timeout=10)
        finally:
            process.kill()
            process.wait()


def measure_all(candidates: list[Candidate], rounds: int) -> dict[str, dict[str, float]]:
    """Return the best round of every kind of request, in microseconds, for every candidate."""
    best: dict[str, dict[str, float]] = {candidate.name: {} for candidate in candidates}
    with ExitStack() as stack:
        workers = [stack.enter_context(run_worker(candidate)) for candidate in candidates]
        for number in range(rounds):
            sys.stderr.write(f"\rround {number + 1}/{rounds}")
            sys.stderr.flush()
            for kind in REQUESTS:
                for worker in workers:
                    times = best[worker.candidate.name]
                    times[kind] = min(worker.measure(kind), times.get(kind, float("inf")))
    sys.stderr.write("\n")
    return best


def format_times(candidates: list[Candidate], best: dict[str, dict[str, float]]) -> str:
    """Lay out the times, with the share of the tutorial's stack where that was measured too."""
    baseline = best.get(BASELINE, {})
    rows = [
        [
            candidate.label,
            *(
                with_ratio(f"{microseconds:,.0f}", microseconds, baseline.get(kind))
                for kind, microseconds in best[candidate.name].items()
            ),
        ]
        for candidate in candidates
    ]
    return format_table(["in process, µs", *LABELS.values()], rows)


def main() -> None:
    asgi = [candidate for candidate in CANDIDATES if candidate.server != "gunicorn"]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.in_process", description=__doc__)
    parser.add_argument("--only", metavar="A,B", help=", ".join(candidate.name for candidate in asgi))
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    try:
        selected = [candidate for candidate in select_candidates(arguments.only) if candidate in asgi]
    except ValueError as error:
        parser.error(str(error))
    print(format_times(selected, measure_all(selected, arguments.rounds)))


if __name__ == "__main__":
    main()
