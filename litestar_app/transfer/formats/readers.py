"""Readers: a cell of CSV, JSON or xlsx as a value, by the rule of the student's own field."""

import math
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias, get_args

from msgspec import UNSET, Meta

from litestar_app.http.validation import describe
from litestar_app.records.fields import MAX_ID
from litestar_app.records.texts import MAX_LENGTH, find_fault, is_normal, is_plain, normalize
from litestar_app.students.schemas import Cgpa, Department, Name
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
    "name": describe(Name),
    "department": describe(Department),
    "cgpa": describe(Cgpa),
}
CGPA_FAULT = f"expected {RULES['cgpa']}"


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
    if kind == "csv":  # departments and grades repeat, and a look-up is faster than a rule
        return {
            "id": _read_protected(_parse_id),
            "name": _read_csv_text,
            "department": _Cache(_read_csv_text).__getitem__,
            "cgpa": _Cache(_read_protected(_parse_cgpa)).__getitem__,
        }
    if kind == "xlsx":
        return {
            "id": _read_xlsx_id,
            "name": _read_shown,
            "department": _read_shown,
            "cgpa": _read_xlsx_cgpa,
        }
    return {
        "id": _read_json_id,
        "name": _read_json_text,
        "department": _read_json_text,
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


def _read_text(cell: str) -> Any:
    if is_normal(cell):
        return cell
    value = normalize(cell)
    if fault := find_fault(value):
        return Sent(None, cell, fault) if cell.strip(" ") else None  # a tab or a line break alone may be stored
    return value if value == cell else Sent(value, cell)


def _get_bounds(field: Any) -> tuple[float, float]:
    rule: Meta = get_args(field)[1]
    return float(str(rule.ge)), float(str(rule.le))


_LEAST, _MOST = _get_bounds(Cgpa)


def _check_cgpa(number: float) -> Any:
    if _LEAST <= number <= _MOST:
        return float(number) + 0.0  # makes -0.0 the 0.0 that it equals
    return INVALID if math.isnan(number) or abs(number) > MAX_DOUBLE else Sent(None, float(number), CGPA_FAULT)


def _check_id(number: int) -> Any:
    return number if abs(number) <= MAX_ID else INVALID


def _parse_cgpa(cell: str) -> Any:
    text = cell.strip()
    if NUMBER.fullmatch(text):
        return _check_cgpa(float(text.replace(",", ".")))
    if text in INFINITE:
        return Sent(None, float(text), CGPA_FAULT)
    return INVALID if text else None


def _parse_id(cell: str) -> Any:
    text = cell.strip()
    if found := INTEGER.fullmatch(text):
        return _check_id(int(found[1]))
    return INVALID if text else None


def _read_csv_text(cell: str) -> Any:
    if is_plain(cell) and len(cell) <= MAX_LENGTH and cell[0] != "'":
        return cell  # as most are, which a call or two less makes faster
    return _read_text(unprotect(cell))


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


def _read_shown(cell: object) -> Any:
    """Take a number as the text that the sheet shows, such as a department 101."""
    if isinstance(cell, str):
        return _read_text(cell)
    return _read_text(format_number(cell)) if _is_number(cell) else INVALID


def _read_json_id(cell: Any) -> Any:
    if cell is None or cell is UNSET:
        return None
    if cell.__class__ is float and cell.is_integer() and abs(cell) <= MAX_EXACT:
        return int(cell)  # pandas has no integers in a column with gaps
    return _check_id(cell) if cell.__class__ is int else INVALID


def _read_json_cgpa(cell: Any) -> Any:
    if cell is None or cell is UNSET:
        return cell
    return _check_cgpa(cell) if _is_number(cell) else INVALID


def _read_json_text(cell: Any) -> Any:
    if cell is None or cell is UNSET:
        return cell
    if not isinstance(cell, str):
        return INVALID
    return _read_text(cell) or Sent(None, cell, find_fault(cell))  # "" is a text that breaks the rule
