"""Opening: which kind of table a file is."""

from typing import BinaryIO

from litestar_app.exceptions import InvalidFileError
from litestar_app.resources import LATE_IMPORT
from litestar_app.transfer.formats.kinds import reject_other_kinds
from litestar_app.transfer.formats.tables import REQUIRED, Kind, Table
from litestar_app.transfer.formats.text import ArrayTable, CsvTable, NdjsonTable, read_first_character

ZIPS = (b"PK\3\4", b"PK\5\6", b"PK00PK\3\4")
KINDS: dict[str, Kind] = {"[": "json", "{": "ndjson"}
"""What the first character of a text file tells."""
NAMES: dict[Kind, str] = {"csv": "CSV", "ndjson": "NDJSON", "json": "JSON"}
TEXT_TABLES: dict[Kind, type[CsvTable | NdjsonTable | ArrayTable]] = {
    "csv": CsvTable,
    "ndjson": NdjsonTable,
    "json": ArrayTable,
}


def open_table(file: BinaryIO, kind: Kind | None, charset: str | None = None) -> Table:
    """Read as much of a file as it takes to know its columns; without a kind, the content decides.

    Raises:
        InvalidFileError: it is damaged, empty, in another charset, or has no header with our columns.
        UnsupportedFileError: it is of a kind that is not read, whatever it was sent as.
        FileTooLargeError: it unpacks to too much.

    """
    file.seek(0)
    start = file.read(max(map(len, ZIPS)))
    if start.startswith(ZIPS):
        with LATE_IMPORT:
            from litestar_app.transfer.formats.workbooks import WorkbookTable  # noqa: PLC0415  most files are none

        table = WorkbookTable(file)
        if kind is not None and kind != "xlsx":
            raise InvalidFileError(
                f"The file is an Excel workbook (.xlsx), but it was sent as {NAMES[kind]}; send it as what it is"
            )
        return table
    if not start:
        raise InvalidFileError(f"The file is empty; expected a header with {', '.join(REQUIRED)}")
    reject_other_kinds(file)
    if kind == "xlsx":
        name = NAMES[KINDS.get(read_first_character(file, charset), "csv")]
        raise InvalidFileError(
            f"The file was sent as an Excel workbook (.xlsx), but it is none; if it is {name}, as it seems, "
            "send it as that"
        )
    if kind is None:
        kind = KINDS.get(read_first_character(file, charset), "csv")
    return TEXT_TABLES[kind](file, charset)
