"""The versions that are installed: the pins of pyproject.toml, and docs/deploy/requirements.txt with hashes."""

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
UV = shutil.which("uv")
needs_uv = pytest.mark.skipif(UV is None and "CI" not in os.environ, reason="uv is not installed")


def read_pins() -> list[str]:
    """Return the exact versions that `uv run` installs."""
    pins: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["constraint-dependencies"]
    return pins


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
    for text in (FILE.read_text(), "\n".join(read_pins())):
        assert not re.search(r"://|index|find-links|@", text)


def test_requirements_are_the_pinned_versions() -> None:
    versions = re.findall(r"^[a-z]\S+", FILE.read_text(), re.MULTILINE)
    assert {*versions} <= {line.partition(" ")[0] for line in read_pins()}


@needs_uv
def test_everything_that_is_installed_is_pinned(tmp_path: Path) -> None:
    """On every platform and Python, with every group and extra; what is not pinned turns red when it moves."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    export = [str(UV), "export", "-q", "--all-groups", "--all-extras", "--no-emit-project", "--no-hashes"]
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    exported = subprocess.run(
        [*export, "--no-annotate", "--no-header"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    ).stdout
    assert {*exported.splitlines()} == {*read_pins()}


@needs_uv
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_requirements_are_complete(version: str, tmp_path: Path) -> None:
    """Each has a hash, and what it needs in turn is there: else nothing would be installed."""
    arguments = ["--require-hashes", "--python-version", version, "--target", str(tmp_path), "-r", str(FILE)]
    subprocess.run([str(UV), "pip", "install", "-q", "--dry-run", *arguments], check=True)
