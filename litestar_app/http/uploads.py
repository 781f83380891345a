"""Uploads: a body that goes to a file on the disk while it arrives."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from tempfile import TemporaryFile
from typing import Any, BinaryIO, TypeVar, cast

from litestar import Request
from litestar.datastructures import UploadFile
from litestar.exceptions import ClientException, HTTPException

from litestar_app.exceptions import DatabaseUnavailableError, FileTooLargeError

FORM = "multipart/form-data"
T = TypeVar("T")


@asynccontextmanager
async def receive_file(request: Request[Any, Any, Any], max_bytes: int) -> AsyncIterator[BinaryIO]:
    """Yield a file with the body, or with the part `file` of a form.

    Raises:
        HTTPException: 400 for a form without that part, 408 if the service stops first.
        FileTooLargeError: it has more than `max_bytes`.
        DatabaseUnavailableError: the disk is full.

    """
    try:
        if request.content_type[0] == FORM:
            try:
                form = await _finish(request.form())
            except (UnicodeDecodeError, LookupError):
                raise ClientException("A part of the form is not in its charset, or that is unknown") from None
            try:
                parts = form.getall("file", [])
                if len(parts) != 1 or not isinstance(parts[0], UploadFile):
                    raise ClientException("Expected a form with one file, in the part named file")
                yield _check_size(cast("BinaryIO", parts[0].file), max_bytes)
            finally:
                await form.close()
        else:
            with TemporaryFile() as file:
                await _finish(_write(request, cast("BinaryIO", file)))
                yield _check_size(cast("BinaryIO", file), max_bytes)
    except OSError as error:
        raise DatabaseUnavailableError(error) from error


async def _write(request: Request[Any, Any, Any], file: BinaryIO) -> None:
    async for chunk in request.stream():
        file.write(chunk)


async def _finish(receiving: Coroutine[Any, Any, T]) -> T:
    try:
        return await receiving
    except asyncio.CancelledError:  # of the server, which stops and has waited long enough for the rest
        raise HTTPException(status_code=408, detail="The service is stopping; the import was not begun") from None


def _check_size(file: BinaryIO, max_bytes: int) -> BinaryIO:
    if file.seek(0, 2) > max_bytes:
        raise FileTooLargeError(f"The file is over {max_bytes} bytes")
    file.seek(0)
    return file
