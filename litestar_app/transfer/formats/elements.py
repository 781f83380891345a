"""XML of a workbook: its elements, while they are unpacked, with bounds for what a file may make expat keep."""

from collections.abc import Callable, Iterator
from typing import Any
from xml.parsers import expat

from litestar_app.exceptions import InvalidFileError
from litestar_app.transfer.formats.archives import DAMAGED

MAX_TOKEN = 1024 * 1024
"""Bytes of one tag, text or comment: expat reads it from its beginning again with every chunk, and keeps it."""
MAX_DEPTH = 100
MAX_NAMES = 10_000
"""Different names of elements and attributes."""


class _LocalNames(dict[str, str]):
    def __missing__(self, name: str) -> str:
        local = self[name] = name.rpartition(":")[2]
        return local


def parse(
    chunks: Iterator[bytes],
    start: Callable[[str, dict[str, str]], Any],
    end: Callable[[str], Any],
    characters: Callable[[str], Any],
) -> Iterator[None]:
    """Tell of elements, by names without a prefix, and of text; stop after each chunk for what has come of it.

    Raises:
        InvalidFileError: it is no XML, has a DOCTYPE, or more than a workbook needs.

    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    names, depth, size = _LocalNames(), 0, 0

    def on_start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidFileError(DAMAGED)
        start(names[name], attributes)

    def on_end(name: str) -> None:
        nonlocal depth
        depth -= 1
        end(names[name])

    def on_doctype(*_: object) -> None:
        raise InvalidFileError(DAMAGED)  # it could define entities

    parser.StartElementHandler, parser.EndElementHandler = on_start, on_end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = characters, on_doctype
    try:
        for chunk in chunks:
            parser.Parse(chunk)
            size += len(chunk)
            if size - parser.CurrentByteIndex > MAX_TOKEN or len(parser.intern) > MAX_NAMES:
                raise InvalidFileError(DAMAGED)
            yield
        parser.Parse(b"", True)  # noqa: FBT003  takes no name
        yield
    except (expat.ExpatError, LookupError, ValueError):
        raise InvalidFileError(DAMAGED) from None
