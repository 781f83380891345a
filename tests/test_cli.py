"""`litestar students …`, as processes: import, export, seed, on the database that a service may be serving."""

import contextlib
import json
import os
import pty
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Rows, query_sqlite
from tests.files import make_xlsx
from tests.service import ANANYA, Service
from tests.test_bodies import CGPA, EMPTY

LITESTAR = Path(sys.executable).with_name("litestar")
HEADER = "id,name,department,cgpa\r\n"
GOOD = "name,department,cgpa\nAnanya,CSE,8.9\n'=x,ECE,7\n"
MIXED = "name,department,cgpa,room\nAnanya,CSE,8.9,1\n,ECE,11,2\n\n"
ALL = "SELECT name, department, cgpa FROM students ORDER BY id"


class Commands:
    """Runs `litestar students` in a directory, on a database, with no other setting."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.environment = Service(directory, DATABASE_URL=url).environment

    def start(self, *arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        command = [str(LITESTAR), "students", *map(str, arguments)]
        environment = self.environment | options.pop("variables", {})
        return subprocess.Popen(command, cwd=self.directory, env=environment, **options)

    def run(self, *arguments: Any, given: bytes = b"", **options: Any) -> tuple[int, str, str]:
        """Return the exit code, the output and what is on standard error."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.start(*arguments, **pipes, **options) as process:
            out, errors = process.communicate(given, timeout=60)
        return process.returncode, out.decode(), errors.decode()

    def run_on_terminal(self, *arguments: Any, columns: int = 80, said: str = "") -> tuple[int, str]:
        """Return the exit code and what is on the terminal, where somebody says something."""
        ours, theirs = pty.openpty()
        variables = {"COLUMNS": str(columns)}
        with self.start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, variables=variables) as process:
            os.close(theirs)
            os.write(ours, said.encode() + b"\n" if said else b"")
            shown = bytearray()
            while True:
                try:
                    shown += os.read(ours, 65536)
                except OSError:  # the end, on Linux
                    break
        os.close(ours)
        return process.returncode, shown.decode()


@pytest.fixture
def commands(tmp_path: Path, sqlite_url: str) -> Commands:
    return Commands(tmp_path, sqlite_url)


def test_help_needs_no_application_and_no_database(commands: Commands) -> None:
    for command in ([], ["import"]):
        code, shown, errors = commands.run(*command, "--help")
        assert (code, errors) == (0, "")
        assert "Usage: litestar students" in shown
    assert list(commands.directory.iterdir()) == []


def test_export_edit_import_changes_what_was_edited(
    tmp_path: Path, database_url: str, query: Callable[..., Rows]
) -> None:
    commands = Commands(tmp_path, database_url)
    assert commands.run("import", "-", given=GOOD.encode()) == (
        0,
        "Imported: 2 created, 0 updated, 0 unchanged, 0 rows rejected.\n",
        "",
    )
    assert commands.run("export", "students.csv") == (0, "", "")
    file = tmp_path / "students.csv"
    text = file.read_bytes().decode()
    assert text == HEADER + "1,Ananya,CSE,8.9\r\n2,'=x,ECE,7.0\r\n"
    file.write_bytes(text.replace("8.9", "9.1").encode())
    changed = "0 created, 1 updated, 1 unchanged, 0 rows rejected.\n"
    assert commands.run("import", "students.csv", "--dry-run") == (
        0,
        f"Nothing was written (a dry run). It would be: {changed}",
        "",
    )
    assert query(ALL)[0] == ("Ananya", "CSE", 8.9)
    assert commands.run("import", "students.csv") == (0, f"Imported: {changed}", "")
    assert query(ALL) == [("Ananya", "CSE", 9.1), ("=x", "ECE", 7.0)]


def test_rejected_rows_are_exit_code_1_and_a_table(commands: Commands, sqlite_path: Path) -> None:
    (commands.directory / "mixed.csv").write_text(MIXED)
    code, shown, errors = commands.run("import", "mixed.csv")
    assert (code, shown) == (
        1,
        "Nothing was imported: 1 row rejected.\nSkipped: 1 blank row.\nIgnored columns: room.\n",
    )
    header, name, cgpa = errors.splitlines()
    assert header.split() == ["row", "column", "value", "detail"]
    assert name.startswith("3    name           empty; expected a text of 1 to 100 characters")
    assert cgpa == "3    cgpa    11     expected a number from 0 to 10"
    assert query_sqlite(sqlite_path, ALL) == []
    code, shown, _ = commands.run("import", "mixed.csv", "--mode", "valid", "--rejected", "rejected.csv")
    assert (code, shown.splitlines()[0]) == (1, "Imported: 1 created, 0 updated, 0 unchanged, 1 row rejected.")
    assert query_sqlite(sqlite_path, ALL) == [("Ananya", "CSE", 8.9)]
    header, row = (commands.directory / "rejected.csv").read_text("utf-8-sig").splitlines()
    assert (header, row[:9]) == ("name,department,cgpa,room,error", ",ECE,11,2")


def test_report_names_what_is_easily_missed(commands: Commands) -> None:
    """Titles above the header, students of other names under the same ids, and rows that are there twice."""
    assert commands.run("import", "-", given=GOOD.encode())[0] == 0
    titled = "Class list\n\nid,name,department,cgpa\n1,Other,CSE,8.9\n,Eve,CSE,1\n,Eve,CSE,1\n"
    assert commands.run("import", "-", given=titled.encode()) == (
        0,
        (
            "Imported: 2 created, 1 updated, 0 unchanged, 0 rows rejected.\nUpdated with another name: 1.\n"
            "Created with the name and department of another student or row: 1.\n"
            "Skipped: 1 row above the header, 1 blank row.\n"
        ),
        "",
    )


def test_rejected_rows_on_standard_output_are_a_file(commands: Commands) -> None:
    """The report is not in it."""
    code, shown, errors = commands.run("import", "-", "--mode", "valid", "--rejected", "-", given=MIXED.encode())
    header, row = shown.splitlines()
    assert (code, header, row[:9]) == (1, "\ufeffname,department,cgpa,room,error", ",ECE,11,2")
    assert errors.startswith("Imported: 1 created, 0 updated, 0 unchanged, 1 row rejected.\nSkipped: 1 blank row.\n")


def test_output_that_cannot_be_opened_stops_the_import(commands: Commands, sqlite_path: Path) -> None:
    assert commands.run("seed", "1")[0] == 0
    given = MIXED.encode()
    code, shown, errors = commands.run("import", "-", "--mode", "valid", "--rejected", "x" * 250, given=given)
    assert (code, shown, errors.count("\n")) == (1, "", 1)
    assert len(query_sqlite(sqlite_path, ALL)) == 1
    code, shown, errors = commands.run("import", "-", "--mode", "valid", "--rejected", "/dev/full", given=given)
    assert (code, shown.partition(",")[0]) == (1, "Imported: 1 created")
    assert errors.splitlines()[-1].startswith("student-records: ")


def test_errors_are_wrapped_to_the_terminal(commands: Commands) -> None:
    (commands.directory / "bad.csv").write_text("name,department,cgpa\n" + "A,CSE,\x1b[31m11\n" * 1003)
    code, _, errors = commands.run("import", "bad.csv")
    lines = errors.splitlines()
    assert (code, len(lines), lines[-1]) == (1, 1002, "and 3 more rows")
    assert lines[1].startswith(r"2     cgpa    \x1b[31m11  expected a number")
    (commands.directory / "bad.csv").write_text(MIXED)
    for columns in (80, 60, 40):
        code, shown = commands.run_on_terminal("import", "bad.csv", columns=columns)
        assert code == 1
        table = shown[shown.index("row  column") :].splitlines()
        assert max(map(len, table)) <= columns
        details = " ".join(line[20:] for line in table)
        assert details == f"detail {EMPTY} expected {CGPA}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ndjson", b'{"name": "Ananya", "department": "CSE", "cgpa": 8.9}\n'),
        ("a.json", b'[{"name": "Ananya", "department": "CSE", "cgpa": 8.9}]'),
        ("a.xlsx", make_xlsx([["name", "department", "cgpa"], ["Ananya", "CSE", 8.9]])),
        ("a", "name;department;cgpa\nAnanya;CSE;8,9\n".encode("utf-16")),
    ],
)
def test_content_tells_the_format_in_a_pipe_too(commands: Commands, name: str, content: bytes) -> None:
    (commands.directory / name).write_bytes(content)
    assert commands.run("import", name)[0] == commands.run("import", "-", "--match", "none", given=content)[0] == 0
    code, shown, _ = commands.run("export", "--format", "ndjson")
    assert code == 0
    assert [json.loads(line) for line in shown.splitlines()] == [{"id": i, **ANANYA} for i in (1, 2)]


def test_charset_and_format_can_be_named(commands: Commands, sqlite_path: Path) -> None:
    given = "name,department,cgpa\nZoë,CSE,8\n".encode("latin-1")
    code, shown, errors = commands.run("import", "-", given=given)
    assert (code, shown, errors.count("\n")) == (1, "", 1)
    assert errors.startswith("student-records: ")
    assert commands.run("import", "-", "--charset", "latin-1", "--format", "csv", given=given)[0] == 0
    assert query_sqlite(sqlite_path, ALL) == [("Zoë", "CSE", 8.0)]
    code, _, errors = commands.run("import", "-", "--format", "xlsx", given=given)
    assert (code, errors.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--sort", "-cgpa"], ["C", "B", "a%"]),
        (["--department", "x", "--department", "y"], ["a%", "B"]),
        (["--name", "A%"], ["a%"]),
        (["--cgpa-min", "5", "--cgpa-max", "6"], ["B"]),
    ],
)
def test_export_takes_filters_and_sort(commands: Commands, options: list[str], names: list[str]) -> None:
    assert commands.run("import", "-", given=b"name,department,cgpa\na%,x,4\nB,y,5\nC,z,7\n")[0] == 0
    code, shown, errors = commands.run("export", *options)
    assert (code, errors) == (0, "")
    assert [line.split(",")[1] for line in shown.splitlines()[1:]] == names


@pytest.mark.parametrize(
    "arguments",
    [
        ["import"],
        ["import", "missing.csv"],
        ["import", "there.csv", "--mode", "some"],
        ["import", "there.csv", "--rejected", "./there.csv"],
        ["import", "there.csv", "--mode", "valid", "--rejected", "missing/x.csv"],
        ["export", "--sort", "room"],
        ["export", "--cgpa-min", "nan"],
        ["export", "--cgpa-min", "9", "--cgpa-max", "8"],
        ["export", "--department", ""],
        ["export", "--name", "\udcff"],
        ["export", "--name", "x" * 101],
        ["export", "students.json"],
        ["export", "missing/students.csv"],
        ["seed", "0"],
    ],
)
def test_wrong_usage_is_exit_code_2(commands: Commands, arguments: list[str]) -> None:
    (commands.directory / "there.csv").write_text(GOOD)
    code, shown, errors = commands.run(*arguments)
    assert (code, shown) == (2, "")
    assert "Usage: litestar students" in errors
    assert "Traceback" not in errors
    assert [path.name for path in commands.directory.iterdir()] == ["there.csv"]


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"PORT": "http"}, "PORT='http' is not possible: expected an integer from 1 to 65535"),
        ({"DATABASE_URL": "sqlite:////no/x"}, "DATABASE_URL (or MYSQL_*) sqlite+pysqlite:////no/x cannot be used: "),
    ],
)
def test_wrong_setting_is_one_line(commands: Commands, variables: dict[str, str], says: str) -> None:
    code, shown, errors = commands.run("import", "-", variables=variables, given=GOOD.encode())
    assert (code, shown, errors.count("\n")) == (1, "", 1)
    assert errors.startswith(f"student-records: {says}")


def test_dotenv_is_read_as_the_service_reads_it(commands: Commands) -> None:
    """Litestar's own command reads one too, and would replace the name."""
    del commands.environment["DATABASE_URL"]
    (commands.directory / ".env").write_text("DATABASE_URL=sqlite:///${NOWHERE}.db\n")
    (commands.directory / "app.py").write_text("import dotenv\ndotenv.load_dotenv('.env')\n")
    assert commands.run("seed", "1")[0] == 0
    assert (commands.directory / "${NOWHERE}.db").exists()


def test_commands_work_while_the_service_runs(commands: Commands, sqlite_url: str) -> None:
    with Service(commands.directory, DATABASE_URL=sqlite_url) as service:
        assert service.client.post("/student", json=ANANYA).status_code == 201
        assert commands.run("seed", "3000")[0] == 0
        assert service.client.post("/student", json=ANANYA).json() == {"id": 3002, **ANANYA}
        code, shown, _ = commands.run("export")
        assert (code, shown) == (0, service.client.get("/students/export").content.decode())
        assert shown.count("\n") == 3003
        service.stop()
    assert '"level":"error"' not in service.log()


def test_error_of_the_database_is_one_line(commands: Commands, sqlite_path: Path) -> None:
    assert commands.run("seed", "1")[0] == 0
    trigger = "BEFORE INSERT ON students WHEN NEW.cgpa = 7 BEGIN SELECT RAISE(ABORT, 'no'); END"
    query_sqlite(sqlite_path, f"CREATE TRIGGER never_7 {trigger}")
    code, shown, errors = commands.run("import", "-", given=GOOD.encode())
    assert (code, shown, errors) == (1, "", "student-records: A constraint of the database is violated\n")
    assert len(query_sqlite(sqlite_path, ALL)) == 1


def test_seed_makes_the_same_students_again(commands: Commands, sqlite_path: Path) -> None:
    assert commands.run("seed", "1500", "--seed", "7")[0] == commands.run("seed", "20", "--seed", "7")[0] == 0
    students = query_sqlite(sqlite_path, ALL)
    assert students[1500:] == students[:20]
    names, departments, cgpas = map(set, zip(*students, strict=True))
    assert len(names) > 500
    assert len(departments) == 12
    assert min(cgpas) >= 3
    assert max(cgpas) == 10
    assert any(not name.isascii() for name in names)


def test_progress_is_shown_on_a_terminal_only(commands: Commands) -> None:
    code, shown = commands.run_on_terminal("seed", "30000")
    assert code == 0
    assert " rows made, " in shown
    assert " a second, " in shown
    assert " left" in shown
    assert "comparing and writing" in shown
    assert commands.run("seed", "2")[2] == ""
    code, shown = commands.run_on_terminal("export", "students.csv")
    assert code == 0
    assert " rows written, " in shown
    assert commands.run("export", "students.csv")[1:] == ("", "")


def test_failed_export_leaves_the_old_file(commands: Commands, sqlite_path: Path) -> None:
    """A text that is longer than a cell of a workbook fails it half-way."""
    assert commands.run("seed", "1")[0] == 0
    with closing(sqlite3.connect(sqlite_path)) as connection, connection:
        connection.execute("UPDATE students SET name = ?", ["x" * 40_000])
    file = commands.directory / "students.xlsx"
    file.write_text("old")
    before = sorted(commands.directory.iterdir())
    code, shown, errors = commands.run("export", "students.xlsx")
    assert (code, shown, errors.count("\n")) == (1, "", 1)
    assert file.read_text() == "old"
    assert sorted(commands.directory.iterdir()) == before


def test_export_keeps_links_and_permissions(commands: Commands) -> None:
    assert commands.run("seed", "1")[0] == 0
    file, link = commands.directory / "a.csv", commands.directory / "link.csv"
    file.touch(0o600)
    link.symlink_to(file)
    assert commands.run("export", "link.csv")[0] == 0
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith("id,name")
    assert commands.run("export", "/dev/stdout")[1].startswith("id,name")


def test_broken_pipe_ends_quietly(commands: Commands) -> None:
    assert commands.run("seed", "20000")[0] == 0
    with commands.start("export", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("command", "wait"),
    [("seed 60000", 0), ("seed 60000", 0.1), ("import many.csv --match none --rejected rejected.csv", 0.1)],
)
def test_ctrl_c_writes_nothing(commands: Commands, sqlite_path: Path, command: str, wait: float) -> None:
    """At the beginning of an import, or in the middle of its merge."""
    assert commands.run("seed", "1")[0] == 0
    (commands.directory / "many.csv").write_text("name,department,cgpa\n" + "Ananya,CSE,8.9\n" * 60_000)
    ours, theirs = pty.openpty()
    with commands.start(*command.split(), stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown, until = b"", b"rows made" if wait == 0 else b"comparing and writing"
        while until not in shown:
            shown += os.read(ours, 65536)
        time.sleep(wait)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.read() == b""
    with contextlib.suppress(OSError):  # the end, on Linux
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert (b"nothing was stored, unless COMMIT had begun" in shown) == (until == b"comparing and writing")
    assert process.returncode == 130
    assert b"Traceback" not in shown
    assert len(query_sqlite(sqlite_path, ALL)) == 1
    assert {path.suffix for path in commands.directory.iterdir()} <= {".db", ".db-wal", ".db-shm", ".csv"}


def test_ctrl_c_before_a_command_begins_is_quiet(commands: Commands) -> None:
    """While Litestar looks for an application, as it does before every command."""
    (commands.directory / "app.py").write_text("import pathlib, time\npathlib.Path('began').touch()\ntime.sleep(60)\n")
    with commands.start("seed", "1", stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while not (commands.directory / "began").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.communicate()[0] == b""
    assert process.returncode == 130
    assert not list(commands.directory.glob("students.db*"))


def test_ctrl_c_leaves_no_part_of_an_export(commands: Commands, sqlite_path: Path) -> None:
    assert commands.run("seed", "30000")[0] == 0
    with commands.start("export", "students.xlsx", stderr=subprocess.PIPE) as process:
        while not list(commands.directory.glob(".*.part")):
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 130
    assert [path for path in commands.directory.iterdir() if not path.name.startswith(sqlite_path.name)] == []


@pytest.mark.parametrize("given", ["1_0", "٣", "+1", "01", "abc", "9" * 20])
def test_id_to_erase_is_written_as_in_a_url(commands: Commands, given: str) -> None:
    """Python reads 1_0 as 10, which is somebody else."""
    code, shown = commands.run("erase", given)[:2]
    assert code == 2, shown


def test_key_whose_secret_is_lost_is_named(commands: Commands) -> None:
    """It is valid, and closes the service to everybody without a key."""
    command = [str(LITESTAR), "keys", "create", "lost", "--role", "editor"]
    with Path("/dev/full").open("wb") as out:
        done = subprocess.run(
            command,
            cwd=commands.directory,
            env=commands.environment,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "revoke it (litestar keys revoke lost)" in done.stderr


def test_backup_is_no_stream(commands: Commands) -> None:
    assert commands.run("seed", "1")[0] == 0
    for given in ("-", "/dev/full"):
        assert commands.run("backup", "--force", given)[0] == 2
    assert not (commands.directory / "-").exists()
