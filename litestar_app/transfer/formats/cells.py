"""Cells: what is a number, and what a spreadsheet would run as a formula."""

import re

NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
"""A number with `.` or `,` before its decimals; there are no separators of thousands."""
MAX_WHOLE = 1e21
"""From which a number is written with an exponent, so that 1e300 is no text of 300 digits."""
INTEGER = re.compile(r"([+-]?[0-9]{1,25})(?:[.,]0*)?")
"""An integer, also as `7.0`: pandas writes it so where another cell of the column is empty."""
RISKY = frozenset(" '=+-@\t\r＝＋－＠")  # noqa: RUF001  spreadsheets take the wide ones too
"""How a cell begins that is looked at closely."""
_FORMULA = re.compile(r"'*[=+\-@\t\r＝＋－＠]")  # noqa: RUF001


def protect(text: str) -> str:
    """Add an apostrophe to what a spreadsheet would run as a formula, and to what has one already."""
    return f"'{text}" if text[:1] in RISKY and _FORMULA.match(text) else text


def unprotect(text: str) -> str:
    """Take off the apostrophe that `protect` has added."""
    return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text


def format_number(cell: object) -> str:
    """Write a cell that is no text; a whole number without decimals, as a sheet shows it."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() and abs(cell) < MAX_WHOLE else str(cell)
