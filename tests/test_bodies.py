"""Bodies that are rejected, by POST; test_openapi.py has one of each kind for PUT and PATCH."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service import ANANYA

JSON = {"Content-Type": "application/json"}
PROBLEM = {
    "type": "about:blank",
    "title": "Unprocessable Content",
    "status": 422,
    "detail": "The body is not valid; errors lists every problem",
}
TEXT = (
    "1 to 100 characters after trimming white space at both ends, at least one of them visible, "
    "without control characters, line separators and bidirectional overrides"
)
CGPA = "a number from 0 to 10"


@pytest.fixture
def send(idle_client: httpx.Client) -> Iterator[Any]:
    """Send a body of which nothing may be stored."""
    yield lambda content, headers=JSON: idle_client.post("/student", content=content, headers=headers)
    assert idle_client.get("/students").json() == []


NAMES: list[object] = [
    "", "x" * 101, "a\x00b", "a\x7fb", "a\x9fb", *(f"a{c}b" for c in "\u2028\u2029\u202a\u202e\u2066\u2069"),
    "\u200b", "\ufeff", " \u200d\u200c ", "\u2800", "\u3164", "\xad", "\U000e0100",
    1,
]  # fmt: skip
FIELDS: list[tuple[str, object, str]] = [
    *(("name", name, TEXT) for name in NAMES),
    ("department", "\x1f", TEXT),
    *(("cgpa", cgpa, CGPA) for cgpa in (-0.1, 10.000000000000002, 10**400, "8.9", True, None)),
]
UNKNOWN = "no such field; expected only name, department, cgpa"
INVALID = [
    *((json.dumps({**ANANYA, field: value}), {f"/{field}": f"expected {rule}"}) for field, value, rule in FIELDS),
    ('{"name": "x", "a/b~c": 0, "cgpa": 11}', {
        "/department": f"missing; expected {TEXT}", "/cgpa": f"expected {CGPA}", "/a~1b~0c": UNKNOWN,
    }),
    ('{"id": 7, "name": "x", "department": "y", "cgpa": 1}', {"/id": UNKNOWN}),
    *((f'{{"name": "x", "department": "y", "cgpa": {number}}}', {"/cgpa": f"expected {CGPA}"})
      for number in ("1e999", "9" * 10_000, "-" + "9" * 10_000)),
    ('{"name": "x", "department": "y", "cgpa": "1", "cgpa": 1}', {"": "a field is given more than once"}),
    ("[]", {"": "expected an object with name, department, cgpa"}),
]  # fmt: skip


@pytest.mark.parametrize(("content", "errors"), INVALID, ids=lambda value: ascii(value)[:60])
def test_every_problem_of_a_body_is_listed(send: Any, content: str, errors: dict[str, str]) -> None:
    response = send(content)
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    listed = [{"pointer": pointer, "detail": detail} for pointer, detail in errors.items()]
    assert response.json() == {**PROBLEM, "errors": listed}


def test_many_problems_make_a_small_response(send: Any) -> None:
    """A body of a mebibyte can have a hundred thousand unknown fields; the first hundred problems are listed."""
    response = send("{" + ", ".join(f'"{n}": 0' for n in range(80_000)) + "}")
    problem = response.json()
    assert (response.status_code, len(problem["errors"]), problem["total_errors"]) == (422, 100, 80_003)
    assert len(response.content) < 64 * 1024


UNREADABLE = {
    "The body is empty; expected JSON": [b""],
    "The body is not JSON: a surrogate without its other half": [rb'{"cgpa": 1e999, "\ud800": 1}'],
    "The body is not JSON: ": [
        b'{"name": "x"',
        b'{"name": "x", "department": "y", "cgpa": 1} {}',
        b'{"name": 1, "department": "y", "cgpa": NaN}',
        b'{"cgpa": 1e999, "name": NaN}',
        rb'{"name": "\ud800", "department": "y", "cgpa": 1}',
        b"\xef\xbb\xbf" + json.dumps(ANANYA).encode(),
    ],
    "The body is not UTF-8": [b'{"name": "\xff"}', b'{"name": 1, "department": "\xff", "cgpa": 1}'],
    "The body is nested too deeply": [b"[" * 200_000, b'{"name": 1, "a": ' + b"[" * 200_000],
}


@pytest.mark.parametrize(
    ("content", "detail"),
    [(content, detail) for detail, contents in UNREADABLE.items() for content in contents],
    ids=lambda value: ascii(value)[:40],
)
def test_unreadable_body_is_a_400(send: Any, content: bytes, detail: str) -> None:
    response = send(content)
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["detail"].startswith(detail)


OTHER_TYPES = [
    None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/msgpack",
    "application/jsonx", "application/json; charset=latin-1", "application/merge-patch+json",
]  # fmt: skip


@pytest.mark.parametrize("content_type", OTHER_TYPES)
def test_other_content_types_are_rejected(send: Any, content_type: str | None) -> None:
    """A page of another origin can send text/plain without asking; it must never be read as JSON."""
    response = send(json.dumps(ANANYA), {} if content_type is None else {"Content-Type": content_type})
    assert response.status_code == 415
    assert response.json()["detail"] == "Expected a body with Content-Type: application/json, in UTF-8"


def test_compressed_body_is_rejected(send: Any) -> None:
    response = send(json.dumps(ANANYA), {**JSON, "Content-Encoding": "gzip"})
    assert (response.status_code, response.json()["detail"]) == (415, "Expected a body without Content-Encoding")


@pytest.mark.parametrize("chunked", [False, True])
def test_body_over_a_mebibyte_is_rejected(send: Any, chunked: bool) -> None:
    content = json.dumps(ANANYA).encode() + b" " * 1024 * 1024
    response = send(iter([content]) if chunked else content)
    assert (response.status_code, response.json()["detail"]) == (413, "The body is over 1 MiB")


def test_body_of_a_mebibyte_is_read(client: httpx.Client) -> None:
    """And the name of its type is taken in any case."""
    content = json.dumps(ANANYA).encode().ljust(1024 * 1024)
    response = client.post("/student", content=content, headers={"Content-Type": "Application/JSON;charset=UTF-8"})
    assert (response.status_code, response.json()) == (201, {"id": 1, **ANANYA})
