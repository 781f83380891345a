"""Synthetic students."""

from itertools import islice

import msgspec

from litestar_app.students.schemas import StudentCreate
from litestar_app.students.synthetic import DEPARTMENTS, make_students


def make(seed: int) -> list[tuple[str, str, float]]:
    return [student for batch in islice(make_students(seed), 3) for student in batch]


def test_synthetic_students_can_be_stored() -> None:
    students = make(1)
    for name, department, cgpa in students:
        student = {"name": name, "department": department, "cgpa": cgpa}
        assert msgspec.to_builtins(msgspec.convert(student, StudentCreate)) == student
    assert {department for _, department, _ in students} == set(DEPARTMENTS)
    assert students != make(2)
