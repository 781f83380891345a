"""Files and rows: pure functions from the bytes of a file to students and errors, and back."""

from litestar_app.transfer.formats.encoders import encode_csv, encode_csv_header, encode_ndjson, write_xlsx
from litestar_app.transfer.formats.open import open_table
from litestar_app.transfer.formats.rejected import write_rejected, write_rows
from litestar_app.transfer.formats.rows import (
    ALL,
    Batch,
    ImportRow,
    Match,
    RowError,
    SentRow,
    validate,
)
from litestar_app.transfer.formats.tables import Kind, Row, Table

__all__ = [
    "ALL",
    "Batch",
    "ImportRow",
    "Kind",
    "Match",
    "Row",
    "RowError",
    "SentRow",
    "Table",
    "encode_csv",
    "encode_csv_header",
    "encode_ndjson",
    "open_table",
    "validate",
    "write_rejected",
    "write_rows",
    "write_xlsx",
]
