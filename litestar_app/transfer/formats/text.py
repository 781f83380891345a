"""Text files: decoded as they are read; CSV, NDJSON and JSON."""

import codecs
import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, BinaryIO

import msgspec
from msgspec import UNSET

from litestar_app.exceptions import InvalidFileError
from litestar_app.http.validation import describe_error, explain_syntax
from litestar_app.transfer.formats.cells import INTEGER, NUMBER, protect, unprotect
from litestar_app.transfer.formats.tables import (
    COLUMNS,
    ERROR,
    MAX_COLUMNS,
    REQUIRED,
    Cells,
    Row,
    Table,
    Unreadable,
    find_header,
    is_header,
    normalize,
)

CHUNK = 256 * 1024
"""Bytes that are decoded at once."""
MAX_ROW = 1024 * 1024
"""Bytes of a row, about: more are a broken file, or one made to fill the memory."""

BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
PROBE = bytes([9, 10, 13, *range(0x20, 0x7F)]) + b".xn--90a.xn--"
"""ASCII that some of Python's codecs decode as something else; the last words are for its `idna`."""
SEPARATOR = re.compile(r"sep=([^\w\s\"]|\t)[\r\n]*", re.IGNORECASE)
QUOTE = "a quote is not closed, or text follows it; reading went on with the next line"
SPLIT = "{0},{1} may be one number: write {0}.{1}, or {0}.0 if {1} belongs to the next column"
QUOTED_NUMBER = re.compile(r'(?:^|,) *"[0-9]+" *(?:,|[\r\n]|$)')
SIGNS = "'+-"
"""What may stand before the digits of a whole number, with the apostrophe that protects a sign."""
HIGHEST = 10
MAX_DIGITS = 300
TOO_LONG = f"a cell is too long, or {QUOTE}"
MANY_QUOTES = "too many quotes are not closed, here and above; a quote inside a quoted cell is written twice"
AGAIN = 4
"""How many times as much as the file has is read again after bad quotes: each may reach to the end of the file."""
BLANKS = frozenset(" \t\n\r")
LONGEST_TOKEN = len('"\\uD800\\uDC00')
"""Characters of JSON in which the end of a text can make an error that more text repairs."""
_scan = json.JSONDecoder(parse_int=float).raw_decode  # float: Python's int refuses thousands of digits


class TextTable(Table):
    """A table in a text file."""

    def __init__(self, file: BinaryIO, charset: str | None) -> None:
        """Decode by a byte order mark, else by the charset, else as UTF-8.

        Raises:
            InvalidFileError: there is no such charset.

        """
        super().__init__(file)
        self._start, self._charset = _find_charset(file, charset)

    def _read_text(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(self._charset)()
        position, row, stalled = self._start, -1, 0
        while True:
            self._file.seek(position)  # whoever reads the file too must not move this reader
            chunk = self._file.read(CHUNK)
            stalled = stalled + len(chunk) if self.row == row else 0
            if stalled > MAX_ROW:
                raise InvalidFileError(f"Row {row + 1} is longer than {MAX_ROW:,} bytes")
            row = self.row
            kept = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, not chunk)
            except UnicodeDecodeError as error:
                yield error.object[: error.start].decode(self._charset, "replace")
                raise InvalidFileError(
                    f"Row {self.row + 1}: byte {position - kept + error.start + 1:,} of the file is not "
                    f"{self._charset}; save the file as CSV UTF-8, or name its charset"
                ) from None
            if text:
                yield text
            if not chunk:
                return
            position += len(chunk)

    def _read_lines(self) -> Iterator[str]:
        rest = ""
        for chunk in self._read_text():
            text = rest + chunk
            cut = max(text.rfind("\n"), text.rfind("\r", 0, -1)) + 1  # a last \r may be half of a \r\n
            yield from io.StringIO(text[:cut], newline="")
            rest = text[cut:]
        yield from io.StringIO(rest, newline="")


def read_first_character(file: BinaryIO, charset: str | None) -> str:
    """Return the first character that is no white space, of the file's first kilobytes."""
    start, name = _find_charset(file, charset)
    file.seek(start)
    return file.read(4096).decode(name, "ignore").lstrip()[:1]


def _find_charset(file: BinaryIO, charset: str | None) -> tuple[int, str]:
    file.seek(0)
    start = file.read(3)
    for bom, name in BOMS.items():
        if start.startswith(bom):
            return len(bom), name
    return 0, _check_charset(charset or "utf-8")


def _check_charset(name: str) -> str:
    try:
        codec = codecs.lookup(name).name
        if codec.startswith("utf-16"):
            return "utf-16-be" if codec == "utf-16-be" else "utf-16-le"  # the second is what `utf-16` is on Windows
        # what reads ASCII as something else reads our names and delimiters as something else
        if "escape" not in codec and PROBE.decode(codec) == PROBE.decode("ascii"):
            return codec
    except (LookupError, ValueError):
        pass
    raise InvalidFileError(f"The charset {name!r:.100} is not known; expected one such as utf-8 or windows-1252")


class CsvTable(TextTable):
    """A CSV file, under the delimiter by which its header has our names."""

    kind = "csv"

    def __init__(self, file: BinaryIO, charset: str | None) -> None:
        """Find the header.

        Raises:
            InvalidFileError: there is none, or the charset is another.

        """
        super().__init__(file, charset)
        separator = SEPARATOR.fullmatch(next(self._read_lines(), ""))
        self._separator_lines = 1 if separator else 0  # as in Excel, which does not show it
        heads = {delimiter: self._read_head(delimiter) for delimiter in ([separator[1]] if separator else ",;\t")}
        self._delimiter = max(heads, key=lambda delimiter: self._rate(heads[delimiter]))
        self._header_row, cells, self.above_header = heads[self._delimiter]
        header = list(cells)
        if not header:
            raise InvalidFileError(f"The file is empty; expected a header with {', '.join(REQUIRED)}")
        if any("\0" in name for name in header):
            raise InvalidFileError("The file is not text, or in another charset; if it is UTF-16, name that charset")
        self.row = self._header_row
        self._set_header(header)
        if self._delimiter == ",":  # where 9,99 without quotes is two cells
            self.most = len(header)
        # the cells that people fill in: of rejected rows, the last column is the reason
        self._filled = self.width - (normalize(self.header[-1:]) == [ERROR])
        self._shows_decimals: bool | None = None
        behind = self.columns.get("cgpa", self.width) + 1
        self._is_before_text = behind in {self.columns.get("name"), self.columns.get("department")}
        self._is_before_error = behind == self._filled < self.width
        self._may_be_split = self._delimiter == "," and behind < self.width

    @staticmethod
    def _rate(head: tuple[int, Sequence[str], int]) -> tuple[bool, int, int]:
        """Prefer a header, then one with more of our columns, then the one that comes first."""
        row, cells, _ = head
        return is_header(cells), len({*normalize(cells)} & {*COLUMNS}), -row

    def _read_records(self, delimiter: str) -> Iterator[list[str] | Unreadable]:
        """Split lines into cells; after a bad quote, go on with the line after the one where the row begins."""
        lines = self._read_lines()
        for _ in range(self._separator_lines):
            next(lines)
        again: deque[str] = deque()
        taken: list[str] = []
        spare = AGAIN * self._file.seek(0, 2) + MAX_ROW

        def take() -> Iterator[str]:
            while (line := again.popleft() if again else next(lines, None)) is not None:
                taken.append(line)
                yield line

        while True:
            try:
                # people put a blank behind a comma, also before a quote
                for cells in csv.reader(take(), delimiter=delimiter, strict=True, skipinitialspace=True):
                    taken.clear()
                    yield cells
            except csv.Error as error:
                first, *rest = taken
                spare -= sum(map(len, rest))
                if spare < 0:
                    raise InvalidFileError(f"Row {self.row + 1}: {MANY_QUOTES}") from None
                again.extendleft(reversed(rest))
                taken.clear()
                is_long = len(first) > csv.field_size_limit()
                if not is_long and (plain := _drop_blanks(first, delimiter)) != first:
                    again.appendleft(plain)
                    continue
                cells = (
                    [] if is_long else next(csv.reader([first.strip()], delimiter=delimiter, skipinitialspace=True), [])
                )
                yield Unreadable("" if is_long else first.strip(), TOO_LONG if "limit" in str(error) else QUOTE, cells)
            else:
                return

    def _read_head(self, delimiter: str) -> tuple[int, Sequence[str], int]:
        self.row = 0

        def read() -> Iterator[tuple[int, Sequence[str]]]:
            for row, cells in enumerate(self._read_records(delimiter), 1):
                self.row = row
                if isinstance(cells, Unreadable):
                    yield row, ['"']  # which names none of our columns, however it goes on
                elif any(map(str.strip, cells)):
                    yield row, cells

        return find_header(read())

    def _read(self) -> Iterator[Row]:
        records = self._read_records(self._delimiter)
        row, width, last, cgpa = 0, self.width, max(self.columns.values()), self.columns.get("cgpa", 0)
        for _ in range(self._header_row):
            next(records)
            self.row = row = row + 1
        self.blank = row - 1 - self.above_header
        for cells in records:
            self.row = row = row + 1
            if isinstance(cells, Unreadable):
                yield row, cells
            elif (cells and cells[0].strip()) or any(map(str.strip, cells)):
                if len(cells) < width:
                    if len(cells) <= last:
                        yield row, Unreadable("", self._describe_short(len(cells)), self._format(cells))
                        continue
                    cells += [""] * (width - len(cells))  # noqa: PLW2901
                if self._unnamed:
                    self._name_filled(cells)
                if self._may_be_split and _is_whole(cells[cgpa]) and (value := self._join_split(cells)):
                    if self._is_before_error:  # where the new reason will be
                        cells.insert(cgpa + 1, "")
                    yield row, Unreadable(value, SPLIT.format(*value.split(",")), self._format(cells))
                else:
                    yield row, cells
            else:
                self.blank += 1

    def _describe_short(self, count: int) -> str:
        """Name the cells of ours that a row does not have."""
        missing = [name for name in COLUMNS if self.columns.get(name, -1) >= count]
        return f"fewer cells than the header has: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"

    def _format(self, cells: list[str]) -> list[str]:
        return [self.format_cell(cell) for cell in cells]

    def _join_split(self, cells: list[str]) -> str:
        """Return the number that a row may have in two cells: a decimal comma without quotes, and one cell less.

        That is another good row, or shows in a name, a department or a reason of digits only. So a row of whole numbers
        is read only where the file shows that it means them; a reason is never one. "" for a row that means what it
        says.
        """
        if not self._can_be_split(cells):
            return ""
        if self._shows_decimals is None:
            self._shows_decimals = not self._is_before_error and self._find_decimals()
        if self._shows_decimals:
            self._may_be_split = False
            return ""
        cgpa = self.columns["cgpa"]
        return f"{cells[cgpa].strip()},{cells[cgpa + 1].strip()}"

    def _can_be_split(self, cells: list[str]) -> bool:
        """Tell whether the CGPA and the next cell may be one number: if the row is as good so, or by the next cell."""
        cgpa = self.columns["cgpa"]
        whole, decimals = cells[cgpa].strip().lstrip(SIGNS), cells[cgpa + 1].strip()
        if not (whole.isdecimal() and decimals.isdecimal() and len(cells) == self.width):
            return False
        if self._is_before_error:
            return True
        if len(whole) + len(decimals) >= MAX_DIGITS or float(f"{whole}.{decimals}") > HIGHEST:
            return False
        if self._is_before_text:
            return True
        joined = [*cells[:cgpa], f"{whole}.{decimals}", *cells[cgpa + 2 : self._filled], ""]
        moved = {name: joined[position].strip() for name, position in self.columns.items()}
        return all(moved.get(name, "x") for name in REQUIRED) and INTEGER.fullmatch(moved.get("id") or "0") is not None

    def _find_decimals(self) -> bool:
        """Look through the file for what shows that a comma is never in a number without quotes.

        A number with its decimals in one cell; a row that ends with an empty cell, so that none is left out; a whole
        number and the next cell that are no CGPA together; or whole numbers in quotes.
        """
        row, cgpa, width = self.row, self.columns["cgpa"], self.width
        has_all = self._filled == width  # of rejected rows, empty cells stand for those that are left out
        try:
            for number, cells in enumerate(self._read_records(self._delimiter), 1):
                self.row = number
                if number <= self._header_row or isinstance(cells, Unreadable) or len(cells) <= cgpa:
                    continue
                grade = cells[cgpa].strip()
                if not _is_whole(grade):
                    if NUMBER.fullmatch(grade):
                        return True
                elif len(cells) == width and (
                    (has_all and not cells[-1].strip())
                    or (cells[cgpa + 1].strip().isdecimal() and not self._can_be_split(cells))
                ):
                    return True
            for number, line in enumerate(self._read_lines(), 1):
                self.row = number
                if QUOTED_NUMBER.search(line):
                    return True
        except InvalidFileError:  # the rows from there on are reported when they are read
            pass
        finally:
            self.row = row
        return False

    def has_split(self, cells: Cells) -> bool:
        """Tell whether whole numbers stand in the CGPA and the next cell, between commas."""
        behind = self.columns.get("cgpa", len(cells)) + 1
        return (
            self._delimiter == ","
            and behind < len(cells)
            and _is_whole(cells[behind - 1])
            and cells[behind].strip().isdecimal()
        )

    def show(self, cell: str) -> str:
        """Return the cell as it was sent."""
        return cell

    def format_cell(self, cell: str) -> str:
        """Return the cell as it was sent, but safe in a spreadsheet."""
        return cell if NUMBER.fullmatch(cell.strip()) else protect(unprotect(cell))


def _is_whole(cell: str) -> bool:
    return cell.strip().lstrip(SIGNS).isdecimal()


def _drop_blanks(line: str, delimiter: str) -> str:
    """Return a line of whole cells without the blanks behind their quotes; any other line as it is."""
    mark = re.escape(delimiter)
    cell = rf' *+(?:"(?:[^"]|"")*+" *+|[^"{mark}\r\n]*+)'
    if not re.fullmatch(rf"{cell}(?:{mark}{cell})*+[\r\n]*", line):
        return line
    return re.sub(rf'("(?:[^"]|"")*+") +(?={mark}|[\r\n]|$)', r"\1", line)


class JsonTable(TextTable):
    """Objects whose keys are columns; those of other names are found while the rows are read."""

    def __init__(self, file: BinaryIO, charset: str | None) -> None:
        """Put our columns first."""
        super().__init__(file, charset)
        self.header = list(COLUMNS)
        self.columns = {name: position for position, name in enumerate(COLUMNS)}
        self.width = MAX_COLUMNS  # a key is always a name
        self._positions = dict(self.columns)
        self._known = set(COLUMNS)

    def _find_ignored(self) -> None:
        self._known &= self.columns.keys()  # so that an id is reported when one is read

    def _decode_object(self, text: str) -> Cells | Unreadable:
        try:
            value = msgspec.json.decode(text)
        except RecursionError:
            return _make_unreadable(text, "nested too deeply")
        except (msgspec.MsgspecError, ValueError):
            return _make_unreadable(text, f"not JSON: {explain_syntax(text)}")
        if type(value) is not dict:
            return _make_unreadable(text, f"expected an object with {', '.join(REQUIRED)}")
        if not value.keys() <= self._known:
            self._add_columns(name for name in value if name not in self._known)
        cells: Cells = [UNSET] * len(self.header)
        for name, cell in value.items():
            cells[self._positions[name]] = cell
        return cells

    def _add_columns(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._positions:
                self._positions[name] = len(self.header)
                self.header.append(name)
            self._known.add(name)
            self.ignored_columns.append(name)
        if len(self.header) > MAX_COLUMNS:
            raise InvalidFileError(f"The objects have more than {MAX_COLUMNS:,} different names")

    def show(self, cell: Any) -> str:
        """Return a text as it is, nothing for null, and of anything else the JSON."""
        if cell is None or cell is UNSET:
            return ""
        return cell if isinstance(cell, str) else msgspec.json.encode(cell).decode()


def _make_unreadable(text: str, detail: str) -> Unreadable:
    return Unreadable(text.strip(), detail, [protect(text.strip())])


class NdjsonTable(JsonTable):
    """An object on every line."""

    kind = "ndjson"

    def _read(self) -> Iterator[Row]:
        for row, line in enumerate(self._read_lines(), 1):
            self.row = row
            if line.isspace():
                self.blank += 1
            else:
                yield row, self._decode_object(line)


class ArrayTable(JsonTable):
    """An array of objects, of which a few are in memory at a time."""

    kind = "json"

    def _read(self) -> Iterator[Row]:
        text, at, marks, is_element_next = "", 0, "[", False
        for chunk in chain(self._read_text(), [""]):
            text, at = text[at:] + chunk, 0
            while mark := text[(at := self._skip_blanks(text, at)) : at + 1]:
                if mark in marks:
                    at += 1
                    marks, is_element_next = {"[": ("]", True), ",": ("", True), "]": ("", False)}[mark]
                elif not is_element_next:
                    raise InvalidFileError(f"After element {self.row:,}: not a JSON array")
                elif (end := self._find_end(text, at, is_last=not chunk)) is None:
                    break
                else:
                    self.row += 1
                    yield self.row, self._decode_object(text[at:end])
                    at, marks, is_element_next = end, ",]", False
        if marks or is_element_next:
            raise InvalidFileError(f"After element {self.row:,}: the JSON array is not closed")

    def _skip_blanks(self, text: str, at: int) -> int:
        while text[at : at + 1] in BLANKS:
            at += 1
        return at

    def _find_end(self, text: str, at: int, *, is_last: bool) -> int | None:
        """Find where the element ends, or None if that takes more text."""
        try:
            end = _scan(text, at)[1]
        except RecursionError:
            raise InvalidFileError(f"Element {self.row + 1:,} is nested too deeply") from None
        except json.JSONDecodeError as error:
            is_cut = error.pos > len(text) - LONGEST_TOKEN or error.msg.startswith("Unterminated string")
            if is_cut and not is_last and len(text) - at < MAX_ROW:
                return None
            raise InvalidFileError(f"Element {self.row + 1:,} is not JSON: {describe_error(error)}") from None
        return None if end == len(text) and not is_last else end  # a number may go on
