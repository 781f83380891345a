"""Import: a file as students, staged without the lock to write, then merged in one transaction."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, BinaryIO, Literal, cast

import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from litestar_app import metrics
from litestar_app.database import Database
from litestar_app.database.unit_of_work import UnitOfWork
from litestar_app.exceptions import InvalidFileError
from litestar_app.idempotency import Once
from litestar_app.students.record import STUDENT
from litestar_app.students.reports import MAX_LISTED, ImportProblem, Report
from litestar_app.transfer.exceptions import ImportRejectedError
from litestar_app.transfer.formats import (
    Batch,
    ImportRow,
    Kind,
    Match,
    Row,
    RowError,
    Table,
    open_table,
    validate,
    write_rows,
)
from litestar_app.transfer.merge import ChangeLog, Merge, Unrecorded, stage

Mode = Literal["all", "valid"]
SPREADSHEETS = {"csv", "xlsx"}
"""Kinds of files that a spreadsheet writes, which keeps 15 digits of a number."""
ROW, SMALL, UNPACKED = 16, 1_600_000, 8
"""Bytes of a file for each rejected row, or for each of its cells if it has more; what every file may have beyond
that; and what a byte of a workbook counts, which is compressed. A row of one letter costs as much as a whole one."""
WRONG_FILE = "is it the right file, and are its cells separated as the header's are?"


get_key = itemgetter(*(2 + STUDENT.names.index(name) for name in STUDENT.natural_key))
"""Takes the name and the department of a row."""
MAX_HASHES = 100_000
"""Names that are kept in memory while namesakes are looked for: some 10 MB."""


class ImportOptions(Struct, frozen=True, kw_only=True):
    """How a file is read and merged."""

    kind: Kind | None = None
    """None has the content decide."""
    charset: str | None = None
    match: Match = "id"
    mode: Mode = "all"
    dry_run: bool = False
    all_errors: bool = False
    """Whether every error of the merge is kept, for the file of the rejected rows."""


class ImportRequest(Struct, frozen=True):
    """What tells one import from another, for its Idempotency-Key."""

    sha256: str
    options: ImportOptions


class Staged(Struct):
    """What is known of a file once its rows are staged."""

    table: Table
    rejected: int = 0
    errors: list[ImportProblem] = []
    has_sent: bool = False
    """Whether a row has cells that may be right as they were sent, if a student is stored so."""
    hashes: set[int] = msgspec.field(default_factory=set)
    """Of the names and departments, while they are few."""
    namesakes: int | None = 0
    """How many rows have the name and department of an earlier one; None if there are too many rows to know."""

    def add(self, errors: list[RowError]) -> None:
        """Count the rows with errors, and keep some."""
        self.rejected += len({error.row for error in errors})
        self.errors += [ImportProblem(*error) for error in errors[: max(0, MAX_LISTED - len(self.errors))]]

    def compare(self, rows: list[ImportRow]) -> None:
        """Count namesakes, which costs the database four times as much."""
        if self.namesakes is not None:
            before = len(self.hashes)
            self.hashes.update([hash(get_key(row)) for row in rows])
            self.namesakes += before + len(rows) - len(self.hashes)
            if len(self.hashes) > MAX_HASHES:
                self.namesakes = None
                self.hashes.clear()


class ImportService:
    """Imports into one database."""

    def __init__(self, database: Database, begin_log: Callable[[UnitOfWork, str], ChangeLog] = Unrecorded) -> None:
        """Take what begins the log of an import by a caller."""
        self._database = database
        self._begin_log = begin_log
        self._once = Once(database, Report)

    async def import_file(
        self,
        file: BinaryIO,
        options: ImportOptions,
        who: str,
        key: str | None = None,
        report_progress: Callable[[int], None] = lambda _: None,
    ) -> Report:
        """Import a file that can be read from any position; every row or none, or the good ones, as the mode says.

        With a key, the same file again returns the first report again. Progress is told in rows, from another thread.

        Raises:
            FileError: it cannot be read as a table.
            ImportRejectedError: a row is rejected, and the mode is `all`; nothing was written.
            KeyInUseError: the first import with this key is still running.
            KeyReusedError: the key was used with another request.

        """
        limit = None if options.all_errors else MAX_LISTED

        def stage_rows(connection: Connection) -> Staged:
            staged = Staged(open_table(source, options.kind, options.charset))
            rows = _read_rows(staged, file.seek(0, 2), options.match, report_progress)
            stage(connection, rows, options.match)
            return staged

        with self._once.claim(key), _stoppable(file) as source:
            async with self._database.stage(stage_rows) as (connection, staged):
                merged: Report | None = None

                def merge(unit: UnitOfWork) -> Report:
                    nonlocal merged
                    merged = self._merge(unit, staged, options, who, limit)
                    return merged

                try:
                    if key is None:
                        report = await self._database.write(merge, connection)
                    else:
                        # the response that Accept asks for makes no other request
                        same = msgspec.structs.replace(options, all_errors=False)
                        request = ImportRequest(_hash(file), same)
                        report = await self._once.write_claimed(key, request, merge, connection, _shorten)
                except ImportRejectedError as error:
                    _count(error.report, "rejected")
                    raise
                if report is merged:  # else it repeats an earlier response
                    _count(report, "written")
                return report

    async def write_rejected(self, file: BinaryIO, options: ImportOptions, report: Report, out: BinaryIO) -> None:
        """Write the rejected rows, on a thread for imports.

        Raises:
            DatabaseUnavailableError: no thread was free in time.

        """
        with _stoppable(file) as source:
            await self._database.run_long(lambda: write_rejected_rows(source, options, report, out))

    def _merge(self, unit: UnitOfWork, staged: Staged, options: ImportOptions, who: str, limit: int | None) -> Report:
        is_rounded = staged.table.kind in SPREADSHEETS
        merge = Merge(unit, options.match, is_rounded=is_rounded, has_sent=staged.has_sent)
        merge.compare()
        counts = merge.count(staged.namesakes)
        errors = sorted([*staged.errors, *merge.find_problems(limit)], key=lambda error: error.row)
        report = Report(
            **{**counts, "rejected": counts["rejected"] + staged.rejected},
            dry_run=options.dry_run,
            blank=staged.table.blank,
            above_header=staged.table.above_header,
            ignored_columns=staged.table.ignored_columns,
            ignored_sheets=staged.table.ignored_sheets,
            changes=merge.find_changes(MAX_LISTED) if options.dry_run else [],
            errors=errors[:limit],
        )
        if report.rejected and options.mode == "all":
            raise ImportRejectedError(msgspec.structs.replace(report, created=0, updated=0, renamed=0, duplicates=0))
        if not options.dry_run:
            log = self._begin_log(unit, who)
            merge.write(counts["created"], log)
            report.import_ = log.id
            log.finish(
                created=report.created, updated=report.updated, unchanged=report.unchanged, rejected=report.rejected
            )
        return report


def write_rejected_rows(file: BinaryIO, options: ImportOptions, report: Report, out: BinaryIO) -> None:
    """Write the rejected rows of a file as they were sent, with one more column that says why."""
    table = open_table(file, options.kind, options.charset)
    write_rows(table, _find_rejected(table, options.match, report.errors) if report.rejected else (), out)


def _find_rejected(table: Table, match: Match, problems: list[ImportProblem]) -> Iterator[tuple[Row, str]]:
    """Read a file again, so that nothing is kept of it; say why rows are rejected: by the file, or by the merge."""
    merged = {row: list(group) for row, group in groupby(problems, attrgetter("row"))}
    pending: deque[Row] = deque()

    def keep() -> Iterator[Row]:
        for row in table:
            pending.append(row)
            yield row

    for batch in validate(table, match, keep(), size=1):
        row = pending.popleft()
        errors: Sequence[RowError | ImportProblem] = batch.errors or merged.get(row[0], [])
        if errors:
            texts = (f"{error.column}: {error.detail}" if error.column else error.detail for error in errors)
            yield row, "; ".join(texts)


def _read_rows(staged: Staged, size: int, match: Match, report_progress: Callable[[int], None]) -> Iterator[Batch]:
    size = size * (UNPACKED if staged.table.kind == "xlsx" else 1) + SMALL
    for batch in validate(staged.table, match):
        staged.add(batch.errors)
        if staged.rejected * max(ROW, len(staged.table.header)) > size:
            row = staged.table.row
            raise InvalidFileError(f"Over {staged.rejected:,} rows up to row {row:,} are rejected; {WRONG_FILE}")
        if match != "name,department":  # by which they are the same student
            staged.compare(batch.rows if not batch.sent else [*batch.rows, *(sent.row for sent in batch.sent)])
        staged.has_sent = staged.has_sent or bool(batch.sent)
        report_progress(staged.table.row)
        yield batch


class _StoppedError(Exception):
    """Nobody waits any more."""


class _Stoppable:
    """A file that cannot be read any more once it is stopped, so that the thread which reads it ends."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.is_stopped = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """Read as the file does, or raise."""
        if self.is_stopped:
            raise _StoppedError
        return self._file.read(size)


@contextmanager
def _stoppable(file: BinaryIO) -> Iterator[BinaryIO]:
    """Give a file to a thread that has to end where the block does."""
    source = _Stoppable(file)
    try:
        yield cast("BinaryIO", source)
    finally:
        source.is_stopped = True


def _shorten(report: Report) -> Report:
    """Keep no more errors than a report lists."""
    return msgspec.structs.replace(report, errors=report.errors[:MAX_LISTED])


def _count(report: Report, outcome: str) -> None:
    if report.dry_run:
        return
    metrics.IMPORTS.labels(outcome).inc()
    for name in ("created", "updated", "rejected"):
        metrics.IMPORTED.labels(name).inc(getattr(report, name))


def _hash(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(cast("BytesIO", file), "sha256").hexdigest()
