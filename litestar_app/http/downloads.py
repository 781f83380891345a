"""Downloads: responses that are sent while they are made."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from litestar import Request
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Receive, Send
from litestar.types.asgi_types import HTTPSendMessage

from litestar_app.exceptions import StudentRecordsError
from litestar_app.http.access_log import describe

logger = logging.getLogger("litestar_app")


class Download(ASGIStreamingResponse):
    """A file in parts. Where the rest cannot be made, it ends without its last chunk: no client takes it as whole."""

    def __init__(
        self,
        request: Request[Any, Any, Any],
        parts: AsyncGenerator[bytes, None],
        media_type: str,
        name: str,
        send_timeout: float,
    ) -> None:
        """Take what makes the parts, the name of the file for a browser, and seconds that a part may take to send."""
        super().__init__(
            iterator=parts,
            headers={
                "Content-Type": media_type,
                "Content-Disposition": f'attachment; filename="{name}"',
            },
            is_head_response=request.method == "HEAD",
        )
        self._parts = parts
        self._request = describe(request)
        self._send_timeout = send_timeout

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Send the parts; log why they end too soon."""
        try:
            await self._send_parts(send, receive)
        except asyncio.CancelledError:  # of the server, which stops and has waited long enough
            logger.warning("%s: the file ends incomplete: the service is stopping", self._request)
        finally:
            await self._parts.aclose()

    async def _send_parts(self, send: Send, receive: Receive) -> None:
        async def send_in_time(message: HTTPSendMessage) -> None:
            async with asyncio.timeout(self._send_timeout):
                await send(message)

        try:
            await super().send_body(send_in_time, receive)  # type: ignore[arg-type]
        except* TimeoutError:
            logger.warning("%s: the client has read nothing for %s s", self._request, self._send_timeout)
        except* StudentRecordsError as errors:
            logger.warning("%s: the file ends incomplete: %s", self._request, errors.exceptions[0])


async def begin(parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Make the first part of a file, so that what prevents it makes a response of its own."""
    first = await anext(parts, b"")

    async def go_on() -> AsyncIterator[bytes]:
        try:
            yield first
            async for part in parts:
                yield part
        finally:
            await parts.aclose()

    return go_on()  # type: ignore[return-value]
