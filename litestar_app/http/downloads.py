"""Downloads: responses that are sent while they are made."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

from litestar import Request
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Receive, Send
from litestar.types.asgi_types import HTTPResponseBodyEvent, HTTPSendMessage
from msgspec import Struct

from litestar_app.exceptions import StudentRecordsError
from litestar_app.http.access_log import describe

logger = logging.getLogger("litestar_app")


class Pace(Struct, frozen=True):
    """How slowly a client may read a download, which holds a thread and perhaps a snapshot meanwhile."""

    timeout: float
    """Seconds for one part; and for the whole, beyond those that it takes at the rate."""
    rate: float
    """Bytes a second. Time in which the parts are made does not count."""


class Download(ASGIStreamingResponse):
    """A file in parts. Where the rest cannot be made, it ends without its last chunk: no client takes it as whole."""

    def __init__(
        self,
        request: Request[Any, Any, Any],
        parts: AsyncGenerator[bytes, None],
        media_type: str,
        name: str,
        pace: Pace,
    ) -> None:
        """Take what makes the parts, the name of the file for a browser, and how slowly its client may read."""
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
        self._pace = pace

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Send the parts; log why they end too soon."""
        try:
            await self._send_parts(send, receive)
        except asyncio.CancelledError:  # of the server, which stops and has waited long enough
            logger.warning("%s: the file ends incomplete: the service is stopping", self._request)
        finally:
            await self._parts.aclose()

    async def _send_parts(self, send: Send, receive: Receive) -> None:
        clock = asyncio.get_running_loop().time
        timeout, rate = self._pace.timeout, self._pace.rate
        sent, waited, left = 0, 0.0, timeout

        async def send_in_time(message: HTTPSendMessage) -> None:
            nonlocal sent, waited, left
            sent += len(cast("HTTPResponseBodyEvent", message)["body"])
            left = timeout + sent / rate - waited
            began = clock()
            async with asyncio.timeout(min(timeout, left)):
                await send(message)
            waited += clock() - began

        try:
            await super().send_body(send_in_time, receive)  # type: ignore[arg-type]
        except* TimeoutError:
            if left < timeout:
                logger.warning("%s: the client has read under %d bytes a second", self._request, rate)
            else:
                logger.warning("%s: the client has read nothing for %s s", self._request, timeout)
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
