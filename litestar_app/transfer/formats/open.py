"""Opening: which kind of table a file is."""

from typing import BinaryIO

from litestar_app.exceptions import InvalidFileError, UnsupportedFileError
from litestar_app.transfer.formats.tables import SAVE_AS, Kind, Table
from litestar_app.transfer.formats.text import ArrayTable, CsvTable, NdjsonTable, read_first_character

OLE = bytes.fromhex("d0cf11e0a1b11ae1")
"""The beginning of an .xls, and of an encrypted .xlsx."""
ZIPS = (b"PK\3\4", b"PK\5\6")
KINDS: dict[str, Kind] = {"[": "json", "{": "ndjson"}
"""What the first character of a text file tells."""
TEXT_TABLES: dict[Kind, type[CsvTable | NdjsonTable | ArrayTable]] = {
    "csv": CsvTable,
    "ndjson": NdjsonTable,
    "json": ArrayTable,
}


def open_table(file: BinaryIO, kind: Kind | None, charset: str | None = None) -> Table:
    """Read as much of a file as it takes to know its columns; without a kind, the content decides.

    Raises:
        InvalidFileError: it is damaged, empty, in another charset, or has no header with our columns.
        UnsupportedFileError: it is a spreadsheet of another kind than xlsx, or encrypted.
        FileTooLargeError: it unpacks to too much.

    """
    file.seek(0)
    start = file.read(len(OLE))
    if start == OLE:
        raise UnsupportedFileError(f"The file is encrypted, or a spreadsheet of the old format (.xls); {SAVE_AS}")
    is_archive = start.startswith(ZIPS)
    if is_archive and kind in {"xlsx", None}:
        from litestar_app.transfer.formats.workbooks import WorkbookTable  # noqa: PLC0415  most files are none

        return WorkbookTable(file)
    if is_archive or kind == "xlsx":
        raise InvalidFileError("The file is not what its media type says: a workbook has to be sent as one")
    if not start:
        raise InvalidFileError("The file is empty; expected a header with name, department, cgpa")
    if kind is None:
        kind = KINDS.get(read_first_character(file, charset), "csv")
    return TEXT_TABLES[kind](file, charset)
