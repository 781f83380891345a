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
PINNED = ["--no-annotate", "--no-hashes"]
DEPLOYED = ["--no-default-groups", "--group", "build", "-o", "docs/deploy/requirements.txt"]


def main() -> None:
    """Do what the command line says; the exit code is that of the tests."""
    command, *arguments = sys.argv[1:] or [""]
    if command not in {"test", "renew"}:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, "project")
        _copy_without_pins(copy)
        newest = _export(copy, "--all-groups", "--all-extras", *PINNED)
        changes = _compare(_read_pins(), newest)
        print("\n".join(changes) or "The pinned versions are the newest ones.", flush=True)
        if changes:
            _run(copy, "run", "just", "test", *arguments)
        if command == "renew":
            _write_pins(newest, _export(copy, "--only-group", "build", *PINNED))
            _run(ROOT, "lock")
            _run(ROOT, *EXPORT, *DEPLOYED)


def _copy_without_pins(copy: Path) -> None:
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
    project = copy / "pyproject.toml"
    project.write_text(BUILD_PINS.sub("", PINS.sub("", project.read_text())))


def _export(project: Path, *arguments: str) -> list[str]:
    return _run(project, *EXPORT, *arguments).splitlines()


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


def _read_pins() -> list[str]:
    found = PINS.search((ROOT / "pyproject.toml").read_text())
    return re.findall(r'^  "(.*)",$', found[0], re.MULTILINE) if found else []


def _write_pins(pins: list[str], build_pins: list[str]) -> None:
    project = ROOT / "pyproject.toml"
    text = project.read_text()
    for place, lines in ((PINS, pins), (BUILD_PINS, build_pins)):
        content = "".join(f'  "{line}",\n' for line in lines)
        text = place.sub(lambda _, content=content: content, text)
    project.write_text(text)


def _compare(pinned: list[str], newest: list[str]) -> list[str]:
    """Describe each package of which the newest version is another one."""
    gone, new = sorted({*pinned} - {*newest}), sorted({*newest} - {*pinned})
    return [f"- {line}" for line in gone] + [f"+ {line}" for line in new]


if __name__ == "__main__":
    main()
