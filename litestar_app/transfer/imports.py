"""Import: a file as students, staged without the lock to write, then merged in one transaction."""

import hashlib
import heapq
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from typing import BinaryIO, Literal, cast

import msgspec
from msgspec import Struct
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from litestar_app import metrics
from litestar_app.database import Database
from litestar_app.entries import HistoryLog
from litestar_app.exceptions import ImportRejectedError
from litestar_app.idempotency import IdempotencyStore
from litestar_app.transfer.formats import ImportRow, Kind, Match, RowError, Table, open_table, validate, write_rejected
from litestar_app.transfer.merge import Merge, stage
from litestar_app.transfer.schemas import MAX_LISTED, ImportProblem, Report

Mode = Literal["all", "valid"]
SPREADSHEETS = {"csv", "xlsx"}
"""Kinds of files that a spreadsheet writes, which keeps 15 digits of a number."""


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

    def add(self, errors: list[RowError]) -> None:
        """Count the rows with errors, and keep some."""
        self.rejected += len({error.row for error in errors})
        self.errors += [ImportProblem(*error) for error in errors[: max(0, MAX_LISTED - len(self.errors))]]


class ImportService:
    """Imports into one database."""

    def __init__(self, database: Database, history: HistoryLog) -> None:
        self._database = database
        self._history = history
        self._keys = IdempotencyStore(Report)

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
            staged = Staged(open_table(file, options.kind, options.charset))
            stage(connection, _read_rows(staged, options.match, report_progress), options.match)
            return staged

        with self._keys.claim(key):
            async with self._database.stage(stage_rows) as (connection, staged):
                # what Accept asks for is no other request
                same = msgspec.structs.replace(options, all_errors=False)
                request = ImportRequest(_hash(file), same) if key else None
                is_repeated = False

                def merge(session: Session) -> Report:
                    nonlocal is_repeated
                    if key and request and (earlier := self._keys.load(session, key, request)):
                        is_repeated = True
                        return earlier
                    report = self._merge(session, staged, options, who, limit)
                    if key and request:
                        kept = msgspec.structs.replace(report, errors=report.errors[:MAX_LISTED])
                        self._keys.save(session, key, request, kept)
                    return report

                try:
                    report = await self._database.write(merge, connection)
                except ImportRejectedError as error:
                    _count(error.report, "rejected")
                    raise
                if not is_repeated:
                    _count(report, "written")
                return report

    def _merge(self, session: Session, staged: Staged, options: ImportOptions, who: str, limit: int | None) -> Report:
        merge = Merge(session, options.match, is_rounded=staged.table.kind in SPREADSHEETS)
        merge.compare()
        counts = merge.count()
        errors = sorted([*staged.errors, *merge.find_problems(limit)], key=lambda error: error.row)
        report = Report(
            **{**counts, "rejected": counts["rejected"] + staged.rejected},
            dry_run=options.dry_run,
            blank=staged.table.blank,
            ignored_columns=staged.table.ignored_columns,
            ignored_sheets=staged.table.ignored_sheets,
            changes=merge.find_changes(MAX_LISTED) if options.dry_run else [],
            errors=errors[:limit],
        )
        if report.rejected and options.mode == "all":
            raise ImportRejectedError(msgspec.structs.replace(report, created=0, updated=0, duplicates=0))
        if not options.dry_run:
            log = self._history.begin_import(session, who)
            merge.write(counts["created"], log)
            if log is not None:
                report.import_ = log.id
                log.finish(
                    created=report.created, updated=report.updated, unchanged=report.unchanged, rejected=report.rejected
                )
        return report


def write_rejected_rows(file: BinaryIO, options: ImportOptions, report: Report, out: BinaryIO) -> None:
    """Write the rejected rows of a file as they were sent, with one more column that says why."""
    write_rejected(open_table(file, options.kind, options.charset), _explain(file, options, report), out)


def _explain(file: BinaryIO, options: ImportOptions, report: Report) -> Iterator[tuple[int, str]]:
    """Say why rows are rejected: by the file, which is read again so that nothing is kept of it, or by the merge."""
    table = open_table(file, options.kind, options.charset)
    problems: Iterator[tuple[int, int, RowError | ImportProblem]] = heapq.merge(
        ((error.row, 0, error) for batch in validate(table, options.match) for error in batch.errors),
        ((error.row, 1, error) for error in report.errors),
        key=itemgetter(0, 1),
    )
    for row, group in groupby(problems, itemgetter(0)):
        first, *others = group
        errors = [first[2], *(error for _, source, error in others if source == first[1])]
        yield row, "; ".join(f"{error.column}: {error.detail}" if error.column else error.detail for error in errors)


def _read_rows(staged: Staged, match: Match, report_progress: Callable[[int], None]) -> Iterator[list[ImportRow]]:
    for batch in validate(staged.table, match):
        staged.add(batch.errors)
        report_progress(staged.table.row)
        yield batch.rows


def _count(report: Report, outcome: str) -> None:
    if report.dry_run:
        return
    metrics.IMPORTS.labels(outcome).inc()
    for name in ("created", "updated", "rejected"):
        metrics.IMPORTED.labels(name).inc(getattr(report, name))


def _hash(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(cast("BytesIO", file), "sha256").hexdigest()
