"""docs/tutorial.md, followed as a reader does: its table, its commands and its requests, on SQLite and then MySQL."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service import Service
from tests.test_documentation import README, TUTORIAL, read_sessions, replay

pytestmark = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")), reason="bash and curl are not installed"
)


def read_step(number: int) -> str:
    """Return the text of a numbered step."""
    (step,) = re.findall(rf"^## {number}\. .*?(?=^## )", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    return str(step)


def read_block(step: str, language: str) -> str:
    """Return the only block of a language in a step."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", step, re.MULTILINE | re.DOTALL)
    return str(block)


def test_steps_on_the_table_of_the_tutorial(tmp_path: Path) -> None:
    """The table is made by the tutorial's own code; each request shows the output of the document."""
    (tmp_path / "tutorial.py").write_text(read_block(read_step(1), "python"))
    subprocess.run([sys.executable, "tutorial.py"], cwd=tmp_path, check=True)
    serve = read_block(read_step(2), "sh")
    assert f"```sh\n{serve}```" in README.read_text()  # which .ci/run runs
    mysql = read_sessions(read_step(9))
    steps = read_sessions(TUTORIAL.read_text())
    assert steps[-len(mysql) :] == mysql
    with Service(tmp_path) as service:
        replay(steps[: -len(mysql)], service)
        assert service.client.get("/docs").headers["Content-Type"].startswith("text/html")  # step 8


def test_step_to_mysql(mysql_url: str, tmp_path: Path) -> None:
    (shown,) = re.findall("^export DATABASE_URL=(.*)$", read_block(read_step(9), "sh"), re.MULTILINE)
    assert shown.partition("://")[0] in {"mysql", "mariadb"}
    url = re.sub("^[a-z+]*://", f"{shown.partition('://')[0]}://", mysql_url)
    with Service(tmp_path, DATABASE_URL=url) as service:
        replay(read_sessions(read_step(9)), service)
