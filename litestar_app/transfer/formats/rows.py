"""Rows: which of a table can be imported, and every problem of the others."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from msgspec import UNSET

from litestar_app.exceptions import InvalidFileError
from litestar_app.transfer.formats.readers import INVALID, RULES, Reader, make_readers
from litestar_app.transfer.formats.tables import COLUMNS, REQUIRED, SHOWN, Cells, NoValue, Row, Table, Unreadable

Match = Literal["id", "none", "name,department"]

NAME: Final = 1
DEPARTMENT: Final = 2
CGPA: Final = 4
BITS: Final = (NAME, DEPARTMENT, CGPA)
ALL: Final = NAME | DEPARTMENT | CGPA
BATCH = 1000
"""Rows and errors that are handed on at once."""
EXPECTED = {name: f"expected {rule}" for name, rule in RULES.items()}
MISSING = {name: f"missing; expected {RULES[name]}" for name in REQUIRED}
SURPLUS = "more cells than the header has; a decimal comma needs quotes around the number, or ; between the cells"
STRAY = "expected nothing in a column that has no name in the header"

ImportRow: TypeAlias = tuple[int, int | None, str | None, str | None, float | None, int, int]
"""Row number, id, name, department, cgpa; which of the three have a value; which have a cell, but an empty one. The
last two are sums of NAME, DEPARTMENT and CGPA. A plain tuple, for executemany."""


class RowError(NamedTuple):
    """One problem of one row."""

    row: int
    column: str | None
    value: str
    detail: str


class Batch(NamedTuple):
    """The next rows of a table, and the problems of those that are not among them."""

    rows: list[ImportRow]
    errors: list[RowError]


def validate(table: Table, match: Match, sent: Iterable[Row] | None = None, batch: int = BATCH) -> Iterator[Batch]:
    """Read a table, or some of its rows, and tell good rows from bad ones, about as many at a time as a batch has.

    A row with an id to match may lack columns and have empty cells: the stored row tells whether that is right.

    Raises:
        InvalidFileError: the rest of the file cannot be read, or the header lacks a column that every row needs.

    """
    if match != "id":
        table.ignore_id()
        if missing := [name for name in REQUIRED if name not in table.columns]:
            raise InvalidFileError(
                f"match={match} needs a column for each of {', '.join(REQUIRED)}; {missing[0]} is missing"
            )
    rows: list[ImportRow] = []
    errors: list[RowError] = []
    layout = _Layout(table)
    (at_id, read_id), (at_name, read_name), (at_department, read_department), (at_cgpa, read_cgpa) = layout.columns
    width, has_gaps = table.width, bool(table.gaps)
    for row, cells in table if sent is None else sent:
        if len(rows) + len(errors) >= batch:
            yield Batch(rows, errors)
            rows, errors = [], []
        if isinstance(cells, Unreadable):
            errors.append(RowError(row, None, cells.value[:SHOWN], cells.detail))
            continue
        student_id = read_id(cells[at_id])
        name = read_name(cells[at_name])
        department = read_department(cells[at_department])
        cgpa = read_cgpa(cells[at_cgpa])
        if (  # most rows are like this, and the classes tell so with the least work
            name.__class__ is str
            and department.__class__ is str
            and cgpa.__class__ is float
            and student_id is not INVALID
            and len(cells) <= width
            and not has_gaps
        ):
            rows.append((row, student_id, name, department, cgpa, ALL, 0))
        elif problems := layout.find_problems(row, cells, student_id, fields := (name, department, cgpa)):
            errors += problems
        else:
            given = sum(
                bit for bit, value in zip(BITS, fields, strict=True) if value is not None and value is not UNSET
            )
            empty = sum(bit for bit, value in zip(BITS, fields, strict=True) if value is None)
            name, department, cgpa = (None if value is UNSET else value for value in fields)
            rows.append((row, student_id, name, department, cgpa, given, empty))
    if rows or errors:
        yield Batch(rows, errors)


class _Layout:
    """Where the cells of a table are, and what reads them."""

    def __init__(self, table: Table) -> None:
        self._table = table
        readers = make_readers(table.kind)
        self.columns: list[tuple[int, Reader]] = [
            (table.columns[name], readers[name])
            if name in table.columns
            else (0, _read_no_id if name == "id" else _read_no_cell)
            for name in COLUMNS
        ]

    def find_problems(self, row: int, cells: Cells, student_id: Any, fields: Sequence[Any]) -> list[RowError]:
        """Tell which rules a row breaks."""
        shown = [self._table.show(cells[at])[:SHOWN] for at, _ in self.columns]
        problems = []
        if stray := self._table.find_stray(cells):
            problems.append(RowError(row, None, stray[:SHOWN], STRAY))
        elif len(cells) > self._table.most:
            problems.append(RowError(row, None, "", SURPLUS))
        if student_id is INVALID:
            problems.append(RowError(row, "id", shown[0], self._explain("id", cells)))
        for name, value, text in zip(REQUIRED, fields, shown[1:], strict=True):
            if value is INVALID or (value is None and student_id is None):
                problems.append(RowError(row, name, text, self._explain(name, cells)))
            elif value is UNSET and student_id is None:
                problems.append(RowError(row, name, "", MISSING[name]))
        return problems

    def _explain(self, name: str, cells: Cells) -> str:
        cell = cells[self._table.columns[name]]
        return (isinstance(cell, NoValue) and cell.detail) or EXPECTED[name]


def _read_no_id(_cell: object) -> None:
    return None


def _read_no_cell(_cell: object) -> Any:
    return UNSET
