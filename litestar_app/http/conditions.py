"""Conditional requests: entity tags, and the header fields that name them (RFC 9110, 8.8.3 and 13.1)."""

import re
from typing import Annotated

from litestar.params import HeaderParameter

IfMatch = Annotated[
    str | None, HeaderParameter(name="If-Match", description="write only if the ETag is one of these, or * for any")
]
IfNoneMatch = Annotated[
    str | None, HeaderParameter(name="If-None-Match", description="respond 304 if the ETag is one of these")
]

_ELEMENT = re.compile(r'(?:[ \t]*(W/)?("[\x21\x23-\x7e\x80-\xff]*"))?[ \t]*(,|$)')


def parse_if_match(header: str | None) -> frozenset[str] | None:
    """Return the strong tags of If-Match, or None where it allows any; what is no list of tags allows nothing."""
    if header is None or header.strip(" \t") == "*":
        return None
    return frozenset(tag for weak, tag in _parse_tags(header) if not weak)


def matches(if_none_match: str | None, etag: str) -> bool:
    """Tell whether If-None-Match names a tag; here weak tags count as well."""
    if if_none_match is None:
        return False
    return if_none_match.strip(" \t") == "*" or etag in {tag for _, tag in _parse_tags(if_none_match)}


def _parse_tags(header: str) -> list[tuple[str | None, str]]:
    tags = []
    position, separator = 0, ","
    while separator:
        element = _ELEMENT.match(header, position)
        if element is None:
            return []
        weak, tag, separator = element.groups()
        if tag:
            tags.append((weak, tag))
        position = element.end()
    return tags
