"""Export: the students of a listing as a file, streamed from one snapshot."""

from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from itertools import chain
from tempfile import TemporaryFile
from typing import Any, Literal

from sqlalchemy import Connection, Select

from litestar_app.database import Database
from litestar_app.database.sqlite import decode_any
from litestar_app.records.listing import Listing
from litestar_app.resources import using_temporary_files
from litestar_app.transfer.formats import encode_csv, encode_csv_header, encode_ndjson, write_xlsx

Format = Literal["csv", "ndjson", "xlsx"]

BATCH = 2000
"""Rows that are read and encoded at once: a few milliseconds."""
CHUNK = 64 * 1024
"""Bytes of a finished file that are sent at once."""


def export(database: Database, listing: Listing, kind: Format) -> AsyncGenerator[bytes, None]:
    """Yield the parts of a file with all students that match, in order; `Database.stream` says what it raises."""
    (statement,) = listing.select()
    return database.stream(lambda connection: EXPORTERS[kind](connection, statement))


def _export_csv(connection: Connection, statement: Select[Any]) -> Generator[bytes, None, None]:
    batches = _fetch_batches(connection, statement)
    yield encode_csv_header()
    for rows in batches:
        yield encode_csv(rows)


def _export_ndjson(connection: Connection, statement: Select[Any]) -> Generator[bytes, None, None]:
    for rows in _fetch_batches(connection, statement):
        yield encode_ndjson(rows)


def _export_xlsx(connection: Connection, statement: Select[Any]) -> Generator[bytes, None, None]:
    with using_temporary_files(), TemporaryFile() as file:
        write_xlsx(_fetch_batches(connection, statement), file)
        connection.invalidate()  # the snapshot need not last while the file is sent
        file.seek(0)
        while chunk := file.read(CHUNK):
            yield chunk


EXPORTERS: dict[Format, Callable[[Connection, Select[Any]], Generator[bytes, None, None]]] = {
    "csv": _export_csv,
    "ndjson": _export_ndjson,
    "xlsx": _export_xlsx,
}


def _fetch_batches(connection: Connection, statement: Select[Any]) -> Iterator[Sequence[Any]]:
    """Run one statement, which sees one state of the database however long its rows are read.

    What SQLite holds as a BLOB, as another program can write it, is a text here, decoded as texts are.
    """
    return map(_decode_rows, connection.execution_options(yield_per=BATCH).execute(statement).partitions())


def _decode_rows(rows: Sequence[Any]) -> Sequence[Any]:
    has_bytes = bytes in set(map(type, chain.from_iterable(rows)))
    return [[_decode(value) for value in row] for row in rows] if has_bytes else rows


def _decode(value: object) -> object:
    return decode_any(value) if isinstance(value, bytes) else value
