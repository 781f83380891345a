"""What becomes which problem document (RFC 9457)."""

import logging
import re
import sqlite3
from http import HTTPStatus
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from litestar import Request, Response
from litestar.enums import ParamType
from litestar.exceptions import (
    HTTPException,
    InternalServerException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from litestar_app.database import FileReplacedError
from litestar_app.idempotency import KeyInUseError, KeyReusedError
from litestar_app.lanes import TooBusyError
from litestar_app.schemas import InvalidError, Problem, UnreadableError
from litestar_app.services import StudentChangedError, StudentNotFoundError
from litestar_app.transactions import OutcomeUnknownError

logger = logging.getLogger("litestar_app")

PROBLEM_JSON = "application/problem+json"
TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""Names of RFC 9110 that Python knows from 3.13 on."""
SQLITE_AWAY = {5, 6, 7, 8, 10, 13, 14, 15}
"""SQLite's result codes for a file that is locked, full, unreachable or not writable at the moment."""
MYSQL_DEFECTS = {1054, 1136, 1364}
"""What MySQL calls operational but is a statement that does not fit its table."""


REFUSALS: dict[type[Exception], tuple[int, str]] = {
    StudentNotFoundError: (404, "Student not found"),
    StudentChangedError: (412, "The student is no longer the one of If-Match; get it again, then change it"),
    KeyInUseError: (409, "The first request with this Idempotency-Key is still running"),
    KeyReusedError: (422, "This Idempotency-Key came before with another request; send a new one"),
    IntegrityError: (409, "The database refuses this: it conflicts with what is stored"),
    DataError: (422, "The database cannot store one of these values"),
    # without Retry-After, which would invite a second change
    OutcomeUnknownError: (
        503,
        "The database was lost during COMMIT: the change may be stored or not. Look before you repeat it",
    ),
}


def make_problem(status: int, detail: str) -> Problem:
    """Make a problem document: the status says what kind, the detail what happened."""
    return Problem("about:blank", TITLES.get(status) or HTTPStatus(status).phrase, status, detail)


def answer_error(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Answer any exception; what nobody foresaw is a 500, logged under an id that the answer carries too."""
    headers: dict[str, str] | None = None
    if type(error) in REFUSALS:
        problem = make_problem(*REFUSALS[type(error)])
    elif isinstance(error, HTTPException) and error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        problem, headers = make_problem(error.status_code, _explain(request, error)), error.headers
    elif isinstance(error, InternalServerException) and "disconnected" in error.detail:
        problem = make_problem(400, "The body ends before it is complete")  # which nobody is there to read
    elif isinstance(error, UnreadableError):
        problem = make_problem(400, str(error))
    elif isinstance(error, InvalidError):
        problem = make_problem(422, "The body breaks the rules; errors lists every problem")
        problem.errors = error.errors
    elif is_outage(error):
        logger.warning("%s %s: 503: %s", request.method, quote(request.scope["path"]), getattr(error, "orig", error))
        problem = make_problem(503, "The database is locked, full or unreachable at the moment; try again")
        headers = {"Retry-After": "1"}
    else:
        request_id = request.headers.get("X-Request-ID", "")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", request_id):
            request_id = uuid4().hex
        logger.error("%s %s: 500: request %s", request.method, quote(request.scope["path"]), request_id, exc_info=error)
        problem = make_problem(500, f"A defect of this service; its log has the details under {request_id}")
        problem.request_id, headers = request_id, {"X-Request-ID": request_id}
    return Response(problem, status_code=problem.status, media_type=PROBLEM_JSON, headers=headers)


def is_outage(error: Exception) -> bool:
    """Tell a database that is locked, full, unreachable or restarting from a defect of ours."""
    if isinstance(error, PoolTimeoutError | TooBusyError | TimeoutError | InterfaceError | FileReplacedError):
        return True
    if not isinstance(error, DBAPIError) or not error.orig:
        return False
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in SQLITE_AWAY
    return error.connection_invalidated or (
        isinstance(error, OperationalError) and error.orig.args[0] not in MYSQL_DEFECTS
    )


def _explain(request: Request[Any, Any, Any], error: HTTPException) -> str:
    """Say what was wrong and what would be right, where Litestar has only the status's name."""
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        if any(extra.get("key") == "data" for extra in error.extra):
            return "The body is empty; expected JSON"
        return "; ".join(_describe(**extra) for extra in error.extra)
    if isinstance(error, NotFoundException):
        return f"There is nothing at {request.scope['path']}; /docs lists what there is"
    if isinstance(error, MethodNotAllowedException):
        return f"{request.method} is not possible here; the header Allow lists what is"
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return f"The body is over {request.route_handler.resolve_request_max_body_size()} bytes"
    return error.detail


def _describe(message: str, key: str = "", source: str = "request") -> str:
    if source == ParamType.HEADER:
        return f"header {key.replace('_', '-').title()}: {message}"
    return f"query parameter {key!r}: {message}"
