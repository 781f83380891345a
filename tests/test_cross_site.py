"""Requests that a page of another site makes, through the browser of somebody who may write."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from litestar_app.app import create_app
from litestar_app.settings import Settings
from tests.browser import OTHER_HOST, OWN_HOST, authorize, execute, find, read_errors
from tests.conftest import Rows
from tests.service import ANANYA, API_KEYS, AS_EDITOR, EDITOR_SECRET, connect, serve_app, serve_database

REASON = "in a browser, only pages of this service may write"
WRITES = ["POST /student", "PUT /student/1", "PATCH /student/1", "DELETE /student/1"]
OWN, TRUSTED = "http://students.example", "https://app.example"


def address(client: httpx.Client) -> str:
    return str(client.base_url).rstrip("/")


@pytest.mark.parametrize("request_line", WRITES)
def test_write_from_another_site_is_rejected(
    client: httpx.Client, ananya: dict[str, Any], statements: Callable[[], list[str]], request_line: str
) -> None:
    """Before its body is looked at, and before any statement."""
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://other.example"}):
        response = client.request(*request_line.split(), headers=headers, json={**ANANYA, "cgpa": 1})
        assert response.status_code == 403
        assert response.headers["Content-Type"] == "application/problem+json"
        (given,) = headers.items()
        expected = "same-origin or none" if "Sec-Fetch-Site" in headers else address(client)
        detail = f"{': '.join(given)}; expected {expected}: {REASON}"
        assert response.json() == {"type": "about:blank", "title": "Forbidden", "status": 403, "detail": detail}
    assert statements() == []
    assert client.get("/students").json() == [ananya]


@pytest.mark.parametrize("request_line", WRITES)
@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}])
@pytest.mark.usefixtures("ananya")
def test_write_of_a_program_or_an_own_page_succeeds(
    client: httpx.Client, request_line: str, headers: dict[str, str]
) -> None:
    assert client.request(*request_line.split(), headers=headers, json=ANANYA).is_success
    assert client.request(*WRITES[0].split(), headers={"Origin": address(client)}, json=ANANYA).is_success


DECIDED = [
    # Sec-Fetch-Site decides, whatever Origin says
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Origin": OWN}, False),
    ({"Sec-Fetch-Site": ""}, False),
    ({"Sec-Fetch-Site": "Same-Origin"}, False),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "https://students.example"}, True),  # a proxy that hides its scheme
    # Origin decides where it is absent
    ({"Origin": OWN}, True),
    ({"Origin": f"{OWN}:80"}, True),
    ({"Origin": OWN, "Host": "students.example:80"}, True),
    ({"Origin": OWN, "Host": "Students.Example"}, True),
    ({"Origin": f"{OWN}:8080", "Host": "students.example:8080"}, True),
    ({"Origin": "http://[::1]:8000", "Host": "[::1]:8000"}, True),
    ({"Origin": "https://students.example", "X-Forwarded-Proto": "https"}, True),
    ({"Origin": "https://students.example", "Host": "students.example:443", "X-Forwarded-Proto": "https"}, True),
    ({"Origin": "https://students.example"}, False),
    ({"Origin": "http://students.example:443", "X-Forwarded-Proto": "https"}, False),
    ({"Origin": f"{OWN}:8080"}, False),
    ({"Origin": f"{OWN}.other.example"}, False),
    ({"Origin": "http://other.example/students.example"}, False),
    ({"Origin": "http://not.students.example"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": ""}, False),
    ({"Origin": "http://é"}, False),
    # Referer decides where that is absent too
    ({"Referer": OWN}, True),
    ({"Referer": f"{OWN}/docs?x=http://other.example#y"}, True),
    ({"Referer": f"{OWN}:80/"}, True),
    ({"Referer": "HTTP://Students.Example/Docs"}, True),
    ({"Referer": f"{OWN}:8080/docs", "Host": "students.example:8080"}, True),
    ({"Referer": "http://[::1]:8000/", "Host": "[::1]:8000"}, True),
    ({"Referer": "https://students.example/", "X-Forwarded-Proto": "https"}, True),
    ({"Referer": "http://other.example/", "Origin": OWN}, True),
    ({"Referer": "http://other.example/", "Sec-Fetch-Site": "same-origin"}, True),
    ({"Referer": "https://students.example/"}, False),
    ({"Referer": f"{OWN}:8080/"}, False),
    ({"Referer": f"{OWN}.other.example/"}, False),
    ({"Referer": f"http://other.example/{OWN}/"}, False),
    ({"Referer": "http://students.example@other.example/"}, False),
    ({"Referer": "http://other.example\\@students.example/"}, False),
    ({"Referer": "http://user:password@students.example/"}, False),  # which no browser sends
    ({"Referer": "ftp://students.example/"}, False),
    ({"Referer": "/docs"}, False),
    ({"Referer": "about:blank"}, False),
    ({"Referer": ""}, False),
    ({"Referer": f"{OWN}/", "Origin": "null"}, False),
    ({"Referer": f"{OWN}/", "Sec-Fetch-Site": "cross-site"}, False),
]
SEVERAL = [
    ([("Origin", OWN), ("Origin", OWN)], True),
    ([("Origin", OWN), ("Origin", "http://other.example")], False),
    ([("Origin", "http://other.example"), ("Origin", OWN)], False),
    ([("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "none")], True),
    ([("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "none")], False),
    ([("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "cross-site")], False),
    ([("Referer", "http://other.example/"), ("Referer", f"{OWN}/")], False),
    ([("Referer", f"{OWN}/"), ("Referer", "http://other.example/")], False),
    ([("Origin", TRUSTED), ("Sec-Fetch-Site", "cross-site")], True),
    ([("Origin", TRUSTED.upper())], True),
    ([("Origin", f"{TRUSTED}:443")], True),
    ([("Origin", OWN), ("Origin", TRUSTED)], True),
    ([("Origin", TRUSTED), ("Origin", "http://other.example")], False),
    ([("Referer", f"{TRUSTED}/page")], True),
    ([("Referer", f"{TRUSTED}.other.example/page")], False),
]


@pytest.fixture(scope="module")
def trusting_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service that has keys and another origin whose pages may write."""
    url = f"sqlite:///{tmp_path_factory.mktemp('trusting')}/students.db"
    with serve_database(url, headers=AS_EDITOR, api_keys=API_KEYS, cors_origins=TRUSTED) as client:
        yield client


@pytest.mark.parametrize(("fields", "is_accepted"), SEVERAL, ids=str)
def test_every_line_decides(trusting_client: httpx.Client, fields: list[tuple[str, str]], *, is_accepted: bool) -> None:
    """Origins of CORS_ORIGINS are as the service's own, in Referer too."""
    response = trusting_client.post("/student", headers=[("Host", "students.example"), *fields], content="{")
    assert response.status_code == (415 if is_accepted else 403)


def test_rejected_referer_is_named_without_its_path(idle_client: httpx.Client) -> None:
    response = idle_client.delete("/student/1", headers={"Referer": "http://other.example/Ananya?name=Ananya"})
    detail = f"Referer: http://other.example; expected {address(idle_client)}: {REASON}"
    assert (response.status_code, response.json()["detail"]) == (403, detail)


@pytest.mark.parametrize(("headers", "is_accepted"), DECIDED, ids=str)
def test_fields_decide(keyed_client: httpx.Client, headers: dict[str, str], *, is_accepted: bool) -> None:
    """What is accepted meets the next check, of the body."""
    given = [(name.encode(), value.encode()) for name, value in {"Host": "students.example", **headers}.items()]
    response = keyed_client.post("/student", headers=given, content="{")
    assert response.status_code == (415 if is_accepted else 403)


def test_origin_without_a_host_is_foreign(idle_client: httpx.Client) -> None:
    """HTTP/1.0 can leave out what to compare it with."""
    with socket.create_connection((idle_client.base_url.host, idle_client.base_url.port or 0)) as connection:
        connection.sendall(b"DELETE /student/1 HTTP/1.0\r\nOrigin: http://other.example\r\n\r\n")
        assert b" 403 " in connection.recv(1000)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reading_is_never_rejected(idle_client: httpx.Client, method: str) -> None:
    """A link from another site to the documentation or to the chart works."""
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "http://other.example"}
    for path in ("/students", "/departments.svg", "/docs", "/openapi.json", "/health/live"):
        assert idle_client.request(method, path, headers=headers).is_success, path


PAGE = """<!doctype html>
<title>Another site</title>
<iframe name="hidden"></iframe>
<form id="text" method="post" enctype="text/plain" target="hidden">
<input name='{"name": "Eve", "department": "CSE", "cgpa": 0, "x": "' value='"}'></form>
<form id="file" method="post" enctype="multipart/form-data" target="hidden"><input name="file" value="name"></form>
<script>
const send = async (url) => {
  for (const form of document.forms) {
    form.action = url;
    const loaded = new Promise((resolve) => document.querySelector("iframe").addEventListener("load", resolve));
    form.submit();
    await loaded;
  }
  const text = { method: "POST", mode: "no-cors", body: JSON.stringify({ name: "Eve", department: "CSE", cgpa: 0 }) };
  await fetch(url, text).catch(() => {}); // it is sent, and its response is withheld
  navigator.sendBeacon(url, "name");
  await fetch(`${url}/1`, { method: "DELETE" }).catch(() => {});
  document.title = "sent";
};
</script>
"""


@contextmanager
def serve_recorded(app: Any) -> Iterator[tuple[str, list[tuple[str, str | None, int]]]]:
    """Serve an application; yield its URL, and of each request the method, the site that it comes from, the status."""
    requests: list[tuple[str, str | None, int]] = []

    async def record(scope: Any, receive: Any, send: Any) -> None:
        async def record_status(message: Any) -> None:
            if message["type"] == "http.response.start":
                site = dict(scope["headers"]).get(b"sec-fetch-site")
                requests.append((scope["method"], site and site.decode(), message["status"]))
            await send(message)

        await app(scope, receive, record_status if scope["type"] == "http" else send)

    served: Any = record
    with serve_app(served) as url:
        yield url, requests


async def serve_page(scope: Any, receive: Any, send: Any) -> None:
    """Another site."""
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": PAGE.encode()})


@pytest.mark.parametrize(
    ("hosts", "site"),
    [
        (("127.0.0.1", "localhost"), "cross-site"),
        (("127.0.0.1", "127.0.0.1"), "same-site"),  # another port
        ((OTHER_HOST, OWN_HOST), None),  # no fetch metadata over plain HTTP, but to this machine
        ((OTHER_HOST, "127.0.0.1"), "cross-site"),
    ],
)
def test_page_of_another_site_cannot_write(
    sqlite_url: str,
    query_file: Callable[..., Rows],
    browser: webdriver.Chrome,
    hosts: tuple[str, str],
    site: str | None,
) -> None:
    """Neither by forms, nor by requests without CORS, nor by a beacon: they reach the service without a preflight."""
    page_host, service_host = hosts
    served: Any = serve_page
    app = create_app(Settings(database_url=sqlite_url))
    with serve_recorded(app) as (service, requests), serve_app(served) as page, connect(service) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        requests.clear()
        browser.get(page.replace("127.0.0.1", page_host))
        browser.execute_script("send(arguments[0])", f"{service.replace('127.0.0.1', service_host)}/student")
        WebDriverWait(browser, 20).until(lambda browser: browser.title == "sent" and len(requests) >= 5)
    assert [request for request in requests if request[0] == "POST"] == [("POST", site, 403)] * 4
    assert {method for method, *_ in requests} == {"POST", "OPTIONS"}  # a DELETE does not get beyond its preflight
    assert query_file("SELECT name FROM students") == [("Ananya",)]


@pytest.mark.parametrize(
    ("host", "site"), [("127.0.0.1", "same-origin"), ("localhost", "same-origin"), (OWN_HOST, None)]
)
def test_documentation_page_can_write(sqlite_url: str, browser: webdriver.Chrome, host: str, site: str | None) -> None:
    """With the key that it was given; also under a name that a proxy passes on as Host, without fetch metadata."""
    app = create_app(Settings(database_url=sqlite_url, api_keys=API_KEYS))
    with serve_recorded(app) as (service, requests):
        browser.get(f"{service.replace('127.0.0.1', host)}/docs")
        authorize(browser, EDITOR_SECRET)
        status, body = execute(find(browser, ".opblock-post"))
        assert (status, '"id": 1' in body) == ("201", True)
        delete = find(browser, ".opblock-delete")
        find(delete, ".opblock-summary-control").click()
        find(delete, "tr[data-param-name=student_id] input").send_keys("1")
        find(delete, "button.execute").click()
        assert "Student deleted successfully" in find(delete, ".live-responses-table .highlight-code").text
    assert [request for request in requests if request[0] != "GET"] == [("POST", site, 201), ("DELETE", site, 200)]
    assert read_errors(browser) == []
