"""Listing: filters, sort and cursor as one select of SQLAlchemy's Core. Pure; the rows are fetched elsewhere."""

import base64
import binascii
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple, Self, cast

import msgspec
from msgspec import Meta, Struct
from sqlalchemy import ColumnElement, LargeBinary, Select, Table, and_, false, func, or_, select
from sqlalchemy import cast as sql_cast

from litestar_app.exceptions import InvalidQueryError
from litestar_app.models import Student
from litestar_app.students.schemas import MAX_ID, StudentRead
from litestar_app.students.texts import MAX_LENGTH, normalize

STUDENTS = cast("Table", Student.__table__)

COLUMNS = ("id", "name", "department", "cgpa")
_NOT_TWICE = "".join(rf"(?!.*\b{column}\b.*\b{column}\b)" for column in COLUMNS)
_SORT_KEY = f"-?({'|'.join(COLUMNS)})"
SORT_PATTERN = f"^{_NOT_TWICE}{_SORT_KEY}(,{_SORT_KEY})*$"
"""Columns, each at most once."""
INDEXED = {
    ("id",),
    ("name", "id"),
    ("department", "id"),
    ("cgpa", "id"),
    ("department", "name", "id"),
    ("department", "cgpa", "id"),
}
"""The orders in which an index gives the rows, forwards or backwards."""
SHORT_PAGE = 1000
"""Rows that a query may pass, skipped ones included, and still be a short one."""
CHECKSUM_BYTES = 6
MAX_NAME = MAX_LENGTH
"""Characters of a name to look for."""


class Filters(Struct, frozen=True, omit_defaults=True):
    """What students must match, all of it. A text matches as given too: another program may have stored it so."""

    department: tuple[str, ...] = ()
    """One of these, exactly; none of them stands for any."""
    name: str | None = None
    """Contained in the name, letters in whatever case."""
    cgpa_min: float | None = None
    cgpa_max: float | None = None

    @property
    def departments(self) -> list[str]:
        """Every form of the departments."""
        return sorted({form for text in self.department for form in (text, normalize(text))})

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions of SQL."""
        conditions = []
        if self.department:
            conditions.append(_is_one_of(STUDENTS.c.department, self.departments))
        if self.name is not None:
            forms = {normalize(self.name), self.name[:MAX_NAME]}
            conditions.append(or_(*(_contains(STUDENTS.c.name, form) for form in sorted(forms))))
        if self.cgpa_min is not None:
            conditions.append(STUDENTS.c.cgpa >= self.cgpa_min)
        if self.cgpa_max is not None:
            conditions.append(STUDENTS.c.cgpa <= self.cgpa_max)
        return conditions


class SortKey(NamedTuple):
    """A column to sort by."""

    column: str
    is_descending: bool = False

    def __str__(self) -> str:
        return f"-{self.column}" if self.is_descending else self.column


BY_ID = (SortKey("id"),)


class Boundary(Struct, frozen=True, array_like=True):
    """The student next to a page: its id and what it is sorted by; what it is not sorted by is None."""

    id: Annotated[int, Meta(ge=-(2**63), le=MAX_ID)]
    name: str | None = None
    department: str | None = None
    cgpa: float | None = None

    @classmethod
    def of(cls, student: StudentRead, sort: Sequence[SortKey]) -> Self:
        """Take what the sort needs of a student."""
        return cls(**{key.column: getattr(student, key.column) for key in sort})


class OpaqueCursor(Struct, frozen=True, array_like=True):
    """Where a page begins, as a text that only this service reads."""

    def encode(self) -> str:
        """Write the cursor as a text for a URL."""
        payload = msgspec.msgpack.encode(self)  # JSON has no infinity, which tables of other programs may hold
        return base64.urlsafe_b64encode(_checksum(payload) + payload).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read a cursor, or raise InvalidQueryError for one that this service did not write."""
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            cursor = msgspec.msgpack.decode(data[CHECKSUM_BYTES:], type=cls)
        except (binascii.Error, ValueError):  # of msgspec, too
            cursor = None
        if cursor is None or _checksum(data[CHECKSUM_BYTES:]) != data[:CHECKSUM_BYTES] or cursor.encode() != text:
            raise InvalidQueryError("query parameter 'cursor': damaged; take it from a Link header as it is")
        return cursor


class Cursor(OpaqueCursor, frozen=True, array_like=True):
    """Where a page begins, with the filters and the sort that it belongs to."""

    filters: Filters
    sort: str
    is_backward: bool
    """Whether the page ends before the boundary; else it begins behind it."""
    boundary: Boundary | None
    """None for the very first page, or backward for the very last."""


def _checksum(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=CHECKSUM_BYTES).digest()


class Listing(Struct, frozen=True, kw_only=True):
    """A page of the students."""

    filters: Filters = Filters()
    sort: tuple[SortKey, ...] = BY_ID
    """Ends with the id, which breaks ties."""
    limit: int = 100
    offset: int = 0
    count: bool = False
    """Whether to count all students that match."""
    is_backward: bool = False
    boundary: Boundary | None = None

    @property
    def is_short(self) -> bool:
        """Tell whether an index leads to the rows, so that the query takes about a millisecond at most."""
        filters = self.filters
        departments = filters.departments
        keys = [key for key in self.sort if key.column != "department" or len(departments) != 1]
        columns = [key.column for key in keys]
        has_range = filters.cgpa_min is not None or filters.cgpa_max is not None
        return (
            self.limit + self.offset <= SHORT_PAGE
            and filters.name is None
            and len(departments) <= 1
            and (not has_range or columns[0] == "cgpa")
            and len({key.is_descending for key in keys}) == 1
            and (*["department"] * len(departments), *columns) in INDEXED
        )

    def turn_around(self) -> Self:
        """Return the listing of what lies on the other side of the boundary."""
        return msgspec.structs.replace(self, is_backward=not self.is_backward, offset=0)

    def make_cursor(self, student: StudentRead | None, *, is_backward: bool) -> Cursor:
        """Make the cursor of the page next to a student, or at an end of the list where there is none."""
        boundary = None if student is None else Boundary.of(student, self.sort)
        return Cursor(self.filters, ",".join(map(str, self.sort)), is_backward, boundary)

    def is_at_boundary(self, student: StudentRead) -> bool:
        """Tell whether a student is the one at the boundary, still in the same place."""
        return Boundary.of(student, self.sort) == self.boundary


def create_listing(  # noqa: PLR0913  the parameters of the route
    *,
    limit: int = 100,
    offset: int | None = None,
    cursor: str | None = None,
    sort: str | None = None,
    count: bool = False,
    department: Sequence[str] = (),
    name: str | None = None,
    cgpa_min: float | None = None,
    cgpa_max: float | None = None,
) -> Listing:
    """Make a listing of query parameters.

    Raises:
        InvalidQueryError: a parameter is impossible, or does not go with another one.

    """
    given = Filters(tuple(sorted(set(department))), name, cgpa_min, cgpa_max)
    keys = BY_ID if sort is None else parse_sort(sort)
    _check_filters(given)
    if cursor is None:
        return Listing(filters=given, sort=keys, limit=limit, offset=offset or 0, count=count)
    position = Cursor.decode(cursor)
    if not _is_possible(position):
        raise InvalidQueryError("query parameter 'cursor': damaged; take it from a Link header as it is")
    if offset is not None:
        raise InvalidQueryError("query parameter 'offset': not possible beside a cursor")
    if sort is not None and keys != parse_sort(position.sort):
        raise InvalidQueryError(f"query parameter 'sort': the cursor belongs to sort={position.sort}")
    for field in Filters.__struct_fields__:
        if (value := getattr(given, field)) not in {None, ()} and value != getattr(position.filters, field):
            raise InvalidQueryError(f"query parameter {field!r}: the cursor belongs to another one; leave it out")
    return Listing(
        filters=position.filters,
        sort=parse_sort(position.sort),
        limit=limit,
        count=count,
        is_backward=position.is_backward,
        boundary=position.boundary,
    )


def _is_possible(cursor: Cursor) -> bool:
    """Tell whether this service may have written a cursor: a filter is finite, and no CGPA is NaN."""
    filters, boundary = cursor.filters, cursor.boundary
    limits = [limit for limit in (filters.cgpa_min, filters.cgpa_max) if limit is not None]
    cgpa = None if boundary is None else boundary.cgpa
    return all(map(math.isfinite, limits)) and not (cgpa is not None and math.isnan(cgpa))


def _check_filters(filters: Filters) -> None:
    name = None if filters.name is None else normalize(filters.name)
    if not all(map(normalize, filters.department)):
        raise InvalidQueryError("query parameter 'department': empty; leave it out")
    if name == "":
        raise InvalidQueryError("query parameter 'name': empty; leave it out")
    if name is not None and len(name) > MAX_NAME:
        raise InvalidQueryError(f"query parameter 'name': expected at most {MAX_NAME} characters")
    for field, texts in (("department", filters.department), ("name", [filters.name or ""])):
        if any("\0" in text for text in texts):  # at which SQLite ends a text in some functions and not in others
            raise InvalidQueryError(f"query parameter {field!r}: NUL is not possible")
    if filters.cgpa_min is not None and filters.cgpa_max is not None and filters.cgpa_min > filters.cgpa_max:
        raise InvalidQueryError(f"query parameter 'cgpa_min': {filters.cgpa_min} is above cgpa_max, {filters.cgpa_max}")


def parse_sort(text: str) -> tuple[SortKey, ...]:
    """Read a comma list of columns, and end it with the id, in the direction of the last one; InvalidQueryError."""
    keys = [SortKey(part.removeprefix("-"), part.startswith("-")) for part in text.split(",")]
    columns = [key.column for key in keys]
    if not re.fullmatch(SORT_PATTERN, text):
        expected = f"expected a list such as department,-cgpa, of {', '.join(COLUMNS)}, each at most once"
        raise InvalidQueryError(f"query parameter 'sort': {expected}, got {text!r}")
    if "id" not in columns:
        keys.append(SortKey("id", keys[-1].is_descending))
        columns.append("id")
    return tuple(keys[: columns.index("id") + 1])  # no two students have the same id


def select_students(listing: Listing) -> Iterator[Select[Any]]:
    """Select the students from where the page begins, the one at its boundary included.

    Each statement goes on where the one before it ends, so that one range of an index is all that it needs; together in
    a UNION they would take five times as long, for SQLAlchemy to write it. Backward, the rows come in opposite order.
    """
    keys = [SortKey(column, is_descending != listing.is_backward) for column, is_descending in listing.sort]
    if len(listing.filters.departments) == 1:  # then it sorts nothing
        keys = [key for key in keys if key.column != "department"]
    order = [STUDENTS.c[column].desc() if is_descending else STUDENTS.c[column].asc() for column, is_descending in keys]
    page = select(STUDENTS).where(*listing.filters.conditions()).order_by(*order)
    if listing.boundary is None:
        yield page.offset(listing.offset)
    else:
        for span in _find_spans(keys, listing.boundary):
            yield page.where(*span)


def select_count(filters: Filters) -> Select[Any]:
    """Select how many students match."""
    return select(func.count()).select_from(STUDENTS).where(*filters.conditions())


def _find_spans(keys: Sequence[SortKey], boundary: Boundary) -> Iterator[list[ColumnElement[bool]]]:
    """Find the ranges of an index that lie behind the boundary, itself included; NULL is the lowest value."""
    for last in reversed(range(len(keys))):
        shared = [_is_equal(STUDENTS.c[key.column], getattr(boundary, key.column)) for key in keys[:last]]
        column, value = STUDENTS.c[keys[last].column], getattr(boundary, keys[last].column)
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
    return false() if value == -math.inf else column < value


def _is_above(column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    if value == -math.inf:
        return column >= -sys.float_info.max
    return false() if value == math.inf else column > value


def _is_one_of(column: ColumnElement[str], texts: Sequence[str]) -> ColumnElement[bool]:
    """Compare with blanks at the end too, which most collations of MySQL leave out."""
    if len(texts) == 1:
        return and_(column == texts[0], column + "|" == f"{texts[0]}|")
    return and_(column.in_(texts), (column + "|").in_([f"{text}|" for text in texts]))


def _contains(column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    """Find a text in whatever case, alike on both databases.

    LIKE is fast, but folds only the letters of ASCII on SQLite. So names with others are matched by an expression that
    names every form of every letter.
    """
    has_others = func.char_length(column) < func.length(sql_cast(column, LargeBinary))
    like = column.icontains("".join(map(_fold, text)), autoescape=True)
    return or_(like, and_(has_others, column.regexp_match("".join(map(_match_any_case, text)))))


def _match_any_case(character: str) -> str:
    forms = _find_forms().get(_fold(character))
    return f"[{forms}]" if forms else re.escape(character)


@cache
def _find_forms() -> dict[str, str]:
    """Find all forms of each letter that has several, by its folded one."""
    forms: defaultdict[str, str] = defaultdict(str)
    for character in map(chr, range(0x1E944)):  # the last letter that has a case, of Adlam, comes before
        if (folded := _fold(character)) != character:
            forms[folded] = (forms[folded] or folded) + character
    return dict(forms)


def _fold(character: str) -> str:
    """Return one form of a letter for all of its forms, as i for a dotless one and for one with a dot."""
    upper = character.upper()
    return (upper if len(upper) == 1 else character).lower()[0]
