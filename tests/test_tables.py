"""What a start makes of the database it finds: it creates what is missing, and rejects what it cannot serve."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from litestar_app.database.limits import Timeouts
from litestar_app.database.sqlite import SQLite
from litestar_app.exceptions import SettingsError
from tests.conftest import Rows, locked_sqlite
from tests.database import prepare
from tests.mariadb import MariaDB, free_port, open_session
from tests.service import ANANYA, serve_database

TEXTS = "name VARCHAR(100), department VARCHAR(100)"
ID = "id INT AUTO_INCREMENT PRIMARY KEY"
SERVED_ON_MYSQL = {
    "nullable, small": f"({ID}, {TEXTS}, cgpa DOUBLE)",
    "more columns": f"({ID}, {TEXTS}, cgpa DOUBLE, email TEXT, at TIMESTAMP NOT NULL DEFAULT NOW())",
    "long texts": f"({ID}, name TEXT, department TEXT, cgpa DOUBLE)",
}
REJECTED_ON_MYSQL = [
    (f"({ID}, {TEXTS}, cgpa FLOAT)", "column cgpa is FLOAT: ALTER TABLE students MODIFY cgpa DOUBLE"),
    (f"({ID}, {TEXTS}, cgpa DOUBLE(3, 1))", "column cgpa is DOUBLE(3,1): ALTER TABLE students MODIFY cgpa DOUBLE"),
    (f"({ID}, {TEXTS}, cgpa DOUBLE AS (id / 2) VIRTUAL)", "column cgpa is generated"),
    (f"({ID}, name ENUM('A'), department TEXT, cgpa DOUBLE)", "column name is ENUM('A'); expected VARCHAR or TEXT"),
    (f"({ID}, name BLOB, department TEXT, cgpa DOUBLE)", "column name is BLOB; expected VARCHAR or TEXT"),
    (f"(id INT PRIMARY KEY, {TEXTS}, cgpa DOUBLE)", "column id has no AUTO_INCREMENT"),
    (f"(id DOUBLE AUTO_INCREMENT PRIMARY KEY, {TEXTS}, cgpa DOUBLE)", "column id is DOUBLE; expected a unique integer"),
    (f"(id INT AUTO_INCREMENT, {TEXTS}, cgpa DOUBLE, KEY (id))", "column id is INT(11); expected a unique integer"),
    (f"({ID}, name TEXT, cgpa DOUBLE)", "column department is missing"),
    (f"({ID}, {TEXTS}, cgpa DOUBLE, email TEXT NOT NULL)", "column email needs a value"),
    (
        f"({ID}, {TEXTS}, cgpa DOUBLE) ENGINE=MyISAM",
        "students has the engine MyISAM, without transactions: ALTER TABLE students ENGINE=InnoDB",
    ),
]
ODD_ROW = "a row is not stored as it is given"
REJECTED_ON_SQLITE = [
    (f"(id INT PRIMARY KEY, {TEXTS}, cgpa REAL)", "column id is not INTEGER PRIMARY KEY"),
    (f"(id INTEGER PRIMARY KEY DESC, {TEXTS}, cgpa REAL)", ODD_ROW),
    (f"(id INTEGER PRIMARY KEY, {TEXTS}, cgpa FLOATING POINT)", ODD_ROW),
    (f"(id INTEGER PRIMARY KEY, {TEXTS}, cgpa REAL) WITHOUT ROWID", "the database does not give its ids"),
    (f"(id INTEGER PRIMARY KEY, {TEXTS}, cgpa REAL, email TEXT NOT NULL)", "column email needs a value"),
    (
        "(id INTEGER PRIMARY KEY, email TEXT)",
        "; ".join(f"column {n} is missing" for n in ("name", "department", "cgpa")),
    ),
    (
        f"(id INTEGER PRIMARY KEY, {TEXTS}, cgpa DECIMAL)",
        "column cgpa is DECIMAL; expected one with REAL or FLOA or DOUB in its type",
    ),
    (
        "(id INTEGER PRIMARY KEY, name, department TEXT, cgpa REAL)",
        "column name is without a type; expected one with CHAR or CLOB or TEXT in its type",
    ),
]


def start(database_url: str, seconds: float = 60) -> None:
    """Start on a database that is waited for so long."""
    with prepare(database_url, Timeouts(start=seconds, lock=0.05)):
        pass


def reject(database_url: str) -> str:
    """Return the line by which a start rejects a database, without the password."""
    with pytest.raises(SettingsError) as caught:
        start(database_url, seconds=0.5)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
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


@pytest.mark.parametrize(("columns", "reason"), REJECTED_ON_MYSQL)
def test_mysql_table_that_does_not_fit_is_rejected(
    mysql_url: str, mysql_query: Callable[..., Rows], columns: str, reason: str
) -> None:
    mysql_query(f"CREATE TABLE students {columns}")
    assert reject(mysql_url).endswith(f"cannot be used: its table students does not fit: {reason}")
    assert mysql_query("SHOW TABLES") == [("students",)]


@pytest.mark.parametrize(("columns", "reason"), REJECTED_ON_SQLITE)
def test_sqlite_table_that_does_not_fit_is_rejected(
    sqlite_url: str, query_file: Callable[..., Rows], columns: str, reason: str
) -> None:
    """The file stays as it was, its journal mode too."""
    query_file(f"CREATE TABLE students {columns}")
    assert reject(sqlite_url).endswith(f"cannot be used: its table students does not fit: {reason}")
    assert query_file("SELECT name FROM sqlite_master WHERE type = 'table'") == [("students",)]
    assert query_file("PRAGMA journal_mode") == [("delete",)]


@pytest.mark.parametrize("missing", ["INSERT", "UPDATE", "DELETE", "CREATE", "SELECT"])
@pytest.mark.parametrize("exists", [False, True])
def test_mysql_user_without_a_right_is_rejected(
    mariadb: MariaDB, mysql_url: str, mysql_query: Callable[..., Rows], missing: str, exists: bool
) -> None:
    """At start, and not by a 503 for every write; nothing is created."""
    if exists:
        mysql_query(f"CREATE TABLE students ({ID}, {TEXTS}, cgpa DOUBLE)")
    before = mysql_query("SHOW TABLES")
    rights = {"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "INDEX"} - {missing}
    mariadb.execute("CREATE OR REPLACE USER reader")
    mariadb.execute(f"GRANT {', '.join(sorted(rights))} ON `{mysql_url.rpartition('/')[2]}`.* TO reader")
    assert re.search(rf"{missing}.* denied", reject(mysql_url.replace("root@", "reader@")), re.IGNORECASE)
    assert mysql_query("SHOW TABLES") == before


@pytest.mark.parametrize(
    "change", ["name = UPPER({}name)", "department = LOWER({}department)", "cgpa = ROUND({}cgpa, 1)"]
)
@pytest.mark.parametrize("event", ["INSERT", "UPDATE"])
def test_trigger_that_changes_rows_is_rejected(
    database_url: str, query: Callable[..., Rows], event: str, change: str
) -> None:
    """Or a response would say what is not stored; one that only counts, or forbids, is served."""
    start(database_url)
    if database_url.startswith("sqlite"):
        query(f"CREATE TRIGGER upper AFTER {event} ON students BEGIN UPDATE students SET {change.format('')}; END")
    else:
        query(f"CREATE TRIGGER upper BEFORE {event} ON students FOR EACH ROW SET NEW.{change.format('NEW.')}")
    assert reject(database_url).endswith(f"cannot be used: its table students does not fit: {ODD_ROW}")
    query("DROP TRIGGER upper")
    start(database_url)
    assert query("SELECT * FROM students") == []


@pytest.mark.parametrize(
    ("trigger", "reason"),
    [
        (
            "BEFORE DELETE ON students BEGIN SELECT RAISE(IGNORE)",
            "its table students does not fit: a row is not deleted",
        ),
        ("AFTER INSERT ON students BEGIN INSERT INTO nowhere VALUES (1)", "no such table: main.nowhere"),
    ],
)
def test_trigger_that_prevents_writes_is_rejected(
    sqlite_url: str, query_file: Callable[..., Rows], trigger: str, reason: str
) -> None:
    start(sqlite_url)
    query_file(f"CREATE TRIGGER bad {trigger}; END")
    assert reject(sqlite_url).endswith(f"cannot be used: {reason}")


def test_unusable_database_is_rejected_in_one_line(sqlite_url: str, sqlite_path: Path, mariadb: MariaDB) -> None:
    """Without the password; one that cannot be reached, too, once `Timeouts.start` is over."""
    start, nobody = "DATABASE_URL (or MYSQL_*) ", f"nobody:secret@127.0.0.1:{mariadb.port}/x"
    assert reject(f"mysql://{nobody}").startswith(
        f"{start}mysql+pymysql://{nobody.replace('secret', '***')} cannot be "
    )
    assert "Access denied" in reject(f"mysql://{nobody}")
    assert "Can't connect to MySQL server" in reject(f"mysql://root:secret@127.0.0.1:{free_port()}/x")
    sqlite_path.write_text("name,department,cgpa\n" * 100)
    assert reject(sqlite_url) == f"{start}sqlite+pysqlite:///{sqlite_path} cannot be used: file is not a database"


def test_locked_file_is_waited_for(sqlite_url: str, sqlite_path: Path) -> None:
    """For as long as `Timeouts.start` says."""
    with locked_sqlite(sqlite_path):
        assert reject(sqlite_url).endswith("cannot be used: database is locked")
    with ThreadPoolExecutor(1) as pool:
        with locked_sqlite(sqlite_path):
            waiting = pool.submit(start, sqlite_url)
            time.sleep(0.4)
            assert not waiting.done()
        waiting.result()


def test_mysql_server_that_starts_late_is_waited_for(mariadb: MariaDB, mysql_url: str) -> None:
    mariadb.stop()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(start, mysql_url)
        time.sleep(0.4)
        assert not waiting.done()
        mariadb.start()
        waiting.result()


def test_processes_may_start_at_once(database_url: str, query: Callable[..., Rows]) -> None:
    """Each creates what the others have not yet created."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, [database_url] * 4))
    assert query("SELECT * FROM students") == query("SELECT * FROM idempotency_keys") == []


def test_sqlite_constraint_of_another_program_is_served(sqlite_url: str, query_file: Callable[..., Rows]) -> None:
    """One that forbids the row by which a start tries the table, too."""
    query_file(f"CREATE TABLE students (id INTEGER PRIMARY KEY, {TEXTS}, cgpa REAL CHECK (cgpa > 8))")
    with serve_database(sqlite_url) as client:
        assert client.post("/student", json=ANANYA).json() == {"id": 1, **ANANYA}


def test_value_that_does_not_fit_is_a_422(mysql_url: str, mysql_query: Callable[..., Rows]) -> None:
    mysql_query(f"CREATE TABLE students ({ID}, name VARCHAR(5), department TEXT, cgpa DOUBLE)")
    with serve_database(mysql_url) as client:
        response = client.post("/student", json=ANANYA)
        detail = "A value does not fit its column in the database"
        assert (response.status_code, response.json()["detail"]) == (422, detail)
        assert client.get("/students").json() == []


def test_index_that_cannot_be_created_is_rejected(sqlite_url: str, query_file: Callable[..., Rows]) -> None:
    query_file("CREATE TABLE ix_students_name (id INTEGER)")
    assert reject(sqlite_url).endswith("cannot be used: there is already a table named ix_students_name")


def test_start_waits_for_an_index_on_mysql(mariadb: MariaDB, mysql_url: str) -> None:
    """Of a large table it takes minutes; here a reader of the table holds it up for longer than a hung server may."""

    def start(timeouts: Timeouts | None = None) -> None:
        with prepare(mysql_url, timeouts):
            pass

    if "mysqldb" in mysql_url:
        pytest.skip("mysqlclient takes the timeout when it connects only")
    start()
    mariadb.execute("ALTER TABLE students DROP INDEX ix_students_cgpa", database=mysql_url.rpartition("/")[2])
    with ThreadPoolExecutor() as threads:
        with open_session(mariadb, mysql_url, "SELECT * FROM students"):
            starting = threads.submit(start, Timeouts(start=0, socket=1))
            time.sleep(2)
            assert not starting.done()
        starting.result()


def test_missing_index_is_created(database_url: str, query: Callable[..., Rows]) -> None:
    drop = "DROP INDEX ix_idempotency_keys_created_at"
    for _ in range(2):
        with prepare(database_url):
            query(drop if database_url.startswith("sqlite") else f"{drop} ON idempotency_keys")


def test_file_system_without_a_shared_log_is_rejected() -> None:
    """As some network file systems are; a database in memory has no log either."""
    engine = create_engine("sqlite://")
    with pytest.raises(SettingsError, match="its journal_mode stays 'memory'"):
        SQLite(":memory:", Timeouts()).finish_preparation(engine)
    engine.dispose()


def test_password_of_any_characters(mariadb: MariaDB, mysql_url: str) -> None:
    mariadb.execute("CREATE OR REPLACE USER clerk IDENTIFIED BY %s", "pä%сс@")
    mariadb.execute(f"GRANT ALL ON `{mysql_url.rpartition('/')[2]}`.* TO clerk")
    start(mysql_url.replace("root@", "clerk:p%C3%A4%25%D1%81%D1%81%40@"))


def test_import_touches_no_database(tmp_path: Path) -> None:
    """Nor do the commands that only need the application's configuration."""
    for command in (
        [sys.executable, "-c", "import litestar_app.main"],
        [str(Path(sys.executable).with_name("litestar")), "--app", "litestar_app.main:app", "database", "--help"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert [*tmp_path.iterdir()] == []
