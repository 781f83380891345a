"""The report of an import, for a person at a terminal."""

import shutil
import sys
from typing import TYPE_CHECKING

import rich_click as click

if TYPE_CHECKING:
    from litestar_app.transfer.schemas import Report

MAX_WIDTH = 1000
"""Characters of a cell where no terminal cuts them: an escaped value is not longer."""


def show_report(report: "Report", *, is_written: bool) -> None:
    """Say what an import did on standard output, and list the problems on standard error."""
    counts = [f"{report.created:,} created", f"{report.updated:,} updated", f"{report.unchanged:,} unchanged"]
    rejected = f"{format_count(report.rejected, 'row')} rejected"
    if not is_written:
        click.echo(f"Nothing was imported: {rejected}.")
    elif report.dry_run:
        click.echo(f"Nothing was written (a dry run). It would be: {', '.join([*counts, rejected])}.")
    else:
        click.echo(f"Imported: {', '.join([*counts, rejected])}.")
    if report.duplicates:
        click.echo(f"Created with the name and department of another student: {report.duplicates:,}.")
    if report.blank:
        click.echo(f"Skipped: {format_count(report.blank, 'blank row')}.")
    if report.ignored_columns:
        click.echo(f"Ignored columns: {', '.join(map(printable, report.ignored_columns))}.")
    if report.errors:
        _show_errors(report)


def _show_errors(report: "Report") -> None:
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415

    from litestar_app.transfer.schemas import MAX_LISTED  # noqa: PLC0415  heavy

    shown = report.errors[:MAX_LISTED]
    lines = [("row", "column", "value", "detail")]
    lines += [(str(e.row), e.column or "", printable(e.value), printable(e.detail)) for e in shown]
    is_terminal = sys.stderr.isatty()
    limits = (12, 12, 24 if is_terminal else MAX_WIDTH)
    widths = [
        min(limit, max(map(cell_len, cells))) for limit, cells in zip(limits, zip(*lines, strict=True), strict=False)
    ]
    for *cells, detail in lines:
        line = "  ".join(map(set_cell_size, cells, widths)) + f"  {detail}"
        click.echo(set_cell_size(line, shutil.get_terminal_size().columns).rstrip() if is_terminal else line, err=True)
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
