"""Sheets: which parts of a workbook they are, and their cells as what a person sees in them."""

import datetime as dt
import posixpath
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from litestar_app.exceptions import FileTooLargeError, InvalidFileError
from litestar_app.transfer.formats.archives import DAMAGED, WORKBOOK, Archive
from litestar_app.transfer.formats.elements import parse
from litestar_app.transfer.formats.numbers import BUILT_IN, NumberFormat
from litestar_app.transfer.formats.tables import NoValue

MAX_ROWS, MAX_COLUMNS = 1_048_576, 16_384
MAX_TEXT = 32_767
"""Characters of a cell."""
MAX_STRINGS = 192 * 1024 * 1024
"""Bytes of memory for the shared strings."""
POINTER = 8
MAX_STYLES = 65_536
AHEAD = 10_000
"""Cells that are read before the first row is handed on: among them, rows may come in any order."""
MAX_ARRAYS = 100
"""Array formulas of which the range is remembered."""

TOO_MUCH_TEXT = "The workbook has too much text; save it as CSV UTF-8, or in parts"
UNORDERED = "The rows of the sheet are in no order; save the file again with Excel or LibreOffice"
TOO_LONG = f"A cell of the workbook has more than {MAX_TEXT:,} characters"
NO_RESULT = "a formula without a result: open the file in Excel or LibreOffice, save it and send it again"
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_LETTERS = re.compile("[A-Za-z]{1,3}")
SheetRow: TypeAlias = tuple[int, dict[int, Any]]
"""Row number from 1, and the values that are not empty, by column from 0."""


class Sheet(NamedTuple):
    """A sheet of cells."""

    name: str
    part: str
    is_visible: bool


class Workbook:
    """The sheets, and what their cells refer to."""

    def __init__(self, archive: Archive) -> None:
        """Find the sheets; read the shared strings and the number formats.

        Raises:
            UnsupportedFileError: it is another kind of file.
            FileTooLargeError: the shared strings take too much memory.
            InvalidFileError: it is damaged.

        """
        self._archive = archive
        self._epoch = dt.datetime(1899, 12, 30)  # noqa: DTZ001  what a sheet shows has no time zone
        self._is_uncalculated = False
        package = _read_relationships(archive, "")
        main = next((part for kind, part in package.values() if kind == "officeDocument"), WORKBOOK)
        archive.check_main(main)
        relationships = _read_relationships(archive, main)
        self.sheets = self._find_sheets(main, relationships)
        parts = {kind: part for kind, part in relationships.values() if part in archive}
        self._formats = self._read_formats(parts.get("styles"))
        self._strings = _read_strings(archive, parts["sharedStrings"]) if "sharedStrings" in parts else []

    def _find_sheets(self, main: str, relationships: dict[str, tuple[str, str]]) -> list[Sheet]:
        sheets: dict[str, Sheet] = {}

        def start(name: str, attributes: dict[str, str]) -> None:
            if name == "sheet":
                key = next((value for name, value in attributes.items() if name.endswith(":id")), "")
                kind, part = relationships.get(key, ("", ""))
                if kind == "worksheet" and part in self._archive:
                    is_visible = attributes.get("state", "visible") == "visible"
                    sheets.setdefault(part, Sheet(attributes.get("name", ""), part, is_visible))
            elif name == "workbookPr" and attributes.get("date1904") in {"1", "true"}:
                self._epoch = dt.datetime(1904, 1, 1)  # noqa: DTZ001
            elif name == "calcPr":
                self._is_uncalculated = attributes.get("fullCalcOnLoad") in {"1", "true"}

        for _ in parse(self._archive.unpack(main), start, _ignore, _ignore):
            pass
        return list(sheets.values())

    def begin(self) -> None:
        """Count anew what is unpacked, to read a sheet once more."""
        self._archive.begin()

    def read_rows(self, part: str, ahead: int = AHEAD) -> Iterator[SheetRow]:  # noqa: C901, PLR0915  closures, which cost less
        """Read a sheet from its beginning; the rows with a value, in order.

        Raises:
            FileTooLargeError: it has too much text, or more than a file of its size.
            InvalidFileError: it is damaged, or its rows are in no order.

        """
        window: dict[int, dict[int, Any]] = {}
        given = count = 0
        row, column, is_numbered = 0, -1, False
        cells: dict[int, Any] = {}
        columns = _Columns()
        arrays: deque[tuple[int, int, int, int]] = deque(maxlen=MAX_ARRAYS)
        kind, style, formula, text = "n", "0", "", list[str]()
        is_cell = is_inline = is_phonetic = is_text = has_formula = False
        length = total = 0
        read_value, formats, strings = self._read_value, self._formats, self._strings
        max_total, is_uncalculated = self._archive.max_bytes, self._is_uncalculated

        def start(name: str, attributes: dict[str, str]) -> None:  # noqa: C901
            nonlocal row, column, is_numbered, kind, style, formula, length
            nonlocal is_cell, is_inline, is_phonetic, is_text, has_formula
            if name == "c":
                column += 1
                if address := attributes.get("r"):
                    letters = address.rstrip("0123456789")
                    column, number = columns[letters], int(address[len(letters) :])
                    if number != row:
                        if is_numbered:
                            raise InvalidFileError(DAMAGED)
                        row = number
                    is_numbered = True
                if column >= MAX_COLUMNS or row > MAX_ROWS:
                    raise InvalidFileError(DAMAGED)
                kind, style, formula, length = attributes.get("t", "n"), attributes.get("s", "0"), "", 0
                text.clear()
                is_cell, is_inline, has_formula = True, False, False
            elif name == "v":
                is_text = is_cell and not is_inline
            elif name == "t":
                is_text = is_cell and not is_phonetic
            elif name == "row":
                row, column = int(attributes.get("r", row + 1)), -1
                is_numbered = "r" in attributes
            elif name == "f":
                is_text, has_formula = is_cell, True
                if is_uncalculated and attributes.get("t") == "array":
                    arrays.append(_read_range(attributes.get("ref", ""), columns))
            elif name == "is" and is_cell and (kind == "inlineStr" or not text):
                kind, is_inline, length = "inlineStr", True, 0
                text.clear()
            elif name == "rPh":
                is_phonetic = True

        def end(name: str) -> None:  # noqa: C901, PLR0912
            nonlocal cells, count, formula, is_cell, is_phonetic, is_text, total
            if name == "c":
                is_cell = False
                shown = "".join(text)
                if kind == "s" and shown:  # the most frequent one, without a call
                    index = int(shown)
                    if index < 0:
                        raise InvalidFileError(DAMAGED)
                    value = strings[index] if style not in formats else formats[style].read_text(strings[index])
                else:
                    value = read_value(kind, style, shown, formula if has_formula else None)
                if is_uncalculated and value == 0 and (has_formula or _is_inside(arrays, row, column)):
                    value = NoValue(f"={formula}", NO_RESULT)
                if value != "":
                    cells[column] = value
                    if value.__class__ is str:
                        total += len(value)
                        if total > max_total:
                            raise FileTooLargeError(TOO_MUCH_TEXT)
            elif name == "v" or name == "t":  # noqa: PLR1714  faster than a set
                is_text = False
            elif name == "row":
                if cells:
                    if row <= given:
                        raise InvalidFileError(UNORDERED)
                    if row in window:
                        window[row].update(cells)
                    else:
                        window[row] = cells
                    count += len(cells)
                    cells = {}
            elif name == "f":
                is_text = False
                formula = "".join(text)
                text.clear()
            elif name == "rPh":
                is_phonetic = False

        def characters(part: str) -> None:
            nonlocal length
            if is_text:
                length += len(part)
                if length > MAX_TEXT:
                    raise InvalidFileError(TOO_LONG)
                text.append(part)

        for _ in parse(self._archive.unpack(part), start, end, characters):
            if count > ahead and len(window) > 1:
                *numbers, last = sorted(window)  # the last one may go on
                given = numbers[-1]
                yield from [(number, window.pop(number)) for number in numbers]
                count = len(window[last])
        yield from sorted(window.items())

    def _read_value(self, kind: str, style: str, text: str, formula: str | None) -> Any:
        if kind in {"inlineStr", "str"}:
            value = _unescape(text)
        elif not text:
            return "" if formula is None else NoValue(f"={formula}", NO_RESULT)
        elif kind == "n":
            if "_" in text:  # which Python takes in a number
                raise InvalidFileError(DAMAGED)
            number = float(text)
            numbers = self._formats.get(style)
            return number if numbers is None else numbers[number]
        elif kind == "b":
            return text in {"1", "true"}
        else:
            return NoValue(text)  # an error, or a date by ISO 8601
        numbers = self._formats.get(style)
        return value if numbers is None else numbers.read_text(value)

    def _read_formats(self, part: str | None) -> dict[str, NumberFormat]:
        """Return the number formats by the numbers of the styles that have one, without the format General."""
        codes: dict[str, str] = {}
        styles: list[str] = []
        is_used = False

        def start(name: str, attributes: dict[str, str]) -> None:
            nonlocal is_used
            if name == "cellXfs":
                is_used = True
            elif name == "xf" and is_used and len(styles) < MAX_STYLES:
                styles.append(attributes.get("numFmtId", "0"))
            elif name == "numFmt" and len(codes) < MAX_STYLES:
                codes.setdefault(attributes.get("numFmtId", ""), attributes.get("formatCode", ""))

        def end(name: str) -> None:
            nonlocal is_used
            if name == "cellXfs":
                is_used = False

        if part is not None:
            for _ in parse(self._archive.unpack(part), start, end, _ignore):
                pass
        codes = {key: code for key, code in (BUILT_IN | codes).items() if code.lower() not in {"", "general"}}
        formats = {key: NumberFormat(codes[key], self._epoch) for key in {*styles} & codes.keys()}
        return {str(number): formats[key] for number, key in enumerate(styles) if key in formats}


class _Columns(dict[str, int]):
    """The numbers of columns, from 0, by their letters."""

    def __missing__(self, letters: str) -> int:
        if not _LETTERS.fullmatch(letters):
            raise InvalidFileError(DAMAGED)
        number = 0
        for letter in letters.upper():
            number = number * 26 + ord(letter) - ord("A") + 1
        self[letters] = number - 1
        return number - 1


def _read_range(text: str, columns: _Columns) -> tuple[int, int, int, int]:
    """Return the first and the last row, and the first and the last column, of a range such as A1:B2."""
    corners = [re.fullmatch("([A-Za-z]+)([0-9]+)", corner) for corner in text.replace("$", "").split(":")]
    if not all(corners):
        raise InvalidFileError(DAMAGED)
    rows = [int(corner[2]) for corner in corners if corner]
    places = [columns[corner[1]] for corner in corners if corner]
    return min(rows), max(rows), min(places), max(places)


def _is_inside(ranges: Iterable[tuple[int, int, int, int]], row: int, column: int) -> bool:
    return any(top <= row <= bottom and left <= column <= right for top, bottom, left, right in ranges)


def _read_relationships(archive: Archive, part: str) -> dict[str, tuple[str, str]]:
    """Return the kind and the part of whatever a part refers to, by its key; "" is the whole package."""
    relationships = {}
    folder, name = posixpath.split(f"/{part}")

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "Relationship" and attributes.get("TargetMode") != "External":
            kind = attributes.get("Type", "").rpartition("/")[2]
            target = posixpath.normpath(posixpath.join(folder, attributes.get("Target", "").replace("\\", "/")))
            relationships[attributes.get("Id", "")] = (kind, target.lstrip("/"))

    source = posixpath.join(folder, "_rels", f"{name}.rels").lstrip("/")
    if source in archive:
        for _ in parse(archive.unpack(source), start, _ignore, _ignore):
            pass
    return relationships


def _read_strings(archive: Archive, part: str) -> list[str]:  # noqa: C901  closures, as above
    strings: list[str] = []
    text: list[str] = []
    is_phonetic = is_text = False
    length = size = 0

    def start(name: str, _attributes: dict[str, str]) -> None:
        nonlocal is_phonetic, is_text, length
        if name == "t":
            is_text = not is_phonetic
        elif name == "si":
            text.clear()
            length = 0
        elif name == "rPh":
            is_phonetic = True

    def end(name: str) -> None:
        nonlocal is_phonetic, is_text, size
        if name == "t":
            is_text = False
        elif name == "si":
            strings.append(_unescape("".join(text)))
            size += POINTER + sys.getsizeof(strings[-1])
            if size > MAX_STRINGS:
                raise FileTooLargeError(TOO_MUCH_TEXT)
        elif name == "rPh":
            is_phonetic = False

    def characters(part: str) -> None:
        nonlocal length
        if is_text:
            length += len(part)
            if length > MAX_TEXT:
                raise InvalidFileError(TOO_LONG)
            text.append(part)

    for _ in parse(archive.unpack(part), start, end, characters):
        pass
    return strings


def _unescape(text: str) -> str:
    """Read what a workbook writes as `_x000D_`, since XML has no such character."""
    if "_x" not in text:
        return text
    text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _ignore(*_: object) -> None:
    pass
