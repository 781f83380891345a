"""Students: every rule and every statement. Knows no HTTP."""

from typing import Any, cast

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection, Table, bindparam, delete, insert, select, update

from litestar_app.database import Reader
from litestar_app.idempotency import FirstAnswers
from litestar_app.lanes import Lanes
from litestar_app.models import Student
from litestar_app.schemas import StudentCreate, StudentPatch, StudentRead, version_of

STUDENTS = cast("Table", Student.__table__)
BY_ID = select(STUDENTS).where(STUDENTS.c.id == bindparam("student_id"))
LOCK = BY_ID.with_for_update()  # on SQLite the transaction has the lock already
PAGE = select(STUDENTS).order_by(STUDENTS.c.id).limit(bindparam("limit")).offset(bindparam("offset"))
CHECK = select(STUDENTS.c.id).limit(1)
INSERT = insert(STUDENTS)
UPDATE = update(STUDENTS).where(STUDENTS.c.id == bindparam("student_id"))
DELETE = delete(STUDENTS).where(STUDENTS.c.id == bindparam("student_id"))


class StudentNotFoundError(LookupError):
    """No student has this id."""


class StudentChangedError(Exception):
    """The student is not in one of the versions that the change was made for."""


class StudentService:
    """The students of one database.

    A method that takes a connection is a unit of work: `lanes.write` runs it as a transaction, perhaps more than once.
    Where it takes `versions`, it changes the student only in one of them. Any method may raise SQLAlchemy's
    `DBAPIError`. Whoever is on the event loop runs them in `lanes`.
    """

    def __init__(self, reader: Reader, lanes: Lanes) -> None:
        self.lanes = lanes
        self.first_answers = FirstAnswers(StudentRead)
        self._fetch = reader.fetch

    def list_students(self, limit: int, offset: int) -> list[StudentRead]:
        """Return up to `limit` students in the order of their ids, after the first `offset` ones."""
        return [StudentRead(*row) for row in self._fetch(PAGE, {"limit": limit, "offset": offset})]

    def get_student(self, student_id: int) -> StudentRead:
        """Return one student, or raise StudentNotFoundError."""
        for row in self._fetch(BY_ID, {"student_id": student_id}):
            return StudentRead(*row)
        raise StudentNotFoundError

    def create_student(self, connection: Connection, data: StudentCreate, key: str | None = None) -> StudentRead:
        """Store a new student and return it with the id that the database gave.

        With a key, the same data again gives the same student again; other data raises KeyReusedError.
        """
        if key and (earlier := self.first_answers.recall(connection, key, data)):
            return earlier
        student_id = connection.execute(INSERT, _columns(data)).lastrowid
        student = StudentRead(student_id, data.name, data.department, data.cgpa)
        if key:
            self.first_answers.remember(connection, key, data, student)
        return student

    def update_student(
        self,
        connection: Connection,
        student_id: int,
        data: StudentCreate | StudentPatch,
        versions: frozenset[str] | None = None,
    ) -> StudentRead:
        """Change what `data` says of a student, or raise StudentNotFoundError or StudentChangedError."""
        changes = _columns(data)
        if versions is None and isinstance(data, StudentCreate):  # all is given: nothing of what is stored matters
            if not connection.execute(UPDATE, {"student_id": student_id, **changes}).rowcount:
                raise StudentNotFoundError
            return StudentRead(student_id, data.name, data.department, data.cgpa)
        student = _lock(connection, student_id, versions)
        if changes:
            connection.execute(UPDATE, {"student_id": student_id, **changes})
        return msgspec.structs.replace(student, **changes)

    def delete_student(self, connection: Connection, student_id: int, versions: frozenset[str] | None = None) -> None:
        """Remove a student for good, its id included, or raise StudentNotFoundError or StudentChangedError."""
        if versions is not None:
            _lock(connection, student_id, versions)
        if not connection.execute(DELETE, {"student_id": student_id}).rowcount:
            raise StudentNotFoundError

    def check(self) -> None:
        """Return when the database answers and has the table."""
        self._fetch(CHECK, {})


def _lock(connection: Connection, student_id: int, versions: frozenset[str] | None) -> StudentRead:
    """Read a student that nobody else may change before COMMIT."""
    row = connection.execute(LOCK, {"student_id": student_id}).first()
    if row is None:
        raise StudentNotFoundError
    student = StudentRead(*row)
    if versions is not None and version_of(student) not in versions:
        raise StudentChangedError
    return student


def _columns(data: StudentCreate | StudentPatch) -> dict[str, Any]:
    given = {"name": data.name, "department": data.department, "cgpa": data.cgpa}
    return {column: value for column, value in given.items() if value is not UNSET}
