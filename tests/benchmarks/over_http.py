"""Compare the candidates over HTTP, one worker each; see README.md beside this file."""

import argparse
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import psutil

from tests.benchmarks.candidates import CANDIDATES, TRANSFER_CANDIDATES, Candidate, DatabaseKind, select_candidates
from tests.benchmarks.contract import check_contract
from tests.benchmarks.databases import SEEDED, Database, DefaultServer, fresh_mariadb, fresh_sqlite
from tests.benchmarks.load import CONNECTIONS, GENERATOR, HAS_WRK, MIX, OPERATIONS, Operation, apply_load
from tests.benchmarks.processes import Server, run_server
from tests.benchmarks.report import PICTURE, RESULTS, format_report, publish
from tests.benchmarks.results import Measurement, Results, Transfers, TransferTurn, Turn, write_results
from tests.benchmarks.rounds import Planned, show, take_all
from tests.benchmarks.transfers import take_transfer_turn
from tests.mariadb import MISSING, MariaDB, is_installed, run_mariadb

PACKAGES = (
    "litestar", "advanced-alchemy", "msgspec", "sqlalchemy", "uvicorn", "uvloop", "httptools", "pymysql",
    "fastapi", "pydantic", "sqlmodel", "aiosqlite", "asyncmy", "flask", "django", "djangorestframework",
    "gunicorn", "python-multipart", "django-import-export", "datasette", "sqlite-utils",
)  # fmt: skip
BUSY = 10.0  # percent of all cores
SECONDS_AROUND = 5.0  # a guess, for the first estimate: start, seeding, warming up and stopping
ROWS_PER_SECOND = 7_000  # another, for an import and an export
ROWS = 100_000
ROWS_OF_A_TRIAL = 10_000
OFFERED = tuple(dict.fromkeys(CANDIDATES + TRANSFER_CANDIDATES))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.over_http", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of one second, small files: a trial")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of load for each operation, whole seconds")
    parser.add_argument("--only", metavar="A,B", help=", ".join(dict.fromkeys(candidate.name for candidate in OFFERED)))
    parser.add_argument("--part", choices=["requests", "files", "both"], default="both")
    parser.add_argument("--rows", type=int, default=ROWS, help="of the files and of the table whose pages are read")
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
        arguments.rounds, arguments.seconds, arguments.rows = 1, 1, ROWS_OF_A_TRIAL
    if arguments.database != "sqlite" and not is_installed():
        parser.error(f"{MISSING}; --database sqlite does without")
    is_whole = not (arguments.quick or arguments.only or (arguments.database, arguments.part) != ("both", "both"))
    if arguments.json is None and is_whole:
        arguments.json = RESULTS
    try:
        arguments.candidates = select_candidates(arguments.only, OFFERED)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def plan_requests(arguments: argparse.Namespace, mariadb: MariaDB | None) -> Iterator[Planned[Turn]]:
    """Give the turns of all rounds, so that every candidate sees the same moods of the machine."""
    kinds: list[DatabaseKind] = ["sqlite", "mariadb"]
    for number in range(1, arguments.rounds + 1):
        for kind in kinds:
            for candidate in arguments.candidates:
                if candidate in CANDIDATES and arguments.database in {"both", kind} and kind in candidate.databases:
                    turn = Turn(number, kind, candidate.name)
                    take = partial(take_turn, turn, candidate, mariadb, arguments.seconds)
                    yield Planned(f"{kind}, {candidate.name}", turn, take)


def plan_transfers(arguments: argparse.Namespace) -> Iterator[Planned[TransferTurn]]:
    """Give the turns with files, on SQLite, in the same way."""
    for number in range(1, arguments.rounds + 1):
        for candidate in arguments.candidates:
            if candidate in TRANSFER_CANDIDATES:
                turn = TransferTurn(number, candidate.name)
                take = partial(take_transfer_turn, turn, candidate, arguments.rows, arguments.seconds)
                yield Planned(f"files, {candidate.name}", turn, take)


def take_turn(turn: Turn, candidate: Candidate, mariadb: MariaDB | None, seconds: int) -> None:
    """Start a candidate on an empty database, apply every operation, and note everything in `turn`."""
    with open_database(turn.database, mariadb) as database, run_server(candidate, database.url) as server:
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
    if arguments.part != "files":
        planned = list(plan_requests(arguments, mariadb))
        results.turns = [plan.turn for plan in planned]
        take_all(planned, SECONDS_AROUND + arguments.seconds * len(OPERATIONS))
    if arguments.part != "requests" and arguments.database != "mariadb":
        planned_transfers = list(plan_transfers(arguments))
        results.transfers = Transfers(arguments.rows, [plan.turn for plan in planned_transfers])
        take_all(planned_transfers, SECONDS_AROUND + arguments.rows / ROWS_PER_SECOND)
    return results


def open_database(kind: DatabaseKind, mariadb: MariaDB | None) -> AbstractContextManager[Database]:
    return fresh_mariadb(mariadb) if kind == "mariadb" and mariadb else fresh_sqlite()


def describe_machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{platform.system()} {platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GB"


def main() -> None:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped
    if not HAS_WRK:
        show("wrk is not installed (Debian, Ubuntu: apt install wrk); a slower client of our own stands in.\n")
    with ExitStack() as stack:
        needs_mariadb = arguments.database != "sqlite" and arguments.part != "files"
        mariadb = stack.enter_context(run_mariadb(DefaultServer)) if needs_mariadb else None
        results = run_all(arguments, mariadb)
    print(format_report(results))
    if arguments.json:
        write_results(results, arguments.json)
        publish(results, arguments.json)


if __name__ == "__main__":
    main()
