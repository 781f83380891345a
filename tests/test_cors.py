"""CORS: what a page of another origin reads of every response, also of those that the HTTP protocol sends by itself."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from litestar import get
from selenium import webdriver

from litestar_app.app import create_app
from litestar_app.database.config import create_alchemy_config
from litestar_app.database.limits import Timeouts
from litestar_app.http.cors import create_cors
from litestar_app.server.protocol import Connections, Limits
from litestar_app.settings import Settings
from tests.browser import OTHER_HOST
from tests.service import ANANYA, API_KEYS, AS_EDITOR, AS_READER, EDITOR_SECRET, connect, serve_app
from tests.test_cross_site import serve_page

ORIGIN, OTHER = "https://app.example", "https://other.example"
ORIGINS = f"{ORIGIN}, https://second.example:8443"
PREFLIGHT = {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT"}
EXPOSED = {
    "allow", "content-disposition", "etag", "link", "location", "ratelimit", "ratelimit-policy", "retry-after",
    "traceparent", "www-authenticate", "x-request-id", "x-total-count",
}  # fmt: skip


@get("/fail", opt={"access": "public"}, include_in_schema=False)
async def fail() -> None:
    """Fail as only a defect does."""
    raise ZeroDivisionError


def make_app(sqlite_url: str, **others: Any) -> Any:
    settings = Settings(database_url=sqlite_url, **{"api_keys": API_KEYS, "cors_origins": ORIGINS, **others})
    app = create_app(settings, create_alchemy_config(settings, Timeouts(lock=0.1)))
    app.register(fail)
    return app


def serve(url: str, limits: Limits | None = None, **others: Any) -> AbstractContextManager[str]:
    """Serve by our protocol, which knows the origins too."""
    cors = create_cors(others.get("cors_origins", ORIGINS))
    return serve_app(make_app(url, **others), http=Connections(limits, cors))


@pytest.fixture(scope="module")
def cors_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    url = f"sqlite:///{tmp_path_factory.mktemp('cors')}/students.db"
    with serve(url) as service, connect(service, headers=AS_EDITOR) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        yield client


def assert_readable(headers: httpx.Headers | dict[str, str], *, by: str | None) -> None:
    """See that pages of an origin, and of no other, may read a response."""
    assert [field.strip().lower() for field in headers["vary"].split(",")].count("origin") == 1
    assert headers.get("access-control-allow-origin") == by
    exposed = headers.get("access-control-expose-headers", "").lower().split(", ")
    assert set(exposed) == (EXPOSED if by else {""})


STATUSES: list[tuple[int, str, str, dict[str, str]]] = [
    (200, "GET", "/students", {}),
    (200, "HEAD", "/student/1", {}),
    (200, "GET", "/students/export", {}),
    (200, "GET", "/students/export?format=xlsx", {}),
    (200, "GET", "/docs", {}),
    (200, "GET", "/docs/assets/swagger-ui.css", {}),
    (200, "GET", "/openapi.json", {}),
    (200, "GET", "/health/ready", {}),
    (204, "OPTIONS", "/students", {}),
    (304, "GET", "/student/1", {"If-None-Match": "*"}),
    (307, "GET", "/", {}),
    (400, "GET", "/students?x=1", {}),
    (401, "GET", "/students", {"Authorization": "none"}),
    (403, "POST", "/student", AS_READER),
    (404, "GET", "/student/9", {}),
    (404, "GET", "/nothing", {}),
    (405, "PUT", "/students", {}),
    (405, "TRACE", "/students", {}),
    (400, "POST", "/student", {}),
    (500, "GET", "/fail", {}),
    # by the protocol
    (400, "GET", "/students", {"Host": "a b"}),
    (414, "GET", f"/students?name={'x' * 20_000}", {}),
    (431, "GET", "/students", {"X-Large": "x" * 70_000}),
]


@pytest.mark.parametrize(("status", "method", "path", "headers"), STATUSES, ids=lambda value: str(value)[:20])
def test_every_response_says_who_may_read_it(
    cors_client: httpx.Client, status: int, method: str, path: str, headers: dict[str, str]
) -> None:
    for origin in (ORIGIN, "https://second.example:8443", OTHER, "null", None):
        given = headers | ({"Origin": origin} if origin else {}) | {"Sec-Fetch-Site": "none"}
        with connect(str(cors_client.base_url), headers=AS_EDITOR) as client:  # a rejection ends a connection
            response = client.request(method, path, headers=given)
        assert response.status_code == status
        assert_readable(response.headers, by=None if origin in {OTHER, "null", None} else origin)


@pytest.mark.parametrize("fields", [{}, {"Origin": ORIGIN}])
def test_without_cors_origins_nothing_is_said(idle_client: httpx.Client, fields: dict[str, str]) -> None:
    for method, path in (
        ("GET", "/students"),
        ("OPTIONS", "/students"),
        ("GET", "/nothing"),
        ("GET", "/" + "x" * 20_000),
    ):
        headers = httpx.request(method, f"{str(idle_client.base_url).rstrip('/')}{path}", headers=fields).headers
        assert "vary" not in headers
        assert not [name for name in headers if name.startswith("access-control-")]


def test_preflight_is_granted(cors_client: httpx.Client) -> None:
    """Before anything else is looked at: it has no key."""
    asked = PREFLIGHT | {
        "Access-Control-Request-Headers": "authorization,if-match, TRACEPARENT,x-request-id,tracestate"
    }
    response = httpx.options(cors_client.base_url.join("/student/1"), headers=asked)
    assert (response.status_code, response.content) == (204, b"")
    assert_readable(response.headers, by=ORIGIN)
    methods = response.headers["Access-Control-Allow-Methods"]
    assert methods == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
    allowed = response.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"authorization", "content-type", "if-match", "idempotency-key", "traceparent", "x-request-id"} < set(
        allowed
    )
    assert response.headers["Access-Control-Max-Age"] == "600"


@pytest.mark.parametrize(
    ("fields", "starts"),
    [
        ({"Origin": OTHER}, "Origin: expected one of CORS_ORIGINS"),
        ({"Origin": "null"}, "Origin: expected one of CORS_ORIGINS"),
        ({"Access-Control-Request-Method": "PROPFIND"}, "Access-Control-Request-Method: expected one of DELETE, GET"),
        ({"Access-Control-Request-Method": "patch"}, "Access-Control-Request-Method: expected one of DELETE, GET"),
        ({"Access-Control-Request-Headers": "x-other"}, "Access-Control-Request-Headers: expected only Accept,"),
    ],
    ids=str,
)
def test_rejected_preflight_is_a_problem(cors_client: httpx.Client, fields: dict[str, str], starts: str) -> None:
    response = cors_client.options("/student/1", headers=PREFLIGHT | fields)
    assert (response.status_code, response.headers["Content-Type"]) == (400, "application/problem+json")
    problem = response.json()
    assert (problem["type"], problem["title"], problem["status"]) == ("about:blank", "Bad Request", 400)
    assert problem["detail"].startswith(starts)
    assert_readable(response.headers, by=None if "Origin" in fields else ORIGIN)
    assert "access-control-allow-methods" not in response.headers


def exchange(service: str, data: bytes) -> tuple[int, dict[str, str], Any]:
    """Send bytes and read the response until the service ends it."""
    url = httpx.URL(service)
    with socket.create_connection((url.host, url.port or 0)) as connection:
        connection.sendall(data)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
    assert headers["content-type"] == "application/problem+json"
    return int(line.split()[1]), headers, json.loads(body)


SLOW = Limits(head_timeout=0.4, body_timeout=0.4, interval=0.05)
OWN_LINE = f"Origin: {ORIGIN}\r\n".encode()
HALF = b"POST /student HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (408, HALF + OWN_LINE + b"X-"),
        (408, HALF),
        (408, HALF + OWN_LINE + b"Content-Type: application/json\r\nAuthorization: KEY\r\nContent-Length: 9\r\n\r\n{"),
        (414, b"GET /" + b"x" * 20_000),
        (431, HALF + OWN_LINE + b"X-Large: " + b"x" * 400_000),
        (400, HALF + OWN_LINE + b"X: y\r\na b: c\r\n"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("origins", [ORIGIN, ORIGINS], ids=["one", "two"])
def test_request_that_does_not_arrive_is_readable(sqlite_url: str, origins: str, status: int, data: bytes) -> None:
    """Of one whose origin has not arrived either, if only one may have sent it."""
    with serve(sqlite_url, SLOW, cors_origins=origins) as service:
        given, headers, problem = exchange(service, data.replace(b"KEY", AS_EDITOR["Authorization"].encode()))
    assert (given, problem["status"]) == (status, status)
    assert_readable(headers, by=ORIGIN if OWN_LINE in data or origins == ORIGIN else None)


def test_overload_and_quota_are_readable(sqlite_url: str) -> None:
    headers = {"Origin": ORIGIN}
    with serve(sqlite_url, Limits(requests=0)) as service:
        response = httpx.get(f"{service}/students", headers=headers)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert_readable(response.headers, by=ORIGIN)
    with serve(sqlite_url, rate_limit="1/hour") as service, connect(service, headers=AS_READER) as client:
        assert client.get("/students", headers=headers).status_code == 200
        response = client.get("/students", headers=headers)
    assert response.status_code == 429
    assert_readable(response.headers, by=ORIGIN)


SCRIPT = """
const [service, key, done] = arguments;
const ask = async (path, method = "GET", headers = {}, body = undefined) => {
  try {
    const response = await fetch(service + path, { method, headers, body });
    await response.text();
    const fields = ["content-disposition", "retry-after", "allow", "etag"].filter((name) => response.headers.get(name));
    return [response.status, Boolean(response.headers.get("x-request-id")), ...fields];
  } catch (error) {
    return String(error);
  }
};
(async () => {
  const auth = { Authorization: `Bearer ${key}` };
  const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  const traced = { ...auth, traceparent: parent, "X-Request-ID": "a" };
  const json = { ...auth, "Content-Type": "application/json" };
  const student = JSON.stringify({ name: "Ananya", department: "CSE", cgpa: 8.9 });
  done({
    created: await ask("/student", "POST", json, student),
    traced: await ask("/student/1", "GET", traced),
    unmodified: await ask("/student/1", "GET", { ...auth, "If-None-Match": "*" }),
    patched: await ask("/student/1", "PATCH", json, '{"cgpa": 9}'),
    deleted: await ask("/student/1", "DELETE", auth),
    unauthorized: await ask("/students"),
    absent: await ask("/student/9", "GET", auth),
    unmatched: await ask("/nothing", "GET", auth),
    method: await ask("/students", "PUT", auth),
    invalid: await ask("/student", "POST", json, "{"),
    defect: await ask("/fail"),
    exported: await ask("/students/export", "GET", auth),
    workbook: await ask("/students/export?format=xlsx", "GET", auth),
    target: await ask("/students?name=" + "x".repeat(20000)),
    fields: await ask("/students", "GET", { ...auth, "If-Match": "x".repeat(70000) }),
    unknown: await ask("/students", "GET", { ...auth, "X-Other": "1" }),
  });
})();
"""
READ = {
    "created": [201, True, "etag"],
    "traced": [200, True, "etag"],
    "unmodified": [304, True, "etag"],
    "patched": [200, True, "etag"],
    "deleted": [200, True],
    "unauthorized": [401, True],
    "absent": [404, True],
    "unmatched": [404, True],
    "method": [405, True, "allow"],
    "invalid": [400, True],
    "defect": [500, True],
    "exported": [200, True, "content-disposition"],
    "workbook": [200, True, "content-disposition"],
    "target": [414, True],
    "fields": [431, True],
    "unknown": "TypeError: Failed to fetch",
}


def test_page_of_an_allowed_origin_reads_everything(sqlite_url: str, browser: webdriver.Chrome) -> None:
    """In a real browser, errors and exports included; a page of another origin reads nothing."""
    served: Any = serve_page
    with serve_app(served) as page, serve(sqlite_url, cors_origins=page) as service:
        run: Callable[..., Any] = browser.execute_async_script
        browser.set_script_timeout(60)
        browser.get(page)
        assert run(SCRIPT, service, EDITOR_SECRET) == READ
        browser.get(page.replace("127.0.0.1", OTHER_HOST))
        assert set(run(SCRIPT, service, EDITOR_SECRET).values()) == {"TypeError: Failed to fetch"}


def test_page_reads_that_the_service_is_overloaded(sqlite_url: str, browser: webdriver.Chrome) -> None:
    served: Any = serve_page
    with (
        serve_app(served) as page,
        serve(sqlite_url, Limits(requests=0), cors_origins=page) as service,
    ):
        browser.get(page)
        ask = SCRIPT[: SCRIPT.index("(async")] + 'ask("/students").then(done);'
        assert browser.execute_async_script(ask, service, "") == [503, True, "retry-after"]
