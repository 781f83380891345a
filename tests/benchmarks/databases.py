"""A fresh database for every turn of a candidate, with the same rows for all."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pymysql

from tests.mariadb import MariaDB

SEEDED = 10_000
BETWEEN_RANGES = 1_000_000
DEPARTMENTS = ("Computer Science", "Mathematics", "Physics", "Mechanical Engineering", "History")


def make_row(key: int) -> tuple[int, str, str, float]:
    """Make the student with an id."""
    return key, f"Student Number {key}", DEPARTMENTS[key % len(DEPARTMENTS)], key % 1000 / 100


class DefaultServer(MariaDB):
    """A server with MariaDB's own sizes; that of the tests has a log so small that it measures its checkpoints."""

    def command(self) -> list[str]:
        """Leave the sizes out."""
        return [option for option in super().command() if not option.startswith("--innodb-")]


@dataclass
class Database:
    """The database of one candidate, filled past it while it is idle."""

    url: str
    connect: Callable[[], Any]
    placeholder: str
    resets: int = 0

    def insert(self, first_id: int, count: int) -> None:
        """Add students with consecutive ids."""
        values = ", ".join([self.placeholder] * 4)
        rows = list(map(make_row, range(first_id, first_id + count)))
        with closing(self.connect()) as connection:
            connection.cursor().executemany(
                f"INSERT INTO students (id, name, department, cgpa) VALUES ({values})", rows
            )
            connection.commit()

    def reset(self, to_delete: int = 0) -> int:
        """Leave the seeded rows alone in the table, and `to_delete` more; return the first id of those.

        The ids are new ones every time, out of reach of requests that the last load has left behind.
        """
        self.resets += 1
        first_to_delete = self.resets * BETWEEN_RANGES
        with closing(self.connect()) as connection:
            connection.cursor().execute(f"DELETE FROM students WHERE id > {SEEDED}")
            connection.commit()
        self.insert(first_to_delete, to_delete)
        return first_to_delete


@contextmanager
def fresh_sqlite() -> Iterator[Database]:
    """Make room for a file that the candidate creates itself."""
    with TemporaryDirectory(prefix="benchmark-") as directory:
        path = Path(directory) / "students.db"
        yield Database(f"sqlite:///{path}", lambda: sqlite3.connect(path), "?")


@contextmanager
def fresh_mariadb(server: MariaDB) -> Iterator[Database]:
    """Make an empty database on a running server, and drop it afterwards."""
    name = "benchmark"
    url = server.create_database(name)
    try:
        yield Database(
            url,
            lambda: pymysql.connect(host="127.0.0.1", port=server.port, user="root", database=name, charset="utf8mb4"),
            "%s",
        )
    finally:
        server.execute(f"DROP DATABASE {name}")
