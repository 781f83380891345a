"""Header fields of every response: what a browser may do with it, and who may keep it."""

from litestar.types.asgi_types import HTTPResponseStartEvent

POLICY = b"default-src 'none'; frame-ancestors 'none'"
"""For what is no page; the documentation has its own."""
FIELDS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
PERSONAL = {"Cache-Control": "private, no-cache"}
"""Of a response with students: only a browser may keep it, and asks before it shows it again."""
NO_STORE = {"Cache-Control": "no-store"}


def secure(message: HTTPResponseStartEvent) -> list[tuple[bytes, bytes]]:
    """Add the fields that a response does not have yet, and return all; it is not to be kept unless it says so."""
    headers = message["headers"] = [*message.get("headers", ()), *FIELDS]
    names = {name for name, _ in headers}
    if b"content-security-policy" not in names:
        headers.append((b"content-security-policy", POLICY))
    if b"cache-control" not in names:
        headers.append((b"cache-control", b"no-store"))
    return headers
