"""The tutorial's stack with files: FastAPI's UploadFile and streamed data, the csv module, the ORM's session."""

import csv
import io
from codecs import iterdecode
from collections.abc import Iterator

from fastapi import UploadFile
from fastapi.responses import StreamingResponse

from tests.benchmarks.peers.tutorial import Database, Student, StudentCreate, app


@app.post("/students/import")
def import_students(file: UploadFile, db: Database) -> dict[str, int]:
    rows = csv.DictReader(iterdecode(file.file, "utf-8"))
    students = [StudentCreate.model_validate(row) for row in rows]
    db.add_all([Student(**student.model_dump()) for student in students])
    db.commit()
    return {"created": len(students)}


@app.get("/students/export", response_class=StreamingResponse)
def export_students(db: Database) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(("id", "name", "department", "cgpa"))
    for student in db.query(Student).yield_per(1000):
        writer.writerow((student.id, student.name, student.department, student.cgpa))
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
