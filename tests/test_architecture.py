"""The direction of imports, read from the source: from capabilities to the core, never back."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from litestar import Request

import litestar_app
from litestar_app.http.callers import Caller, get_caller

PACKAGE = Path(litestar_app.__file__).parent
CAPABILITIES = {
    *("access", "cli", "database", "departments", "entries", "history", "idempotency", "operations", "server"),
    *("students", "transfer"),
}
"""Packages and modules that use `http/`."""


def find_imports() -> Iterator[tuple[str, str]]:
    """Yield each file with each package or module of ours that it imports, late imports included."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                package, *inner = name.split(".")
                if package == PACKAGE.name and inner:
                    yield path.relative_to(PACKAGE).as_posix(), inner[0]


def find_circles() -> set[frozenset[str]]:
    """Return the packages and modules that import each other, directly or through others."""
    edges: dict[str, set[str]] = {}
    for file, imported in find_imports():
        package = file.partition("/")[0].removesuffix(".py")
        if package != imported:
            edges.setdefault(package, set()).add(imported)
    reached = {package: find_reached(edges, package) for package in edges}
    return {
        frozenset({package, *(other for other in found if package in reached.get(other, ()))})
        for package, found in reached.items()
        if package in found
    }


def find_reached(edges: dict[str, set[str]], start: str) -> set[str]:
    """Return all that one package imports, directly or through others."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        new = edges.get(waiting.pop(), set()) - reached
        reached |= new
        waiting += new
    return reached


def test_http_imports_no_capability() -> None:
    upward = {(file, name) for file, name in find_imports() if file.startswith("http/") and name in CAPABILITIES}
    assert upward == set()


def test_packages_import_in_one_direction() -> None:
    assert find_circles() == set()


def test_records_import_no_access_control() -> None:
    """Students, files and the history get the caller as a value."""
    folders = ("students/", "transfer/", "history/")
    assert [file for file, name in find_imports() if file.startswith(folders) and name == "access"] == []


def test_caller_whom_nobody_has_admitted_is_nobody() -> None:
    """An application without access control fails closed."""
    request: Request[Any, Any, Any] = Request(cast("Any", {"type": "http"}))
    with pytest.raises(KeyError):
        get_caller(request)
    caller = request.scope["auth"] = Caller("a", "reader", "k1")
    assert get_caller(request) is caller


def test_one_backend_answers_for_each_database() -> None:
    """No other module of database/ asks which database it is, or reaches for one of them."""
    own = {"backup.py", "config.py", "hosts.py", "mysql.py", "sqlite.py"}
    for path in (PACKAGE / "database").glob("*.py"):
        source = path.read_text()
        if path.name not in own:
            assert "dialect.name" not in source, path
            assert not {"database.mysql", "database.sqlite", "database.hosts"} & set(
                re.findall(r"database\.\w+", source)
            ), path


def test_no_channel_is_hidden_in_a_session() -> None:
    """`session.info` is advanced-alchemy's; state of a transaction is typed, in the unit of work."""
    assert [path for path in PACKAGE.rglob("*.py") if ".info[" in path.read_text()] == []


def test_core_names_no_capability() -> None:
    """The application without its capabilities is the core: each of them is one import and one line of a list."""
    capabilities = {"access", "departments", "history", "operations", "transfer"}
    core = ("http/", "records/", "students/", "database/", "idempotency", "exceptions", "settings", "startup")
    assert {(file, name) for file, name in find_imports() if file.startswith(core) and name in capabilities} == set()


def test_what_is_read_first_is_short() -> None:
    """The application and all that is the student's own are read in fifteen minutes."""
    files = [PACKAGE / "app.py", *(PACKAGE / "students").glob("*.py")]
    assert sum(len(path.read_text().splitlines()) for path in files) <= 600


def test_what_is_generic_names_no_student() -> None:
    """`records/` imports nothing of the student, nor a model."""
    assert [(file, name) for file, name in find_imports() if file.startswith("records/")
            and name in {"students", "models", "entries"}] == []  # fmt: skip
