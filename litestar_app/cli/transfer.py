"""`litestar students import`, `export` and `seed`, by the services themselves."""

import contextlib
import math
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import rich_click as click

from litestar_app.cli.files import PARTS, open_input, open_output, require_directory
from litestar_app.cli.progress import Progress
from litestar_app.cli.report import show_report
from litestar_app.cli.run import INTERRUPTED, REJECTED, failures, use_database
from litestar_app.students.schemas import CGPA_MAX

if TYPE_CHECKING:
    from litestar_app.database import Database
    from litestar_app.records.listing import Listing
    from litestar_app.students.reports import Report
    from litestar_app.transfer.export import Format
    from litestar_app.transfer.imports import ImportOptions

ENDINGS: dict[str, "Format | None"] = {".ndjson": "ndjson", ".jsonl": "ndjson", ".xlsx": "xlsx"}
STOPPED = "interrupted: nothing was stored, unless COMMIT had begun; see what is stored before you import it again"
OTHER_ENDINGS = (".json", ".xls", ".xlsm", ".ods")
"""Of formats that are not written, where a CSV file would be taken for something else."""


def _check_text(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Reject what no database and no terminal takes: bytes that were not UTF-8, an empty text."""
    del context, parameter
    for text in [value] if isinstance(value, str) else value or ():
        if not text or any("\ud800" <= character <= "\udfff" for character in text):
            raise click.BadParameter("expected a text in UTF-8 that is not empty")
    return value


def _check_directory(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    del context, parameter
    if value:
        require_directory(Path(value))
    return value


def _check_number(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    del context, parameter
    if value is not None and math.isnan(value):
        raise click.BadParameter("expected a number")
    return value


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--dry-run", is_flag=True, help="Report only, and write nothing.")
@click.option(
    "--mode", type=click.Choice(["all", "valid"]), default="all", help="Every row or none, or the valid rows."
)
@click.option(
    "--match",
    type=click.Choice(["id", "none", "name,department"]),
    default="id",
    help="What tells that a row is a student who is stored.",
)
@click.option("--charset", callback=_check_text, help="Of a text file; else a byte order mark, else UTF-8.")
@click.option(
    "--format", "kind", type=click.Choice(["csv", "ndjson", "json", "xlsx"]), help="Else the content decides."
)
@click.option(
    "--rejected",
    type=click.Path(dir_okay=False, allow_dash=True),
    callback=_check_directory,
    help="Write the rejected rows there, as CSV to correct; to - (standard output), the report goes to standard error.",
)
def import_command(  # noqa: PLR0913  the options
    file: str, *, dry_run: bool, mode: str, match: str, charset: str | None, kind: str | None, rejected: str | None
) -> None:
    """Create and update students from FILE (- is standard input): CSV, NDJSON, JSON or xlsx.

    Every row or none is written, or with --mode valid the good ones. The exit code is 1 where a row is rejected.
    """
    if rejected and file != "-" and Path(rejected).exists() and Path(rejected).samefile(file):
        raise click.BadParameter("it is the file to import", param_hint="--rejected")
    with failures():
        from litestar_app.transfer.imports import ImportOptions, write_rejected_rows  # noqa: PLC0415  heavy

        options = ImportOptions(
            kind=cast("Any", kind),
            charset=charset,
            match=cast("Any", match),
            mode=cast("Any", mode),
            dry_run=dry_run,
            all_errors=rejected is not None,
        )
        # opened first: after COMMIT it would be too late to say that it cannot be
        with open_input(file) as source, open_output(rejected) if rejected else contextlib.nullcontext() as out:
            report, is_written = _import(source, options)
            show_report(report, is_written=is_written, to_stderr=rejected == "-")
            if out is not None:
                write_rejected_rows(source, options, report, out)
    sys.exit(REJECTED if report.rejected else 0)


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-", callback=_check_directory)
@click.option("--format", "kind", type=click.Choice(["csv", "ndjson", "xlsx"]), help="Else the file's ending, or CSV.")
@click.option("--sort", callback=_check_text, help="Columns, - before one for descending, such as department,-cgpa.")
@click.option("--department", multiple=True, callback=_check_text, help="One of these, exactly; may be repeated.")
@click.option("--name", callback=_check_text, help="Contained in the name, in whatever case.")
@click.option("--cgpa-min", type=click.FloatRange(0, CGPA_MAX), callback=_check_number, help="The lowest that matches.")
@click.option(
    "--cgpa-max", type=click.FloatRange(0, CGPA_MAX), callback=_check_number, help="The highest that matches."
)
def export_command(file: str, *, kind: "Format | None", **filters: Any) -> None:
    """Write all students that match to FILE, or to standard output: one state of the database.

    FILE appears, or is replaced, when it is complete.
    """
    ending = Path(file).suffix.lower()
    if kind is None and ending in OTHER_ENDINGS:
        raise click.BadParameter(f"{ending} is not written: expected .csv, .ndjson or .xlsx, or a --format")
    kind = kind or ENDINGS.get(ending) or "csv"
    if kind == "xlsx" and file == "-" and sys.stdout.isatty():
        raise click.UsageError("A workbook is not for a terminal: name a file")
    with failures():
        from litestar_app.exceptions import InvalidQueryError  # noqa: PLC0415  heavy
        from litestar_app.students.record import LISTINGS  # noqa: PLC0415

        try:
            listing = LISTINGS.create(**filters)
        except InvalidQueryError as error:
            raise click.UsageError(_name_option(str(error))) from None
        with open_output(file) as out:
            use_database(lambda database: _export(database, listing, kind, out))


@click.command("seed")
@click.argument("number", metavar="N", type=click.IntRange(min=1))
@click.option("--seed", type=int, default=1, show_default=True, help="The same students for the same number.")
def seed_command(number: int, seed: int) -> None:
    """Create N synthetic students, to try things out."""
    with failures(), tempfile.TemporaryFile() as file:
        from litestar_app.students.synthetic import make_students  # noqa: PLC0415  heavy
        from litestar_app.transfer.imports import ImportOptions  # noqa: PLC0415

        _write_students(make_students(seed), number, file)
        report, is_written = _import(file, ImportOptions(kind="csv", match="none"))
        show_report(report, is_written=is_written)


def _write_students(batches: Iterator[list[tuple[str, str, float]]], number: int, file: BinaryIO) -> None:
    import csv  # noqa: PLC0415
    from io import TextIOWrapper  # noqa: PLC0415

    text = TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(["name", "department", "cgpa"])
    progress = Progress("made")
    made = 0
    while made < number:
        batch = next(batches)[: number - made]
        writer.writerows(batch)
        made += len(batch)
        progress.show(made, made / number)
    progress.end()
    text.detach()


def _import(file: BinaryIO, options: "ImportOptions") -> "tuple[Report, bool]":
    """Import a file; return the report, and whether it was done."""
    from litestar_app.entries import ImportLog  # noqa: PLC0415
    from litestar_app.http.callers import LOCAL  # noqa: PLC0415  heavy
    from litestar_app.settings import Settings  # noqa: PLC0415
    from litestar_app.transfer.exceptions import ImportRejectedError  # noqa: PLC0415
    from litestar_app.transfer.imports import ImportService  # noqa: PLC0415
    from litestar_app.transfer.merge import Unrecorded  # noqa: PLC0415

    size = file.seek(0, os.SEEK_END)
    progress = Progress("checked")

    def report_progress(rows: int) -> None:
        position = file.tell()
        if position < size:
            progress.show(rows, position / size)
        else:  # nothing more to read: the last rows, or the first ones of a workbook
            progress.say(f"{rows:,} rows read, comparing and writing")

    async def run(database: "Database") -> "Report":
        has_history = Settings.from_environment().history == "on"
        imports = ImportService(database, ImportLog if has_history else Unrecorded)
        return await imports.import_file(file, options, LOCAL.name, report_progress=report_progress)

    def interrupt(*_: object) -> None:
        """End at once, and with the process its transaction: to wait for the thread would be to wait for COMMIT."""
        newline = "\n" if progress.is_shown else ""
        os.write(sys.stderr.fileno(), f"{newline}student-records: {STOPPED}\n".encode())
        for part in PARTS:
            part.unlink(missing_ok=True)
        os._exit(INTERRUPTED)

    previous = signal.getsignal(signal.SIGINT)
    if previous is signal.default_int_handler:  # else the process runs in the background, and is not to be ended
        signal.signal(signal.SIGINT, interrupt)
    try:
        return use_database(run), True
    except ImportRejectedError as error:
        return error.report, False
    finally:
        signal.signal(signal.SIGINT, previous)
        progress.end()


async def _export(database: "Database", listing: "Listing", kind: "Format", out: BinaryIO) -> None:
    from litestar_app.transfer.export import export  # noqa: PLC0415

    progress = Progress("written", is_shown=not out.isatty())
    total, rows = 0, -1 if kind == "csv" else 0  # the header is no row
    if progress.is_shown and kind != "xlsx":
        ((total,),) = await database.fetch(listing.select_count(), {}, short=False)
    async with contextlib.aclosing(export(database, listing, kind)) as parts:
        async for part in parts:
            out.write(part)
            rows += part.count(b"\n")
            if total:
                progress.show(rows, min(1, rows / total))
    progress.end()


def _name_option(message: str) -> str:
    return re.sub(r"query parameter '(\w+)'", lambda found: f"--{found[1].replace('_', '-')}", message)
