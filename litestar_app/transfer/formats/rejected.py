"""Rejected rows, as a CSV file to correct and send again."""

import csv
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from typing import BinaryIO

from litestar_app.transfer.formats.tables import ERROR, Row, Table, Unreadable, normalize


def write_rejected(table: Table, errors: Iterable[tuple[int, str]], out: BinaryIO) -> None:
    """Read a table again and write those of its rows that have an error, as they were sent.

    The errors are by row, in order. The rows keep their header, and have one more column `error`.

    Raises:
        InvalidFileError: the rest of the file cannot be read.

    """
    write_rows(table, _match(table, iter(errors)), out)


def write_rows(table: Table, rejected: Iterable[tuple[Row, str]], out: BinaryIO) -> None:
    """Write rows of a table, each with its error; a file of JSON is read once more before the first one.

    Raises:
        InvalidFileError: the rest of the file cannot be read.

    """
    if table.kind in {"json", "ndjson"}:  # whose columns are known when it has been read
        for _ in table:
            pass
    width = len(table.header)
    if normalize(table.header[-1:]) == [ERROR]:
        width -= 1  # of the last time
    text = TextIOWrapper(out, "utf-8-sig", newline="", write_through=True)
    writer = csv.writer(text)
    try:
        writer.writerow([*map(table.format_cell, table.header[:width]), ERROR])
        for (_, cells), error in rejected:
            sent = cells.cells if isinstance(cells, Unreadable) else [table.format_cell(cell) for cell in cells]
            sent += [""] * (width - len(sent))
            stray = sent[len(table.header) :]
            while stray and not stray[-1].strip() and len(sent) <= table.most:
                stray.pop()
            writer.writerow([*sent[:width], error, *stray])
    finally:
        text.detach()  # or it would close the file


def _match(table: Table, errors: Iterator[tuple[int, str]]) -> Iterator[tuple[Row, str]]:
    wrong, error = next(errors, (0, ""))
    for row in table:
        if row[0] == wrong:
            yield row, error
            wrong, error = next(errors, (0, ""))
