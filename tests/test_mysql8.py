"""MySQL 8 and newer, as far as it can be had without one: a stub that logs in as it does, its errors, its dialect."""

import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlglot
from sqlalchemy import create_engine
from sqlglot import exp

from litestar_app.database import Database, mysql
from litestar_app.database.config import AlchemyConfig
from litestar_app.database.limits import Timeouts
from litestar_app.database.reads import compile_statement
from litestar_app.database.unit_of_work import select_for_update
from litestar_app.entries import INSERT as INSERT_ENTRY
from litestar_app.exceptions import SettingsError
from litestar_app.students.record import STUDENT
from litestar_app.students.schemas import StudentRead
from litestar_app.transfer.merge import MERGE_LOCK
from tests.certificates import Certificates, make_certificates
from tests.database import prepare, run
from tests.faults.ledger import UNKNOWN
from tests.flows import CSV, run_flows
from tests.mariadb import MariaDB
from tests.service import ANANYA, UNAVAILABLE, serve_database
from tests.stub import Refusal, Rows, Stub, run_stub

START = Timeouts(start=0.5)
QUICK = Timeouts(lock=0.3)
FILE = b"name,department,cgpa\nA,B,1\n"


@pytest.fixture
def stub(mariadb: MariaDB) -> Iterator[Stub]:
    with run_stub(mariadb) as stub:
        yield stub


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@contextmanager
def run_tls_stub(mariadb: MariaDB, certificates: Certificates) -> Iterator[Stub]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    with run_stub(mariadb, context) as stub:
        yield stub


@pytest.fixture
def tls_stub(mariadb: MariaDB, certificates: Certificates) -> Iterator[Stub]:
    """The same with a certificate."""
    with run_tls_stub(mariadb, certificates) as stub:
        yield stub


def test_login_over_plain_tcp_encrypts_the_password_and_then_is_fast(stub: Stub, mysql_url: str) -> None:
    with serve_database(stub.url(mysql_url)) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
    assert stub.logins[0] == "rsa"
    assert set(stub.logins[1:]) == {"fast"}


@pytest.mark.parametrize("is_verified", [True, False])
def test_login_over_tls(tls_stub: Stub, mysql_url: str, certificates: Certificates, is_verified: bool) -> None:
    """Where the server offers it, it is used; without `ssl_ca`, whoever the server is."""
    given = {"ssl_ca": certificates.ca} if is_verified else {}
    with serve_database(tls_stub.url(mysql_url, **given)) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
    assert tls_stub.logins[0] == "tls"
    assert set(tls_stub.logins[1:]) == {"fast"}


def test_server_without_the_right_certificate_gets_no_password(
    mariadb: MariaDB, mysql_url: str, tmp_path: Path, certificates: Certificates
) -> None:
    """Of another authority, for another name, or none at all."""
    (tmp_path / "other").mkdir()
    (tmp_path / "named").mkdir()
    other, named = make_certificates(tmp_path / "other"), make_certificates(tmp_path / "named", "db.example")
    with (
        run_tls_stub(mariadb, other) as untrusted,
        run_tls_stub(mariadb, named) as misnamed,
        run_stub(mariadb) as plain,
    ):
        for server, ca, reason in (
            (untrusted, certificates.ca, "CERTIFICATE_VERIFY_FAILED"),
            (misnamed, named.ca, "CERTIFICATE_VERIFY_FAILED"),
            (plain, certificates.ca, "SSL"),
        ):
            with pytest.raises(SettingsError, match=reason), prepare(server.url(mysql_url, ssl_ca=ca), START):
                pass
            assert server.logins == []


def test_wrong_password_is_one_line(stub: Stub, mysql_url: str) -> None:
    url = stub.url(mysql_url).replace("%40@", "x@")
    with pytest.raises(SettingsError, match="Access denied"), prepare(url, START):
        pass


def parse(statement: str) -> exp.Expr:
    """Parse one statement as MySQL does; anything that is not known to the parser is an error."""
    (tree,) = sqlglot.parse(statement, dialect="mysql")
    assert tree is not None
    assert not isinstance(tree, exp.Command), statement
    return tree


FUNCTIONS = {"GET_LOCK", "VERSION"}
"""Functions that the parser does not know, and MySQL does."""


def assert_is_of_mysql(statement: str) -> None:
    """Look for what MariaDB has and MySQL has not."""
    assert not re.match(r"SET\s+STATEMENT", statement, re.IGNORECASE), statement
    tree = parse(statement)
    assert tree.find(exp.Returning) is None, statement
    for created in tree.find_all(exp.Create):
        assert created.kind == "TABLE" or not created.args.get("exists"), statement
    for union in tree.find_all(exp.Union):
        for side in (union.left, union.right):
            assert isinstance(side, (exp.Subquery, exp.Union)) or not side.args.get("locks"), statement
    # MySQL opens a temporary table once in a statement
    assert [table.name for table in tree.find_all(exp.Table)].count("import_rows") <= 1, statement
    assert {function.name.upper() for function in tree.find_all(exp.Anonymous)} <= FUNCTIONS, statement


def test_every_statement_of_a_day_is_of_mysql(stub: Stub, mysql_url: str) -> None:
    with serve_database(stub.url(mysql_url)) as client:
        run_flows(client)

    async def lock(database: Database) -> Any:
        await database.write(lambda unit: unit.lock_all([(STUDENT.table, row) for row in (1, 2, 3)]))

    with prepare(stub.url(mysql_url)) as alchemy:
        run(alchemy, lock)
    statements = set(stub.statements)
    assert any("UNION ALL" in statement and "FOR UPDATE" in statement for statement in statements)
    assert len(statements) > 150
    for statement in statements:
        assert_is_of_mysql(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO students (name) VALUES ('A') RETURNING id",
        "SET STATEMENT max_statement_time=1 FOR SELECT 1",
        "CREATE INDEX IF NOT EXISTS a ON students (name)",
        "SELECT 1 FROM students FOR UPDATE UNION ALL (SELECT 2 FROM students FOR UPDATE)",
        "UPDATE import_rows SET target = (SELECT MAX(number) FROM import_rows)",
        "SELECT NEXTVAL(ids)",
    ],
)
def test_statement_of_mariadb_is_found(statement: str) -> None:
    with pytest.raises((AssertionError, sqlglot.ParseError)):
        assert_is_of_mysql(statement)


ROW = StudentRead(1, "A", "B", 1.0)
UPDATES = [STUDENT.update(ROW, dict.fromkeys(names))[0] for names in (["name"], STUDENT.names)]
FIXED = [
    *STUDENT.reads, STUDENT.insert, *UPDATES, STUDENT.delete, INSERT_ENTRY,
    *(select_for_update(STUDENT.table, count, waits=waits) for count in (1, 3) for waits in (True, False)),
]  # fmt: skip


@pytest.mark.parametrize("statement", FIXED, ids=str)
def test_fixed_statement_is_the_same_for_both(statement: Any) -> None:
    dialects = [create_engine(f"{name}+pymysql://u@h/d").dialect for name in ("mysql", "mariadb")]
    first, second = (compile_statement(statement, dialect) for dialect in dialects)
    assert first.sql.replace("`", "") == second.sql.replace("`", "")  # `history` is a word of MariaDB's
    assert first[1:] == second[1:]


MYSQL_CODES: dict[tuple[str, int, str], tuple[int, str]] = {
    ("^COMMIT", 3100, "Error on observer while running replication hook 'before_commit'."): (503, UNAVAILABLE),
    ("^COMMIT", 3101, "Plugin instructed the server to rollback the current transaction."): (503, UNAVAILABLE),
    ("^COMMIT", 3230, "The size of writeset data for the current transaction exceeds a limit"): (503, UNAVAILABLE),
    ("^COMMIT", 1317, "Query execution was interrupted"): (503, UNKNOWN),
    ("^INSERT INTO students", 1197, "Multi-statement transaction required more than"): (503, UNAVAILABLE),
    ("^INSERT INTO students", 1290, "running with the --super-read-only option"): (503, UNAVAILABLE),
    ("^INSERT INTO students", 1412, "Table definition has changed, please retry transaction"): (503, UNAVAILABLE),
    ("^INSERT INTO students", 1836, "Running in read-only mode"): (503, UNAVAILABLE),
    ("^INSERT INTO students", 3168, "Server isn't available"): (503, UNAVAILABLE),
    ("^INSERT INTO students", 3819, "Check constraint 'c' is violated."): (
        409,
        "A constraint of the database is violated",
    ),
    ("^INSERT INTO students", 3854, "Cannot convert string"): (422, "A value does not fit its column in the database"),
    ("^INSERT INTO students", 3989, "Schema 'college' is in read only mode."): (503, UNAVAILABLE),
    ("^INSERT INTO students", 4031, "The client was disconnected by the server because of inactivity."): (
        503,
        UNAVAILABLE,
    ),
    ("^INSERT INTO students", 6123, "A code of a newer server"): (503, UNAVAILABLE),
}


def test_codes_of_mysql_are_mapped(stub: Stub, mysql_url: str, mysql_query: Callable[..., Any]) -> None:
    with serve_database(stub.url(mysql_url), QUICK) as client:
        for (pattern, code, message), expected in MYSQL_CODES.items():
            client.post("/student", json=ANANYA)  # so that the connection is kept
            before = mysql_query("SELECT COUNT(*) FROM students")
            stub.replies = {pattern: Refusal(code, message)}
            response = client.post("/student", json=ANANYA)
            stub.replies = {}
            assert (code, response.status_code, response.json()["detail"]) == (code, *expected)
            assert mysql_query("SELECT COUNT(*) FROM students") == before
        assert client.post("/student", json=ANANYA).status_code == 201


@pytest.mark.parametrize("code", [3058, 1205])
def test_deadlock_of_the_lock_of_imports_is_a_503(stub: Stub, mysql_url: str, code: int) -> None:
    with serve_database(stub.url(mysql_url), QUICK) as client:
        stub.replies = {"GET_LOCK": Refusal(code, "Deadlock found when trying to get user-level lock")}
        response = client.post("/students/import", content=FILE, headers=CSV)
        assert (response.status_code, response.json()["detail"]) == (503, UNAVAILABLE)
        stub.replies = {}
        assert client.post("/students/import", content=FILE, headers=CSV).status_code == 200


@pytest.mark.parametrize("code", [1045, 1524, 3118, 3955])
def test_account_that_is_refused_stops_the_start_at_once(stub: Stub, mysql_url: str, code: int) -> None:
    stub.replies = {"SET SESSION": Refusal(code, "Access denied. Account is blocked for 1 day(s)", "28000")}
    with pytest.raises(SettingsError, match="Account is blocked"), prepare(stub.url(mysql_url), Timeouts(start=3600)):
        pass


@pytest.mark.parametrize(
    ("version", "comment", "what"),
    [
        ("8.0.11-TiDB-v8.5.0", "TiDB Server (Apache License 2.0) Community Edition", "TiDB"),
        ("8.0.30-Vitess", "Version: 21.0.0", "Vitess"),
    ],
)
def test_server_that_only_speaks_like_mysql_is_refused(
    stub: Stub, mysql_url: str, version: str, comment: str, what: str
) -> None:
    stub.replies = {r"VERSION\(\), @@version_comment": Rows([(version, comment)])}
    reason = f"it is {what}, .*; expected MySQL 8.0.22 or newer"
    with pytest.raises(SettingsError, match=reason) as caught, prepare(stub.url(mysql_url)):
        pass
    assert "\n" not in str(caught.value)


GROUP = ("group_replication_group_name", "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa")
TIMEOUT = "group_replication_unreachable_majority_timeout"
ONLINE, OTHER, GONE = ("1", "ONLINE"), ("0", "ONLINE"), ("0", "UNREACHABLE")
DENIED = Refusal(1142, "SELECT command denied to user for table 'replication_group_members'", "42000")
READINESS: dict[str, tuple[list[tuple[str, str]], Refusal | Rows, str | None]] = {
    "majority": ([GROUP, (TIMEOUT, "0")], Rows([ONLINE, OTHER, GONE]), None),
    "alone": ([GROUP, (TIMEOUT, "0")], Rows([ONLINE]), None),
    "no group": ([("group_replication_group_name", ""), (TIMEOUT, "0")], Rows([("1", "OFFLINE")]), None),
    "minority": ([GROUP, (TIMEOUT, "0")], Rows([ONLINE, GONE, GONE]), "cut off from the majority"),
    "half": ([GROUP, (TIMEOUT, "0")], Rows([ONLINE, GONE]), "cut off from the majority"),
    "error": ([GROUP, (TIMEOUT, "60")], Rows([("1", "ERROR"), OTHER, OTHER]), "not ONLINE in its group"),
    "no right, no timeout": (
        [GROUP, (TIMEOUT, "0")],
        DENIED,
        "GRANT SELECT ON performance_schema.replication_group_mem",
    ),
    "no right, timeout": ([GROUP, (TIMEOUT, "60")], DENIED, None),
    "Aurora": ([("read_only", "OFF"), ("innodb_read_only", "ON")], Rows([ONLINE]), "innodb_read_only is not OFF"),
}


def test_readiness_follows_the_group_and_innodb(stub: Stub, mysql_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with serve_database(stub.url(mysql_url)) as client:
        for kind, (variables, members, reason) in READINESS.items():
            stub.replies = {"^SHOW GLOBAL VARIABLES": Rows([*variables]), "replication_group_members": members}
            caplog.clear()
            response = client.get("/health/ready")
            assert (kind, response.status_code) == (kind, 503 if reason else 200)
            assert (reason or "") in caplog.text
        stub.replies = {"replication_group_members": Refusal(1146, "no such table")}
        assert client.get("/health/ready").status_code == 200


def test_unexpected_error_of_the_group_is_not_ready(stub: Stub, mysql_url: str) -> None:
    with serve_database(stub.url(mysql_url)) as client:
        stub.replies = {
            "^SHOW GLOBAL VARIABLES": Rows([GROUP]),
            "replication_group_members": Refusal(1146, "no such table"),
        }
        assert client.get("/health/ready").status_code == 503


STUDENTS = [
    ("id", "int", "NO", None, "PRI", "auto_increment"),
    ("name", "varchar(100)", "NO", None, "", ""),
    ("department", "varchar(100)", "NO", None, "", ""),
    ("cgpa", "double", "NO", None, "", ""),
]


@pytest.mark.parametrize(
    "column",
    [
        ("initial", "char(1)", "NO", None, "", "VIRTUAL GENERATED"),
        ("initial", "char(1)", "NO", None, "MUL", "STORED GENERATED"),
        ("initial", "char(1)", "NO", None, "", "STORED GENERATED INVISIBLE"),
        ("token", "binary(16)", "NO", "uuid_to_bin(uuid())", "", "DEFAULT_GENERATED"),
        ("at", "timestamp", "NO", "CURRENT_TIMESTAMP", "", "DEFAULT_GENERATED on update CURRENT_TIMESTAMP"),
        ("email", "text", "YES", None, "", ""),
    ],
    ids=str,
)
def test_column_that_has_a_value_by_itself_is_served(column: tuple[Any, ...]) -> None:
    """As MySQL 8 describes it; MariaDB has no generated column that is NOT NULL."""
    mysql.raise_for_table([("students", "InnoDB")], [*STUDENTS, column])


def test_column_that_needs_a_value_is_refused() -> None:
    with pytest.raises(SettingsError, match="column email needs a value"):
        mysql.raise_for_table([("students", "InnoDB")], [*STUDENTS, ("email", "text", "NO", None, "", "")])
    generated = [("students", "InnoDB")], [*STUDENTS[:3], ("cgpa", "double", "NO", None, "", "STORED GENERATED")]
    with pytest.raises(SettingsError, match="column cgpa is generated"):
        mysql.raise_for_table(*generated)


def test_lock_of_imports_has_64_characters_at_most(mariadb: MariaDB) -> None:
    """Two names of databases have two locks; a short one has that of releases that hash none."""
    names = ["college", "d" * 57, "d" * 58, "d" * 64, "d" * 63 + "e", "ä" * 64]
    locks = []
    with ExitStack() as stack:
        for name in names:
            mariadb.execute(f"CREATE DATABASE `{name}`")
            stack.callback(mariadb.execute, f"DROP DATABASE `{name}`")
            ((lock,),) = mariadb.execute(MERGE_LOCK.replace("GET_LOCK(", "CONCAT(").replace(", 5)", ")"), database=name)
            locks.append(lock)
    assert locks[:2] == ["college.import", "d" * 57 + ".import"]
    assert max(map(len, locks)) == 64
    assert len(set(locks)) == len(names)


def test_import_into_a_database_with_a_long_name(mariadb: MariaDB) -> None:
    name = "d" * 64
    url = mariadb.create_database(name)
    try:
        with serve_database(url) as client:
            assert client.post("/students/import", content=FILE, headers=CSV).status_code == 200
    finally:
        mariadb.execute(f"DROP DATABASE {name}")


@pytest.fixture
def session(mysql_url: str) -> Iterator[AlchemyConfig]:
    with prepare(mysql_url) as alchemy:
        yield alchemy


def test_session_does_not_depend_on_the_settings_of_the_server(mariadb: MariaDB, mysql_url: str) -> None:
    """Which would make an UPDATE, a list or a COMMIT something else."""
    changed = {
        "sql_safe_updates": "1", "max_join_size": "1", "sql_select_limit": "1", "completion_type": "2",
        "wait_timeout": "28800", "sql_mode": "''",
    }  # fmt: skip
    try:
        for name, value in changed.items():
            mariadb.execute(f"SET GLOBAL {name} = {value}")
        with serve_database(mysql_url) as client:
            run_flows(client)
    finally:
        for name in changed:
            mariadb.execute(f"SET GLOBAL {name} = DEFAULT")


def test_session_that_is_frozen_in_a_transaction_is_ended(
    mysql_url: str, mysql_query: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the server, so that its locks hold up nobody for longer; connections at rest are replaced before."""
    assert 120 <= mysql.WAIT_TIMEOUT <= 180
    assert 2 * mysql.MAX_IDLE < mysql.WAIT_TIMEOUT
    monkeypatch.setitem(mysql.SETTINGS, "wait_timeout", "1")
    with serve_database(mysql_url) as client, prepare(mysql_url) as alchemy:
        assert client.post("/student", json=ANANYA).status_code == 201
        frozen = alchemy.get_engine().connect()
        frozen.exec_driver_sql("SELECT * FROM students FOR UPDATE").all()
        assert client.put("/student/1", json={**ANANYA, "cgpa": 1}).status_code == 200
        frozen.invalidate()
        frozen.close()
    assert mysql_query("SELECT cgpa FROM students") == [(1.0,)]


def test_default_of_the_wait_is_set(session: AlchemyConfig) -> None:
    with session.get_engine().connect() as connection:
        assert connection.exec_driver_sql("SELECT @@wait_timeout").scalar_one() == mysql.WAIT_TIMEOUT


READ_ONLY = ["read_only", "tx_read_only"]


@pytest.mark.parametrize("variable", READ_ONLY)
def test_server_that_takes_no_writes_is_not_ready(mariadb: MariaDB, mysql_url: str, variable: str) -> None:
    """But it is for a user whom it lets write, as root."""
    name = mysql_url.rpartition("/")[2]
    mariadb.execute("CREATE OR REPLACE USER clerk")
    mariadb.execute(f"GRANT ALL ON `{name}`.* TO clerk")
    may_root_write = variable == "read_only"
    with ExitStack() as stack:
        clients: list[tuple[httpx.Client, bool]] = [
            (stack.enter_context(serve_database(mysql_url)), may_root_write),
            (stack.enter_context(serve_database(mysql_url.replace("root@", "clerk@"))), False),
        ]
        assert {client.get("/health/ready").status_code for client, _ in clients} == {200}
        try:
            mariadb.execute(f"SET GLOBAL {variable} = ON")
            mariadb.kill_sessions(mysql_url)  # a session has the second from its start
            for client, may_write in clients:
                status = client.post("/student", json=ANANYA).status_code
                assert (status, client.get("/health/ready").status_code) == ((201, 200) if may_write else (503, 503))
                assert client.get("/students").status_code == 200
        finally:
            mariadb.execute(f"SET GLOBAL {variable} = OFF")
        mariadb.kill_sessions(mysql_url)
        assert {client.get("/health/ready").status_code for client, _ in clients} == {200}


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE students RENAME COLUMN cgpa TO grade",
        "ALTER TABLE history RENAME TO gone",
        "ALTER TABLE imports RENAME TO gone",
        "ALTER TABLE idempotency_keys RENAME COLUMN answer TO response",
    ],
)
def test_service_without_a_column_or_a_table_is_not_ready(
    client: httpx.Client, query: Callable[..., Any], statement: str
) -> None:
    """On both databases; a request that needs it is a 503."""
    assert client.get("/health/ready").status_code == 200
    query(statement)
    assert client.get("/health/ready").status_code == 503
    keyed = {"Idempotency-Key": "a"}
    assert client.post("/students/import", content=FILE, headers=CSV | keyed).status_code == 503


def test_import_fits_into_small_packets(mariadb: MariaDB, mysql_url: str) -> None:
    rows = "".join(f"{'n' * 90}{number},{'d' * 90},1\n" for number in range(2000))
    mariadb.execute("SET GLOBAL max_allowed_packet = 16384")
    try:
        with serve_database(mysql_url) as client:
            response = client.post("/students/import", content=f"name,department,cgpa\n{rows}", headers=CSV)
            assert (response.status_code, response.json()["created"]) == (200, 2000)
    finally:
        mariadb.execute("SET GLOBAL max_allowed_packet = DEFAULT")


def test_statement_above_the_packet_is_a_503(mariadb: MariaDB, mysql_url: str) -> None:
    """As the report of an import under an Idempotency-Key; nothing of it is stored."""
    rows = "".join(f"{'n' * 90}{number},{'d' * 90},1\n" for number in range(2000))
    mariadb.execute("SET GLOBAL max_allowed_packet = 16384")
    try:
        with serve_database(mysql_url) as client:
            content = f"name,department,cgpa\n{rows}" + "x,y,z\n" * 1000
            headers = CSV | {"Idempotency-Key": "a"}
            response = client.post("/students/import?mode=valid", content=content, headers=headers)
            assert response.status_code == 503
            assert client.get("/students").json() == []
    finally:
        mariadb.execute("SET GLOBAL max_allowed_packet = DEFAULT")
