"""Files for imports, made by the programs that teachers make them with."""

import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import openpyxl
import pytest
import xlsxwriter

HEADER = ["name", "department", "cgpa"]
MISSING_OFFICE = "LibreOffice is not installed; Debian has it as libreoffice-calc"


def make_xlsx(rows: Iterable[Sequence[Any]]) -> bytes:
    """Write rows as openpyxl does, which calculates no formula."""
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    assert sheet is not None
    for row in rows:
        sheet.append(list(row))
    file = io.BytesIO()
    workbook.save(file)
    return file.getvalue()


def make_formatted_xlsx(rows: Sequence[Sequence[Any]], formatted: int) -> bytes:
    """Write rows, and below them a million formatted ones, as xlsxwriter does."""
    file = io.BytesIO()
    with xlsxwriter.Workbook(file) as workbook:
        sheet = workbook.add_worksheet()
        bold = workbook.add_format({"bold": True})
        for line in range(formatted):
            sheet.set_row(line, None, bold)
        for line, row in enumerate(rows):
            sheet.write_row(line, 0, row)
            for column in range(3):
                sheet.write_blank(formatted - 1 - line, column, None, bold)
    return file.getvalue()


def change_part(workbook: bytes, name: str, change: Any) -> bytes:
    """Make the archive again with one part changed."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(workbook)) as old,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for part in old.namelist():
            new.writestr(part, change(old.read(part)) if part == name else old.read(part))
    return file.getvalue()


def convert(file: Path, target: str) -> bytes:
    """Let LibreOffice open a CSV file in UTF-8 or a workbook, and save it as another, such as `xlsx`."""
    office = shutil.which("soffice")
    if office is None:
        assert "CI" not in os.environ, MISSING_OFFICE
        pytest.skip(MISSING_OFFICE)
    out = Path(mkdtemp(dir=file.parent))
    profile = f"-env:UserInstallation=file://{file.parent}/profile"  # of its own: two runs cannot share one
    source = ["--infilter=CSV:44,34,76,1"] if file.suffix == ".csv" else []
    command: list[str | Path] = [office, profile, "--headless", *source, "--convert-to", target, "--outdir", out, file]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (converted,) = out.iterdir()
    return converted.read_bytes()
