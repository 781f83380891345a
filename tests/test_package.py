"""The package as a user installs it, without the development dependencies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service import ANANYA, Service
from tests.test_requirements import read_pins

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
    pins = tmp_path / "pins.txt"
    pins.write_text("\n".join(read_pins()))
    install = [uv, "pip", "install", "-q", "--python", str(python), "-c", str(pins), *map(str, tmp_path.glob("*.whl"))]
    subprocess.run(install, check=True, env=environment)
    help_page = subprocess.run([python.with_name("litestar"), "students", "--help"], check=True, capture_output=True)
    assert b"seed" in help_page.stdout
    with Service(tmp_path, python=str(python)) as service:
        assert service.client.post("/student", json=ANANYA).status_code == 201
        paths = ("/docs", "/openapi.json", "/metrics", "/departments.svg", "/students/export?format=xlsx")
        assert {service.client.get(path).status_code for path in paths} == {200}
        workbook = service.client.get(paths[-1]).content
        command = [str(python.with_name("litestar")), "students", "import", "-", "--match", "none"]
        for given, code, says in ((workbook, 0, b"1 created"), (b"name,department,cgpa\n,x,1\n", 1, b"1 row rejected")):
            done = subprocess.run(command, cwd=tmp_path, input=given, capture_output=True, check=False)
            assert (done.returncode, says in done.stdout) == (code, True), done
        service.stop()
    assert "Traceback" not in service.log()
