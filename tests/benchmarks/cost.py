"""What a file may cost: processor time for each KiB of the worst files of each format, next to an ordinary one."""

import argparse
import io
import resource
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable

import xlsxwriter

from tests.benchmarks.processes import REPOSITORY

HEADER = b"name,department,cgpa\n"
IMPORT = """
import asyncio, sys, tempfile, time
from litestar_app.database import Database
from litestar_app.database.config import create_alchemy_config
from litestar_app.entries import ImportLog
from litestar_app.exceptions import FileError
from litestar_app.transfer.exceptions import ImportRejectedError
from litestar_app.settings import Settings
from litestar_app.transfer.imports import ImportOptions, ImportService, write_rejected_rows

async def import_file(file, options):
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(database_url=f"sqlite:///{folder}/students.db")
        alchemy = create_alchemy_config(settings)
        alchemy.prepare_database()
        async with (database := Database(alchemy)).open():
            began = time.process_time()
            try:
                report = await ImportService(database, ImportLog).import_file(file, options, "local")
            except ImportRejectedError as error:
                report = error.report
            except FileError:
                return time.process_time() - began
            write_rejected_rows(file, options, report, tempfile.TemporaryFile())
            return time.process_time() - began

print(asyncio.run(import_file(open(sys.argv[1], "rb"), ImportOptions(kind=sys.argv[2], dry_run=True, all_errors=True))))
"""
"""Imports a file on trial and writes its rejected rows, as for `Accept: text/csv`."""


def make_ordinary_csv() -> bytes:
    return HEADER + b"".join(b"Student %d,Department %d,%.1f\n" % (n, n % 9, n % 100 / 10) for n in range(100_000))


def make_ordinary_lines(separator: bytes) -> bytes:
    student = b'{"name":"Student %d","department":"Department %d","cgpa":%.1f}'
    return separator.join(student % (n, n % 9, n % 100 / 10) for n in range(50_000))


def make_ordinary_xlsx() -> bytes:
    with xlsxwriter.Workbook(file := io.BytesIO()) as workbook:
        sheet = workbook.add_worksheet()
        sheet.write_row(0, 0, HEADER.decode().strip().split(","))
        for n in range(1, 20_000):
            sheet.write_row(n, 0, [f"Student {n}", f"Department {n % 9}", n % 100 / 10])
    return file.getvalue()


def make_xlsx(rows: bytes, *, mebibytes: int = 32, strings: bytes = b"", above: bool = False) -> bytes:
    """Repeat rows of a sheet, above or below the header, or shared strings, and compress them."""
    cells = "".join(f'<c t="str"><v>{name}</v></c>' for name in HEADER.decode().strip().split(","))
    filler = rows * (mebibytes * 1024**2 // len(rows)) if rows else b""
    parts = (filler, b"") if above else (b"", filler)
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "xl/workbook.xml", '<workbook xmlns:r="r"><sheets><sheet name="a" r:id="1"/></sheets></workbook>'
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            '<r><Relationship Id="1" Type="x/worksheet" Target="s.xml"/>'
            '<Relationship Id="2" Type="x/sharedStrings" Target="t.xml"/></r>',
        )
        sheet = b"<worksheet><sheetData>%b<row r='1'>%b</row>%b</sheetData></worksheet>"
        archive.writestr("xl/s.xml", sheet % (parts[0], cells.encode(), parts[1]))
        repeated = strings * (mebibytes * 1024**2 // len(strings)) if strings else b"<si><t>x</t></si>"
        archive.writestr("xl/t.xml", b"<sst>%b</sst>" % repeated)
    return file.getvalue()


FILES: dict[str, dict[str, Callable[[], bytes]]] = {
    "csv": {
        "ordinary": make_ordinary_csv,
        "rows of one letter": lambda: HEADER + b"x\n" * 500_000,
        "1000 columns": lambda: HEADER[:-1] + b",x" * 990 + b"\n" + b"x\n" * 100_000,
        "columns without a name": lambda: b"name" + b"," * 990 + b"department,cgpa\n" + b"x\n" * 20_000,
        "quotes that are not closed": lambda: HEADER + b'a","\n' * 20_000,
        "blank rows": lambda: HEADER + b"\n" * 1_000_000,
    },
    "ndjson": {
        "ordinary": lambda: make_ordinary_lines(b"\n"),
        "numbers": lambda: b"1\n" * 500_000,
        "empty objects": lambda: b"{}\n" * 300_000,
    },
    "json": {
        "ordinary": lambda: b"[" + make_ordinary_lines(b",") + b"]",
        "numbers": lambda: b"[" + b"1," * 500_000 + b"1]",
        "empty objects": lambda: b"[" + b"{}," * 300_000 + b"{}]",
        "blanks": lambda: b"[" + b" " * 900_000 + b"{}]",
    },
    "xlsx": {
        "ordinary": make_ordinary_xlsx,
        "empty elements": lambda: make_xlsx(b"<a/>"),
        "empty elements above the header": lambda: make_xlsx(b"<a/>", above=True),
        "empty cells": lambda: make_xlsx(b"<row><c/></row>"),
        "bad rows": lambda: make_xlsx(b"<row><c t='s'><v>0</v></c></row>"),
        "empty shared strings": lambda: make_xlsx(b"", strings=b"<si/>"),
        "shared strings": lambda: make_xlsx(b"", strings=b"<si><t>x</t></si>"),
        "attributes": lambda: make_xlsx(b"<a b='' c='' d='' e='' f='' g='' h=''/>"),
        "blanks": lambda: make_xlsx(b" ", mebibytes=200),
        "many names": lambda: make_xlsx(b"".join(b"<a%d/>" % n for n in range(9_000)), mebibytes=16),
    },
}  # fmt: skip


def measure(content: bytes, kind: str, package: str, limit: int) -> float:
    """Return the seconds of processor time that an import on trial takes, in a process of its own."""

    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))

    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        command = [sys.executable, "-c", IMPORT, file.name, kind]
        process = subprocess.run(
            command, cwd=package, capture_output=True, text=True, preexec_fn=set_limit, check=False
        )
    return float(process.stdout or limit)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cost", description=__doc__)
    parser.add_argument("--package", default=str(REPOSITORY), help="another checkout, to compare with")
    parser.add_argument("--only", choices=FILES, help="one format")
    parser.add_argument("--limit", type=int, default=20, help="seconds after which a file is given up")
    arguments = parser.parse_args()
    print("| file | KiB | s | ms for each KiB | × an ordinary one |\n|---|---|---|---|---|")
    for kind, files in FILES.items():
        if arguments.only not in {None, kind}:
            continue
        ordinary = 0.0
        for name, make in files.items():
            content = make()
            seconds = measure(content, kind, arguments.package, arguments.limit)
            cost = seconds / len(content) * 1024 * 1000
            ordinary = ordinary or cost
            over = "> " if seconds >= arguments.limit else ""
            numbers = f"{over}{seconds:.2f} | {over}{cost:.2f} | {over}{cost / ordinary:.1f}"
            print(f"| {kind}: {name} | {len(content) / 1024:,.0f} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
