"""Conditional requests: entity tags, and the header fields that name them (RFC 9110, 8.8.3 and 13.1)."""

import re
from collections.abc import Callable
from typing import Annotated

from litestar.params import HeaderParameter

from litestar_app.exceptions import PreconditionFailedError

IfMatch = Annotated[
    str | None, HeaderParameter(name="If-Match", description="write only if the ETag is one of these, or * for any")
]
IfNoneMatch = Annotated[
    str | None, HeaderParameter(name="If-None-Match", description="respond 304 if the ETag is one of these")
]
UnlessMatch = Annotated[
    str | None,
    HeaderParameter(name="If-None-Match", description="write only if the ETag is none of these; * allows no write"),
]
CHANGED = "The student has changed since this ETag; fetch it and retry"
UNCHANGED = "The student has the ETag that If-None-Match excludes"
EXISTS = "The student exists; If-None-Match: * allows a write only if there is none"
WEAK = "header If-Match: weak ETags (W/…) never match; send the ETag as the service gave it"
ANY = frozenset({"*"})
MAX_SHOWN = 100
"""Characters of a malformed value that a message repeats."""

_ELEMENT = re.compile(r'(?:[ \t]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*"))?[ \t]*(,|$)')


def parse_condition(if_match: str | None, if_none_match: str | None) -> Callable[[str], None] | None:
    """Return the condition of a write, or None if there is none.

    It takes the current ETag, and raises PreconditionFailedError unless the write is allowed. A malformed field allows
    no write; that is an error of the call too, since an unknown student is a 404 first.
    """
    if if_match is None and if_none_match is None:
        return None
    expected = ANY if if_match is None else _parse_tags(if_match)
    excluded = frozenset() if if_none_match is None else _parse_tags(if_none_match)

    def check(etag: str) -> None:
        if expected is None:
            raise PreconditionFailedError(_explain("If-Match", if_match))
        if excluded is None:
            raise PreconditionFailedError(_explain("If-None-Match", if_none_match))
        if expected != ANY and etag not in expected:
            raise PreconditionFailedError(WEAK if all(tag.startswith("W/") for tag in expected) else CHANGED)
        if _names(excluded, etag):
            raise PreconditionFailedError(EXISTS if excluded == ANY else UNCHANGED)

    return check


def matches(if_none_match: str, etag: str) -> bool:
    """Tell whether If-None-Match names a tag; weak tags count too, and a malformed value matches nothing."""
    return _names(_parse_tags(if_none_match) or frozenset(), etag)


def _names(tags: frozenset[str], etag: str) -> bool:
    return tags == ANY or etag in tags or f"W/{etag}" in tags


def _explain(field: str, value: str | None) -> str:
    shown = value if value is None or len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}…"
    return f'header {field}: malformed; expected * or ETags in double quotes, such as "33c00e7d", got {shown!r}'


def _parse_tags(header: str) -> frozenset[str] | None:
    """Return the tags, or ANY; None for a value that is malformed or has none."""
    if header.strip(" \t") == "*":
        return ANY
    tags = set()
    position, separator = 0, ","
    while separator:
        element = _ELEMENT.match(header, position)
        if element is None:
            return None
        tag, separator = element.groups()
        tags.add(tag)
        position = element.end()
    return frozenset(tags - {None}) or None
