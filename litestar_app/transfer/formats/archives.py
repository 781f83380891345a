"""The zip archive around a workbook: its parts, unpacked as they are read and never to more than they say."""

import posixpath
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
BYTES, MORE_BYTES = 100, 2 * 1024 * 1024
"""Bytes that are unpacked for each byte of the file, and beyond that; LibreOffice writes 22 for equal rows."""
MARKS, MORE_MARKS = 8, 64 * 1024
"""The same of `<` and `=`: XML costs time by its tags and attributes. LibreOffice writes 2.7 for equal rows."""

TOO_LARGE = f"The workbook unpacks to more than {MAX_UNPACKED // 1024**2} MiB; save it as CSV UTF-8, or in parts"
TOO_DENSE = (
    "The workbook unpacks to far more than a file of its size holds; save it again with Excel or LibreOffice, "
    "or as CSV UTF-8"
)
DAMAGED = "The workbook is damaged; save it again with Excel or LibreOffice"
WORKBOOK = "xl/workbook.xml"
_OTHERS = {
    "index.zip": "an Apple iWork file, such as .numbers",
    "index/": "an Apple iWork file, such as .numbers",
    "content.xml": "an OpenDocument file, such as .ods",
    "word/": "a Word document (.docx)",
    "ppt/": "a PowerPoint presentation (.pptx)",
    "xl/workbook.bin": "a binary workbook (.xlsb)",
}
"""What an archive is, by the beginning of the name of a part."""
_OTHER_MAINS = {"document.xml", "presentation.xml"}
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
    """The parts of a workbook, with bounds for what is unpacked of a file of its size."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the directory.

        Raises:
            FileTooLargeError: it unpacks to more than `MAX_UNPACKED`.
            UnsupportedFileError: it is encrypted.
            InvalidFileError: it is damaged.

        """
        self._size = _check_directory(file)
        try:
            self._archive = zipfile.ZipFile(file)
        except _UNREADABLE:
            raise InvalidFileError(DAMAGED) from None
        parts = self._archive.infolist()
        self._parts = {part.filename.replace("\\", "/").lstrip("/").lower(): part for part in parts}
        if any(part.flag_bits & 1 for part in parts):
            raise UnsupportedFileError(f"The workbook is encrypted; {SAVE_AS}")
        self.max_bytes = self._size * BYTES + MORE_BYTES
        self.begin()
        if sum(part.file_size for part in parts) > MAX_UNPACKED:
            self._reject_others()
            raise FileTooLargeError(TOO_LARGE)

    def __contains__(self, name: str) -> bool:
        """Tell whether there is a part of this name; names are compared without case."""
        return name.lower() in self._parts

    def begin(self) -> None:
        """Begin to count anew what is unpacked."""
        self._bytes, self._marks = self.max_bytes, self._size * MARKS + MORE_MARKS

    def check_main(self, name: str) -> None:
        """Raise where the part by which an archive is a workbook is of another kind, or missing.

        Raises:
            UnsupportedFileError: it is another kind of file.
            InvalidFileError: it is damaged.

        """
        if name not in self or not name.endswith(".xml") or posixpath.basename(name) in _OTHER_MAINS:
            self._reject_others()
            raise UnsupportedFileError(
                "The file is a zip archive without a workbook; send the .xlsx or CSV file itself"
            )

    def _reject_others(self) -> None:
        for beginning, kind in _OTHERS.items():
            if any(name.startswith(beginning) for name in self._parts):
                raise UnsupportedFileError(f"The file is {kind}; {SAVE_AS}")

    def unpack(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a part; names are compared without case.

        Raises:
            FileTooLargeError: it has more, or more tags, than a file of this size.
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
                    self._bytes -= len(chunk)
                    self._marks -= chunk.count(b"<") + chunk.count(b"=")
                    if self._bytes < 0 or self._marks < 0:
                        raise FileTooLargeError(TOO_DENSE)
                    yield chunk
        except _UNREADABLE:
            raise InvalidFileError(DAMAGED) from None
        if left:
            raise InvalidFileError(DAMAGED)


def _check_directory(file: BinaryIO) -> int:
    """Return the size of the file; raise where its directory is missing or huge."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 65_558))  # an end record and its longest comment
    tail = file.read()
    # where zipfile looks
    at = len(tail) - 22 if tail[-22:-18] == b"PK\5\6" and tail[-2:] == b"\0\0" else tail.rfind(b"PK\5\6")
    length = int.from_bytes(tail[at + 12 : at + 16], "little")
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\6\7":  # noqa: PLR2004  zip64, as programs in Java write it
        length = int.from_bytes(tail[at - 36 : at - 28], "little")
    if at < 0 or length > MAX_DIRECTORY:
        raise InvalidFileError(DAMAGED)
    return size
