"""Readers: a cell of CSV, JSON or xlsx as a value, by the rule of the student's own field."""

import math
import re
from collections.abc import Callable
from datetime import date, datetime, time
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET

from litestar_app.http.validation import describe, find_rules
from litestar_app.records.fields import MAX_ID, Field
from litestar_app.records.filters import equals, find_bounds, find_metas
from litestar_app.records.texts import MAX_LENGTH, find_fault, is_normal, is_plain, normalize
from litestar_app.students.record import STUDENT
from litestar_app.transfer.formats.cells import INTEGER, NUMBER, format_number, unprotect
from litestar_app.transfer.formats.tables import Kind

MAX_EXACT = 2**53 - 1
"""Up to which every integer is a double of its own: numbers in an xlsx are doubles."""
CACHED = 10_000
"""Different cells of a column of which the values are remembered."""

MAX_DOUBLE = 1.7976931348623157e308
INFINITE = {"inf", "-inf"}
"""What an export of a table of another program may have for a CGPA."""

RULES = {
    "id": "an integer, the id of a student, or an empty cell",
    **{field.name: describe(field.annotation) for field in STUDENT.fields},
}
BOOLEANS = {"true": True, "false": False}
DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")


class _Invalid(Enum):
    INVALID = 0


class Sent(NamedTuple):
    """A cell that breaks a rule, or that is normalised: a student of another program may be stored as it was sent."""

    value: str | None
    """The text once it is normalised; None if there is a fault."""
    sent: str | float
    fault: str = ""


INVALID: Final = _Invalid.INVALID
Reader: TypeAlias = Callable[[Any], Any]
"""Makes a cell a value: None if it is empty, UNSET if there is no cell, INVALID if it is no such value, or `Sent`."""


def make_readers(kind: Kind) -> dict[str, Reader]:
    """Return a reader for each of our columns."""
    if kind == "csv":
        return {"id": _read_protected(_parse_id), **{field.name: _make_csv_reader(field) for field in STUDENT.fields}}
    if kind == "xlsx":
        return {"id": _read_xlsx_id, **{field.name: _make_xlsx_reader(field) for field in STUDENT.fields}}
    return {"id": _read_json_id, **{field.name: _make_json_reader(field) for field in STUDENT.fields}}


def _make_csv_reader(field: Field) -> Reader:
    """Make a reader; values that repeat, as departments and grades do, are looked up, which is faster than a rule."""
    if field.kind is not str:
        return _Cache(_read_protected(_make_parser(field))).__getitem__
    read_text = _make_text_reader(field)
    read = _read_csv_text if read_text is _read_text else lambda cell: read_text(unprotect(cell))
    return _Cache(read).__getitem__ if STUDENT.filters.get(field.name) is equals else read


def _make_xlsx_reader(field: Field) -> Reader:
    if field.kind is str:
        read_text = _make_text_reader(field)
        # a number is the text that the sheet shows, such as a department 101
        return lambda cell: (
            read_text(cell)
            if isinstance(cell, str)
            else read_text(format_number(cell))
            if _is_number(cell)
            else INVALID
        )
    parse, check = _make_parser(field), CHECKS[field.kind](field)
    return lambda cell: parse(cell) if isinstance(cell, str) else check(cell)


def _make_json_reader(field: Field) -> Reader:
    if field.kind is str:
        read_text, find_fault_of = _make_text_reader(field), _make_rule(field)

        def read(cell: Any) -> Any:
            if cell is None or cell is UNSET:
                return cell
            if not isinstance(cell, str):
                return INVALID
            return read_text(cell) or Sent(None, cell, find_fault_of(cell))  # "" is a text that breaks the rule

        return read
    check = CHECKS[field.kind](field)
    return lambda cell: cell if cell is None or cell is UNSET else check(cell)


class _Cache(dict[str, Any]):
    def __init__(self, read: Reader) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, cell: str) -> Any:
        value = self._read(cell)
        if len(self) < CACHED:
            self[cell] = value
        return value


def _read_text(cell: str) -> Any:
    if is_normal(cell):
        return cell
    value = normalize(cell)
    if fault := find_fault(value):
        return Sent(None, cell, fault) if cell.strip(" ") else None  # a tab or a line break alone may be stored
    return value if value == cell else Sent(value, cell)


def _make_text_reader(field: Field) -> Callable[[str], Any]:
    """Make what reads a text by the rules of its field; most fields have the common one, which is faster."""
    rule = _make_rule(field)
    if rule is find_fault:
        return _read_text

    def read_text(cell: str) -> Any:
        value = normalize(cell)
        if not value:
            return None
        if fault := rule(value):
            return Sent(None, cell, fault)
        return value if value == cell else Sent(value, cell)

    return read_text


def _make_rule(field: Field) -> Callable[[str], str]:
    """Make what tells the fault of a text: the functions in the annotation of its field, then msgspec's own rules."""
    rules = list(find_rules(field.annotation))
    has_bounds = any(
        rule is not None
        for meta in find_metas(field.annotation)
        for rule in (meta.pattern, meta.min_length, meta.max_length)
    )
    if rules == [find_fault] and not has_bounds:
        return find_fault

    def find(value: str) -> str:
        for rule in rules:
            if fault := rule(value):
                return fault
        try:
            msgspec.convert(value, field.annotation)
        except msgspec.ValidationError:
            return f"expected {RULES[field.name]}"
        return ""

    return find


def _read_csv_text(cell: str) -> Any:
    if is_plain(cell) and len(cell) <= MAX_LENGTH and cell[0] != "'":
        return cell  # as most are, which a call or two less makes faster
    return _read_text(unprotect(cell))


def _read_protected(read: Reader) -> Reader:
    return lambda cell: read(unprotect(cell) if cell[:1] == "'" else cell)


def _is_number(cell: object) -> bool:
    return cell.__class__ is int or cell.__class__ is float  # a bool is an int to isinstance


def _make_float_check(field: Field) -> Reader:
    least, most = _get_bounds(field)
    fault = f"expected {RULES[field.name]}"

    def check(number: Any) -> Any:
        if not _is_number(number):
            return INVALID
        if least <= number <= most:
            return float(number) + 0.0  # makes -0.0 the 0.0 that it equals
        return INVALID if math.isnan(number) or abs(number) > MAX_DOUBLE else Sent(None, float(number), fault)

    return check


def _make_integer_check(field: Field) -> Reader:
    least, most = _get_bounds(field)
    fault = f"expected {RULES[field.name]}"

    def check(number: Any) -> Any:
        if number.__class__ is float and number.is_integer() and abs(number) <= MAX_EXACT:
            number = int(number)  # pandas has no integers in a column with gaps
        if number.__class__ is not int:
            return INVALID
        if least <= number <= most and abs(number) <= MAX_ID:
            return number
        return Sent(None, number, fault) if abs(number) <= MAX_ID else INVALID

    return check


def _make_boolean_check(_field: Field) -> Reader:
    return lambda cell: cell if cell.__class__ is bool else INVALID


def _make_date_check(_field: Field) -> Reader:
    def check(cell: Any) -> Any:
        if isinstance(cell, str):
            return _parse_date(cell)
        if isinstance(cell, datetime):  # of a workbook
            return cell.date() if cell.time() == time() else INVALID
        return cell if isinstance(cell, date) else INVALID

    return check


CHECKS: dict[type, Callable[[Field], Reader]] = {
    float: _make_float_check,
    int: _make_integer_check,
    bool: _make_boolean_check,
    date: _make_date_check,
}
"""What makes the check of a value that is no text, by its kind."""


def _get_bounds(field: Field) -> tuple[float, float]:
    bounds = find_bounds(field)
    return bounds.get("ge", -math.inf), bounds.get("le", math.inf)


def _make_parser(field: Field) -> Callable[[str], Any]:
    """Make what reads a value from a text: as JSON writes it, but for a decimal comma, and TRUE for true."""
    check = CHECKS[field.kind](field)

    def parse(cell: str) -> Any:
        text = cell.strip()
        if not text:
            return None
        if field.kind is float:
            if NUMBER.fullmatch(text):
                return check(float(text.replace(",", ".")))
            return check_infinity(text) if text in INFINITE else INVALID
        if field.kind is int:
            return check(int(found[1])) if (found := INTEGER.fullmatch(text)) else INVALID
        return _parse_date(text) if field.kind is date else BOOLEANS.get(text.lower(), INVALID)

    def check_infinity(text: str) -> Any:
        return Sent(None, float(text), f"expected {RULES[field.name]}")

    return parse


def _parse_date(text: str) -> Any:
    try:
        return date.fromisoformat(text) if DATE.fullmatch(text) else INVALID
    except ValueError:
        return INVALID


def _check_id(number: int) -> Any:
    return number if abs(number) <= MAX_ID else INVALID


def _parse_id(cell: str) -> Any:
    text = cell.strip()
    if found := INTEGER.fullmatch(text):
        return _check_id(int(found[1]))
    return INVALID if text else None


def _read_xlsx_id(cell: Any) -> Any:
    if isinstance(cell, str):
        return _parse_id(cell)
    return int(cell) if _is_number(cell) and float(cell).is_integer() and abs(cell) <= MAX_EXACT else INVALID


def _read_json_id(cell: Any) -> Any:
    if cell is None or cell is UNSET:
        return None
    if cell.__class__ is float and cell.is_integer() and abs(cell) <= MAX_EXACT:
        return int(cell)  # pandas has no integers in a column with gaps
    return _check_id(cell) if cell.__class__ is int else INVALID
