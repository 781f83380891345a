"""README and docs: every session shows what a user sees; every setting, command and linked file exists."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from litestar_app.cli import keys_group, students_group
from litestar_app.settings import Settings
from tests.conftest import query_sqlite
from tests.mariadb import MariaDB
from tests.service import ANANYA, Service, serve_database

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / ".env.example"
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


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="bash and curl are not installed")
def test_spreadsheet_of_the_readme_comes_back(tmp_path: Path) -> None:
    (commands,) = re.findall(r"^```sh\n(curl .*?)^```", PAGES[0].read_text(), re.MULTILINE | re.DOTALL)
    with Service(tmp_path) as service:
        assert service.client.post("/student", json=ANANYA).status_code == 201
        run = re.sub(r"\bcurl\b", "curl -sS --fail", commands).replace("http://127.0.0.1:8000", service.url)
        seen = subprocess.run(["bash", "-ec", run], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert (seen.stderr, seen.stdout.count('"unchanged":1')) == ("", 2)


@pytest.mark.skipif(not (shutil.which("sqlite3") and shutil.which("mariadb")), reason="a client is not installed")
def test_move_from_sqlite_to_mysql(mariadb: MariaDB, mysql_url: str, sqlite_path: Path) -> None:
    """As docs/capacity.md says, with what one of the databases could take for syntax; an id stays given."""
    tables = ("students", "history", "imports", "api_keys", "idempotency_keys")
    with Service(sqlite_path.parent, DATABASE_URL=f"sqlite:///{sqlite_path}") as service:
        for number, name in enumerate(['O\'Brien \\ "x"', "=1+1", "a\\'b\\n", "😀 %s अनन्या"]):
            student, key = {"name": name, "department": "C'\\S", "cgpa": 0.1 + 0.2}, {"Idempotency-Key": f"{number}\\'"}
            assert service.client.post("/student", json=student, headers=key).status_code == 201
        assert service.client.delete("/student/4").status_code == 200
        service.stop()
    name = mysql_url.rpartition("/")[2]
    commands = PAGES[3].read_text().split("```sh\n")[2].partition("```")[0]
    for shown, used in (
        ("mysql://registrar:p%40ss@db1/college", mysql_url),
        ("litestar students", f"{Path(sys.executable).with_name('litestar')} students"),
        ("| mariadb ", f"| mariadb --host={mariadb.host} --port={mariadb.port} --user=root "),
        (" college\n", f" {name}\n"),
    ):
        assert shown in commands
        commands = commands.replace(shown, used)
    subprocess.run(["bash", "-c", commands], cwd=sqlite_path.parent, check=True)
    for table in tables:
        rows = f"SELECT * FROM {table} ORDER BY 1"
        assert mariadb.execute(rows, database=name) == query_sqlite(sqlite_path, rows)
    with serve_database(mysql_url) as client:
        assert client.post("/student", json=ANANYA).json()["id"] == 5


def test_every_setting_is_documented() -> None:
    """With its default, where it has a row of its own."""
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \| (.*?) ?\|", PAGES[2].read_text(), re.MULTILINE)
    documented = {name.strip("` ").lower(): default.strip("`") for row, default in rows for name in row.split(",")}
    assert set(documented) == set(Settings.__struct_fields__)
    for name, default in documented.items():
        if not name.startswith("mysql_"):
            assert default == str(getattr(Settings(), name) or ""), name


def test_every_command_is_documented() -> None:
    documented = set(re.findall(r"^\| `litestar (students|keys) ([a-z]+)\b", PAGES[2].read_text(), re.MULTILINE))
    assert documented == {(group.name, command) for group in (students_group, keys_group) for command in group.commands}


def test_every_version_is_in_the_changelog() -> None:
    sections = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[:2] == ["Unreleased", version("student-records")]


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


def test_example_of_an_env_file_is_read(tmp_path: Path) -> None:
    """Each of its lines is a setting, and Litestar's own commands find the application by the first."""
    (application,) = re.findall("^LITESTAR_APP=(.*)$", EXAMPLE.read_text(), re.MULTILINE)
    lines = re.findall(r"^# ([A-Z_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE)
    assert {name.lower() for name, _ in lines} < {*Settings.__struct_fields__}
    for name, value in lines:
        Settings.from_environment({name: value})
    environment = {"PATH": os.environ["PATH"], "LITESTAR_APP": application}
    command = [str(Path(sys.executable).with_name("litestar")), "routes"]
    shown = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    assert "/student/{student_id:str}/history" in shown
