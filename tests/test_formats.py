"""Files as rows and errors, and students as files: what no database has seen yet."""

import codecs
import contextlib
import csv
import datetime as dt
import io
import itertools
import struct
import tracemalloc
import zipfile
from pathlib import Path
from random import Random
from typing import Any, get_args

import openpyxl
import pytest
import xlsxwriter
from hypothesis import given
from hypothesis import strategies as st

from litestar_app.exceptions import FileError, FileTooLargeError, InvalidFileError, UnsupportedFileError
from litestar_app.records.texts import find_fault, normalize
from litestar_app.transfer.formats import (
    ImportRow,
    Kind,
    Match,
    RowError,
    SentRow,
    encode_csv,
    encode_csv_header,
    encode_ndjson,
    open_table,
    validate,
    write_rejected,
    write_xlsx,
)
from litestar_app.transfer.formats.tables import is_header
from tests.files import HEADER, change_part, convert, make_formatted_xlsx, make_xlsx
from tests.test_bodies import BAD_TEXTS, CGPA, EMPTY, TEXT

ID = "an integer, the id of a student, or an empty cell"
NAMES = [
    "=1+1",
    "'=x",
    "''=x",
    "'t Hooft",
    "-x",
    "+x",
    "@x",
    "＝x",
    "'＝x",
    "'",
    "a,b",
    'a"b',
    ";",
    "a\u200db",
    "0",
    "_x0041_",
]
STUDENTS = [(number, name, name[::-1], 8.9) for number, name in enumerate(NAMES, 1)]


class Read:
    """What was read of a file."""

    def __init__(
        self, content: bytes | str, kind: Kind | None = None, charset: str | None = None, match: Match = "id"
    ) -> None:
        self.table = open_table(io.BytesIO(content.encode() if isinstance(content, str) else content), kind, charset)
        batches = list(validate(self.table, match))
        self.rows: list[ImportRow] = [row for batch in batches for row in batch.rows]
        self.sent: list[SentRow] = [row for batch in batches for row in batch.sent]
        self.errors: list[RowError] = [error for batch in batches for error in batch.errors]
        self.blank, self.ignored = self.table.blank, self.table.ignored_columns

    @property
    def students(self) -> list[tuple[Any, ...]]:
        return [row[1:5] for row in self.rows]

    def write_rejected(self) -> bytes:
        out = io.BytesIO()
        errors = itertools.groupby(self.errors, lambda error: error.row)
        write_rejected(self.table, [(row, "; ".join(error.detail for error in group)) for row, group in errors], out)
        return out.getvalue().removeprefix(codecs.BOM_UTF8)


def reject(
    content: bytes | str, kind: Kind | None = None, charset: str | None = None, match: Match = "id"
) -> FileError:
    with pytest.raises(FileError) as caught:
        Read(content, kind, charset, match)
    return caught.value


ANANYA = (2, None, "Ananya", "CSE", 8.9, 7, 0)
RAVI = (3, None, "Ravi", "ECE", 7.0, 7, 0)
COMMA = "name,department,cgpa\r\nAnanya,CSE,8.9\r\nRavi,ECE,7\r\n"
SEMICOLON = "name;department;cgpa\r\nAnanya;CSE;8,9\r\nRavi;ECE;7\r\n"
GOOD_FILES: dict[str, tuple[bytes | str, str | None]] = {
    "CRLF": (COMMA, None),
    "LF": (COMMA.replace("\r", ""), None),
    "CR only": (COMMA.replace("\n", ""), None),
    "no last line break": (COMMA.strip(), None),
    "decimal comma, semicolons": (SEMICOLON, None),
    "decimal comma, tabs": (SEMICOLON.replace(";", "\t"), None),
    "decimal comma, quoted": (COMMA.replace("8.9", '"8,9"'), None),
    "sep=;": (f"sep=;\r\n{SEMICOLON}", None),
    "sep=|": (f"SEP=|\n{COMMA.replace(',', '|')}", None),
    "UTF-8 BOM": (COMMA.encode("utf-8-sig"), "latin-1"),
    "UTF-16 BOM": (COMMA.encode("utf-16"), None),
    "UTF-16 BE BOM": (b"\xfe\xff" + COMMA.encode("utf-16-be"), "utf-8"),
    "UTF-16 by name": (COMMA.encode("utf-16-le"), "UTF-16"),
    "trailing empty columns": (COMMA.replace("\r\n", ",,\r\n"), None),
    "trailing empty rows": (f"{COMMA}\r\n,,\r\n , ,\r\n", None),
    "other order and case": (" CGPA ,NAME,Department\n8.9,Ananya,CSE\n7,Ravi,ECE\n", None),
    "quoted line break in a header": (f'"a\nb",{COMMA}'.replace("\r\nA", "\r\n,A").replace("\r\nR", "\r\n,R"), None),
}  # fmt: skip


@pytest.mark.parametrize(("content", "charset"), GOOD_FILES.values(), ids=GOOD_FILES)
def test_csv_is_read(content: bytes | str, charset: str | None) -> None:
    read = Read(content, "csv", charset)
    assert (read.rows, read.errors) == ([ANANYA, RAVI], [])


def test_rows_are_numbered_as_in_a_spreadsheet() -> None:
    """Blank rows count, above the header too; a line break in a cell does not."""
    content = '\n,\nnote,name,department,cgpa\n"a\n\nb",Ananya,CSE,8.9\n\n" ",,,\n,Ravi,ECE,x\n,Ravi,ECE,7\n'
    read = Read(content)
    assert [row[0] for row in read.rows] == [4, 8]
    assert (read.errors, read.blank, read.ignored) == ([RowError(7, "cgpa", "x", f"expected {CGPA}")], 4, ["note"])


def test_charsets_are_decoded_across_chunks() -> None:
    """No character is cut where a chunk ends, and a row's number is right after thousands of them."""
    rows = [f"né{number}€,Ü,8.9\r\n" for number in range(40_000)]
    content = "".join(["name,department,cgpa\r\n", *rows])
    for charset in ("utf-8", "utf-16-be", "cp1252"):
        read = Read(content.encode(charset), "csv", charset)
        assert [f"{name},{department},{cgpa}\r\n" for _, name, department, cgpa in read.students] == rows
        assert read.rows[-1][0] == 40_001


NO_HEADER = "is not a header with the columns name, department, cgpa and perhaps id: it lacks"
SURPLUS = "more cells than the header has; a decimal comma needs quotes around the number, or ; between the cells"
EMPTY_SURPLUS = "more cells than the header has; remove the last ones, which are empty"
STRAY = "expected nothing in a column that has no name in the header"
QUOTE = "a quote is not closed, or text follows it; reading went on with the next line"
MANY_NAMES = [f'{{"{number}": 1}}' for number in range(1000)]
IS_WORKBOOK = "The file is an Excel workbook (.xlsx), but it was sent as"
IS_NONE = "The file was sent as an Excel workbook (.xlsx), but it is none; if it is"
BAD_FILES: dict[str, tuple[bytes | str, Kind | None, str | None, str]] = {
    "empty": ("", None, None, "The file is empty; expected a header with name, department, cgpa"),
    "blank": ("\n \n", None, None, "The file is empty"),
    "long preamble": ("x\n" * 20 + COMMA, None, None, f"Row 1 {NO_HEADER} {', '.join(HEADER)} and has “x”. The "),
    "a title, a column is missing": ("x\nName,x,CGPA\n", None, None, f"Row 2 {NO_HEADER} department and has “Name”"),
    "no header": ("Ananya,CSE,8.9\n", None, None, f"Row 1 {NO_HEADER} {', '.join(HEADER)} and has “Ananya”, “CSE”"),
    "a column is missing": ("name;cgpa;x\n", None, None, f"Row 1 {NO_HEADER} department and has “name”, “cgpa”, “x”"),
    "a column twice": ("name,department,cgpa,Name \n", None, None, "The column name is there twice; remove or rename"),
    "quote in the header": ('name,"department,cgpa\n', None, None, f"Row 1 {NO_HEADER}"),
    "other bytes": (COMMA.replace("Ravi", "José").encode("cp1252"), "csv", None, "Row 3: byte 42 of the file is not"),
    "half a character": (COMMA.encode("utf-16")[:-1], "csv", None, "Row 3: byte 101 of the file is not utf-16-le"),
    "UTF-16 without BOM": (COMMA.encode("utf-16-le"), "csv", None, "The file is not text, or in another charset"),
    "a long row": ("name,department,cgpa\n" + "x," * 2_000_000, "csv", None, "Row 2 is longer than 1,048,576 bytes"),
    "a long quoted row": ("name,department,cgpa\n" + '"\n",' * 1_000_000, "csv", None, "Row 2 is longer than"),
    "a workbook as CSV": (make_xlsx([HEADER]), "csv", None, f"{IS_WORKBOOK} CSV; send it as what it is"),
    "a workbook as JSON": (make_xlsx([HEADER]), "json", None, f"{IS_WORKBOOK} JSON; send it as what it is"),
    "CSV as a workbook": (COMMA, "xlsx", None, f"{IS_NONE} CSV, as it seems, send it as that"),
    "NDJSON as a workbook": ('{"name": 1}', "xlsx", None, f"{IS_NONE} NDJSON, as it seems, send it as that"),
    "an object": ('{"name": 1}', "json", None, "After element 0: not a JSON array"),
    "two arrays": ("[] []", "json", None, "After element 0: not a JSON array"),
    "no comma": ("[{} {}]", "json", None, "After element 1: not a JSON array"),
    "trailing comma": ("[{},]", "json", None, "Element 2 is not JSON: unexpected text"),
    "array not closed": ("[{},{}", "json", None, "After element 2: the JSON array is not closed"),
    "element not closed": ('[{},{"a', "json", None, "Element 2 is not JSON: it ends too early"),
    "element is broken": ("[{},{'" + ",{}" * 10**6, "json", None, "Element 2 is not JSON: unexpected text"),
    "nested array": ("[" * 200_000, "json", None, "Element 1 is nested too deeply"),
    "too many names": (f"[{','.join(MANY_NAMES)}]", "json", None, "The objects have more than 1,000 different names"),
    "too many columns": (f"id,cgpa{',x' * 999}\n", "csv", None, "The header has more than 1,000 columns"),
    "empty sheet": (make_xlsx([]), None, None, "The first sheet is empty"),
    "no header in a sheet": (make_xlsx([["Students"]] * 20 + [HEADER]), None, None, f"Row 1 {NO_HEADER} name, dep"),
    "a zip": (b"PK\3\4" + b"x" * 100, None, None, "The workbook is damaged"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "kind", "charset", "detail"), BAD_FILES.values(), ids=BAD_FILES)
def test_file_is_rejected(content: bytes | str, kind: Kind | None, charset: str | None, detail: str) -> None:
    error = reject(content, kind, charset)
    assert type(error) is InvalidFileError
    assert str(error).startswith(detail)


@pytest.mark.parametrize(
    "charset", ["", "utf8", "x", "a\0b", "zlib", "idna", "punycode", "unicode_escape", "utf-7", "cp037", "hex"]
)
def test_charsets_that_are_none_are_rejected(charset: str) -> None:
    """And those in which our names and delimiters are other bytes."""
    if charset in {"", "utf8"}:
        assert Read(COMMA, "csv", charset).students
    else:
        expected = f"The charset {charset!r} is not known; expected one such as utf-8 or windows-1252"
        assert str(reject(COMMA, "csv", charset)) == expected


@pytest.mark.parametrize("match", get_args(Match)[1:])
def test_columns_that_a_match_needs(match: Match) -> None:
    assert Read("id,cgpa\n1,2\n").rows == [(2, 1, None, None, 2.0, 4, 0)]
    assert "; department is missing" in str(reject("id,name,cgpa\n1,a,2\n", match=match))
    read = Read("id,name,department,cgpa\nx,a,b,2\n,,b,2\n", match=match)
    assert (read.rows, read.ignored) == ([(2, None, "a", "b", 2.0, 7, 0)], ["id"])
    assert read.errors == [RowError(3, "name", "", EMPTY)]
    read = Read('[{"id": "x", "name": "a", "department": "b", "cgpa": 2}, {"id": 1}]', match=match)
    assert (read.rows, read.ignored) == ([(1, None, "a", "b", 2.0, 7, 0)], ["id"])
    assert [error.detail for error in read.errors] == [f"missing; expected {rule}" for rule in (TEXT, TEXT, CGPA)]


GRADES: list[tuple[str, float | None]] = [
    ("8.9", 8.9), ("8,9", 8.9), (" 9,99\u00a0", 9.99), ("10", 10.0), ("10.0", 10.0), ("+1", 1.0), (".5", 0.5),
    ("1.", 1.0), ("1e-05", 1e-05), ("'+1", 1.0), ("-0", 0.0),
    ("-0.1", None), ("10.1", None), ("1,000", 1.0), ("1.000,5", None), ("1 0", None), ("9.9.9", None), ("nan", None),
    ("inf", None), ("0x1", None), ("1_0", None), ("٨", None), ("８", None), ("1e999", None),
    ("8.9%", None), ("TRUE", None),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "cgpa"), GRADES)
def test_grade_in_csv(cell: str, cgpa: float | None) -> None:
    """The same text has the same value in a workbook."""
    for content in (f'name,department,cgpa\nx,y,"{cell}"\n', make_xlsx([HEADER, ["x", "y", cell.removeprefix("'")]])):
        read = Read(content)
        if cgpa is None:
            assert read.errors == [RowError(2, "cgpa", cell, f"expected {CGPA}")]
        else:
            assert [str(student[3]) for student in read.students] == [str(cgpa)]


IDS: list[tuple[str, int | None]] = [
    ("7", 7), ("7.0", 7), ("7,0", 7), ("7.", 7), ("-7.00", -7), (" 07\x1f", 7), ("+7", 7), ("-7", -7), ("'-7", -7),
    (str(2**63 - 1), 2**63 - 1), (str(2**63), None), ("9" * 5000, None), ("7.5", None), ("7.01", None),
    ("7.0.0", None), ("7e0", None), (".0", None), ("x", None), ("1_0", None), ("٧", None), ("#N/A", None),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "student_id"), IDS, ids=lambda value: str(value)[:20])
def test_id_in_csv(cell: str, student_id: int | None) -> None:
    """What is empty beside an id that cannot be read is no second error."""
    read = Read(f'id,name,department,cgpa\n"{cell}",,y,\n', "csv")
    if student_id is None:
        assert read.errors == [RowError(2, "id", cell[:100], f"expected {ID}")]
    else:
        assert read.rows == [(2, student_id, None, "y", None, 2, 5)]


def test_every_problem_of_a_row_is_listed() -> None:
    content = f"name,department,cgpa,id,,x\n{'n' * 101},\u202e,11,x,filled,,\n,y,,,,,beyond\nx\n"
    assert Read(content).errors == [
        RowError(2, None, "filled", STRAY),
        RowError(2, "id", "x", f"expected {ID}"),
        RowError(2, "name", "n" * 100, BAD_TEXTS["x" * 101]),
        RowError(2, "department", "\u202e", BAD_TEXTS["a\u202eb"]),
        RowError(2, "cgpa", "11", f"expected {CGPA}"),
        RowError(3, None, "beyond", STRAY),
        RowError(3, "name", "", EMPTY),
        RowError(3, "cgpa", "", f"empty; expected {CGPA}"),
        RowError(4, None, "", "fewer cells than the header has: id, department, cgpa are missing"),
    ]


def test_good_row_with_one_cell_more_is_an_error() -> None:
    """An empty one too, between commas: 9,99 without quotes is two cells; in the rejected rows it is one again."""
    assert Read("name,department,cgpa\nRao,K,8.9,CSE\n").errors == [RowError(2, None, "CSE", STRAY)]
    read = Read("name,department,cgpa,notes\nRao,K,9,99,\n")
    assert (read.rows, read.errors) == ([], [RowError(2, None, "", SURPLUS)])
    assert Read(read.write_rejected()).errors == read.errors
    assert Read("name;department;cgpa\nAnanya;CSE;8,9;\n").rows == [ANANYA]


@pytest.mark.parametrize(
    ("content", "value", "detail"),
    [
        ("name,department,cgpa\nAnn,CSE,8,9\n", "9", SURPLUS),
        ("name,department,cgpa\nAnn,CSE,+8,9,\n", "9", SURPLUS),
        ("name,cgpa,department\nAnn,8,9,CSE\n", "CSE", SURPLUS),
        ("name,department,cgpa\nAnn,CSE,8,B\n", "B", STRAY),
        ("name;department;cgpa\nAnn;CSE;8;9\n", "9", STRAY),
        ("name,department,cgpa\nAnn,CSE,8,\n", "", EMPTY_SURPLUS),
        ("name,department,cgpa\nAnn,CSE,8.9,,\n", "", EMPTY_SURPLUS),
        ("id,name\n1,Ann,8\n", "8", STRAY),
    ],
)
def test_surplus_cell_is_explained(content: str, value: str, detail: str) -> None:
    """By decimal commas only where there may be one."""
    assert Read(content).errors == [RowError(2, None, value, detail)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_row_without_a_cell_of_ours_is_an_error(delimiter: str) -> None:
    """It may have lost one; cells of columns that are not ours may be missing."""
    rows = "name,department,note,cgpa,id,x\nx,y,,1\nx,y\nAnanya,CSE,,8.9,\nx,y,,1,5\n"
    read = Read(rows.replace(",", delimiter))
    assert read.students == [(None, "Ananya", "CSE", 8.9), (5, "x", "y", 1.0)]
    assert read.errors == [
        RowError(2, None, "", "fewer cells than the header has: id is missing"),
        RowError(3, None, "", "fewer cells than the header has: id, cgpa are missing"),
    ]
    assert Read("name,department,cgpa,id\nx,y,1\n", match="none").students == [(None, "x", "y", 1.0)]


def split(whole: str, decimals: str) -> str:
    other = f"or {whole}.0 if {decimals} belongs to the next column"
    return f"{whole},{decimals} may be one number: write {whole}.{decimals}, {other}"


NOTE = "name,department,cgpa,note"
SPLIT: dict[str, tuple[str, list[tuple[Any, ...]], list[tuple[int, str]]]] = {
    "one row": (f"{NOTE}\nA,B,8,9\n", [], [(2, split("8", "9"))]),
    "an id": ("name,department,cgpa,id\nA,B,8,9\n", [], [(2, split("8", "9"))]),
    "every row": (f"{NOTE}\nA,B,8,9\nC,D,7,25\n", [], [(2, split("8", "9")), (3, split("7", "25"))]),
    "in the middle": (f"id,{NOTE}\n1,A,B,8,9\n2,C,D,7,x\n", [(2, "C", "D", 7.0)], [(2, split("8", "9"))]),
    "points": (f"{NOTE}\nA,B,8,9\nC,D,8.5,7\n", [(None, "A", "B", 8.0), (None, "C", "D", 8.5)], []),
    "a quoted comma": (f'{NOTE}\nA,B,8,9\nC,D,"8,5",7\n', [(None, "A", "B", 8.0), (None, "C", "D", 8.5)], []),
    "quoted numbers": (f'{NOTE}\n"A","B","8","9"\n', [(None, "A", "B", 8.0)], []),
    "last cells that are empty": (f"{NOTE}\nA,B,8,9\nC,D,7,\n", [(None, "A", "B", 8.0), (None, "C", "D", 7.0)], []),
    "no CGPA together": (f"{NOTE}\nA,B,8,9\nC,D,10,21\n", [(None, "A", "B", 8.0), (None, "C", "D", 10.0)], []),
    "a department of digits": ("name,cgpa,department\nAnn,8,9\n", [], [(2, split("8", "9"))]),
    "a name of digits": ("cgpa,name,department\n8,9,Ann\n", [], [(2, split("8", "9"))]),
    "a department of a student": ("id,cgpa,department\n4,8,9\n", [], [(2, split("8", "9"))]),
    "a name of a student": ("id,cgpa,name\n1,8,9\n", [], [(2, split("8", "9"))]),
    "a department in the middle": ("id,cgpa,department,name\n1,8,101,A\n", [], [(2, split("8", "101"))]),
    "a department and fewer cells": ("name,cgpa,department,note\nAnn,8,9\n", [], [(2, split("8", "9"))]),
    "departments of digits": (
        "id,cgpa,department,name\n1,8,101,A\n2,8.5,101,B\n",
        [(1, "A", "101", 8.0), (2, "B", "101", 8.5)],
        [],
    ),
    "a department that is none": ("name,cgpa,department\nAnn,8,9A\n", [(None, "Ann", "9A", 8.0)], []),
    "a department that is no decimals": ("name,cgpa,department\nAnn,10,21\n", [(None, "Ann", "21", 10.0)], []),
    "a sign": (f"{NOTE}\nA,B,+8,9\nC,D,'-0,5\n", [], [(2, split("+8", "9")), (3, split("'-0", "5"))]),
    "a sign is no decimals": (f"{NOTE}\nA,B,8,9\nC,D,+7,x\n", [(None, "C", "D", 7.0)], [(2, split("8", "9"))]),
}


@pytest.mark.parametrize(("content", "students", "errors"), SPLIT.values(), ids=SPLIT)
def test_decimal_comma_without_quotes_is_not_two_cells(
    content: str, students: list[tuple[Any, ...]], errors: list[tuple[int, str]]
) -> None:
    """8,9 never becomes 8, unless the file shows that it writes numbers in another way."""
    read = Read(content)
    assert (read.students, [(error.row, error.detail) for error in read.errors]) == (students, errors)
    assert Read(read.write_rejected()).errors == [RowError(row, *error[1:]) for row, error in enumerate(read.errors, 2)]


def test_decimal_comma_in_a_corrected_row_is_not_a_reason() -> None:
    """A reason is never a number, whatever other rows show; and the row stays one with an error until it is edited."""
    read = Read("name,department,cgpa,error\nA,B,10,5\nC,D,8.9,\nE,F,7,\nG,H,9,5\n")
    assert read.students == [(None, "C", "D", 8.9), (None, "E", "F", 7.0)]
    assert [(error.row, error.detail) for error in read.errors] == [(2, split("10", "5")), (5, split("9", "5"))]
    again = read.write_rejected().decode()
    assert again.splitlines()[1] == f'A,B,10,"{split("10", "5")}",5'
    assert [(error.row, error.value) for error in Read(again).errors] == [(2, "5"), (3, "5")]
    assert Read(again.replace("10,", "9.5,").replace(",5\r", "\r")).students[0] == (None, "A", "B", 9.5)


def test_file_is_searched_for_decimals_once() -> None:
    """However many rows may be split."""
    reads = 0

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal reads
            reads += 1
            return super().read(size)

    table = open_table(Counted(f"{NOTE}\n".encode() + b"A,B,8,9\n" * 20_000), "csv")
    reads = 0
    assert sum(len(batch.errors) for batch in validate(table, "id")) == 20_000
    assert reads < 20


QUOTED = {
    "a blank before": 'Name, "Department", CGPA\n"O\'Brien, Pat", "CSE", "8.5"\n',
    "a blank behind": '"Name" ,Department,CGPA\n"O\'Brien, Pat" ,"CSE"  , 8.5\n',
    "both": ' "Name" , "Department" ,CGPA\n  "O\'Brien, Pat" , "CSE" , "8.5" \n',
    "tabs": 'Name\tDepartment\tCGPA\n "O\'Brien, Pat"\t "CSE" \t8.5\n',
    "semicolons": 'Name;Department; CGPA\n "O\'Brien, Pat"; "CSE" ;"8,5"\n',
}


@pytest.mark.parametrize("content", QUOTED.values(), ids=QUOTED)
def test_blanks_around_quotes_are_left_out(content: str) -> None:
    """As people write them; the row number is right, and so are the rows behind."""
    read = Read(f"{content}{content.splitlines()[1]}\n")
    assert (read.students, read.errors) == ([(None, "O'Brien, Pat", "CSE", 8.5)] * 2, [])
    assert [row[0] for row in read.rows] == [2, 3]


def test_quotes_inside_a_cell_are_its_own() -> None:
    content = 'name,department,cgpa\n"a, ""b"" , c", "x\n"" , y",1\n'
    assert Read(content).errors[0].detail == BAD_TEXTS["a \n b"]
    read = Read('name,department,cgpa\n"a, ""b"" , c", x "y" z ,1\n')
    assert read.students == [(None, 'a, "b" , c', 'x "y" z', 1.0)]


TITLES = {
    "CSV": "Springfield College\nClass list 2026,,\n\nname,department,cgpa\nAnanya,CSE,8.9\n",
    "semicolons below commas": "Springfield, Ohio\na,b,c\n\nname;department;cgpa\nAnanya;CSE;8,9\n",
    "a bad quote": '"Class" list\n"open\n\nName,Department,CGPA\nAnanya,CSE,8.9\n',
    "an id above": "id,4711\nid\n\nname,department,cgpa\nAnanya,CSE,8.9\n",
}


@pytest.mark.parametrize("content", TITLES.values(), ids=TITLES)
def test_header_may_stand_below_titles(content: str) -> None:
    """What stands above it is skipped and counted; blank rows there are blank rows."""
    read = Read(content)
    above = content[: content.lower().index("name")].count("\n") - 1
    assert (read.students, read.errors) == ([ANANYA[1:5]], [])
    assert (read.table.above_header, read.blank) == (above, 1)
    assert read.rows[0][0] == above + 3


def test_header_is_one_of_the_first_twenty_rows() -> None:
    assert Read("x\n" * 19 + COMMA).table.above_header == 19
    assert "is not a header" in str(reject("x\n" * 20 + COMMA))
    assert is_header([" Name", "x", "CGPA", "department"])
    assert is_header(["ID", "cgpa"])
    assert not is_header(["id"])
    assert not is_header(["name", "department"])


@pytest.mark.parametrize("mark", ["\ufeff", "\u200b", "\u00a0", "\xad", "\u2060", "\u200e", " \t"])
def test_invisible_characters_in_a_header_are_left_out(mark: str) -> None:
    """Web pages and chats put them there; a table is copied with them."""
    content = f"{mark}name{mark},{mark}Department,cg{mark.strip()}pa{mark}\nAnanya,CSE,8.9\n"
    if mark == "\u00a0":
        content = content.replace("cg\u00a0pa", "cgpa")
    assert Read(content).rows == [ANANYA]


def test_ignored_columns_keep_the_order_of_the_file() -> None:
    row = '{"name": "A", "zeta": 1, "department": "B", "alpha": 2, "cgpa": 1, "mid": 3, "beta": 4}'
    for content in (f"[{row}]", f'{row}\n{{"id": 1, "one": 1, "alpha": 1, "a": 2}}'):
        assert Read(content).ignored[:4] == ["zeta", "alpha", "mid", "beta"]
    assert Read(content).ignored[4:] == ["one", "a"]


def test_first_column_without_a_name_is_ignored() -> None:
    """Programs for statistics write the numbers of their rows there."""
    read = Read(",name,department,cgpa\n0,Ananya,CSE,8.9\n")
    assert (read.rows, read.errors, read.ignored) == ([ANANYA], [], ["column 1"])
    assert Read(",name,department,cgpa\n,Ananya,CSE,8.9\n").ignored == []


BAD_QUOTES: dict[str, tuple[str, str, str]] = {
    "not closed": ('x,"y,1\n', QUOTE, 'x,"y,1",'),
    "not closed, closed in a later row": ('x,"y,1\nRavi,"ECE",7\n', QUOTE, 'x,"y,1",'),
    "text after it": ('"x" y,y,1\n', QUOTE, "x y,y,1"),
    "text after it, over two lines": ('x,"y\n"z,1\n', QUOTE, "x,y,"),
    "a long cell": (f'x,"{"y" * 200_000}\n', f"a cell is too long, or {QUOTE}", ",,"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "detail", "sent"), BAD_QUOTES.values(), ids=BAD_QUOTES)
def test_bad_quote_is_an_error_of_its_row_only(rows: str, detail: str, sent: str) -> None:
    """The rows after it are read, so that none is lost."""
    read = Read(f'name,department,cgpa\n"Ananya",CSE,8.9\nx,"a\nb",1\n{rows}Eve,CSE,1\n')
    assert read.students[0] == ANANYA[1:5]
    assert read.students[-1] == (None, "Eve", "CSE", 1.0)
    assert read.errors[1] == RowError(4, None, read.errors[1].value, detail)
    assert read.write_rejected().decode().splitlines()[3].startswith(sent)


OBJECT = f"expected an object with {', '.join(HEADER)}"
OBJECTS: list[tuple[str, list[tuple[str | None, str, str]]]] = [
    ('{"name": " x ", "department": "y", "cgpa": 1}', []),
    ('{"id": null, "name": "x", "department": "y", "cgpa": 1}', []),
    ('{"id": 1}', []),
    ('{"name": "", "department": 1, "cgpa": 1}', [("name", "", EMPTY), ("department", "1", TEXT)]),
    ('{"name": "x", "department": "y", "cgpa": "1"}', [("cgpa", "1", CGPA)]),
    ('{"id": 1.0}', []),
    ('{"id": 1.5, "name": null, "cgpa": true}', [("id", "1.5", ID), ("cgpa", "true", CGPA)]),
    ('{"id": 9223372036854775808, "cgpa": [1]}', [("id", "9223372036854775808", ID), ("cgpa", "[1]", CGPA)]),
    ("3", [(None, "3", OBJECT)]),
    ("[{}]", [(None, "[{}]", OBJECT)]),
    ('{"cgpa": NaN}', [(None, '{"cgpa": NaN}', "not JSON: ")]),
    ('{"cgpa": 1e999}', [(None, '{"cgpa": 1e999}', "not JSON: ")]),
    ('{"cgpa": ' + "9" * 5000 + "}", [(None, '{"cgpa": ' + "9" * 91, "not JSON: ")]),
    (r'{"name": "\ud800"}', [(None, r'{"name": "\ud800"}', "not JSON: ")]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problems"), OBJECTS, ids=lambda value: str(value)[:30])
def test_object_of_json(text: str, problems: list[tuple[str | None, str, str]]) -> None:
    """As an element of an array and as a line; numbers and texts are strict, null is an empty cell."""
    for content in (f"[\n{text}\n]", f"{text}\n"):
        kind: Kind = "json" if content.startswith("[\n") else "ndjson"
        errors = Read(content, kind).errors
        assert [(error.row, error.column, error.value) for error in errors] == [(1, *p[:2]) for p in problems]
        assert all(p[2] in error.detail for error, p in zip(errors, problems, strict=True))


def test_broken_line_is_an_error_of_its_row() -> None:
    """Rows are lines; names of keys are exact, and those that are not ours are ignored."""
    read = Read(
        '{"name": "x", "Name": 1}\n\n{"id": 1, "cgpa":\r\n{"id": 2, "a": 1, "Name": 1}\n{} {}\n{"\n' + "[" * 200_000
    )
    assert [(error.row, error.column) for error in read.errors] == [
        (1, "department"), (1, "cgpa"), (3, None), (5, None), (6, None), (7, None),
    ]  # fmt: skip
    assert (read.rows, read.blank, read.ignored) == ([(4, 2, None, None, None, 0, 0)], 1, ["Name", "a"])


def test_array_is_read_across_chunks() -> None:
    """No element is cut where a chunk ends, and no number."""
    students = [{"id": number, "name": "é" * (number % 97 + 1), "x": number} for number in range(1000)]
    for separator in (",", " ,\n"):
        content = "[" + separator.join(f'{{"name":"{s["name"]}","id":{s["id"]}}}' for s in students) + "]"
        assert [row[1:3] for row in Read(content).rows] == [(s["id"], s["name"]) for s in students]
    content = "[" + ", ".join(["123456789"] * 100_000) + "]"
    assert {error.value for error in Read(content).errors} == {"123456789"}


SHEET = "xl/worksheets/sheet1.xml"
NO_RESULT = "a formula without a result: open the file in Excel or LibreOffice, save it and send it again"
DAY = dt.date(2026, 1, 2)
CELLS: list[tuple[Any, Any]] = [
    (7.0, 7), (7, 7), ("7", 7), (" 7 ", 7), (None, None), (2**53 - 1, 2**53 - 1),
    (7.5, "7.5"), (2**53, str(2**53)), (2.0**53 + 2, "9007199254740994"),
    (True, "True"), (DAY, "2026-01-02"), ("#N/A", "#N/A"),
    ("#DIV/0!", "#DIV/0!"),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "student_id"), CELLS)
def test_id_in_a_workbook(cell: Any, student_id: Any) -> None:
    """An error, or a formula without a result, is not an empty cell: that would make a new student."""
    read = Read(make_xlsx([["id", *HEADER], [cell, "Ananya", "CSE", 8.9]]))
    if isinstance(student_id, str):
        assert read.errors == [RowError(2, "id", student_id, f"expected {ID}")]
    else:
        assert read.students == [(student_id, "Ananya", "CSE", 8.9)]


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"NaN"])
def test_number_that_is_none_in_a_workbook(number: bytes) -> None:
    content = make_xlsx([["id", *HEADER], [7, "x", "y", 7]])
    read = Read(change_part(content, SHEET, lambda sheet: sheet.replace(b"<v>7</v>", b"<v>%b</v>" % number)))
    assert [error[:2] for error in read.errors] == [(2, "id"), (2, "cgpa")]


def test_cells_of_a_workbook() -> None:
    """Rows of formats only are blank; a number is a department; a date is neither number nor text."""
    rows: list[list[Any]] = [
        [], [None, "Name", "DEPARTMENT", "cgpa", "note"], [None, 1.5, 101, "8,9", DAY], [None, " "],
        [None, "'=x", "=x", 9], [None, DAY, True, DAY], [None, "x", "y", "=1/0"], [None, "x", "y", True],
    ]  # fmt: skip
    read = Read(make_xlsx(rows))
    assert (read.rows, read.ignored, read.blank) == ([(3, None, "1.5", "101", 8.9, 7, 0)], ["note"], 2)
    assert [error[:3] for error in read.errors] == [
        (5, "department", "=x"),
        (6, "name", "2026-01-02"), (6, "department", "True"), (6, "cgpa", "2026-01-02"),
        (7, "cgpa", "=1/0"), (8, "cgpa", "True"),
    ]  # fmt: skip


def test_formula_whose_result_is_no_text_is_an_empty_cell() -> None:
    """As Excel writes it; without the type, it is a formula that no program has calculated."""
    content = make_xlsx([["id", *HEADER], ['=""', "Ananya", "CSE", 8.9]])
    assert Read(content).errors == [RowError(2, "id", '=""', NO_RESULT)]
    calculated = change_part(content, SHEET, lambda sheet: sheet.replace(b'<c r="A2">', b'<c r="A2" t="str">'))
    assert Read(calculated).rows == [ANANYA]


def test_cells_beside_a_merged_header_are_errors() -> None:
    """A name over two columns may be two halves of a name, of which none may be lost."""
    workbook = openpyxl.load_workbook(
        io.BytesIO(make_xlsx([["name", None, "department", "cgpa"], ["A", "B", "CSE", 8]]))
    )
    workbook.active.merge_cells("A1:B1")  # type: ignore[union-attr]
    workbook.save(file := io.BytesIO())
    assert [error[:3] for error in Read(file.getvalue()).errors] == [(2, None, "B")]


def test_first_visible_sheet_is_read() -> None:
    workbook = openpyxl.load_workbook(io.BytesIO(make_xlsx([["hidden"]])))
    workbook.active.sheet_state = "hidden"  # type: ignore[union-attr]
    workbook.create_chartsheet()
    for number in range(2):
        sheet = workbook.create_sheet()
        sheet.append(["id", *HEADER])
        sheet.append(["#N/A" if number else None, "Ananya", "CSE", 8.9])
    workbook.save(file := io.BytesIO())
    assert Read(file.getvalue()).rows == [ANANYA]


def test_million_formatted_rows_are_no_rows() -> None:
    content = make_formatted_xlsx([HEADER, ["Ananya", "CSE", 8.9]], 1_000_000)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.getinfo(SHEET).file_size > 39_000_000
    read = Read(content)
    assert (read.rows, read.blank) == ([ANANYA], 0)


WORKBOOK = make_xlsx([HEADER, ["Ananya", "CSE", 8.9]])


def make_bomb(*, lies: bool) -> bytes:
    """Make a sheet that unpacks to more than 256 MiB, and perhaps says that it is small."""
    size = 257 * 1024**2
    content = change_part(WORKBOOK, SHEET, lambda sheet: sheet[:-1] + b" " * (size - len(sheet)) + b">")
    if lies:
        assert content.count(struct.pack("<I", size)) == 2  # before the part and in the directory
        content = content.replace(struct.pack("<I", size), struct.pack("<I", 7_000))
    return content


def change_sheet(old: bytes, new: bytes) -> bytes:
    def change(sheet: bytes) -> bytes:
        assert old in sheet
        return sheet.replace(old, new)

    return change_part(WORKBOOK, SHEET, change)


def make_archive(name: str) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr(name, b"x")
    return file.getvalue()


TOO_MUCH = "The workbook has too much text"
TOO_DENSE = "The workbook unpacks to far more than a file of its size holds; save it again with Excel or LibreOffice"
TOO_LONG = "A cell of the workbook has more than 32,767 characters"
MANY_ELEMENTS = b"".join(b"<a%d/>" % number for number in range(20_000))
RELATIONSHIPS = "xl/_rels/workbook.xml.rels"


def make_shared(strings: bytes, cells: bytes) -> bytes:
    """Add shared strings, and a row with cells."""
    row = b"<row>%b</row></sheetData>" % cells
    content = change_part(WORKBOOK, SHEET, lambda sheet: sheet.replace(b"</sheetData>", row))
    link = b'<Relationship Id="s" Type="x/sharedStrings" Target="/xl/Strings.xml"/></Relationships>'
    content = change_part(content, RELATIONSHIPS, lambda part: part.replace(b"</Relationships>", link))
    with zipfile.ZipFile(file := io.BytesIO(content), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/strings.xml", b"<sst>%b</sst>" % strings)
    return file.getvalue()


SHARED = b'<c t="s"><v>0</v></c>'
LONGEST = b"<si><t>%b</t></si>" % (b"x" * 32_767)
LONG_WORD = change_part(WORKBOOK, RELATIONSHIPS, lambda _: b"<r><Relationship %b Id='r1'/></r>" % (b"x" * 2 * 1024**2))
OLE = bytes.fromhex("d0cf11e0a1b11ae1")
FAR = b'<c r="XFD1048576"><v>1</v></c></row>'
DAMAGED = "The workbook is damaged"
BAD_WORKBOOKS: dict[str, tuple[bytes, type[FileError], str]] = {
    "zip bomb": (make_bomb(lies=False), FileTooLargeError, "The workbook unpacks to more than 256 MiB"),
    "zip bomb that lies": (make_bomb(lies=True), InvalidFileError, DAMAGED),
    "a cell of another row": (change_sheet(b"</row>", FAR), InvalidFileError, DAMAGED),
    "rows in no order": (change_sheet(b'<row r="2"', b'<row r="1"'), InvalidFileError, DAMAGED),
    "row after the last": (change_sheet(b'row r="2"', b'row r="1048577"'), InvalidFileError, DAMAGED),
    "column after the last": (change_sheet(b'r="A2"', b'r="XFE2"'), InvalidFileError, DAMAGED),
    "column without letters": (change_sheet(b'r="A2"', b'r="2"'), InvalidFileError, DAMAGED),
    "number without digits": (change_sheet(b"<v>8.9</v>", b"<v>8_9</v>"), InvalidFileError, DAMAGED),
    "DOCTYPE": (change_sheet(b"<worksheet", b"<!DOCTYPE x><worksheet"), InvalidFileError, DAMAGED),
    "deep": (change_sheet(b"</row>", b"<a>" * 1000 + b"</a>" * 1000 + b"</row>"), InvalidFileError, DAMAGED),
    "many names": (change_sheet(b"</row>", b"%b</row>" % MANY_ELEMENTS), InvalidFileError, DAMAGED),
    "a long tag": (change_sheet(b"</row>", b"<a b='%b'/></row>" % (b"x" * 2 * 1024**2)), InvalidFileError, DAMAGED),
    "a long text": (change_sheet(b"Ananya", b"x" * 32_768), InvalidFileError, TOO_LONG),
    "a long string": (make_shared(LONGEST.replace(b"<t>", b"<t>x"), b""), InvalidFileError, TOO_LONG),
    "many strings": (make_shared(LONGEST * 7_000, b""), FileTooLargeError, TOO_DENSE),
    "a string in many cells": (make_shared(LONGEST, SHARED * 9_000), FileTooLargeError, TOO_MUCH),
    "no such string": (make_shared(b"", SHARED), InvalidFileError, DAMAGED),
    "relationships of one word": (LONG_WORD, InvalidFileError, DAMAGED),
    "broken XML": (change_sheet(b"</v>", b"</w>"), InvalidFileError, DAMAGED),
    "no sheet": (change_part(WORKBOOK, "xl/workbook.xml", lambda _: b"<workbook/>"), InvalidFileError, "The workbook"),
    "half a file": (WORKBOOK[: len(WORKBOOK) // 2], InvalidFileError, DAMAGED),
    "huge directory": (WORKBOOK.replace(b"PK\5\6", b"PK\5\6" + b"\xff" * 20), InvalidFileError, DAMAGED),
}  # fmt: skip


@pytest.mark.parametrize(("content", "kind", "detail"), BAD_WORKBOOKS.values(), ids=BAD_WORKBOOKS)
def test_workbook_is_rejected(content: bytes, kind: type[FileError], detail: str) -> None:
    error = reject(content)
    assert (type(error), str(error)[: len(detail)]) == (kind, detail)


ADDRESSES: dict[str, tuple[bytes, bytes]] = {
    "attributes in another order": (b'<c r="B2" t="inlineStr">', b'<c t="inlineStr" r="B2">'),
    "single quotes": (b'<c r="B2" t="inlineStr">', b"<c r='B2' t = 'inlineStr' >"),
    "a cell without an address": (b'<c r="B2"', b"<c"),
    "a row without a number": (b'<row r="2">', b"<row>"),
    "neither": (b'<row r="2"><c r="A2"', b"<row><c"),
    "a row with an unknown end": (b'<row r="2">', b'<!-- <c r="XFD9"> --><row r="2" spans="1:3" >'),
    "CDATA": (b"<t>Ananya</t>", b"<t><![CDATA[Anan]]>ya</t>"),
    "rich text": (b"<is><t>Ananya</t></is>", b"<is><r><t>Anan</t></r><r><rPr/><t>ya</t></r><rPh><t>x</t></rPh></is>"),
    "a prefix": (b'<c r="B2" t="inlineStr"><is><t>CSE</t></is></c>', b'<x:c r="B2" t="str"><x:v>CSE</x:v></x:c>'),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), ADDRESSES.values(), ids=ADDRESSES)
def test_workbook_of_another_writer_is_read(old: bytes, new: bytes) -> None:
    assert Read(change_sheet(old, new)).rows == [ANANYA]


def test_shared_strings_are_texts() -> None:
    """In parts, without their pronunciation, and with the characters that XML does not have."""
    strings = b"<si><r><t>Ra</t></r><r><t>vi</t></r><rPh><t>x</t></rPh></si><si><t>_x0045_CE_x005F_x0045_</t></si>"
    content = make_shared(strings, SHARED + SHARED.replace(b"0", b"1") + b"<c><v>7</v></c>")
    assert Read(content).rows == [ANANYA, (3, None, "Ravi", "ECE_x0045_", 7.0, 7, 0)]


DATES = [
    ("yyyy-mm-dd", 46024, "2026-01-02"), ("h:mm", 0.5, "12:00:00"), ("[h]:mm", 1.5, "1899-12-31 12:00:00"),
    ("[Red]0.0", 7.5, 7.5), ("General", 7.5, 7.5), ("0.00", 7.5, 7.5), ("[DBNum1]d", 2, "1900-01-01"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "number", "shown"), DATES)
def test_number_formats_tell_dates_from_numbers(code: str, number: float, shown: str | float) -> None:
    with xlsxwriter.Workbook(file := io.BytesIO()) as workbook:
        sheet = workbook.add_worksheet()
        sheet.write_row(0, 0, HEADER)
        sheet.write_row(1, 0, ["x", "y"])
        sheet.write_number(1, 2, number, workbook.add_format({"num_format": code}))
    read = Read(file.getvalue())
    if isinstance(shown, str):
        assert read.errors == [RowError(2, "cgpa", shown, f"expected {CGPA}")]
    else:
        assert read.students == [(None, "x", "y", shown)]


def test_workbook_is_read_in_little_memory() -> None:
    """What is kept are the shared strings."""
    unpacked = 8
    rows = (b"<row>%b</row>" % (b'<c t="e"><v>#N/A %d</v></c>' % number * 4) for number in itertools.count())
    content = change_sheet(b"</sheetData>", b"".join(itertools.islice(rows, unpacked * 10_000)) + b"</sheetData>")
    table = open_table(io.BytesIO(content), None)
    tracemalloc.start()
    try:
        assert sum(len(batch.errors) for batch in validate(table, "id")) == unpacked * 40_000
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024**2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("seed", range(8))
def test_damaged_workbook_raises_nothing_else(seed: int) -> None:
    """Neither zipfile nor expat may tell in words of its own that a workbook is damaged."""
    chance = Random(seed)

    def damage(content: bytes) -> bytes:
        at = chance.randrange(len(content))
        return content[:at] + bytes([chance.randrange(256)]) + content[at + chance.randrange(3) :]

    for _ in range(25):
        part = chance.choice([SHEET, "xl/workbook.xml", "xl/_rels/workbook.xml.rels", "xl/styles.xml"])
        for content in (damage(WORKBOOK), change_part(WORKBOOK, part, damage)):
            with contextlib.suppress(FileError):
                Read(content)


def test_rejected_rows_are_written_as_they_were_sent() -> None:
    """With decimal commas, columns that are not ours and strays; once corrected, they are read."""
    content = "Name;note;department;cgpa\r\nx;=1+1;y;11,5\r\nx;'=n;y;1\r\n'=x;\"a\nb\";;-8,5;;beyond\r\n;;;;\r\n"
    read = Read(content)
    lines = [
        ["Name", "note", "department", "cgpa", "error"],
        ["x", "'=1+1", "y", "11,5", f"expected {CGPA}"],
        ["'=x", "a\nb", "", "-8,5", f"{STRAY}; {EMPTY}; expected {CGPA}", "", "beyond"],
    ]  # fmt: skip
    rejected = read.write_rejected()
    assert list(csv.reader(io.StringIO(rejected.decode(), newline=""), strict=True)) == lines
    assert rejected.endswith(b"\r\n")
    again = Read(rejected)
    assert [error[1:] for error in again.errors] == [error[1:] for error in read.errors]
    assert again.write_rejected() == rejected
    corrected = rejected.replace(b"11,5", b"1,5").replace(b',,"-8,5"', b',y,"8,5"').replace(b",,beyond", b"")
    assert Read(corrected).students == [(None, "x", "y", 1.5), (None, "=x", "y", 8.5)]


MISSING = f"missing; expected {TEXT}; missing; expected {TEXT}; expected {CGPA}"
BROKEN = "not JSON: it ends too early"
REJECTED: list[tuple[bytes | str, str]] = [
    (make_xlsx([["id", *HEADER, "x"], [None, "'=x", 101, 11, DAY], [8.5, "x", None, 8.9]]),
     f'id,name,department,cgpa,x,error\r\n,\'\'=x,101,11,{DAY},expected {CGPA}\r\n8.5,x,,8.9,,"expected {ID}"\r\n'),
    ('[{"a": [1], "name": "=x", "department": "y", "cgpa": "1"}, 3, {"id": 1}]',
     f"id,name,department,cgpa,a,error\r\n,'=x,y,1,[1],expected {CGPA}\r\n3,,,,,\"{OBJECT}\"\r\n"),
    ('{"name": "x", "department": "y", "cgpa": 1}\n{"cgpa": 11, "a": 2}\n{"id": 1\n',
     f'id,name,department,cgpa,a,error\r\n,,,11,2,{MISSING}\r\n"{{""id"": 1",,,,,{BROKEN}\r\n'),
]  # fmt: skip


@pytest.mark.parametrize(("content", "rejected"), REJECTED, ids=["xlsx", "JSON", "NDJSON"])
def test_rejected_rows_of_other_files_are_csv(content: bytes | str, rejected: str) -> None:
    assert Read(content).write_rejected().decode() == rejected


def test_students_as_csv() -> None:
    rows = [(1, "=x", "a,b", 8.9), (2, "'t", "'@x", 10.0), (3, None, None, None), (4, "\r-", '"', 1e-05)]
    content = encode_csv_header() + encode_csv(rows)
    assert content == (
        b'id,name,department,cgpa\r\n1,\'=x,"a,b",8.9\r\n2,\'t,\'\'@x,10.0\r\n3,,,\r\n4,"\'\r-","""",1e-05\r\n'
    )


def test_students_as_ndjson() -> None:
    content = encode_ndjson([(1, "=x", "é", 8.9), (2, None, None, None)])
    assert content.decode() == (
        '{"id":1,"name":"=x","department":"é","cgpa":8.9}\n{"id":2,"name":null,"department":null,"cgpa":null}\n'
    )
    assert Read(content).rows == [(1, 1, "=x", "é", 8.9, 7, 0), (2, 2, None, None, None, 0, 7)]


def test_students_as_xlsx() -> None:
    """Text is text, whatever it looks like; a student without a grade has an empty cell."""
    write_xlsx([STUDENTS[:5], STUDENTS[5:], [(99, None, None, None)]], file := io.BytesIO())
    assert Read(file.getvalue()).students == [*STUDENTS, (99, None, None, None)]
    sheet = openpyxl.load_workbook(file).active
    assert sheet is not None
    assert (sheet.freeze_panes, sheet["A1"].font.bold) == ("A2", True)
    assert {cell.data_type for cell in sheet["B"][:-1]} == {"s"}


def test_sheet_without_room_is_an_error() -> None:
    """Not a workbook that ends with what had room, and no file is left behind."""
    file = io.BytesIO()
    with pytest.raises(FileTooLargeError):
        write_xlsx([[(1, "x" * 32_768, "y", 1.0)]], file)
    assert file.getvalue() == b""


NAME = st.text(max_size=120).map(normalize).filter(lambda text: not find_fault(text))
TEXTS = st.one_of(
    NAME, st.builds(str.__add__, st.sampled_from(["'", "''", "=", "-", "@", "＝"]), st.sampled_from(NAMES))
)


@given(st.lists(st.tuples(st.integers(1, 2**53), TEXTS, TEXTS, st.floats(0, 10)), min_size=1))
def test_every_student_survives_the_round_trip(students: list[tuple[int, str, str, float]]) -> None:
    for content in (encode_csv_header() + encode_csv(students), encode_ndjson(students)):
        assert Read(content).students == students


CSV_FILTER = "csv:Text - txt - csv (StarCalc):"
OFFICE: dict[str, tuple[str, str, str | None]] = {
    "xlsx": (".xlsx", "xlsx:Calc MS Excel 2007 XML", None),
    "CSV in UTF-8": (".csv", f"{CSV_FILTER}44,34,76,1", None),
    "semicolons in UTF-16": (".csv", f"{CSV_FILTER}59,34,65535,1", None),
    "tabs in Windows-1252": (".csv", f"{CSV_FILTER}9,34,1,1", "windows-1252"),
    "decimal commas": (".csv", f"{CSV_FILTER}59,34,76,1,,1031,false,true", None),
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exports for LibreOffice, of names that Windows-1252 has."""
    path = tmp_path_factory.mktemp("exports")
    students = [student for student in STUDENTS if student[1].isascii()] + [(99, "José", "Ökologie", 9.25)]
    (path / "students.csv").write_bytes(encode_csv_header() + encode_csv(students))
    with (path / "students.xlsx").open("wb") as file:
        write_xlsx([students], file)
    return path


@pytest.mark.parametrize(("suffix", "target", "charset"), OFFICE.values(), ids=OFFICE)
def test_export_comes_back_from_libreoffice(exports: Path, suffix: str, target: str, charset: str | None) -> None:
    """A file that was opened and saved there says the same."""
    before = exports / f"students{suffix}"
    after = Read(convert(before, target), None, charset)
    assert (after.rows, after.errors) == (Read(before.read_bytes()).rows, [])


def test_old_workbook_of_libreoffice_is_rejected(exports: Path) -> None:
    error = reject(convert(exports / "students.xlsx", "xls"))
    assert type(error) is UnsupportedFileError
    assert str(error).endswith("save it as .xlsx (Excel workbook) or as CSV UTF-8, without a password")


def test_bad_rows_do_not_pile_up() -> None:
    """Sixty-four mebibytes can hold thirty million of them."""
    table = open_table(io.BytesIO(b"1\n" * 10_000), "ndjson")
    assert {len(batch.errors) for batch in validate(table, "id")} == {1000}
