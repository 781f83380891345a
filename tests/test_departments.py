"""GET /departments and its chart, /departments.svg."""

import asyncio
import base64
import hashlib
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait
from sqlalchemy import Engine, event

from litestar_app.app import create_app
from litestar_app.departments.chart import MAX_ROWS, NAME_WIDTH, STYLE, WIDTH, draw_chart
from litestar_app.departments.controller import DepartmentSummary
from litestar_app.settings import Settings
from tests.browser import find, read_errors
from tests.conftest import Rows
from tests.service import ANANYA, API_KEYS, AS_READER, serve_app, serve_database

NAMESPACES = {"": "http://www.w3.org/2000/svg"}
PATHS = ["/departments", "/departments.svg"]
COLUMNS = "name VARCHAR(100), department VARCHAR(100)"
TABLES = {
    "sqlite": f"(id INTEGER PRIMARY KEY, {COLUMNS} COLLATE NOCASE, cgpa FLOAT)",
    "mysql": f"(id INTEGER AUTO_INCREMENT PRIMARY KEY, {COLUMNS}, cgpa DOUBLE) "
    "ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci",
}


def insert(query: Callable[..., Rows], rows: Rows) -> None:
    for row in rows:
        query("INSERT INTO students (name, department, cgpa) VALUES ('Ananya', ?, ?)", *row)


@pytest.fixture
def foreign_client(database_url: str, query: Callable[..., Rows]) -> Iterator[httpx.Client]:
    """A client of a table that another program has created: it holds NULLs, and compares letters in whatever case."""
    query(f"CREATE TABLE students {TABLES['sqlite' if database_url.startswith('sqlite') else 'mysql']}")
    with serve_database(database_url) as client:
        yield client


def summary(department: str | None, students: int = 1, cgpa: float | None = 8.9, **others: Any) -> DepartmentSummary:
    return DepartmentSummary(department, students, **{"cgpa_mean": cgpa, "cgpa_min": cgpa, "cgpa_max": cgpa, **others})


def test_departments_are_summarized(client: httpx.Client, query: Callable[..., Rows]) -> None:
    assert client.get("/departments").json() == []
    insert(query, [("ECE", 10.0), ("CSE", 7.5), ("CSE", 8.0), ("CSE", 9.25), ("CSE", 0.0)])
    response = client.get("/departments")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    assert response.json() == [
        {"department": "CSE", "students": 4, "cgpa_mean": 6.1875, "cgpa_min": 0.0, "cgpa_max": 9.25},
        {"department": "ECE", "students": 1, "cgpa_mean": 10.0, "cgpa_min": 10.0, "cgpa_max": 10.0},
    ]


def test_mean_is_between_the_lowest_and_the_highest(client: httpx.Client, query: Callable[..., Rows]) -> None:
    """A sum of doubles divided by their number may not be, by a rounding error."""
    insert(query, [(f"{cgpa} {count}", cgpa) for cgpa in (8.9, 0.1, 3.3) for count in (3, 6, 7) for _ in range(count)])
    summaries = client.get("/departments").json()
    assert [(s["cgpa_mean"], s["cgpa_max"]) for s in summaries] == [(s["cgpa_min"],) * 2 for s in summaries]
    assert len(summaries) == 9


NAMES = ["z", "Z", "cse", "CSE", "CSE ", "Çse", "cşe", "é", "e\u0301", "\uff21", "\U0001f600", "ß", "ss", "1", ""]


def test_departments_are_compared_by_code_point(foreign_client: httpx.Client, query: Callable[..., Rows]) -> None:
    """Whatever collation the table has: with that of this one, half of them would be the same."""
    insert(query, [(name, 5.0) for name in NAMES * 2])
    summaries = foreign_client.get("/departments").json()
    assert [(s["department"], s["students"]) for s in summaries] == [(name, 2) for name in sorted(NAMES)]


def test_latin_1_table_is_compared_by_code_point(mysql_url: str, mysql_query: Callable[..., Rows]) -> None:
    mysql_query(f"CREATE TABLE students {TABLES['mysql']}".replace("utf8mb4_general_ci", "latin1_swedish_ci")
        .replace("utf8mb4", "latin1"))  # fmt: skip
    insert(
        lambda statement, *values: mysql_query(statement.replace("?", "%s"), *values), [("é", 5), ("€", 5), ("E", 5)]
    )
    with serve_database(mysql_url) as client:
        assert [s["department"] for s in client.get("/departments").json()] == ["E", "é", "€"]


def test_nulls_have_an_entry_of_their_own(foreign_client: httpx.Client, query: Callable[..., Rows]) -> None:
    """It is the first; a CGPA that is not known does not count."""
    insert(query, [("CSE", None), (None, 4.0), ("ECE", 8.0), ("ECE", None), (None, 5.0), ("", None), ("ECE", 7.0)])
    cgpas = ("cgpa_mean", "cgpa_min", "cgpa_max")
    summaries = foreign_client.get("/departments").json()
    assert [(s["department"], s["students"], *(s[cgpa] for cgpa in cgpas)) for s in summaries] == [
        (None, 2, 4.5, 4.0, 5.0),
        ("", 1, None, None, None),
        ("CSE", 1, None, None, None),
        ("ECE", 3, 7.5, 7.0, 8.0),
    ]
    assert "no department" in foreign_client.get("/departments.svg").text


def test_odd_values_of_a_file_are_no_server_error(sqlite_url: str, query_file: Callable[..., Rows]) -> None:
    """A column of SQLite takes values of every type."""
    query_file(f"CREATE TABLE students {TABLES['sqlite']}")
    insert(query_file, [("CSE", "high"), ("CSE", b"\xff"), ("CSE", 9), (b"\xff\x00", 1e999), (7, -1e999)])
    with serve_database(sqlite_url) as client:
        summaries = client.get("/departments").json()
        assert {"department": "CSE", "students": 3, "cgpa_mean": 3.0, "cgpa_min": 0.0, "cgpa_max": 9.0} in summaries
        assert len(summaries) == 3
        response = client.get("/departments.svg")
    assert response.status_code == 200
    ET.fromstring(response.text)


def test_many_departments_are_all_listed(client: httpx.Client, query: Callable[..., Rows]) -> None:
    """They are written some at a time."""
    query("INSERT INTO students (name, department, cgpa) VALUES " + ", ".join(f"('A', '{n}', 5)" for n in range(2500)))
    departments = [summary["department"] for summary in client.get("/departments").json()]
    assert departments == sorted(str(number) for number in range(2500))


@pytest.mark.usefixtures("ananya")
def test_get_runs_one_statement_and_head_none(client: httpx.Client, statements: Callable[[], list[str]]) -> None:
    """So the response to HEAD has no length."""
    for number, path in enumerate(PATHS):
        head = client.head(path)
        assert len(statements()) == number
        get = client.get(path)
        assert len(statements()) == number + 1
        assert (get.status_code, head.status_code, head.content) == (200, 200, b"")
        ignored = {"date", "content-length", "x-request-id"}
        assert {**head.headers, **dict.fromkeys(ignored)} == {**get.headers, **dict.fromkeys(ignored)}
        assert "Content-Length" not in head.headers


@pytest.mark.parametrize("path", PATHS)
def test_query_parameter_is_rejected(idle_client: httpx.Client, path: str) -> None:
    for method in ("GET", "HEAD"):
        assert idle_client.request(method, f"{path}?x=1").status_code == 400
    detail = "query parameter 'x': not one of this route's (none)"
    assert idle_client.get(f"{path}?x=1").json()["detail"] == detail


@pytest.mark.parametrize("path", PATHS)
def test_statement_leaves_the_event_loop_alone(sqlite_url: str, path: str) -> None:
    """It reads the whole table."""
    threads: list[str] = []

    def trace(driver: sqlite3.Connection, _record: object) -> None:
        driver.set_trace_callback(lambda _: threads.append(threading.current_thread().name))

    event.listen(Engine, "connect", trace)
    try:
        with serve_database(sqlite_url) as client:
            client.get("/students?limit=1")
            event_loop = threads[-1]
            client.get(path)
            assert threads[-1] != event_loop
    finally:
        event.remove(Engine, "connect", trace)


@pytest.mark.parametrize("path", PATHS)
def test_client_that_has_gone_stops_the_statement(sqlite_url: str, path: str) -> None:
    """What is sent then, nobody reads."""
    app = create_app(Settings(database_url=sqlite_url))
    statuses: list[int] = []

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def call() -> None:
        scope: Any = {"type": "http", "method": "GET", "path": path, "query_string": b""}
        scope |= {"headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1)}
        async with app.lifespan():
            await app(scope, receive, send)

    asyncio.run(call())
    assert statuses == [400]


def read(chart: str) -> tuple[str, list[str]]:
    """Return the description of a chart, and every text that it shows; it must be XML."""
    root = ET.fromstring(chart)
    assert (root.get("role"), root.get("aria-labelledby")) == ("img", "title description")
    assert root.findtext("./title[@id='title']", namespaces=NAMESPACES) == "Students and mean CGPA by department"
    description = root.findtext("./desc[@id='description']", namespaces=NAMESPACES)
    assert description is not None
    return description, [text.text or "" for text in root.iterfind(".//text", NAMESPACES)]


def test_chart_says_in_words_what_it_shows() -> None:
    cse = summary("CSE", 1240, cgpa_mean=8.214, cgpa_min=4.1, cgpa_max=9.9)
    description, texts = read(draw_chart([summary(None, 3, None), cse]))
    assert description == (
        "1 department, 1,243 students. \u2068no department\u2069: 3 students, no CGPA. "
        "\u2068CSE\u2069: 1,240 students, mean CGPA 8.21, lowest 4.10, highest 9.90."
    )
    assert texts[-6:] == ["no department", "3", "no CGPA", "CSE", "1,240", "8.21"]


def test_chart_of_no_students_says_so() -> None:
    assert read(draw_chart([])) == (
        "There are no students.", ["Students and mean CGPA by department", "There are no students."]
    )  # fmt: skip


def test_bars_are_as_long_as_departments_are_large() -> None:
    """One student is seen too; a CGPA that no rule allows stays on the scale, and its number is true."""
    chart = draw_chart([summary("a", 4000), summary("b", 1000), summary("c", 1, 0.0), summary("d", 0, 95.0),
        summary("e", 1, -1e300)])  # fmt: skip
    root = ET.fromstring(chart)
    widths = [float(bar.get("width") or 0) for bar in root.iterfind(".//rect[@class='bar']", NAMESPACES)]
    assert widths == [220, 55, 1, 1, 1]
    places = [float(mean.get("cx") or 0) for mean in root.iterfind(".//circle", NAMESPACES)]
    assert places == [832.2, 832.2, 672, 852, 672]
    assert {"95", "-1e+300"} < set(read(chart)[1])


STRANGE = [
    ("</desc><script>alert(1)</script>", "</desc><script>alert(1)</script>"),
    ("\"'&lt;&amp;]]>", "\"'&lt;&amp;]]>"),
    ("a\x00b\x1b\x7f\x85\ufffe\uffff", "a\ufffdb\ufffd\ufffd\ufffd\ufffd\ufffd"),
    ("a\tb\nc\rd\u2028e", "a\ufffdb\ufffdc\ufffdd\ufffde"),
    ("\u202etneduts\u2066", "\ufffdtneduts\ufffd"),
    ("\ud800", "\ufffd"),
    ("", "(blank)"),
    (" \u3000", "(blank)"),
    ("هندسة الحاسوب", "هندسة الحاسوب"),
    ("क्षत्रिय\u200d", "क्षत्रिय\u200d"),
]


@pytest.mark.parametrize(("name", "shown"), STRANGE, ids=ascii)
def test_any_name_is_only_text(name: str, shown: str) -> None:
    description, texts = read(draw_chart([summary(name)]))
    assert f"\u2068{shown}\u2069:" in description
    assert shown in texts


@pytest.mark.parametrize("letter", ["W", "a", "i", "計", "e\u0301", "\u0301", "\U0001f600"], ids=ascii)
def test_long_name_is_cut(letter: str) -> None:
    """Its beginning is in the description, as long as a name can be in a table of ours."""
    description, texts = read(draw_chart([summary(letter * 5000)]))
    assert f"\u2068{(letter * 5000)[:100]}…\u2069: 1 student," in description
    label = texts[-3]
    assert label.endswith("…")
    assert letter * 5000 == label[:-1] + (letter * 5000)[len(label) - 1 :]
    assert len(label) <= 101


def test_chart_grows_with_the_departments_up_to_a_thousand() -> None:
    """Of more than that it says where they are."""
    few, all_, more = (draw_chart([summary(f"{n:04}") for n in range(count)]) for count in (1, MAX_ROWS, MAX_ROWS + 2))
    heights = [int(ET.fromstring(chart).get("height") or 0) for chart in (few, all_, more)]
    assert heights == [178, 178 + 30 * (MAX_ROWS - 1), 178 + 30 * MAX_ROWS]
    description, texts = read(more)
    assert "0999" in texts
    assert "1000" not in texts
    note = "Not shown: 2 more departments; GET /departments lists all."
    assert (description[-len(note) :], texts[-1]) == (note, note)
    assert "1,002 departments, 1,002 students." in texts


def contrast(first: str, second: str) -> float:
    """Compare two colours as WCAG 2 does."""

    def luminance(colour: str) -> float:
        digits = colour if len(colour) == 6 else "".join(digit * 2 for digit in colour)
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    darker, lighter = sorted([luminance(first), luminance(second)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("style", STYLE.split("@media"), ids=["light", "dark"])
def test_colours_have_contrast(style: str) -> None:
    """Texts 4.5, as WCAG 2 asks for, and shapes 3; but for the rules, which nobody needs."""
    colours = dict(re.findall(r"(\.?\w+) \{ (?:fill|stroke): #(\w+)", style))
    assert set(colours) == {".page", "text", ".note", ".rule", ".bar", ".mean", ".range"}
    for kind in ("text", ".note", ".bar", ".mean", ".range"):
        assert contrast(colours[kind], colours[".page"]) >= (3 if kind == ".range" else 4.5), kind


def test_chart_has_no_scripts_and_a_policy_without_any(client: httpx.Client) -> None:
    response = client.get("/departments.svg")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "image/svg+xml")
    style_hash = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert set(response.headers["Content-Security-Policy"].split("; ")) == {
        "default-src 'none'", f"style-src 'sha256-{style_hash}'", "base-uri 'none'", "form-action 'none'",
        "frame-ancestors 'none'", "sandbox",
    }  # fmt: skip
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    elements = [*ET.fromstring(draw_chart([summary("CSE"), summary(None)])).iter()]
    assert {element.tag.partition("}")[2] for element in elements} == {
        "svg", "title", "desc", "style", "rect", "text", "path", "g", "circle",
    }  # fmt: skip
    assert {name for element in elements for name in element.attrib} == {
        "viewBox", "width", "height", "role", "aria-labelledby", "id", "class", "x", "y", "d", "rx", "cx", "cy", "r",
        "text-anchor",
    }  # fmt: skip


NATURAL = [
    "Computer Science, Artificial Intelligence, Robotics and all else", "MATHEMATICS AND MECHANICAL ENGINEERING",
    "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@", "Факультет прикладной математики и процессов управления",
    "كلية الهندسة الكهربائية وهندسة الحاسوب وتقنية المعلومات والاتصالات",
]  # fmt: skip


def test_chart_looks_right_in_a_browser(sqlite_url: str, browser: webdriver.Chrome) -> None:
    """Opened as a page: the policy lets the style in, the labels fit into their column, nothing is an error."""
    with serve_database(sqlite_url) as client:
        for name in NATURAL:
            assert client.post("/student", json={**ANANYA, "department": name}).status_code == 201
        browser.get(f"{client.base_url}/departments.svg")
    assert find(browser, ".bar").value_of_css_property("fill") == "rgb(0, 101, 168)"
    measure = "return [...document.querySelectorAll('.name')].map(label => label.getComputedTextLength())"
    widths = browser.execute_script(measure)
    assert len(widths) == len(NATURAL)
    assert max(widths) <= NAME_WIDTH + 8, widths  # where the viewport of a label ends
    assert read_errors(browser) == []


PAGE = """<!doctype html>
<title>A page</title>
<img>
<script>
const show = (src) => new Promise((resolve) => {
  const image = document.querySelector("img");
  image.onload = () => resolve(image.naturalWidth);
  image.onerror = () => resolve(0);
  image.src = src;
});
const fetchAndShow = async (url, headers) => {
  const response = await fetch(url, { headers });
  return show(URL.createObjectURL(await response.blob()));
};
const tell = async (width) => { document.title = `width ${await width}`; };
</script>
"""


async def serve_page(scope: Any, receive: Any, send: Any) -> None:
    """A page of another origin."""
    if scope["type"] == "lifespan":
        for event_ in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event_}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": PAGE.encode()})


def measure_image(browser: webdriver.Chrome, script: str, *arguments: Any) -> str:
    """Return how wide the picture of the page is; 0 if the browser does not show it."""
    browser.execute_script(f"document.title = 'loading'; tell({script})", *arguments)
    WebDriverWait(browser, 20).until(lambda browser: browser.title.startswith("width "))
    return browser.title.removeprefix("width ")


def test_chart_can_be_embedded_as_documented(sqlite_url: str, browser: webdriver.Chrome) -> None:
    """An `<img>` of another origin shows nothing, with keys or without; a page can show what it fetches."""
    page: Any = serve_page
    with serve_app(page) as origin:
        with serve_database(sqlite_url) as client:
            url = f"{client.base_url}/departments.svg"
            browser.get(f"{client.base_url}/docs")  # a page of the same origin
            browser.execute_script("const image = document.createElement('img'); document.body.prepend(image)")
            browser.execute_script("document.querySelector('img').src = '/departments.svg'")
            image = find(browser, "img[src='/departments.svg']")
            WebDriverWait(image, 20).until(lambda image: image.get_property("naturalWidth") == WIDTH)
            browser.get(origin)
            assert measure_image(browser, "show(arguments[0])", url) == "0"
        with serve_database(sqlite_url, api_keys=API_KEYS, cors_origins=origin) as client:
            url = f"{client.base_url}/departments.svg"
            browser.get(origin)
            assert measure_image(browser, "show(arguments[0])", url) == "0"
            script = "fetchAndShow(arguments[0], arguments[1])"
            assert measure_image(browser, script, url, AS_READER) == str(WIDTH)
