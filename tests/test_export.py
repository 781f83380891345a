"""GET /students/export: whole files in three formats, one state of the database, nothing left of clients that went."""

import csv
import io
import json
import re
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import openpyxl
import pytest

from litestar_app.access.keys import make_key
from litestar_app.app import create_app
from litestar_app.database.config import AlchemyConfig, create_alchemy_config
from litestar_app.database.limits import SHARE, TRANSFERS, Timeouts
from litestar_app.database.transfers import PATIENCE
from litestar_app.settings import Settings
from litestar_app.transfer.formats import encode_ndjson
from tests.conftest import Rows
from tests.database import prepare
from tests.mariadb import open_session
from tests.service import ANANYA, API_KEYS, AS_EDITOR, AS_READER, READER_SECRET, UNAVAILABLE, connect, serve_app
from tests.test_import import HEADER, send
from tests.test_listing import NULLABLE

MANY = 60_000
"""Students whose file is larger than what the sockets and the service hold of it."""
STUDENTS = [
    ("=1+1", "CSE", 8.9),
    ("'t Hooft", "Physics", 9.99),
    ("'=x", "CSE", 7.0),
    ("\uff1dSUM(A1)", "Physics", 0.0),
    ('Ann "A", B', "CSE", 10.0),
    ("Жанна 日", "CSE", 5.5),
]
PROTECTED = {"=1+1": "'=1+1", "'=x": "''=x", "\uff1dSUM(A1)": "'\uff1dSUM(A1)"}
MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
INCOMPLETE = "GET /students/export: the file ends incomplete: "


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def read_rows(kind: str, content: bytes) -> list[tuple[Any, ...]]:
    """Read a file as its usual reader does; protected cells of CSV as they are."""
    if kind == "ndjson":
        return [tuple(json.loads(line).values()) for line in content.splitlines()]
    header: tuple[Any, ...]
    rows: list[tuple[Any, ...]]
    if kind == "xlsx":
        sheet = openpyxl.load_workbook(io.BytesIO(content)).active
        assert sheet is not None
        header, *rows = sheet.iter_rows(values_only=True)
    else:
        header, *rows = map(tuple, csv.reader(io.StringIO(content.decode(), newline=""), strict=True))
        rows = [(int(row[0]), *row[1:3], float(row[3])) for row in rows]
    assert header == ("id", "name", "department", "cgpa")
    return rows


@contextmanager
def serve(
    database_url: str, timeouts: Timeouts | None = None, **others: Any
) -> Iterator[tuple[httpx.Client, AlchemyConfig]]:
    settings = Settings(database_url=database_url, **others)
    alchemy = create_alchemy_config(settings, timeouts)
    with serve_app(create_app(settings, alchemy)) as url, connect(url) as client:
        yield client, alchemy


@pytest.fixture
def many(database_url: str, query: Callable[..., Rows]) -> str:
    """A database with many students, written behind the service's back."""
    with prepare(database_url):
        pass
    query("INSERT INTO students (name, department, cgpa) VALUES (?, ?, ?)", "x" * 100, "CSE", 8.9)
    while query("SELECT MAX(id) FROM students")[0][0] < MANY:
        query("INSERT INTO students (name, department, cgpa) SELECT name, department, cgpa FROM students LIMIT 20000")
    return database_url


def count_ids(parts: Iterator[bytes]) -> int:
    return b"".join(parts).count(b'"id":')


def running(query: Callable[..., Rows], database_url: str) -> Rows:
    """What MariaDB runs for the service."""
    if database_url.startswith("sqlite"):
        return []
    statement = "SELECT info FROM information_schema.processlist WHERE db = DATABASE() AND info LIKE 'SELECT stud%'"
    return query(statement.replace("%", "%%") if "?" in statement else statement)


def assert_released(alchemy: AlchemyConfig, query: Callable[..., Rows], client: httpx.Client, *, idle: int) -> None:
    """See that no connection is in use beyond those at rest, and that nothing holds a snapshot."""
    pool: Any = alchemy.get_engine().pool
    wait_until(lambda: pool.checkedout() <= idle)
    assert client.post("/student", json=ANANYA).status_code == 201
    if alchemy.backend.has_one_writer:
        wait_until(lambda: query("PRAGMA wal_checkpoint(TRUNCATE)") == [(0, 0, 0)])
    else:
        wait_until(lambda: running(query, "mysql") == [])


@pytest.mark.parametrize("kind", ["csv", "ndjson", "xlsx"])
def test_export_gives_every_student_as_stored(client: httpx.Client, kind: str) -> None:
    """Names that a spreadsheet would run are protected in CSV, and stay as they are in the others."""
    for name, department, cgpa in STUDENTS:
        student = {"name": name, "department": department, "cgpa": cgpa}
        assert client.post("/student", json=student).status_code == 201
    response = client.get(f"/students/export?format={kind}")
    assert (response.status_code, response.headers["Content-Type"]) == (200, MEDIA_TYPES[kind])
    assert response.headers["Content-Disposition"] == f'attachment; filename="students.{kind}"'
    assert response.headers["Cache-Control"] == "no-store"
    names = PROTECTED if kind == "csv" else {}
    expected = [(number, names.get(row[0], row[0]), *row[1:]) for number, row in enumerate(STUDENTS, 1)]
    assert read_rows(kind, response.content) == expected


@pytest.mark.parametrize("kind", ["csv", "ndjson", "xlsx"])
def test_export_filters_and_sorts_as_a_listing(client: httpx.Client, kind: str) -> None:
    for name, department, cgpa in STUDENTS:
        assert client.post("/student", json={"name": name, "department": department, "cgpa": cgpa}).status_code == 201
    for asked in ("department=CSE&sort=-cgpa", "name=x&cgpa_min=1", "department=CSE&department=Physics&sort=name,-id",
                  "cgpa_max=9&sort=department,-cgpa", "name=nobody"):  # fmt: skip
        listed = [tuple(row.values()) for row in client.get(f"/students?{asked}").json()]
        names = PROTECTED if kind == "csv" else {}
        expected = [(row[0], names.get(row[1], row[1]), *row[2:]) for row in listed]
        assert read_rows(kind, client.get(f"/students/export?{asked}&format={kind}").content) == expected


def test_null_is_an_empty_cell(database_url: str, query: Callable[..., Rows]) -> None:
    """And null in NDJSON."""
    query(f"CREATE TABLE students {NULLABLE[database_url[:5]]}")
    query("INSERT INTO students VALUES (7, NULL, NULL, NULL)")
    with serve(database_url) as (client, _):
        assert client.get("/students/export").content == b"id,name,department,cgpa\r\n7,,,\r\n"
        lines = client.get("/students/export?format=ndjson").content
        assert lines == b'{"id":7,"name":null,"department":null,"cgpa":null}\n'
        assert read_rows("xlsx", client.get("/students/export?format=xlsx").content) == [(7, None, None, None)]


@pytest.mark.parametrize(
    ("query_string", "problem"),
    [
        *((f"{name}=1", f"{name!r}: not one of this route's") for name in ("limit", "offset", "cursor", "count")),
        ("format=pdf", "'format': expected csv, ndjson or xlsx, got 'pdf'"),
        ("sort=age", "'sort': expected a list such as department,-cgpa, of id, name, department, cgpa, each at most"),
        ("cgpa_min=9&cgpa_max=8", "'cgpa_min': 9.0 is above cgpa_max, 8.0"),
    ],
)
def test_impossible_export_is_rejected(idle_client: httpx.Client, query_string: str, problem: str) -> None:
    response = idle_client.get(f"/students/export?{query_string}")
    assert response.status_code == 400
    assert response.json()["detail"].startswith(f"query parameter {problem}")


def test_head_has_the_headers_and_runs_no_query(client: httpx.Client, statements: Callable[[], list[str]]) -> None:
    head = client.head("/students/export?format=ndjson&sort=name")
    assert (head.status_code, head.content, statements()) == (200, b"", [])
    get = client.get("/students/export?format=ndjson&sort=name")
    assert statements() == ["SELECT"]
    for name in ("Content-Type", "Content-Disposition", "Cache-Control"):
        assert head.headers[name] == get.headers[name]


def test_export_is_one_state_while_others_write(many: str, query: Callable[..., Rows]) -> None:
    """What is written after the first part has come is not in the file, and is not held up by it."""
    ids = [student_id for (student_id,) in query("SELECT id FROM students ORDER BY id")]
    with serve(many) as (client, _), client.stream("GET", "/students/export?format=ndjson") as response:
        parts = response.iter_bytes()
        first = next(parts)
        assert client.delete(f"/student/{ids[-1]}").status_code == 200
        assert client.patch(f"/student/{ids[-2]}", json={"name": "Changed"}).status_code == 200
        assert client.post("/student", json=ANANYA).status_code == 201
        content = first + b"".join(parts)
    rows = [json.loads(line) for line in content.splitlines()]
    assert [row["id"] for row in rows] == ids
    assert {row["name"] for row in rows} == {"x" * 100}


@contextmanager
def deaf_client(client: httpx.Client, path: str, secret: str = "") -> Iterator[socket.socket]:
    """Ask for a file and read nothing of it."""
    key = f"Authorization: Bearer {secret}\r\n" if secret else ""
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((client.base_url.host, client.base_url.port))
        deaf.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{key}\r\n".encode())
        yield deaf


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
def test_client_that_leaves_releases_everything(many: str, query: Callable[..., Rows], *, is_reset: bool) -> None:
    with serve(many) as (client, alchemy):
        pool: Any = alchemy.get_engine().pool
        client.get("/students")
        idle = pool.checkedout()
        for _ in range(TRANSFERS + 1):
            with deaf_client(client, "/students/export") as deaf:
                assert deaf.recv(15) == b"HTTP/1.1 200 OK"
                assert pool.checkedout() > idle
                if is_reset:
                    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert_released(alchemy, query, client, idle=idle + 1)


def test_client_that_reads_nothing_is_disconnected(
    many: str, query: Callable[..., Rows], caplog: pytest.LogCaptureFixture
) -> None:
    with serve(many, Timeouts(send=0.5)) as (client, alchemy):
        pool: Any = alchemy.get_engine().pool
        client.get("/students")
        idle = pool.checkedout()
        with deaf_client(client, "/students/export"):
            wait_until(lambda: caplog.messages)
            assert caplog.messages[0] == "GET /students/export: the client has read nothing for 0.5 s"
            assert_released(alchemy, query, client, idle=idle + 1)


@pytest.mark.parametrize("kind", MEDIA_TYPES)
def test_failure_before_the_first_row_is_a_503(
    request: pytest.FixtureRequest, database_url: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A document of its own, not a file that ends at once: the file has been moved, or a table is locked."""
    with serve(database_url, Timeouts(lock=1)) as (client, alchemy), ExitStack() as stack:
        if alchemy.backend.has_one_writer:
            path = request.getfixturevalue("sqlite_path")
            path.rename(path.with_suffix(".moved"))
        else:
            server = request.getfixturevalue("mariadb")
            stack.enter_context(open_session(server, database_url, "LOCK TABLES students WRITE"))
        response = client.get(f"/students/export?format={kind}")
        assert response.headers["Content-Type"] == "application/problem+json"
        assert (response.status_code, response.json()["detail"]) == (503, UNAVAILABLE)
        assert all(record.exc_info is None for record in caplog.records)


def test_export_that_fails_half_way_ends_incomplete(
    mysql_url: str, mariadb: Any, mysql_query: Callable[..., Rows], caplog: pytest.LogCaptureFixture
) -> None:
    """Its last chunk never comes, and the log has one line without a traceback."""
    with prepare(mysql_url):
        pass
    mysql_query(
        "INSERT INTO students (name, department, cgpa) SELECT REPEAT('x', 100), 'CSE', seq / 10000 FROM seq_1_to_60000"
    )
    with serve(mysql_url) as (client, _):
        with client.stream("GET", "/students/export") as response:
            assert response.status_code == 200
            parts = response.iter_raw()
            next(parts)
            mariadb.kill_sessions(mysql_url)
            with pytest.raises(httpx.RemoteProtocolError):
                for _ in parts:
                    pass
        wait_until(lambda: caplog.records)
        (record,) = [record for record in caplog.records if record.name == "litestar_app"]
        assert record.getMessage().startswith(INCOMPLETE)
        assert all(record.exc_info is None for record in caplog.records)
        assert client.get("/students/export?cgpa_max=0.0001").content.count(b"\r\n") == 2


SLOWLY = Timeouts(send=4, send_rate=20_000_000)
"""Of which no part is late, and the whole at once."""


def read_slowly(client: httpx.Client, path: str) -> bytes:
    """Read half a megabyte at once, and then nothing for half a second."""
    received = bytearray()
    with deaf_client(client, path) as deaf:
        while block := deaf.recv(512 * 1024, socket.MSG_WAITALL):
            received += block
            time.sleep(0.5)
    return bytes(received)


def test_client_that_reads_slowly_is_disconnected_in_the_end(
    many: str, query: Callable[..., Rows], caplog: pytest.LogCaptureFixture
) -> None:
    """It holds no snapshot and no place for as long as it likes; the file ends without its last chunk."""
    with serve(many, SLOWLY) as (client, alchemy):
        pool: Any = alchemy.get_engine().pool
        client.get("/students")
        idle = pool.checkedout()
        received = read_slowly(client, "/students/export")
        assert received.startswith(b"HTTP/1.1 200 OK")
        assert not received.endswith(b"\r\n0\r\n\r\n")
        assert [record.getMessage() for record in caplog.records if record.name == "litestar_app"] == [
            "GET /students/export: the client has read under 20000000 bytes a second"
        ]
        assert_released(alchemy, query, client, idle=idle + 1)


def test_slow_client_with_an_honest_line_gets_the_whole_file(many: str, query: Callable[..., Rows]) -> None:
    """However long it takes in all, at a megabyte a second."""
    with serve(many, Timeouts(send=4)) as (client, _):
        received = read_slowly(client, "/students/export?format=ndjson")
    assert received.endswith(b"\r\n0\r\n\r\n")
    content = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", received)
    assert content.count(b'"id":') == query("SELECT COUNT(*) FROM students")[0][0]


@pytest.mark.parametrize("has_room", [True, False], ids=["room", "no room"])
def test_slow_client_holds_no_snapshot(
    many: str, query: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch, *, has_room: bool
) -> None:
    """The rest of its file waits on the disk, as it was; without room there, it comes from the snapshot as before."""
    if not has_room:
        monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    (last,) = query("SELECT MAX(id) FROM students")[0]
    with serve(many) as (client, alchemy), deaf_client(client, "/students/export?format=ndjson") as slow:
        received = bytearray(slow.recv(15))
        assert received == b"HTTP/1.1 200 OK"
        assert client.patch(f"/student/{last}", json={"name": "Changed"}).status_code == 200
        if has_room and alchemy.backend.has_one_writer:
            wait_until(lambda: query("PRAGMA wal_checkpoint(TRUNCATE)") == [(0, 0, 0)])
        elif has_room:
            wait_until(lambda: running(query, "mysql") == [])
        else:
            time.sleep(PATIENCE + 1)
        while part := slow.recv(512 * 1024):
            received += part
            if received.endswith(b"\r\n0\r\n\r\n"):
                break
    content = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", received)  # of what ends one chunk and begins the next
    assert content.count(b'"department":') == query("SELECT COUNT(*) FROM students")[0][0]
    assert b"Changed" not in content


def test_a_million_students_on_a_slow_line_are_in_time() -> None:
    """On 1 Mbit/s, of which four fifths are left for the bytes of the file, in the longest of the text formats."""
    timeouts = Timeouts()
    students = [
        (number, f"{'Ananya Subramaniam':<30}", f"{'Computer Science':<20}", 8.95) for number in range(999_000, 10**6)
    ]
    size = len(encode_ndjson(students)) * 1000  # as many bytes as a million have
    assert size / (0.8 * 1_000_000 / 8) < timeouts.send + size / timeouts.send_rate


def fill_places(stack: ExitStack, client: httpx.Client, secrets: Sequence[str], each: int = SHARE) -> None:
    """Have callers hold exports of which they read nothing."""
    for secret in secrets:
        for _ in range(each):
            deaf = stack.enter_context(deaf_client(client, "/students/export", secret))
            assert deaf.recv(15) == b"HTTP/1.1 200 OK"


def test_fifth_export_waits_and_is_a_503(many: str) -> None:
    """Other requests do not wait for it, and imports neither: whoever may only read holds up nobody who writes."""
    keys = [make_key(name, "editor") for name in ("first", "second", "third")]
    setting = ",".join(f"{key.name}:{key.role}:{key.id}:{key.sha256}" for key, _ in keys)
    first, second, third = (secret for _, secret in keys)
    with serve(many, Timeouts(queue=0.5), api_keys=setting) as (client, _), ExitStack() as stack:
        fill_places(stack, client, [first, second])
        client.headers["Authorization"] = f"Bearer {third}"
        began = time.monotonic()
        response = client.get("/students/export")
        assert time.monotonic() - began >= 0.5
        detail = "Too much is under way at once; nothing was stored, retry later"
        assert (response.status_code, response.json()["detail"]) == (503, detail)
        assert client.get("/students?limit=1").status_code == 200
        assert send(client, HEADER + "Ananya,CSE,1\r\n").status_code == 200
        stack.close()
        wait_until(lambda: client.get("/students/export?cgpa_min=10").status_code == 200)


def test_caller_leaves_places_for_others(many: str) -> None:
    """Whoever holds a share with clients that read nothing gets no more of them, and nobody else waits."""
    with serve(many, Timeouts(queue=0.5), api_keys=API_KEYS) as (client, _), ExitStack() as stack:
        fill_places(stack, client, [READER_SECRET])
        for _ in range(TRANSFERS):
            response = client.get("/students/export", headers=AS_READER)
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
            assert response.headers["Content-Type"] == "application/problem+json"
            detail = (
                f"This caller has as many exports under way as one may have at once ({SHARE}); retry when one of them"
            )
            assert response.json()["detail"] == f"{detail} has ended"
        for kind in MEDIA_TYPES:
            other = client.get(f"/students/export?format={kind}&cgpa_min=10", headers=AS_EDITOR)
            assert other.status_code == 200
        assert client.head("/students/export", headers=AS_READER).status_code == 200
        stack.close()
        wait_until(lambda: client.get("/students/export?cgpa_min=10", headers=AS_READER).status_code == 200)


def test_addresses_share_where_there_are_no_keys(many: str) -> None:
    with serve(many, Timeouts(queue=0.5)) as (client, _), ExitStack() as stack:
        fill_places(stack, client, [""])
        assert client.get("/students/export").status_code == 503
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as other:
            assert other.get(client.base_url.join("/students/export?cgpa_min=10")).status_code == 200
