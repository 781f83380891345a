#!/usr/bin/env python3
"""The pinned versions of pyproject.toml: test without them, or renew them.

.ci/versions.py test [ARGUMENT…]  run the tests on the newest versions; arguments go to pytest
.ci/versions.py renew             the same, then pin what has passed, and renew docs/deploy/requirements.txt
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = os.environ.get("UV", "uv")
PINS = re.compile(r'(?<=^constraint-dependencies = \[\n)(?:  ".*\n)*', re.MULTILINE)
BUILD_PINS = re.compile(r'(?<=^build-constraint-dependencies = \[\n)(?:  ".*\n)*', re.MULTILINE)
EXPORT = ["export", "--quiet", "--no-emit-project", "--no-header"]
RENEWED = ["pyproject.toml", "docs/deploy/requirements.txt"]
DEPLOYED = ["--no-default-groups", "--group", "build", "-o", RENEWED[1]]


def main() -> None:
    """Do what the command line says; the exit code is that of the tests."""
    command, *arguments = sys.argv[1:] or [""]
    if command not in {"test", "renew"}:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, "project")
        _copy_project(copy)
        pinned = _pin(copy, [], [])
        newest = _export(copy, "--all-groups", "--all-extras")
        _pin(copy, newest, _export(copy, "--only-group", "build"))
        _run(copy, *EXPORT, *DEPLOYED)
        changes = [f"- {line}" for line in pinned if line not in newest]
        changes += [f"+ {line}" for line in newest if line not in pinned]
        print("\n".join(changes) or "The pinned versions are the newest ones.", flush=True)
        if changes:
            _run(copy, "run", "just", "test", *arguments)
        if changes and command == "renew":
            for name in RENEWED:
                shutil.copy(copy / name, ROOT / name)


def _copy_project(copy: Path) -> None:
    """Copy what git would commit, for a project and an environment of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)


def _export(project: Path, *arguments: str) -> list[str]:
    return _run(project, *EXPORT, "--no-annotate", "--no-hashes", *arguments).splitlines()


def _run(project: Path, *arguments: str) -> str:
    """Run uv in a project; its errors go to the terminal, and end this program."""
    environment = {
        name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT"}
    }
    captures = "export" in arguments
    done = subprocess.run(
        [UV, *arguments],
        cwd=project,
        env=environment,
        text=True,
        stdout=subprocess.PIPE if captures else None,
        check=False,
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


def _pin(project: Path, pins: list[str], build_pins: list[str]) -> list[str]:
    """Write the pins of a project, and return those that it had."""
    file = project / "pyproject.toml"
    text = file.read_text()
    before = re.findall(r'^  "(.*)",$', "".join(PINS.findall(text)), re.MULTILINE)
    for place, lines in ((PINS, pins), (BUILD_PINS, build_pins)):
        text = place.sub("".join(f'  "{line}",\n' for line in lines).replace("\\", r"\\"), text)
    file.write_text(text)
    return before


if __name__ == "__main__":
    main()
