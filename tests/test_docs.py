"""The documentation page, in a real browser and behind a proxy."""

import base64
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from litestar_app.app import create_app
from litestar_app.departments.chart import WIDTH
from litestar_app.settings import Settings
from tests.browser import execute, find, read_errors
from tests.files import HEADER, make_xlsx
from tests.service import ANANYA, connect, serve_app

ROW = [ANANYA[name] for name in HEADER]
CSV = "\ufeffname;department;cgpa\r\nAnanya;CSE;8,9\r\n".encode()


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


def test_page_loads_nothing_from_elsewhere(idle_client: httpx.Client) -> None:
    """And the policy lets it: no CDN, and no inline script or style but the one that it names by its hash."""
    response = idle_client.get("/docs")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert set(response.headers["Content-Security-Policy"].split("; ")) == {
        "default-src 'none'", f"script-src 'self' 'sha256-{script_hash}'", "style-src 'self'", "img-src 'self' data:",
        "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    }  # fmt: skip
    loaded = re.findall(r'(?:src|href)="([^"]*)"', response.text)
    files = ["favicon-32x32.png", "swagger-ui.css", "swagger-ui-bundle.js"]
    assert loaded == [f"/docs/assets/{name}" for name in files]
    assert [idle_client.get(path).status_code for path in loaded] == [200, 200, 200]


ROOTS = [("/a b/c/", "/a%20b/c"), ("//evil.example", "/evil.example"), ('/"><script>', "/%22%3E%3Cscript%3E")]


@pytest.mark.parametrize(("prefix", "root"), ROOTS)
def test_addresses_are_below_the_root_path(sqlite_url: str, prefix: str, root: str) -> None:
    """Of each request, and as paths that leave neither the service nor their place in the HTML."""
    with serve_below(prefix, sqlite_url) as client:
        below = f"{client.base_url}{quote(prefix)}"
        page = client.get(f"{below}/docs").text
        assert set(re.findall(r'(?:src|href|document)="([^"]*/)[^"]*"', page)) == {f"{root}/", f"{root}/docs/assets/"}
        document, plain = client.get(f"{below}/openapi.json").json(), client.get("/openapi.json").json()
        assert client.get(f"{below}/", follow_redirects=False).headers["Location"] == f"{root}/docs"
        assert client.post(f"{below}/student", json=ANANYA).headers["Location"] == f"{root}/student/1"
    assert document == {**plain, "servers": [{"url": root}]}
    assert plain["servers"] == [{"url": "/"}]


@pytest.mark.parametrize(("name", "content"), [("students.csv", CSV), ("students.xlsx", make_xlsx([HEADER, ROW]))])
def test_page_imports_a_file_behind_a_proxy(
    sqlite_url: str, browser: webdriver.Chrome, tmp_path: Path, name: str, content: bytes
) -> None:
    """Through its file picker, with the type that the browser gives the part; and back comes the report.

    The page's files, the document and the requests that it makes are all below the prefix.
    """
    (tmp_path / name).write_bytes(content)
    with serve_below("/api", sqlite_url) as client:
        browser.get(f"{client.base_url}/api/docs")
        operation = find(browser, "#operations-transfer-import_students")
        status, body = execute(operation, tmp_path / name)
        assert (status, '"created": 1,' in body) == ("200", True)
        assert "/api/students/import" in find(operation, ".request-url").text
        status, body = execute(find(browser, "#operations-students-list_students"))
        assert (status, '"name": "Ananya"' in body) == ("200", True)
        assert client.get("/students").json() == [{"id": 1, **ANANYA}]
    assert read_errors(browser) == []


def test_page_shows_the_chart_behind_a_proxy(sqlite_url: str, browser: webdriver.Chrome) -> None:
    """As a picture in the description, whose address is relative to the page's."""
    with serve_below("/api", sqlite_url) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        browser.get(f"{client.base_url}/api/docs")
        operation = find(browser, "#operations-departments-get_chart")
        find(operation, ".opblock-summary-control").click()
        picture = find(operation, "img")
        assert picture.get_attribute("src") == f"{client.base_url}/api/departments.svg"
        WebDriverWait(picture, 20).until(lambda picture: picture.get_property("naturalWidth") == WIDTH)
    assert read_errors(browser) == []
