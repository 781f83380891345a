"""Query parameters and header fields, checked before a handler sees the request."""

import asyncio
import datetime as dt
import inspect
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from inspect import Parameter
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import parse_qsl

from litestar import HttpMethod, Request, Response
from litestar.constants import RESERVED_KWARGS
from litestar.enums import ParamType
from litestar.exceptions import ClientException, HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.params import HeaderParameter, KwargDefinition, ParameterKwarg
from litestar.typing import FieldDefinition

F = TypeVar("F", bound=Callable[..., Any])

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
SINGLE = {b"content-type", b"idempotency-key"}
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
PLAIN: dict[object, str] = {
    int: INTEGER,
    float: rf"{INTEGER}(\.[0-9]{{1,400}})?([eE][+-]?[0-9]{{1,3}})?",
    bool: "(?i:true|false)",  # Python's clients write True
}
"""How values are written, as in JSON; msgspec and Python take much more."""
WORDS: dict[object, str] = {
    int: "an integer",
    float: "a number",
    Decimal: "a number",
    bool: "true or false",
    str: "a text",
    uuid.UUID: "a UUID",
    dt.datetime: "a date and time (RFC 3339)",
    dt.date: "a date (YYYY-MM-DD)",
    dt.time: "a time (RFC 3339)",
    dt.timedelta: "a duration (ISO 8601)",
}
"""What a value of a type is, for people."""
BOUNDS = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}


def with_query(query: Mapping[str, tuple[Any, Any]]) -> Callable[[F], F]:
    """Give a handler more query parameters, the annotation and the default of each; it takes them as `**query`."""

    def extend(handler: F) -> F:
        signature = inspect.signature(handler)
        own = [one for one in signature.parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
        added = [
            Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for name, (annotation, default) in query.items()
        ]
        handler.__annotations__ = {
            **{name: value for name, value in handler.__annotations__.items() if name != "query"},
            **{one.name: one.annotation for one in added},
        }
        cast("Any", handler).__signature__ = signature.replace(parameters=[*own, *added])  # which Litestar reads
        return handler

    return extend


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


class RequestCheck:
    """Responds to OPTIONS, and rejects a query or a header that no handler can take.

    Each application has its own, which remembers short queries of its handlers.
    """

    def __init__(self) -> None:
        self._check_short_query = lru_cache(1024)(_check_query)

    async def __call__(self, request: Request[Any, Any, Any]) -> Response[None] | None:
        """Check a request before its handler runs.

        Raises:
            ClientException: 400, naming the parameter or the field.

        """
        if request.method == "OPTIONS":
            return Response(None, status_code=204, headers={"Allow": ", ".join(sorted(_methods(request)))})
        _merge_lists(request)
        if query := request.scope["query_string"]:
            if len(query) > MAX_QUERY:  # which Litestar would keep in a cache of a thousand
                raise ClientException(f"The query is over {MAX_QUERY} bytes")
            check = self._check_short_query if len(query) <= CACHED_QUERY else _check_query
            check(query, request.route_handler, tuple(request.path_params))
        if request.method in WITH_BODY and "data" in request.route_handler.parsed_fn_signature.parameters:
            try:
                await request.body()
            except asyncio.CancelledError:  # of the server, which stops and has waited long enough for the rest
                raise HTTPException(
                    status_code=408, detail="The service is stopping; the body has not arrived"
                ) from None
        return None


def _merge_lists(request: Request[Any, Any, Any]) -> None:
    """Make several lines of a list one line; Litestar hands only the first to a handler."""
    headers = request.scope["headers"]
    names = [name for name, _ in headers if name in LISTS or name in SINGLE]
    for name, count in Counter(names).items() if len(names) > 1 else ():
        if count == 1:
            continue
        if name in SINGLE:
            raise ClientException(f"header {name.decode().title()}: given more than once")
        merged = b", ".join(value for found, value in headers if found == name)
        headers = [*((found, value) for found, value in headers if found != name), (name, merged)]
    request.scope["headers"] = headers


def _check_query(query: bytes, handler: HTTPRouteHandler, path: tuple[str, ...]) -> None:
    """Reject parameters that the route does not have, repeated ones, and values that are written in another way."""
    if "query" in handler.parsed_fn_signature.parameters:  # it reads the query itself
        return
    known = {name: field for name, field in find_parameters(handler, ParamType.QUERY) if name not in path}
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise ClientException("The query is not UTF-8") from None
    seen = set()
    for name, value in pairs:
        if name not in known:
            raise ClientException(f"query parameter {name!r}: not one of this route's ({', '.join(known) or 'none'})")
        if name in seen and not _is_list(known[name]):
            raise ClientException(f"query parameter {name!r}: given more than once")
        if not _is_plain(value, known[name]):
            raise ClientException(f"query parameter {name!r}: expected {describe(known[name])}, got {value!r}")
        seen.add(name)


def _is_list(field: FieldDefinition) -> bool:
    return field.is_non_string_collection or (field.is_union and any(map(_is_list, field.inner_types)))


def _is_plain(value: str, field: FieldDefinition) -> bool:
    """Tell whether a value is written as one of the types of a parameter is, as far as that is known here."""
    if field.is_literal:
        return value in map(str, field.args)
    inner = field.inner_types if field.is_union or field.is_non_string_collection else (field,)
    patterns = [PLAIN.get(one.annotation) for one in inner if not one.is_none_type and one.annotation is not Ellipsis]
    return not patterns or None in patterns or any(re.fullmatch(pattern, value) for pattern in patterns if pattern)


def find_parameters(handler: HTTPRouteHandler, kind: ParamType) -> Iterator[tuple[str, FieldDefinition]]:
    """Find the parameters of a route, and of what it depends on, by the names that requests have for them."""
    dependencies = handler.resolve_dependencies()
    fields = {**handler.resolve_layered_parameters(), **handler.parsed_fn_signature.parameters}
    used = [name for name in fields if name in dependencies]
    for name in used:  # which grows by the dependencies of dependencies
        fields |= dependencies[name].parsed_fn_signature.parameters
        used += [inner for inner in dependencies[name].parsed_fn_signature.parameters if inner in dependencies]
    for name, field in fields.items():
        definition = field.kwarg_definition
        if name in RESERVED_KWARGS or name in dependencies or field.is_di_field:
            continue
        if not isinstance(definition, ParameterKwarg):
            if kind == ParamType.QUERY:  # as Litestar takes what is only an argument of the function
                yield name, field
        elif definition.param_type == kind:
            yield definition.name or name, field


def describe(field: FieldDefinition) -> str:
    """Say in words what a parameter may be, with its bounds."""
    rules = field.kwarg_definition
    if isinstance(rules, KwargDefinition):
        if rules.ge is not None and rules.le is not None:
            return f"{_describe_type(field)} from {rules.ge:g} to {rules.le:.16g}"
        bounds = [f"{words} {bound}" for name, words in BOUNDS.items() if (bound := getattr(rules, name)) is not None]
        if rules.min_length or rules.max_length:
            lengths = [str(length) for length in (rules.min_length, rules.max_length) if length]
            words = {2: "of {} to {}", 1: "of at least {}" if rules.min_length else "of at most {}"}[len(lengths)]
            bounds.append(f"{words.format(*lengths)} characters")
        pattern = f" that matches {rules.pattern}" if rules.pattern else ""
        return f"{_describe_type(field)} {' and '.join(bounds)}".strip() + pattern
    return _describe_type(field)


def _describe_type(field: FieldDefinition) -> str:
    if field.is_literal:
        values = [str(value) for value in field.args]
    elif isinstance(field.annotation, type) and issubclass(field.annotation, Enum):
        values = [str(member.value) for member in field.annotation]
    elif field.is_union or field.is_non_string_collection:
        inner = [one for one in field.inner_types if not one.is_none_type and one.annotation is not Ellipsis]
        values = list(dict.fromkeys(map(_describe_type, inner))) or ["a text"]
    else:
        return WORDS.get(field.annotation, "another value")
    *others, last = values
    return f"{', '.join(others)} or {last}" if others else last


def _methods(request: Request[Any, Any, Any]) -> set[str]:
    """Find every method of the path; Litestar's own OPTIONS knows only those of one handler."""
    path = request.scope["path_template"]
    return {method for route in request.app.routes if route.path_format == path for method in route.methods}
