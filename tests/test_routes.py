"""What every route has in common: 404, 405, OPTIONS, HEAD, slashes, statements."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.service import ANANYA

READ_PATHS = ["/students", "/student/1", "/health/live", "/health/ready", "/docs", "/openapi.json", "/"]
UNKNOWN_PATHS = [
    "/nothing", "/student/1/2", "/health", "/docs/nothing", "/docs/openapi.json", "/docs/assets/index.html",
    "/docs/assets/a%00b", f"/docs/assets/{'a' * 300}",
]  # fmt: skip


@pytest.mark.parametrize("path", UNKNOWN_PATHS)
def test_unknown_path_is_a_problem_document(idle_client: httpx.Client, path: str) -> None:
    response = idle_client.get(path)
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
    detail = f"There is nothing at {path.replace('%00', chr(0))}; /docs lists what there is"
    assert response.json() == {"type": "about:blank", "title": "Not Found", "status": 404, "detail": detail}
    assert idle_client.head(path).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/students", "GET, HEAD, OPTIONS"),
        ("GET", "/student", "OPTIONS, POST"),
        ("TRACE", "/student/1", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
    ],
)
def test_wrong_method_is_a_405_with_allow(idle_client: httpx.Client, method: str, path: str, allowed: str) -> None:
    response = idle_client.request(method, path)
    assert response.status_code == 405
    assert sorted(response.headers["Allow"].split(", ")) == allowed.split(", ")
    assert response.headers["Content-Type"] == "application/problem+json"
    detail = f"{method} is not possible here; the header Allow lists what is"
    assert response.json() == {"type": "about:blank", "title": "Method Not Allowed", "status": 405, "detail": detail}
    options = idle_client.options(path)
    assert (options.status_code, options.headers["Allow"]) == (204, allowed)


def test_options_of_the_server_is_a_204(idle_client: httpx.Client) -> None:
    """`OPTIONS *` asks whether it responds (RFC 9110, 9.3.7)."""
    response = idle_client.options("/", extensions={"target": b"*"})
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["X-Content-Type-Options"] == "nosniff"


TARGETS = [
    ("http://localhost:8000/students", {"Host": "evil.example"}, 200),
    ("http://evil.example/students", {"Host": "localhost"}, 403),
    ("http://localhost.evil.example/students", {"Host": "localhost"}, 403),
    ("http://localhost", {"Host": "evil.example"}, 307),
    ("http://evil.example/health/live", {"Host": "localhost"}, 403),
    ("http://localhost@evil.example/students", {"Host": "localhost"}, 400),
    ("http://localhost\\@evil.example/students", {"Host": "localhost"}, 400),
]


@pytest.mark.parametrize(("target", "headers", "status"), TARGETS)
def test_host_of_an_absolute_target_is_judged(
    idle_client: httpx.Client, target: str, headers: dict[str, str], status: int
) -> None:
    """Not the header field, which RFC 9112 (3.2.2) has ignored."""
    response = idle_client.get("/", headers=headers, extensions={"target": target.encode()})
    assert response.status_code == status


def test_origin_is_compared_with_an_absolute_target(keyed_client: httpx.Client) -> None:
    """What is accepted meets the next check, of the body."""
    for host, status in (("students.example", 415), ("other.example", 403)):
        headers = {"Host": "other.example", "Origin": "http://students.example"}
        target = f"http://{host}/student".encode()
        response = keyed_client.post("/", headers=headers, content="{", extensions={"target": target})
        assert response.status_code == status


@pytest.mark.parametrize(("path", "status"), [("/students/", 200), ("/docs/", 200), ("/", 307), ("//", 307)])
def test_trailing_slash_makes_no_difference(idle_client: httpx.Client, path: str, status: int) -> None:
    response = idle_client.get(path)
    assert (response.status_code, response.headers.get("Location")) == (status, "/docs" if status == 307 else None)


@pytest.mark.parametrize("host", ["x:99999", "x:abc", "a b", "[::1", "é"])
def test_odd_host_is_no_server_error(idle_client: httpx.Client, host: str) -> None:
    response = idle_client.get("/nothing", headers={b"Host": host.encode()})
    assert response.status_code in {400, 404}
    assert response.headers["Content-Type"] == "application/problem+json"


def test_head_is_get_without_its_body(client: httpx.Client, ananya: dict[str, Any]) -> None:
    for path in READ_PATHS:
        get, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        for header in ("Content-Length", "Content-Type"):
            assert head.headers[header] == get.headers[header], path
    assert client.get("/student/1").json() == ananya


@pytest.mark.parametrize(
    ("request_line", "body", "expected"),
    [
        ("GET /students?limit=10", None, "SELECT"),
        ("GET /student/1", None, "SELECT"),
        ("POST /student", ANANYA, "INSERT INSERT"),
        ("PUT /student/1", {**ANANYA, "cgpa": 9}, "SELECT UPDATE INSERT"),
        ("PUT /student/1", ANANYA, "SELECT"),
        ("DELETE /student/1", None, "SELECT DELETE INSERT"),
    ],
)
@pytest.mark.usefixtures("ananya")
def test_request_runs_few_statements(
    client: httpx.Client, statements: Callable[[], list[str]], request_line: str, body: Any, expected: str
) -> None:
    """A write adds its entry of the history, and reads before that what it replaces."""
    assert client.request(*request_line.split(), json=body).is_success
    assert statements() == expected.split()
