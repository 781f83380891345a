"""`litestar database`: whoever adds a table of their own migrates it, and that alone."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Rows
from tests.service import ANANYA, Service, serve_database

EXTENDED = """
from advanced_alchemy.base import DefaultBase
from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from litestar_app.app import create_app
from litestar_app.settings import Settings


class Course(DefaultBase):
    __tablename__ = "courses"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(100))
    student_id: Mapped[int] = mapped_column(ForeignKey("students.id"))


app = create_app(Settings.from_environment())
"""


def test_table_of_an_extension_is_migrated(database_url: str, tmp_path: Path, query: Callable[..., Rows]) -> None:
    """Added, and taken away again; what the service has made stays as it is."""

    def migrate(*arguments: str) -> None:
        command = [str(Path(sys.executable).with_name("litestar")), "--app", "college:app", "database", *arguments]
        environment = Service(tmp_path, DATABASE_URL=database_url).environment
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    (tmp_path / "college.py").write_text(EXTENDED)
    with serve_database(database_url) as client:
        client.post("/student", json=ANANYA)
    migrate("init", "--no-prompt", "migrations")
    migrate("make-migrations", "--no-prompt", "-m", "Add courses")
    (migration,) = (tmp_path / "migrations" / "versions").glob("*_add_courses_*.py")
    assert re.findall(r"op\.(?!get_context|f\b)(\w+)\('(\w+)'", migration.read_text()) == [
        ("create_table", "courses"), ("drop_table", "courses"),
    ]  # fmt: skip
    migrate("upgrade", "--no-prompt")
    query("INSERT INTO courses (id, title, student_id) VALUES (1, 'Algebra', 1)")
    with serve_database(database_url) as client:
        assert client.patch("/student/1", json={"cgpa": 9}).json() == {"id": 1, **ANANYA, "cgpa": 9}
        assert client.delete("/student/1").status_code == 409
    assert query("SELECT title FROM courses") == [("Algebra",)]
    migrate("downgrade", "--no-prompt", "base")
    with serve_database(database_url) as client:
        assert client.delete("/student/1").status_code == 200
    assert query("SELECT COUNT(*) FROM alembic_versions") == [(0,)]
