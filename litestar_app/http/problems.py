"""Problem documents (RFC 9457): which exception becomes which, and how they are documented."""

import logging
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from traceback import walk_tb
from typing import Annotated, Any

import msgspec
from litestar import Request, Response
from litestar.enums import ParamType
from litestar.exceptions import (
    HTTPException,
    InternalServerException,
    MethodNotAllowedException,
    NotFoundException,
    SerializationException,
    ValidationException,
)
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import ParameterKwarg
from litestar.response.base import ASGIResponse
from litestar.types import HTTPScope, Receive, Send
from msgspec import UNSET, Meta, Struct, UnsetType, field

from litestar_app.exceptions import (
    RETRY_AFTER,
    ConstraintError,
    DatabaseUnavailableError,
    InvalidBodyError,
    QuotaExceededError,
    ResourceError,
    StudentRecordsError,
)
from litestar_app.http.access_log import describe, name_method, name_route
from litestar_app.http.conditions import CHANGED
from litestar_app.http.parameters import describe as describe_parameter
from litestar_app.http.parameters import find_parameters, is_plain_integer
from litestar_app.http.translation import find_body_problem, translate
from litestar_app.resources import find_refusal

logger = logging.getLogger("litestar_app")

PROBLEM_JSON = "application/problem+json"
TITLES = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}
"""Names of RFC 9110 that Python knows from 3.13 on."""
DETAILS = {
    400: "query parameter 'x': not one of this route's (none)",
    401: "Expected an API key, as Authorization: Bearer sr_…",
    403: "Sec-Fetch-Site: cross-site; expected same-origin or none: in a browser, only pages of this service may write",
    409: ConstraintError.summary,
    412: CHANGED,
    413: "The body is over 1 MiB",
    415: "Expected a body with Content-Type: application/json, in UTF-8",
    422: InvalidBodyError.summary,
    429: QuotaExceededError.summary,
    500: "A defect of this service; its log has the details under 6f1c0d2e",
    503: DatabaseUnavailableError.summary,
}
"""What the documentation shows of each status."""


class FieldProblem(Struct):
    """One problem of a body."""

    pointer: Annotated[str, Meta(description="where, as a JSON Pointer (RFC 6901)", examples=["/cgpa"])]
    detail: Annotated[str, Meta(description="what is expected there", examples=["expected a number from 0 to 10"])]


class Problem(Struct, omit_defaults=True):
    """A problem document (RFC 9457)."""

    type: Annotated[
        str, Meta(description="about:blank where the status says what kind it is", examples=["about:blank"])
    ]
    title: Annotated[str, Meta(description="the name of the status", examples=["Not Found"])]
    status: Annotated[int, Meta(description="the status of the response", examples=[404])]
    detail: Annotated[str, Meta(description="what is wrong, and what would be right", examples=["Student not found"])]
    errors: (
        Annotated[
            list[FieldProblem],
            Meta(
                description="every problem of the body",
                examples=[[{"pointer": "/cgpa", "detail": "expected a number from 0 to 10"}]],
            ),
        ]
        | UnsetType
    ) = UNSET
    total_errors: (
        Annotated[int, Meta(description="how many problems there are, where errors lists only some", examples=[250])]
        | UnsetType
    ) = UNSET
    violated_policies: (
        Annotated[
            list[str], Meta(description="of the rate limit: the names in RateLimit-Policy", examples=[["default"]])
        ]
        | UnsetType
    ) = field(default=UNSET, name="violated-policies")
    request_id: (
        Annotated[str, Meta(description="what the log has the details under", examples=["6f1c0d2e"])] | UnsetType
    ) = UNSET


MISSING = re.compile(r"Missing required (query|header|cookie|path) parameter '(.*)' for path ")
"""What Litestar says of a parameter that is not given."""
PARAMETERS = frozenset(ParamType)
STOPPING = "The service is stopping; retry later"
# without Retry-After, as above
STOPPING_WRITE = "The service is stopping: the change may or may not be stored; check before you repeat it"
SAFE = {"GET", "HEAD", "OPTIONS"}
ON_PURPOSE = frozenset(range(200, 600)) - {500}
"""Statuses that a handler may raise; 500 is a defect, as is what is no status of HTTP."""


def make_problem(status: int, detail: str) -> Problem:
    """Make a problem document: the status says what kind, the detail what happened."""
    return Problem("about:blank", TITLES.get(status) or _find_title(status), status, detail)


def _find_title(status: int) -> str:
    """Return the name of a status; one that nobody has registered has that of its class."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "Server Error"


def create_responder(
    translate_error: Callable[[Exception, str], Exception],
) -> Callable[[Request[Any, Any, Any], Exception], Response[Any]]:
    """Make the handler of every exception; an unexpected one is a 500, logged under an id that the response has too.

    Take what makes an error of a library, raised by a request with this method, one of ours where it is no defect.
    """

    def respond_to_error(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        error = _name_refusal(request, error)
        if not isinstance(error, HTTPException | StudentRecordsError):
            error = translate_error(error, request.method)
        if isinstance(error, StudentRecordsError) and error.status is not None:
            content: Any = _explain_ours(request, error)
            status, headers = error.status, error.headers
        else:
            content = _explain_body(request, error) or _explain(request, error)
            status, headers = content.status, error.headers if isinstance(error, HTTPException) else None
        return Response(content, status_code=status, media_type=PROBLEM_JSON, headers=headers)

    return respond_to_error


def _explain_ours(request: Request[Any, Any, Any], error: StudentRecordsError) -> Any:
    """Return the document that the error itself says."""
    problem = make_problem(error.status or HTTPStatus.INTERNAL_SERVER_ERROR, error.detail)
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        reason = f"{error} ({error.__cause__})" if isinstance(error, ResourceError) else error
        logger.warning("%s: 503: %s", describe(request), reason, extra={"request_id": request.state.request_id})
    return problem if not error.members else msgspec.to_builtins(problem) | error.members


def _name_refusal(request: Request[Any, Any, Any], error: Exception) -> Exception:
    """Return a ResourceError if the system has refused something and no other error of ours says more."""
    is_known = isinstance(error, (StudentRecordsError, HTTPException)) and type(error) is not DatabaseUnavailableError
    if is_known or (reason := find_refusal(error)) is None:
        return error
    is_unchanged = isinstance(error, DatabaseUnavailableError) or request.method in SAFE
    refusal = ResourceError(reason, is_unchanged=is_unchanged)
    refusal.__cause__ = error
    return refusal


def _explain_body(request: Request[Any, Any, Any], error: Exception) -> Problem | None:
    """Explain what is wrong with a body that Litestar has decoded, as it does for handlers without a `BodyDTO`."""
    if isinstance(error, RecursionError) and "deserializing" in str(error):
        return make_problem(400, "The body is nested too deeply")
    if isinstance(error, InternalServerException) and "disconnected" in error.detail:
        return make_problem(400, "The body ends before it is complete")  # which nobody is there to read
    if isinstance(error, HTTPException) and isinstance(error.__cause__, SerializationException):
        return make_problem(400, f"The body cannot be decoded: {error.detail}")
    if isinstance(error, SerializationException | UnicodeDecodeError) and _is_of_body(
        error
    ):  # the last of msgspec 0.22
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.detail
        return make_problem(400, f"The body cannot be decoded: {reason}")
    if isinstance(error, ValidationException) and request.headers.get("content-length") != "0":
        found = find_body_problem(str(error.__cause__))
        if found is not None:
            problem = make_problem(422, "The body is not valid; errors has the first problem")
            problem.errors = [FieldProblem(*found)]
            return problem
    return None


def _is_of_body(error: Exception) -> bool:
    """Tell whether a handler that reads the body itself has failed to decode it, and nothing else."""
    decoders = {Request.json.__code__, Request.msgpack.__code__}
    return any(frame.f_code in decoders for frame, _ in walk_tb(error.__traceback__))


def _explain(request: Request[Any, Any, Any], error: Exception) -> Problem:
    """Say what was wrong and what would be right, where Litestar has only the status's name."""
    if not isinstance(error, HTTPException) or error.status_code not in ON_PURPOSE:
        return _log_defect(request, error)
    detail = error.detail
    if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        extra = {"request_id": request.state.request_id}
        logger.warning("%s: %d: %s", describe(request), error.status_code, detail, extra=extra)
        return make_problem(error.status_code, detail)
    if isinstance(error, ValidationException):
        detail = _explain_parameters(request, error)
    elif isinstance(error, NotFoundException) and detail == HTTPStatus.NOT_FOUND.phrase:  # in nobody's words
        detail = f"There is nothing at {request.scope['path']}; /docs lists what there is"
    elif isinstance(error, MethodNotAllowedException):
        detail = f"{request.method} is not possible here; the header Allow lists what is"
    elif error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and isinstance(
        request.route_handler, HTTPRouteHandler
    ):
        detail = f"The body is over {(request.route_handler.resolve_request_max_body_size() or 0) // 1024**2} MiB"
    return make_problem(error.status_code, detail)


def _explain_parameters(request: Request[Any, Any, Any], error: ValidationException) -> str:
    if isinstance(error.extra, list):
        if any(extra.get("key") == "data" for extra in error.extra):
            return "The body is empty; expected JSON"
        return "; ".join(_describe(request, **extra) for extra in error.extra)
    if missing := MISSING.match(error.detail):
        kind = ParamType(missing[1])
        field = dict(find_parameters(request.route_handler, kind)).get(missing[2])
        expected = f"; expected {describe_parameter(field)}" if field else ""
        return f"{_name(kind, missing[2])}: missing{expected}"
    return error.detail


async def respond_to_stop(scope: HTTPScope, receive: Receive, send: Send) -> None:
    """Respond to a request that the server has cancelled, since it stops; what it has begun may still be committed."""
    is_safe = scope["method"] in SAFE
    problem = make_problem(503, STOPPING if is_safe else STOPPING_WRITE)
    headers = {"Retry-After": str(RETRY_AFTER)} if is_safe else None
    extra = {"request_id": scope["state"]["request_id"]}
    logger.warning("%s %s: 503: %s", name_method(scope), name_route(scope), problem.detail, extra=extra)
    content = msgspec.json.encode(problem)
    await ASGIResponse(body=content, status_code=problem.status, media_type=PROBLEM_JSON, headers=headers)(
        scope, receive, send
    )


def _log_defect(request: Request[Any, Any, Any], error: Exception) -> Problem:
    request_id = request.state.request_id
    extra = {"request_id": request_id}
    logger.error("%s: 500: request %s", describe(request), request_id, exc_info=error, extra=extra)
    problem = make_problem(500, f"A defect of this service; its log has the details under {request_id}")
    problem.request_id = request_id
    return problem


def _describe(request: Request[Any, Any, Any], message: str, key: str = "", source: str = "request") -> str:
    """Say what a parameter may be, and what it was; Litestar knows it by the name that the handler has for it."""
    fields = request.route_handler.parsed_fn_signature.parameters
    field = fields.get(key)
    kind = ParamType(source) if source in PARAMETERS else ParamType.QUERY
    definition = field.kwarg_definition if field else None
    if isinstance(definition, ParameterKwarg):
        kind = definition.param_type
    name = definition.name or key if isinstance(definition, ParameterKwarg) else key
    expected = f"expected {describe_parameter(field)}" if field else translate(message)
    given = _get_given(request, kind, name)
    return f"{_name(kind, name)}: {expected}" if given is None else f"{_name(kind, name)}: {expected}, got {given}"


def _name(kind: ParamType, name: str) -> str:
    return f"header {name.title()}" if kind == ParamType.HEADER else f"{kind.value} parameter {name!r}"


def _get_given(request: Request[Any, Any, Any], kind: ParamType, name: str) -> str | None:
    """Return a value as a message shows it; of several, all."""
    if kind == ParamType.QUERY:
        values: list[Any] = request.query_params.getall(name, [])
    else:
        places: dict[ParamType, Mapping[str, Any]] = {
            ParamType.HEADER: request.headers,
            ParamType.COOKIE: request.cookies,
            ParamType.PATH: request.path_params,
        }
        values = [places[kind][name]] if name in places[kind] else []
    texts = [value if is_plain_integer(value) else repr(value) for value in map(str, values)]
    return ", ".join(texts) or None


def problem_responses(
    *statuses: int, details: dict[int, str] | None = None, is_public: bool = False
) -> dict[int, ResponseSpec]:
    """Document the problem documents that a route may respond with, beside those of every route.

    A public one needs no API key. What `details` does not have stands in DETAILS, as fits a route without query
    parameters and without a body.
    """
    details = DETAILS | (details or {})
    common = (403, 500, 503) if is_public else (401, 403, 429, 500, 503)
    return {status: document_problem(status, details[status]) for status in (*statuses, *common)}


def document_problem(status: int, detail: str, kind: type[Problem] = Problem, **members: Any) -> ResponseSpec:
    """Document a problem by an example of it; its kind may have members of its own."""
    problem = make_problem(status, detail)
    if status == 422:  # noqa: PLR2004  a status reads best as its number
        problem.errors = [FieldProblem("/cgpa", "expected a number from 0 to 10")]
    if status == 429:  # noqa: PLR2004
        members = QuotaExceededError().members
    if status == 500:  # noqa: PLR2004
        problem.request_id = "6f1c0d2e"
    value = msgspec.convert(msgspec.to_builtins(problem) | members, kind)
    example = Example(value=value)  # without an id, which Litestar would write into the document
    return ResponseSpec(
        kind,
        description=value.title,
        media_type=PROBLEM_JSON,
        examples=[example],
        generate_examples=False,
    )
