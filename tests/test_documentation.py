"""README and docs: sessions show the real output; settings, commands, links and pages exist and are found."""

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
DOCS = ROOT / "docs"
README, TUTORIAL, API = ROOT / "README.md", DOCS / "tutorial.md", DOCS / "reference/api.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
MAX_WORDS = 1200
"""Of a page that is read from beginning to end; the reference is not."""


def read_sessions(text: str) -> list[tuple[str, str]]:
    """Return each command, with the lines that continue it, and the output shown under it."""
    sessions = "\n".join(re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    return re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", sessions, re.MULTILINE)


def normalise(shown: str) -> str:
    return re.sub(r"(?mi)^(date|x-request-id): .*", r"\1: ...", shown).replace("\r", "").replace("\ufeff", "").strip()


def replay(steps: list[tuple[str, str]], service: Service) -> None:
    """Run each command against the service, and compare its output."""
    for command, shown in steps:
        run = re.sub(r"\bcurl\b", "curl -sS", command).replace("http://127.0.0.1:8000", service.url)
        seen = subprocess.run(["bash", "-c", run], cwd=service.directory, check=True, capture_output=True, text=True)
        assert (seen.stderr, normalise(seen.stdout)) == ("", normalise(shown)), command


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="bash and curl are not installed")
@pytest.mark.parametrize("page", [README, API, DOCS / "how-to/spreadsheet.md"], ids=lambda page: page.name)
def test_sessions_show_what_a_user_sees(page: Path, tmp_path: Path) -> None:
    steps = read_sessions(page.read_text())
    assert len(steps) > 4
    with Service(tmp_path) as service:
        replay(steps, service)


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="bash and curl are not installed")
def test_spreadsheet_of_the_readme_comes_back(tmp_path: Path) -> None:
    (commands,) = re.findall(r"^```sh\n(curl .*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    with Service(tmp_path) as service:
        assert service.client.post("/student", json=ANANYA).status_code == 201
        run = re.sub(r"\bcurl\b", "curl -sS --fail", commands).replace("http://127.0.0.1:8000", service.url)
        seen = subprocess.run(["bash", "-ec", run], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert (seen.stderr, seen.stdout.count('"unchanged":1')) == ("", 2)


@pytest.mark.skipif(not (shutil.which("sqlite3") and shutil.which("mariadb")), reason="a client is not installed")
def test_move_from_sqlite_to_mysql(mariadb: MariaDB, mysql_url: str, sqlite_path: Path) -> None:
    """The commands of docs/how-to/mysql.md, with texts that either database could read as syntax; ids stay assigned."""
    tables = ("students", "history", "imports", "api_keys", "idempotency_keys")
    with Service(sqlite_path.parent, DATABASE_URL=f"sqlite:///{sqlite_path}") as service:
        for number, name in enumerate(['O\'Brien \\ "x"', "=1+1", "a\\'b\\n", "😀 %s अनन्या"]):
            student, key = {"name": name, "department": "C'\\S", "cgpa": 0.1 + 0.2}, {"Idempotency-Key": f"{number}\\'"}
            assert service.client.post("/student", json=student, headers=key).status_code == 201
        assert service.client.delete("/student/4").status_code == 200
        service.stop()
    name = mysql_url.rpartition("/")[2]
    commands = (DOCS / "how-to/mysql.md").read_text().split("```sh\n")[3].partition("```")[0]
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


def read_reference(name: str) -> str:
    """Return the text of a page of the reference."""
    return (DOCS / "reference" / f"{name}.md").read_text()


def test_every_setting_is_documented() -> None:
    """With its default, where it has a row of its own."""
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \| (.*?) ?\|", read_reference("settings"), re.MULTILINE)
    documented = {name.strip("` ").lower(): default.strip("`") for row, default in rows for name in row.split(",")}
    assert set(documented) == set(Settings.__struct_fields__)
    for name, default in documented.items():
        if not name.startswith("mysql_"):
            assert default == str(getattr(Settings(), name) or ""), name


def test_every_command_is_documented() -> None:
    documented = set(re.findall(r"^\| `litestar (students|keys) ([a-z]+)\b", read_reference("commands"), re.MULTILINE))
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


def read_anchors(page: Path) -> set[str]:
    """Return the fragments of the headings, as GitHub makes them; code is no heading."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def read_links(page: Path) -> list[tuple[Path, str]]:
    """Return the file and the fragment of each link inside the repository."""
    links = re.findall(r"\]\((?![a-z]+:)([^)#]*)#?([^)]*)\)", page.read_text())
    return [((page.parent / path).resolve() if path else page, fragment) for path, fragment in links]


def test_no_link_is_dead() -> None:
    """Neither its file nor its heading is missing."""
    for page in [*PAGES, ROOT / "CHANGELOG.md", ROOT / "tests/benchmarks/README.md"]:
        for path, fragment in read_links(page):
            assert path.exists(), (page, path)
            assert not fragment or fragment in read_anchors(path), (page, path, fragment)


def test_every_page_is_reachable_from_the_readme() -> None:
    reached, found = set(), [README]
    while found:
        page = found.pop()
        reached.add(page)
        found += [path for path, _ in read_links(page) if path in PAGES and path not in reached]
    assert reached == set(PAGES)


def test_every_page_is_short() -> None:
    """Only the reference, which is looked up and not read, may be longer."""
    lengths = {page: len(page.read_text().split()) for page in PAGES if page.parent.name != "reference"}
    assert {page: words for page, words in lengths.items() if words > MAX_WORDS} == {}


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
