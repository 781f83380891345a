"""Files that a command reads and writes; - is standard input or output."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import rich_click as click

CHUNK = 1024 * 1024
PARTS: set[Path] = set()
"""Files that are not complete, for whoever ends the process at once."""


def require_directory(file: Path) -> None:
    """Raise BadParameter where a file cannot be made, since there is no such directory."""
    if not file.parent.is_dir():
        raise click.BadParameter(f"there is no directory {click.format_filename(file.parent)!r}")


@contextlib.contextmanager
def open_input(name: str) -> Iterator[BinaryIO]:
    """Open a file that can be read from any position; what cannot, as a pipe, is copied to a temporary one."""
    with contextlib.ExitStack() as stack:
        file = cast("BinaryIO", sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb")))
        if name == "-" or not file.seekable():
            copy = cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile()))
            shutil.copyfileobj(file, copy, CHUNK)
            file = copy
        yield file


@contextlib.contextmanager
def open_output(name: str) -> Iterator[BinaryIO]:
    """Open what appears under its name when it is complete; standard output and devices are written as they are."""
    if name == "-":
        yield sys.stdout.buffer
        return
    if Path(name).exists() and not Path(name).is_file():
        with Path(name).open("wb") as file:
            yield file
        return
    target = Path(name).resolve()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    PARTS.add(part)
    try:
        with part.open("xb") as file:
            if target.exists():
                shutil.copymode(target, part)
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
        PARTS.discard(part)
