"""A bound: bare ASGI, msgspec, one `sqlite3` connection on the event loop in WAL with synchronous=FULL."""

import os
import sqlite3
from typing import Any
from urllib.parse import parse_qs

import msgspec

COLUMNS = "id, name, department, cgpa"
HEADERS = [(b"content-type", b"application/json")]


class StudentData(msgspec.Struct):
    name: str
    department: str
    cgpa: float


class Student(msgspec.Struct):
    id: int
    name: str
    department: str
    cgpa: float


connection = sqlite3.connect(os.environ["DATABASE_URL"].removeprefix("sqlite:///"), isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA synchronous=FULL")
connection.execute(
    "CREATE TABLE IF NOT EXISTS students"
    " (id INTEGER PRIMARY KEY AUTOINCREMENT, name VARCHAR, department VARCHAR, cgpa FLOAT)"
)
execute = connection.execute
decode_student = msgspec.json.Decoder(StudentData).decode
encode = msgspec.json.Encoder().encode


async def read_body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body", False):
            return body


def list_students(query_string: bytes) -> list[Student]:
    query = parse_qs(query_string.decode())
    page = (int(query.get("limit", ["100"])[0]), int(query.get("offset", ["0"])[0]))
    rows = execute(f"SELECT {COLUMNS} FROM students ORDER BY id LIMIT ? OFFSET ?", page)
    return [Student(*row) for row in rows]


async def response(scope: dict[str, Any], receive: Any) -> tuple[int, Any]:
    match scope["method"], scope["path"].split("/"):
        case "GET", ["", "student", key]:
            row = execute(f"SELECT {COLUMNS} FROM students WHERE id = ?", (int(key),)).fetchone()
            return (200, Student(*row)) if row else (404, {"detail": "Student not found"})
        case "GET", ["", "students"]:
            return 200, list_students(scope["query_string"])
        case "POST", ["", "student"]:
            data = decode_student(await read_body(receive))
            row = execute(
                "INSERT INTO students (name, department, cgpa) VALUES (?, ?, ?)",
                (data.name, data.department, data.cgpa),
            )
            return 201, Student(row.lastrowid or 0, data.name, data.department, data.cgpa)
        case "PUT", ["", "student", key]:
            data = decode_student(await read_body(receive))
            values = (data.name, data.department, data.cgpa, int(key))
            row = execute("UPDATE students SET name = ?, department = ?, cgpa = ? WHERE id = ?", values)
            if row.rowcount:
                return 200, Student(int(key), data.name, data.department, data.cgpa)
        case "DELETE", ["", "student", key]:
            if execute("DELETE FROM students WHERE id = ?", (int(key),)).rowcount:
                return 200, {"message": "Student deleted successfully"}
    return 404, {"detail": "Not found"}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        connection.close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    status, content = await response(scope, receive)
    body = encode(content)
    headers = [*HEADERS, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
