"""Compare the candidates over HTTP, one worker each; see README.md beside this file."""

import argparse
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import psutil

from tests.benchmarks.candidates import CANDIDATES, Candidate, DatabaseKind, select_candidates
from tests.benchmarks.chart import draw_chart
from tests.benchmarks.contract import check_contract
from tests.benchmarks.databases import SEEDED, Database, fresh_mariadb, fresh_sqlite
from tests.benchmarks.load import CONNECTIONS, GENERATOR, HAS_WRK, MIX, OPERATIONS, Operation, apply_load
from tests.benchmarks.processes import Server, run_server
from tests.benchmarks.report import PICTURE, RESULTS, format_report
from tests.benchmarks.results import Measurement, Results, Turn, write_results
from tests.mariadb import MISSING, MariaDB, is_installed, run_mariadb

PACKAGES = (
    "litestar", "advanced-alchemy", "msgspec", "sqlalchemy", "uvicorn", "uvloop", "httptools", "pymysql",
    "fastapi", "pydantic", "sqlmodel", "aiosqlite", "asyncmy", "flask", "django", "djangorestframework",
    "gunicorn",
)  # fmt: skip
BUSY = 10.0  # percent of all cores
SECONDS_AROUND = 5.0  # a guess, for the first estimate: start, seeding, warming up and stopping


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.over_http", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of one second: a trial")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of load for each operation, whole seconds")
    parser.add_argument("--only", metavar="A,B", help=", ".join(candidate.name for candidate in CANDIDATES))
    parser.add_argument("--database", choices=["sqlite", "mariadb", "both"], default="both")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="PATH",
        help=f"where to write the results, and {PICTURE} beside them; without it only a whole run is kept,"
        " with the committed results",
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 1
    if arguments.database != "sqlite" and not is_installed():
        parser.error(f"{MISSING}; --database sqlite does without")
    is_whole = not (arguments.quick or arguments.only or arguments.database != "both")
    if arguments.json is None and is_whole:
        arguments.json = RESULTS
    try:
        arguments.candidates = select_candidates(arguments.only)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def plan(arguments: argparse.Namespace) -> Iterator[tuple[int, DatabaseKind, Candidate]]:
    """Give the turns of all rounds, so that every candidate sees the same moods of the machine."""
    kinds: list[DatabaseKind] = ["sqlite", "mariadb"]
    for number in range(1, arguments.rounds + 1):
        for kind in kinds:
            for candidate in arguments.candidates:
                if arguments.database in {"both", kind} and kind in candidate.databases:
                    yield number, kind, candidate


def take_turn(turn: Turn, candidate: Candidate, database: Database, seconds: int) -> None:
    """Start a candidate on an empty database, apply every operation, and note everything in `turn`."""
    with run_server(candidate, database.url) as server:
        turn.start_seconds = round(server.start_seconds, 3)
        turn.memory_at_rest_mb = round(server.memory_mb(), 1)
        if candidate.stores:
            database.insert(1, SEEDED)
            check_contract(server)
        load = partial(load_once, server, database if candidate.stores else None)
        load(MIX, 1)  # warms up; not counted
        reads_per_second = 0.0
        for operation in OPERATIONS:
            measurement = load(operation, seconds, reads_per_second)
            reads_per_second = reads_per_second or measurement.per_second
            turn.operations[operation.name] = measurement
            mark = f" !{measurement.errors} errors!" if measurement.errors else ""
            show(f"  {operation.label} {measurement.per_second:,.0f}{mark}")
        turn.memory_after_load_mb = round(server.memory_mb(), 1)
        if any(measurement.errors for measurement in turn.operations.values()):
            show(f"\n  errors; the end of its log: {server.log_tail()}\n")


def load_once(
    server: Server, database: Database | None, operation: Operation, seconds: int, reads_per_second: float = 0.0
) -> Measurement:
    """Apply one operation to the seeded rows; what the last one has added or left is gone."""
    first_to_delete = database.reset(operation.rows_to_delete(seconds, reads_per_second)) if database else 1
    return apply_load(operation, server.port, seconds, first_to_delete)


def run_all(arguments: argparse.Namespace, mariadb: MariaDB | None) -> Results:
    """Take all turns, with a line of progress for each."""
    results = Results(
        date=datetime.now(UTC).date().isoformat(),
        machine=describe_machine(),
        load_generator=GENERATOR,
        versions={"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        connections=CONNECTIONS,
        seeded_rows=SEEDED,
        busy_before_percent=psutil.cpu_percent(interval=1),
    )
    if results.busy_before_percent > BUSY:
        show(f"Other processes use {results.busy_before_percent:.0f}% of this machine: expect odd ratios.\n")
    turns = list(plan(arguments))
    started = time.monotonic()
    for number, (round_number, kind, candidate) in enumerate(turns):
        spent = time.monotonic() - started
        each = spent / number if number else SECONDS_AROUND + arguments.seconds * len(OPERATIONS)
        show(
            f"[{number + 1}/{len(turns)}, {each * (len(turns) - number) / 60:.1f} min to go]"
            f" round {round_number}, {kind}, {candidate.name}:"
        )
        turn = Turn(round_number, kind, candidate.name)
        results.turns.append(turn)
        try:
            with open_database(kind, mariadb) as database:
                take_turn(turn, candidate, database, arguments.seconds)
        except Exception as error:  # noqa: BLE001 - whatever befalls one candidate, the others are measured
            turn.failure = f"{type(error).__name__}: {error}"
            show(f"  FAILED: {turn.failure}")
        show("\n")
    return results


def open_database(kind: DatabaseKind, mariadb: MariaDB | None) -> AbstractContextManager[Database]:
    return fresh_mariadb(mariadb) if kind == "mariadb" and mariadb else fresh_sqlite()


def describe_machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{platform.system()} {platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GB"


def show(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def main() -> None:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped
    if not HAS_WRK:
        show("wrk is not installed (Debian, Ubuntu: apt install wrk); a slower client of our own stands in.\n")
    with ExitStack() as stack:
        mariadb = stack.enter_context(run_mariadb()) if arguments.database != "sqlite" else None
        results = run_all(arguments, mariadb)
    print(format_report(results))
    if arguments.json:
        write_results(results, arguments.json)
        draw_chart(results, arguments.json.with_name(PICTURE))


if __name__ == "__main__":
    main()
