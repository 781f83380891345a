"""What a start makes of the database it finds: it creates what is missing, and rejects what it cannot serve."""

import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine

from litestar_app.database.config import Timeouts
from litestar_app.database.sqlite import enable_wal
from litestar_app.exceptions import SettingsError
from tests.conftest import Rows
from tests.database import prepare
from tests.mariadb import MariaDB
from tests.service import ANANYA, serve_database

TEXTS = "name VARCHAR(100), department VARCHAR(100)"
MYSQL_ID = "id INT AUTO_INCREMENT PRIMARY KEY"
SERVED_ON_MYSQL = {
    "nullable, small": f"({MYSQL_ID}, {TEXTS}, cgpa DOUBLE)",
    "more columns": f"({MYSQL_ID}, {TEXTS}, cgpa DOUBLE, email TEXT, at TIMESTAMP NOT NULL DEFAULT NOW())",
    "long texts": f"({MYSQL_ID}, name TEXT, department TEXT, cgpa DOUBLE)",
}
REJECTED_ON_MYSQL = {
    "column cgpa is FLOAT: ALTER TABLE students MODIFY cgpa DOUBLE": f"({MYSQL_ID}, {TEXTS}, cgpa FLOAT)",
    "column cgpa is DECIMAL(4,2): ALTER TABLE students MODIFY cgpa DOUBLE": (
        f"({MYSQL_ID}, {TEXTS}, cgpa DECIMAL(4, 2))"
    ),
    "students has the engine MyISAM, without transactions: ALTER TABLE students ENGINE=InnoDB": (
        f"({MYSQL_ID}, {TEXTS}, cgpa DOUBLE) ENGINE=MyISAM"
    ),
    "column cgpa is DOUBLE(3,1): ALTER TABLE students MODIFY cgpa DOUBLE": f"({MYSQL_ID}, {TEXTS}, cgpa DOUBLE(3, 1))",
    "column cgpa is generated": f"({MYSQL_ID}, {TEXTS}, cgpa DOUBLE AS (id / 2) VIRTUAL)",
    "column name is ENUM('A'); expected VARCHAR or TEXT": (
        f"({MYSQL_ID}, name ENUM('A'), department TEXT, cgpa DOUBLE)"
    ),
    "column name is BLOB; expected VARCHAR or TEXT": f"({MYSQL_ID}, name BLOB, department TEXT, cgpa DOUBLE)",
    "column id has no AUTO_INCREMENT": f"(id INT PRIMARY KEY, {TEXTS}, cgpa DOUBLE)",
    "column department is missing": f"({MYSQL_ID}, name TEXT, cgpa DOUBLE)",
    "column email needs a value": f"({MYSQL_ID}, {TEXTS}, cgpa DOUBLE, email TEXT NOT NULL)",
}
REJECTED_ON_SQLITE = {
    "column cgpa is DECIMAL; expected one with REAL or FLOA or DOUB in its type": (
        f"(id INTEGER PRIMARY KEY, {TEXTS}, cgpa DECIMAL)"
    ),
    "column name is without a type; expected one with CHAR or CLOB or TEXT in its type": (
        "(id INTEGER PRIMARY KEY, name, department TEXT, cgpa REAL)"
    ),
    "column id is not INTEGER PRIMARY KEY": f"(id INT PRIMARY KEY, {TEXTS}, cgpa REAL)",
    "a row is not stored as it is inserted": f"(id INTEGER PRIMARY KEY DESC, {TEXTS}, cgpa REAL)",
    "a row is not stored as it is inserted ": f"(id INTEGER PRIMARY KEY, {TEXTS}, cgpa FLOATING POINT)",
    "the database does not give its ids": f"(id INTEGER PRIMARY KEY, {TEXTS}, cgpa REAL) WITHOUT ROWID",
    "column name is missing": "(id INTEGER PRIMARY KEY, department TEXT, cgpa REAL)",
    "column email needs a value": f"(id INTEGER PRIMARY KEY, {TEXTS}, cgpa REAL, email TEXT NOT NULL)",
}


def reject(database_url: str) -> str:
    with pytest.raises(SettingsError) as caught, prepare(database_url, Timeouts(start=0.5)):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("columns", SERVED_ON_MYSQL.values(), ids=SERVED_ON_MYSQL)
def test_mysql_table_of_another_program_is_served(
    mysql_url: str, mysql_query: Callable[..., Rows], columns: str
) -> None:
    mysql_query(f"CREATE TABLE students {columns} CHARACTER SET utf8mb4")
    with serve_database(mysql_url) as client:
        created = client.post("/student", json=ANANYA)
        assert created.json() == client.get("/student/1").json() == {"id": 1, **ANANYA}
        same = {"If-Match": created.headers["ETag"]}
        assert client.put("/student/1", json=ANANYA, headers=same).status_code == 200


@pytest.mark.parametrize(("reason", "columns"), REJECTED_ON_MYSQL.items(), ids=REJECTED_ON_MYSQL)
def test_mysql_table_that_does_not_fit_is_rejected(
    mysql_url: str, mysql_query: Callable[..., Rows], reason: str, columns: str
) -> None:
    mysql_query(f"CREATE TABLE students {columns}")
    assert reject(mysql_url).endswith(f"cannot be used: its table students does not fit: {reason.strip()}")
    assert mysql_query("SHOW TABLES") == [("students",)]


@pytest.mark.parametrize(("reason", "columns"), REJECTED_ON_SQLITE.items(), ids=REJECTED_ON_SQLITE)
def test_sqlite_table_that_does_not_fit_is_rejected(
    sqlite_url: str, query_file: Callable[..., Rows], reason: str, columns: str
) -> None:
    """The file stays as it was, its journal mode too."""
    query_file(f"CREATE TABLE students {columns}")
    assert reject(sqlite_url).endswith(f"cannot be used: its table students does not fit: {reason.strip()}")
    assert query_file("SELECT name FROM sqlite_master WHERE type = 'table'") == [("students",)]
    assert query_file("PRAGMA journal_mode") == [("delete",)]


@pytest.mark.parametrize("missing", ["INSERT", "UPDATE", "DELETE", "CREATE", "SELECT"])
@pytest.mark.parametrize("exists", [False, True])
def test_mysql_user_without_a_right_is_rejected(
    mariadb: MariaDB, mysql_url: str, mysql_query: Callable[..., Rows], missing: str, exists: bool
) -> None:
    """At start, and not by a 503 for every write; nothing is created."""
    name = mysql_url.rpartition("/")[2]
    if exists:
        mysql_query(f"CREATE TABLE students ({MYSQL_ID}, {TEXTS}, cgpa DOUBLE)")
    before = mysql_query("SHOW TABLES")
    rights = {"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "INDEX"} - {missing}
    mariadb.execute("CREATE OR REPLACE USER reader")
    mariadb.execute(f"GRANT {', '.join(sorted(rights))} ON `{name}`.* TO reader")
    assert re.search(rf"{missing}.* denied", reject(mysql_url.replace("root@", "reader@")), re.IGNORECASE)
    assert mysql_query("SHOW TABLES") == before


def test_violated_check_is_a_409(client: httpx.Client, query: Callable[..., Rows], database_url: str) -> None:
    """A rule that somebody added by hand is respected, and reported."""
    if database_url.startswith("sqlite"):
        query("CREATE TRIGGER rule BEFORE INSERT ON students WHEN new.cgpa > 9 BEGIN SELECT RAISE(ABORT, 'no'); END")
    else:
        query("ALTER TABLE students ADD CHECK (cgpa < 9)")
    response = client.post("/student", json={**ANANYA, "cgpa": 9.5})
    assert (response.status_code, response.json()["detail"]) == (409, "A constraint of the database is violated")
    assert client.get("/students").json() == []


def test_sqlite_constraint_of_another_program_is_served(sqlite_url: str, query_file: Callable[..., Rows]) -> None:
    """One that forbids the row by which a start tries the table, too."""
    query_file(f"CREATE TABLE students (id INTEGER PRIMARY KEY, {TEXTS}, cgpa REAL CHECK (cgpa > 8))")
    with serve_database(sqlite_url) as client:
        assert client.post("/student", json=ANANYA).json() == {"id": 1, **ANANYA}


def test_row_that_is_skipped_is_no_success(sqlite_url: str, query_file: Callable[..., Rows]) -> None:
    """As by a trigger, or a conflict clause, that somebody added by hand."""
    with serve_database(sqlite_url) as client:
        query_file("CREATE TRIGGER skip BEFORE INSERT ON students BEGIN SELECT RAISE(IGNORE); END")
        assert client.post("/student", json=ANANYA).status_code == 409
        assert client.get("/students").json() == []


def test_value_that_does_not_fit_is_a_422(mysql_url: str, mysql_query: Callable[..., Rows]) -> None:
    mysql_query(f"CREATE TABLE students ({MYSQL_ID}, name VARCHAR(5), department TEXT, cgpa DOUBLE)")
    with serve_database(mysql_url) as client:
        response = client.post("/student", json=ANANYA)
        assert (response.status_code, response.json()["detail"]) == (
            422,
            "A value does not fit its column in the database",
        )


def test_missing_index_is_created(database_url: str, query: Callable[..., Rows]) -> None:
    with prepare(database_url):
        pass
    drop = "DROP INDEX ix_idempotency_keys_created_at"
    query(drop if database_url.startswith("sqlite") else f"{drop} ON idempotency_keys")
    with prepare(database_url):
        pass
    query(drop if database_url.startswith("sqlite") else f"{drop} ON idempotency_keys")


@pytest.mark.parametrize("held", [0.4, 2])
def test_locked_file_is_waited_for(sqlite_url: str, sqlite_path: Path, held: float) -> None:
    """For as long as `Timeouts.start` says."""
    lock = sqlite3.connect(sqlite_path, isolation_level=None, check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(held, lock.rollback)
    release.start()
    with (
        pytest.raises(SettingsError, match=r"database is locked$") if held > 1 else nullcontext(),
        prepare(sqlite_url, Timeouts(lock=0.05, start=1)),
    ):
        pass
    release.join()
    lock.close()


def test_file_system_without_a_shared_log_is_rejected() -> None:
    """As some network file systems are; a database in memory has no log either."""
    engine = create_engine("sqlite://")
    with pytest.raises(SettingsError, match="its journal_mode stays 'memory'"):
        enable_wal(engine)
    engine.dispose()


def test_password_of_any_characters(mariadb: MariaDB, mysql_url: str) -> None:
    mariadb.execute("CREATE OR REPLACE USER clerk IDENTIFIED BY %s", "pä%сс@")
    mariadb.execute(f"GRANT ALL ON `{mysql_url.rpartition('/')[2]}`.* TO clerk")
    with prepare(mysql_url.replace("root@", "clerk:p%C3%A4%25%D1%81%D1%81%40@")):
        pass


def test_import_touches_no_database(tmp_path: Path) -> None:
    """Nor do the commands that only need the application's configuration."""
    for command in (
        [sys.executable, "-c", "import litestar_app.main"],
        [str(Path(sys.executable).with_name("litestar")), "--app", "litestar_app.main:app", "database", "--help"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert [*tmp_path.iterdir()] == []
