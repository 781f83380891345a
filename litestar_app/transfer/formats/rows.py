"""Rows: which of a table can be imported, and every problem of the others."""

from collections.abc import Iterable, Iterator, Sequence
from operator import call, itemgetter
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from msgspec import UNSET

from litestar_app.exceptions import InvalidFileError
from litestar_app.records.fields import Field
from litestar_app.transfer.formats.readers import INVALID, RULES, Reader, Sent, make_readers
from litestar_app.transfer.formats.tables import (
    COLUMNS,
    FIELDS,
    REQUIRED,
    SHOWN,
    Cells,
    NoValue,
    Row,
    Table,
    Unreadable,
)

Match = Literal["id", "none", "name,department"]

BITS: Final = tuple(1 << number for number in range(len(FIELDS)))
"""A bit for each field, in the order of the columns."""
ALL: Final = sum(BITS)
BATCH = 1000
"""Rows and errors that are handed on at once."""
KINDS = [field.kind for field in FIELDS]
"""The classes of the values of most rows."""
EXPECTED = {name: f"expected {rule}" for name, rule in RULES.items()}
EMPTY = {name: f"empty; expected {rule}" for name, rule in RULES.items()}
MISSING = {name: f"missing; expected {RULES[name]}" for name in REQUIRED}
SPLIT = "more cells than the header has; a decimal comma needs quotes around the number, or ; between the cells"
SURPLUS = "more cells than the header has; remove the last ones, which are empty"
STRAY = "expected nothing in a column that has no name in the header"

ImportRow: TypeAlias = tuple[Any, ...]
"""Row number, id, the values of the fields; which of them are given; which required ones have a cell, but an empty one.
The last two are sums of BITS. A plain tuple, for executemany."""


class RowError(NamedTuple):
    """One problem of one row."""

    row: int
    column: str | None
    value: str
    detail: str


class SentRow(NamedTuple):
    """A row of which some cells are not as this service stores them; of a stored student they may be right."""

    row: ImportRow
    texts: list[str | None]
    """Each text as it was sent, if it is another one normalised, or breaks a rule."""
    invalid: int
    """Which cells break a rule: right where that is what is stored. A sum of BITS."""
    errors: list[RowError]
    """What is wrong with those."""


class Batch(NamedTuple):
    """The next rows of a table, and the problems of those that are not among them."""

    rows: list[ImportRow]
    sent: list[SentRow]
    errors: list[RowError]


def validate(table: Table, match: Match, sent: Iterable[Row] | None = None, size: int = BATCH) -> Iterator[Batch]:
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
    batch = Batch([], [], [])
    layout = _Layout(table)
    readers, places = [read for _, read in layout.columns], itemgetter(*(at for at, _ in layout.columns))
    width, has_gaps, rows, errors = table.width, bool(table.gaps), batch.rows, batch.errors
    for row, cells in table if sent is None else sent:
        if len(rows) + len(batch.sent) + len(errors) >= size:
            yield batch
            batch = Batch([], [], [])
            rows, errors = batch.rows, batch.errors
        if isinstance(cells, Unreadable):
            errors.append(RowError(row, None, cells.value[:SHOWN], cells.detail))
            continue
        student_id, *fields = map(call, readers, places(cells))
        if (  # most rows are like this, and the classes tell so with the least work
            list(map(type, fields)) == KINDS and student_id is not INVALID and len(cells) <= width and not has_gaps
        ):
            rows.append((row, student_id, *fields, ALL, 0))
            continue
        problems = layout.find_problems(row, cells, student_id, fields)
        faults = layout.find_faults(row, cells, fields)
        may_be_stored = match == "name,department" or (match == "id" and student_id is not None)
        if problems or (faults and not may_be_stored):
            errors += sorted(problems + faults, key=_get_position)
        elif may_be_stored and any(isinstance(value, Sent) for value in fields):
            batch.sent.append(_make_sent_row(row, student_id, fields, faults))
        else:
            rows.append(_make_row(row, student_id, fields))
    if rows or batch.sent or errors:
        yield batch


def _make_row(row: int, student_id: int | None, fields: Sequence[Any]) -> ImportRow:
    given = emptied = 0
    for bit, field, value in zip(BITS, FIELDS, fields, strict=True):
        if value is not UNSET and (value is not None or field.is_optional):
            given |= bit
        elif value is None:
            emptied |= bit
    return row, student_id, *map(_get_value, FIELDS, fields), given, emptied


def _get_value(field: Field, value: Any) -> Any:
    if isinstance(value, Sent):  # a number beyond the rule is compared as one
        return value.value if field.kind is str else value.sent
    return None if value is UNSET else value


def _make_sent_row(row: int, student_id: int | None, fields: Sequence[Any], faults: list[RowError]) -> SentRow:
    texts: list[Any] = [
        value.sent if isinstance(value, Sent) else None
        for field, value in zip(FIELDS, fields, strict=True)
        if field.kind is str
    ]
    invalid = sum(bit for bit, value in zip(BITS, fields, strict=True) if isinstance(value, Sent) and value.fault)
    return SentRow(_make_row(row, student_id, fields), texts, invalid, faults)


def _get_position(error: RowError) -> int:
    return -1 if error.column is None else COLUMNS.index(error.column)


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
        """Tell which rules a row breaks, whatever is stored."""
        shown = [self._table.show(cells[at])[:SHOWN] for at, _ in self.columns]
        problems = []
        stray = self._table.find_stray(cells)
        if stray or len(cells) > self._table.most:
            detail = SPLIT if self._table.has_split(cells) else STRAY if stray else SURPLUS
            problems.append(RowError(row, None, stray[:SHOWN], detail))
        if student_id is INVALID:
            problems.append(RowError(row, "id", shown[0], self._explain("id", cells)))
        for field, value, text in zip(FIELDS, fields, shown[1:], strict=True):
            name = field.name
            if value is INVALID:
                problems.append(RowError(row, name, text, self._explain(name, cells)))
            elif student_id is not None or field.is_optional:
                continue
            elif value is None:
                problems.append(RowError(row, name, text, EMPTY[name]))
            elif value is UNSET:
                problems.append(RowError(row, name, "", MISSING[name]))
        return problems

    def find_faults(self, row: int, cells: Cells, fields: Sequence[Any]) -> list[RowError]:
        """Tell which cells break a rule, unless that is what is stored."""
        return [
            RowError(row, name, self._table.show(cells[at])[:SHOWN], value.fault)
            for (at, _), name, value in zip(self.columns[1:], COLUMNS[1:], fields, strict=True)
            if isinstance(value, Sent) and value.fault
        ]

    def _explain(self, name: str, cells: Cells) -> str:
        cell = cells[self._table.columns[name]]
        return (isinstance(cell, NoValue) and cell.detail) or EXPECTED[name]


def _read_no_id(_cell: object) -> None:
    return None


def _read_no_cell(_cell: object) -> Any:
    return UNSET
