"""Undo: the entries of an import, backwards, by statements about many of them at once."""

from collections import Counter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    update,
)

from litestar_app.database.limits import PART
from litestar_app.database.unit_of_work import UnitOfWork
from litestar_app.entries import AFTER, BEFORE, IMPORTS, D, H, ImportLog
from litestar_app.exceptions import ConstraintError
from litestar_app.history.exceptions import ImportNotFoundError, StudentsChangedError
from litestar_app.history.schemas import UndoReport
from litestar_app.models import HISTORY
from litestar_app.students.record import STUDENT
from litestar_app.students.reports import MAX_LISTED

LATER = HISTORY.alias("later")
INVERSE = {"create": "delete", "update": "update", "delete": "create"}


def undo(unit: UnitOfWork, import_id: int, who: str) -> UndoReport:
    """Undo an import in a transaction, which is then an import itself.

    Raises:
        ImportNotFoundError: no import has this id.
        StudentsChangedError: some of its students have changed since.

    """
    connection = unit.connection()
    row = connection.execute(select(IMPORTS).where(IMPORTS.c.id == import_id).with_for_update()).first()
    if row is None:
        raise ImportNotFoundError
    starts = range(row.first_entry, row.last_entry + 1, PART)
    parts = [and_(H.import_id == import_id, H.id.between(start, start + PART - 1)) for start in starts]
    changed = [student for part in parts for student in _find_changed(connection, part)]
    if changed:
        raise StudentsChangedError(sorted(changed)[:MAX_LISTED], len(changed))
    log = ImportLog(unit, who)
    inverse, before, after = case(INVERSE, value=H.action), [H[name] for name in AFTER], [H[name] for name in BEFORE]
    counts: Counter[str] = Counter()
    for part in parts:
        added = log.add(inverse, H.student_id, before, after, [part])
        reverted = _revert(connection, part)
        if sum(reverted.values()) != added:  # a trigger of another program has skipped one
            raise ConstraintError
        counts.update(reverted)
    log.finish(**counts, undo_of=import_id)
    connection.execute(update(IMPORTS).where(IMPORTS.c.id == import_id).values(undone_by=log.id))
    return UndoReport(import_=log.id, created=counts["created"], updated=counts["updated"], deleted=counts["deleted"])


def _find_changed(connection: Connection, part: ColumnElement[bool]) -> list[int]:
    """Lock the entries and the students of a part, and find those that are not as the import has left them."""
    entries = HISTORY.outerjoin(STUDENT.table, D.id == H.student_id)
    # without a column of theirs MariaDB leaves the students out of the join, and does not lock them
    connection.execute(select(func.count(), func.count(D.id)).select_from(entries).where(part).with_for_update())
    is_last = ~exists().where(LATER.c.student_id == H.student_id, LATER.c.id > H.id).correlate(HISTORY)
    is_same = and_(*(D[field].is_not_distinct_from(H[name]) for field, name in zip(STUDENT.names, AFTER, strict=True)))
    is_gone = and_(D.id.is_(None), H.before_name.is_not(None))  # else the person was erased
    is_as_left = or_(and_(H.action == "delete", is_gone), and_(H.action != "delete", D.id.is_not(None), is_same))
    changed = select(H.student_id).select_from(entries).where(part, not_(and_(is_last, is_as_left)))
    return list(connection.execute(changed).scalars())


def _revert(connection: Connection, part: ColumnElement[bool]) -> dict[str, int]:
    """Delete, update and create students as the entries of a part say; return how many."""

    def execute(statement: Any) -> int:
        return connection.execute(statement).rowcount

    created, updated, deleted = (and_(part, H.action == action) for action in INVERSE)
    is_created: ColumnElement[bool]
    if connection.dialect.name == "sqlite":
        is_created = D.id.in_(select(H.student_id).where(created))
    else:  # which does not look an IN up by its index
        is_created = and_(created, D.id == H.student_id)
    old = {field: H[name] for field, name in zip(STUDENT.names, BEFORE, strict=True)}
    gone = select(H.student_id, *old.values()).where(deleted).order_by(H.student_id)
    return {
        "deleted": execute(delete(STUDENT.table).where(is_created)),
        "updated": execute(update(STUDENT.table).where(updated, D.id == H.student_id).values(old)),
        "created": execute(insert(STUDENT.table).from_select(["id", *STUDENT.names], gone)),
    }
