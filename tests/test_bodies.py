"""Bodies that cannot be taken, on every route that takes one."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service import ANANYA, serve_database

JSON = {"Content-Type": "application/json"}
TEXT = (
    "1 to 100 characters after trimming white space at both ends, at least one of them visible, "
    "without control characters, line separators and bidirectional overrides"
)
CGPA = "a number from 0 to 10"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The service with one student. No body here reaches the database, so one kind of it is enough."""
    with serve_database(f"sqlite:///{tmp_path_factory.mktemp('bodies')}/students.db") as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        yield client


@pytest.fixture(params=[("POST", "/student"), ("PUT", "/student/1")], ids=["POST", "PUT"])
def send(client: httpx.Client, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Send a body by each method; nothing may have been stored by it."""
    method, path = request.param
    yield lambda content, headers=JSON: client.request(method, path, content=content, headers=headers)
    assert client.get("/students").json() == [{"id": 1, **ANANYA}]


INVALID: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"name": ""}, [("/name", TEXT)]),
    ({"name": " \t\n\u2003"}, [("/name", TEXT)]),
    ({"name": "x" * 101}, [("/name", TEXT)]),
    ({"name": "a\x00b"}, [("/name", TEXT)]),
    ({"name": "a\nb"}, [("/name", TEXT)]),
    ({"name": "a\x7fb"}, [("/name", TEXT)]),
    ({"name": "a\x9fb"}, [("/name", TEXT)]),
    *(({"name": f"a{c}b"}, [("/name", TEXT)]) for c in "\u2028\u2029\u202a\u202e\u2066\u2069"),
    *(
        ({"name": name}, [("/name", TEXT)])
        for name in ("\u200b", "\ufeff", " \u200d\u200c ", "\u2800", "\u3164", "\xad")
    ),
    ({"name": None}, [("/name", TEXT)]),
    ({"name": 1}, [("/name", TEXT)]),
    ({"name": ["x"]}, [("/name", TEXT)]),
    ({"name": {}}, [("/name", TEXT)]),
    ({"department": "\x1f"}, [("/department", TEXT)]),
    ({"cgpa": -0.1}, [("/cgpa", CGPA)]),
    ({"cgpa": 10.000000000000002}, [("/cgpa", CGPA)]),
    ({"cgpa": 10**400}, [("/cgpa", CGPA)]),
    ({"cgpa": "8.9"}, [("/cgpa", CGPA)]),
    ({"cgpa": True}, [("/cgpa", CGPA)]),
    ({"cgpa": None}, [("/cgpa", CGPA)]),
    ({"cgpa": []}, [("/cgpa", CGPA)]),
    ({"name": "", "department": None, "cgpa": 11}, [("/name", TEXT), ("/department", TEXT), ("/cgpa", CGPA)]),
]


@pytest.mark.parametrize(("change", "errors"), INVALID, ids=lambda value: ascii(value)[:40])
def test_every_wrong_field_is_named_with_what_would_be_right(
    send: Any, change: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    response = send(json.dumps({**ANANYA, **change}))
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "The body is not valid; errors lists every problem",
        "errors": [{"pointer": pointer, "detail": f"expected {rule}"} for pointer, rule in errors],
    }


def test_missing_and_unknown_fields_are_all_listed(send: Any) -> None:
    response = send('{"Name": "x", "cgpa": 1, "a/b~c": 0}')
    assert response.status_code == 422
    assert sorted(error["pointer"] for error in response.json()["errors"]) == [
        "/Name",
        "/a~1b~0c",
        "/department",
        "/name",
    ]


@pytest.mark.parametrize("content", ["[]", "null", "1", '"x"', "true"])
def test_json_that_is_no_object_is_invalid(send: Any, content: str) -> None:
    response = send(content)
    assert response.status_code == 422
    assert response.json()["errors"] == [{"pointer": "", "detail": "expected an object with name, department, cgpa"}]


def test_a_number_beyond_a_double_is_invalid(send: Any) -> None:
    response = send('{"name": "x", "department": "y", "cgpa": 1e999}')
    assert response.status_code == 422
    assert response.json()["errors"] == [{"pointer": "/cgpa", "detail": f"expected {CGPA}"}]


def test_a_field_that_is_wrong_and_then_right_is_still_invalid(send: Any) -> None:
    response = send('{"name": "x", "department": "y", "cgpa": "1", "cgpa": 1}')
    assert response.status_code == 422


UNREADABLE = {
    "empty": b"",
    "cut off": b'{"name": "x"',
    "not JSON": b"name=x",
    "trailing": b'{"name": "x", "department": "y", "cgpa": 1} {}',
    "NaN": b'{"name": "x", "department": "y", "cgpa": NaN}',
    "NaN beside a wrong field": b'{"name": 1, "department": "y", "cgpa": NaN}',
    "infinity beside a wrong field": b'{"name": 1, "department": "y", "cgpa": -Infinity}',
    "lone surrogate beside a wrong field": rb'{"name": 1, "department": "\ud800", "cgpa": 1}',
    "lone surrogate as an unknown field": rb'{"name": 1, "\ud800": 1}',
    "lone surrogate beside a number out of range": rb'{"cgpa": 1e999, "\ud800": 1}',
    "NaN beside a number out of range": b'{"cgpa": 1e999, "name": NaN}',
    "not UTF-8 beside a wrong field": b'{"name": 1, "department": "\xff", "cgpa": 1}',
    "single quotes": b"{'name': 'x'}",
    "lone surrogate": rb'{"name": "\ud800", "department": "y", "cgpa": 1}',
    "not UTF-8": b'{"name": "\xff", "department": "y", "cgpa": 1}',
    "UTF-16": json.dumps(ANANYA).encode("utf-16"),
    "BOM": b"\xef\xbb\xbf" + json.dumps(ANANYA).encode(),
    "arrays without end": b"[" * 200_000,
    "objects without end": b'{"a":' * 100_000,
    "deep unknown field": b'{"name": 1, "a": ' + b"[" * 200_000,
    "an integer without end": b'{"name": "", "cgpa": ' + b"9" * 10_000 + b"}",
    "NUL": b"\x00",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_is_a_400(send: Any, content: bytes) -> None:
    response = send(content)
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["detail"].startswith("The body ")


@pytest.mark.parametrize(
    "content_type",
    [
        None, "", "text/plain", "text/plain; charset=utf-8", "application/xml", "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x", "application/octet-stream", "application/msgpack", "application/jsonx",
        "application/json; charset=latin-1", "application/merge-patch+json", "json",
    ],
)  # fmt: skip
def test_only_json_is_taken(send: Any, content_type: str | None) -> None:
    """A page of another origin can send text/plain without asking; it must never be read as JSON."""
    response = send(json.dumps(ANANYA), {} if content_type is None else {"Content-Type": content_type})
    assert response.status_code == 415
    assert response.json()["detail"] == "Expected a body with Content-Type: application/json, in UTF-8"


def test_a_compressed_body_is_rejected(send: Any) -> None:
    response = send(json.dumps(ANANYA), {**JSON, "Content-Encoding": "gzip"})
    assert (response.status_code, response.json()["detail"]) == (415, "Expected a body without Content-Encoding")


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"]
)
def test_json_is_taken_by_any_spelling_of_its_name(client: httpx.Client, content_type: str) -> None:
    response = client.put("/student/1", content=json.dumps(ANANYA), headers={"Content-Type": content_type})
    assert response.status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_a_mebibyte_is_rejected(send: Any, chunked: bool) -> None:
    content = json.dumps(ANANYA).encode() + b" " * 1024 * 1024
    response = send(iter([content]) if chunked else content)
    assert response.status_code == 413
    assert response.json()["detail"] == "The body is over 1048576 bytes"


def test_a_body_of_a_mebibyte_is_read(client: httpx.Client) -> None:
    content = json.dumps(ANANYA).encode().ljust(1024 * 1024)
    assert client.put("/student/1", content=content, headers=JSON).status_code == 200


def test_many_problems_make_a_small_response(send: Any) -> None:
    """A body of a mebibyte can have a hundred thousand unknown fields; the first hundred problems are listed."""
    response = send("{" + ", ".join(f'"{n}": 0' for n in range(80_000)) + "}")
    problem = response.json()
    assert (response.status_code, len(problem["errors"]), problem["total_errors"]) == (422, 100, 80_003)
    assert len(response.content) < 64 * 1024
