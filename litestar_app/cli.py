"""`litestar students …`: import, export and seed, by the services themselves, on the configured database.

Exit codes: 0 done; 1 a row was rejected, or a file, the database or a setting cannot be used; 2 wrong usage; 130
Ctrl-C; 141 where nobody reads the output any more. Whatever is heavy is imported when a command runs.
"""

import asyncio
import contextlib
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import rich_click as click

if TYPE_CHECKING:
    from litestar_app.database import Database
    from litestar_app.students.listing import Listing
    from litestar_app.transfer.export import Format
    from litestar_app.transfer.imports import ImportOptions
    from litestar_app.transfer.schemas import Report

T = TypeVar("T")

ENVIRONMENT = dict(os.environ)
"""As it was before Litestar's own command read a `.env`: of another directory, and by other rules than ours."""
REJECTED, INTERRUPTED, BROKEN_PIPE = 1, 130, 141
ENDINGS: dict[str, "Format | None"] = {".ndjson": "ndjson", ".jsonl": "ndjson", ".xlsx": "xlsx"}
OTHER_ENDINGS = (".json", ".xls", ".xlsm", ".ods")
"""Of formats that are not written, where a CSV file would be taken for something else."""
CHUNK = 1024 * 1024
MAX_WIDTH = 1000
"""Characters of a cell where no terminal cuts them: an escaped value is not longer."""


@click.group(name="students", context_settings={"help_option_names": ["-h", "--help"]})
def students_group() -> None:
    """Import and export students, on the configured database, also while the service runs."""


def _check_text(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Reject what no database and no terminal takes: bytes that were not UTF-8, an empty text."""
    del context, parameter
    for text in [value] if isinstance(value, str) else value or ():
        if not text or any("\ud800" <= character <= "\udfff" for character in text):
            raise click.BadParameter("expected a text in UTF-8 that is not empty")
    return value


def _check_number(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    del context, parameter
    if value is not None and math.isnan(value):
        raise click.BadParameter("expected a number")
    return value


@students_group.command("import")
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
@click.option("--rejected", type=click.Path(dir_okay=False), help="Write the rejected rows there, as CSV to correct.")
def import_command(  # noqa: PLR0913  the options
    file: str, *, dry_run: bool, mode: str, match: str, charset: str | None, kind: str | None, rejected: str | None
) -> None:
    """Create and update students from FILE (- is standard input): CSV, NDJSON, JSON or xlsx.

    Every row or none is written, or with --mode valid the good ones. The exit code is 1 where a row is rejected.
    """
    if rejected and file != "-" and Path(rejected).exists() and Path(rejected).samefile(file):
        raise click.BadParameter("it is the file to import", param_hint="--rejected")
    with _failures():
        from litestar_app.transfer.imports import ImportOptions, write_rejected_rows  # noqa: PLC0415  heavy

        options = ImportOptions(
            kind=cast("Any", kind),
            charset=charset,
            match=cast("Any", match),
            mode=cast("Any", mode),
            dry_run=dry_run,
            all_errors=rejected is not None,
        )
        with _open_input(file) as source:
            report, is_written = _import(source, options)
            if rejected:
                with _open_output(rejected) as out:
                    write_rejected_rows(source, options, report, out)
        _show(report, is_written=is_written)
    sys.exit(REJECTED if report.rejected else 0)


@students_group.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@click.option("--format", "kind", type=click.Choice(["csv", "ndjson", "xlsx"]), help="Else the file's ending, or CSV.")
@click.option("--sort", callback=_check_text, help="Columns, - before one for descending, such as department,-cgpa.")
@click.option("--department", multiple=True, callback=_check_text, help="One of these, exactly; may be repeated.")
@click.option("--name", callback=_check_text, help="Contained in the name, in whatever case.")
@click.option("--cgpa-min", type=click.FloatRange(0, 10), callback=_check_number, help="The lowest that matches.")
@click.option("--cgpa-max", type=click.FloatRange(0, 10), callback=_check_number, help="The highest that matches.")
def export_command(file: str, *, kind: "Format | None", **filters: Any) -> None:
    """Write all students that match to FILE, or to standard output: one state of the database.

    FILE appears, or is replaced, when it is complete.
    """
    ending = Path(file).suffix.lower()
    if kind is None and ending in OTHER_ENDINGS:
        raise click.BadParameter(f"{ending} is not written: expected .csv, .ndjson or .xlsx, or a --format")
    if not Path(file).parent.is_dir():
        raise click.BadParameter(f"there is no directory {click.format_filename(Path(file).parent)!r}")
    kind = kind or ENDINGS.get(ending) or "csv"
    if kind == "xlsx" and file == "-" and sys.stdout.isatty():
        raise click.UsageError("A workbook is not for a terminal: name a file")
    with _failures():
        from litestar_app.exceptions import InvalidQueryError  # noqa: PLC0415  heavy
        from litestar_app.students.listing import create_listing  # noqa: PLC0415

        try:
            listing = create_listing(**filters)
        except InvalidQueryError as error:
            raise click.UsageError(_name_option(str(error))) from None
        with _open_output(file) as out:
            _run(lambda database: _export(database, listing, kind, out))


@students_group.command("seed")
@click.argument("number", metavar="N", type=click.IntRange(min=1))
@click.option("--seed", type=int, default=1, show_default=True, help="The same students for the same number.")
def seed_command(number: int, seed: int) -> None:
    """Create N synthetic students, to try things out."""
    with _failures(), tempfile.TemporaryFile() as file:
        from litestar_app.students.synthetic import make_students  # noqa: PLC0415  heavy
        from litestar_app.transfer.imports import ImportOptions  # noqa: PLC0415

        _write_students(make_students(seed), number, file)
        report, is_written = _import(file, ImportOptions(kind="csv", match="none"))
        _show(report, is_written=is_written)


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


class Progress:
    """One line on a terminal: rows so far, how many a second, and the remaining time where it is known."""

    def __init__(self, verb: str, *, is_shown: bool = True) -> None:
        self._verb = verb
        self.is_shown = is_shown and sys.stderr.isatty()
        self._began = time.monotonic()
        self._next = 0.0

    def show(self, rows: int, share: float | None = None) -> None:
        """Tell how many rows are done, and which share of all that is."""
        now = time.monotonic()
        if not self.is_shown or now < self._next:
            return
        self._next = now + 0.2
        elapsed = now - self._began
        line = f"{rows:,} rows {self._verb}, {rows / max(elapsed, 0.001):,.0f} a second"
        if share:
            seconds = round(elapsed * (1 - share) / share)
            line += f", {share:.0%}, {seconds // 60}:{seconds % 60:02} left"
        self.say(line)

    def say(self, line: str) -> None:
        """Replace the line."""
        if self.is_shown:
            sys.stderr.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()

    def end(self) -> None:
        """Leave an empty line."""
        self.say("")


def _import(file: BinaryIO, options: "ImportOptions") -> "tuple[Report, bool]":
    """Import a file; return the report, and whether it was done."""
    from litestar_app.exceptions import ImportRejectedError  # noqa: PLC0415  heavy
    from litestar_app.transfer.imports import ImportService  # noqa: PLC0415

    size = file.seek(0, os.SEEK_END)
    progress = Progress("checked")

    def report_progress(rows: int) -> None:
        position = file.tell()
        if position < size:
            progress.show(rows, position / size)
        else:  # nothing more to read: the last rows, or the first ones of a workbook
            progress.say(f"{rows:,} rows read, comparing and writing")

    async def run(database: "Database") -> "Report":
        return await ImportService(database).import_file(file, options, report_progress=report_progress)

    def interrupt(*_: object) -> None:
        """End at once, and with the process its transaction: to wait for the thread would be to wait for COMMIT."""
        if progress.is_shown:
            os.write(sys.stderr.fileno(), b"\n")
        os._exit(INTERRUPTED)

    previous = signal.getsignal(signal.SIGINT)
    if previous is signal.default_int_handler:  # else the process runs in the background, and is not to be ended
        signal.signal(signal.SIGINT, interrupt)
    try:
        return _run(run), True
    except ImportRejectedError as error:
        return error.report, False
    finally:
        signal.signal(signal.SIGINT, previous)
        progress.end()


async def _export(database: "Database", listing: "Listing", kind: "Format", out: BinaryIO) -> None:
    from litestar_app.students.listing import select_count  # noqa: PLC0415  heavy
    from litestar_app.transfer.export import export  # noqa: PLC0415

    progress = Progress("written", is_shown=not out.isatty())
    total, rows = 0, -1 if kind == "csv" else 0  # the header is no row
    if progress.is_shown and kind != "xlsx":
        ((total,),) = await database.fetch(select_count(listing.filters), {}, short=False)
    async with contextlib.aclosing(export(database, listing, kind)) as parts:
        async for part in parts:
            out.write(part)
            rows += part.count(b"\n")
            if total:
                progress.show(rows, min(1, rows / total))
    progress.end()


def _run(work: "Callable[[Database], Awaitable[T]]") -> T:
    """Prepare the configured database as a start of the service does, and work with it."""
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    from litestar_app.database import Database  # noqa: PLC0415  heavy
    from litestar_app.database.config import create_alchemy_config  # noqa: PLC0415
    from litestar_app.settings import Settings  # noqa: PLC0415

    alchemy = create_alchemy_config(Settings.from_environment())
    alchemy.prepare_database()

    async def run() -> T:
        database = Database(alchemy)
        async with database.open():
            return await work(database)

    return asyncio.run(run())


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """End the process with one line and an exit code for whatever is no defect."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter would complain at its end
        sys.exit(BROKEN_PIPE)
    except click.ClickException:
        raise
    except Exception as error:
        from litestar_app.exceptions import StudentRecordsError  # noqa: PLC0415  heavy
        from litestar_app.http.problems import PROBLEMS  # noqa: PLC0415

        if not isinstance(error, (StudentRecordsError, OSError)):
            raise
        details = (PROBLEMS[kind][1] for kind in type(error).__mro__ if kind in PROBLEMS)
        reason = ": ".join(filter(None, [next(details, ""), str(error)]))
        sys.exit(f"student-records: {' '.join(reason.split())}")


@contextlib.contextmanager
def _open_input(name: str) -> Iterator[BinaryIO]:
    """Open a file that can be read from any position; what cannot, as a pipe, is copied to a temporary one."""
    with contextlib.ExitStack() as stack:
        file = cast("BinaryIO", sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb")))
        if name == "-" or not file.seekable():
            copy = cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile()))
            shutil.copyfileobj(file, copy, CHUNK)
            file = copy
        yield file


@contextlib.contextmanager
def _open_output(name: str) -> Iterator[BinaryIO]:
    """Open what appears under its name when it is complete; standard output and devices are written as they are."""
    if name == "-":
        yield sys.stdout.buffer
        return
    if Path(name).exists() and not Path(name).is_file():
        with Path(name).open("wb") as file:
            yield file
        return
    target = Path(name).resolve()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            if target.exists():
                shutil.copymode(target, part)
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _show(report: "Report", *, is_written: bool) -> None:
    """Say what an import did on standard output, and list the problems on standard error."""
    counts = [f"{report.created:,} created", f"{report.updated:,} updated", f"{report.unchanged:,} unchanged"]
    rejected = f"{_count(report.rejected, 'row')} rejected"
    if not is_written:
        click.echo(f"Nothing was imported: {rejected}.")
    elif report.dry_run:
        click.echo(f"Nothing was written (a dry run). It would be: {', '.join([*counts, rejected])}.")
    else:
        click.echo(f"Imported: {', '.join([*counts, rejected])}.")
    if report.duplicates:
        click.echo(f"Created with the name and department of another student: {report.duplicates:,}.")
    if report.blank:
        click.echo(f"Skipped: {_count(report.blank, 'blank row')}.")
    if report.ignored_columns:
        click.echo(f"Ignored columns: {', '.join(map(_printable, report.ignored_columns))}.")
    if report.errors:
        _show_errors(report)


def _show_errors(report: "Report") -> None:
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415

    from litestar_app.transfer.schemas import MAX_LISTED  # noqa: PLC0415  heavy

    shown = report.errors[:MAX_LISTED]
    lines = [("row", "column", "value", "detail")]
    lines += [(str(e.row), e.column or "", _printable(e.value), _printable(e.detail)) for e in shown]
    is_terminal = sys.stderr.isatty()
    limits = (12, 12, 24 if is_terminal else MAX_WIDTH)
    widths = [
        min(limit, max(map(cell_len, cells))) for limit, cells in zip(limits, zip(*lines, strict=True), strict=False)
    ]
    for *cells, detail in lines:
        line = "  ".join(map(set_cell_size, cells, widths)) + f"  {detail}"
        click.echo(set_cell_size(line, shutil.get_terminal_size().columns).rstrip() if is_terminal else line, err=True)
    if more := report.rejected - len({error.row for error in shown}):
        click.echo(f"and {_count(more, 'more row')}", err=True)


def _printable(text: str) -> str:
    """Write what a terminal would obey, and what cannot be seen, as an escape; but joiners are part of names."""
    return "".join(
        character if character.isprintable() or character in "\u200c\u200d" else ascii(character)[1:-1]
        for character in text
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _name_option(message: str) -> str:
    return re.sub(r"query parameter '(\w+)'", lambda found: f"--{found[1].replace('_', '-')}", message)
