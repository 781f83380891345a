"""The log: one line for each request, what it says, and that nothing of a student is ever in it."""

import contextlib
import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from litestar_app.http.access_log import note_unparsed
from litestar_app.logs import LineHandler
from tests.conftest import Rows
from tests.database import break_writes
from tests.mariadb import MariaDB, open_session
from tests.service import ANANYA, API_KEYS, AS_EDITOR, AS_READER, EDITOR_SECRET, Service

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
CANARY = "Zqxjananya"
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def read_lines(service: Service) -> list[dict[str, Any]]:
    """Return the objects of the log: each of its lines must be one, with a time, a level and a logger."""
    lines = [json.loads(line) for line in service.log().splitlines()]
    for line in lines:
        assert re.fullmatch(TIME, line["time"])
        assert line["level"] in {"debug", "info", "warning", "error", "critical"}
        assert line["logger"]
    return lines


def find_request(service: Service, request_id: str) -> dict[str, Any]:
    """Wait for the line of a request, and return it without what differs from time to time."""
    while True:
        for line in read_lines(service):
            if line.get("request_id") == request_id and line["logger"] == "litestar_app.access":
                assert line.pop("duration_ms") >= 0
                return {name: line[name] for name in line if name not in {"time", "logger", "request_id"}}
        time.sleep(0.01)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that logs everything, into a file; it has one student."""
    with Service(tmp_path_factory.mktemp("logs"), LOG_LEVEL="debug") as service:
        assert service.client.post("/student", json=ANANYA).status_code == 201
        yield service


ONE, INFO, CLIENT = "/student/{student_id}", {"level": "info"}, {"client": "127.0.0.1"}
REQUESTS: dict[str, tuple[str, int, str, str, dict[str, str]]] = {
    "GET /student/1": ("GET", 200, ONE, "info", {}),
    "GET /student/1?name=x": ("GET", 400, ONE, "info", {}),
    "GET /student/x": ("GET", 404, ONE, "info", {}),
    "HEAD /students?limit=5": ("HEAD", 200, "/students", "info", {}),
    "OPTIONS /students": ("OPTIONS", 204, "/students", "info", {}),
    "GET /nothing": ("GET", 404, "unmatched", "info", {}),
    "DELETE /students": ("DELETE", 405, "unmatched", "info", {}),
    "PROPFIND /student/1": ("_OTHER", 405, "unmatched", "info", {}),
    "POST /student": ("POST", 400, "/student", "info", {}),
    "GET /student/1 host=x/y": ("_OTHER", 400, "unmatched", "info", {"host": "x/y"}),
    "GET /students/export": ("GET", 200, "/students/export", "info", {}),
    "GET /docs/x": ("GET", 404, "/docs/{path}", "info", {}),
    "GET /health/ready": ("GET", 200, "/health/ready", "debug", {}),
    "GET /health/ready?x": ("GET", 400, "/health/ready", "info", {}),
    "GET /metrics": ("GET", 200, "/metrics", "debug", {}),
}


@pytest.mark.parametrize("given", REQUESTS)
def test_request_is_one_line(service: Service, given: str) -> None:
    """Programs ask for health every second: what goes well there is for `debug`."""
    method, status, route, level, headers = REQUESTS[given]
    verb, path = given.split()[:2]
    response = service.client.request(verb, path, headers=headers)
    assert response.status_code == status
    line = find_request(service, response.headers["X-Request-ID"])
    assert line == {"level": level, "method": method, "route": route, "status": status, **CLIENT}


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [("abc-1.2_3", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("é", False), ("", False)],
)
def test_request_id_is_kept_where_it_is_harmless(service: Service, given: str, is_kept: bool) -> None:
    response = service.client.get("/student/1", headers={b"X-Request-ID": given.encode()})
    (request_id,) = response.headers.get_list("X-Request-ID")
    assert request_id == given if is_kept else re.fullmatch("[0-9a-f]{32}", request_id)
    assert find_request(service, request_id)["status"] == 200


@pytest.mark.parametrize(
    ("parent", "is_valid"),
    [
        (f"00-{TRACE_ID}-{PARENT_ID}-01", True),
        (f"cc-{TRACE_ID}-{PARENT_ID}-01-more", True),
        (f"00-{TRACE_ID}-{PARENT_ID}-01-more", False),
        (f"cc-{TRACE_ID}-{PARENT_ID}-01more", False),
        (f"ff-{TRACE_ID}-{PARENT_ID}-01", False),
        (f"00-{'0' * 32}-{PARENT_ID}-01", False),
        (f"00-{TRACE_ID}-{'0' * 16}-01", False),
        (f"00-{TRACE_ID.upper()}-{PARENT_ID}-01", False),
        (CANARY, False),
    ],
)
def test_trace_id_is_that_of_the_caller(service: Service, parent: str, is_valid: bool) -> None:
    response = service.client.get("/student/1", headers={"traceparent": parent})
    line = find_request(service, response.headers["X-Request-ID"])
    assert line.get("trace_id") == (TRACE_ID if is_valid else None)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with API keys, behind a proxy."""
    with Service(tmp_path_factory.mktemp("proxied"), API_KEYS=API_KEYS, FORWARDED_ALLOW_IPS="127.0.0.1") as service:
        yield service


@pytest.mark.parametrize("forwarded", ["203.0.113.9", "2001:db8::1", CANARY])
def test_client_is_an_address_or_absent(proxied: Service, forwarded: str) -> None:
    """What a proxy forwards may be anything."""
    response = proxied.client.get("/students", headers={"X-Forwarded-For": forwarded})
    line = find_request(proxied, response.headers["X-Request-ID"])
    assert (response.status_code, line["status"]) == (401, 401)
    assert line.get("client") == (None if forwarded == CANARY else forwarded)


def test_key_is_logged_by_its_name(proxied: Service) -> None:
    for headers, name in ((AS_READER, "teacher"), (AS_EDITOR, "registrar"), ({}, None)):
        response = proxied.client.get("/students", headers=headers)
        assert find_request(proxied, response.headers["X-Request-ID"]).get("key") == name
    assert EDITOR_SECRET not in proxied.log()


def test_export_that_ends_too_soon_is_aborted(tmp_path: Path) -> None:
    """Its status, which was sent long before, is 200."""
    with Service(tmp_path) as service:
        rows = "".join(f"Student {number},{'x' * 90},5\r\n" for number in range(60_000))
        file = f"name,department,cgpa\r\n{rows}".encode()
        assert service.client.post("/students/import", content=file, headers={"Content-Type": "text/csv"}).is_success
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(b"GET /students/export HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: leaves\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert find_request(service, "leaves") | {"aborted": True} == find_request(service, "leaves")
        assert find_request(service, "leaves")["status"] == 200
        response = service.client.get("/students/export")
        assert "aborted" not in find_request(service, response.headers["X-Request-ID"])


def test_request_whose_client_left_is_aborted(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        head = b"POST /student HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: half\r\nContent-Type: application/json\r\n"
        client.sendall(head + b'Content-Length: 60\r\n\r\n{"name"')
    line = find_request(service, "half")
    assert (line["status"], line["aborted"]) == (400, True)


def test_request_that_was_not_parsed_is_a_line_too(caplog: pytest.LogCaptureFixture) -> None:
    """The protocol calls for it: such a request never gets to the application."""
    with caplog.at_level("INFO", "litestar_app.access"):
        request_id = note_unparsed(431, "127.0.0.1")
    (record,) = caplog.records
    assert record.getMessage() == f"127.0.0.1 _OTHER unmatched 431 0 ms request={request_id}"


@pytest.mark.parametrize("target", ["http://a:b/students", "http://[/", "http:///students", "http://@/"])
def test_url_that_is_none_is_not_logged(service: Service, target: str) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(f"GET {target}?name={CANARY} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert b'"detail":"This is not HTTP/1.1: an invalid URL"' in client.makefile("rb").read()
    assert "an invalid URL" in service.log()
    assert CANARY not in service.log()


def make_stream(kind: str) -> tuple[int, io.TextIOWrapper]:
    """Open a terminal or a pipe: the end to read, and the end to write."""
    reader, writer = os.openpty() if kind == "terminal" else os.pipe()
    return reader, os.fdopen(writer, "w")


LOGGED = rf"{TIME} ERROR    it failed\r?\nTraceback .*\nZeroDivisionError: division by zero\r?\n"


@pytest.mark.parametrize(
    ("kind", "style", "is_text"),
    [("terminal", "auto", True), ("pipe", "auto", False), ("terminal", "json", False), ("pipe", "text", True)],
)
@pytest.mark.usefixtures("logging_as_it_was")
def test_text_on_a_terminal_and_json_elsewhere(kind: str, style: str, is_text: bool) -> None:
    reader, stream = make_stream(kind)
    with stream:
        handler = LineHandler(stream, style)
        try:
            _ = 1 / 0
        except ZeroDivisionError as error:
            information = (type(error), error, error.__traceback__)
            handler.handle(logging.LogRecord("x", logging.ERROR, "", 0, "it %s", ("failed",), information))
        written = os.read(reader, 10_000).decode()
    os.close(reader)
    if is_text:
        assert re.fullmatch(LOGGED, written, re.DOTALL), written
    else:
        line = json.loads(written)
        assert (line["level"], line["logger"], line["message"]) == ("error", "x", "it failed")
        assert line["traceback"].startswith("Traceback (most recent call last):\n  File ")
        assert line["traceback"].endswith("\nZeroDivisionError: division by zero")


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Restore what a handler sets for a whole process."""
    yield
    logging.captureWarnings(capture=False)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = True
    sys.modules["threading"].excepthook = sys.modules["threading"].__excepthook__  # type: ignore[attr-defined]


def fail_in_a_chain() -> None:
    try:
        _ = os.environ[CANARY]
    except KeyError as error:
        raise RuntimeError("what it led to") from error


def fail_in_a_group() -> None:
    raise ExceptionGroup(
        "two", [ValueError(f"could not convert string to float: '{CANARY}'"), OSError(2, "No such file", CANARY)]
    )


def fail_as_a_database() -> None:
    raise RuntimeError(f"(1062, \"Duplicate entry 'O'{CANARY}' for key 'x'\")\n[SQL: INSERT INTO students (name) …]")


@pytest.mark.parametrize(
    ("fail", "kept"),
    [
        (fail_in_a_chain, ["KeyError: …", "which led to:", "RuntimeError: what it led to"]),
        (fail_in_a_group, ["ExceptionGroup: two (2 sub-exceptions)", "ValueError: could not convert string to float"]),
        (fail_as_a_database, ["RuntimeError: (1062, …)", "[SQL: INSERT INTO students (name) …]"]),
    ],
)
@pytest.mark.usefixtures("logging_as_it_was")
def test_traceback_has_no_values(fail: Callable[[], None], kept: list[str]) -> None:
    """Errors quote the value that they are about."""
    reader, stream = make_stream("pipe")
    with stream:
        handler = LineHandler(stream, "json")
        try:
            fail()
        except Exception:  # noqa: BLE001
            handler.handle(logging.LogRecord("x", logging.ERROR, "", 0, "it failed", None, sys.exc_info()))
        traceback = json.loads(os.read(reader, 10_000))["traceback"]
    os.close(reader)
    assert CANARY not in traceback
    assert [words for words in kept if words not in traceback] == []


UNUSUAL = """
import asyncio, logging.config, threading, warnings
from litestar_app.logs import make_log_config
from litestar_app.settings import Settings

logging.config.dictConfig(make_log_config(Settings()))
warnings.warn("a warning")
name = "Zqxjananya"  # Python 3.13 shows the lines of this program too
def fail(): raise KeyError(name)
thread = threading.Thread(target=fail, name="worker")
thread.start()
thread.join()
async def main():
    async def fail(): raise KeyError(name)
    task = asyncio.create_task(fail())
    await asyncio.sleep(0.01)
    del task
asyncio.run(main())
logging.getLogger("another").error("\\udcff")
"""


def test_what_python_itself_writes_is_a_line_too() -> None:
    """Warnings, and errors in a thread or a task that nobody waits for."""
    command = [sys.executable, "-W", "default", "-c", UNUSUAL]
    ended = subprocess.run(command, capture_output=True, check=True)
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["logger"] for line in lines] == ["py.warnings", "litestar_app", "asyncio", "another"]
    assert "a warning" in lines[0]["message"]
    assert [line["message"] for line in lines[1:3]] == ["worker has ended", "Task exception was never retrieved"]
    assert [line["traceback"].endswith("KeyError: …") for line in lines[1:3]] == [True, True]
    assert CANARY.encode() not in ended.stderr


def test_log_that_nobody_reads_any_more_stops_nothing(tmp_path: Path) -> None:
    service = Service(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "litestar_app"],
        cwd=tmp_path,
        env=service.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        while b"Uvicorn running" not in process.stdout.readline():
            assert process.poll() is None
        process.stdout.close()
        assert [service.client.get("/health/ready?x").status_code for _ in range(3)] == [400] * 3
    finally:
        process.kill()
        process.wait()


STUDENT = {"name": CANARY, "department": f"{CANARY} 'quoted'", "cgpa": 1.2345678}
CSV_FILE = f"name,department,cgpa\r\n{CANARY},{CANARY},1.2345678\r\n".encode()
CSV = {"Content-Type": "text/csv"}


def send_canary(client: httpx.Client) -> set[int]:
    """Send a student in every place that a request has, and return the statuses."""
    statuses = set()
    for method, path in (("POST", "/student"), ("PUT", "/student/1"), ("PATCH", "/student/1")):
        for body in (STUDENT, {**STUDENT, CANARY: CANARY}, {**STUDENT, "cgpa": CANARY}, {**STUDENT, "id": 1}):
            statuses.add(client.request(method, path, json=body).status_code)
        statuses.add(client.request(method, path, content=f'{{"name": "{CANARY}'.encode()).status_code)
    for path in (
        f"/{CANARY}", f"/student/{CANARY}", f"/docs/{CANARY}", f"/docs/assets/{CANARY}", f"/students?name={CANARY}",
        f"/students?{CANARY}={CANARY}", f"/students?cursor={CANARY}", f"/students/export?department={CANARY}",
        f"/students/export?format={CANARY}", "/departments", "/students?cgpa_min=1.2345678", f"/health/ready?{CANARY}",
    ):  # fmt: skip
        statuses.add(client.get(path).status_code)
    for name in (
        "X-Request-ID", "Host", "User-Agent", "Referer", "Cookie", "Authorization", "X-Forwarded-For", "Origin",
        "Idempotency-Key", "If-Match", "If-None-Match", "traceparent", "Accept", "Content-Type", CANARY,
    ):  # fmt: skip
        statuses.add(client.post(f"/student?{CANARY}", json=STUDENT, headers={name: f"{CANARY} {CANARY}"}).status_code)
        statuses.add(client.get("/student/1", headers={name: f"{CANARY}/"}).status_code)
    statuses |= {client.request(method, "/students").status_code for method in (CANARY.upper(), "DELETE")}
    for file in (CSV_FILE, CSV_FILE + f"{CANARY},,x".encode(), f"{CANARY},name\r\n{CANARY}".encode(), b"\xff\xff"):
        statuses.add(client.post("/students/import", content=file, headers=CSV).status_code)
    statuses.add(client.post("/students/import", files={"file": (f"{CANARY}.csv", CSV_FILE)}).status_code)
    return statuses


SPEAK = "CREATE TRIGGER t BEFORE INSERT ON students FOR EACH ROW SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1999, "
BROKEN: dict[str, str] = {
    "unique index": "CREATE UNIQUE INDEX one_name ON students (name(100))",
    "no column": "ALTER TABLE students RENAME COLUMN cgpa TO grade",
    "narrow column": "ALTER TABLE students MODIFY name VARCHAR(3) CHARACTER SET latin1",
    "no table": "DROP TABLE students",
    "trigger": f"{SPEAK} MESSAGE_TEXT = NEW.name",
    "defect": "",
}
"""What makes the database speak of values; a trigger with a code that this service does not know."""
EXPECTED = {
    "unique index": 409, "no column": 503, "narrow column": 422, "no table": 503, "trigger": 503, "defect": 500
}  # fmt: skip
ONLY_MYSQL = {"narrow column", "trigger"}


@pytest.mark.parametrize("broken", BROKEN)
def test_log_has_no_name_whatever_fails(
    tmp_path: Path, database_url: str, query: Callable[..., Rows], broken: str
) -> None:
    is_sqlite = database_url.startswith("sqlite")
    if is_sqlite and broken in ONLY_MYSQL:
        pytest.skip("SQLite has no such errors")
    with Service(tmp_path, DATABASE_URL=database_url, LOG_LEVEL="debug") as service:
        service.client.headers["X-Request-ID"] = "canary"
        assert service.client.post("/student", json=ANANYA).status_code == 201
        statuses = send_canary(service.client)
        assert statuses >= {200, 201, 400, 404, 405, 422}
        assert 500 not in statuses
        query("DELETE FROM students")
        if statement := BROKEN[broken]:
            query(statement.replace("(100)", "") if is_sqlite else statement)
        else:
            break_writes(query, database_url)
        assert EXPECTED[broken] in send_canary(service.client)
        service.stop()
    log = service.log()
    assert [word for word in (CANARY, CANARY.upper(), "1.2345678", "quoted") if word in log] == []
    lines = read_lines(service)
    assert any(line.get("status") == EXPECTED[broken] for line in lines)
    if EXPECTED[broken] >= 500:
        (line, *_) = (line for line in lines if f": {EXPECTED[broken]}: " in line.get("message", ""))
        assert (line["request_id"], "traceback" in line) == ("canary", EXPECTED[broken] == 500)


def test_lock_puts_no_name_into_the_log(tmp_path: Path, mariadb: MariaDB, mysql_url: str) -> None:
    with Service(tmp_path, DATABASE_URL=mysql_url, LOG_LEVEL="debug") as service:
        assert service.client.post("/student", json=STUDENT).status_code == 201
        with contextlib.ExitStack() as stack:
            stack.enter_context(open_session(mariadb, mysql_url, "SELECT * FROM students FOR UPDATE"))
            assert service.client.put("/student/1", json={**STUDENT, "cgpa": 2}).status_code == 503
        service.stop()
    assert "PUT /student/{student_id}: 503: " in service.log()
    assert CANARY not in service.log()
