"""How the service scales with WORKERS: the same load on one process and on two, in turns, on all cores."""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.databases import SEEDED, fresh_sqlite
from tests.benchmarks.load import OPERATIONS, apply_load
from tests.service import Service

SECONDS = 2
WORKERS = (1, 2)


def main() -> None:
    """Print the median of each operation's responses a second, and the ratio."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.workers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    rates: dict[tuple[str, int], list[float]] = {}
    for turn in range(rounds):
        for workers in WORKERS:
            print(f"\rround {turn + 1}/{rounds}, {workers} worker(s) ", end="", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as directory, fresh_sqlite() as database:
                service = Service(Path(directory), DATABASE_URL=database.url, WORKERS=workers, LOG_LEVEL="warning")
                with service:
                    database.insert(1, SEEDED)
                    for operation in OPERATIONS:
                        first = database.reset(operation.rows_to_delete(SECONDS, 10_000))
                        measured = apply_load(operation, service.port, SECONDS, first)
                        rates.setdefault((operation.label, workers), []).append(measured.per_second)
    print(f"\n| responses/s | {' | '.join(f'{n} worker(s)' for n in WORKERS)} | ratio |\n|---|---:|---:|---:|")
    for operation in OPERATIONS:
        one, two = (statistics.median(rates[operation.label, workers]) for workers in WORKERS)
        print(f"| {operation.label} | {one:,.0f} | {two:,.0f} | {two / one:.2f}x |")


if __name__ == "__main__":
    main()
