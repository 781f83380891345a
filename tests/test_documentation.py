"""README and docs: every session shows what a user sees; every setting, command and linked file exists."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from litestar_app.cli import keys_group, students_group
from litestar_app.settings import Settings
from tests.service import Service

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs" / name for name in ("api.md", "operating.md", "capacity.md"))]


def read_sessions(page: Path) -> list[tuple[str, str]]:
    """Return each command, with the lines that continue it, and the output shown under it."""
    sessions = "\n".join(re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
    return re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", sessions, re.MULTILINE)


def normalise(shown: str) -> str:
    return re.sub(r"(?mi)^(date|x-request-id): .*", r"\1: ...", shown).replace("\r", "").replace("\ufeff", "").strip()


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="bash and curl are not installed")
@pytest.mark.parametrize("page", PAGES[:2], ids=lambda page: page.name)
def test_sessions_show_what_a_user_sees(page: Path, tmp_path: Path) -> None:
    steps = read_sessions(page)
    assert len(steps) > 4
    with Service(tmp_path) as service:
        for command, shown in steps:
            run = re.sub(r"\bcurl\b", "curl -sS", command).replace("http://127.0.0.1:8000", service.url)
            seen = subprocess.run(["bash", "-c", run], cwd=tmp_path, check=True, capture_output=True, text=True)
            assert (seen.stderr, normalise(seen.stdout)) == ("", normalise(shown)), command


def test_every_setting_is_documented() -> None:
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \|", PAGES[2].read_text(), re.MULTILINE)
    documented = {name.strip("` ").lower() for row in rows for name in row.split(",")}
    assert documented == set(Settings.__struct_fields__)


def test_every_command_is_documented() -> None:
    documented = set(re.findall(r"^\| `litestar (students|keys) ([a-z]+)\b", PAGES[2].read_text(), re.MULTILINE))
    assert documented == {(group.name, command) for group in (students_group, keys_group) for command in group.commands}


def test_every_recipe_that_is_named_exists() -> None:
    recipes = set(re.findall(r"^([a-z-]+)[ a-z*]*:", (ROOT / "justfile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"\bjust ([a-z]+(?:-[a-z]+)*)", page.read_text())}
    assert {"serve", "test"} <= named <= recipes


def test_every_file_that_is_named_exists() -> None:
    for page in PAGES:
        text = page.read_text()
        links = [page.parent / link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)]
        tests = [ROOT / name for name in re.findall(r"`(tests/[\w/]+\.py)`", text)]
        assert [str(path) for path in links + tests if not path.exists()] == []
