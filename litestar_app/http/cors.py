"""CORS: what pages of the configured origins may send, and which fields of a response they may read."""

from collections.abc import Iterable
from typing import Any, TypeAlias, cast

import msgspec
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from litestar_app.http.origin import normalize
from litestar_app.http.problems import PROBLEM_JSON, make_problem
from litestar_app.settings import split

METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
ALLOWED = [
    "Accept", "Accept-Language", "Authorization", "Content-Language", "Content-Type", "Idempotency-Key", "If-Match",
    "If-None-Match", "Last-Event-ID", "traceparent", "tracestate", "X-Request-ID",
]  # fmt: skip
"""Fields that a page may add to a request."""
EXPOSED = [
    "Allow", "Content-Disposition", "ETag", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After",
    "traceparent", "WWW-Authenticate", "X-Request-ID", "X-Total-Count",
]  # fmt: skip
"""Fields of a response that a page may read."""
MAX_AGE = 600
"""Seconds for which a browser may keep the response to a preflight."""

Fields: TypeAlias = Iterable[tuple[bytes, bytes]]


class CorsRules(ASGIMiddleware):
    """The rules for the origins of CORS_ORIGINS; as middleware, they respond to preflights."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, origins: Iterable[str]) -> None:
        """Take the origins as browsers send them."""
        self.origins = frozenset(map(normalize, origins))

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Respond to a preflight; have the application respond to any other request."""
        respond: Any = self.respond_to_preflight(cast("HTTPScope", scope)) or next_app
        await respond(scope, receive, send)

    async def add_to_response(self, message: Message, scope: Scope) -> None:
        """Add the fields to every response, as a hook of `before_send`."""
        if message["type"] == "http.response.start":
            headers = message["headers"] = [*message.get("headers", ())]
            self.add_fields(scope["headers"], headers)

    def add_fields(self, request_fields: Fields, fields: list[tuple[bytes, bytes]], *, has_all: bool = True) -> None:
        """Add what a page of the request's origin may read to the fields of a response.

        `Vary` is in every response: one without an origin must not be taken from a cache for a page. Of a request whose
        fields have not all arrived the only origin is named, if there is one only: a browser compares it with its own.
        """
        fields.append((b"vary", b"Origin"))
        origin = self._find_origin(request_fields)
        if origin is None and not has_all and len(self.origins) == 1:
            origin = next(iter(self.origins)).encode()
        if origin is not None:
            fields.append((b"access-control-allow-origin", origin))
            fields.append((b"access-control-expose-headers", ", ".join(EXPOSED).encode()))

    def respond_to_preflight(self, scope: HTTPScope) -> ASGIResponse | None:
        """Return the response to a preflight of a browser; None for any other request."""
        if scope["method"] != "OPTIONS":
            return None
        asked = dict(scope["headers"])
        method = asked.get(b"access-control-request-method")
        if b"origin" not in asked or method is None:
            return None
        names = asked.get(b"access-control-request-headers", b"").decode("latin-1").split(",")
        allowed = {name.lower() for name in ALLOWED}
        if self._find_origin(scope["headers"]) is None:
            problem = "Origin: expected one of CORS_ORIGINS, as the operator of this service has set it"
        elif method.decode("latin-1") not in METHODS:
            problem = f"Access-Control-Request-Method: expected one of {', '.join(METHODS)}, in capitals"
        elif any(name.strip() and name.strip().lower() not in allowed for name in names):
            problem = f"Access-Control-Request-Headers: expected only {', '.join(ALLOWED)}"
        else:
            fields = {
                "Access-Control-Allow-Methods": ", ".join(METHODS),
                "Access-Control-Allow-Headers": ", ".join(ALLOWED),
                "Access-Control-Max-Age": str(MAX_AGE),
            }
            return ASGIResponse(status_code=204, headers=fields)
        content = msgspec.json.encode(make_problem(400, problem))
        return ASGIResponse(body=content, status_code=400, media_type=PROBLEM_JSON)

    def _find_origin(self, fields: Fields) -> bytes | None:
        """Return the origin of a request as it was sent, if its pages may read the response."""
        origins = [value for name, value in fields if name == b"origin"]
        if len(origins) == 1 and normalize(origins[0].decode("latin-1")) in self.origins:
            return origins[0]
        return None


def create_cors(setting: str) -> CorsRules | None:
    """Return the rules for the setting CORS_ORIGINS, if it names any origin."""
    origins = split(setting)
    return CorsRules(origins) if origins else None
