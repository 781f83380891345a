"""The picture for the README: small bar charts of responses per second, relative to the tutorial's stack."""

from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.benchmarks.candidates import BASELINE, SERVICE, Candidate, DatabaseKind
from tests.benchmarks.load import OPERATIONS, Operation
from tests.benchmarks.results import Results

WIDTH = 9.0  # inches, shown as 900 pixels
COLOURS = {SERVICE: "#1a7f5a", BASELINE: "#6b7280"}
OTHERS = "#c3c8d0"
TIMES = "\N{MULTIPLICATION SIGN}"
TITLES = {"sqlite": "SQLite", "mariadb": "MariaDB"}


def draw_chart(results: Results, path: Path) -> bool:
    """Draw the picture; return False where the run has nothing to compare with."""
    databases = [
        database for database in results.databases() if results.per_second(database, BASELINE, "get") is not None
    ]
    if not databases:
        return False
    stacks = {
        database: [candidate for candidate in results.candidates(database) if not candidate.is_bound]
        for database in databases
    }
    height = 0.75 + sum(0.55 + 0.24 * len(candidates) for candidates in stacks.values())
    figure, grid = plt.subplots(
        len(databases),
        len(OPERATIONS),
        figsize=(WIDTH, height),
        squeeze=False,
        layout="constrained",
        gridspec_kw={"height_ratios": [len(candidates) for candidates in stacks.values()]},
    )
    figure.suptitle(
        "Requests per second, relative to the tutorial's stack",
        fontsize=10.5,
        x=0.008,
        ha="left",
        weight="bold",
    )
    longest = 1.45 * max(
        ratio(results, database, candidate, operation)
        for database in databases
        for candidate in stacks[database]
        for operation in OPERATIONS
    )
    for row, database in zip(grid, databases, strict=True):
        for axes, operation in zip(row, OPERATIONS, strict=True):
            draw_operation(axes, results, database, operation, stacks[database])
            axes.set_xlim(0, longest)
        row[0].set_yticks(
            range(len(stacks[database])), [candidate.label for candidate in stacks[database]], fontsize=8.5
        )
        row[0].set_ylabel(TITLES[database], fontsize=9.5, weight="bold")
    figure.savefig(path, dpi=200)
    plt.close(figure)
    return True


def draw_operation(
    axes: Axes, results: Results, database: DatabaseKind, operation: Operation, candidates: list[Candidate]
) -> None:
    """Draw one operation's bars, each with its ratio at the end."""
    ratios = [ratio(results, database, candidate, operation) for candidate in candidates]
    colours = [COLOURS.get(candidate.name, OTHERS) for candidate in candidates]
    bars = axes.barh(range(len(candidates)), ratios, height=0.7, color=colours)
    labels = [
        ratio_label(value, has_errors=results.errors(database, candidate.name, operation.name) > 0)
        for candidate, value in zip(candidates, ratios, strict=True)
    ]
    axes.bar_label(bars, labels, padding=2, fontsize=8)
    axes.set_title(operation.label, fontsize=9, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def ratio(results: Results, database: DatabaseKind, candidate: Candidate, operation: Operation) -> float:
    """Compare with the tutorial's stack; 0 where the candidate failed."""
    baseline = results.per_second(database, BASELINE, operation.name)
    value = results.per_second(database, candidate.name, operation.name)
    return value / baseline if value and baseline else 0.0


def ratio_label(value: float, *, has_errors: bool) -> str:
    if not value:
        return "failed"
    return f"{value:.1f}{TIMES}{' errors!' if has_errors else ''}"
