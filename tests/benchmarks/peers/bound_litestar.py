"""A bound: what Litestar, msgspec and uvicorn cost before any database is asked. Nothing is stored."""

import msgspec
from litestar import Litestar, delete, get, post, put


class StudentData(msgspec.Struct):
    name: str
    department: str
    cgpa: float


class Student(StudentData):
    id: int


STUDENT = Student(name="Ada Lovelace", department="Mathematics", cgpa=9.5, id=1)
STUDENTS = [STUDENT] * 100


@post("/student")
async def create_student(data: StudentData) -> Student:
    return Student(name=data.name, department=data.department, cgpa=data.cgpa, id=1)


@get("/students")
async def list_students(limit: int = 100, offset: int = 0) -> list[Student]:
    return STUDENTS[offset : offset + limit]


@get("/student/{student_id:int}")
async def get_student(student_id: int) -> Student:  # noqa: ARG001 - parsed all the same
    return STUDENT


@put("/student/{student_id:int}")
async def update_student(student_id: int, data: StudentData) -> Student:
    return Student(name=data.name, department=data.department, cgpa=data.cgpa, id=student_id)


@delete("/student/{student_id:int}", status_code=200)
async def delete_student(student_id: int) -> dict[str, str]:  # noqa: ARG001
    return {"message": "Student deleted successfully"}


app = Litestar(route_handlers=[create_student, list_students, get_student, update_student, delete_student])
