"""GET /students filtered, sorted and page by page, against a reference in plain Python."""

import asyncio
import itertools
import random
import threading
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar import Request
from litestar.exceptions import ClientException
from litestar.types import HTTPReceiveMessage
from sqlalchemy import text

from litestar_app.database import Database
from litestar_app.database.limits import SCANNERS
from litestar_app.exceptions import InvalidQueryError
from litestar_app.http.connections import run_while_connected
from litestar_app.students.record import LISTINGS
from tests.conftest import Rows
from tests.database import prepare, run
from tests.service import ANANYA, serve_database

COLUMNS = ("id", "name", "department", "cgpa")
FIRST: dict[str, Any] = {"limit": 1, "sort": "name,department,cgpa"}
NULLABLE = {
    "sqlit": "(id INTEGER PRIMARY KEY, name VARCHAR, department VARCHAR, cgpa FLOAT)",
    "mysql": "(id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(100), department VARCHAR(100), cgpa DOUBLE)"
    " CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
}
FORMS = ("aA", "iIİı", "sSſ", "kK\u212a", "σΣς", "ßẞ", "жЖ", "𞤀𞤢")
"""Letters, each in all of its forms."""
LETTERS = "".join(FORMS) + "%_/\\.-[]^'\" é日😀"
NAMES = st.text(LETTERS, min_size=1, max_size=4).filter(lambda text: text == text.strip())
DEPARTMENTS = ["CSE", "cse", "CSE ", "Ж", "ꙮ", "😀", "a'b"]
CGPAS = [0.0, 5.0, 8.9, 8.899999999999999, 9.99, 10.0]


def fold(text: str) -> str:
    return "".join(next((forms[0] for forms in FORMS if letter in forms), letter) for letter in text)


def sort_key(column: str) -> Callable[[dict[str, Any]], Any]:
    """Sort NULL first, and texts by code point."""
    return lambda row: (row[column] is not None, row[column])


def forms_of(text: str) -> set[str]:
    """A filter matches as it is given, and normalised."""
    return {text, " ".join(unicodedata.normalize("NFC", text).split())}


def list_reference(rows: list[dict[str, Any]], query: dict[str, Any]) -> list[dict[str, Any]]:
    """Filter and sort as the contract says."""
    found = [
        row
        for row in rows
        if ("department" not in query or row["department"] in set().union(*map(forms_of, query["department"])))
        and ("name" not in query or any(fold(form) in fold(row["name"] or "") for form in forms_of(query["name"])))
        and ("cgpa_min" not in query or (row["cgpa"] is not None and row["cgpa"] >= query["cgpa_min"]))
        and ("cgpa_max" not in query or (row["cgpa"] is not None and row["cgpa"] <= query["cgpa_max"]))
    ]
    keys = query.get("sort", "id").split(",")
    for key in ["-id" if keys[-1].startswith("-") else "id", *reversed(keys)]:
        found.sort(key=sort_key(key.removeprefix("-")), reverse=key.startswith("-"))
    return found


def walk(client: httpx.Client, url: str | None, relation: str) -> Iterator[list[Any]]:
    """Follow the links of one kind from page to page; yield the pages, that at `url` first."""
    while url:
        response = client.get(url)
        assert response.status_code == 200, response.text
        yield response.json()
        url = response.links.get(relation, {}).get("url")


def find_last(client: httpx.Client, url: str) -> str:
    while following := client.get(url).links.get("next", {}).get("url"):
        url = following
    return url


@st.composite
def queries(draw: st.DrawFn) -> dict[str, Any]:
    """Draw filters and a sort."""
    query: dict[str, Any] = {}
    if draw(st.booleans()):
        columns = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=4, unique=True))
        query["sort"] = ",".join(draw(st.sampled_from(["", "-"])) + column for column in columns)
    if draw(st.booleans()):
        query["department"] = draw(st.lists(st.sampled_from(DEPARTMENTS), min_size=1, max_size=3))
    if draw(st.sampled_from([True, False, False])):
        query["name"] = draw(NAMES)
    for bound in ("cgpa_min", "cgpa_max"):
        if draw(st.sampled_from([True, False, False])):
            query[bound] = draw(st.sampled_from(CGPAS))
    if query.get("cgpa_min", 0) > query.get("cgpa_max", 10):
        query["cgpa_min"], query["cgpa_max"] = query["cgpa_max"], query["cgpa_min"]
    return query


ROWS = st.lists(
    st.tuples(
        st.none() | NAMES,
        st.none() | st.sampled_from([department.strip() for department in DEPARTMENTS]),
        st.none() | st.sampled_from(CGPAS),
    ),
    max_size=25,
)


def test_walks_are_those_of_the_reference(database_url: str, query: Callable[..., Rows]) -> None:
    """Forwards, backwards, counted, from an offset; with NULLs, and every letter in every form."""
    query(f"CREATE TABLE students {NULLABLE[database_url[:5]]}")
    with serve_database(database_url) as client:

        @settings(max_examples=150, deadline=None, database=None)
        @given(ROWS, queries(), st.integers(1, 7), st.integers(0, 30))
        def check(values: list[tuple[Any, ...]], asked: dict[str, Any], limit: int, offset: int) -> None:
            query("DELETE FROM students")
            rows = [dict(zip(COLUMNS, (number + 1, *value), strict=True)) for number, value in enumerate(values)]
            for row in rows:
                query("INSERT INTO students VALUES (?, ?, ?, ?)", *row.values())
            expected = list_reference(rows, asked)
            first = f"/students?{urlencode({**asked, 'limit': limit}, doseq=True)}"
            response = client.get(f"{first}&count=true")
            assert response.headers["X-Total-Count"] == str(len(expected))
            pages = [*walk(client, first, "next")]
            assert [row for page in pages for row in page] == expected
            assert all(len(page) == limit for page in pages[:-1])
            back = [*walk(client, find_last(client, first), "prev")]
            assert [row for page in reversed(back) for row in page] == expected
            somewhere = client.get(f"{first}&offset={offset}")
            assert somewhere.json() == expected[offset : offset + limit]
            assert ("prev" in somewhere.links, "next" in somewhere.links) == (
                offset > 0 and len(expected) > 0,
                offset + limit < len(expected),
            )
            assert [*walk(client, somewhere.links["first"]["url"], "next")] == pages

        check()


def test_walk_while_others_write(database_url: str) -> None:
    """Whoever is there all the time is listed once, in both directions, whoever else comes and goes."""
    kept = [f"Kept {number}" for number in range(60)]
    with serve_database(database_url) as client:
        for name in kept:
            student = {"name": name, "department": random.choice("AB"), "cgpa": random.choice([1, 2, 3])}
            assert client.post("/student", json=student).status_code == 201
        done = threading.Event()

        def write() -> None:
            with httpx.Client(base_url=client.base_url) as writer:
                while not done.is_set():
                    noise = {"name": "Noise", "department": random.choice("AB"), "cgpa": random.choice([1, 2, 3])}
                    path = f"/student/{writer.post('/student', json=noise).json()['id']}"
                    writer.patch(path, json={"cgpa": random.choice([1, 2, 3])})
                    if random.random() < 0.7:
                        writer.delete(path)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for sort in ("id", "-cgpa", "department,-cgpa", "cgpa,-department,name"):
                first = f"/students?sort={sort}&limit=4"
                for pages in (walk(client, first, "next"), walk(client, find_last(client, first), "prev")):
                    names = [row["name"] for page in pages for row in page]
                    assert sorted(name for name in names if name in kept) == sorted(kept)
        finally:
            done.set()
            thread.join()


def test_links_lead_on_where_the_boundary_has_gone(client: httpx.Client) -> None:
    """To a page that has been emptied, too; its links lead to what is left."""
    for number in range(1, 7):
        assert client.post("/student", json={"name": str(number), "department": "A", "cgpa": 1}).status_code == 201
    second = client.get(client.get("/students?limit=2").links["next"]["url"])
    third = second.links["next"]["url"]
    for number in (4, 5, 6):
        client.delete(f"/student/{number}")
    empty = client.get(third)
    assert (empty.json(), [*empty.links]) == ([], ["first", "prev"])
    last = client.get(empty.links["prev"]["url"])
    assert ([row["id"] for row in last.json()], [*last.links]) == ([2, 3], ["first", "prev"])
    for number in (1, 2, 3):
        client.delete(f"/student/{number}")
    assert [*client.get(third).links] == ["first"]
    before = client.get(second.links["prev"]["url"])
    assert (before.json(), [*before.links]) == ([], ["first"])


def test_walk_passes_nulls(database_url: str, query: Callable[..., Rows]) -> None:
    """They come last descending, and a page may end among them."""
    query(f"CREATE TABLE students {NULLABLE[database_url[:5]]}")
    for name in ("A", None, None, "B", None):
        query("INSERT INTO students (name) VALUES (?)", name)
    with serve_database(database_url) as client:
        for first in ("/students?sort=-name&limit=1", "/students?sort=-name,department&limit=2"):
            names = [row["name"] for page in walk(client, first, "next") for row in page]
            assert names == ["B", "A", None, None, None]
            back = [*walk(client, find_last(client, first), "prev")]
            assert [row["name"] for page in reversed(back) for row in page] == names


@pytest.mark.parametrize("sort", ["cgpa", "-cgpa", "cgpa,name", "-cgpa,-name"])
def test_walk_passes_infinities(sqlite_url: str, query_file: Callable[..., Rows], sort: str) -> None:
    """Which another program may store in a file."""
    query_file(f"CREATE TABLE students {NULLABLE['sqlit']}")
    for cgpa in (5.0, 1e999, None, -1e999, 1e999, -1e999):
        query_file("INSERT INTO students (name, cgpa) VALUES ('A', ?)", cgpa)
    ids = [3, 4, 6, 1, 2, 5]
    with serve_database(sqlite_url) as client:
        first = f"/students?limit=1&sort={sort}"
        pages = itertools.islice(walk(client, first, "next"), 9)
        assert [row["id"] for page in pages for row in page] == (ids[::-1] if sort.startswith("-") else ids)


INFINITY, NAN = float("inf"), float("nan")
Filters, Boundary, Cursor = LISTINGS.filters_type, LISTINGS.boundary_type, LISTINGS.cursor_type


@pytest.mark.parametrize("sort", ["cgpa,id", "-cgpa,id", "name,cgpa,id", "cgpa,name,id"])
@pytest.mark.parametrize("is_backward", [False, True])
@pytest.mark.parametrize("cgpa", [INFINITY, -INFINITY, 1.7976931348623157e308])
def test_boundary_of_infinity_is_no_error(client: httpx.Client, sort: str, is_backward: bool, cgpa: float) -> None:
    """On a database without infinities too, where such a cursor is forged."""
    assert client.post("/student", json=ANANYA).status_code == 201
    cursor = Cursor(Filters(), sort, is_backward, Boundary(1, "A", None, cgpa)).encode()
    assert client.get(f"/students?cursor={cursor}").status_code == 200


@pytest.mark.parametrize(
    ("filters", "boundary"),
    [
        (Filters(), Boundary(1, None, None, NAN)),
        (Filters(cgpa_min=NAN), None),
        (Filters(cgpa_max=NAN), None),
        (Filters(cgpa_max=INFINITY), None),
        (Filters(cgpa_min=-INFINITY), None),
    ],
    ids=repr,
)
def test_cursor_of_no_number_is_damaged(client: httpx.Client, filters: Any, boundary: Any) -> None:
    cursor = Cursor(filters, "cgpa,id", is_backward=False, boundary=boundary).encode()
    response = client.get(f"/students?cursor={cursor}")
    assert (response.status_code, response.json()["detail"]) == (400, f"query parameter {DAMAGED}")


@pytest.mark.parametrize("letter", ["x", "é", "/", '"'])
def test_filters_are_rejected_before_their_links_are(sqlite_url: str, letter: str) -> None:
    """However long the student at a boundary is."""
    departments = ["A"]
    with serve_database(sqlite_url) as client:
        for _ in range(2):
            client.post("/student", json={"name": "\U0001f600" * 100, "department": "A", "cgpa": 8.9})
        while (page := client.get("/students", params=FIRST | {"department": departments})).status_code == 200:
            for relation in ("first", "next"):
                assert client.get(page.links[relation]["url"]).status_code == 200
            departments.append(f"{len(departments):03}{letter * 97}")
    assert len(departments) > 8
    assert page.json()["detail"] == "The filters are too long: the links to other pages have 6692 bytes for them"


def test_links_keep_what_was_asked_for(client: httpx.Client) -> None:
    """But for the limit, which may change from page to page."""
    for name in ("a&b", "c"):
        assert client.post("/student", json={"name": name, "department": "R&D", "cgpa": 8.9}).status_code == 201
    page = client.get("/students?limit=1&count=true&department=R%26D&cgpa_min=8.9&sort=-name")
    assert [row["name"] for row in page.json()] == ["c"]
    assert page.headers["Link"].startswith(
        '</students?limit=1&count=true&department=R%26D&cgpa_min=8.9&sort=-name%2C-id>; rel="first", </students?'
    )
    following = client.get(page.links["next"]["url"].replace("limit=1", "limit=7"))
    assert [row["name"] for row in following.json()] == ["a&b"]
    assert following.headers["X-Total-Count"] == "2"
    assert "X-Total-Count" not in client.get("/students").headers


DAMAGED = "'cursor': damaged; take it from a Link header as it is"
BAD_SORT = "'sort': expected a list such as department,-cgpa, of id, name, department, cgpa, each at most once, got"


def test_name_to_look_for_has_one_limit_everywhere() -> None:
    """Also where no schema of a route has checked it, as for a command."""
    LISTINGS.create(name="x" * 100)
    with pytest.raises(InvalidQueryError, match="expected at most 100 characters"):
        LISTINGS.create(name="x" * 101)


def test_filters_are_normalised(client: httpx.Client, query: Callable[..., Rows]) -> None:
    """And match as they are given too: another program, or an earlier release, may have stored such a text."""
    students = [(1, "Jos\u00e9 Mary", "C SE"), (2, "Jose\u0301  Mary", "C  SE"), (3, "Jos\u00e9", "CSE")]
    for student in students:
        query("INSERT INTO students (id, name, department, cgpa) VALUES (?, ?, ?, 1)", *student)

    def find(**params: Any) -> list[int]:
        return [student["id"] for student in client.get("/students", params={**params, "limit": 100}).json()]

    assert find(department=" C\u00a0 SE ") == [1]
    assert find(department="C SE") == [1]
    assert find(department="C  SE") == [1, 2]
    assert find(department=["C  SE", " CSE"]) == [1, 2, 3]
    assert find(name=" jose\u0301 ") == [1, 3]
    assert find(name="Jose\u0301  Mary") == [1, 2]
    page = client.get("/students", params={"department": "C  SE", "limit": 1})
    assert [student["id"] for student in client.get(page.links["next"]["url"]).json()] == [2]


CURSOR = LISTINGS.create(department=["A", "B"], sort="name").make_cursor(None, is_backward=True).encode()
CURSOR_OF_OTHERS = Cursor(Filters(), "nothing", is_backward=False, boundary=None).encode()
BAD_QUERIES = [
    ("department=", "'department': empty; leave it out"),
    ("department=A&department=", "'department': empty; leave it out"),
    ("department=%20%C2%A0", "'department': empty; leave it out"),
    ("name=%20", "'name': empty; leave it out"),
    ("name=", "'name': expected a text of 1 to 100 characters, got ''"),
    ("name=" + "x" * 101, f"'name': expected a text of 1 to 100 characters, got '{'x' * 101}'"),
    ("name=%00", "'name': NUL is not possible"),
    ("department=A&department=%00A", "'department': NUL is not possible"),
    ("name=a&name=b", "'name': given more than once"),
    ("cgpa_min=", "'cgpa_min': expected a number from 0 to 10, got ''"),
    ("cgpa_min=nan", "'cgpa_min': expected a number from 0 to 10, got 'nan'"),
    ("cgpa_max=8,9", "'cgpa_max': expected a number from 0 to 10, got '8,9'"),
    ("cgpa_max=1e999", "'cgpa_max': expected a number from 0 to 10, got '1e999'"),
    ("cgpa_min=-0.1", "'cgpa_min': expected a number from 0 to 10, got '-0.1'"),
    ("cgpa_min=9&cgpa_max=8.9", "'cgpa_min': 9.0 is above cgpa_max, 8.9"),
    ("count=1", "'count': expected true or false, got '1'"),
    *(
        (f"sort={sort}", f"{BAD_SORT} {sort!r}")
        for sort in ("", "age", "name,", "name,name", "name,-name", "--name", "+name", " name", "Name", "name desc")
    ),
    ("cursor=", DAMAGED),
    ("cursor=%00", DAMAGED),
    (f"cursor={CURSOR}=", DAMAGED),
    (f"cursor={CURSOR[:-2]}", DAMAGED),
    (f"cursor=A{CURSOR[1:]}", DAMAGED),
    (f"cursor={CURSOR}&offset=0", "'offset': not possible beside a cursor"),
    (f"cursor={CURSOR}&sort=-name", "'sort': the cursor belongs to sort=name,id"),
    (f"cursor={CURSOR}&department=A", "'department': the cursor belongs to another one; leave it out"),
    (f"cursor={CURSOR}&name=A", "'name': the cursor belongs to another one; leave it out"),
    (f"cursor={CURSOR_OF_OTHERS}", f"{BAD_SORT} 'nothing'"),
]


@pytest.mark.parametrize(("query_string", "problem"), BAD_QUERIES, ids=lambda value: value[:40])
def test_impossible_listing_is_rejected_by_name(idle_client: httpx.Client, query_string: str, problem: str) -> None:
    response = idle_client.get(f"/students?{query_string.replace('+', '%2B')}")
    assert (response.status_code, response.json()["detail"]) == (400, f"query parameter {problem}")


def test_cursor_goes_with_its_own_parameters(idle_client: httpx.Client) -> None:
    url = f"/students?cursor={CURSOR}&sort=name&department=B&department=A"
    assert idle_client.get(url).json() == []


@pytest.mark.parametrize("query_string", ["name=%FF", "%FF=1"])
def test_query_that_is_no_utf_8_is_rejected(idle_client: httpx.Client, query_string: str) -> None:
    response = idle_client.get(f"/students?{query_string}")
    assert (response.status_code, response.json()["detail"]) == (400, "The query is not UTF-8")


INDEXED = [
    {"sort": sort, **filters}
    for filters in ({}, {"department": ["CSE"]}, {"cgpa_min": 5.0})
    for sort in ("id", "-id", "name", "-name", "department", "-department", "cgpa", "-cgpa")
    if sort.endswith("cgpa") or "cgpa_min" not in filters
]


@pytest.mark.parametrize("asked", INDEXED, ids=str)
def test_index_leads_to_every_page(sqlite_url: str, asked: dict[str, Any]) -> None:
    """Nothing is sorted."""
    student = {"id": 5, "name": "Ananya", "department": "CSE", "cgpa": 8.9}
    with prepare(sqlite_url) as alchemy, alchemy.get_engine().connect() as connection:
        listing = LISTINGS.create(**asked)
        for backward in (False, True):
            cursor = listing.make_cursor(None, is_backward=backward)
            positions = [listing, LISTINGS.create(cursor=cursor.encode())]
            boundary = type("Row", (), student)()
            positions.append(LISTINGS.create(cursor=listing.make_cursor(boundary, is_backward=backward).encode()))
            for position in positions:
                assert position.is_short
                for statement in position.select():
                    sql = statement.limit(9).compile(connection, compile_kwargs={"literal_binds": True})
                    ((*_, plan),) = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}")
                    assert " INDEX " in plan or "INTEGER PRIMARY KEY" in plan or (plan, asked) == (
                        "SCAN students", {"sort": asked["sort"]},
                    )  # fmt: skip


@pytest.mark.parametrize(
    "asked",
    [{"name": "a"}, {"sort": "name,cgpa"}, {"cgpa_min": 5.0}, {"department": ["A", "B"]}, {"sort": "department,-cgpa"},
     {"limit": 1000, "offset": 1}],
    ids=str,
)  # fmt: skip
def test_what_no_index_leads_to_is_not_short(asked: dict[str, Any]) -> None:
    assert not LISTINGS.create(**asked).is_short


def test_long_read_is_stopped_when_nobody_waits(database_url: str) -> None:
    """Its thread and its connection serve others again."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n"
    statement: Any = text(endless if database_url.startswith("sqlite") else "SELECT SLEEP(1000)")

    async def main(database: Database) -> None:
        for _ in range(2):
            reads = [asyncio.ensure_future(database.fetch(statement, {}, short=False)) for _ in range(SCANNERS)]
            await asyncio.sleep(0.2)
            for read in reads:
                read.cancel()
            select_one: Any = text("SELECT 1")
            for rows in await asyncio.gather(*(database.fetch(select_one, {}, short=False) for _ in range(SCANNERS))):
                assert [*map(tuple, rows)] == [(1,)]

    with prepare(database_url) as alchemy:
        run(alchemy, main)


def test_work_ends_with_its_client() -> None:
    events: list[str] = []

    async def receive() -> HTTPReceiveMessage:
        await asyncio.sleep(0)
        return {"type": "http.disconnect"} if events else {"type": "http.request", "body": b"", "more_body": False}

    async def work() -> None:
        events.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            events.append("cancelled")

    async def main() -> None:
        request: Request[Any, Any, Any] = Request({"type": "http"}, receive=receive)  # type: ignore[arg-type]
        with pytest.raises(ClientException, match="disconnected"):
            await run_while_connected(request, work())

    asyncio.run(main())
    assert events == ["begun", "cancelled"]
