"""The declaration of the student, from which everything generic takes its columns, types and rules."""

from litestar_app.models import Student
from litestar_app.records.filters import between, contains, equals
from litestar_app.records.listing import Listings
from litestar_app.records.record import Record
from litestar_app.students.schemas import StudentCreate, StudentPatch, StudentRead

STUDENT = Record(
    Student,
    create=StudentCreate,
    patch=StudentPatch,
    read=StudentRead,
    filters={"department": equals, "name": contains, "cgpa": between},
    natural_key=("name", "department"),
)
LISTINGS = Listings(STUDENT)
