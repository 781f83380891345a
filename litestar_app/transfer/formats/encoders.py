"""Encoders: students as CSV, NDJSON and xlsx."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from itertools import chain
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Self, TypeAlias

import msgspec

from litestar_app.exceptions import FileTooLargeError
from litestar_app.resources import LATE_IMPORT
from litestar_app.students.record import STUDENT
from litestar_app.transfer.formats.cells import RISKY, protect
from litestar_app.transfer.formats.tables import COLUMNS

StudentRow: TypeAlias = Sequence[Any]
"""A student as the database gives it: the id and the fields."""
TEXTS = [STUDENT.columns.index(name) for name in STUDENT.texts]

_json = msgspec.json.Encoder()


def encode_csv_header() -> bytes:
    """Return the first line of a CSV file."""
    return f"{','.join(COLUMNS)}\r\n".encode()


def encode_csv(rows: Sequence[StudentRow]) -> bytes:
    """Return lines of a CSV file in UTF-8 (RFC 4180), with no cell that a spreadsheet would run as a formula."""
    text = StringIO(newline="")
    has_blanks = False

    def protect_row(row: StudentRow) -> StudentRow:
        nonlocal has_blanks
        has_blanks = has_blanks or any((row[at] or "")[:1] == " " for at in TEXTS)
        return [protect(value or "") if at in TEXTS else value for at, value in enumerate(row)]

    safe = rows
    if not all(RISKY.isdisjoint({(row[at] or "")[:1] for row in rows}) for at in TEXTS):  # few batches have any
        safe = [protect_row(row) for row in rows]
    # quotes keep the blanks at the beginning of a text of another program, which an import leaves out without them
    csv.writer(text, quoting=csv.QUOTE_NONNUMERIC if has_blanks else csv.QUOTE_MINIMAL).writerows(safe)
    return text.getvalue().encode()


def encode_ndjson(rows: Iterable[StudentRow]) -> bytes:
    """Return lines of JSON."""
    return _json.encode_lines(STUDENT.load_all(rows))


class _Output:
    """The file of a workbook. After an error it keeps no more: the ZipFile completes itself when it is collected."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._has_failed = False
        self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._has_failed = kind is not None

    def write(self, part: bytes) -> int:
        self._position += len(part)
        return len(part) if self._has_failed else self._file.write(part)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset if self._has_failed else self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        if not self._has_failed:
            self._file.flush()


def write_xlsx(batches: Iterable[Sequence[StudentRow]], file: BinaryIO) -> None:
    """Write a workbook with one sheet, text as it is.

    The rows go through a temporary file; the workbook is written when all of them have been read.

    Raises:
        FileTooLargeError: there are more rows than a sheet has, or a text is longer than a cell.
        OSError: the temporary directory is full, missing or not writable.

    """
    with LATE_IMPORT:
        from xlsxwriter import Workbook  # noqa: PLC0415  20 MiB, for those who export a workbook
        from xlsxwriter.exceptions import FileCreateError  # noqa: PLC0415

    options = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
        "nan_inf_to_errors": True,
    }
    with TemporaryDirectory() as directory, _Output(file) as output:
        workbook = Workbook(output, {**options, "tmpdir": directory})
        sheet = workbook.add_worksheet("students")
        sheet.freeze_panes(1, 0)
        sheet.write_row(0, 0, COLUMNS, workbook.add_format({"bold": True}))
        try:
            for line, row in enumerate(chain.from_iterable(batches), 1):
                if sheet.write_row(line, 0, row):
                    raise FileTooLargeError(
                        "An xlsx holds 1,048,575 students and texts of 32,767 characters; export CSV, or filter"
                    )
            workbook.close()
        except FileCreateError as error:  # which has the OSError as its only argument
            raise error.args[0] from error
        finally:
            sheet._opt_close()  # noqa: SLF001  closing the workbook would write what is there as if it were all
