"""What docs/how-to/extend.md promises: each change is made to a copy of the package, which is then served."""

import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

import litestar_app
from tests.mariadb import free_port
from tests.service import ANANYA, connect

PACKAGE = Path(litestar_app.__file__).parent
DOCUMENT = PACKAGE.parent / "docs" / "how-to" / "extend.md"
CAPABILITIES = ["access", "departments", "history", "operations", "transfer"]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Copy the package."""
    return Path(shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")))


@contextmanager
def serve_copy(package: Path, app: str = "litestar_app.main:app") -> Iterator[httpx.Client]:
    """Serve the application of a copy by uvicorn, on a database beside it."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port)]
    with subprocess.Popen(command, cwd=package.parent, stderr=subprocess.PIPE, text=True) as process:
        try:
            with connect(f"http://127.0.0.1:{port}", headers={"Connection": "close"}) as client:
                while True:
                    if process.poll() is not None:
                        assert process.stderr is not None
                        pytest.fail(process.stderr.read())
                    try:
                        client.get("/students")
                        break
                    except httpx.TransportError:
                        time.sleep(0.05)
                yield client
        finally:
            process.terminate()


def remove(package: Path, capability: str) -> None:
    """Remove a capability: its folder, its import and its line in the list of plugins."""
    shutil.rmtree(package / capability)
    app = package / "app.py"
    lines = app.read_text().splitlines(keepends=True)
    plugin = f"{capability.capitalize()}Plugin("
    left = [line for line in lines if f"{PACKAGE.name}.{capability}." not in line and plugin not in line]
    assert len(left) == len(lines) - 2
    app.write_text("".join(left))


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_capability_can_be_removed(package: Path, capability: str) -> None:
    """Two lines and a folder; the rest creates, reads, changes, lists and deletes students as before."""
    remove(package, capability)
    with serve_copy(package) as client:
        check_students(client)


def test_core_is_whole_without_any_capability(package: Path) -> None:
    for capability in CAPABILITIES:
        remove(package, capability)
    with serve_copy(package) as client:
        check_students(client)
        assert client.get("/openapi.json").json()["paths"].keys() == {"/student", "/student/{student_id}", "/students"}
        response = client.get("/students", headers={"Host": "students.example"})
        assert (response.status_code, response.headers["Content-Type"]) == (403, "application/problem+json")


def check_students(client: httpx.Client) -> None:
    """Check the contract of the five routes, and of PATCH."""
    created = client.post("/student", json=ANANYA, headers={"Idempotency-Key": "a"})
    assert (created.status_code, created.json()) == (201, {"id": 1, **ANANYA})
    assert client.post("/student", json=ANANYA, headers={"Idempotency-Key": "a"}).json() == created.json()
    version = created.headers["ETag"]
    assert client.get("/student/1", headers={"If-None-Match": version}).status_code == 304
    changed = client.patch("/student/1", json={"cgpa": 9.1}, headers={"If-Match": version})
    assert (changed.status_code, changed.json()["cgpa"]) == (200, 9.1)
    assert client.put("/student/1", json=ANANYA, headers={"If-Match": version}).status_code == 412
    assert client.put("/student/1", json=ANANYA).json() == {"id": 1, **ANANYA}
    assert client.post("/student", json={**ANANYA, "cgpa": -1}).status_code == 422
    assert client.get("/students", params={"department": "CSE", "sort": "-cgpa"}).json() == [{"id": 1, **ANANYA}]
    assert client.delete("/student/1").status_code == 200
    missing = client.get("/student/1")
    assert (missing.status_code, missing.json()["detail"]) == (404, "Student not found")
    assert client.get("/docs").status_code == 200


def read_section(title: str) -> str:
    """Return a section of the document."""
    (section,) = re.findall(rf"^## {title}$.*?(?=^## |\Z)", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return str(section)


def apply_diffs(section: str, package: Path) -> set[str]:
    """Make the changes of a section; return the files, each of which has every context once."""
    changed = {}
    for name, diff in re.findall(r"^```diff (\S+)\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
        lines = diff.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] != "+")
        new = "".join(line[1:] for line in lines if line[0] != "-")
        text = (package / name).read_text()
        assert text.count(old) == 1, old
        (package / name).write_text(text.replace(old, new))
        changed[name] = diff
    return set(changed)


CSV = {"Content-Type": "text/csv"}


def test_field_can_be_added(package: Path) -> None:
    """Six lines in two files; it is then everywhere where the others are."""
    section = read_section("Add a field")
    assert apply_diffs(section, package) == {"models.py", "students/schemas.py"}
    assert len(re.findall(r"^\+", section, re.MULTILINE)) <= 6
    with serve_copy(package) as client:
        student = {"id": 1, **ANANYA, "email": "a@b.example"}
        assert client.post("/student", json={**ANANYA, "email": "a@b.example"}).json() == student
        wrong = client.patch("/student/1", json={"email": "nobody"})
        assert wrong.json()["errors"] == [{"pointer": "/email", "detail": "expected an e-mail address"}]
        assert client.post("/student", json=ANANYA).json()["email"] is None
        assert [row["id"] for row in client.get("/students?sort=-email").json()] == [1, 2]
        assert client.put("/student/1", json=ANANYA).json()["email"] is None
        assert client.patch("/student/1", json={"email": "c@d.example"}).json()["email"] == "c@d.example"
        exported = client.get("/students/export").content
        assert exported.splitlines()[:2] == [b"id,name,department,cgpa,email", b"1,Ananya,CSE,8.9,c@d.example"]
        for kind in ("csv", "ndjson", "xlsx"):
            file = client.get(f"/students/export?format={kind}")
            headers = {"Content-Type": file.headers["Content-Type"]}
            report = client.post("/students/import", content=file.content, headers=headers).json()
            assert (report["unchanged"], report["updated"]) == (2, 0)
        changed = exported.replace(b"c@d", b"e@f")
        preview = client.post("/students/import?dry_run=true", content=changed, headers=CSV).json()
        assert preview["changes"][0]["after"] == student | {"email": "e@f.example"}
        report = client.post("/students/import", content=changed, headers=CSV).json()
        assert report["updated"] == 1
        emails = [(entry["before"] or {}).get("email") for entry in client.get("/student/1/history").json()]
        assert emails == ["c@d.example", None, "a@b.example", None]
        assert client.post(f"/imports/{report['import']}/undo").status_code == 200
        assert client.get("/student/1").json()["email"] == "c@d.example"
        rejected = client.post("/students/import", content=b"name,department,cgpa,email\nA,B,1,x\n", headers=CSV).json()
        assert [(error["column"], error["detail"]) for error in rejected["errors"]] == [
            ("email", "expected an e-mail address")
        ]
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
        assert all("email" in schemas[name]["properties"] for name in ("StudentCreate", "StudentPatch", "StudentRead"))


def test_field_is_added_to_an_existing_database(package: Path) -> None:
    """The start names what is missing, until the statements of the document have added it."""
    with serve_copy(package) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
    section = read_section("Add a field")
    apply_diffs(section, package)
    ((statements,),) = [re.findall(r"^```sql\n(.*?)^```", section, re.MULTILINE | re.DOTALL)]
    missing = ["column email is missing", "no such column: history.before_email", "no such column: history.after_email"]
    with closing(sqlite3.connect(package.parent / "students.db")) as database:
        for statement, reason in zip(statements.splitlines(), missing, strict=True):
            with pytest.raises(pytest.fail.Exception, match=reason), serve_copy(package):
                pass
            database.execute(statement)
    with serve_copy(package) as client:
        assert client.get("/student/1").json() == {"id": 1, **ANANYA, "email": None}
        assert client.patch("/student/1", json={"email": "a@b.example"}).status_code == 200
        first = client.get("/student/1/history").json()[-1]
        assert (first["action"], first["after"]) == ("create", {"id": 1, **ANANYA, "email": None})


def test_resource_can_be_added(package: Path) -> None:
    """At most 60 lines, of which the test is the contract of the student."""
    section = read_section("Add a resource")
    ((module,),) = [re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)]
    assert len([line for line in module.splitlines() if line]) <= 60
    (package.parent / "college.py").write_text(module)
    course = {"code": "CS101", "title": "Algorithms", "credits": 6}
    with serve_copy(package, "college:app") as client:
        created = client.post("/course", json=course, headers={"Idempotency-Key": "course"})
        assert (created.status_code, created.headers["Location"]) == (201, "/course/1")
        assert client.post("/course", json=course, headers={"Idempotency-Key": "course"}).json() == created.json()
        assert client.post("/course", json=course).status_code == 409  # the code is there already
        assert client.post("/course", json={**course, "code": "MA1", "title": "Analysis"}).status_code == 201
        version = created.headers["ETag"]
        assert client.get("/course/1", headers={"If-None-Match": version}).status_code == 304
        assert client.patch("/course/1", json={"credits": 5}, headers={"If-Match": '"x"'}).status_code == 412
        assert client.patch("/course/1", json={"credits": 5}, headers={"If-Match": version}).json()["credits"] == 5
        assert client.put("/course/1", json=client.get("/course/1").json()).json() == {"id": 1, **course, "credits": 5}
        assert client.put("/course/1", json={**course, "id": 2}).status_code == 422
        wrong = client.post("/course", json={"code": "C 1", "credits": 31})
        assert [(error["pointer"], error["detail"]) for error in wrong.json()["errors"]] == [
            ("/code", "expected 1 to 20 characters without blanks"),
            ("/title", "missing; expected 1 to 100 characters"),
            ("/credits", "expected an integer from 0 to 30"),
        ]
        page = client.get("/courses?title=A&credits_min=5&sort=-credits&limit=1&count=true")
        assert ([row["code"] for row in page.json()], page.headers["X-Total-Count"]) == (["MA1"], "2")
        following = client.get(page.links["next"]["url"])
        assert [row["code"] for row in following.json()] == ["CS101"]
        assert client.get("/courses?credits_min=x").json()["detail"].startswith("query parameter 'credits_min'")
        assert client.delete("/course/1").status_code == 204
        missing = client.get("/course/1")
        assert (missing.status_code, missing.json()["detail"]) == (404, "Course not found")
        check_students(client)  # whose ids and history are their own
        assert client.get("/student/1/history").json()[0]["action"] == "delete"
        paths = client.get("/openapi.json").json()["paths"]
        assert set(paths["/course/{record_id}"]) == {"get", "put", "patch", "delete"}
        parameters = [parameter["name"] for parameter in paths["/courses"]["get"]["parameters"]]
        assert {"code", "title", "credits_min", "credits_max", "sort", "cursor"} <= set(parameters)


def test_rule_can_be_changed(package: Path) -> None:
    """It holds in bodies, filters, imports, the chart, the words and the document."""
    assert apply_diffs(read_section("Change a rule"), package) == {"students/schemas.py"}
    rule = "expected a number from 0 to 4"
    with serve_copy(package) as client:
        assert client.post("/student", json={**ANANYA, "cgpa": 4}).status_code == 201
        wrong = client.post("/student", json={**ANANYA, "cgpa": 4.1})
        assert wrong.json()["errors"] == [{"pointer": "/cgpa", "detail": rule}]
        filtered = client.get("/students?cgpa_max=5")
        assert (filtered.status_code, rule in filtered.json()["detail"]) == (400, True)
        rejected = client.post("/students/import", content=b"name,department,cgpa\nA,B,5\n", headers=CSV).json()
        assert rejected["errors"][0]["detail"] == rule
        assert ">4</text>" in client.get("/departments.svg").text
        schema = client.get("/openapi.json").json()["components"]["schemas"]["StudentCreate"]["properties"]["cgpa"]
        assert (schema["maximum"], schema["examples"]) == (4, [4])
    code = (
        "from litestar_app.students.synthetic import make_students as make; print(max(row[2] for row in next(make(1))))"
    )
    made = subprocess.run([sys.executable, "-c", code], cwd=package.parent, capture_output=True, text=True, check=True)
    assert 3 < float(made.stdout) <= 4
