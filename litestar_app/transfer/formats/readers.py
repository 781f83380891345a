"""Readers: a cell of CSV, JSON or xlsx as a value, by the rule of the student's own field."""

import re
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, TypeAlias, get_args

from msgspec import UNSET, Meta

from litestar_app.http.validation import describe
from litestar_app.students.schemas import MAX_ID, Cgpa, Department, Name
from litestar_app.transfer.formats.cells import INTEGER, NUMBER, format_number, unprotect
from litestar_app.transfer.formats.tables import Kind

MAX_EXACT = 2**53 - 1
"""Up to which every integer is a double of its own: numbers in an xlsx are doubles."""
CACHED = 10_000
"""Different cells of a column of which the values are remembered."""

RULES = {
    "id": "an integer, the id of a student, or an empty cell",
    "name": describe(Name),
    "department": describe(Department),
    "cgpa": describe(Cgpa),
}


class _Invalid(Enum):
    INVALID = 0


INVALID: Final = _Invalid.INVALID
Reader: TypeAlias = Callable[[Any], Any]
"""Makes a cell a value: None if it is empty, UNSET if there is no cell, INVALID if it breaks the rule."""


def make_readers(kind: Kind) -> dict[str, Reader]:
    """Return a reader for each of our columns."""
    if kind == "csv":  # departments and grades repeat, and a look-up is faster than a rule
        return {
            "id": _read_protected(_parse_id),
            "name": _read_protected(_read_name),
            "department": _Cache(_read_protected(_read_department)).__getitem__,
            "cgpa": _Cache(_read_protected(_parse_cgpa)).__getitem__,
        }
    if kind == "xlsx":
        return {
            "id": _read_xlsx_id,
            "name": _read_shown(_read_name),
            "department": _read_shown(_read_department),
            "cgpa": _read_xlsx_cgpa,
        }
    return {
        "id": _read_json_id,
        "name": _read_json_text(_read_name),
        "department": _read_json_text(_read_department),
        "cgpa": _read_json_cgpa,
    }


class _Cache(dict[str, Any]):
    def __init__(self, read: Reader) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, cell: str) -> Any:
        value = self._read(cell)
        if len(self) < CACHED:
            self[cell] = value
        return value


def _get_rule(field: Any) -> Meta:
    rule: Meta = get_args(field)[1]
    return rule


def _make_text_reader(field: Any) -> Reader:
    is_valid = re.compile(str(_get_rule(field).pattern)).search

    def read(cell: str) -> Any:
        if is_valid(cell):
            return cell.strip()
        return INVALID if cell.strip() else None

    return read


_read_name, _read_department = _make_text_reader(Name), _make_text_reader(Department)
_LEAST, _MOST = float(str(_get_rule(Cgpa).ge)), float(str(_get_rule(Cgpa).le))


def _check_cgpa(number: float) -> Any:
    return float(number) + 0.0 if _LEAST <= number <= _MOST else INVALID  # + 0.0 makes -0.0 the 0.0 that it equals


def _check_id(number: int) -> Any:
    return number if abs(number) <= MAX_ID else INVALID


def _parse_cgpa(cell: str) -> Any:
    text = cell.strip()
    if NUMBER.fullmatch(text):
        return _check_cgpa(float(text.replace(",", ".")))
    return INVALID if text else None


def _parse_id(cell: str) -> Any:
    text = cell.strip()
    if INTEGER.fullmatch(text):
        return _check_id(int(text))
    return INVALID if text else None


def _read_protected(read: Reader) -> Reader:
    return lambda cell: read(unprotect(cell) if cell[:1] == "'" else cell)


def _is_number(cell: object) -> bool:
    return cell.__class__ is int or cell.__class__ is float  # a bool is an int to isinstance


def _read_xlsx_id(cell: Any) -> Any:
    if isinstance(cell, str):
        return _parse_id(cell)
    return int(cell) if _is_number(cell) and float(cell).is_integer() and abs(cell) <= MAX_EXACT else INVALID


def _read_xlsx_cgpa(cell: Any) -> Any:
    if isinstance(cell, str):
        return _parse_cgpa(cell)
    return _check_cgpa(cell) if _is_number(cell) else INVALID


def _read_shown(read: Reader) -> Reader:
    """Take a number as the text that the sheet shows, such as a department 101."""

    def read_shown(cell: object) -> Any:
        if isinstance(cell, str):
            return read(cell)
        return read(format_number(cell)) if _is_number(cell) else INVALID

    return read_shown


def _read_json_id(cell: Any) -> Any:
    if cell is None or cell is UNSET:
        return None
    return _check_id(cell) if cell.__class__ is int else INVALID


def _read_json_cgpa(cell: Any) -> Any:
    if cell is None or cell is UNSET:
        return cell
    return _check_cgpa(cell) if _is_number(cell) else INVALID


def _read_json_text(read: Reader) -> Reader:
    def read_json(cell: Any) -> Any:
        if cell is None or cell is UNSET:
            return cell
        return (read(cell) or INVALID) if isinstance(cell, str) else INVALID  # "" is a text that breaks the rule

    return read_json
