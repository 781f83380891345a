"""Header fields of every response: what a browser may do with it, and who may keep it."""

from litestar.types import Message, Scope
from litestar.types.asgi_types import HTTPResponseStartEvent

POLICY = b"default-src 'none'; frame-ancestors 'none'"
"""For what is no page; the documentation has its own."""
FIELDS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
DEFAULTS = [*FIELDS, (b"content-security-policy", POLICY)]
OF_STUDENTS = {b"etag", b"link"}
"""Fields of responses with students: only a browser may keep those, and asks before it shows them again."""
NO_STORE = {"Cache-Control": "no-store"}


def secure(message: HTTPResponseStartEvent) -> list[tuple[bytes, bytes]]:
    """Add the fields that a response does not have yet, and return all; it is not to be kept unless it says so."""
    given = message.get("headers", ())
    names = {name for name, _ in given}
    headers = message["headers"] = [*given, *(FIELDS if b"content-security-policy" in names else DEFAULTS)]
    if b"cache-control" not in names:
        headers.append((b"cache-control", b"no-store" if names.isdisjoint(OF_STUDENTS) else b"private, no-cache"))
    return headers


async def add_security_fields(message: Message, _scope: Scope) -> None:
    """Add the fields to every response, as a hook of `before_send`."""
    if message["type"] == "http.response.start":
        secure(message)
