"""Number formats of workbooks: what a sheet shows for a number or a text."""

import datetime as dt
import re
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, NamedTuple

from litestar_app.transfer.formats.cells import NUMBER, format_number
from litestar_app.transfer.formats.tables import NoValue

MAX_CODE = 255
"""Characters of a format, as in Excel; a longer one is not looked at."""
MAX_DECIMALS = 30
MAX_SHOWN = 1e15
"""Up to which a double has all its digits before the point."""
CACHED = 10_000
"""Numbers of a format of which the values are remembered: grades repeat."""
OTHERWISE = "the cell holds {}, but its number format shows something else; enter what is meant, in the format General"

_DATE, _FRACTION, _COMMA = "yyyy-mm-dd", "# ?/?", '_(* #,##0{0}_);_(* (#,##0{0});_(* "-"_);_(@_)'
BUILT_IN = {
    **dict.fromkeys(map(str, [*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59), *range(71, 82)]), _DATE),
    "1": "0", "2": "0.00", "3": "#,##0", "4": "#,##0.00", "9": "0%", "10": "0.00%", "11": "0.00E+00",
    **dict.fromkeys(["12", "13", "69", "70"], _FRACTION),
    **dict.fromkeys(["5", "6"], "$#,##0"), **dict.fromkeys(["7", "8"], "$#,##0.00"),
    **dict.fromkeys(["37", "38"], "#,##0_);(#,##0)"), **dict.fromkeys(["39", "40"], "#,##0.00_);(#,##0.00)"),
    "41": _COMMA.format(""), "42": "$#,##0", "43": _COMMA.format(".00"), "44": "$#,##0.00", "48": "##0.0E+0", "49": "@",
    "67": "0%", "68": "0.00%",
}  # fmt: skip
"""Formats that every workbook has, by their numbers; of dates, any."""

_TOKEN = re.compile(
    r'"(?P<quoted>[^"]*)"?|\\(?P<escaped>.)|(?P<blank>_.|\*.)|\[\$(?P<symbol>[^\]-]*)[^\]]*\]'
    r"|(?P<condition>\[[<>=][^\]]*\])|(?P<time>\[[hms]+\])|(?P<ignored>\[[^\]]*\])|(?P<general>general|@)"
    r"|(?P<digits>[0#?.,]+)|(?P<exponent>e[+-]0+)|(?P<date>[dmyhs])|(?P<end>;)|(?P<other>.)",
    re.IGNORECASE | re.DOTALL,
)
_PADDED = re.compile("-?0[0-9]")
_round = Context(prec=60, rounding=ROUND_HALF_UP).quantize


class Formatted(float):
    """A number that the sheet shows in other characters, such as 7.00, and that is no text for this reason."""

    shown: str


class _Section(NamedTuple):
    """Texts around one number; of another kind, `is_known` is false."""

    before: str
    digits: str
    after: str
    is_known: bool


class NumberFormat(dict[float, Any]):
    """The values of cells in one format, by their numbers.

    A value is the number itself; or `Formatted`; a date or a time; or `NoValue` if the sheet does not show the number.
    """

    def __init__(self, code: str, epoch: dt.datetime) -> None:
        """Take the format as the workbook writes it, and the day that is its number 0."""
        super().__init__()
        self._epoch = epoch
        self._is_known, self._is_date = len(code) <= MAX_CODE, False
        self._sections = self._split(code[:MAX_CODE])
        text = self._sections[3] if len(self._sections) > 3 else self._sections[-1]  # noqa: PLR2004  the fourth
        self._text = text if text.digits == "@" or len(self._sections) > 3 else None  # noqa: PLR2004

    def __missing__(self, number: float) -> Any:
        value = self._read_date(number) if self._is_date else self._read_number(number)
        if len(self) < CACHED:
            self[number] = value
        return value

    def read_text(self, text: str) -> Any:
        """Return a text, or what stands for it where the sheet shows another one."""
        if self._text is None:
            return text
        before, digits, after, _ = self._text
        shown = f"{before}{text if digits else ''}{after}"
        return text if shown.strip() == text.strip() else NoValue(shown, OTHERWISE.format("another text"))

    def _split(self, code: str) -> list[_Section]:
        sections = []
        texts, digits, is_known = ["", ""], "", True
        for token in [*_TOKEN.finditer(code), None]:
            kind, part = (token.lastgroup, token[token.lastgroup or 0]) if token else ("end", "")
            if kind == "end":
                sections.append(_Section(texts[0].lstrip(), digits, texts[1].rstrip(), is_known))
                texts, digits, is_known = ["", ""], "", True
            elif kind in {"general", "digits"}:
                is_known = is_known and not digits
                digits = "@" if kind == "general" else part
            elif kind == "exponent":
                digits += part
            elif kind in {"date", "time"}:
                self._is_date = True
            elif kind == "condition" or part == "/":
                is_known = False
            elif kind != "ignored":
                texts[1 if digits else 0] += " " if kind == "blank" else part
        return sections

    def _read_number(self, number: float) -> Any:
        shown, is_number = self._show(number)
        if is_number:
            if shown == format_number(number):
                return number
            value = Formatted(number)
            value.shown = shown
            return value
        return NoValue(shown, OTHERWISE.format(format_number(number)))

    def _show(self, number: float) -> tuple[str, bool]:
        """Return what the sheet shows, about, and whether that is the number."""
        count = len(self._sections)
        is_negative = number < 0
        section = self._sections[1 if is_negative and count > 1 else 2 if number == 0 and count > 2 else 0]  # noqa: PLR2004
        sign = "-" if is_negative and count == 1 else ""
        if not (self._is_known and section.is_known):
            return format_number(number), False
        if not section.digits:
            return section.before, False
        percents = (section.before + section.after).count("%")
        text = _show_digits(section.digits, abs(number), percents)
        shown = f"{sign}{section.before}{text}{section.after}".strip()
        plain = shown.replace(",", "")
        if not NUMBER.fullmatch(plain) or _PADDED.match(plain):
            return shown, False
        decimals = len(plain.partition(".")[2]) if "e" not in plain.lower() else 0
        return shown, abs(float(plain) - number) <= (0.51 * 10**-decimals if decimals else 0.0)

    def _read_date(self, number: float) -> Any:
        """Return the date or time that a sheet shows for a number."""
        try:
            moment = self._epoch + dt.timedelta(days=number, milliseconds=500)
        except (OverflowError, ValueError):
            return NoValue(format_number(number))
        moment = moment.replace(microsecond=0)
        if 0 <= number < 1:
            return moment.time()
        return moment if moment.time() != dt.time() else moment.date()


def _show_digits(digits: str, number: float, percents: int) -> str:
    """Write a number that is not negative by the placeholders of a format."""
    if digits == "@":
        return format_number(number)
    digits, exponent, _ = digits.lower().partition("e")
    whole, point, decimals = digits.partition(".")
    thousands = len(whole) - len(whole.rstrip(",")) + decimals.count(",")
    whole, decimals = whole.rstrip(","), decimals.replace(",", "").replace(".", "")
    if not number < MAX_SHOWN or len(decimals) > MAX_DECIMALS:
        return format_number(number)
    if exponent:
        return f"{number:.{len(decimals)}E}"
    value = Decimal(repr(number)).scaleb(2 * percents - 3 * thousands)
    left, _, right = f"{_round(value, Decimal(1).scaleb(-len(decimals))):f}".partition(".")
    left = left.zfill(whole.count("0")) if left != "0" or "0" in whole else ""
    if "," in whole and not left.startswith("0"):
        left = f"{int(left or 0):,}" if left else ""
    right = right[: decimals.rfind("0") + 1] + right[decimals.rfind("0") + 1 :].rstrip("0")
    return left + point + right
