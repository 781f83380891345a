"""Rejected rows, as a CSV file to correct and send again."""

import csv
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from typing import Any, BinaryIO

from litestar_app.transfer.formats.tables import ERROR, Table, Unreadable, normalize


def write_rejected(table: Table, errors: Iterable[tuple[int, str]], out: BinaryIO) -> None:
    """Read a table again and write those of its rows that have an error, as they were sent.

    The errors are by row, in order. The rows keep their header, and have one more column `error`.

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
    try:
        _write(table, iter(errors), csv.writer(text), width)
    finally:
        text.detach()  # or it would close the file


def _write(table: Table, errors: Iterator[tuple[int, str]], writer: Any, width: int) -> None:
    writer.writerow([*map(table.format_cell, table.header[:width]), ERROR])
    wrong, error = next(errors, (0, ""))
    for row, cells in table:
        if row == wrong:
            sent = cells.cells if isinstance(cells, Unreadable) else [table.format_cell(cell) for cell in cells]
            sent += [""] * (width - len(sent))
            stray = sent[len(table.header) :]
            while stray and not stray[-1].strip() and len(sent) <= table.most:
                stray.pop()
            writer.writerow([*sent[:width], error, *stray])
            wrong, error = next(errors, (0, ""))
