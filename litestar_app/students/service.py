"""Students: every rule and every statement. Knows no HTTP and no threads."""

from collections.abc import Callable, Mapping
from itertools import combinations
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET
from sqlalchemy import Delete, Update, bindparam, delete, insert, select, update

from litestar_app.database import Database
from litestar_app.database.loader import Loader, select_by_ids
from litestar_app.database.unit_of_work import UnitOfWork
from litestar_app.exceptions import ConstraintError
from litestar_app.idempotency import Once
from litestar_app.students.exceptions import StudentNotFoundError
from litestar_app.students.listing import STUDENTS, Cursor, Listing, select_count, select_students
from litestar_app.students.schemas import FIELDS, StudentCreate, StudentPatch, StudentRead, etag
from litestar_app.students.texts import normalize

Condition: TypeAlias = Callable[[str], None]
"""Takes the current ETag of a student, and raises PreconditionFailedError unless the write is allowed."""

BY_IDS = select_by_ids(STUDENTS)
BY_ID = select(STUDENTS).where(STUDENTS.c.id == bindparam("student_id"))
PAGE = select(STUDENTS).order_by(STUDENTS.c.id).limit(bindparam("limit")).offset(bindparam("offset"))
FROM_ID = select(STUDENTS).where(STUDENTS.c.id >= bindparam("first")).order_by(STUDENTS.c.id).limit(bindparam("limit"))
INSERT = insert(STUDENTS).values({column: bindparam(column) for column in FIELDS}).inline()  # lastrowid is enough
UPDATES = {
    columns: update(STUDENTS)
    .where(STUDENTS.c.id == bindparam("student_id"))
    .values({column: bindparam(column) for column in columns})
    for count in range(1, len(FIELDS) + 1)
    for columns in combinations(FIELDS, count)
}
"""The statement that changes some columns and leaves the others alone, by their names."""
DELETE = delete(STUDENTS).where(STUDENTS.c.id == bindparam("student_id"))

FIXED = (BY_ID, BY_IDS, PAGE, FROM_ID)
"""The statements that read, which the database compiles once."""
PLAIN = (Listing().filters, Listing().sort, False)
"""A listing forwards without a filter in id order, as most are."""


class Page(NamedTuple):
    """A page of a listing, and what leads to its neighbours, where there are such pages."""

    students: list[StudentRead]
    previous: Cursor | None
    next: Cursor | None
    total: int | None
    """How many students match, if that was asked for."""


class StudentService:
    """The students of one database.

    Its statements are of SQLAlchemy's Core, compiled once. Every method may also raise the errors of `Database.fetch`
    or `Database.write`. A `condition` is checked in the transaction of the write. `who` is the caller's name, for the
    listeners of changes.
    """

    def __init__(self, database: Database) -> None:
        database.compile(FIXED)
        self._database = database
        self._loader = Loader(database, BY_ID, BY_IDS)
        self._once = Once(database, StudentRead)

    async def list_page(self, listing: Listing) -> Page:
        """Return a page of the students."""
        total = None
        if listing.count:
            ((total,),) = await self._database.fetch(select_count(listing.filters), {}, short=False)
        students = await self._fetch_students(listing, listing.limit + (1 if listing.boundary is None else 2))
        if listing.boundary is None:
            has_before = listing.offset > 0 and (bool(students) or await self._has_any(listing.turn_around()))
        elif has_before := bool(students) and listing.is_at_boundary(students[0]):
            del students[0]
        else:  # that one has been deleted, or has got another place
            has_before = await self._has_any(listing.turn_around())
        has_after = len(students) > listing.limit
        del students[listing.limit :]
        if listing.is_backward:
            students.reverse()
            has_before, has_after = has_after, has_before
        first, last = (students[0], students[-1]) if students else (None, None)
        return Page(
            students,
            listing.make_cursor(first, is_backward=True) if has_before else None,
            listing.make_cursor(last, is_backward=False) if has_after else None,
            total,
        )

    async def _has_any(self, listing: Listing) -> bool:
        return bool(await self._fetch_students(listing, 1))

    async def _fetch_students(self, listing: Listing, limit: int) -> list[StudentRead]:
        """Return up to `limit` students from where the listing begins, the one at its boundary included."""
        if (listing.filters, listing.sort, listing.is_backward) == PLAIN:
            values, statement = {"limit": limit, "offset": listing.offset}, PAGE
            if listing.boundary is not None:
                values, statement = {"limit": limit, "first": listing.boundary.id}, FROM_ID
            return [StudentRead(*row) for row in await self._database.fetch(statement, values, short=listing.is_short)]
        students: list[StudentRead] = []
        for following in select_students(listing):
            rest = following.limit(limit - len(students))
            students += [StudentRead(*row) for row in await self._database.fetch(rest, {}, short=listing.is_short)]
            if len(students) == limit:
                break
        return students

    async def get(self, student_id: int) -> StudentRead:
        """Return one student, or raise StudentNotFoundError."""
        row = await self._loader.load(student_id)
        if row is None:
            raise StudentNotFoundError
        return StudentRead(*row)

    async def create(self, data: StudentCreate, who: str, key: str | None = None) -> StudentRead:
        """Store a new student, its texts normalised, and return it with the id that the database gave it.

        With a key, the same data again returns the first response again.

        Raises:
            KeyInUseError: the first request with this key is still running.
            KeyReusedError: the key was used with other data.

        """
        columns = _columns(data)
        # trimmed only, as in the fingerprints of earlier releases
        request = StudentCreate(data.name.strip(), data.department.strip(), data.cgpa) if key else data

        def create(unit: UnitOfWork) -> StudentRead:
            inserted = unit.execute_fixed(INSERT, columns)
            if inserted.rowcount != 1:  # a trigger of another program has skipped the row
                raise ConstraintError
            student = StudentRead(inserted.lastrowid, **columns)
            unit.changed(STUDENTS, who, None, student)
            return student

        return await self._once.write(key, request, create)

    async def change(
        self, student_id: int, data: StudentCreate | StudentPatch, who: str, condition: Condition | None = None
    ) -> StudentRead:
        """Change the given fields of a student, or raise StudentNotFoundError or PreconditionFailedError.

        A text that is sent as it is stored stays, even if another program has stored it and it is not normalised.
        """

        def change(unit: UnitOfWork) -> StudentRead:
            student = _lock(unit, student_id, condition)
            changes = _columns(data, student)
            changed = msgspec.structs.replace(student, **changes)
            if changed != student:
                _execute_for_one(unit, UPDATES[tuple(changes)], student_id, changes)
                unit.changed(STUDENTS, who, student, changed)
            return changed

        return await self._database.write(change, row=(STUDENTS, student_id))

    async def delete(self, student_id: int, who: str, condition: Condition | None = None) -> None:
        """Delete a student, or raise StudentNotFoundError or PreconditionFailedError."""

        def delete(unit: UnitOfWork) -> None:
            student = _lock(unit, student_id, condition)
            _execute_for_one(unit, DELETE, student_id)
            unit.forget_locked()  # a foreign key of another program may have changed others
            unit.changed(STUDENTS, who, student, None)

        await self._database.write(delete)


def _lock(unit: UnitOfWork, student_id: int, condition: Condition | None) -> StudentRead:
    """Return a student that no other transaction can change before COMMIT."""
    row = unit.lock(STUDENTS, student_id)
    if row is None:
        raise StudentNotFoundError
    student = StudentRead(*row)
    if condition is not None:
        condition(etag(student))
    return student


def _execute_for_one(
    unit: UnitOfWork, statement: Update | Delete, student_id: int, changes: Mapping[str, object] = MappingProxyType({})
) -> None:
    """Change one existing row, or raise ConstraintError if a trigger has skipped it."""
    if not unit.execute_fixed(statement, {"student_id": student_id, **changes}).rowcount:
        raise ConstraintError


def _columns(data: StudentCreate | StudentPatch, stored: StudentRead | None = None) -> dict[str, Any]:
    """Return what is given, in the order of FIELDS; a text normalised, unless it is the stored one."""
    columns: dict[str, Any] = {}
    for column in FIELDS:
        value = getattr(data, column)
        if value.__class__ is str and (stored is None or value != getattr(stored, column)):
            value = normalize(value)
        if value is not UNSET:
            columns[column] = value
    return columns
