"""Sheets: which part of a workbook is the first visible one, and its cells as values."""

import datetime as dt
import posixpath
import re
import sys
from collections.abc import Iterator
from typing import Any, TypeAlias

from litestar_app.exceptions import FileTooLargeError, InvalidFileError
from litestar_app.transfer.formats.archives import DAMAGED, MAX_UNPACKED, Archive
from litestar_app.transfer.formats.elements import parse
from litestar_app.transfer.formats.tables import NoValue

MAX_ROWS, MAX_COLUMNS = 1_048_576, 16_384
MAX_TEXT = 32_767
"""Characters of a cell."""
MAX_STRINGS = 192 * 1024 * 1024
"""Bytes of memory for the shared strings."""
POINTER = 8
MAX_STYLES = 65_536
MAX_FORMAT = 1000
"""Characters of a number format that are looked at; Excel allows 255."""

TOO_MUCH_TEXT = "The workbook has too much text; save it as CSV UTF-8, or in parts"
TOO_LONG = f"A cell of the workbook has more than {MAX_TEXT:,} characters"
NO_RESULT = "a formula without a result: open the file in Excel or LibreOffice, save it and send it again"
_DATES = frozenset(map(str, [*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)]))
"""Number formats that every workbook has, and that show a date or a time."""
_LITERAL = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?![hmsHMS]+\])[^\]]*\]')
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_LETTERS = re.compile("[A-Z]{1,3}")
SheetRow: TypeAlias = tuple[int, dict[int, Any]]
"""Row number from 1, and the values that are not empty, by column from 0."""


class Workbook:
    """The first visible sheet, and what its cells refer to."""

    def __init__(self, archive: Archive) -> None:
        """Find the sheet; read the shared strings, and which styles show a date.

        Raises:
            FileTooLargeError: the shared strings take too much memory.
            InvalidFileError: it is damaged, or has no visible sheet.

        """
        self._archive = archive
        self._epoch = dt.datetime(1899, 12, 30)  # noqa: DTZ001  what a sheet shows has no time zone
        relationships = _read_relationships(archive)
        self._part = self._find_sheet(relationships)
        parts = dict(relationships.values())
        self._dates = _read_date_styles(archive, parts["styles"]) if "styles" in parts else frozenset[str]()
        self._strings = _read_strings(archive, parts["sharedStrings"]) if "sharedStrings" in parts else []

    def _find_sheet(self, relationships: dict[str, tuple[str, str]]) -> str:
        found: list[str] = []

        def start(name: str, attributes: dict[str, str]) -> None:
            if name == "sheet" and attributes.get("state", "visible") == "visible":
                key = next((value for name, value in attributes.items() if name.endswith(":id")), "")
                kind, target = relationships.get(key, ("", ""))
                if kind == "worksheet":
                    found.append(target)
            elif name == "workbookPr" and attributes.get("date1904") in {"1", "true"}:
                self._epoch = dt.datetime(1904, 1, 1)  # noqa: DTZ001

        for _ in parse(self._archive.unpack("xl/workbook.xml"), start, _ignore, _ignore):
            pass
        if not found:
            raise InvalidFileError("The workbook has no visible sheet")
        return found[0]

    def read_rows(self) -> Iterator[SheetRow]:  # noqa: C901, PLR0915  closures: attributes of an object cost more
        """Read the sheet from its beginning; the rows with a value.

        Raises:
            FileTooLargeError: it has too much text.
            InvalidFileError: it is damaged.

        """
        rows: list[SheetRow] = []
        row, column, is_numbered = 0, -1, False
        cells: dict[int, Any] = {}
        columns = _Columns()
        kind, style, formula, text = "n", "", "", list[str]()
        is_cell = is_phonetic = is_text = has_formula = False
        length = total = 0

        def start(name: str, attributes: dict[str, str]) -> None:
            nonlocal row, column, is_numbered, kind, style, formula, is_cell, is_phonetic, is_text, has_formula, length
            if name == "c":
                column += 1
                if address := attributes.get("r"):
                    letters = address.rstrip("0123456789")
                    column, number = columns[letters], int(address[len(letters) :])
                    if number != row:
                        if is_numbered or number < row:
                            raise InvalidFileError(DAMAGED)
                        row = number
                    is_numbered = True
                if column >= MAX_COLUMNS or row > MAX_ROWS:
                    raise InvalidFileError(DAMAGED)
                kind, style, formula, length = attributes.get("t", "n"), attributes.get("s", ""), "", 0
                text.clear()
                is_cell, has_formula = True, False
            elif name == "v" or name == "t" or name == "f":  # noqa: PLR1714  faster than a set
                is_text = is_cell and not is_phonetic
                has_formula = has_formula or name == "f"
            elif name == "row":
                number = int(attributes.get("r", row + 1))
                is_numbered = "r" in attributes
                if number <= row:
                    raise InvalidFileError(DAMAGED)
                row, column = number, -1
            elif name == "rPh":
                is_phonetic = True

        def end(name: str) -> None:
            nonlocal cells, formula, is_cell, is_phonetic, is_text, total
            if name == "c":
                is_cell = False
                value = self._read_value(kind, style, "".join(text), formula if has_formula else None)
                if value != "":
                    cells[column] = value
                    if value.__class__ is str:
                        total += len(value)
                        if total > MAX_UNPACKED:
                            raise FileTooLargeError(TOO_MUCH_TEXT)
            elif name == "v" or name == "t":  # noqa: PLR1714
                is_text = False
            elif name == "row":
                if cells:
                    rows.append((row, cells))
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

        for _ in parse(self._archive.unpack(self._part), start, end, characters):
            yield from rows
            rows.clear()

    def _read_value(self, kind: str, style: str, text: str, formula: str | None) -> Any:
        if kind in {"inlineStr", "str"}:
            return _unescape(text)
        if not text:
            return "" if formula is None else NoValue(f"={formula}", NO_RESULT)
        if kind == "s":
            return self._strings[int(text)]
        if kind == "n":
            if "_" in text:  # which Python takes in a number
                raise InvalidFileError(DAMAGED)
            number = float(text)
            return self._read_date(number) if style in self._dates else number
        if kind == "b":
            return text in {"1", "true"}
        return NoValue(text)  # an error, or a date by ISO 8601

    def _read_date(self, number: float) -> Any:
        """Return the date or time that a sheet shows for a number in such a style."""
        try:
            moment = self._epoch + dt.timedelta(days=number, milliseconds=500)
        except (OverflowError, ValueError):
            return number
        moment = moment.replace(microsecond=0)
        if 0 <= number < 1:
            return moment.time()
        return moment if moment.time() != dt.time() else moment.date()


class _Columns(dict[str, int]):
    """The numbers of columns, from 0, by their letters."""

    def __missing__(self, letters: str) -> int:
        if not _LETTERS.fullmatch(letters):
            raise InvalidFileError(DAMAGED)
        number = 0
        for letter in letters:
            number = number * 26 + ord(letter) - ord("A") + 1
        self[letters] = number - 1
        return number - 1


def _read_relationships(archive: Archive) -> dict[str, tuple[str, str]]:
    """Return the kind and the part of what the workbook consists of, by its key."""
    relationships = {}

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "Relationship":
            kind = attributes.get("Type", "").rpartition("/")[2]
            part = posixpath.normpath(posixpath.join("/xl", attributes.get("Target", "").replace("\\", "/")))
            relationships[attributes.get("Id", "")] = (kind, part.lstrip("/"))

    for _ in parse(archive.unpack("xl/_rels/workbook.xml.rels"), start, _ignore, _ignore):
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


def _read_date_styles(archive: Archive, part: str) -> frozenset[str]:
    """Return the numbers of the styles that show a date or a time."""
    formats: dict[str, bool] = {}
    styles: list[str] = []
    is_used = False

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal is_used
        if name == "cellXfs":
            is_used = True
        elif name == "xf" and is_used and len(styles) < MAX_STYLES:
            styles.append(attributes.get("numFmtId", "0"))
        elif name == "numFmt" and len(formats) < MAX_STYLES:
            code = _LITERAL.sub("", attributes.get("formatCode", "")[:MAX_FORMAT])
            formats[attributes.get("numFmtId", "")] = re.search("[dmyhsDMYHS]", code) is not None

    def end(name: str) -> None:
        nonlocal is_used
        if name == "cellXfs":
            is_used = False

    for _ in parse(archive.unpack(part), start, end, _ignore):
        pass
    return frozenset(str(number) for number, key in enumerate(styles) if formats.get(key, key in _DATES))


def _unescape(text: str) -> str:
    """Read what a workbook writes as `_x000D_`, since XML has no such character."""
    if "_x" not in text:
        return text
    text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _ignore(*_: object) -> None:
    pass
