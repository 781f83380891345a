"""The students of one database."""

from litestar_app.records.service import RecordService
from litestar_app.students.exceptions import StudentNotFoundError
from litestar_app.students.record import STUDENT
from litestar_app.students.schemas import StudentRead


class StudentService(RecordService[StudentRead]):
    """Creates, reads, changes, deletes and lists students."""

    record = STUDENT
    not_found = StudentNotFoundError
