"""History: an entry for every write that is stored, and for no other; imports, and what undoes them."""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import httpx
import pytest

from litestar_app.students.record import LISTINGS
from tests.conftest import Rows
from tests.mariadb import MariaDB, open_session
from tests.service import ANANYA, API_KEYS, AS_EDITOR, serve_database
from tests.test_import import CSV, HEADER, send

Query = Callable[..., Rows]
BORIS = {"name": "Boris", "department": "ECE", "cgpa": 7.4}
FILE = "id,name,department,cgpa\n1,Ananya,CSE,9.1\n,Boris,ECE,7.4\n,Dora,CSE,9.5\n"
KEY = {"Idempotency-Key": "4a1f-once"}
NEXT = re.compile('<([^>]*)>; rel="next"')
PREVIOUS = re.compile('<([^>]*)>; rel="prev"')


def student(student_id: int, values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"id": student_id, **values, **changes}


def read_history(client: httpx.Client, student_id: int) -> list[tuple[Any, ...]]:
    """Return the entries of a student, the oldest first, without their times."""
    response = client.get(f"/student/{student_id}/history?limit=1000")
    assert response.status_code == 200, response.text
    return [tuple(list(entry.values())[1:]) for entry in reversed(response.json())]


def read_imports(client: httpx.Client) -> list[dict[str, Any]]:
    """Return the imports, the oldest first, without their times."""
    imports = client.get("/imports?limit=1000").json()
    return [{name: value for name, value in one.items() if name != "at"} for one in reversed(imports)]


def import_file(client: httpx.Client, content: str, **options: Any) -> int:
    response = send(client, content, CSV, **options)
    assert response.status_code == 200, response.text
    return int(response.json()["import"])


def undo(client: httpx.Client, number: object) -> httpx.Response:
    return client.post(f"/imports/{number}/undo")


def undo_counts(client: httpx.Client, number: int) -> tuple[int, int, int]:
    report = undo(client, number).json()
    return report["created"], report["updated"], report["deleted"]


def assert_changed(response: httpx.Response, students: list[int], total: int | None = None) -> None:
    """Check for the 409 that names who has changed."""
    detail = f"{total or len(students)} of its students changed after this import; nothing was undone"
    assert response.status_code == 409
    assert response.json() == {
        "type": "about:blank", "title": "Conflict", "status": 409, "detail": detail, "students": students,
    }  # fmt: skip


def walk(client: httpx.Client, path: str, link: re.Pattern[str] = NEXT) -> Iterator[list[Any]]:
    """Yield the pages that a link leads to, one after the other."""
    while True:
        response = client.get(path)
        assert response.status_code == 200, response.text
        yield response.json()
        if not (found := link.search(response.headers["Link"])):
            return
        path = found[1]


@pytest.fixture
def imported(client: httpx.Client, ananya: dict[str, Any]) -> httpx.Client:
    """A client of a service with one import, which has updated one student and created two."""
    assert ananya["id"] == import_file(client, FILE) == 1
    return client


def test_every_write_adds_an_entry(client: httpx.Client) -> None:
    began = datetime.now(UTC)
    client.post("/student", json=ANANYA)
    client.put("/student/1", json={**ANANYA, "cgpa": 9})
    client.patch("/student/1", json={"department": "ECE"})
    import_file(client, "id,name\n1,Boris\n")
    client.delete("/student/1")
    states = [
        student(1, ANANYA),
        student(1, ANANYA, cgpa=9.0),
        student(1, ANANYA, cgpa=9.0, department="ECE"),
        student(1, BORIS, cgpa=9.0),
    ]
    assert read_history(client, 1) == [
        ("local", "create", None, None, states[0]),
        ("local", "update", None, states[0], states[1]),
        ("local", "update", None, states[1], states[2]),
        ("local", "update", 1, states[2], states[3]),
        ("local", "delete", None, states[3], None),
    ]
    response = client.get("/student/1/history")
    assert response.headers["Cache-Control"] == client.get("/imports").headers["Cache-Control"] == "no-store"
    times = [entry["at"] for entry in reversed(response.json())]
    assert all(one.endswith("Z") for one in times)
    parsed = [began, *map(datetime.fromisoformat, times), datetime.now(UTC)]
    assert parsed == sorted(parsed)


WITHOUT_CHANGE: list[tuple[str, str, dict[str, Any], int]] = [
    ("PUT", "/student/1", {"json": ANANYA}, 200),
    ("PATCH", "/student/1", {"json": {"cgpa": 8.9}}, 200),
    ("PATCH", "/student/1", {"json": {}}, 200),
    ("POST", "/student", {"json": ANANYA, "headers": KEY}, 201),
    ("POST", "/student", {"json": BORIS, "headers": KEY}, 422),
    ("PUT", "/student/1", {"json": BORIS, "headers": {"If-Match": '"old"'}}, 412),
    ("DELETE", "/student/1", {"headers": {"If-Match": '"old"'}}, 412),
    ("DELETE", "/student/2", {}, 404),
    ("POST", "/students/import", {"content": "id,cgpa\n1,8.9\n", "headers": {"Content-Type": CSV}}, 200),
    ("POST", "/students/import?dry_run=true", {"content": FILE, "headers": {"Content-Type": CSV}}, 200),
    ("POST", "/students/import", {"content": FILE + "7,x,y,1\n", "headers": {"Content-Type": CSV}}, 422),
]


@pytest.mark.parametrize(("method", "path", "options", "status"), WITHOUT_CHANGE)
def test_what_changes_nothing_adds_no_entry(  # noqa: PLR0913, PLR0917  a request and what comes of it
    client: httpx.Client, query: Query, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    client.post("/student", json=ANANYA, headers=KEY)
    assert client.request(method, path, **options).status_code == status
    assert query("SELECT COUNT(*) FROM history") == [(1,)]
    assert query("SELECT COUNT(*) FROM imports") == [
        (int("content" in options and path[-3:] == "ort" and status == 200),)
    ]


def test_failed_write_leaves_no_entry(sqlite_url: str, query_file: Query) -> None:
    """At COMMIT, when its entry is there already; and its group is run again without it."""
    doomed = "new.name = 'Doomed'"
    with serve_database(sqlite_url) as client:
        for statement in (
            "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
            "CREATE TABLE orphans (parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)",
            f"CREATE TRIGGER fail AFTER INSERT ON students WHEN {doomed} BEGIN INSERT INTO orphans VALUES (1); END",
        ):
            query_file(statement)

        def create(number: int) -> int:
            name = "Doomed" if number % 5 == 0 else f"student {number}"
            return client.post("/student", json={**ANANYA, "name": name}).status_code

        with ThreadPoolExecutor(10) as pool:
            statuses = list(pool.map(create, range(50)))
        assert statuses == [409 if number % 5 == 0 else 201 for number in range(50)]
        assert send(client, "name,department,cgpa\nEve,CSE,1\nDoomed,CSE,1\n").status_code == 409
        stored = query_file("SELECT id, name FROM students ORDER BY id")
        assert (len(stored), query_file("SELECT student_id, after_name FROM history ORDER BY id")) == (40, stored)
        assert query_file("SELECT * FROM imports") == []


@pytest.mark.parametrize("database_url", ["mysql"], indirect=True)
def test_import_beside_other_writers_has_its_own_entries(client: httpx.Client, query: Query) -> None:
    """Ids are given to others meanwhile; each student has one entry, of the right import."""
    rows = "".join(f"row {number},CSE,5\n" for number in range(3000))
    with ThreadPoolExecutor(6) as pool:
        imports = [pool.submit(import_file, client, f"name,department,cgpa\n{rows}", match="none") for _ in range(2)]
        posts = []
        while not all(one.done() for one in imports):
            posts += list(pool.map(lambda _: client.post("/student", json=ANANYA).status_code, range(20)))
    assert set(posts) == {201}
    per_import = "SELECT import_id, COUNT(*), COUNT(DISTINCT student_id) FROM history GROUP BY import_id ORDER BY 1"
    assert query(per_import) == [(None, len(posts), len(posts)), (1, 3000, 3000), (2, 3000, 3000)]
    other = "SELECT COUNT(*) FROM history WHERE (import_id IS NULL) <> (after_name = 'Ananya')"
    assert query(other) == [(0,)]
    assert undo_counts(client, 1) == undo_counts(client, 2) == (0, 0, 3000)
    assert query("SELECT name, COUNT(*) FROM students GROUP BY name") == [("Ananya", len(posts))]


def test_who_is_the_name_of_the_key(database_url: str) -> None:
    with serve_database(database_url, api_keys=API_KEYS, headers=AS_EDITOR) as client:
        client.post("/student", json=ANANYA)
        client.patch("/student/1", json={"cgpa": 9})
        undo(client, import_file(client, FILE))
        client.delete("/student/1")
        who = {entry[0] for entry in read_history(client, 1)} | {one["who"] for one in read_imports(client)}
        assert who == {"registrar"}


@pytest.mark.parametrize(("path", "count"), [("/student/1/history", 7), ("/imports", 6)])
@pytest.mark.usefixtures("ananya")
def test_pages_lead_to_all_entries(client: httpx.Client, path: str, count: int) -> None:
    """Forwards, and back while new ones come; an entry of another student is never among them."""
    client.post("/student", json=BORIS)
    for number in range(6):
        import_file(client, f"id,cgpa\n1,{number}\n2,{number}\n")
    whole = client.get(path).json()
    pages = list(walk(client, f"{path}?limit=3"))
    assert (len(whole), list(chain(*pages))) == (count, whole)
    link = NEXT.search(client.get(f"{path}?limit=2").headers["Link"])
    assert link is not None
    import_file(client, "id,cgpa\n1,9\n")
    newer = client.get(path).json()
    assert newer[1:] == whole
    back = list(walk(client, link[1], PREVIOUS))
    assert (back[0], list(chain(*reversed(back)))) == (whole[2:4], newer[:5])
    forth = PREVIOUS.search(client.get(link[1]).headers["Link"])
    assert forth is not None
    assert list(chain(*walk(client, forth[1]))) == whole


def test_page_of_what_has_gone_leads_to_the_others(client: httpx.Client, query: Query) -> None:
    client.post("/student", json=ANANYA)
    for cgpa in range(4):
        client.patch("/student/1", json={"cgpa": cgpa})
    link = NEXT.search(client.get("/student/1/history?limit=2").headers["Link"])
    assert link is not None
    query("DELETE FROM history WHERE after_cgpa IN (0, 1, 8.9)")
    response = client.get(link[1])
    assert (response.status_code, response.json()) == (200, [])
    back = PREVIOUS.search(response.headers["Link"])
    assert back is not None
    assert client.get(back[1]).json() == client.get("/student/1/history").json() != []


def test_cursor_of_another_list_is_a_400(imported: httpx.Client) -> None:
    imported.patch("/student/1", json={"cgpa": 1})
    link = imported.get("/student/1/history?limit=1").headers["Link"]
    cursor = link.partition("cursor=")[2].partition(">")[0]
    assert imported.get(f"/student/1/history?cursor={cursor}").status_code == 200
    damaged = "query parameter 'cursor': damaged; take it from a Link header as it is"
    of_students = LISTINGS.create().make_cursor(None, is_backward=False)
    for path, detail in {
        f"/student/2/history?cursor={cursor}": "query parameter 'cursor': it belongs to another list",
        f"/imports?cursor={cursor}": "query parameter 'cursor': it belongs to another list",
        f"/imports?cursor={cursor}x": damaged,
        f"/imports?cursor={of_students.encode()}": damaged,
        "/imports?cursor=": damaged,
    }.items():
        response = imported.get(path)
        assert (response.status_code, response.json()["detail"]) == (400, detail), path
    assert imported.get(f"/students?cursor={cursor}").status_code == 400


def test_history_of_whom_nothing_is_known_is_a_404(client: httpx.Client, query: Query) -> None:
    """A student from before the history has none; a deleted one has."""
    query("INSERT INTO students (id, name, department, cgpa) VALUES (7, 'Ananya', 'CSE', 8.9)")
    response = client.get("/student/7/history")
    assert (response.status_code, response.json(), response.headers["Link"]) == (
        200,
        [],
        '</student/7/history?limit=100>; rel="first"',
    )
    client.delete("/student/7")
    assert read_history(client, 7) == [("local", "delete", None, student(7, ANANYA), None)]
    for unknown in ("8", "0", "x", "9" * 30):
        response = client.get(f"/student/{unknown}/history")
        assert (response.status_code, response.json()["detail"]) == (404, "Student not found")


def test_undo_reverts_an_import(imported: httpx.Client, query: Query) -> None:
    students = imported.get("/students").json()
    response = undo(imported, 1)
    names = ("created", "updated", "unchanged", "rejected", "renamed", "duplicates", "blank", "above_header")
    counts = {**dict.fromkeys(names, 0), "updated": 1}
    rest: dict[str, Any] = {"ignored_columns": [], "ignored_sheets": [], "changes": [], "errors": [], "deleted": 2}
    assert (response.status_code, response.json()) == (200, {"import": 2, "dry_run": False, **counts, **rest})
    assert response.headers["Cache-Control"] == "no-store"
    assert imported.get("/students").json() == [student(1, ANANYA)]
    assert undo_counts(imported, 2) == (2, 1, 0)
    assert imported.get("/students").json() == students
    assert undo_counts(imported, 3) == (0, 1, 2)
    assert imported.get("/students").json() == [student(1, ANANYA)]
    assert [(one["undo_of"], one["undone_by"]) for one in read_imports(imported)] == [
        (None, 2), (1, 3), (2, 4), (3, None),
    ]  # fmt: skip
    assert read_imports(imported)[1] == {
        "id": 2, "who": "local", "created": 0, "updated": 1, "deleted": 2, "unchanged": 0, "rejected": 0,
        "undo_of": 1, "undone_by": 3,
    }  # fmt: skip
    assert [entry[1:3] for entry in read_history(imported, 2)] == [
        ("create", 1), ("delete", 2), ("create", 3), ("delete", 4),
    ]  # fmt: skip
    assert imported.post("/student", json=BORIS).json()["id"] > 3
    assert query("SELECT COUNT(*) FROM history") == [(14,)]


CHANGES: list[tuple[str, Callable[[httpx.Client, Query], object], list[int]]] = [
    ("updated", lambda client, _: client.patch("/student/1", json={"cgpa": 1}), [1]),
    (
        "updated and changed back",
        lambda client, _: [client.patch("/student/3", json={"cgpa": c}) for c in (1, 9.5)],
        [3],
    ),
    ("deleted", lambda client, _: client.delete("/student/2"), [2]),
    ("imported", lambda client, _: import_file(client, "id,cgpa\n1,2\n3,2\n"), [1, 3]),
    ("undone", lambda client, _: undo(client, 1), [1, 2, 3]),
    ("updated by another program", lambda _, query: query("UPDATE students SET name = 'x' WHERE id = 1"), [1]),
    ("deleted by another program", lambda _, query: query("DELETE FROM students WHERE id = 3"), [3]),
]


@pytest.mark.parametrize(("change", "students"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_undo_names_who_has_changed(
    imported: httpx.Client, query: Query, change: Callable[[httpx.Client, Query], object], students: list[int]
) -> None:
    """And undoes nothing."""
    change(imported, query)
    tables = [query(f"SELECT * FROM {table} ORDER BY id") for table in ("students", "history", "imports")]
    assert_changed(undo(imported, 1), students)
    assert [query(f"SELECT * FROM {table} ORDER BY id") for table in ("students", "history", "imports")] == tables


def test_undo_waits_for_a_change(mariadb: MariaDB, mysql_url: str) -> None:
    """Which it then finds: on MySQL others write meanwhile."""
    with serve_database(mysql_url) as client, ThreadPoolExecutor(1) as pool:
        number = import_file(client, HEADER + "Ananya,CSE,1\r\n")
        with open_session(mariadb, mysql_url, "UPDATE students SET cgpa = 9.9") as session:
            undone = pool.submit(undo, client, number)
            mariadb.wait_for_lock(undone)
            session.commit()
        assert_changed(undone.result(), [1])
        assert client.get("/student/1").json()["cgpa"] == 9.9


def test_undo_of_a_delete_finds_the_id_taken(imported: httpx.Client, query: Query) -> None:
    """By another program, since this service gives none twice."""
    assert undo_counts(imported, 1) == (0, 1, 2)
    query("INSERT INTO students (id, name, department, cgpa) VALUES (2, 'x', 'y', 1)")
    assert_changed(undo(imported, 2), [2])


def test_undo_of_many_is_whole(client: httpx.Client) -> None:
    """In parts: more rows than one statement takes care of; of those who have changed, a thousand are named."""
    assert import_file(client, "name,department,cgpa\n" + "".join(f"row {n},CSE,5\n" for n in range(10_500))) == 1
    whole = client.get("/students/export?format=ndjson").text
    assert undo_counts(client, 1) == (0, 0, 10_500)
    assert client.get("/students").json() == []
    assert undo_counts(client, 2) == (10_500, 0, 0)
    assert client.get("/students/export?format=ndjson").text == whole
    changed = [json.loads(line)["id"] for line in whole.splitlines()[-1010:]]
    assert import_file(client, "id,cgpa\n" + "".join(f"{number},6\n" for number in changed)) == 4
    assert_changed(undo(client, 3), changed[:1000], 1010)
    assert undo_counts(client, 4) == (0, 1010, 0)


def test_undo_that_a_trigger_keeps_from_being_whole_is_a_409(sqlite_url: str, query_file: Query) -> None:
    with serve_database(sqlite_url) as client:
        import_file(client, "name,department,cgpa\nAnanya,CSE,1\nBoris,ECE,2\n")
        skip = "BEFORE DELETE ON students WHEN old.name = 'Boris' BEGIN SELECT RAISE(IGNORE); END"
        query_file(f"CREATE TRIGGER skip {skip}")
        response = undo(client, 1)
        assert (response.status_code, response.json()["detail"]) == (409, "A constraint of the database is violated")
        assert (len(client.get("/students").json()), len(read_imports(client))) == (2, 1)


@pytest.mark.parametrize("number", ["2", "0", "-1", "x", "9" * 30, "2147483648"])
def test_undo_of_an_unknown_import_is_a_404(imported: httpx.Client, number: str) -> None:
    response = undo(imported, number)
    assert (response.status_code, response.json()["detail"]) == (404, "Import not found")


def test_undo_of_nothing_changes_nothing(client: httpx.Client) -> None:
    client.post("/student", json=ANANYA)
    assert import_file(client, "id,cgpa\n1,8.9\n") == 1
    assert undo_counts(client, 1) == (0, 0, 0)
    assert len(read_history(client, 1)) == 1


def test_undos_at_once_are_one_undo(imported: httpx.Client) -> None:
    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(response.status_code for response in pool.map(lambda _: undo(imported, 1), range(4)))
    assert statuses == [200, 409, 409, 409]
    assert imported.get("/students").json() == [student(1, ANANYA)]


def test_replayed_import_names_the_first_one(client: httpx.Client) -> None:
    numbers = [import_file(client, FILE.replace("1,Ananya", ",Ananya"), headers=KEY) for _ in range(2)]
    assert numbers == [1, 1]
    assert len(read_imports(client)) == 1


def test_null_of_another_program_comes_back(database_url: str, query: Query) -> None:
    key = "INTEGER PRIMARY KEY" + ("" if database_url.startswith("sqlite") else " AUTO_INCREMENT")
    query(f"CREATE TABLE students (id {key}, name TEXT, department VARCHAR(300), cgpa DOUBLE)")
    query("INSERT INTO students VALUES (1, NULL, ?, NULL), (2, ?, NULL, NULL)", "d" * 300, "n" * 300)
    with serve_database(database_url) as client:
        before = client.get("/students").json()
        assert import_file(client, "id,name,cgpa\n1,Ananya,8.9\n2,Boris,1\n") == 1
        assert undo_counts(client, 1) == (0, 2, 0)
        assert client.get("/students").json() == before
        assert client.delete("/student/2").status_code == 200
        assert read_history(client, 2)[-1] == ("local", "delete", None, before[1], None)


def test_history_off_keeps_none(database_url: str, query: Query) -> None:
    """An import has no id then, and the routes are not there; but an earlier history is."""
    with serve_database(database_url) as client:
        client.post("/student", json=ANANYA)
    with serve_database(database_url, history="off") as client:
        response = send(client, FILE)
        assert (response.status_code, response.json()["import"], response.json()["created"]) == (200, None, 2)
        client.patch("/student/1", json={"cgpa": 1})
        client.delete("/student/1")
        for method, path in (("GET", "/student/1/history"), ("GET", "/imports"), ("POST", "/imports/1/undo")):
            assert client.request(method, path).status_code == 404
            assert path.replace("1", "{student_id}") not in client.get("/openapi.json").json()["paths"]
    assert query("SELECT COUNT(*) FROM history") == [(1,)]
    assert query("SELECT COUNT(*) FROM imports") == [(0,)]
