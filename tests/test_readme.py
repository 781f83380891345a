"""The README's sessions: what they show is what one sees."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.service import Service

README = (Path(__file__).parents[1] / "README.md").read_text()
DATE = re.compile(r"^date: .*", re.MULTILINE | re.IGNORECASE)


def read_sessions() -> list[tuple[str, str]]:
    """Take each command, with the lines that continue it, and what is shown under it."""
    sessions = "\n".join(re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
    return re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", sessions, re.MULTILINE)


def normalise(shown: str) -> str:
    return DATE.sub("date: ...", shown).replace("\r", "").strip()


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="bash and curl are not installed")
def test_what_the_readme_shows_is_what_one_sees(tmp_path: Path) -> None:
    steps = read_sessions()
    assert len(steps) > 5
    with Service(tmp_path) as service:
        for command, shown in steps:
            run = re.sub(r"\bcurl\b", "curl -sS", command).replace("http://127.0.0.1:8000", service.url)
            seen = subprocess.run(["bash", "-c", run], check=True, capture_output=True, text=True)
            assert (seen.stderr, normalise(seen.stdout)) == ("", normalise(shown)), command
