"""A headless Chromium from the system, and what tests do with its pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

OWN_HOST, OTHER_HOST = "students.example", "other.example"
"""Names that the browser takes for those of this machine, and does not trust as it trusts 127.0.0.1."""


@contextmanager
def open_browser(directory: Path) -> Iterator[webdriver.Chrome]:
    """Open a browser whose profile is in a directory; skip the test where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no browser: install Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    known = f"MAP {OWN_HOST} 127.0.0.1, MAP {OTHER_HOST} 127.0.0.1, EXCLUDE 127.0.0.1, EXCLUDE localhost"
    for argument in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking",
        "disable-component-update", "disable-sync", "no-first-run", "window-size=1200,1250",
        f"user-data-dir={directory / 'profile'}",
        f"host-resolver-rules={known}, MAP * ~NOTFOUND",  # a machine without internet
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.accept_insecure_certs = True  # a test signs its own
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def find(place: webdriver.Chrome | WebElement, selector: str) -> WebElement:
    return WebDriverWait(place, 20).until(lambda place: place.find_element(By.CSS_SELECTOR, selector))


def execute(operation: WebElement, file: Path | None = None) -> tuple[str, str]:
    """Expand an operation of the page and execute its example, or with a file; return the status and the body."""
    find(operation, ".opblock-summary-control").click()
    if file is not None:
        find(operation, "input[type=file]").send_keys(str(file))
    find(operation, "button.execute").click()
    body = find(operation, ".live-responses-table .response-col_description .highlight-code").text
    return find(operation, ".live-responses-table tbody .response-col_status").text.split()[0], body


def authorize(browser: webdriver.Chrome, secret: str) -> None:
    """Give an API key to the page, for its requests."""
    find(browser, "button.authorize").click()
    find(browser, ".modal-ux input").send_keys(secret)
    find(browser, ".modal-ux button.authorize").click()
    find(browser, ".modal-ux .btn-done").click()


def read_errors(browser: webdriver.Chrome) -> list[Any]:
    """Return what the browser has logged as an error: a script, a file or a policy that has failed."""
    return [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]  # type: ignore[no-untyped-call]
