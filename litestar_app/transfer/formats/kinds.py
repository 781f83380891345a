"""Kinds of files that are not read, told by their bytes, and what to do about each."""

import codecs
import re
from typing import BinaryIO

from litestar_app.exceptions import UnsupportedFileError
from litestar_app.transfer.formats.tables import SAVE_AS

START = 4096
"""Bytes that tell the kind of a file."""
OLE = bytes.fromhex("d0cf11e0a1b11ae1")
"""The beginning of an .xls, and of an encrypted .xlsx."""
OLE_SEARCHED = 1024 * 1024
UNPACK = "unpack it and send the .xlsx or CSV file in it"
SEND = "send the table itself, as .xlsx (Excel workbook) or as CSV UTF-8"

_SIGNATURES: list[tuple[bytes, str, str]] = [
    (b"%PDF-", "a PDF document", SEND),
    (b"\x1f\x8b\x08", "a gzip archive", UNPACK),
    (b"BZh.1AY", "a bzip2 archive", UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (b"\x89PNG\r\n", "a PNG image", SEND),
    (b"\xff\xd8\xff", "a JPEG image", SEND),
    (b"GIF87a", "a GIF image", SEND),
    (b"GIF89a", "a GIF image", SEND),
    (b"II*\0", "a TIFF image", SEND),
    (b"MM\0*", "a TIFF image", SEND),
    (b"RIFF....WEBP", "a WebP image", SEND),
    (b"\0\0\0.ftyp", "an image or a film", SEND),
    (b"{\\rtf", "an RTF document", SEND),
    (b"%!PS", "a PostScript document", SEND),
    (b"SQLite format 3\0", "an SQLite database", SEND),
    (b"PAR1\x15", "a Parquet file", SEND),
    (b"ARROW1\0\0", "an Arrow file", SEND),
    (b"\0\1\0\0Standard ", "an Access database", SEND),
    (b"bplist00", "an Apple property list", SEND),
    (b"ID;PWXL", "a SYLK spreadsheet (.slk)", SAVE_AS),
    *(
        (bytes([9, version, length, 0]), "an old Excel workbook (.xls)", SAVE_AS)
        for version in (0, 2, 4, 8)
        for length in (4, 6, 8, 16)
    ),
    (b"\0\0\2\0", "a Lotus 1-2-3 spreadsheet", SAVE_AS),
]  # fmt: skip
"""The first bytes (a dot is any byte), the kind and the advice."""
_STARTS = [(re.compile(re.escape(start).replace(rb"\.", b"."), re.DOTALL), kind, do) for start, kind, do in _SIGNATURES]
_OLE_NAMES = {
    "EncryptedPackage": "encrypted",
    "Workbook": "an old Excel workbook (.xls)",
    "Book": "an old Excel workbook (.xls)",
    "WordDocument": "an old Word document (.doc)",
    "PowerPoint Document": "an old PowerPoint presentation (.ppt)",
}
_HTML = re.compile(
    r"<(?:!doctype html|(?:html|head|body|meta|title|style|table|thead|tbody|tr|div|center|br)[\s/>])", re.IGNORECASE
)
_XML = re.compile(r"<(?:\?xml\s|!doctype\s|svg[\s>]|(?:\w+:)?workbook[\s>])", re.IGNORECASE)
_COMMENTS = re.compile(r"^(?:\s|<!--.*?-->)*", re.DOTALL)


def reject_other_kinds(file: BinaryIO) -> None:
    """Raise where the bytes are clearly a kind of file that is not read.

    Raises:
        UnsupportedFileError: they are; it says which kind, and what to do.

    """
    file.seek(0)
    start = file.read(START)
    if start.startswith(OLE):
        raise UnsupportedFileError(f"The file is {_name_ole(file)}; {SAVE_AS}")
    for pattern, kind, advice in _STARTS:
        if pattern.match(start):
            raise UnsupportedFileError(f"The file is {kind}; {advice}")
    encoding = "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    text = start.decode(encoding, "replace")
    text = _COMMENTS.sub("", text, count=1)
    if _HTML.match(text) or (_XML.match(text) and "<html" in text.lower()):
        raise UnsupportedFileError(
            f"The file is HTML, whatever its name says; open it in Excel or LibreOffice and {SAVE_AS}"
        )
    if _XML.match(text):
        kind = "an XML spreadsheet" if "spreadsheet" in text.lower() or "excel" in text.lower() else "XML"
        raise UnsupportedFileError(
            f"The file is {kind}, whatever its name says; open it in Excel or LibreOffice and {SAVE_AS}"
        )


def _name_ole(file: BinaryIO) -> str:
    """Return the kind by the names of its streams; they stand in a directory, which may be anywhere."""
    file.seek(0)
    content = file.read(OLE_SEARCHED)
    shift, sector = int.from_bytes(content[30:32], "little"), int.from_bytes(content[48:52], "little")
    if shift <= 12:  # noqa: PLR2004  sectors of 512 or 4096 bytes
        file.seek((sector + 1) << shift)
        content += file.read(START)
    for name, kind in _OLE_NAMES.items():
        if name.encode("utf-16-le") in content:
            return kind
    return "encrypted, or a spreadsheet of the old format (.xls)"
