"""Litestar with advanced-alchemy's asynchronous repository service and Pydantic schemas."""

import os

from advanced_alchemy.extensions.litestar import (
    AsyncSessionConfig,
    SQLAlchemyAsyncConfig,
    SQLAlchemyPlugin,
    base,
    filters,
    providers,
    repository,
    service,
)
from litestar import Controller, Litestar, delete, get, post, put
from pydantic import BaseModel
from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

DATABASE_URL = (
    os.environ["DATABASE_URL"].replace("sqlite://", "sqlite+aiosqlite://").replace("mysql://", "mysql+asyncmy://")
)


class StudentModel(base.IdentityBase):
    __tablename__ = "students"

    name: Mapped[str] = mapped_column(String(100))
    department: Mapped[str] = mapped_column(String(100))
    cgpa: Mapped[float]


class StudentData(BaseModel):
    name: str
    department: str
    cgpa: float


class Student(StudentData):
    id: int


class StudentService(service.SQLAlchemyAsyncRepositoryService[StudentModel]):
    class Repo(repository.SQLAlchemyAsyncRepository[StudentModel]):
        model_type = StudentModel

    repository_type = Repo


class StudentController(Controller):
    dependencies = providers.create_service_dependencies(StudentService, "students_service")

    @post("/student")
    async def create_student(self, students_service: StudentService, data: StudentData) -> Student:
        student = await students_service.create(data)
        return students_service.to_schema(student, schema_type=Student)

    @get("/students")
    async def list_students(self, students_service: StudentService, limit: int = 100, offset: int = 0) -> list[Student]:
        students = await students_service.get_many(filters.LimitOffset(limit, offset))
        return list(students_service.to_schema(students, schema_type=Student).items)

    @get("/student/{student_id:int}")
    async def get_student(self, students_service: StudentService, student_id: int) -> Student:
        student = await students_service.get(student_id)
        return students_service.to_schema(student, schema_type=Student)

    @put("/student/{student_id:int}")
    async def update_student(self, students_service: StudentService, student_id: int, data: StudentData) -> Student:
        student = await students_service.update(data, item_id=student_id)
        return students_service.to_schema(student, schema_type=Student)

    @delete("/student/{student_id:int}")
    async def delete_student(self, students_service: StudentService, student_id: int) -> None:
        await students_service.delete(student_id)


alchemy_config = SQLAlchemyAsyncConfig(
    connection_string=DATABASE_URL,
    before_send_handler="autocommit",
    session_config=AsyncSessionConfig(expire_on_commit=False),
    create_all=True,
)

app = Litestar(route_handlers=[StudentController], plugins=[SQLAlchemyPlugin(config=alchemy_config)])
