"""Entries of the history: what a write has changed is stored in the transaction of the write."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

from msgspec import Struct
from sqlalchemy import ColumnElement, Select, Table, bindparam, delete, func, insert, literal, null, select, update
from sqlalchemy.orm import Session

from litestar_app.database.unit_of_work import Change, UnitOfWork
from litestar_app.exceptions import RetryTransactionError
from litestar_app.models import HISTORY, Import
from litestar_app.students.record import STUDENT

Action = Literal["create", "update", "delete"]

IMPORTS = cast("Table", Import.__table__)
H, D = HISTORY.c, STUDENT.table.c
BEFORE, AFTER = ([f"{when}_{field}" for field in STUDENT.names] for when in ("before", "after"))
COLUMNS = ("student_id", "at", "who", "action", "import_id", *BEFORE, *AFTER)
INSERT = insert(HISTORY).values({name: bindparam(name) for name in COLUMNS}).inline()
NOTHING = dict.fromkeys(STUDENT.names)
NULLS = [null()] * len(STUDENT.names)

MAX_EXPIRED = 1000
"""Rows among which a transaction deletes, which takes some milliseconds."""


def record_change(unit: UnitOfWork, change: Change) -> None:
    """Add the entry of one change of a student, in its transaction; a listener of `UnitOfWork.changed`."""
    if change.table is not STUDENT.table:
        return
    before, after = _values(change.before), _values(change.after)
    action: Action = "update" if change.before and change.after else "create" if change.after else "delete"
    student: Any = change.after or change.before
    what = (student.id, _now(), change.who, action, None, *before, *after)
    unit.insert_later(INSERT, dict(zip(COLUMNS, what, strict=True)))


def _values(student: Struct | None) -> Iterable[Any]:
    return STUDENT.dump(NOTHING if student is None else STUDENT.get_stored(student)).values()


class ImportLog:
    """Adds the entries of one import, by statements about many of them at once."""

    def __init__(self, unit: UnitOfWork, who: str) -> None:
        self._connection = unit.connection()
        self._at, self._who = _now(), who
        self._newest = self._connection.execute(select(func.coalesce(func.max(H.id), 0))).scalar_one()
        counts = dict.fromkeys(
            ("created", "updated", "deleted", "unchanged", "rejected", "first_entry", "last_entry"), 0
        )
        inserted = self._connection.execute(insert(IMPORTS), {"at": self._at, "who": who, **counts})
        self.id: int | None = inserted.lastrowid

    def add(
        self,
        action: ColumnElement[str],
        student_id: ColumnElement[int],
        before: Sequence[ColumnElement[Any]],
        after: Sequence[ColumnElement[Any]],
        conditions: Iterable[ColumnElement[bool]],
    ) -> int:
        """Add the entries that a select makes, in the order of their students; return how many."""
        same = (literal(self._at), literal(self._who), action, literal(self.id))
        rows = select(student_id, *same, *before, *after).where(*conditions).order_by(student_id)
        return self._connection.execute(insert(HISTORY).from_select(COLUMNS, rows)).rowcount

    def expect_created(self) -> None:
        """Note which entry and which student are the newest, before a statement inserts students."""
        newest = (select(func.coalesce(func.max(key), 0)).scalar_subquery() for key in (H.id, D.id))
        self._newest_entry, self._newest_student = self._connection.execute(select(*newest)).one()

    def add_created(self, inserted: Any) -> None:
        """Add the entries of the students that the statement has inserted, whose ids none knows.

        On SQLite they are above the newest id before it. On MySQL others insert meanwhile; but each of those students
        has an entry by now.

        Raises:
            RetryTransactionError: one of them has none: another program has inserted it.

        """
        if not inserted.rowcount:
            return
        is_sqlite = self._connection.dialect.name == "sqlite"
        theirs = select(H.student_id).where(H.id > self._newest_entry)  # few, found by their ids alone
        conditions = [D.id > self._newest_student] if is_sqlite else [D.id >= inserted.lastrowid, D.id.not_in(theirs)]
        added = self.add(literal("create"), D.id, NULLS, [D[field] for field in STUDENT.names], conditions)
        if not is_sqlite and added != inserted.rowcount:
            raise RetryTransactionError("another program has inserted students during an import")

    def finish(self, **columns: int) -> None:
        """Store what the import has done."""
        newest = select(func.coalesce(func.max(H.id), 0)).scalar_subquery()
        columns["first_entry"] = self._newest + 1
        self._connection.execute(update(IMPORTS).where(IMPORTS.c.id == self.id).values(**columns, last_entry=newest))


def select_expired(table: Table, oldest: int, first: int) -> Select[Any]:
    """Select the lowest id, from one on, of what is from before a time, in microseconds since 1970.

    It passes all rows if there is none: ids do not ascend with the time if the clock was wrong once. That takes a tenth
    of a second for a million, without a lock, and an index would cost each write more.
    """
    return select(table.c.id).where(table.c.id >= first, table.c.at < oldest).order_by(table.c.id).limit(1)


def select_newest(before: int) -> Select[Any]:
    """Select the time of the newest entry from before a time, or NULL."""
    return select(func.max(H.at)).where(H.at < before)


def delete_expired(session: Session, table: Table, oldest: int, first: int) -> None:
    """Delete what is from before a time among some rows, from one id on."""
    connection = session.connection()
    following = select(table.c.id).where(table.c.id >= first).order_by(table.c.id).limit(MAX_EXPIRED).subquery()
    last = connection.execute(select(func.max(following.c.id))).scalar()
    if last is not None:
        connection.execute(delete(table).where(table.c.id.between(first, last), table.c.at < oldest))


def _now() -> int:
    return time.time_ns() // 1000
