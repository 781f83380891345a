"""History: its entries and its imports, page by page, and the undo of an import."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple

from msgspec import Meta
from sqlalchemy import Column, ColumnElement, Connection, select

from litestar_app.database import Database
from litestar_app.entries import IMPORTS, D, H
from litestar_app.exceptions import InvalidQueryError
from litestar_app.history.schemas import Entry, ImportSummary, UndoReport
from litestar_app.history.undo import undo
from litestar_app.models import HISTORY
from litestar_app.records.cursors import OpaqueCursor
from litestar_app.records.fields import MAX_ID
from litestar_app.students.exceptions import StudentNotFoundError
from litestar_app.students.record import STUDENT

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEWEST = MAX_ID
"""Above every id."""
NOTHING = (None,) * len(STUDENT.names)
SUMMARY = [IMPORTS.c[name] for name in ImportSummary.__struct_fields__]


class EntryCursor(OpaqueCursor, frozen=True, array_like=True):
    """Where a page begins, of a list that is newest first."""

    student_id: int | None
    """Whose history it is; None stands for the imports."""
    boundary: Annotated[int, Meta(ge=0, le=NEWEST)]
    """An id: the page has the next older ones."""
    is_backward: bool
    """Whether it has the next newer ones instead."""


class Page(NamedTuple):
    """A page of rows, and what leads to its neighbours, where there are such pages."""

    rows: list[Any]
    previous: EntryCursor | None
    next: EntryCursor | None


class HistoryService:
    """The history of one database. Every method may raise what `Database.fetch` or `Database.write` raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_entries(self, student_id: int, limit: int, cursor: str | None) -> Page:
        """Return what has happened to a student.

        Raises:
            StudentNotFoundError: nothing is known of such a student.
            InvalidQueryError: the cursor is damaged, or of another list.

        """
        page = await self._list(HISTORY.c.values(), H.student_id == student_id, limit, _read(cursor, student_id))
        if not page.rows:
            known = (select(D.id).where(D.id == student_id), select(H.id).where(H.student_id == student_id).limit(1))
            if not [row for statement in known for row in await self._database.fetch(statement, {})]:
                raise StudentNotFoundError
        return page._replace(rows=[_make_entry(*row) for row in page.rows])

    async def list_imports(self, limit: int, cursor: str | None) -> Page:
        """Return what imports have done, or raise InvalidQueryError for a cursor that is damaged or of another list."""
        page = await self._list(SUMMARY, IMPORTS.c.id > 0, limit, _read(cursor, None))
        return page._replace(rows=[ImportSummary(number, _make_time(at), *rest) for number, at, *rest in page.rows])

    async def undo(self, import_id: int, who: str) -> UndoReport:
        """Undo an import.

        Raises:
            ImportNotFoundError: no import has this id.
            StudentsChangedError: some of its students have changed since; nothing is undone.

        """
        async with self._database.stage(_stage_nothing) as (connection, _):
            return await self._database.write(lambda unit: undo(unit, import_id, who), connection)

    async def _list(
        self, columns: Sequence[Column[Any]], condition: ColumnElement[bool], limit: int, cursor: EntryCursor
    ) -> Page:
        """Fetch a page, and one row more on either side, which tells whether there is a page."""
        key = columns[0]
        newer, older = key > cursor.boundary, key < cursor.boundary
        wanted, others = (newer, ~newer) if cursor.is_backward else (older, ~older)
        order, opposite = (key.asc(), key.desc()) if cursor.is_backward else (key.desc(), key.asc())
        page = select(*columns).where(condition, wanted).order_by(order).limit(limit + 1)
        rows = list(await self._database.fetch(page, {}))
        has_more, has_others = len(rows) > limit, False
        if cursor.boundary != NEWEST:
            has_others = bool(
                await self._database.fetch(select(key).where(condition, others).order_by(opposite).limit(1), {})
            )
        del rows[limit:]
        if cursor.is_backward:
            rows.reverse()
            newest = rows[0][0] if rows else NEWEST
            return Page(
                rows,
                EntryCursor(cursor.student_id, newest, is_backward=True) if has_more else None,
                EntryCursor(cursor.student_id, cursor.boundary + 1, is_backward=False) if has_others else None,
            )
        return Page(
            rows,
            EntryCursor(cursor.student_id, cursor.boundary - 1, is_backward=True) if has_others else None,
            EntryCursor(cursor.student_id, rows[-1][0], is_backward=False) if has_more else None,
        )


def _read(cursor: str | None, student_id: int | None) -> EntryCursor:
    if cursor is None:
        return EntryCursor(student_id, NEWEST, is_backward=False)
    position = EntryCursor.decode(cursor)
    if position.student_id != student_id:
        raise InvalidQueryError("query parameter 'cursor': it belongs to another list")
    return position


def _make_entry(
    _id: int, student_id: int, at: int, who: str, action: Any, import_id: int | None, *values: Any
) -> Entry:
    half = len(STUDENT.names)
    before, after = (
        None if part == NOTHING else STUDENT.load((student_id, *part)) for part in (values[:half], values[half:])
    )
    return Entry(_make_time(at), who, action, import_id, before, after)


def _make_time(at: int) -> datetime:
    return EPOCH + timedelta(microseconds=at)


def _stage_nothing(_connection: Connection) -> None:
    """Leave all to the transaction: what has changed since is known only under its lock."""
