"""The service uses Litestar and advanced-alchemy by what they document, and is an application like any other."""

import ast
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar, asgi
from litestar.types import Receive, Scope, Send

import litestar_app
from litestar_app.app import create_app
from litestar_app.database.threads import NOT_OPEN
from litestar_app.settings import Settings
from tests.conftest import query_sqlite
from tests.service import ANANYA, assert_is_unavailable, connect, serve_app, serve_database

FOLDER = Path(litestar_app.__file__).parent
LIBRARIES = {"litestar", "advanced_alchemy"}
PREFLIGHT = {"Origin": "https://app.example", "Access-Control-Request-Method": "PUT"}


def find_private_imports(source: str) -> Iterator[str]:
    """Find the imports of a private module, or of a private name, of the two libraries."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, *parts = name.split(".")
            if package in LIBRARIES and any(part.startswith("_") for part in parts):
                yield name


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_nothing_private_is_imported(path: Path) -> None:
    assert [*find_private_imports(path.read_text())] == []


def test_private_imports_are_found() -> None:
    source = """
import litestar, litestar._openapi
from litestar import Litestar, _asgi
from advanced_alchemy._listeners import touch_updated_timestamp
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from litestar._openapi.schema_generation import SchemaCreator
from litestar_app._other import name
from ._own import other
"""
    assert [*find_private_imports(source)] == [
        "litestar._openapi",
        "litestar._asgi",
        "advanced_alchemy._listeners.touch_updated_timestamp",
        "litestar._openapi.schema_generation.SchemaCreator",
    ]


def test_application_is_a_plain_litestar(sqlite_url: str) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"cors_origins": "https://app.example", "forwarded_allow_ips": "127.0.0.1", "rate_limit": "1/second"},
    ]
    for others in options:
        assert type(create_app(Settings(database_url=sqlite_url, **others))) is Litestar


@contextmanager
def serve_mounted(inner: Litestar, *, with_lifespan: bool) -> Iterator[httpx.Client]:
    """Serve an application of somebody else that mounts ours."""

    @asgi("/records", is_mount=True, copy_scope=True)
    async def records(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(scope, receive, send)

    outer = Litestar([records], lifespan=[lambda _: inner.lifespan()] if with_lifespan else [], logging_config=None)
    with serve_app(outer) as url, connect(f"{url}/records") as client:
        yield client


def test_mounted_application_responds(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """As it does by itself, also where its router rejects a request."""
    caplog.set_level("INFO", "litestar_app.access")
    inner = create_app(Settings(database_url=sqlite_url, cors_origins="https://app.example"))
    with serve_mounted(inner, with_lifespan=True) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        responses = [
            client.get("/student/1"),
            client.get("/nothing"),
            client.put("/students", json={}),
            client.options(
                "/nothing", headers={"Origin": "https://app.example", "Access-Control-Request-Method": "PUT"}
            ),
        ]
    assert responses[0].json() == {"id": 1, **ANANYA}
    assert [response.status_code for response in responses] == [200, 404, 405, 204]
    for response in responses[1:3]:
        assert response.headers["Content-Type"] == "application/problem+json"
    for response in responses:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Vary"] == "Origin"
        (line,) = (record for record in caplog.records if response.headers["X-Request-ID"] in record.getMessage())
        assert f" {response.status_code} " in line.getMessage()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/student/1"),
        ("GET", "/students"),
        ("GET", "/students?name=a"),
        ("GET", "/students/export"),
        ("GET", "/departments"),
        ("GET", "/health/ready"),
        ("POST", "/student"),
        ("PUT", "/student/1"),
        ("PATCH", "/student/1"),
        ("DELETE", "/student/1"),
    ],
)
def test_application_mounted_without_its_lifespan_says_so_at_once(
    sqlite_url: str, sqlite_path: Path, method: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each request is a 503, and the log names the missing lifespan."""
    with serve_database(sqlite_url):  # creates the tables
        pass
    headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
    content = ANANYA if method in {"POST", "PUT", "PATCH"} else None
    with serve_mounted(create_app(Settings(database_url=sqlite_url)), with_lifespan=False) as client:
        caplog.clear()
        began = time.monotonic()
        response = client.request(method, path, headers=headers, json=content)
    assert time.monotonic() - began < 2
    assert_is_unavailable(response)
    warnings = [record.getMessage() for record in caplog.records if record.name == "litestar_app"]
    assert len(warnings) == 1
    assert warnings[0].endswith(f": 503: {NOT_OPEN}")
    assert query_sqlite(sqlite_path, "SELECT COUNT(*) FROM students") == [(0,)]
