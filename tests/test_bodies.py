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
TEXT = "a text of 1 to 100 characters"
EMPTY = f"empty; expected {TEXT}"
CGPA = "a number from 0 to 10"


@pytest.fixture
def send(idle_client: httpx.Client) -> Iterator[Any]:
    """Send a body of which nothing may be stored."""
    yield lambda content, headers=JSON: idle_client.post("/student", content=content, headers=headers)
    assert idle_client.get("/students").json() == []


BAD_TEXTS: dict[object, str] = {
    **dict.fromkeys(["", "  ", "\t\n", "\x1f", "\u2028", "\u00a0\u3000"], EMPTY),
    "x" * 101: "expected at most 100 characters, got 101",
    "é  " * 51: "expected at most 100 characters, got 101",
    "a\x00b": "NUL, U+0000, is not possible here",
    "a\tb": "a tab, U+0009, is not possible here",
    "a \n b": "a line break, U+000A, is not possible here",
    "a\x07b": "a control character, U+0007, is not possible here",
    "a\x7fb": "a control character, U+007F, is not possible here",
    "a\x9fb": "a control character, U+009F, is not possible here",
    "a\u2028b": "a line separator, U+2028, is not possible here",
    "a\u2029b": "a paragraph separator, U+2029, is not possible here",
    "a\u202ab": "a bidirectional override or embedding, U+202A, is not possible here",
    "a\u202eb": "a bidirectional override or embedding, U+202E, is not possible here",
    "a\u2066b": "a bidirectional isolate, U+2066, is not possible here",
    "a\u2069": "a bidirectional isolate, U+2069, is not possible here",
    "Jos\ufffd": "U+FFFD, the sign of a text that was decoded wrongly: correct the text, or name the right charset",
    **{
        text: f"expected a visible character; there are only invisible ones, such as {first}"
        for text, first in {
            "\u200b": "U+200B", "\ufeff": "U+FEFF", " \u200d\u200c ": "U+200D", "\u2800": "U+2800",
            "\u3164": "U+3164", "\xad": "U+00AD", "\U000e0100": "U+E0100",
        }.items()
    },
    1: f"expected {TEXT}",
}  # fmt: skip
"""Values of a name, and what is wrong with each: one thing."""
FIELDS: list[tuple[str, object, str]] = [
    *(("name", name, detail) for name, detail in BAD_TEXTS.items()),
    ("department", "\x1f", EMPTY),
    *(("cgpa", cgpa, f"expected {CGPA}") for cgpa in (-0.1, 10.000000000000002, 10**400, "8.9", True, None)),
]
UNKNOWN = "no such field; expected only name, department, cgpa"
INVALID = [
    *((json.dumps({**ANANYA, field: value}), {f"/{field}": detail}) for field, value, detail in FIELDS),
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
    "The body is not JSON: a surrogate without its other half": [
        rb'{"cgpa": 1e999, "\ud800": 1}',
        rb'{"name": "\ud800", "department": "y", "cgpa": 1}',
    ],
    "The body is not JSON: it ends too early": [b'{"name": "x"', b'{"name": "x', b"[1,"],
    "The body is not JSON: more follows after its end, at character 45": [
        b'{"name": "x", "department": "y", "cgpa": 1} {}',
    ],
    "The body is not JSON: NaN is no number of JSON": [
        b'{"name": 1, "department": "y", "cgpa": NaN}',
        b'{"cgpa": 1e999, "name": NaN}',
    ],
    "The body is not JSON: -Infinity is no number of JSON": [b'{"name": "x", "department": "y", "cgpa": -Infinity}'],
    "The body is not JSON: unexpected text, at character 2": [b"{'name': 1}"],
    "The body is not JSON: unexpected text, at character 11": [b'{"cgpa": 01}'],
    "The body is not JSON: a control character in a string, at character 11": [b'{"name": "\n"}'],
    "The body is not JSON: it begins with a byte order mark": [b"\xef\xbb\xbf" + json.dumps(ANANYA).encode()],
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
    assert response.json()["detail"] == detail


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
