"""How a request is read: bodies as JSON and nothing else, query parameters only where they are known."""

import re
from functools import lru_cache
from typing import Any, cast
from urllib.parse import parse_qsl

from litestar import Request, Response
from litestar.exceptions import ClientException, HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from litestar.typing import FieldDefinition

from litestar_app.schemas import decode_student
from litestar_app.services import StudentNotFoundError

JSON = ("application/json",)
MERGE_PATCH = ("application/merge-patch+json", "application/json")


class StudentRequest(Request[Any, Any, Any]):
    """Reads a body into the struct that its handler asks for as `data`."""

    async def json(self) -> Any:
        """Decode the body, or raise what becomes 400, 415 or 422."""
        media_type, options = self.content_type
        taken = MERGE_PATCH if self.method == "PATCH" else JSON
        if self.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(status_code=415, detail="Expected a body without Content-Encoding")
        if media_type not in taken or options.get("charset", "utf-8").lower() not in {"utf-8", "utf8"}:
            expected = f"Expected a body with Content-Type: {' or '.join(taken)}, in UTF-8"
            raise HTTPException(status_code=415, detail=expected)
        kind = cast("FieldDefinition", self.route_handler.parsed_data_field).annotation
        student_id = parse_id(self.path_params["student_id"]) if self.path_params else None
        return decode_student(await self.body(), kind, student_id)


def parse_id(given: str) -> int:
    """Read the id of a path; raise StudentNotFoundError for what no database could hold."""
    if not re.fullmatch(r"-?(0|[1-9][0-9]{0,18})", given) or abs(int(given)) >= 2**63:
        raise StudentNotFoundError
    return int(given)


def parse_if_match(header: str | None) -> frozenset[str] | None:
    """Read the versions that If-Match names; None is any. A weak tag never matches here (RFC 9110, 13.1.1)."""
    if header is None or header.strip() == "*":
        return None
    return frozenset(tag for weak, tag in re.findall(r'(W/)?("[^"]*")', header) if not weak)


def is_known(header: str | None, version: str) -> bool:
    """Tell whether If-None-Match names this version; weak tags do here (RFC 9110, 13.1.2)."""
    return header is not None and (header.strip() == "*" or version in re.findall(r'"[^"]*"', header))


async def check_request(request: Request[Any, Any, Any]) -> Response[None] | None:
    """Answer OPTIONS, and refuse a query that the route cannot take, before a handler sees it."""
    if request.method == "OPTIONS":
        return Response(None, status_code=204, headers={"Allow": ", ".join(sorted(_methods(request)))})
    if query := request.scope["query_string"]:
        _check_query(query, request.route_handler)
    return None


@lru_cache(1024)
def _check_query(query: bytes, handler: HTTPRouteHandler) -> None:
    """Refuse parameters that the route does not have, repeated ones, and numbers in other than plain digits."""
    parameters = handler.parsed_fn_signature.parameters.values()
    known = {p.name: p.annotation for p in parameters if isinstance(p.kwarg_definition, QueryParameter)}
    seen = set()
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in known:
            raise ClientException(f"query parameter {name!r}: not one of this route's ({', '.join(known) or 'none'})")
        if name in seen:
            raise ClientException(f"query parameter {name!r}: given more than once")
        if known[name] is int and not re.fullmatch(r"-?(0|[1-9][0-9]*)", value):
            raise ClientException(f"query parameter {name!r}: expected a whole number, got {value!r}")
        seen.add(name)


def _methods(request: Request[Any, Any, Any]) -> set[str]:
    """Find every method of the path; Litestar's own OPTIONS knows only those of one handler."""
    path = request.scope["path_template"]
    return {method for route in request.app.routes if route.path_format == path for method in route.methods}
