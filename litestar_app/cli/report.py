"""The report of an import, for a person at a terminal."""

import shutil
import sys
from typing import TYPE_CHECKING

import rich_click as click

if TYPE_CHECKING:
    from litestar_app.students.reports import Report

MAX_WIDTH = 1000
"""Characters of a cell where no terminal cuts them: an escaped value is not longer."""
MIN_DETAIL = 20
"""Columns that a detail has on a terminal, however narrow that is."""


def show_report(report: "Report", *, is_written: bool, to_stderr: bool = False) -> None:
    """Say what an import did, on standard output unless that is for rows, and list the problems on standard error."""
    counts = [f"{report.created:,} created", f"{report.updated:,} updated", f"{report.unchanged:,} unchanged"]
    rejected = f"{format_count(report.rejected, 'row')} rejected"
    if not is_written:
        lines = [f"Nothing was imported: {rejected}."]
    elif report.dry_run:
        lines = [f"Nothing was written (a dry run). It would be: {', '.join([*counts, rejected])}."]
    else:
        lines = [f"Imported: {', '.join([*counts, rejected])}."]
    if report.renamed:
        lines.append(f"Updated with another name: {report.renamed:,}.")
    if report.duplicates:
        lines.append(f"Created with the name and department of another student or row: {report.duplicates:,}.")
    skipped = []
    if report.above_header:
        skipped.append(f"{format_count(report.above_header, 'row')} above the header")
    if report.blank:
        skipped.append(format_count(report.blank, "blank row"))
    if skipped:
        lines.append(f"Skipped: {', '.join(skipped)}.")
    if report.ignored_columns:
        lines.append(f"Ignored columns: {', '.join(map(printable, report.ignored_columns))}.")
    click.echo("\n".join(lines), err=to_stderr)
    if report.errors:
        _show_errors(report)


def _show_errors(report: "Report") -> None:
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from litestar_app.students.reports import MAX_LISTED  # noqa: PLC0415  heavy

    shown = report.errors[:MAX_LISTED]
    lines = [("row", "column", "value", "detail")]
    lines += [(str(e.row), e.column or "", printable(e.value), printable(e.detail)) for e in shown]
    is_terminal = sys.stderr.isatty()
    columns = shutil.get_terminal_size().columns
    limits = (12, 12, min(24, columns // 4) if is_terminal else MAX_WIDTH)
    widths = [
        min(limit, max(map(cell_len, cells))) for limit, cells in zip(limits, zip(*lines, strict=True), strict=False)
    ]
    indent = sum(widths) + len("  ") * len(widths)
    console, room = Console(), max(columns - indent, MIN_DETAIL)
    for *cells, detail in lines:
        parts = [part.plain.rstrip() for part in Text(detail).wrap(console, room)] if is_terminal else [detail]
        click.echo("  ".join([*map(set_cell_size, cells, widths), f"\n{' ' * indent}".join(parts)]), err=True)
    if more := report.rejected - len({error.row for error in shown}):
        click.echo(f"and {format_count(more, 'more row')}", err=True)


def printable(text: str) -> str:
    """Write what a terminal would obey, and what cannot be seen, as an escape; but joiners are part of names."""
    return "".join(
        character if character.isprintable() or character in "\u200c\u200d" else ascii(character)[1:-1]
        for character in text
    )


def format_count(number: int, what: str) -> str:
    """Write a number of things."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
