"""The zip archive around a workbook: what is looked at before calamine, which trusts it, unpacks it."""

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from litestar_app.exceptions import FileTooLargeError, InvalidFileError, UnsupportedFileError
from litestar_app.transfer.formats.tables import SAVE_AS

MAX_UNPACKED = 256 * 1024 * 1024
"""Bytes of all parts of a workbook."""
MAX_DIRECTORY = 1024 * 1024
"""Bytes of a directory, of which zipfile makes objects; a workbook has some dozens of parts."""
MAX_CELLS = 8 * 1024 * 1024
"""Cells of the rectangle from A1 around all that is filled: calamine makes 32 bytes of each, filled or not."""
MAX_TAG = 1024 * 1024
"""Bytes without the beginning of another tag: a cell has at most 32,767 characters."""
CHUNK = 256 * 1024
"""Bytes at once: other threads wait while an expression goes through them."""

TOO_LARGE = f"The workbook unpacks to more than {MAX_UNPACKED // 1024**2} MiB; save it as CSV UTF-8, or in parts"
DAMAGED = "The workbook is damaged; save it again with Excel or LibreOffice"


def _compile(prefix: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Find the tags of cells; and of cells their address, other attributes, and whether a formula has no result."""
    return re.compile(rb"<" + prefix + rb"c[\s/>]"), re.compile(
        rb"<" + prefix + rb"""c\sr="([A-Z]{1,3})([0-9]{1,7})"([^"'<>]*(?:"[^"<]*"[^"'<>]*|'[^'<]*'[^"'<>]*)*)>"""
        rb"(<" + prefix + rb"f(?:[^<>]*/>|[^<>]*>[^<]*</[^<>]*>)(?:<" + prefix + rb"v(?:\s*/>|></[^<>]*>))?</[^<>]*c>)?"
    )


_PREFIX = rb"(?:[^\s<>/:]+:)?"
_PLAIN, _PREFIXED = _compile(b""), _compile(_PREFIX)
_SHEET = re.compile(rb"<" + _PREFIX + rb"""sheet\s[^<>]*\w:id\s*=\s*["']([^"']*)["']""")
_RELATIONSHIP = re.compile(rb"<" + _PREFIX + rb"Relationship\s[^<>]*>")
_ATTRIBUTE = re.compile(rb"""([\w:]+)\s*=\s*["']([^"']*)["']""")

Positions = set[tuple[int, int]]
"""Rows and columns from 0."""


def check_archive(file: BinaryIO) -> list[Positions]:
    """Unpack all of a workbook once, and return of each of its sheets the cells that have no value.

    Those hold an error such as #N/A, or a formula that was never calculated; calamine shows them as empty.

    Raises:
        FileTooLargeError: it unpacks to more than `MAX_UNPACKED`, or to a table of more than `MAX_CELLS`.
        UnsupportedFileError: it is encrypted, or a spreadsheet of another kind.
        InvalidFileError: it is damaged, or no workbook.

    """
    _check_directory(file)
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            names = {part.filename for part in parts}
            if any(part.flag_bits & 1 for part in parts):
                raise UnsupportedFileError(f"The workbook is encrypted; {SAVE_AS}")
            if "xl/workbook.xml" not in names:
                if names & {"xl/workbook.bin", "mimetype", "content.xml", "Index/Document.iwa"}:
                    raise UnsupportedFileError(f"The file is a spreadsheet, but not an .xlsx; {SAVE_AS}")
                raise InvalidFileError("The file is a zip archive, but no workbook; send an .xlsx or a CSV file")
            if sum(part.file_size for part in parts) > MAX_UNPACKED:
                raise FileTooLargeError(TOO_LARGE)
            without_value = {part.filename: _check_cells(_unpack(archive, part)) for part in parts}
            return [without_value.get(name, set()) for name in _find_sheets(archive)]
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        LookupError,
        ValueError,
        NotImplementedError,
        OSError,
    ):
        raise InvalidFileError(DAMAGED) from None


def _check_directory(file: BinaryIO) -> None:
    size = file.seek(0, 2)
    file.seek(max(0, size - 65_557))  # an end record and its longest comment
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    length = int.from_bytes(tail[at + 12 : at + 16], "little")
    if at < 0 or length > MAX_DIRECTORY or tail[max(0, at - 20) : at].startswith(b"PK\6\7"):  # the last: zip64
        raise InvalidFileError(DAMAGED)


def _unpack(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> Iterator[bytes]:
    if part.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise InvalidFileError(DAMAGED)
    declared = part.file_size
    part.file_size = MAX_UNPACKED  # or zipfile would stop at a size that is a lie, where calamine does not
    with archive.open(part) as stream:
        while chunk := stream.read(CHUNK):
            declared -= len(chunk)
            if declared < 0:
                raise InvalidFileError(DAMAGED)
            yield chunk
    if declared:
        raise InvalidFileError(DAMAGED)


def _check_cells(chunks: Iterator[bytes]) -> Positions:
    """Bound the rectangle around the filled cells of a part; other parts have none.

    For a cell A1 and a cell XFD1048576 calamine would ask for 512 GiB, and Rust ends the process without them.
    """
    rows, letters, without_value = 0, set[bytes](), set[tuple[bytes, bytes]]()
    for text in _cut_between_tags(chunks):
        tag, cell = _PREFIXED if b":c" in text else _PLAIN
        cells = cell.findall(text)
        if len(cells) != len(tag.findall(text)):
            raise InvalidFileError(DAMAGED)
        filled = [found for found in cells if found[2][-1:] != b"/"]
        letters.update({found[0] for found in filled})
        rows = max(rows, 0, *map(int, {found[1] for found in filled}))
        without_value.update(
            (row, column)
            for column, row, attributes, formula in filled
            if b't="e"' in attributes or (formula and b't="str"' not in attributes)
        )
        if rows * max(map(_number_column, letters), default=0) > MAX_CELLS:
            raise FileTooLargeError(
                "A sheet has filled cells far from its table; remove what is far below it or right of it, "
                "or save the table as CSV UTF-8"
            )
    return {(int(row) - 1, _number_column(column) - 1) for row, column in without_value}


def _cut_between_tags(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        text = rest + chunk
        if b"row>" in text:
            cut = text.rindex(b"row>") + len(b"row>")
        else:
            cut = text.rfind(b"<") if b"<" in text else len(text)
        yield text[:cut]
        rest = text[cut:]
        if len(rest) > MAX_TAG:
            raise InvalidFileError(DAMAGED)
    yield rest


def _number_column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - ord("A") + 1
    return number


def _find_sheets(archive: zipfile.ZipFile) -> list[str]:
    """Return the parts of the sheets, in the workbook's order."""
    targets = {}
    for tag in _RELATIONSHIP.findall(_read_small(archive, "xl/_rels/workbook.xml.rels")):
        attributes = dict(_ATTRIBUTE.findall(tag))
        target = attributes.get(b"Target", b"").decode()
        targets[attributes.get(b"Id")] = target[1:] if target.startswith("/") else f"xl/{target}"
    return [targets.get(key, "") for key in _SHEET.findall(_read_small(archive, "xl/workbook.xml"))]


def _read_small(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as stream:
        return stream.read(MAX_DIRECTORY)
