"""Requests as the log and the metrics have them: nothing in them comes from a path, a query or a body."""

import asyncio
import ipaddress
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable
from functools import cache, lru_cache
from typing import Any, cast

from litestar import Request
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from msgspec import Struct

from litestar_app.http.callers import Caller
from litestar_app.metrics import DURATIONS, REQUESTS

logger = logging.getLogger("litestar_app.access")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:$|(?<!^00.{53})-.*)", re.DOTALL
)
"""As the W3C writes it: of a version after 00, more may follow."""
METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
OTHER, UNMATCHED = "_OTHER", "unmatched"
POLLED = frozenset({"/health/live", "/health/ready", "/metrics"})
"""Routes that programs ask every few seconds: what goes well there is logged at the level debug."""
FAILED = 500
"""What uvicorn responds where the application has not."""


class RequestLine(Struct, omit_defaults=True):
    """A request that has ended."""

    request_id: str
    method: str
    route: str
    status: int
    duration_ms: float
    client: str | None = None
    key: str | None = None
    """The name of the API key."""
    trace_id: str | None = None
    aborted: bool = False
    """Whether the client does not have the whole response."""

    def __str__(self) -> str:
        """Write it for a person."""
        words = [self.client or "-", self.method, self.route, str(self.status), f"{self.duration_ms} ms"]
        words += ["aborted"] * self.aborted + [f"request={self.request_id}"]
        words += [f"{name}={value!r}" for name in ("key", "trace_id") if (value := getattr(self, name))]
        return " ".join(words)


class AccessLog(ASGIMiddleware):
    """Gives each request an id, and logs and counts it when its response has ended."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, respond_to_stop: Callable[[HTTPScope, Receive, Send], Awaitable[None]]) -> None:
        """Take the response to a request that a stopping server cancels."""
        self._respond_to_stop = respond_to_stop

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Respond, and take note of it."""
        began = time.perf_counter()
        fields = dict(scope["headers"])
        given = fields.get(b"x-request-id")
        request_id = given.decode() if given and REQUEST_ID.fullmatch(given) else make_request_id()
        state = scope["state"]
        state["request_id"] = request_id
        if parent := fields.get(b"traceparent"):
            state["trace_id"] = _read_trace_id(parent)
        status, is_started, is_complete, is_disconnected = FAILED, False, False, False

        async def receive_and_note() -> Any:
            nonlocal is_disconnected
            message = await receive()
            if message["type"] == "http.disconnect" and not is_complete:
                is_disconnected = True
            return message

        async def send_and_note(message: Message) -> None:
            nonlocal status, is_started, is_complete
            if message["type"] == "http.response.start":
                status, is_started = message["status"], True
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                is_complete = True

        try:
            await next_app(scope, receive_and_note, send_and_note)
        except asyncio.CancelledError:  # of the server, which stops and has waited long enough
            if is_started or is_disconnected:
                raise
            await self._respond_to_stop(cast("HTTPScope", scope), receive_and_note, send_and_note)
        finally:
            client, caller = scope.get("client"), scope.get("auth")
            _note(
                request_id,
                name_method(scope),
                name_route(scope),
                status,
                time.perf_counter() - began,
                client[0] if client else None,
                caller.name if isinstance(caller, Caller) and caller.key_id else None,
                state.get("trace_id"),
                aborted=is_disconnected or not is_complete,
            )


async def add_request_id(message: Message, scope: Scope) -> None:
    """Add the request id to every response, as a hook of `before_send`."""
    if message["type"] == "http.response.start":
        request_id = (b"x-request-id", scope["state"]["request_id"].encode())
        message["headers"] = [*message.get("headers", ()), request_id]


def note_unparsed(status: int, client: str | None) -> str:
    """Log and count a request that the HTTP protocol could not read; return the request id for its response."""
    request_id = make_request_id()
    _note(request_id, OTHER, UNMATCHED, status, 0, client)
    return request_id


def describe(request: Request[Any, Any, Any]) -> str:
    """Name a request in a log line."""
    return f"{name_method(request.scope)} {name_route(request.scope)}"


def name_method(scope: Scope) -> str:
    """Return the method, or one name for all unknown ones."""
    method = scope.get("method")
    return str(method) if method in METHODS else OTHER


def name_route(scope: Scope) -> str:
    """Return the template of the path; the path itself may hold anything."""
    return scope.get("path_template", UNMATCHED)


def make_request_id() -> str:
    """Make an id that no other request has; nobody has to be unable to guess it."""
    return f"{random.getrandbits(128):032x}"


def _note(  # noqa: PLR0913, PLR0917  the members of a line
    request_id: str,
    method: str,
    route: str,
    status: int,
    seconds: float,
    client: str | None,
    key: str | None = None,
    trace_id: str | None = None,
    *,
    aborted: bool = False,
) -> None:
    count, observe_duration = _get_meters(method, route, status)
    count()
    observe_duration(seconds)
    level = logging.DEBUG if route in POLLED and status < 400 else logging.INFO  # noqa: PLR2004
    if logger.isEnabledFor(level):
        address = _check_address(client) if client else None
        line = RequestLine(request_id, method, route, status, round(seconds * 1000, 3), address, key, trace_id, aborted)
        # the frame of the call, which Logger.log would look for, costs as much as the rest
        logger.handle(logging.LogRecord(logger.name, level, "", 0, line, None, None))


@cache
def _get_meters(method: str, route: str, status: int) -> tuple[Callable[[], None], Callable[[float], None]]:
    return REQUESTS.labels(method, route, status).inc, DURATIONS.labels(method, route).observe


@lru_cache(1024)
def _check_address(client: str) -> str | None:
    """Return an address; what a proxy forwards may be anything."""
    try:
        return str(ipaddress.ip_address(client))
    except ValueError:
        return None


def _read_trace_id(parent: bytes) -> str | None:
    match = TRACEPARENT.fullmatch(parent.strip())
    return match[2].decode() if match else None
