"""The zip archive around a workbook: its parts, unpacked as they are read and never to more than they say."""

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
CHUNK = 64 * 1024
"""Bytes that are unpacked at once."""

TOO_LARGE = f"The workbook unpacks to more than {MAX_UNPACKED // 1024**2} MiB; save it as CSV UTF-8, or in parts"
DAMAGED = "The workbook is damaged; save it again with Excel or LibreOffice"
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    ValueError,
    NotImplementedError,
    OSError,
)


class Archive:
    """The parts of a workbook."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the directory.

        Raises:
            FileTooLargeError: it unpacks to more than `MAX_UNPACKED`.
            UnsupportedFileError: it is encrypted, or a spreadsheet of another kind.
            InvalidFileError: it is damaged, or no workbook.

        """
        _check_directory(file)
        try:
            self._archive = zipfile.ZipFile(file)
        except _UNREADABLE:
            raise InvalidFileError(DAMAGED) from None
        parts = self._archive.infolist()
        self._parts = {part.filename.replace("\\", "/").lower(): part for part in parts}
        if any(part.flag_bits & 1 for part in parts):
            raise UnsupportedFileError(f"The workbook is encrypted; {SAVE_AS}")
        if "xl/workbook.xml" not in self._parts:
            if self._parts.keys() & {"xl/workbook.bin", "mimetype", "content.xml", "index/document.iwa"}:
                raise UnsupportedFileError(f"The file is a spreadsheet, but not an .xlsx; {SAVE_AS}")
            raise InvalidFileError("The file is a zip archive, but no workbook; send an .xlsx or a CSV file")
        if sum(part.file_size for part in parts) > MAX_UNPACKED:
            raise FileTooLargeError(TOO_LARGE)

    def unpack(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a part; names are compared without case.

        Raises:
            InvalidFileError: it is damaged, there is none, or its size is not what the directory says.

        """
        try:
            part = self._parts[name.lower()]
            if part.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise InvalidFileError(DAMAGED)
            left = part.file_size
            with self._archive.open(part) as stream:
                while chunk := stream.read(CHUNK):
                    left -= len(chunk)
                    yield chunk
        except _UNREADABLE:
            raise InvalidFileError(DAMAGED) from None
        if left:
            raise InvalidFileError(DAMAGED)


def _check_directory(file: BinaryIO) -> None:
    size = file.seek(0, 2)
    file.seek(max(0, size - 65_557))  # an end record and its longest comment
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    length = int.from_bytes(tail[at + 12 : at + 16], "little")
    if at < 0 or length > MAX_DIRECTORY or tail[max(0, at - 20) : at].startswith(b"PK\6\7"):  # the last: zip64
        raise InvalidFileError(DAMAGED)
