"""Tables: a file as numbered rows of cells, whatever its format; the rules of the header."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, ClassVar, Literal, NamedTuple, TypeAlias

from litestar_app.exceptions import InvalidFileError
from litestar_app.records.texts import remove_invisible
from litestar_app.students.record import STUDENT
from litestar_app.transfer.formats.cells import protect

Kind = Literal["csv", "ndjson", "json", "xlsx"]
FIELDS = STUDENT.fields
REQUIRED = STUDENT.required
COLUMNS = STUDENT.columns
PERHAPS = ", ".join(name for name in COLUMNS if name not in REQUIRED)
ERROR = "error"
"""The column of rejected rows that says why."""
HEADER_ROWS = 20
"""Rows that are not blank, of which one must be the header."""
SAVE_AS = "save it as .xlsx (Excel workbook) or as CSV UTF-8, without a password"
MAX_COLUMNS = 1000
"""Each costs time in every row, however short the row is."""
MAX_GAPS = 100
"""Columns without a name: each is looked at in every row."""
SHOWN = 100
"""Characters of a value that a message repeats."""


class Unreadable(NamedTuple):
    """What stands for the cells of a row that cannot be split into cells."""

    value: str
    detail: str
    cells: list[str]
    """What to send again, once it is corrected."""


class NoValue(NamedTuple):
    """What stands for a cell of a workbook that has no value: what the sheet shows, and what to do about it."""

    shown: str
    detail: str = ""

    def __str__(self) -> str:
        return self.shown


Cells: TypeAlias = list[Any]
Row: TypeAlias = tuple[int, Cells | Unreadable]


class Table(ABC):
    """A file as rows of cells; it can be read several times.

    Attributes:
        header: the names of the columns as sent; of JSON, what the rows read so far have.
        columns: which of our columns is at which position of a row's cells.
        ignored_columns: the names of the others, in order.
        ignored_sheets: the names of the sheets of a workbook that have rows and are not read.
        width: the number of cells that belong to a column.
        most: cells that a row may have, filled or not.
        gaps: positions right of a named column whose column has no name.
        blank: how many blank rows have been skipped so far, above the header too.
        above_header: how many other rows stand above the header.
        row: the number of the row last read, as a spreadsheet shows it (blank rows count, line breaks in a cell do
            not); of JSON the position, of NDJSON the line, from 1.

    """

    kind: ClassVar[Kind]

    def __init__(self, file: BinaryIO) -> None:
        """Take a file that can be read from any position and stays open as long as the table is used."""
        self._file = file
        self.header: list[str] = []
        self.columns: dict[str, int] = {}
        self.ignored_columns: list[str] = []
        self.ignored_sheets: list[str] = []
        self.width = 0
        self.most = sys.maxsize
        self.gaps: list[int] = []
        self._unnamed: list[int] = []
        self.blank = 0
        self.above_header = 0
        self.row = 0

    def __iter__(self) -> Iterator[Row]:
        """Read the file from its beginning; the rows that are not blank, without the header.

        Raises:
            InvalidFileError: the rest of the file cannot be read.

        """
        self.blank = self.row = 0
        return self._read()

    @abstractmethod
    def _read(self) -> Iterator[Row]: ...

    @abstractmethod
    def show(self, cell: Any) -> str:
        """Write a cell as its file has it."""

    def format_cell(self, cell: Any) -> str:
        """Write a cell for a CSV file from which it is read as the same value, and safe in a spreadsheet."""
        return protect(cell) if isinstance(cell, str) else self.show(cell)

    def find_stray(self, cells: Cells) -> str:
        """Return the text of the first filled cell that belongs to no column, or ""."""
        strays = (cells[position] for position in (*self.gaps, *range(self.width, len(cells))))
        return next(filter(str.strip, map(self.show, strays)), "")

    def has_split(self, _cells: Cells) -> bool:
        """Tell whether a row may have more cells for a number with a decimal comma that stands in two of them."""
        return False

    def ignore_id(self) -> None:
        """Treat the ids as a column that is not ours."""
        if self.columns.pop("id", None) is not None:
            self._find_ignored()

    def _set_header(self, header: list[str]) -> None:
        """Find our columns.

        Raises:
            InvalidFileError: some are missing, or one is there twice.

        """
        for position, name in enumerate(normalize(header)):
            if name in COLUMNS and self.columns.setdefault(name, position) != position:
                raise InvalidFileError(f"The column {name} is there twice; remove or rename one of them")
        if "id" not in self.columns and (missing := [name for name in REQUIRED if name not in self.columns]):
            raise InvalidFileError(
                f"Row {self.row} is not a header with the columns {', '.join(REQUIRED)} and perhaps {PERHAPS}: "
                f"it lacks {', '.join(missing)} and has {_quote(header)}. "
                f"The header must be one of the first {HEADER_ROWS} rows"
            )
        names = [position for position, name in enumerate(header) if name.strip()]
        self.width = names[-1] + 1
        self.header = header[: self.width]
        if self.width > MAX_COLUMNS:
            raise InvalidFileError(
                f"The header has more than {MAX_COLUMNS:,} columns; remove those that are not needed"
            )
        self.gaps = sorted(set(range(names[0], self.width)) - set(names))
        if len(self.gaps) > MAX_GAPS:
            raise InvalidFileError(f"The header has more than {MAX_GAPS} columns without a name; name or remove them")
        self._find_ignored()

    def _find_ignored(self) -> None:
        known = {*self.columns.values(), *self.gaps}
        names = {position: name for position, name in enumerate(self.header) if position not in known}
        self._unnamed = [position for position, name in names.items() if not name.strip()]
        self.ignored_columns = [name for name in names.values() if name.strip()]

    def _name_filled(self, cells: Cells) -> None:
        """Report a column left of the named ones once it holds something: programs number their rows there."""
        for position in [position for position in self._unnamed if self.show(cells[position]).strip()]:
            self._unnamed.remove(position)
            self.ignored_columns.append(f"column {position + 1}")


def is_header(cells: Iterable[str]) -> bool:
    """Tell whether a row names our columns: those of a new student, or the id and another one."""
    names = {*COLUMNS}.intersection(normalize(cells))
    return names.issuperset(REQUIRED) or ("id" in names and len(names) > 1)


def find_header(rows: Iterable[tuple[int, Sequence[str]]]) -> tuple[int, Sequence[str], int]:
    """Find the header among the rows that are not blank: its number, its cells, and how many stand above it.

    Where there is none, it is the row that names most of our columns, for the message. Zero and nothing for no row.
    """
    best: tuple[int, Sequence[str], int] = (0, (), 0)
    most = -1
    for above, (row, cells) in enumerate(islice(rows, HEADER_ROWS)):
        if is_header(cells):
            return row, cells, above
        if (count := len({*COLUMNS}.intersection(normalize(cells)))) > most:
            most, best = count, (row, cells, above)
    return best


def normalize(header: Iterable[str]) -> list[str]:
    """Return the names of columns as they are compared."""
    return [remove_invisible(name).lower() for name in header]


def _quote(cells: Sequence[str]) -> str:
    text = ", ".join(f"“{cell}”" for cell in cells if cell.strip())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
