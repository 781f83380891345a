"""docs/deploy/requirements.txt: every dependency, in a version that pyproject.toml allows, by its hashes."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs/deploy/requirements.txt"


def test_requirements_are_what_the_package_asks_for() -> None:
    """`just lock` renews them; they need not be the newest versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["build"]]
    lines = re.findall(r"^[a-z].*?(?=\s\\$)", FILE.read_text(), re.MULTILINE)
    given = {canonicalize_name(line.name): line for line in map(Requirement, lines)}
    assert len(given) > len(asked)
    for line in map(Requirement, asked):
        (version,) = given[canonicalize_name(line.name)].specifier
        assert version.operator == "=="
        assert version.version in line.specifier, line


def test_requirements_name_no_host() -> None:
    assert not re.search(r"://|index|find-links|@", FILE.read_text())


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_requirements_are_complete(version: str, tmp_path: Path) -> None:
    """Each has a hash, and what it needs in turn is there: else nothing would be installed."""
    uv = shutil.which("uv")
    if uv is None:
        assert "CI" not in os.environ, "uv is not installed"
        pytest.skip("uv is not installed")
    arguments = ["--require-hashes", "--python-version", version, "--target", str(tmp_path), "-r", str(FILE)]
    subprocess.run([uv, "pip", "install", "-q", "--dry-run", *arguments], check=True)
