"""The chart of the departments: SVG without scripts, made of strings."""

import base64
import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from html import escape
from itertools import chain

from litestar_app.departments.controller import DepartmentSummary
from litestar_app.students.schemas import CGPA_MAX

TITLE = "Students and mean CGPA by department"
MAX_ROWS = 1000
"""Departments that a chart shows; of more than that it says how many."""
MAX_NAME = 100
"""Characters of a name that the description has; a table of another program may hold longer ones."""
WIDTH, MARGIN, TOP, ROW = 940, 24, 124, 30
NAME_WIDTH, NAME_SIZE = 304, 14
BARS, BAR_WIDTH = 344, 220
SCALE, SCALE_WIDTH = 672, 180

# Blue and orange, which nobody confuses, and shapes that differ; texts, bars and means have a contrast of 4.5 or more.
STYLE = """
.page { fill: #fff } text { fill: #1b1f24; font: 14px system-ui, sans-serif } .note { fill: #57606a; font-size: 12px }
.heading { font-size: 18px; font-weight: 600 } .column { font-weight: 600 } .name { unicode-bidi: plaintext }
.none { font-style: italic } .rule { stroke: #d0d7de } .bar { fill: #0065a8 } .mean { fill: #b34700 }
.range { stroke: #6e7781; stroke-width: 4 }
@media (prefers-color-scheme: dark) {
.page { fill: #16191d } text { fill: #f0f3f6 } .note { fill: #a9b1bb } .rule { stroke: #3b434d }
.bar { fill: #56b4e9 } .mean { fill: #ffa657 } .range { stroke: #8b949e }
}
"""
HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
    ),
}
"""What lets a browser that opens the chart as a page apply its style, and do nothing else."""

# What XML does not allow or a browser does not show, and what turns around the text beside it.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_NARROW, _MIDDLE, _BROAD, _WIDE = 0.36, 0.6, 0.72, 1.0
"""Widths of letters in em; estimates, since nothing here knows the font."""


def draw_chart(departments: Sequence[DepartmentSummary]) -> str:
    """Draw the students and the mean CGPA of each department, in the given order; as text, for screen readers, too."""
    shown, hidden = departments[:MAX_ROWS], departments[MAX_ROWS:]
    most = max((summary.students for summary in shown), default=0)
    bottom = TOP + ROW * len(shown)
    height = bottom + MARGIN + (ROW if hidden else 0)
    facts = _sum_up(departments)
    more = [f"Not shown: {_count(len(hidden), 'more department')}; GET /departments lists all."] if hidden else []
    words = " ".join([facts, *map(_describe, shown), *more])
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    rows = (_draw_row(summary, TOP + ROW * row, most) for row, summary in enumerate(shown))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title description">',
        f'<title id="title">{TITLE}</title>',
        f'<desc id="description">{words}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        _text(MARGIN, 40, TITLE, "heading"),
        _text(MARGIN, 62, facts, "note"),
        *(_draw_columns(bottom) if shown else ()),
        *chain.from_iterable(rows),
        *(_text(MARGIN, bottom + 20, note, "note") for note in more),
        "</svg>",
    ]
    return "\n".join(lines)


def _sum_up(departments: Sequence[DepartmentSummary]) -> str:
    if not departments:
        return "There are no students."
    named = _count(sum(summary.department is not None for summary in departments), "department")
    return f"{named}, {_count(sum(summary.students for summary in departments), 'student')}."


def _draw_columns(bottom: int) -> Iterator[str]:
    """Draw what stands above the columns, and the scale of the CGPA, down to the bottom."""
    yield _text(MARGIN, 96, "Department", "column")
    yield _text(BARS, 96, "Students", "column")
    yield _text(SCALE, 96, "CGPA", "column")
    yield _text(SCALE + 48, 96, "● mean, ▬ lowest to highest", "note")
    for cgpa in (0, CGPA_MAX / 2, CGPA_MAX):
        x = _place(cgpa)
        yield f'<path class="rule" d="M{x} {TOP}V{bottom}"/>'
        yield f'<text class="note" x="{x}" y="{TOP - 6}" text-anchor="middle">{cgpa:g}</text>'


def _draw_row(summary: DepartmentSummary, y: int, most: int) -> Iterator[str]:
    middle, baseline = y + ROW / 2, y + ROW / 2 + 5
    width = max(round(BAR_WIDTH * summary.students / most, 1), 1)
    name, kind = _shorten(_clean(summary.department)), "name none" if summary.department is None else "name"
    yield f"<g><title>{_describe(summary)}</title>"
    yield f'<path class="rule" d="M{MARGIN} {y}H{WIDTH - MARGIN}"/>'
    # a viewport of its own, which cuts what the estimate of its width has missed
    yield f'<svg x="{MARGIN}" y="{y}" width="{BARS - MARGIN - 8}" height="{ROW}">{_text(0, 20, name, kind)}</svg>'
    yield f'<rect class="bar" x="{BARS}" y="{y + 6}" width="{width}" height="{ROW - 12}" rx="2"/>'
    yield _text(BARS + width + 6, baseline, f"{summary.students:,}")
    if summary.cgpa_mean is None or summary.cgpa_min is None or summary.cgpa_max is None:
        yield _text(SCALE + 6, baseline, "no CGPA", "note none")
    else:
        low, high = _place(summary.cgpa_min), _place(summary.cgpa_max)
        yield f'<path class="range" d="M{low} {middle}H{high}"/>'
        yield f'<circle class="mean" cx="{_place(summary.cgpa_mean)}" cy="{middle}" r="6"/>'
        yield _text(SCALE + SCALE_WIDTH + 16, baseline, _round(summary.cgpa_mean))
    yield "</g>"


def _place(cgpa: float) -> float:
    """Return where a CGPA is on its scale, or the nearer end for one that no rule allows."""
    return SCALE + round(SCALE_WIDTH * min(max(cgpa, 0), CGPA_MAX) / CGPA_MAX, 1)


def _describe(summary: DepartmentSummary) -> str:
    """Say in a sentence what a row shows; isolates keep a name from right to left apart from the numbers."""
    cgpa = "no CGPA"
    if summary.cgpa_mean is not None and summary.cgpa_min is not None and summary.cgpa_max is not None:
        mean, low, high = map(_round, (summary.cgpa_mean, summary.cgpa_min, summary.cgpa_max))
        cgpa = f"mean CGPA {mean}, lowest {low}, highest {high}"
    name = _clean(summary.department)
    name = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"
    return f"\u2068{escape(name)}\u2069: {_count(summary.students, 'student')}, {cgpa}."


def _clean(name: str | None) -> str:
    if name is None:
        return "no department"
    return _UNSAFE.sub("\ufffd", str(name)) if str(name).strip() else "(blank)"


def _shorten(name: str) -> str:
    """Cut a name where it would be wider than its column, behind a letter with all its marks."""
    width = 0.0
    for position, character in enumerate(name[: MAX_NAME + 1]):
        width += _measure(character)
        if width > NAME_WIDTH / NAME_SIZE or position == MAX_NAME:
            return f"{name[:position].rstrip()}…"
    return name


def _measure(character: str) -> float:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    if character in " !'(),.:;I[]fijl|":
        return _NARROW
    if unicodedata.east_asian_width(character) in "WF" or character in "MW@%":
        return _WIDE
    return _MIDDLE if character.isascii() and not character.isupper() else _BROAD


def _round(cgpa: float) -> str:
    return f"{cgpa:.2f}" if 0 <= cgpa <= CGPA_MAX else f"{cgpa:.3g}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    styled = f' class="{kind}"' if kind else ""
    return f'<text{styled} x="{x}" y="{y}">{escape(text)}</text>'
