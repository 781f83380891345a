"""The documentation page, in a real browser and behind a proxy."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from litestar_app.app import create_app
from litestar_app.settings import Settings
from tests.service import ANANYA, connect, serve_app, serve_database


@pytest.fixture
def client(sqlite_url: str) -> Iterator[httpx.Client]:
    with serve_database(sqlite_url) as client:
        yield client


@contextmanager
def serve_below(prefix: str, database_url: str) -> Iterator[httpx.Client]:
    """Serve as behind a proxy: it takes a prefix off the path, and says so in ASGI's `root_path`."""
    app: Any = create_app(Settings(database_url=database_url))

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path", "").startswith(prefix):
            scope = {**scope, "root_path": prefix, "path": scope["path"].removeprefix(prefix)}
        await app(scope, receive, send)

    served: Any = proxy
    with serve_app(served) as url, connect(url) as client:
        yield client


def test_the_page_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    """And the policy lets it: no CDN, and no inline script or style but the one that it names by its hash."""
    response = client.get("/docs")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = dict(directive.split(maxsplit=1) for directive in response.headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": f"'self' 'sha256-{script_hash}'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    loaded = re.findall(r'(?:src|href)="([^"]*)"', response.text)
    assert loaded == [
        f"/docs/assets/{name}" for name in ("favicon-32x32.png", "swagger-ui.css", "swagger-ui-bundle.js")
    ]
    assert [client.get(path).status_code for path in loaded] == [200, 200, 200]


@pytest.mark.parametrize("path", ["/docs/nothing", "/docs/openapi.json", "/docs/assets/index.html", "/docs/swagger"])
def test_there_is_nothing_else_below_the_page(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.headers["Content-Type"]) == (404, "application/problem+json")
    assert response.json()["detail"] == f"There is nothing at {path}; /docs lists what there is"


@pytest.mark.parametrize(
    ("prefix", "root"),
    [
        ("/api", "/api"),
        ("/api/", "/api"),
        ("/a b/c", "/a%20b/c"),
        ("//evil.example", "/evil.example"),
        ('/"><script>', "/%22%3E%3Cscript%3E"),
    ],
)
def test_addresses_are_below_the_root_path(sqlite_url: str, prefix: str, root: str) -> None:
    """As paths that leave neither the service nor their place in the HTML, whatever a proxy passes on."""
    with serve_below(prefix, sqlite_url) as client:
        below = f"{client.base_url}{quote(prefix)}"
        page = client.get(f"{below}/docs").text
        assert set(re.findall(r'(?:src|href|document)="([^"]*/)[^"]*"', page)) == {f"{root}/", f"{root}/docs/assets/"}
        assert client.get(f"{below}/openapi.json").json()["servers"] == [{"url": root}]


def test_a_root_path_is_not_remembered(sqlite_url: str) -> None:
    """The document is made once for all; only its server depends on the request."""
    with serve_below("/api", sqlite_url) as client:
        below, plain = client.get("/api/openapi.json").json(), client.get("/openapi.json").json()
    assert below == {**plain, "servers": [{"url": "/api"}]}
    assert plain["servers"] == [{"url": "/"}]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A headless Chromium from the system; skipped where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no browser: install Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking",
        "disable-component-update", "disable-sync", "no-first-run", "window-size=1200,1250",
        f"user-data-dir={tmp_path / 'profile'}",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a machine without internet
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def find(place: webdriver.Chrome | WebElement, selector: str) -> WebElement:
    return WebDriverWait(place, 20).until(lambda place: place.find_element(By.CSS_SELECTOR, selector))


def test_a_person_creates_a_student_in_the_browser(
    client: httpx.Client, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    """Open, expand, fill in, execute, see the response; then see the student in the list."""
    browser.get(f"{client.base_url}/")
    post = find(browser, ".opblock-post")
    find(post, ".opblock-summary-control").click()
    body = find(post, "textarea.body-param__text")
    assert json.loads(str(body.get_property("value"))) == {"name": "Ananya", "department": "CSE", "cgpa": 8.9}
    find(post, "button.execute").click()
    response = find(post, ".live-responses-table .response-col_description .highlight-code")
    assert '"id": 1' in response.text
    assert find(post, ".live-responses-table tbody .response-col_status").text.startswith("201")

    browser.execute_script("window.scrollTo(0, 0)")
    assert browser.save_screenshot(str(tmp_path / "docs.png"))  # the picture of the README

    get = browser.find_element(By.XPATH, "//*[@data-path='/students']/ancestor::*[contains(@class, 'opblock-get')]")
    find(get, ".opblock-summary-control").click()
    find(get, "button.execute").click()
    response = find(get, ".live-responses-table .response-col_description .highlight-code")
    assert '"name": "Ananya"' in response.text
    assert client.get("/students").json() == [{"id": 1, "name": "Ananya", "department": "CSE", "cgpa": 8.9}]

    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []  # type: ignore[no-untyped-call]


def test_the_page_shows_every_operation_once(client: httpx.Client, browser: webdriver.Chrome) -> None:
    browser.get(f"{client.base_url}/docs")
    find(browser, ".opblock")
    shown = [
        f"{block.find_element(By.CSS_SELECTOR, '.opblock-summary-method').text} "
        f"{block.find_element(By.CSS_SELECTOR, '.opblock-summary-path').get_attribute('data-path')}"
        for block in browser.find_elements(By.CSS_SELECTOR, ".opblock")
    ]
    assert sorted(shown) == [
        "DELETE /student/{student_id}",
        "GET /health/live",
        "GET /health/ready",
        "GET /student/{student_id}",
        "GET /students",
        "PATCH /student/{student_id}",
        "POST /student",
        "PUT /student/{student_id}",
    ]


def test_the_page_works_behind_a_proxy(sqlite_url: str, browser: webdriver.Chrome) -> None:
    """Its files, the document and the requests that it makes are all below the prefix."""
    with serve_below("/api", sqlite_url) as client:
        browser.get(f"{client.base_url}/api/docs")
        post = find(browser, ".opblock-post")
        find(post, ".opblock-summary-control").click()
        find(post, "button.execute").click()
        assert find(post, ".live-responses-table tbody .response-col_status").text.startswith("201")
        assert find(post, ".request-url").text.endswith("/api/student")
        assert client.get("/students").json() == [{"id": 1, **ANANYA}]
