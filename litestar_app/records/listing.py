"""Listing: filters, sort and cursor as one select of SQLAlchemy's Core. Pure; the rows are fetched elsewhere."""

import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Generic, NamedTuple, Self, TypeVar

import msgspec
from litestar.params import QueryParameter
from msgspec import Meta, Struct
from sqlalchemy import ColumnElement, Select, false, func, literal, select

from litestar_app.exceptions import InvalidQueryError
from litestar_app.records.cursors import DAMAGED, OpaqueCursor
from litestar_app.records.fields import MAX_ID
from litestar_app.records.filters import Contained, Filter, Highest, Lowest, OneOf
from litestar_app.records.record import Record

R = TypeVar("R", bound=Struct)

SHORT_PAGE = 1000
"""Rows that a query may pass, skipped ones included, and still be a short one."""

CursorText = Annotated[
    str | None, QueryParameter(description="where the page begins, from a Link; it keeps the filters and the sort")
]


class SortKey(NamedTuple):
    """A column to sort by."""

    column: str
    is_descending: bool = False

    def __str__(self) -> str:
        return f"-{self.column}" if self.is_descending else self.column


BY_ID = (SortKey("id"),)


class Boundary(Struct, frozen=True, array_like=True):
    """The record next to a page: its id and what it is sorted by; what it is not sorted by is None.

    A subclass has the fields of the record.
    """

    id: Annotated[int, Meta(ge=-(2**63), le=MAX_ID)]


class Listing(Struct, frozen=True, kw_only=True):
    """A page of the records."""

    rules: "Listings[Any]"
    filters: Any
    """The parameters of the filters, as fields; a default filters nothing."""
    sort: tuple[SortKey, ...] = BY_ID
    """Ends with the id, which breaks ties."""
    limit: int = 100
    offset: int = 0
    count: bool = False
    """Whether to count all records that match."""
    is_backward: bool = False
    boundary: Any = None

    @property
    def is_plain(self) -> bool:
        """Tell whether it is forwards without a filter in id order, as most are."""
        return self.sort == BY_ID and not self.is_backward and self.filters == self.rules.nothing

    @property
    def is_short(self) -> bool:
        """Tell whether an index leads to the rows, so that the query takes about a millisecond at most."""
        if self.limit + self.offset > SHORT_PAGE:
            return False
        fixed = self.rules.find_fixed(self.filters)
        keys = [key for key in self.sort if key.column not in fixed]
        columns = tuple(key.column for key in keys)
        for given, _ in self.rules.find_given(self.filters):
            if isinstance(given, Contained) or (isinstance(given, OneOf) and given.name not in fixed):
                return False
            if isinstance(given, (Lowest, Highest)) and columns[0] != given.column.name:
                return False
        return len({key.is_descending for key in keys}) == 1 and (fixed, columns) in self.rules.orders

    def turn_around(self) -> Self:
        """Return the listing of what lies on the other side of the boundary."""
        return msgspec.structs.replace(self, is_backward=not self.is_backward, offset=0)

    def make_cursor(self, record: Struct | None, *, is_backward: bool) -> OpaqueCursor:
        """Make the cursor of the page next to a record, or at an end of the list without one."""
        boundary = None if record is None else self.rules.make_boundary(record, self.sort)
        cursor: OpaqueCursor = self.rules.cursor_type(
            self.filters, ",".join(map(str, self.sort)), is_backward, boundary
        )
        return cursor

    def is_at_boundary(self, record: Struct) -> bool:
        """Tell whether a record is the one at the boundary, still in the same place."""
        return bool(self.rules.make_boundary(record, self.sort) == self.boundary)

    def select(self) -> Iterator[Select[Any]]:
        """Select the records from where the page begins, the one at its boundary included.

        Each statement goes on where the one before it ends, so that one range of an index is all that it needs;
        together in a UNION they would take five times as long, for SQLAlchemy to write it. Backward, the rows come in
        opposite order.
        """
        columns = self.rules.record.table.c
        fixed = self.rules.find_fixed(self.filters)  # these sort nothing
        keys = [
            SortKey(column, is_descending != self.is_backward)
            for column, is_descending in self.sort
            if column not in fixed
        ]
        order = [columns[name].desc() if is_descending else columns[name].asc() for name, is_descending in keys]
        page = select(self.rules.record.table).where(*self._make_conditions()).order_by(*order)
        if self.boundary is None:
            yield page.offset(self.offset)
        else:
            for span in _find_spans(columns, keys, self.boundary):
                yield page.where(*span)

    def select_count(self) -> Select[Any]:
        """Select how many records match."""
        return select(func.count()).select_from(self.rules.record.table).where(*self._make_conditions())

    def _make_conditions(self) -> list[ColumnElement[bool]]:
        return [given.make_condition(value) for given, value in self.rules.find_given(self.filters)]


class Listings(Generic[R]):
    """How the records of one kind are listed: their filters, their sort and their cursors."""

    def __init__(self, record: Record[R]) -> None:
        """Take the declaration, whose indexes say which orders are fast."""
        columns = record.table.c
        self.record = record
        fields = {field.name: field for field in record.fields}
        self.filters: list[Filter] = [
            made for name, make in record.filters.items() for made in make(fields[name], columns[name])
        ]
        # structs of these fields, since cursors hold them
        self.filters_type: Any = msgspec.defstruct(
            "Filters", [(one.name, one.kind, one.default) for one in self.filters], frozen=True, omit_defaults=True
        )
        self.nothing = self.filters_type()
        self.boundary_type: Any = msgspec.defstruct(
            "Boundary",
            [(field.name, field.kind | None, None) for field in record.fields],
            bases=(Boundary,),
            frozen=True,
            array_like=True,
        )
        self.cursor_type: Any = msgspec.defstruct(
            "Cursor",
            [
                ("filters", self.filters_type),
                ("sort", str),
                ("is_backward", bool),
                ("boundary", self.boundary_type | None),
            ],
            bases=(OpaqueCursor,),
            frozen=True,
            array_like=True,
        )
        """Where a page begins, with the filters and the sort that it belongs to.

        It begins behind the boundary, or ends before it if backward; without one it is the first page or the last.
        """
        indexes = [(), *(tuple(index.columns.keys()) for index in record.table.indexes)]
        self.orders = {
            (frozenset(index[:fixed]), (*index[fixed:], "id")) for index in indexes for fixed in range(len(index) + 1)
        }
        """Columns of one value, and the columns whose order an index gives then, forwards or backwards."""
        key = f"-?({'|'.join(record.columns)})"
        once = "".join(rf"(?!.*\b{column}\b.*\b{column}\b)" for column in record.columns)
        self.sort_pattern = f"^{once}{key}(,{key})*$"
        """Columns, each at most once."""
        self._example = ",-".join(record.names[1:3] if len(record.names) > 2 else (record.names[0], "id"))  # noqa: PLR2004
        sort = Annotated[
            str | None,
            QueryParameter(
                description="columns, each at most once, with - before one for descending; the id breaks ties",
                schema_extra={"pattern": self.sort_pattern, "examples": [self._example]},
            ),
        ]
        self.query: Mapping[str, tuple[Any, Any]] = {
            "sort": (sort, None),
            **{one.name: (one.annotation, one.default) for one in self.filters},
        }
        """The query parameters of what is listed, in which order: the annotation and the default of each."""
        many = record.table.name
        limit = QueryParameter(ge=1, le=1000, description=f"how many {many} at most")
        offset = QueryParameter(
            ge=0,
            le=2**53 - 1,
            description=f"how many {many} to skip; not beside a cursor",
            schema_extra={"minimum": 0},  # without a default, which generated clients would send beside a cursor
        )
        count = QueryParameter(description=f"whether X-Total-Count tells how many {many} match")
        self.page_query: Mapping[str, tuple[Any, Any]] = {
            "limit": (Annotated[int, limit], 100),
            "offset": (Annotated[int | None, offset], None),
            "cursor": (CursorText, None),
            **self.query,
            "count": (Annotated[bool, count], False),
        }
        """The query parameters of a page."""

    def create(
        self,
        *,
        limit: int = 100,
        offset: int | None = None,
        cursor: str | None = None,
        sort: str | None = None,
        count: bool = False,
        **filters: Any,
    ) -> Listing:
        """Make a listing of query parameters.

        Raises:
            InvalidQueryError: a parameter is impossible, or does not go with another one.

        """
        given = self._read_filters(filters)
        keys = BY_ID if sort is None else self.parse_sort(sort)
        if cursor is None:
            return Listing(rules=self, filters=given, sort=keys, limit=limit, offset=offset or 0, count=count)
        position = self.cursor_type.decode(cursor)
        if not _is_possible(position):
            raise InvalidQueryError(DAMAGED)
        if offset is not None:
            raise InvalidQueryError("query parameter 'offset': not possible beside a cursor")
        if sort is not None and keys != self.parse_sort(position.sort):
            raise InvalidQueryError(f"query parameter 'sort': the cursor belongs to sort={position.sort}")
        for one, value in self.find_given(given):
            if value != getattr(position.filters, one.name):
                raise InvalidQueryError(
                    f"query parameter {one.name!r}: the cursor belongs to another one; leave it out"
                )
        return Listing(
            rules=self,
            filters=position.filters,
            sort=self.parse_sort(position.sort),
            limit=limit,
            count=count,
            is_backward=position.is_backward,
            boundary=position.boundary,
        )

    def parse_sort(self, text: str) -> tuple[SortKey, ...]:
        """Read a list of columns, and end it with the id, in the direction of the last one; InvalidQueryError."""
        keys = [SortKey(part.removeprefix("-"), part.startswith("-")) for part in text.split(",")]
        columns = [key.column for key in keys]
        if not re.fullmatch(self.sort_pattern, text):
            expected = f"a list such as {self._example}, of {', '.join(self.record.columns)}, each at most once"
            raise InvalidQueryError(f"query parameter 'sort': expected {expected}, got {text!r}")
        if "id" not in columns:
            keys.append(SortKey("id", keys[-1].is_descending))
            columns.append("id")
        return tuple(keys[: columns.index("id") + 1])  # no two records have the same id

    def find_given(self, filters: Any) -> list[tuple[Filter, Any]]:
        """Return the filters that have a value, and the value."""
        if filters is self.nothing:
            return []
        found = [(one, getattr(filters, one.name)) for one in self.filters]
        return [(one, value) for one, value in found if value != one.default]

    def find_fixed(self, filters: Any) -> frozenset[str]:
        """Return the columns that have one value in all records which match."""
        given = self.find_given(filters)
        return frozenset(
            one.column.name for one, value in given if isinstance(one, OneOf) and len(one.find_forms(value)) == 1
        )

    def make_boundary(self, record: Struct, sort: Sequence[SortKey]) -> Any:
        """Take what the sort needs of a record."""
        return self.boundary_type(**{key.column: getattr(record, key.column) for key in sort})

    def _read_filters(self, values: Mapping[str, Any]) -> Any:
        lists = {name: tuple(sorted(set(value))) for name, value in values.items() if isinstance(value, (list, tuple))}
        filters = self.filters_type(**{**values, **lists})
        if filters == self.nothing:
            return self.nothing
        for one, value in self.find_given(filters):
            if fault := one.find_fault(value):
                raise InvalidQueryError(f"query parameter {one.name!r}: {fault}")
        for low, high in zip(self.filters, self.filters[1:], strict=False):
            if isinstance(low, Lowest) and isinstance(high, Highest):
                least, most = getattr(filters, low.name), getattr(filters, high.name)
                if least is not None and most is not None and least > most:
                    raise InvalidQueryError(f"query parameter {low.name!r}: {least} is above {high.name}, {most}")
        return filters


def _is_possible(cursor: Any) -> bool:
    """Tell whether this service may have written a cursor: a filter is finite, and no number is NaN."""
    limits = [value for value in msgspec.structs.astuple(cursor.filters) if isinstance(value, float)]
    boundary = () if cursor.boundary is None else msgspec.structs.astuple(cursor.boundary)
    numbers = [value for value in boundary if isinstance(value, float)]
    return all(map(math.isfinite, limits)) and not any(map(math.isnan, numbers))


def _find_spans(columns: Any, keys: Sequence[SortKey], boundary: Boundary) -> Iterator[list[ColumnElement[bool]]]:
    """Find the ranges of an index that lie behind the boundary, itself included; NULL is the lowest value."""
    for last in reversed(range(len(keys))):
        shared = [_is_equal(columns[key.column], getattr(boundary, key.column)) for key in keys[:last]]
        column, value = columns[keys[last].column], getattr(boundary, keys[last].column)
        is_descending = keys[last].is_descending
        if column.name == "id":
            yield [*shared, column <= value if is_descending else column >= value]
        elif value is None and not is_descending:
            yield [*shared, column.is_not(None)]
        elif value is not None:
            yield [*shared, _is_below(column, value) if is_descending else _is_above(column, value)]
            if is_descending:
                yield [*shared, column.is_(None)]


def _is_equal(column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    """Compare without naming an infinity, which MySQL does not have and SQLite has no literal for."""
    if value == math.inf:
        return column > sys.float_info.max
    return column < -sys.float_info.max if value == -math.inf else column == value


def _is_below(column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    if value == math.inf:
        return column <= sys.float_info.max
    return false() if value == -math.inf else column < _bind(value)


def _is_above(column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    if value == -math.inf:
        return column >= -sys.float_info.max
    return false() if value == math.inf else column > _bind(value)


def _bind(value: Any) -> Any:
    """Return a value that SQLAlchemy compares by order, which it refuses for a constant true or false."""
    return literal(value) if isinstance(value, bool) else value
