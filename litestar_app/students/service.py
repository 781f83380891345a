"""Students: every rule and every statement. Knows no HTTP and no threads."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import msgspec
from msgspec import UNSET
from sqlalchemy import Delete, Table, Update, bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from litestar_app.database import Database
from litestar_app.exceptions import ConstraintError, PreconditionFailedError, StudentNotFoundError
from litestar_app.idempotency import IdempotencyStore
from litestar_app.models import Student
from litestar_app.students.schemas import StudentCreate, StudentPatch, StudentRead, etag

STUDENTS = cast("Table", Student.__table__)
BY_ID = select(STUDENTS).where(STUDENTS.c.id == bindparam("student_id"))
FOR_UPDATE = BY_ID.with_for_update()  # on SQLite the transaction holds the lock already
PAGE = select(STUDENTS).order_by(STUDENTS.c.id).limit(bindparam("limit")).offset(bindparam("offset"))
INSERT = insert(STUDENTS)
UPDATE = update(STUDENTS).where(STUDENTS.c.id == bindparam("student_id"))
DELETE = delete(STUDENTS).where(STUDENTS.c.id == bindparam("student_id"))

FIXED = (BY_ID, PAGE)
"""The statements that read, which the database compiles once."""
SHORT_PAGE = 1000
"""Rows that a query may pass, skipped ones included, and still be a short one."""


class StudentService:
    """The students of one database.

    The statements are of SQLAlchemy's Core, and so run on the session's connection. Every method may raise what
    `Database.fetch` or `Database.write` raises. Where one takes `etags`, it changes the student only while its ETag is
    one of them; None stands for any.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys = IdempotencyStore(StudentRead)

    async def list_page(self, limit: int, offset: int) -> list[StudentRead]:
        """Return up to `limit` students in id order, after the first `offset`."""
        values = {"limit": limit, "offset": offset}
        rows = await self._database.fetch(PAGE, values, short=limit + offset <= SHORT_PAGE)
        return [StudentRead(*row) for row in rows]

    async def get(self, student_id: int) -> StudentRead:
        """Return one student, or raise StudentNotFoundError."""
        for row in await self._database.fetch(BY_ID, {"student_id": student_id}):
            return StudentRead(*row)
        raise StudentNotFoundError

    async def create(self, data: StudentCreate, key: str | None = None) -> StudentRead:
        """Store a new student and return it with the id that the database gave it.

        With a key, the same data again returns the first response again.

        Raises:
            KeyInUseError: the first request with this key is still running.
            KeyReusedError: the key was used with other data.

        """

        def create(session: Session) -> StudentRead:
            if key and (earlier := self._keys.load(session, key, data)):
                return earlier
            inserted = session.connection().execute(INSERT, _columns(data))
            if inserted.rowcount != 1:  # a trigger of another program has skipped the row
                raise ConstraintError
            student = StudentRead(inserted.lastrowid, data.name, data.department, data.cgpa)
            if key:
                self._keys.save(session, key, data, student)
            return student

        with self._keys.claim(key):
            return await self._database.write(create)

    async def replace(self, student_id: int, data: StudentCreate, etags: frozenset[str] | None = None) -> StudentRead:
        """Replace a student, or raise StudentNotFoundError or PreconditionFailedError."""
        if etags is not None:
            return await self.change(student_id, data, etags)

        def replace(session: Session) -> StudentRead:
            _execute_for_one(session, UPDATE, student_id, _columns(data))
            return StudentRead(student_id, data.name, data.department, data.cgpa)

        return await self._database.write(replace)

    async def change(
        self, student_id: int, data: StudentCreate | StudentPatch, etags: frozenset[str] | None = None
    ) -> StudentRead:
        """Change the given fields of a student, or raise StudentNotFoundError or PreconditionFailedError."""
        changes = _columns(data)

        def change(session: Session) -> StudentRead:
            student = _get_for_update(session, student_id, etags)
            if changes:
                _execute_for_one(session, UPDATE, student_id, changes)
            return msgspec.structs.replace(student, **changes)

        return await self._database.write(change)

    async def delete(self, student_id: int, etags: frozenset[str] | None = None) -> None:
        """Delete a student, or raise StudentNotFoundError or PreconditionFailedError."""

        def delete(session: Session) -> None:
            if etags is not None:
                _get_for_update(session, student_id, etags)
            _execute_for_one(session, DELETE, student_id)

        await self._database.write(delete)


def _execute_for_one(
    session: Session, statement: Update | Delete, student_id: int, changes: Mapping[str, object] = MappingProxyType({})
) -> None:
    """Change one row, or raise StudentNotFoundError, or ConstraintError where a trigger has skipped the row."""
    if not session.connection().execute(statement, {"student_id": student_id, **changes}).rowcount:
        _get_for_update(session, student_id, None)
        raise ConstraintError


def _get_for_update(session: Session, student_id: int, etags: frozenset[str] | None) -> StudentRead:
    """Return a student whom no other transaction can change before COMMIT."""
    row = session.connection().execute(FOR_UPDATE, {"student_id": student_id}).first()
    if row is None:
        raise StudentNotFoundError
    student = StudentRead(*row)
    if etags is not None and etag(student) not in etags:
        raise PreconditionFailedError
    return student


def _columns(data: StudentCreate | StudentPatch) -> dict[str, Any]:
    given = {"name": data.name, "department": data.department, "cgpa": data.cgpa}
    return {column: value for column, value in given.items() if value is not UNSET}
