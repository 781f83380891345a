"""Workbooks as programs write them: which sheet and header are read, and a cell as what a person sees in it."""

import io
import itertools
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import xlsxwriter

from litestar_app.exceptions import FileTooLargeError, InvalidFileError, UnsupportedFileError
from litestar_app.transfer.formats import open_table, validate
from litestar_app.transfer.formats.rows import RowError
from tests.files import HEADER, convert, make_xlsx
from tests.test_formats import ANANYA, NO_RESULT, SHEET, Read, reject

NAMESPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
HEAD = '<row r="1"><c r="A1" t="str"><v>name</v></c><c r="B1" t="str"><v>department</v></c><c r="C1" t="str"><v>cgpa</v></c></row>'  # noqa: E501
ROW = '<row r="2"><c r="A2" t="str"><v>Ananya</v></c><c r="B2" t="str"><v>CSE</v></c><c r="C2"><v>8.9</v></c></row>'


def make_parts(  # noqa: PLR0913  the parts
    rows: str = ROW,
    *,
    head: str = HEAD,
    main: str = "xl/workbook.xml",
    sheet: str = "xl/worksheets/sheet1.xml",
    more: str = "",
    relations: str = "",
    namespace: str = NAMESPACE,
    kinds: str = RELATIONS,
    parts: dict[str, str] | None = None,
) -> bytes:
    """Write the parts of a workbook by hand."""
    folder = main.rpartition("/")[0]
    name = main.rpartition("/")[2]
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "_rels/.rels",
            f'<Relationships><Relationship Id="a" Type="{kinds}/officeDocument" Target="{main}"/></Relationships>',
        )
        archive.writestr(
            main,
            f'<workbook xmlns="{namespace}" xmlns:r="{kinds}">'
            f'<sheets><sheet name="S" r:id="b"/></sheets>{more}</workbook>',
        )
        archive.writestr(
            f"{folder}/_rels/{name}.rels".lstrip("/"),
            f'<Relationships><Relationship Id="b" Type="{kinds}/worksheet" Target="/{sheet}"/>{relations}'
            "</Relationships>",
        )
        archive.writestr(sheet, f'<worksheet xmlns="{namespace}"><sheetData>{head}{rows}</sheetData></worksheet>')
        for part, content in (parts or {}).items():
            archive.writestr(part, content)
    return file.getvalue()


ABSENT = "".join(
    f'<Relationship Id="{kind}" Type="{RELATIONS}/{kind}" Target="{kind}.xml"/>'
    for kind in ("styles", "sharedStrings", "theme", "chartsheet")
)
WRITERS: dict[str, bytes] = {
    "as it should be": make_parts(),
    "the main part at the root": make_parts(main="workbook.xml", sheet="worksheets/sheet1.xml"),
    "the main part in a folder of its own": make_parts(main="a/b/book.xml", sheet="c/1.xml"),
    "parts that are absent": make_parts(relations=ABSENT),
    "strict OOXML": make_parts(
        namespace="http://purl.oclc.org/ooxml/spreadsheetml/main",
        kinds="http://purl.oclc.org/ooxml/officeDocument/relationships",
    ),
    "lower case": make_parts(ROW.replace('r="A', 'r="a').replace('r="C', 'r="c'), head=HEAD.replace('r="B', 'r="b')),
    "a row for each cell": make_parts(ROW.replace("</c><c", '</c></row><row r="2"><c')),
    "rows in another order": make_parts(HEAD, head=ROW),
    "cells column by column": make_parts(
        "".join(
            f'<row r="{row}"><c r="{column}{row}" t="str"><v>{text}</v></c></row>'
            for column, texts in zip("ABC", [["name", "Ananya"], ["department", "CSE"], ["cgpa", "8.9"]], strict=True)
            for row, text in enumerate(texts, 1)
        ),
        head="",
    ),
    "a cell again": make_parts(ROW.replace("<c r", '<c r="A2" t="str"><v>x</v></c><c r', 1)),
    "an inline text beside a value": make_parts(
        ROW.replace('t="str"><v>Ananya</v>', 't="inlineStr"><v>1.</v><is><t>Ananya</t></is>')
    ),
    "an inline text before a value": make_parts(
        ROW.replace('t="str"><v>Ananya</v>', 't="inlineStr"><is><t>Ananya</t></is><v>1.</v>')
    ),
    "an inline text without a type": make_parts(ROW.replace(' t="str"><v>Ananya</v>', "><is><t>Ananya</t></is>")),
    "a preserved space": make_parts(ROW.replace("<v>Ananya</v>", '<v xml:space="preserve"> Ananya </v>')),
    "a shared formula": make_parts(ROW.replace("<v>8.9", '<f t="shared" si="0"/><v>8.9')),
    "calculated on opening": make_parts(ROW.replace("<v>8.9", "<f>A1</f><v>8.9"), more='<calcPr fullCalcOnLoad="1"/>'),
    "backslashes": make_parts(sheet="xl\\worksheets\\sheet1.xml"),
}


@pytest.mark.parametrize("content", WRITERS.values(), ids=WRITERS)
def test_whatever_a_spreadsheet_opens_is_read(content: bytes) -> None:
    read = Read(content)
    assert (read.rows, read.errors) == ([ANANYA], [])


def test_archives_of_programs_in_java_are_read() -> None:
    """Whose directory is one of zip64, however small it is."""
    content = make_parts()
    at = content.rindex(b"PK\5\6")
    fields = content[at + 8 : at + 20]
    count, size, start = (int.from_bytes(fields[i:j], "little") for i, j in ((0, 2), (4, 8), (8, 12)))
    numbers = b"".join(number.to_bytes(8, "little") for number in (count, count, size, start))
    end = b"PK\6\6" + (44).to_bytes(8, "little") + bytes([45, 0, 45, 0]) + bytes(8) + numbers
    locator = b"PK\6\7" + bytes(4) + at.to_bytes(8, "little") + (1).to_bytes(4, "little")
    last = content[at : at + 8] + b"\xff" * 12 + content[at + 20 :]
    assert Read(content[:at] + end + locator + last).rows == [ANANYA]


def test_large_sheet_in_no_order_is_rejected() -> None:
    """Some ten thousand cells are sorted; more would take memory without bounds."""
    rows = "".join(ROW.replace("2", str(number)) for number in range(30_000, 1, -1))
    assert str(reject(make_parts(rows))).startswith("The rows of the sheet are in no order")


SHOWN: list[tuple[str, float, str | None, str]] = [
    # format, number, what an id or a CGPA is shown as where it is an error, what a department is
    ("0", 7, None, ""), ("0.00", 7, None, "7.00"), ("0.0#", 7.5, None, ""), ("#,##0", 7, None, ""), ("@", 7, None, ""),
    ("#,##0", 1234, None, "1,234"), ("[Red]0", 7, None, ""), ("0_);(0)", 7, None, ""), ("General", 7, None, ""),
    ('_(* #,##0.00_);_(* (#,##0.00);_(* "-"??_);_(@_)', 7, None, "7.00"), ("0;-0;;@", 7, None, ""),
    ("[$-409]0", 7, None, ""), ("0.00E+00", 7, None, "7.00E+00"), ("?0", 7, None, ""), ("#", 7, None, ""),
    ("0%", 7, "700%", "700%"), ("0.00%", 0.5, "50.00%", "50.00%"), ('"CS-"00', 7, "CS-07", "CS-07"),
    ("0000", 7, "0007", "0007"), ("000", 123, None, ""), ('0" years"', 7, "7 years", "7 years"), ("0,", 7000, "7", "7"),
    ("$0.00", 7, "$7.00", "$7.00"), ("[$€-407]0", 7, "€7", "€7"), ("\\A0", 7, "A7", "A7"), ('"x";"y"', 7, "x", "x"),
    (";;;", 7, "", ""), ("0;-0;;@", 0, "", ""), ("# ?/?", 0.5, "0.5", "0.5"), ("[>5]0;0.0", 7, "7", "7"),
    ("00-00", 7, "7", "7"), ("x" * 300, 7, "7", "7"), ("0;;", -7, "", ""),
    ('0"', 7, None, ""), ("[", 7, "[", "["), ("0.0000000000000000000000000000000000000", 7, None, ""),
]  # fmt: skip


def make_formatted(code: str, number: float) -> bytes:
    with xlsxwriter.Workbook(file := io.BytesIO()) as workbook:
        sheet = workbook.add_worksheet()
        sheet.write_row(0, 0, ["id", *HEADER])
        style = workbook.add_format({"num_format": code})
        sheet.write_number(1, 0, number, style)
        sheet.write(1, 1, "x")
        sheet.write_number(1, 2, number, style)
        sheet.write_number(1, 3, 1)
    return file.getvalue()


@pytest.mark.parametrize(("code", "number", "as_number", "as_text"), SHOWN)
def test_number_is_what_the_sheet_shows_or_an_error(
    code: str, number: float, as_number: str | None, as_text: str
) -> None:
    """As a number, decimals may be added or rounded; as a text, it must be the same characters."""
    read = Read(make_formatted(code, number))
    errors = {error.column: error.value for error in read.errors}
    is_id = float(number).is_integer() and abs(number) < 2**53
    assert (errors.get("id") if is_id else as_number) == as_number
    assert errors.get("department", "") == as_text
    if as_number is None and not as_text and is_id:
        assert read.students == [(int(number), "x", str(int(number)), 1.0)]


@pytest.mark.parametrize(
    ("code", "grade", "stored"), [("0.00", 8.936, 8.936), ("0.0", 8.94, 8.94), ("0", 8.46, None), ("0", 8, 8.0)]
)
def test_decimals_that_are_not_shown_are_kept(code: str, grade: float, stored: float | None) -> None:
    """A mean is shown with a few of its decimals; but a grade that is shown as an integer is taken for one."""
    workbook = openpyxl.load_workbook(io.BytesIO(make_xlsx([HEADER, ["Ananya", "CSE", grade]])))
    workbook.active["C2"].number_format = code  # type: ignore[index]
    workbook.save(file := io.BytesIO())
    read = Read(file.getvalue())
    assert [student[3] for student in read.students] == ([] if stored is None else [stored])
    assert [error[1:3] for error in read.errors] == ([("cgpa", "8")] if stored is None else [])


@pytest.mark.parametrize(("code", "shown"), [("@", None), ('"Dr. "@', "Dr. Rao"), (";;;", ""), ("0;0;0;@", None)])
def test_text_is_what_the_sheet_shows_or_an_error(code: str, shown: str | None) -> None:
    with xlsxwriter.Workbook(file := io.BytesIO()) as workbook:
        sheet = workbook.add_worksheet()
        sheet.write_row(0, 0, HEADER)
        sheet.write_string(1, 0, "Rao", workbook.add_format({"num_format": code}))
        sheet.write_row(1, 1, ["CSE", 8.9])
    read = Read(file.getvalue())
    assert [error[:3] for error in read.errors] == ([] if shown is None else [(2, "name", shown)])


def test_formats_of_libreoffice_are_read(tmp_path: Path) -> None:
    """It writes them in its own words; a percentage stays an error, and a grade stays a grade."""
    with xlsxwriter.Workbook(path := tmp_path / "a.xlsx") as workbook:
        sheet = workbook.add_worksheet()
        sheet.write_row(0, 0, HEADER)
        for row, code in enumerate(["0.00", "0.00%", '"A"0', "yyyy-mm-dd", "General"], 1):
            sheet.write_row(row, 0, ["x", "y"])
            sheet.write_number(row, 2, 7, workbook.add_format({"num_format": code}))
    read = Read(convert(path, "xlsx:Calc MS Excel 2007 XML"))
    assert [row[0] for row in read.rows] == [2, 6]
    assert [error[:2] for error in read.errors] == [(3, "cgpa"), (4, "cgpa"), (5, "cgpa")]
    assert [error.value for error in read.errors][:2] == ["700.00%", "A7"]


def test_formula_that_was_never_calculated_is_an_error() -> None:
    """Also where the program has left a 0 for each, and beside the first cell of an array formula."""
    with xlsxwriter.Workbook(file := io.BytesIO()) as workbook:
        sheet = workbook.add_worksheet()
        for row in range(5):
            sheet.write_row(row, 0, HEADER if row == 0 else ["x", "y"])
        sheet.write_formula("C2", "=AVERAGE(8,9)")
        sheet.write_array_formula("C3:C4", "{=A1:A2}")
        sheet.write_number("C5", 0)
    read = Read(file.getvalue())
    assert [error[:2] for error in read.errors] == [(2, "cgpa"), (3, "cgpa"), (4, "cgpa")]
    assert {error.detail for error in read.errors} == {NO_RESULT}
    assert [row[:5] for row in read.rows] == [(5, None, "x", "y", 0.0)]
    zero = ROW.replace("<v>8.9", "<f>A1</f><v>0")
    assert Read(make_parts(zero)).students == [(None, "Ananya", "CSE", 0.0)]
    assert Read(make_parts(ROW.replace("<v>8.9</v>", "<f>1</f>"))).errors == [RowError(2, "cgpa", "=1", NO_RESULT)]


@pytest.mark.parametrize("cell", ['t="d"><v>2026-01-02', 't="e"><v>#N/A', 't="b"><v>1', 't="x"><v>1'])
def test_cell_of_another_type_is_an_error(cell: str) -> None:
    assert [error[:2] for error in Read(make_parts(ROW.replace("><v>8.9", f" {cell}"))).errors] == [(2, "cgpa")]


@pytest.mark.parametrize("index", ["-1", " -1", "1", "x", "1.0"])
def test_text_that_the_workbook_lacks_is_an_error_of_the_file(index: str) -> None:
    text = make_parts(
        ROW.replace('t="str"><v>CSE', f't="s"><v>{index}'),
        relations=f'<Relationship Id="s" Type="{RELATIONS}/sharedStrings" Target="s.xml"/>',
        parts={"xl/s.xml": "<sst><si><t>a</t></si></sst>"},
    )
    assert str(reject(text)) == "The workbook is damaged; save it again with Excel or LibreOffice"


def make_sheets(sheets: list[tuple[str, str, list[list[Any]]]]) -> bytes:
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.worksheets[0])
    for name, state, rows in sheets:
        sheet = workbook.create_sheet(name)
        sheet.sheet_state = state
        for row in rows:
            sheet.append(row)
    workbook.save(file := io.BytesIO())
    return file.getvalue()


def test_first_visible_sheet_with_our_header_is_read() -> None:
    """The others with rows are named, hidden ones too, since what they hold is ignored."""
    good: list[list[Any]] = [HEADER, ["Ananya", "CSE", 8.9]]
    sheets: list[tuple[str, str, list[list[Any]]]] = [
        ("Cover", "visible", [["Springfield College"]]), ("Empty", "visible", []), ("Hidden", "hidden", good),
        ("Very", "veryHidden", [["x"]]), ("Blank", "visible", [[" "]]), ("Class A", "visible", good),
        ("Class B", "visible", good),
    ]  # fmt: skip
    read = Read(make_sheets(sheets))
    assert (read.rows, read.table.ignored_sheets) == ([ANANYA], ["Cover", "Hidden", "Very", "Class B"])
    assert Read(make_sheets([sheets[0], sheets[5]])).table.ignored_sheets == ["Cover"]
    assert str(reject(make_sheets([sheets[1], sheets[2]]))).startswith("The first sheet is empty")
    assert "Springfield" in str(reject(make_sheets([sheets[0], sheets[2]])))


def test_header_is_the_first_of_twenty_rows_that_has_our_columns() -> None:
    """A cell such as id in what stands above makes no header."""
    above: list[list[Any]] = [["Springfield College"], ["ID", "Date"], []]
    read = Read(make_xlsx([*above, HEADER, ["Ananya", "CSE", 8.9], HEADER]))
    assert read.rows == [(5, *ANANYA[1:])]
    assert [error[:2] for error in read.errors] == [(6, "cgpa")]
    assert (read.table.above_header, read.blank) == (2, 1)
    assert Read(make_xlsx([["x"]] * 19 + [HEADER, ["Ananya", "CSE", 8.9]])).rows == [(21, *ANANYA[1:])]
    assert isinstance(reject(make_xlsx([["x"]] * 20 + [HEADER])), InvalidFileError)
    assert Read(make_xlsx([["x"], ["id", "cgpa"], [7, 8]])).rows == [(3, 7, None, None, 8.0, 4, 0)]


OLE = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(1000)


def make_archive(*names: str) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        for name in names:
            archive.writestr(name, b"<x/>")
    return file.getvalue()


TABLE = "<table><tr><td>name</td></tr></table>"
OTHERS: dict[str, tuple[bytes, str]] = {
    "PDF": (b"%PDF-1.7\n", "a PDF document"),
    "gzip": (b"\x1f\x8b\x08\0\0\0", "a gzip archive"),
    "PNG": (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    "JPEG": (b"\xff\xd8\xff\xe0", "a JPEG image"),
    "HEIC": (b"\0\0\0\x18ftypheic", "an image or a film"),
    "RTF": (b"{\\rtf1}", "an RTF document"),
    "SQLite": (b"SQLite format 3\0", "an SQLite database"),
    "Parquet": (b"PAR1\x15\4", "a Parquet file"),
    "HTML": (f"<html>{TABLE}</html>".encode(), "HTML"),
    "HTML with a comment": (f"\n<!-- x -->\n<!DOCTYPE html>{TABLE}".encode(), "HTML"),
    "HTML with a BOM": (f"{TABLE}".encode("utf-8-sig"), "HTML"),
    "HTML in UTF-16": (f"<HTML>{TABLE}".encode("utf-16"), "HTML"),
    "XHTML": (f'<?xml version="1.0"?><html>{TABLE}</html>'.encode(), "HTML"),
    "an XML spreadsheet": (b'<?xml version="1.0"?><?mso-application progid="Excel.Sheet"?><Workbook/>', "an XML sp"),
    "XML": (b'<?xml version="1.0"?><students/>', "XML"),
    "xls": (OLE + "Workbook".encode("utf-16-le"), "an old Excel workbook (.xls)"),
    "encrypted": (OLE + "EncryptedPackage".encode("utf-16-le"), "encrypted"),
    "doc": (OLE + "WordDocument".encode("utf-16-le"), "an old Word document (.doc)"),
    "OLE": (OLE, "encrypted, or a spreadsheet of the old format (.xls)"),
    "xls of 1992": (bytes([9, 8, 8, 0, 0, 5]), "an old Excel workbook (.xls)"),
    "ods": (make_archive("mimetype", "content.xml"), "an OpenDocument file, such as .ods"),
    "Numbers": (make_archive("Index/Document.iwa"), "an Apple iWork file, such as .numbers"),
    "xlsb": (make_archive("xl/workbook.bin"), "a binary workbook (.xlsb)"),
    "docx": (make_archive("word/document.xml"), "a Word document (.docx)"),
    "zip": (make_archive("students.csv"), "a zip archive without a workbook"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "ndjson", "json", "xlsx", None])
@pytest.mark.parametrize(("content", "name"), OTHERS.values(), ids=OTHERS)
def test_kind_that_is_not_read_is_named(content: bytes, name: str, kind: Any) -> None:
    """Whatever it was sent as; with what to do about it."""
    error = reject(content, kind)
    assert type(error) is UnsupportedFileError
    assert str(error).startswith(f"The file is {name}")
    assert any(word in str(error) for word in ("save it as", "send the", "unpack it"))


@pytest.mark.parametrize("target", ["ods", "xls", "pdf", "html"])
def test_kinds_that_libreoffice_writes_are_named(tmp_path: Path, target: str) -> None:
    (path := tmp_path / "a.csv").write_text("name,department,cgpa\nAnanya,CSE,8.9\n")
    assert type(reject(convert(path, target))) is UnsupportedFileError


@pytest.mark.parametrize("start", ["PAR1", "BZh", "<name>", "II*", "Workbook", "softype", "%", "GIF"])
def test_csv_that_begins_like_another_kind_is_read(start: str) -> None:
    read = Read(f"{start},name,department,cgpa\nx,Ananya,CSE,8.9\n")
    assert (read.rows, read.ignored) == ([ANANYA], [start])


def make_bomb(elements: str, *, above: bool = False) -> bytes:
    """Make a file of 32 KiB that unpacks to 32 MiB."""
    filler = elements * (32 * 1024**2 // len(elements))
    return make_parts(ROW + (filler if not above else ""), head=(filler if above else "") + HEAD)


@pytest.mark.parametrize(
    ("elements", "above"),
    [
        *itertools.product(["<a/>", "<row/>", "<a b='c'/>", "     "], [False, True]),
        ("<row><c t='str'><v>x</v></c></row>", False),
    ],
)
def test_work_is_bounded_by_the_size_of_the_file(elements: str, *, above: bool) -> None:
    """A few hundred thousand tags of 32 KiB, not eight million."""
    with pytest.raises(FileTooLargeError, match="far more than a file of its size holds"):
        Read(make_bomb(elements, above=above))


def test_files_that_programs_write_are_within_the_bounds(tmp_path: Path) -> None:
    """Equal rows compress best; LibreOffice's most of all."""
    rows: list[list[Any]] = [HEADER, *[["Ananya", "CSE", 8.9]] * 20_000]
    with xlsxwriter.Workbook(path := tmp_path / "a.xlsx") as workbook:
        sheet = workbook.add_worksheet()
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
    for content in (make_xlsx(rows), path.read_bytes(), convert(path, "xlsx:Calc MS Excel 2007 XML")):
        assert len(Read(content).rows) == 20_000


def test_sheet_is_unpacked_once_for_header_and_rows() -> None:
    reads: list[int] = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            content = super().read(size)
            reads.append(len(content))
            return content

    students: list[list[Any]] = [[f"x{number}", "y", number % 10] for number in range(20_000)]
    content = make_xlsx([HEADER, *students])
    table = open_table(Counted(content), "xlsx")
    assert sum(len(batch.rows) for batch in validate(table, "id")) == 20_000
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert sum(reads) < archive.getinfo(SHEET).compress_size * 1.5 + 65_558 + len(content) // 10
    assert sum(len(batch.rows) for batch in validate(table, "id")) == 20_000
