"""The texts of a record: how they are normalised, and which rule one breaks."""

import re
import unicodedata

MAX_LENGTH = 100
"""Characters of a text, once it is normalised."""

# Of Unicode: control characters, line and paragraph separators, bidirectional overrides and isolates; and the sign of
# a text that was decoded wrongly.
_FORBIDDEN = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffd"
# What shows nothing by itself: joiners and other formatting, fillers, variation selectors, blanks.
_INVISIBLE = (
    r"\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u206f\u2800\u3164\ufe00-\ufe0f"
    r"\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_SPACES = r" \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_OTHER = rf"[^\s{_FORBIDDEN}]"
_RUN = rf"[{_SPACES}]+(?![{_SPACES}])"
PATTERN = (
    rf"^(?=[{_INVISIBLE}{_FORBIDDEN}]*[^{_INVISIBLE}{_FORBIDDEN}])"
    rf"\s*{_OTHER}(?:(?:{_OTHER}|{_RUN}){{0,{MAX_LENGTH - 2}}}{_OTHER})?\s*$"
)
"""What a text is before it is normalised, as near as a regular expression can say it: Unicode's composed form may have
fewer characters."""
NAMES = {"\t": "a tab", "\n": "a line break", "\r": "a line break", "\0": "NUL"}

is_plain = re.compile(r"[!-~]+(?: [!-~]+)*").fullmatch
"""Tells of a text in ASCII that it is normalised."""
_is_clean = re.compile(rf"[^{_INVISIBLE}{_FORBIDDEN}]+(?: [^{_INVISIBLE}{_FORBIDDEN}]+)*").fullmatch
_find_forbidden = re.compile(f"[{_FORBIDDEN}]").search
_has_visible = re.compile(f"[^{_INVISIBLE}]").search
_join_spaces = re.compile(f"[{_SPACES}]+").sub
_drop_invisible = re.compile(f"(?!\\s)[{_INVISIBLE}]").sub


def is_normal(text: str) -> bool:
    """Tell of most texts at once that they break no rule and are normalised."""
    if len(text) > MAX_LENGTH:
        return False
    if text.isascii():
        return is_plain(text) is not None
    return _is_clean(text) is not None and unicodedata.is_normalized("NFC", text)


def normalize(text: str) -> str:
    """Return a text in Unicode's composed form (NFC), without white space at its ends, each run of spaces as one."""
    return text if is_normal(text) else _join_spaces(" ", unicodedata.normalize("NFC", text).strip())


def find_fault(text: str) -> str:
    """Return which rule a text breaks once it is normalised, or ""."""
    if is_normal(text):
        return ""
    text = normalize(text)
    if not text:
        return f"empty; expected a text of 1 to {MAX_LENGTH} characters"
    if found := _find_forbidden(text):
        return _describe(found[0])
    if not _has_visible(text):
        return f"expected a visible character; there are only invisible ones, such as {_number(text[0])}"
    if len(text) > MAX_LENGTH:
        return f"expected at most {MAX_LENGTH} characters, got {len(text)}"
    return ""


def remove_invisible(text: str) -> str:
    """Return a text without the characters that show nothing, and without white space at its ends."""
    return text.strip() if text.isascii() else _drop_invisible("", text).strip()


def _describe(character: str) -> str:
    number = _number(character)
    if character == "\ufffd":
        return f"{number}, the sign of a text that was decoded wrongly: correct the text, or name the right charset"
    if character == "\u2028":
        kind = "a line separator"
    elif character == "\u2029":
        kind = "a paragraph separator"
    elif character > "\u2029":
        kind = "a bidirectional " + ("override or embedding" if character <= "\u202e" else "isolate")
    else:
        kind = NAMES.get(character, "a control character")
    return f"{kind}, {number}, is not possible here"


def _number(character: str) -> str:
    return f"U+{ord(character):04X}"
