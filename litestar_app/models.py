"""The tables: their columns and what each database needs to know of them."""

from typing import Any

from advanced_alchemy.base import DefaultBase
from sqlalchemy import BigInteger, Double, Index, Integer, String, Text
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


class HistoryEntry(DefaultBase):
    """What one write has done to one student; `before` and `after` are all NULL where the person was erased."""

    __tablename__ = "history"
    __table_args__ = (Index("ix_history_student_id", "student_id"), MYSQL)  # the database adds the id

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    student_id: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[int] = mapped_column(BigInteger)
    """Microseconds since 1970."""
    who: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(6))
    import_id: Mapped[int | None]
    # as long as what a table of another program may hold
    before_name: Mapped[str | None] = mapped_column(Text)
    before_department: Mapped[str | None] = mapped_column(Text)
    before_cgpa: Mapped[float | None] = mapped_column(Double)
    after_name: Mapped[str | None] = mapped_column(Text)
    after_department: Mapped[str | None] = mapped_column(Text)
    after_cgpa: Mapped[float | None] = mapped_column(Double)


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
