"""Flask with SQLAlchemy's scoped session, as Flask's "SQLAlchemy in Flask" pattern has it; for gunicorn."""

import os
from typing import Any

from flask import Flask, Response, abort, jsonify, request
from sqlalchemy import String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, scoped_session, sessionmaker

DATABASE_URL = os.environ["DATABASE_URL"].replace("mysql://", "mysql+pymysql://")

engine = create_engine(DATABASE_URL)
db_session = scoped_session(sessionmaker(autoflush=False, bind=engine))


class Base(DeclarativeBase):
    pass


class Student(Base):
    __tablename__ = "students"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    department: Mapped[str] = mapped_column(String(100))
    cgpa: Mapped[float]

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "department": self.department, "cgpa": self.cgpa}


Base.metadata.create_all(engine)

app = Flask(__name__)


@app.teardown_appcontext
def shutdown_session(exception: BaseException | None = None) -> None:  # noqa: ARG001 - Flask passes it
    db_session.remove()


def find_student(student_id: int) -> Student:
    student = db_session.get(Student, student_id)
    if student is None:
        abort(404)
    return student


@app.post("/student")
def create_student() -> tuple[Response, int]:
    data = request.get_json()
    student = Student(name=data["name"], department=data["department"], cgpa=data["cgpa"])
    db_session.add(student)
    db_session.commit()
    return jsonify(student.as_dict()), 201


@app.get("/students")
def list_students() -> Response:
    limit = request.args.get("limit", default=100, type=int)
    offset = request.args.get("offset", default=0, type=int)
    students = db_session.scalars(select(Student).limit(limit).offset(offset))
    return jsonify([student.as_dict() for student in students])


@app.get("/student/<int:student_id>")
def get_student(student_id: int) -> Response:
    return jsonify(find_student(student_id).as_dict())


@app.put("/student/<int:student_id>")
def update_student(student_id: int) -> Response:
    student = find_student(student_id)
    data = request.get_json()
    student.name, student.department, student.cgpa = data["name"], data["department"], data["cgpa"]
    db_session.commit()
    return jsonify(student.as_dict())


@app.delete("/student/<int:student_id>")
def delete_student(student_id: int) -> Response:
    db_session.delete(find_student(student_id))
    db_session.commit()
    return jsonify(message="Student deleted successfully")
