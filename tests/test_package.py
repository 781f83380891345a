"""The package as a user installs it, without the development dependencies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service import ANANYA, Service

ROOT = Path(__file__).parents[1]


def test_installed_package_serves(tmp_path: Path) -> None:
    """All that it imports is among its dependencies, and all of its files are in the wheel."""
    uv = shutil.which("uv")
    if uv is None:
        assert "CI" not in os.environ, "uv is not installed"
        pytest.skip("uv is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    python = tmp_path / "venv/bin/python"
    subprocess.run([uv, "build", "-q", "--wheel", "--out-dir", tmp_path, ROOT], check=True, env=environment)
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, tmp_path / "venv"], check=True, env=environment)
    install = [uv, "pip", "install", "-q", "--python", str(python), *map(str, tmp_path.glob("*.whl"))]
    subprocess.run(install, check=True, env=environment)
    help_page = subprocess.run([python.with_name("litestar"), "students", "--help"], check=True, capture_output=True)
    assert b"seed" in help_page.stdout
    with Service(tmp_path, python=str(python)) as service:
        assert service.client.post("/student", json=ANANYA).status_code == 201
        assert service.client.get("/docs").status_code == service.client.get("/openapi.json").status_code == 200
        service.stop()
    assert "Traceback" not in service.log()
