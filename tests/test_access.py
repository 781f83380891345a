"""Who is served: API keys and their roles, and programs of this machine while there are no keys."""

import asyncio
import re
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar.routes import HTTPRoute

from litestar_app.access.keys import LETTERS, SECRET, make_key
from litestar_app.app import create_app
from litestar_app.settings import Settings
from tests.conftest import Rows
from tests.service import ANANYA, API_KEYS, AS_EDITOR, AS_READER, EDITOR_SECRET, Service, serve_database

PUBLIC, READER, EDITOR = "public", "reader", "editor"
ROUTES = {
    "GET /": PUBLIC, "GET /docs": PUBLIC, "GET /docs/assets/{name}": PUBLIC, "GET /docs/{path}": PUBLIC,
    "GET /openapi.json": PUBLIC, "GET /health/live": PUBLIC, "GET /health/ready": PUBLIC,
    "GET /metrics": PUBLIC,  # on this machine
    "GET /students": READER, "GET /student/{student_id}": READER, "GET /students/export": READER,
    "GET /departments": READER, "GET /departments.svg": READER,
    "POST /student": EDITOR, "PUT /student/{student_id}": EDITOR, "PATCH /student/{student_id}": EDITOR,
    "DELETE /student/{student_id}": EDITOR, "POST /students/import": EDITOR,
    "GET /student/{student_id}/history": EDITOR, "GET /imports": EDITOR, "POST /imports/{import_id}/undo": EDITOR,
}  # fmt: skip
"""Every route, and whose it is. HEAD is as GET; OPTIONS is public, as the document is that tells as much."""
NO_KEY = {
    "type": "about:blank",
    "title": "Unauthorized",
    "status": 401,
    "detail": "Expected an API key, as Authorization: Bearer sr_…",
}
WRONG_KEY = NO_KEY | {"detail": "This is no API key of this service, or it has been revoked or has expired"}
WRONG = {
    "too long": f"Bearer {EDITOR_SECRET}x",
    "too short": f"Bearer {EDITOR_SECRET[:-1]}",
    "another case": f"Bearer {EDITOR_SECRET.lower()}",
    "unknown": f"Bearer {make_key('other', 'editor')[1]}",
    "two": f"Bearer {EDITOR_SECRET},{EDITOR_SECRET}",
    "another scheme": f"Basic {EDITOR_SECRET}",
    "no scheme": EDITOR_SECRET,
    "no key": "Bearer",
    "no ASCII": "Bearer é",
    "empty": "",
}
CHALLENGE = 'Bearer realm="students"'
REMEDY = (
    "No API key is configured, so only programs on this machine are served; create one: litestar keys create --help"
)
NAME = "expected 1 to 100 characters that are seen, without blanks, colons and commas"
HOST = "Expected one Host: localhost, 127.0.0.1 or [::1]. "


@pytest.fixture
def run_keys(tmp_path: Path) -> Callable[..., str]:
    """Run `litestar keys …` in the directory of the service; return what it writes, on both streams."""

    def run(*arguments: str, code: int = 0) -> str:
        command = [str(Path(sys.executable).with_name("litestar")), "keys", *arguments]
        done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
        output = done.stdout + done.stderr
        assert done.returncode == code, output
        return output

    return run


def find_routes() -> Iterator[tuple[str, str]]:
    app = create_app(Settings(database_url="sqlite:///unused.db"))
    for route in app.routes:
        assert isinstance(route, HTTPRoute)
        path = re.sub(r":\w+}", "}", route.path_format)
        for method in route.route_handler_map:
            yield str(method), path or "/"


def assert_unauthorized(response: httpx.Response, body: dict[str, Any], challenge: str) -> None:
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, challenge)
    assert (response.headers["Content-Type"], response.json()) == ("application/problem+json", body)


def assert_forbidden(response: httpx.Response, detail: str) -> None:
    body = {"type": "about:blank", "title": "Forbidden", "status": 403, "detail": detail}
    assert (response.status_code, response.json()) == (403, body)


def test_every_route_is_somebodys(sqlite_url: str) -> None:
    """A route that is added is in the table, or fails here; and the table is true."""
    rules = {
        (method, path): ROUTES.get(f"{'GET' if method == 'HEAD' else method} {path}") for method, path in find_routes()
    }
    for method, path in rules:
        if method == "OPTIONS":
            rules[method, path] = PUBLIC
    assert None not in rules.values(), rules
    assert len({path for _, path in rules}) == len({route.split()[1] for route in ROUTES})
    with serve_database(sqlite_url, api_keys=API_KEYS) as client:
        for (method, path), needed in rules.items():
            url = path.format(student_id=1, import_id=1, name="swagger-ui.css", path="nothing")
            statuses = [
                client.request(method, url, headers=headers).status_code for headers in ({}, AS_READER, AS_EDITOR)
            ]
            assert (statuses[0] == 401) is (needed != PUBLIC), (method, path)
            assert (statuses[1] == 403) is (needed == EDITOR), (method, path)
            assert not {401, 403} & {statuses[2]}, (method, path)


@pytest.mark.parametrize("elsewhere", [{"X-Forwarded-For": "203.0.113.9"}, {"Host": "students.example"}], ids=str)
def test_metrics_need_a_key_elsewhere(sqlite_url: str, elsewhere: dict[str, str]) -> None:
    """Behind a proxy, and for a page whose name points at this machine."""
    with serve_database(sqlite_url, api_keys=API_KEYS) as client:
        assert client.get("/metrics").status_code == 200
        assert_unauthorized(client.get("/metrics", headers=elsewhere), NO_KEY, CHALLENGE)
        assert client.get("/metrics", headers=elsewhere | AS_READER).status_code == 200


@pytest.mark.parametrize("authorization", WRONG.values(), ids=WRONG)
def test_wrong_key_is_a_401(keyed_client: httpx.Client, authorization: str) -> None:
    response = keyed_client.get("/students", headers=[(b"Authorization", authorization.encode())])
    assert_unauthorized(response, WRONG_KEY, f'{CHALLENGE}, error="invalid_token"')


def test_no_key_is_a_401_before_the_body_is_read(keyed_client: httpx.Client) -> None:
    """The connection is answered though the body never arrives."""
    head = b"POST /student HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n"
    with socket.create_connection((keyed_client.base_url.host, keyed_client.base_url.port or 0)) as connection:
        connection.sendall(head)
        response = connection.recv(65536)
    assert response.startswith(b"HTTP/1.1 401 ")
    assert f"www-authenticate: {CHALLENGE}\r\n".encode() in response


def test_key_in_the_url_is_no_key(keyed_client: httpx.Client) -> None:
    for name in ("access_token", "key", "Authorization"):
        response = keyed_client.get("/students", params={name: EDITOR_SECRET}, headers={"Authorization": "none"})
        assert response.status_code == 401


def test_two_keys_are_none(keyed_client: httpx.Client) -> None:
    fields = [("Authorization", f"Bearer {EDITOR_SECRET}")] * 2
    with httpx.Client(base_url=keyed_client.base_url) as client:
        assert client.get("/students", headers=fields).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_scheme_is_of_any_case(keyed_client: httpx.Client, scheme: str) -> None:
    assert keyed_client.get("/students", headers={"Authorization": f"{scheme} {EDITOR_SECRET}"}).status_code == 200


def test_reader_may_not_write(database_url: str, query: Callable[..., Rows]) -> None:
    with serve_database(database_url, api_keys=API_KEYS) as client:
        assert client.post("/student", json=ANANYA, headers=AS_EDITOR).status_code == 201
        for method, path in (
            ("POST", "/student"),
            ("PUT", "/student/1"),
            ("PATCH", "/student/1"),
            ("DELETE", "/student/1"),
        ):
            response = client.request(method, path, json=ANANYA | {"cgpa": 1}, headers=AS_READER)
            assert_forbidden(response, "The API key 'teacher' may only read; this needs one with the role editor")
            expected = f'{CHALLENGE}, error="insufficient_scope", scope="editor"'
            assert response.headers["WWW-Authenticate"] == expected
        assert client.get("/student/1", headers=AS_READER).json() == {"id": 1, **ANANYA}
    assert query("SELECT name, cgpa FROM students") == [("Ananya", 8.9)]


def test_secret_has_a_checksum() -> None:
    """By which a scanner of secrets knows one: CRC-32 of all before it, in base 62."""
    key, secret = make_key("registrar", "editor")
    match = SECRET.fullmatch(secret)
    assert match is not None
    assert re.fullmatch(r"sr_[0-9A-Za-z]{8}_[0-9A-Za-z]{43}", secret)
    digits = [LETTERS.index(letter) for letter in match[3]]
    assert sum(digit * 62**place for place, digit in enumerate(reversed(digits))) == zlib.crc32(match[1].encode())
    assert secret not in repr(key)
    assert key.id == match[2]


def test_idempotency_key_belongs_to_the_api_key(database_url: str) -> None:
    """Another caller's request with the same key is another request."""
    first, second = make_key("first", "editor"), make_key("second", "editor")
    keys = ",".join(f"{key.name}:{key.role}:{key.id}:{key.sha256}" for key, _ in (first, second))
    with serve_database(database_url, api_keys=keys) as client:
        ids = [
            client.post(
                "/student", json=ANANYA, headers={"Authorization": f"Bearer {secret}", "Idempotency-Key": "same"}
            ).json()["id"]
            for secret in (first[1], second[1], first[1])
        ]
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({"Host": "students.example"}, HOST + REMEDY),
        ({"Host": "localhost.example"}, HOST + REMEDY),
        ({"Host": "127.0.0.1.example:80"}, HOST + REMEDY),
        ({"Host": ""}, HOST + REMEDY),
        ({"X-Forwarded-For": "127.0.0.1"}, f"The request came through a proxy (X-Forwarded-For). {REMEDY}"),
        ({"Forwarded": "for=127.0.0.1"}, f"The request came through a proxy (Forwarded). {REMEDY}"),
        ({"Via": "1.1 x"}, f"The request came through a proxy (Via). {REMEDY}"),
        ({"X-Forwarded-Proto": "https"}, f"The request came through a proxy (X-Forwarded-Proto). {REMEDY}"),
        ({"CF-Connecting-IP": "8.8.8.8"}, f"The request came through a proxy (Cf-Connecting-Ip). {REMEDY}"),
    ],
    ids=str,
)
def test_without_keys_only_this_machine_is_served(
    idle_client: httpx.Client, headers: dict[str, str], detail: str
) -> None:
    """A name that somebody has point at this machine (DNS rebinding) is not of it, nor is who comes by a proxy."""
    for method, path in (("GET", "/students"), ("POST", "/student"), ("GET", "/docs"), ("GET", "/health/live")):
        assert_forbidden(idle_client.request(method, path, headers=headers), detail)


OF_PROXIES = [
    "X-Forwarded-For", "X-Forwarded", "X-Forwarded-Ssl", "X-Forwarded-Prefix", "X-Forwarded-Scheme",
    "X-Forwarded-Protocol", "X-Forwarded-Path", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-User",
    "X-Forwarded-Email", "X-Forwarded-By", "X_FORWARDED_FOR", "X-Forwarded-Client-Cert", "X-Original-Forwarded-For",
    "X-Original-URL", "X-Original-Host", "X-Cluster-Client-IP", "Forwarded-For", "Client-IP", "Client_IP",
    "Fastly-Client-IP", "Fly-Client-IP", "X-Envoy-External-Address", "X-Azure-ClientIP", "X-Real-IP", "X_Real_IP",
    "CF-Ray", "CF-Connecting-IPv6", "X-Amzn-Trace-Id", "X-Appengine-User-Ip", "Via", "X_Forwarded_For",
    "Ngrok-Auth-User-Email", "X-Scheme", "X-Url-Scheme", "Front-End-Https", "X-ARR-SSL", "X-ProxyUser-Ip",
    "WL-Proxy-Client-IP", "Proxy-Client-IP", "Tailscale-User-Login", "X-Host", "Remote-User", "X-SSL-Client-Verify",
    "Client-Cert", "Proxy-Connection", "X-Rewrite-URL", "CDN-Loop", "X-Auth-Request-User", "X.Forwarded.For",
    "Forwarded_", "X-Remote-Addr", "X-ClientIP", "X-Vercel-Id", "True-Client-IP", "X-Nginx-Proxy", "Z-Forwarded-For",
    "X-BlueCoat-Via", "Surrogate-Capability", "Early-Data", "X-Request-Start", "Cloudfront-Viewer-Country",
    "Bypass-Tunnel-Reminder", "X-MS-Client-Principal", "X-Cloud-Trace-Context", "X-Goog-Iap-Jwt-Assertion",
    "X-Consumer-Username", "X-Railway-Edge", "X-Render-Origin-Server", "X-Forward-For", "X-Orig-Client", "X-IMForwards",
    "X-Devtunnels", "Ali-Cdn", "EagleEye-TraceId",
]  # fmt: skip
OF_PROGRAMS = [
    "Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Access-Control-Request-Headers", "Alt-Used",
    "Baggage", "Cache-Control", "Content-Language", "Content-MD5", "Cookie", "DNT", "DPR", "Date", "Device-Memory",
    "Downlink", "ECT", "Expect", "From", "HTTP2-Settings", "HX-Request", "If-Modified-Since", "If-Range",
    "Keep-Alive", "Last-Event-ID", "Max-Forwards", "Origin", "Postman-Token", "Pragma", "Prefer", "Priority",
    "Purpose", "RTT", "Range", "Referer", "Save-Data", "Sec-CH-Prefers-Color-Scheme", "Sec-CH-UA-Platform",
    "Sec-CH-Viewport-Width", "Sec-Fetch-Dest", "Sec-Fetch-Site", "Sec-Fetch-User", "Sec-GPC", "Sec-Purpose",
    "Sec-WebSocket-Protocol", "Sentry-Trace", "Service-Worker", "Signature-Input", "TE", "Traceparent", "Tracestate",
    "Upgrade-Insecure-Requests", "User-Agent", "Warning", "X-API-Key", "X-B3-TraceId", "X-CSRF-Token",
    "X-Client-Info", "X-Client-Version", "X-Correlation-ID", "X-Datadog-Trace-Id", "X-HTTP-Method-Override", "X-Moz",
    "X-Request-ID", "X-Requested-With", "X-Skip-Cache", "X-Membership", "X-Zip", "X-Stainless-Lang", "X-XSRF-TOKEN",
    "X", "x-", "_",
]  # fmt: skip


@pytest.mark.parametrize("name", OF_PROXIES)
def test_field_of_a_proxy_is_not_of_this_machine(idle_client: httpx.Client, name: str) -> None:
    """Of any proxy, however it is written: a rule tells, and no list of products."""
    detail = f"The request came through a proxy ({name.title()}). {REMEDY}"
    assert_forbidden(idle_client.get("/students", headers={name: "1"}), detail)


@pytest.mark.parametrize("name", OF_PROGRAMS)
def test_field_of_a_program_is_no_matter(idle_client: httpx.Client, name: str) -> None:
    assert idle_client.get("/students", headers={name: "1"}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "[::1]", "[::1]:8000", "localhost:"])
def test_without_keys_names_of_this_machine_are_served(idle_client: httpx.Client, host: str) -> None:
    assert idle_client.get("/students", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8::1", "::ffff:203.0.113.9"])
def test_without_keys_other_machines_are_not_served(sqlite_url: str, address: str) -> None:
    """Where another server than ours binds all addresses, the client's own address counts."""

    async def ask() -> None:
        app: Any = create_app(Settings(database_url=sqlite_url))
        transport = httpx.ASGITransport(app, client=(address, 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for path in ("/students", "/docs", "/health/live"):
                assert_forbidden(await client.get(path), REMEDY)

    asyncio.run(ask())


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_open_address_without_a_key_does_not_start(tmp_path: Path, host: str) -> None:
    service = Service(tmp_path, HOST=host)
    service.launch()
    assert service.process is not None
    assert service.process.wait() == 1
    assert service.log() == (
        f"student-records: HOST={host!r} is open to other machines, and there is no API key: create one "
        "(litestar keys create NAME --role editor), or set HOST=127.0.0.1\n"
    )


def wait_for(request: Callable[[], httpx.Response], status: int) -> None:
    while request().status_code != status:
        time.sleep(0.05)


def test_keys_take_effect_in_every_worker(tmp_path: Path, run_keys: Callable[..., str]) -> None:
    """While they serve; once there is a key, also a revoked one, nobody is served without."""
    with Service(tmp_path, WORKERS=2) as service:
        get = service.client.get
        assert get("/students").status_code == 200
        secret = run_keys("create", "registrar", "--role", "reader").splitlines()[-1]
        headers = {"Authorization": f"Bearer {secret}"}
        for _ in range(3):  # each connection comes to one of the workers
            wait_for(lambda: get("/students"), 401)
            wait_for(lambda: get("/students", headers=headers), 200)
        run_keys("revoke", "registrar")
        for _ in range(3):
            wait_for(lambda: get("/students", headers=headers), 401)
        assert {get("/students").status_code for _ in range(10)} == {401}


def test_keys_that_cannot_be_read_stay(sqlite_url: str, query_file: Callable[..., Rows], tmp_path: Path) -> None:
    """A database that fails for a while neither opens nor closes the service."""
    with Service(tmp_path, DATABASE_URL=sqlite_url) as service:
        key, secret = make_key("registrar", "editor")
        values = (key.id, key.name, key.role, key.sha256, 0)
        query_file("INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, NULL, NULL)", *values)
        headers = {"Authorization": f"Bearer {secret}"}
        wait_for(lambda: service.client.get("/students"), 401)
        query_file("ALTER TABLE api_keys RENAME TO others")
        while "the API keys cannot be read" not in service.log():
            time.sleep(0.05)
        assert service.client.get("/students").status_code == 401
        assert service.client.get("/students", headers=headers).status_code == 200
        query_file("ALTER TABLE others RENAME TO api_keys")
    assert service.log().count("the API keys cannot be read") == 1


def test_expired_key_is_a_401(sqlite_url: str, query_file: Callable[..., Rows]) -> None:
    now = int(time.time())
    keys = {name: make_key(name, "reader", now + seconds) for name, seconds in (("past", -1), ("future", 600))}
    with serve_database(sqlite_url):
        pass
    for key, _ in keys.values():
        values = (key.id, key.name, key.role, key.sha256, now, key.expires_at)
        query_file("INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?, NULL)", *values)
    with serve_database(sqlite_url) as client:
        statuses = {
            name: client.get("/students", headers={"Authorization": f"Bearer {secret}"}).status_code
            for name, (_, secret) in keys.items()
        }
    assert statuses == {"past": 401, "future": 200}


def test_cors_is_for_the_configured_origins(sqlite_url: str) -> None:
    """They may read and write, and see the fields that a client needs; others do neither."""
    own, other = {"Origin": "https://app.example"}, {"Origin": "https://other.example"}
    with serve_database(sqlite_url, cors_origins="https://app.example") as client:
        created = client.post("/student", json=ANANYA, headers=own | {"Sec-Fetch-Site": "cross-site"})
        assert (created.status_code, created.headers["Access-Control-Allow-Origin"]) == (201, own["Origin"])
        exposed = set(created.headers["Access-Control-Expose-Headers"].split(", "))
        assert exposed >= {"ETag", "Link", "Location", "X-Total-Count", "Retry-After", "RateLimit", "RateLimit-Policy"}
        assert exposed >= {"X-Request-ID", "traceparent", "Content-Disposition", "WWW-Authenticate"}
        names = "authorization, if-match, traceparent, X-Request-ID"
        asks = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": names}
        assert client.options("/student/1", headers=own | asks).status_code == 204
        assert client.options("/student/1", headers=other | asks).status_code == 400
        assert "Access-Control-Allow-Origin" not in client.get("/students", headers=other).headers
        assert client.post("/student", json=ANANYA, headers=other).status_code == 403
    with serve_database(sqlite_url) as client:
        assert "Access-Control-Allow-Origin" not in client.get("/students", headers=own).headers


@pytest.mark.parametrize(
    "path", ["/students", "/student/1", "/student/9", "/nothing", "/docs", "/departments.svg", "/health/live"]
)
@pytest.mark.parametrize("method", ["GET", "TRACE"])
def test_every_response_has_the_fields_of_security(client: httpx.Client, method: str, path: str) -> None:
    """Also a 404 and a 405; only students may be kept, by one browser that asks again before it shows them."""
    client.post("/student", json=ANANYA)
    headers = client.request(method, path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    has_students = method == "GET" and path in {"/students", "/student/1"}
    assert headers["Cache-Control"] == ("private, no-cache" if has_students else "no-store")


def test_keys_are_listed_without_their_secrets(run_keys: Callable[..., str], tmp_path: Path) -> None:
    """Also revoked and expired ones; a name can be used again once its key is revoked."""
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    secrets = [run_keys("create", "ann", "--role", "reader", "--expires", "2999-12-31").splitlines()[-1]]
    taken = "student-records: there is a key named 'ann'; revoke it first, or take another name\n"
    assert run_keys("create", "ann", "--role", "editor", code=1) == taken
    assert run_keys("revoke", secrets[0][3:11]) == "Revoked; it works for five seconds at most.\n"
    assert run_keys("revoke", "ann") == "It had been revoked already.\n"
    secrets.append(run_keys("create", "ann", "--role", "editor").splitlines()[-1])
    ids = [secret[3:11] for secret in secrets]
    assert sorted(line.split() for line in run_keys("list").splitlines()[1:]) == sorted(
        [
            [ids[0], "ann", "reader", day, "2999-12-31", "revoked", day],
            [ids[1], "ann", "editor", day, "never", "valid"],
        ]
    )
    stored = b"".join(file.read_bytes() for file in tmp_path.glob("students.db*"))
    assert all(secret.encode() not in stored and secret[12:].encode() not in stored for secret in secrets)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["create", "a b", "--role", "reader"], 2, NAME),
        (["create", "a:b", "--role", "reader"], 2, NAME),
        (["create", "a\u202eb", "--role", "reader"], 2, NAME),
        (["create", "a", "--role", "reader", "--expires", "9999-12-31"], 0, "Created the key a, reader."),
        (["create", "a"], 2, "Missing option"),
        (["create", "a", "--role", "admin"], 2, "'admin' is not one of 'reader', 'editor'"),
        (["create", "a", "--role", "reader", "--expires", "2020-01-01"], 2, "2020-01-01 is over"),
        (["create", "a", "--role", "reader", "--expires", "2999-01-01", "--print-hash"], 2, "does not expire"),
        (["revoke", "nobody"], 1, "student-records: there is no key named 'nobody'"),
    ],
    ids=str,
)
def test_wrong_use_is_said(run_keys: Callable[..., str], arguments: list[str], code: int, says: str) -> None:
    """In a frame, on a terminal of any width."""
    assert says in " ".join(re.sub("[│╭╮╰╯─]", " ", run_keys(*arguments, code=code)).split())


def test_printed_hash_lets_a_container_start(run_keys: Callable[..., str], tmp_path: Path) -> None:
    """And touches no database."""
    setting, secret = run_keys("create", "registrar", "--role", "editor", "--print-hash").splitlines()
    assert not (tmp_path / "students.db").exists()
    with Service(tmp_path, HOST="0.0.0.0", API_KEYS=setting) as service:
        created = service.client.post("/student", json=ANANYA, headers={"Authorization": f"Bearer {secret}"})
        assert created.status_code == 201
