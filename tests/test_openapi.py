"""The OpenAPI document: valid for three validators, true of the service, and fit for generated clients."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.service import ANANYA, serve_database

PROBLEM_JSON = "application/problem+json"
PUBLIC = {"get_liveness", "get_readiness"}
"""Operations without an API key."""
FILES = [
    "image/svg+xml",
    "text/csv",
    "application/x-ndjson",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
]
PYTHON_CLIENT = """
import datetime
import io
import json
import re
import sys

from student_client import Client
from student_client.api.history import list_history, list_imports
from student_client.api.students import create_student, delete_student, get_student, list_students, patch_student
from student_client.api.transfer import import_students
from student_client.models import ImportStudentsBody, StudentCreate, StudentPatch
from student_client.types import File

def list_all(client):
    page = list_students.sync_detailed(client=client, limit=2, count=True)
    assert int(page.headers["X-Total-Count"]) == 4
    while True:
        yield [student.id for student in page.parsed]
        following = re.search('cursor=([^&>]+)>; rel="next"', page.headers["Link"])
        if not following:
            return
        page = list_students.sync_detailed(client=client, limit=2, cursor=following[1])

with Client(base_url=sys.argv[1], raise_on_unexpected_status=True) as client:
    ananya = StudentCreate(name="Ananya", department="CSE", cgpa=8.9)
    created = create_student.sync_detailed(client=client, body=ananya, idempotency_key="7f3a")
    student_id, etag = created.parsed.id, created.headers["ETag"]
    content = io.BytesIO(b"name,department,cgpa\\nBoris,ECE,7.4\\nChen,ECE,8\\nDara,ME,6")
    body = ImportStudentsBody(file=File(payload=content, file_name="students.csv"))
    (entry,) = list_history.sync(student_id, client=client)
    assert isinstance(entry.at, datetime.datetime) and entry.at.tzinfo
    json.dump(
        [
            created.parsed.to_dict(),
            get_student.sync(student_id, client=client).to_dict(),
            [student.to_dict() for student in list_students.sync(client=client, limit=10)],
            import_students.sync(client=client, body=body).created,
            [imported.created for imported in list_imports.sync(client=client)],
            list(list_all(client)),
            patch_student.sync(student_id, client=client, body=StudentPatch(cgpa=9.1), if_match=etag).to_dict(),
            create_student.sync(client=client, body=StudentCreate("Ravi", "ECE", 95)).to_dict()["errors"],
            delete_student.sync(student_id, client=client).to_dict(),
        ],
        sys.stdout,
    )
"""
TYPESCRIPT_CLIENT = """
import type { components, operations, paths } from "./schema.js";

declare const process: { argv: string[] };
const [url] = process.argv.slice(2);

const ananya: paths["/student"]["post"]["requestBody"]["content"]["application/json"] = {
  name: "Ananya", department: "CSE", cgpa: 8.9,
};
const patch: components["schemas"]["StudentPatch"] = { cgpa: 9.1 };
// @ts-expect-error  a misspelt field does not compile
const misspelt: components["schemas"]["StudentPatch"] = { cpga: 9.1 };

const created = await fetch(`${url}/student`, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(ananya),
});
const student: operations["create_student"]["responses"][201]["content"]["application/json"] = await created.json();
const id: number = student.id;
const name: string | null = student.name;
const changed = await fetch(`${url}/student/${id}`, {
  method: "PATCH", headers: { "Content-Type": "application/merge-patch+json" }, body: JSON.stringify(patch),
});
const { cgpa }: operations["patch_student"]["responses"][200]["content"]["application/json"] = await changed.json();
console.log(JSON.stringify([id, name, cgpa]));
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The service with one student, which the tests of this module do not change."""
    with serve_database(f"sqlite:///{tmp_path_factory.mktemp('openapi')}/students.db") as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        yield client


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> Any:
    response = client.get("/openapi.json")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    return response.json()


@pytest.fixture
def openapi_json(document: Any, tmp_path: Path) -> Path:
    """The document as a file, for programs."""
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(document))
    return path


def run(program: str | Path, *arguments: str | Path, **variables: str) -> str:
    """Run a program that must succeed, and return its output; skipped where it is absent, but never where CI is set."""
    found = shutil.which(program)
    if found is None:
        missing = f"{program} is not installed; see .ci/run for where it comes from"
        assert "CI" not in os.environ, missing
        pytest.skip(missing)
    environment = {**os.environ, **variables}
    ended = subprocess.run([found, *arguments], capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def operations(document: Any) -> dict[str, Any]:
    """Return every operation by its id."""
    return {operation["operationId"]: operation for item in document["paths"].values() for operation in item.values()}


def find_examples(content: Any) -> list[Any]:
    """Return the values of `example` or `examples` of a body or a header."""
    named = [example["value"] for example in content.get("examples", {}).values()]
    return [content["example"], *named] if "example" in content else named


def find_contents(document: Any) -> Iterator[tuple[str, Any, list[Any]]]:
    """Find what has a schema and examples: bodies in each media type, headers of responses, fields of structs."""
    for name, operation in operations(document).items():
        for status, part in {"request": operation.get("requestBody", {}), **operation["responses"]}.items():
            for kind, content in {**part.get("content", {}), **part.get("headers", {})}.items():
                if "contentMediaType" in content["schema"] or kind == "multipart/form-data":
                    continue  # a workbook is no text, and a file is chosen
                yield f"{name} {status} {kind}", content["schema"], find_examples(content)
    for name, schema in document["components"]["schemas"].items():
        for field, rule in schema["properties"].items():
            yield f"{name}.{field}", rule, rule["examples"]


def test_document_is_valid_for_the_specification(document: Any) -> None:
    assert (document["openapi"][:4], document["info"]["title"]) == ("3.1.", "Student Records")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_document_is_valid_for_redocly(openapi_json: Path) -> None:
    """Its recommended rules do not even warn: they ask for a license, summaries and descriptions, too."""
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    report = run("redocly", "lint", "--extends=recommended", "--format=json", openapi_json, **quiet)
    assert json.loads(report)["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}


def test_document_is_valid_for_spectral(openapi_json: Path) -> None:
    """The rules of `spectral:oas` do not even give a hint."""
    rules = openapi_json.with_name("rules.yaml")
    rules.write_text("extends: spectral:oas\n")
    run("spectral", "lint", "--fail-severity=hint", "--ruleset", rules, openapi_json)


def test_generated_python_client_works(openapi_json: Path, tmp_path: Path) -> None:
    """Made by openapi-python-client without a warning: it writes, imports, pages and reads problems."""
    (tmp_path / "config.yaml").write_text(
        "post_hooks: []\n"  # the generated code need not be formatted
        f"content_type_overrides: {json.dumps(dict.fromkeys(FILES, 'application/octet-stream'))}\n"  # it knows none
    )
    run(
        Path(sys.executable).with_name("openapi-python-client"),
        "generate", "--fail-on-warning", "--meta=none", f"--path={openapi_json}",
        f"--config={tmp_path / 'config.yaml'}", f"--output-path={tmp_path / 'student_client'}",
    )  # fmt: skip
    (tmp_path / "program.py").write_text(PYTHON_CLIENT)
    with serve_database(f"sqlite:///{tmp_path}/students.db") as client:
        output = run(sys.executable, "-W", "error", tmp_path / "program.py", str(client.base_url))
    student = {"id": 1, **ANANYA}
    assert json.loads(output) == [
        student,
        student,
        [student],
        3,
        [3],
        [[1, 2], [3, 4]],
        {**student, "cgpa": 9.1},
        [{"pointer": "/cgpa", "detail": "expected a number from 0 to 10"}],
        {"message": "Student deleted successfully"},
    ]


def test_generated_typescript_types_work(openapi_json: Path, tmp_path: Path) -> None:
    """Made by openapi-typescript: a program that uses them compiles, a wrong one does not, and its requests succeed."""
    program = tmp_path / "program.mts"
    program.write_text(TYPESCRIPT_CLIENT)
    run("openapi-typescript", openapi_json, "--output", tmp_path / "schema.ts")
    run("tsc", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", program)
    with serve_database(f"sqlite:///{tmp_path}/students.db") as client:
        output = run("node", program.with_suffix(".mjs"), str(client.base_url))
    assert json.loads(output) == [1, "Ananya", 9.1]


def test_operations_are_named_after_their_functions(document: Any) -> None:
    """And described; HEAD, which every GET has, is left out."""
    named = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            success = next(response for status, response in operation["responses"].items() if status.startswith("2"))
            named[f"{method.upper()} {path}"] = (operation["operationId"], *operation["tags"], success["description"])
    assert named == {
        "GET /students": ("list_students", "students", "The students of the page; an empty array past the end"),
        "GET /students/export": ("export_students", "transfer", "A file with all students that match"),
        "POST /students/import": ("import_students", "transfer", "What the import did"),
        "POST /student": ("create_student", "students", "The student as stored"),
        "GET /student/{student_id}": ("get_student", "students", "The student"),
        "PUT /student/{student_id}": ("update_student", "students", "The student as replaced"),
        "PATCH /student/{student_id}": ("patch_student", "students", "The student as changed"),
        "DELETE /student/{student_id}": ("delete_student", "students", "The student is deleted"),
        "GET /student/{student_id}/history": (
            "list_history",
            "history",
            "The entries of the page, newest first; an empty array where none are kept",
        ),
        "GET /imports": ("list_imports", "history", "The imports of the page, newest first"),
        "POST /imports/{import_id}/undo": ("undo_import", "history", "What the undo did"),
        "GET /departments": (
            "list_departments",
            "departments",
            "Every department that has a student, ordered by its name; an empty array if none has",
        ),
        "GET /departments.svg": (
            "get_chart",
            "departments",
            "The chart; a browser shows it as it is or in an `<img>`, in the colours of a light or a dark page",
        ),
        "GET /health/live": ("get_liveness", "health", "The process is up"),
        "GET /health/ready": ("get_readiness", "health", "The database responds"),
        "GET /metrics": ("get_metrics", "health", "Counters, gauges and histograms, of all workers"),
    }


def test_every_example_is_valid(document: Any) -> None:
    for name, schema, examples in find_contents(document):
        assert examples, name
        for example in examples:
            OAS31Validator({**schema, "components": document["components"]}).validate(example)


def test_headers_of_responses_are_documented(document: Any) -> None:
    documented = {
        f"{name} {status}": set(response["headers"])
        for name, operation in operations(document).items()
        for status, response in operation["responses"].items()
        if response.get("headers")
    }
    assert documented == {
        "create_student 201": {"Location", "ETag"},
        "list_students 200": {"Link", "X-Total-Count"},
        **{f"{name} 200": {"Link"} for name in ("list_history", "list_imports")},
        **{f"{name} 200": {"ETag"} for name in ("get_student", "update_student", "patch_student")},
        "get_student 304": {"ETag"},
        **{f"{name} 401": {"WWW-Authenticate"} for name in operations(document) if name not in PUBLIC},
        **{f"{name} 429": {"Retry-After"} for name in operations(document) if name not in PUBLIC},
        **{f"{name} 503": {"Retry-After"} for name in operations(document)},
    }


def test_every_parameter_has_one_type(document: Any) -> None:
    """A header may be absent, but `null` in one is a text as any other."""
    given = [parameter for operation in operations(document).values() for parameter in operation.get("parameters", [])]
    assert {parameter["name"]: parameter["schema"]["type"] for parameter in given} == {
        **dict.fromkeys(["limit", "offset", "student_id", "import_id"], "integer"),
        **dict.fromkeys(["cgpa_min", "cgpa_max"], "number"),
        "department": "array",
        **dict.fromkeys(["count", "dry_run"], "boolean"),
        **dict.fromkeys(["format", "mode", "match", "charset"], "string"),
        **dict.fromkeys(["cursor", "sort", "name", "If-Match", "If-None-Match", "Idempotency-Key"], "string"),
    }


def test_patch_takes_two_media_types(document: Any) -> None:
    content = operations(document)["patch_student"]["requestBody"]["content"]
    assert list(content) == ["application/merge-patch+json", "application/json"]
    assert [body["schema"] for body in content.values()] == [{"$ref": "#/components/schemas/StudentPatch"}] * 2


@pytest.mark.parametrize("name", ["StudentCreate", "StudentUpdate", "StudentPatch"])
def test_request_schema_has_the_rules_of_the_service(document: Any, name: str) -> None:
    """Unknown fields, the required ones, and the bounds; the id of a PUT is read-only."""
    schema = document["components"]["schemas"][name]
    assert schema["additionalProperties"] is False
    assert schema["required"] == ([] if name == "StudentPatch" else ["name", "department", "cgpa"])
    cgpa = schema["properties"]["cgpa"]
    assert (cgpa["type"], cgpa["minimum"], cgpa["maximum"]) == ("number", 0, 10)
    read_only = [field for field, rule in schema["properties"].items() if rule.get("readOnly")]
    assert read_only == (["id"] if name == "StudentUpdate" else [])


JSON = {"Content-Type": "application/json"}
OLD = {**JSON, "If-Match": '"old"'}
BODY = json.dumps(ANANYA)
BAD_BODIES = {
    403: {"headers": {**JSON, "Sec-Fetch-Site": "cross-site"}, "content": BODY},
    400: {"headers": JSON, "content": "{"},
    413: {"headers": JSON, "content": " " * (1024 * 1024 + 1)},
    415: {"headers": {"Content-Type": "text/plain"}, "content": BODY},
    422: {"headers": JSON, "content": json.dumps({**ANANYA, "cgpa": 11})},
}
CSV = {"Content-Type": "text/csv"}
FILE = "name,department,cgpa\n" + "x,y,1\n" * 5 + "x,y,11\n"
IMPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "200": ("?dry_run=true", {"headers": CSV, "content": "name,department,cgpa\nBoris,ECE,7.4\n"}),
    "400": ("?mode=some", {"headers": CSV, "content": FILE}),
    "403": ("", {"headers": {**CSV, "Sec-Fetch-Site": "cross-site"}, "content": FILE}),
    "415": ("", {"headers": {"Content-Type": "text/plain"}, "content": FILE}),
    "422": ("", {"headers": CSV, "content": FILE}),
}
RESPONSES = [
    ("list_students 200", "GET /students", {}),
    ("list_students 400", "GET /students?limit=ten", {}),
    ("export_students 400", "GET /students/export?cgpa_min=ten", {}),
    ("get_student 200", "GET /student/1", {}),
    ("get_student 400", "GET /student/1?x=1", {}),
    ("get_student 404", "GET /student/2", {}),
    ("list_history 400", "GET /student/1/history?limit=ten", {}),
    ("list_history 404", "GET /student/2/history", {}),
    ("list_imports 400", "GET /imports?limit=ten", {}),
    ("undo_import 400", "POST /imports/1/undo?x=1", {}),
    ("undo_import 403", "POST /imports/1/undo", {"headers": {"Sec-Fetch-Site": "cross-site"}}),
    ("undo_import 404", "POST /imports/1/undo", {}),
    ("list_departments 200", "GET /departments", {}),
    ("list_departments 400", "GET /departments?x=1", {}),
    ("get_chart 400", "GET /departments.svg?x=1", {}),
    ("get_liveness 200", "GET /health/live", {}),
    ("get_liveness 400", "GET /health/live?x=1", {}),
    ("get_readiness 200", "GET /health/ready", {}),
    ("get_readiness 400", "GET /health/ready?x=1", {}),
    ("delete_student 400", "DELETE /student/1?x=1", {}),
    ("delete_student 403", "DELETE /student/1", {"headers": {"Sec-Fetch-Site": "cross-site"}}),
    ("delete_student 404", "DELETE /student/2", {}),
    ("delete_student 412", "DELETE /student/1", {"headers": OLD}),
    ("update_student 412", "PUT /student/1", {"headers": OLD, "content": BODY}),
    ("patch_student 412", "PATCH /student/1", {"headers": OLD, "content": BODY}),
    *((f"import_students {status}", f"POST /students/import{q}", options) for status, (q, options) in IMPORTS.items()),
    *((f"create_student {status}", "POST /student", options) for status, options in BAD_BODIES.items()),
    *((f"update_student {status}", "PUT /student/1", options) for status, options in BAD_BODIES.items()),
    *((f"patch_student {status}", "PATCH /student/1", options) for status, options in BAD_BODIES.items()),
]


@pytest.mark.parametrize(("documented", "request_line", "options"), RESPONSES)
def test_documented_response_is_what_is_returned(
    client: httpx.Client, document: Any, documented: str, request_line: str, options: dict[str, Any]
) -> None:
    """Word for word, so that every example fits the route that it stands at."""
    response = client.request(*request_line.split(), **options)
    operation, status = documented.split()
    content = operations(document)[operation]["responses"][status]["content"][response.headers["Content-Type"]]
    assert (response.status_code, [response.json()]) == (int(status), find_examples(content))
