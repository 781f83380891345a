"""The documentation: /openapi.json, and /docs in a real browser."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.service import serve_database


@pytest.fixture
def client(sqlite_url: str) -> Iterator[httpx.Client]:
    with serve_database(sqlite_url) as client:
        yield client


@pytest.fixture
def document(client: httpx.Client) -> Any:
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(document: Any) -> Iterator[tuple[str, Any]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def test_every_parameter_has_one_type(document: Any) -> None:
    """A header may be absent, but `null` in one is a text as any other."""
    types = {
        parameter["name"]: parameter["schema"].get("type")
        for _, operation in operations(document)
        for parameter in operation.get("parameters", [])
    }
    assert types == {
        "limit": "integer", "offset": "integer", "student_id": "integer",
        "If-Match": "string", "If-None-Match": "string", "Idempotency-Key": "string",
    }  # fmt: skip


def test_every_route_is_documented(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    assert {name for name, _ in operations(document)} == {
        "GET /students", "HEAD /students", "POST /student",
        "GET /student/{student_id}", "HEAD /student/{student_id}",
        "PUT /student/{student_id}", "PATCH /student/{student_id}", "DELETE /student/{student_id}",
        "GET /health/live", "HEAD /health/live", "GET /health/ready", "HEAD /health/ready",
    }  # fmt: skip


def test_every_operation_says_what_it_does_and_how_it_says_no(document: Any) -> None:
    for name, operation in operations(document):
        assert operation["description"], name
        assert {"400", "500", "503"} <= operation["responses"].keys(), name
        for status, response in operation["responses"].items():
            if status >= "400":
                (media_type,) = response["content"]
                assert media_type == "application/problem+json", name
                example = response["content"][media_type]["examples"]["problem"]["value"]
                assert example["status"] == int(status), name


def test_every_field_has_an_example(document: Any) -> None:
    for name in ("StudentCreate", "StudentUpdate", "StudentRead"):
        for field, schema in document["components"]["schemas"][name]["properties"].items():
            assert schema.get("examples"), (name, field)


def test_every_body_and_every_answer_has_a_worked_example(document: Any) -> None:
    for name, operation in operations(document):
        for body in (operation.get("requestBody", {}), *operation["responses"].values()):
            for media_type in body.get("content", {}).values():
                message = media_type["schema"].get("$ref", "").endswith("/Message")
                assert media_type.get("example") or media_type.get("examples") or message, name


def test_a_new_student_has_a_documented_place(document: Any) -> None:
    assert "Location" in document["paths"]["/student"]["post"]["responses"]["201"]["headers"]


def test_the_page_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(loaded) == 3
    for path in loaded:
        assert path.startswith("/docs/assets/")
        assert client.get(path).status_code == 200, path


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
    """Open, expand, fill in, execute, see the answer; then see the student in the list."""
    browser.get(f"{client.base_url}/")
    post = find(browser, ".opblock-post")
    find(post, ".opblock-summary-control").click()
    body = find(post, "textarea.body-param__text")
    assert json.loads(str(body.get_property("value"))) == {"name": "Ananya", "department": "CSE", "cgpa": 8.9}
    find(post, "button.execute").click()
    answer = find(post, ".live-responses-table .response-col_description .highlight-code")
    assert '"id": 1' in answer.text
    assert find(post, ".live-responses-table tbody .response-col_status").text.startswith("201")

    browser.execute_script("window.scrollTo(0, 0)")
    assert browser.save_screenshot(str(tmp_path / "docs.png"))  # the picture of the README

    get = browser.find_element(By.XPATH, "//*[@data-path='/students']/ancestor::*[contains(@class, 'opblock-get')]")
    find(get, ".opblock-summary-control").click()
    find(get, "button.execute").click()
    answer = find(get, ".live-responses-table .response-col_description .highlight-code")
    assert '"name": "Ananya"' in answer.text
    assert client.get("/students").json() == [{"id": 1, "name": "Ananya", "department": "CSE", "cgpa": 8.9}]

    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []  # type: ignore[no-untyped-call]


def test_the_page_shows_every_route(client: httpx.Client, browser: webdriver.Chrome) -> None:
    browser.get(f"{client.base_url}/docs")
    find(browser, ".opblock")
    shown = {
        f"{block.find_element(By.CSS_SELECTOR, '.opblock-summary-method').text} "
        f"{block.find_element(By.CSS_SELECTOR, '.opblock-summary-path').get_attribute('data-path')}"
        for block in browser.find_elements(By.CSS_SELECTOR, ".opblock")
    }
    assert shown == {name for name, _ in operations(client.get("/openapi.json").json())}
