"""FastAPI with SQLModel's asynchronous session: aiosqlite on SQLite, asyncmy on MySQL."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

DATABASE_URL = (
    os.environ["DATABASE_URL"].replace("sqlite://", "sqlite+aiosqlite://").replace("mysql://", "mysql+asyncmy://")
)

engine = create_async_engine(DATABASE_URL)


class StudentBase(SQLModel):
    name: str = Field(max_length=100)
    department: str = Field(max_length=100)
    cgpa: float


class Student(StudentBase, table=True):
    __tablename__ = "students"

    id: int | None = Field(default=None, primary_key=True)


class StudentCreate(StudentBase):
    pass


class StudentPublic(StudentBase):
    id: int


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    yield
    await engine.dispose()


async def get_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session)]

app = FastAPI(lifespan=lifespan)


async def find_student(session: AsyncSession, student_id: int) -> Student:
    student = await session.get(Student, student_id)
    if student is None:
        raise HTTPException(status_code=404, detail="Student not found")
    return student


@app.post("/student", response_model=StudentPublic, status_code=201)
async def create_student(data: StudentCreate, session: SessionDep) -> Student:
    student = Student.model_validate(data)
    session.add(student)
    await session.commit()
    await session.refresh(student)
    return student


@app.get("/students", response_model=list[StudentPublic])
async def list_students(
    session: SessionDep, offset: int = 0, limit: Annotated[int, Query(le=1000)] = 100
) -> list[Student]:
    return (await session.exec(select(Student).offset(offset).limit(limit))).all()


@app.get("/student/{student_id}", response_model=StudentPublic)
async def get_student(student_id: int, session: SessionDep) -> Student:
    return await find_student(session, student_id)


@app.put("/student/{student_id}", response_model=StudentPublic)
async def update_student(student_id: int, data: StudentCreate, session: SessionDep) -> Student:
    student = await find_student(session, student_id)
    student.sqlmodel_update(data.model_dump())
    session.add(student)
    await session.commit()
    await session.refresh(student)
    return student


@app.delete("/student/{student_id}")
async def delete_student(student_id: int, session: SessionDep) -> dict[str, str]:
    await session.delete(await find_student(session, student_id))
    await session.commit()
    return {"message": "Student deleted successfully"}
