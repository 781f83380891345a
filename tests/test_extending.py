"""What docs/how-to/extend.md promises: each change is made to a copy of the package, which is then served."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import litestar_app
from tests.mariadb import free_port
from tests.service import ANANYA, connect

PACKAGE = Path(litestar_app.__file__).parent
CAPABILITIES = ["access", "departments", "history", "operations", "transfer"]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Copy the package."""
    return Path(shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")))


@contextmanager
def serve_copy(package: Path) -> Iterator[httpx.Client]:
    """Serve the application of a copy by uvicorn, on a database beside it."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"{package.name}.main:app", "--port", str(port)]
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


@pytest.mark.parametrize("capability", [name for name in CAPABILITIES if name != "transfer"])
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
