"""The tutorial's stack: FastAPI, the synchronous SQLAlchemy ORM, Pydantic."""

import os
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Column, Float, Integer, String, create_engine
from sqlalchemy.orm import Session, declarative_base, sessionmaker

DATABASE_URL = os.environ["DATABASE_URL"].replace("mysql://", "mysql+pymysql://")
connect_args = {"check_same_thread": False} if DATABASE_URL.startswith("sqlite") else {}

engine = create_engine(DATABASE_URL, connect_args=connect_args)
SessionLocal = sessionmaker(autocommit=False, autoflush=False, bind=engine)
Base = declarative_base()


class Student(Base):
    __tablename__ = "students"

    id = Column(Integer, primary_key=True, index=True)
    name = Column(String(100))
    department = Column(String(100))
    cgpa = Column(Float)


class StudentCreate(BaseModel):
    name: str
    department: str
    cgpa: float


class StudentResponse(StudentCreate):
    model_config = ConfigDict(from_attributes=True)

    id: int


Base.metadata.create_all(bind=engine)

app = FastAPI()


def get_db() -> Iterator[Session]:
    db = SessionLocal()
    try:
        yield db
    finally:
        db.close()


Database = Annotated[Session, Depends(get_db)]


def find_student(db: Session, student_id: int) -> Student:
    student = db.query(Student).filter(Student.id == student_id).first()
    if student is None:
        raise HTTPException(status_code=404, detail="Student not found")
    return student


@app.post("/student", response_model=StudentResponse)
def create_student(student: StudentCreate, db: Database) -> Student:
    new_student = Student(name=student.name, department=student.department, cgpa=student.cgpa)
    db.add(new_student)
    db.commit()
    db.refresh(new_student)
    return new_student


@app.get("/students", response_model=list[StudentResponse])
def list_students(db: Database, limit: int = 100, offset: int = 0) -> list[Student]:
    return db.query(Student).offset(offset).limit(limit).all()


@app.get("/student/{student_id}", response_model=StudentResponse)
def get_student(student_id: int, db: Database) -> Student:
    return find_student(db, student_id)


@app.put("/student/{student_id}", response_model=StudentResponse)
def update_student(student_id: int, changes: StudentCreate, db: Database) -> Student:
    student = find_student(db, student_id)
    student.name = changes.name
    student.department = changes.department
    student.cgpa = changes.cgpa
    db.commit()
    db.refresh(student)
    return student


@app.delete("/student/{student_id}")
def delete_student(student_id: int, db: Database) -> dict[str, str]:
    db.delete(find_student(db, student_id))
    db.commit()
    return {"message": "Student deleted successfully"}
