"""Uploads: a body that goes to a file on the disk while it arrives."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from http import HTTPStatus
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, TypeVar, cast

from litestar import Request
from litestar.exceptions import ClientException, HTTPException
from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser

from litestar_app.exceptions import FileTooLargeError
from litestar_app.resources import using_temporary_files

FORM = "multipart/form-data"
MAX_PARTS = 1000
MAX_IN_MEMORY = 256 * 1024
"""Bytes of a file that needs no room on the disk."""
T = TypeVar("T")


@asynccontextmanager
async def receive_file(request: Request[Any, Any, Any], max_bytes: int) -> AsyncIterator[tuple[BinaryIO, str | None]]:
    """Yield a file with the body, or with the part `file` of a form, and the charset that its Content-Type names.

    Raises:
        HTTPException: 400 for a form without that part, 408 if the service stops first.
        FileTooLargeError: it has more than `max_bytes`.
        ResourceError: the temporary directory is full, missing or not writable.

    """
    write = _write_part if request.content_type[0] == FORM else _write
    with using_temporary_files(), SpooledTemporaryFile(MAX_IN_MEMORY) as file:
        charset = await _finish(write(request, cast("BinaryIO", file)), max_bytes)
        yield _check_size(cast("BinaryIO", file), max_bytes), charset


async def _write(request: Request[Any, Any, Any], file: BinaryIO) -> str | None:
    async for chunk in request.stream():
        file.write(chunk)
    return request.content_type[1].get("charset")


async def _write_part(request: Request[Any, Any, Any], file: BinaryIO) -> str | None:
    """Write the part `file` of a form; Litestar would hold in memory whatever part has no file name."""
    named: list[bool] = []
    is_file, charset = False, None
    try:
        with PushMultipartParser(request.content_type[1].get("boundary", ""), max_segment_count=MAX_PARTS) as parser:
            async for chunk in request.stream():
                for event in parser.parse(chunk):
                    if isinstance(event, MultipartSegment):
                        is_file = event.name == "file" and bool(event.filename)
                        named += [is_file] if event.name == "file" else []
                        charset = event.charset if is_file else charset
                    elif event and is_file:
                        file.write(event)
    except ParserLimitReached:
        raise ClientException(f"The form has more than {MAX_PARTS} parts, or one with too long a header") from None
    except MultipartError as error:
        raise ClientException(f"The form is damaged: {error}") from None
    if named != [True]:
        raise ClientException("Expected a form with one file, in the part named file")
    return charset


async def _finish(receiving: Coroutine[Any, Any, T], max_bytes: int) -> T:
    try:
        return await receiving
    except HTTPException as error:
        if error.status_code != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise
        raise FileTooLargeError(_describe_limit(max_bytes)) from None
    except asyncio.CancelledError:  # of the server, which stops and has waited long enough for the rest
        raise HTTPException(status_code=408, detail="The service is stopping; the import was not begun") from None


def _check_size(file: BinaryIO, max_bytes: int) -> BinaryIO:
    if file.seek(0, 2) > max_bytes:
        raise FileTooLargeError(_describe_limit(max_bytes))
    file.seek(0)
    return file


def _describe_limit(max_bytes: int) -> str:
    return f"The file is over {max_bytes // 1024**2} MiB"
