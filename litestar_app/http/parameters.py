"""Query parameters and header fields, checked before a handler sees the request."""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import parse_qsl

from litestar import HttpMethod, Request, Response
from litestar.exceptions import ClientException, HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.params import HeaderParameter, QueryParameter

MAX_QUERY = 8192
"""Bytes of a query."""
CACHED_QUERY = 256
"""Bytes of the longest query whose check is remembered."""
LISTS = {b"if-match", b"if-none-match"}
"""Fields whose lines form one list (RFC 9110, 5.3)."""
READ = [HttpMethod.GET, HttpMethod.HEAD]
"""HEAD works wherever GET does."""
PUBLIC, METRICS, EDITOR = {"access": "public"}, {"access": "metrics"}, {"access": "editor"}
"""The `opt` of a route that is not for every reader (GET) or every editor (any other method)."""
WITH_BODY = {"POST", "PUT", "PATCH"}
SINGLE = {b"idempotency-key"}
"""Fields that may be given once."""
KEY_PATTERN = '^("[!-~]{1,255}"|[!-~]{1,255})$'
IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        schema_extra={"pattern": KEY_PATTERN},
        description="the same key with the same request returns the first response again, for 24 hours",
    ),
]
INTEGER = r"-?(0|[1-9][0-9]{0,400})"
PLAIN: dict[object, tuple[str, str]] = {
    int: (INTEGER, "an integer"),
    float: (rf"{INTEGER}(\.[0-9]{{1,400}})?([eE][+-]?[0-9]{{1,3}})?", "a number"),
    bool: ("true|false", "true or false"),
}
"""How values are written, as in JSON; msgspec and Python take much more."""


def is_plain_integer(text: str) -> bool:
    """Tell whether a text is an integer as JSON writes it; `int` takes much more."""
    return re.fullmatch(INTEGER, text) is not None


def format_links(path: str, queries: Mapping[str, str]) -> str:
    """Write the header Link (RFC 8288): the query of each relation, below one path."""
    return ", ".join([f'<{path}?{query}>; rel="{relation}"' for relation, query in queries.items()])


def parse_key(given: str | None) -> str | None:
    """Return a key without the quotes that its draft standard has around it; with or without, it is the same key."""
    if given is None:
        return None
    key = given.strip(" \t")
    if not re.fullmatch(KEY_PATTERN, key):
        raise ClientException("header Idempotency-Key: expected 1 to 255 visible ASCII characters")
    return key[1:-1] if len(key) > len('""') and key[0] == key[-1] == '"' else key


async def check_request(request: Request[Any, Any, Any]) -> Response[None] | None:
    """Respond to OPTIONS, and reject a query or a header that no handler can take.

    Raises:
        ClientException: 400, naming the parameter or the field.

    """
    if request.method == "OPTIONS":
        return Response(None, status_code=204, headers={"Allow": ", ".join(sorted(_methods(request)))})
    _merge_lists(request)
    if query := request.scope["query_string"]:
        if len(query) > MAX_QUERY:  # which Litestar would keep in a cache of a thousand
            raise ClientException(f"The query is over {MAX_QUERY} bytes")
        check = _check_query if len(query) <= CACHED_QUERY else _check_query.__wrapped__
        check(query, request.route_handler)
    if request.method in WITH_BODY and "data" in request.route_handler.parsed_fn_signature.parameters:
        try:
            await request.body()
        except asyncio.CancelledError:  # of the server, which stops and has waited long enough for the rest
            raise HTTPException(status_code=408, detail="The service is stopping; the body has not arrived") from None
    return None


def _merge_lists(request: Request[Any, Any, Any]) -> None:
    """Make several lines of a list one line; Litestar hands only the first to a handler."""
    headers = request.scope["headers"]
    names = [name for name, _ in headers if name in LISTS or name in SINGLE]
    for name, count in Counter(names).items() if len(names) > 1 else ():
        if count > 1 and name in SINGLE:
            raise ClientException(f"header {name.decode().title()}: given more than once")
        merged = b", ".join(value for found, value in headers if found == name)
        headers = [*((found, value) for found, value in headers if found != name), (name, merged)]
    request.scope["headers"] = headers


@lru_cache(1024)
def _check_query(query: bytes, handler: HTTPRouteHandler) -> None:
    """Reject parameters that the route does not have, repeated ones, and values that are written in another way."""
    parameters = handler.parsed_fn_signature.parameters.values()
    known = {p.name: p for p in parameters if isinstance(p.kwarg_definition, QueryParameter)}
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise ClientException("The query is not UTF-8") from None
    seen = set()
    for name, value in pairs:
        if name not in known:
            raise ClientException(f"query parameter {name!r}: not one of this route's ({', '.join(known) or 'none'})")
        if name in seen and not known[name].is_non_string_collection:
            raise ClientException(f"query parameter {name!r}: given more than once")
        for kind in {known[name].annotation, *(inner.annotation for inner in known[name].inner_types)} & PLAIN.keys():
            pattern, expected = PLAIN[kind]
            if not re.fullmatch(pattern, value):
                raise ClientException(f"query parameter {name!r}: expected {expected}, got {value!r}")
        if known[name].is_literal and value not in known[name].args:
            *others, last = known[name].args
            expected = f"{', '.join(others)} or {last}"
            raise ClientException(f"query parameter {name!r}: expected {expected}, got {value!r}")
        seen.add(name)


def _methods(request: Request[Any, Any, Any]) -> set[str]:
    """Find every method of the path; Litestar's own OPTIONS knows only those of one handler."""
    path = request.scope["path_template"]
    return {method for route in request.app.routes if route.path_format == path for method in route.methods}
