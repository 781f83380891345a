"""The tables: their columns and what each database needs to know of them."""

from collections.abc import Iterator
from typing import Any, cast

from advanced_alchemy.base import DefaultBase
from sqlalchemy import BigInteger, Column, Double, Index, Integer, String, Table, Text
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.orm import Mapped, mapped_column

MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",  # compares and sorts as SQLite does
}


class Student(DefaultBase):
    """One student. A file that the tutorial wrote has the same columns, all but the id nullable."""

    __tablename__ = "students"
    __table_args__ = (
        # the database adds the id to each, so they give the rows in the order of every single column, by department too
        Index("ix_students_name", "name"),
        Index("ix_students_department", "department"),
        Index("ix_students_cgpa", "cgpa"),
        Index("ix_students_department_name", "department", "name"),
        Index("ix_students_department_cgpa", "department", "cgpa"),
        MYSQL | {"sqlite_autoincrement": True},  # an id is never reused
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    department: Mapped[str] = mapped_column(String(100))
    cgpa: Mapped[float] = mapped_column(Double)


STUDENTS = cast("Table", Student.__table__)


class IdempotencyKey(DefaultBase):
    """A key that a client sent with a request, and the first response to it."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_created_at", "created_at"), MYSQL)

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request: Mapped[str] = mapped_column(String(64))
    answer: Mapped[str] = mapped_column(Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb"))
    created_at: Mapped[int] = mapped_column(BigInteger)


class ApiKey(DefaultBase):
    """A key that lets a program or a person in, without its secret."""

    __tablename__ = "api_keys"
    __table_args__ = (MYSQL,)

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)


def _make_values(when: str) -> Iterator[Column[Any]]:
    """Make the columns of the history for what a student was, or became; a text as long as others may have stored."""
    for column in STUDENTS.columns:
        if not column.primary_key:
            yield Column(f"{when}_{column.name}", Text() if isinstance(column.type, String) else column.type)


HISTORY = Table(
    "history",
    DefaultBase.metadata,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),
    Column("student_id", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("who", String(100), nullable=False),
    Column("action", String(6), nullable=False),
    Column("import_id", Integer),
    *_make_values("before"),
    *_make_values("after"),
    Index("ix_history_student_id", "student_id"),  # the database adds the id
    **MYSQL,
)
"""What one write has done to one student, `at` microseconds since 1970. Of an erased person all values are NULL."""


class Import(DefaultBase):
    """What one import, or the undo of one, has done."""

    __tablename__ = "imports"
    __table_args__ = (MYSQL | {"sqlite_autoincrement": True},)  # an undo must never mean another import

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger)
    """Microseconds since 1970."""
    who: Mapped[str] = mapped_column(String(100))
    created: Mapped[int]
    updated: Mapped[int]
    deleted: Mapped[int]
    unchanged: Mapped[int]
    rejected: Mapped[int]
    first_entry: Mapped[int] = mapped_column(BigInteger)
    """No entry of it has a lower id, so that no index is needed to find them."""
    last_entry: Mapped[int] = mapped_column(BigInteger)
    undo_of: Mapped[int | None]
    undone_by: Mapped[int | None]
