"""The picture for the README: small bar charts, relative to the tutorial's stack."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from tests.benchmarks.candidates import BASELINE, SERVICE, Candidate, DatabaseKind
from tests.benchmarks.load import OPERATIONS
from tests.benchmarks.results import Results, Transfers
from tests.benchmarks.transfers import EXPORT, IMPORT, PAGE

WIDTH = 9.0  # inches, shown as 900 pixels
COLOURS = {SERVICE: "#1a7f5a", BASELINE: "#6b7280"}
OTHERS = "#c3c8d0"
TIMES = "\N{MULTIPLICATION SIGN}"
TITLES = {"sqlite": "SQLite", "mariadb": "MariaDB"}


@dataclass
class Bars:
    """One small chart: a ratio for each candidate, 0 where it failed, and whether it had errors."""

    title: str
    ratios: list[float]
    has_errors: list[bool]

    def labels(self) -> list[str]:
        """Return what stands at the end of each bar."""
        return [
            f"{ratio:.1f}{TIMES}{' errors!' if has_errors else ''}" if ratio else "failed"
            for ratio, has_errors in zip(self.ratios, self.has_errors, strict=True)
        ]


@dataclass
class Row:
    """Small charts side by side, of the same candidates."""

    title: str
    candidates: list[Candidate]
    charts: list[Bars]

    @property
    def height(self) -> float:
        """Return the inches that it takes."""
        return 0.55 + 0.24 * len(self.candidates)


def draw_chart(results: Results, path: Path) -> bool:
    """Draw the picture; return False where the run has nothing to compare with."""
    panels = {
        "Requests per second, relative to the tutorial's stack": [
            make_row(results, database)
            for database in results.databases()
            if results.per_second(database, BASELINE, "get") is not None
        ]
    }
    if results.transfers and results.transfers.median(BASELINE, lambda _: 1) is not None:
        title = f"The same for pages, imports and exports of CSV, {results.transfers.rows:,} students"
        panels[title] = [make_transfer_row(results.transfers)]
    panels = {title: rows for title, rows in panels.items() if rows}
    if not panels:
        return False
    heights = [0.4 + sum(row.height for row in rows) for rows in panels.values()]
    figure = plt.figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, (title, rows) in zip(parts, panels.items(), strict=True):
        draw_panel(part, title, rows)
    figure.savefig(path, dpi=200)
    plt.close(figure)
    return True


def make_row(results: Results, database: DatabaseKind) -> Row:
    """Compare the responses in a second on one database."""
    candidates = [candidate for candidate in results.candidates(database) if not candidate.is_bound]
    charts = [
        Bars(
            operation.label,
            [
                divide(
                    results.per_second(database, candidate.name, operation.name),
                    results.per_second(database, BASELINE, operation.name),
                )
                for candidate in candidates
            ],
            [results.errors(database, candidate.name, operation.name) > 0 for candidate in candidates],
        )
        for operation in OPERATIONS
    ]
    return Row(TITLES[database], candidates, charts)


def make_transfer_row(transfers: Transfers) -> Row:
    """Compare pages, imports and exports, all by the rows in a second."""
    candidates = transfers.candidates()
    measures = {
        "page of 100, at any depth": lambda turn: turn.pages[PAGE].per_second,
        "CSV import": lambda turn: 1 / turn.transfers[IMPORT].seconds,
        "CSV export": lambda turn: 1 / turn.transfers[EXPORT].seconds,
    }
    charts = [
        Bars(
            title,
            [
                divide(transfers.median(candidate.name, measure), transfers.median(BASELINE, measure))
                for candidate in candidates
            ],
            [False] * len(candidates),
        )
        for title, measure in measures.items()
    ]
    return Row("SQLite", candidates, charts)


def divide(value: float | None, baseline: float | None) -> float:
    """Compare with the tutorial's stack; 0 where one of both failed."""
    return value / baseline if value and baseline else 0.0


def draw_panel(figure: SubFigure, title: str, rows: Sequence[Row]) -> None:
    """Draw rows of small charts under a title, all on one scale."""
    figure.suptitle(title, fontsize=10.5, x=0.008, ha="left", weight="bold")
    grid = figure.subplots(
        len(rows),
        len(rows[0].charts),
        squeeze=False,
        gridspec_kw={"height_ratios": [len(row.candidates) for row in rows]},
    )
    longest = max(ratio for row in rows for bars in row.charts for ratio in bars.ratios)
    room = 1 + 0.075 * len(rows[0].charts)  # for the labels
    for line, row in zip(grid, rows, strict=True):
        for axes, bars in zip(line, row.charts, strict=True):
            draw_bars(axes, bars, row.candidates)
            axes.set_xlim(0, room * longest)
        line[0].set_yticks(range(len(row.candidates)), [candidate.label for candidate in row.candidates], fontsize=8.5)
        line[0].set_ylabel(row.title, fontsize=9.5, weight="bold")


def draw_bars(axes: Axes, bars: Bars, candidates: list[Candidate]) -> None:
    """Draw one small chart, each bar with its ratio at the end."""
    colours = [COLOURS.get(candidate.name, OTHERS) for candidate in candidates]
    drawn = axes.barh(range(len(candidates)), bars.ratios, height=0.7, color=colours)
    axes.bar_label(drawn, bars.labels(), padding=2, fontsize=8)
    axes.set_title(bars.title, fontsize=9, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
