"""The tables of a run, in Markdown. `python -m tests.benchmarks.report` writes the committed run's into README.md."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.candidates import BASELINE, Candidate, DatabaseKind
from tests.benchmarks.chart import draw_chart
from tests.benchmarks.load import MIX, OPERATIONS
from tests.benchmarks.results import Results, Transfers, TransferTurn, read_results
from tests.benchmarks.transfers import EXPORT, IMPORT, PAGE

RESULTS = Path(__file__).with_name("results.json")
PICTURE = "comparison.png"
README = "README.md"
BEGIN, END = "<!-- written by tests.benchmarks.report -->\n\n", "\n\n<!-- until here -->"
TITLES = {"sqlite": "SQLite", "mariadb": "MariaDB"}


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """Lay out a Markdown table, the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: list[str]) -> str:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row, widths, strict=True)),
        ]
        return "| " + " | ".join([cells[0], *cells[2:]]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def with_ratio(text: str, value: float, baseline: float | None) -> str:
    return f"{text} ({value / baseline:.2f}x)" if baseline else text


def throughput_cell(results: Results, database: DatabaseKind, candidate: Candidate, operation: str) -> str:
    value = results.per_second(database, candidate.name, operation)
    if value is None:
        return "failed"
    cell = with_ratio(f"{value:,.0f}", value, results.per_second(database, BASELINE, operation))
    errors = results.errors(database, candidate.name, operation)
    return f"!{errors} errors! {cell}" if errors else cell


def throughput_table(results: Results, database: DatabaseKind) -> str:
    """Good responses in a second, and their ratio to the tutorial's stack."""
    header = [f"{TITLES[database]}, responses/s", *(operation.label for operation in OPERATIONS)]
    rows = [
        [
            candidate.label,
            *(throughput_cell(results, database, candidate, operation.name) for operation in OPERATIONS),
        ]
        for candidate in results.candidates(database)
    ]
    return format_table(header, rows)


def other_table(results: Results, database: DatabaseKind) -> str:
    """Latency of the mix, memory and start."""
    measures = {
        "mix p50, ms": lambda turn: turn.operations[MIX.name].p50_ms,
        "mix p99, ms": lambda turn: turn.operations[MIX.name].p99_ms,
        "memory at rest, MB": lambda turn: turn.memory_at_rest_mb,
        "after the load, MB": lambda turn: turn.memory_after_load_mb,
        "first response, s": lambda turn: turn.start_seconds,
    }
    rows = []
    for candidate in results.candidates(database):
        cells = []
        for measure in measures.values():
            value = results.median(database, candidate.name, measure)
            baseline = results.median(database, BASELINE, measure)
            cells.append("failed" if value is None else with_ratio(f"{value:.1f}", value, baseline))
        rows.append([candidate.label, *cells])
    return format_table([TITLES[database], *measures], rows)


def transfer_table(transfers: Transfers) -> str:
    """Pages, imports and exports, and how far memory grew meanwhile."""
    rows = transfers.rows
    measures: dict[str, tuple[str, Callable[[TransferTurn], float]]] = {
        "pages/s": (",.0f", lambda turn: turn.pages[PAGE].per_second),
        "import, rows/s": (",.0f", lambda turn: rows / turn.transfers[IMPORT].seconds),
        "export, rows/s": (",.0f", lambda turn: rows / turn.transfers[EXPORT].seconds),
        "import, MB more": (".1f", lambda turn: turn.transfers[IMPORT].growth_mb),
        "export, MB more": (".1f", lambda turn: turn.transfers[EXPORT].growth_mb),
    }
    lines = []
    for candidate in transfers.candidates():
        cells = []
        for name, (form, measure) in measures.items():
            value = transfers.median(candidate.name, measure)
            is_rate = name.endswith("/s")  # memory may not grow at all, so nothing is compared with that
            baseline = transfers.median(BASELINE, measure) if is_rate else None
            cells.append("failed" if value is None else with_ratio(format(value, form), value, baseline))
        lines.append([candidate.label, *cells])
    return format_table([f"SQLite, {rows:,} rows", *measures], lines)


def format_report(results: Results) -> str:
    """All tables of a run, medians of its rounds, with what went wrong at the end."""
    conditions = (
        f"{results.date}, {results.machine}. Load by {results.load_generator}: {results.connections} connections,"
        f" {results.seeded_rows:,} rows. Medians of rounds: {results.rounds}, of {results.seconds} s an operation."
        f" Before the run other processes used {results.busy_before_percent:.0f}% of the cores."
    )
    parts = [conditions]
    for database in results.databases():
        parts += [throughput_table(results, database), other_table(results, database)]
    if results.transfers:
        parts.append(transfer_table(results.transfers))
    parts += [f"FAILED: {failure}" for failure in results.failures()]
    return "\n\n".join(parts)


def publish(results: Results, source: Path) -> None:
    """Draw the picture beside the results; write the tables into the README where they are the committed ones."""
    draw_chart(results, source.with_name(PICTURE))
    if source.resolve() == RESULTS.resolve():
        readme = RESULTS.with_name(README)
        tables = re.compile(f"(?<={re.escape(BEGIN)}).*(?={re.escape(END)})", re.DOTALL)
        readme.write_text(tables.sub(lambda _: format_report(results), readme.read_text()))


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    last_run = read_results(source)
    print(format_report(last_run))
    publish(last_run, source)
