"""The routes: parse, call the service, answer."""

import asyncio
from typing import Annotated, Any

from litestar import Controller, HttpMethod, Response, delete, patch, post, put, route
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import HeaderParameter, JSONBody, PathParameter, QueryParameter
from litestar.response import Redirect

from litestar_app.errors import PROBLEM_JSON, make_problem
from litestar_app.requests import is_known, parse_id, parse_if_match
from litestar_app.schemas import (
    FieldProblem,
    Message,
    Problem,
    StudentCreate,
    StudentPatch,
    StudentRead,
    StudentUpdate,
    version_of,
)
from litestar_app.services import StudentService

READ = [HttpMethod.GET, HttpMethod.HEAD]
SHORT_PAGE = 1000
"""Rows that a page may walk over, skipped ones included, and still count as a lookup: about a millisecond."""
READY_SECONDS = 2.0
"""How long the database may take to answer before the service calls itself not ready."""

StudentId = Annotated[str, PathParameter(description="the student's id", schema_extra={"type": "integer"})]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="how many students at most")]
Offset = Annotated[int, QueryParameter(ge=0, le=2**53 - 1, description="how many students to skip")]
IfMatch = Annotated[str | None, HeaderParameter(name="If-Match", description="change it only in these versions, or *")]
IfNoneMatch = Annotated[str | None, HeaderParameter(name="If-None-Match", description="versions that need no answer")]
Key = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        pattern="^[!-~]{1,255}$",
        description="the same key with the same body gives the first answer again, for 24 hours",
    ),
]
ETAG = ResponseHeader("ETag", description="the version of the student", documentation_only=True)
LOCATION = ResponseHeader("Location", description="the path of the new student", documentation_only=True)


def says_no_with(*statuses: int) -> dict[int, ResponseSpec]:
    """Document the problem documents that a route may answer with."""
    has_body = 415 in statuses  # noqa: PLR2004  a status reads best as its number
    unreadable = "The body is not JSON: Input data was truncated" if has_body else "query parameter 'x': not one of ..."
    return {status: _document_problem(status, unreadable) for status in (*statuses, 500, 503)}


def _document_problem(status: int, unreadable: str) -> ResponseSpec:
    detail = {
        400: unreadable,
        404: "Student not found",
        409: "The database refuses this: it conflicts with what is stored",
        412: "The student is no longer the one of If-Match; get it again, then change it",
        413: "The body is over 1048576 bytes",
        415: "Expected a body with Content-Type: application/json, in UTF-8",
        422: "The body breaks the rules; errors lists every problem",
        500: "A defect of this service; its log has the details under 6f1c0d2e",
        503: "The database is locked, full or unreachable at the moment; try again",
    }[status]
    problem = make_problem(status, detail)
    if status == 422:  # noqa: PLR2004  a status reads best as its number
        problem.errors = [FieldProblem("/cgpa", "expected a number from 0 to 10")]
    example = Example("problem", value=problem)
    return ResponseSpec(
        Problem, description=problem.title, media_type=PROBLEM_JSON, examples=[example], generate_examples=False
    )


class StudentController(Controller):
    """The student and the list of students."""

    tags = ("students",)

    @route("/students", http_method=READ, status_code=200, summary="List students", responses=says_no_with(400))
    async def list_students(
        self,
        students_service: NamedDependency[StudentService],
        limit: Limit = 100,
        offset: Offset = 0,
    ) -> list[StudentRead]:
        """List students in the order of their ids."""
        lanes = students_service.lanes
        run = lanes.lookup if limit + offset <= SHORT_PAGE else lanes.scan
        return await run(students_service.list_students, limit, offset)

    @post(
        "/student",
        summary="Create a student",
        responses=says_no_with(400, 409, 413, 415, 422),
        response_headers=[LOCATION, ETAG],
    )
    async def create_student(
        self,
        data: JSONBody[StudentCreate],
        students_service: NamedDependency[StudentService],
        idempotency_key: Key = None,
    ) -> Response[StudentRead]:
        """Store a new student; the database gives the id. With an Idempotency-Key it is safe to send again."""
        with students_service.first_answers.claim(idempotency_key):
            student = await students_service.lanes.write(students_service.create_student, data, idempotency_key)
        return _show(student, Location=f"/student/{student.id}")

    @route(
        "/student/{student_id:str}",
        http_method=READ,
        status_code=200,
        summary="Get a student",
        responses={304: ResponseSpec(None, description="Not Modified"), **says_no_with(400, 404)},
        response_headers=[ETAG],
    )
    async def get_student(
        self,
        student_id: StudentId,
        students_service: NamedDependency[StudentService],
        if_none_match: IfNoneMatch = None,
    ) -> Response[StudentRead]:
        """Return one student, or 304 to a client that names its version."""
        student = await students_service.lanes.lookup(students_service.get_student, parse_id(student_id))
        if if_none_match is not None and is_known(if_none_match, version := version_of(student)):
            not_modified: Response[Any] = Response(None, status_code=304, headers={"ETag": version})
            return not_modified
        return _show(student)

    @put(
        "/student/{student_id:str}",
        summary="Replace a student",
        responses=says_no_with(400, 404, 409, 412, 413, 415, 422),
        response_headers=[ETAG],
    )
    async def update_student(
        self,
        student_id: StudentId,
        data: JSONBody[StudentUpdate],
        students_service: NamedDependency[StudentService],
        if_match: IfMatch = None,
    ) -> Response[StudentRead]:
        """Replace a student. What GET gave can be edited and sent back as it is, its id included."""
        return await _change(students_service, student_id, data, if_match)

    @patch(
        "/student/{student_id:str}",
        summary="Change a student",
        responses=says_no_with(400, 404, 409, 412, 413, 415, 422),
        response_headers=[ETAG],
    )
    async def patch_student(
        self,
        student_id: StudentId,
        data: JSONBody[StudentPatch],
        students_service: NamedDependency[StudentService],
        if_match: IfMatch = None,
    ) -> Response[StudentRead]:
        """Change what the body names and keep the rest: a merge patch (RFC 7396)."""
        return await _change(students_service, student_id, data, if_match)

    @delete(
        "/student/{student_id:str}",
        status_code=200,
        summary="Delete a student",
        responses=says_no_with(400, 404, 409, 412),
    )
    async def delete_student(
        self, student_id: StudentId, students_service: NamedDependency[StudentService], if_match: IfMatch = None
    ) -> Message:
        """Remove a student for good. Its id is never given again."""
        versions = parse_if_match(if_match)
        await students_service.lanes.write(students_service.delete_student, parse_id(student_id), versions)
        return Message("Student deleted successfully")


async def _change(
    students_service: StudentService, student_id: str, data: StudentUpdate | StudentPatch, if_match: str | None
) -> Response[StudentRead]:
    versions = parse_if_match(if_match)
    write = students_service.lanes.write
    return _show(await write(students_service.update_student, parse_id(student_id), data, versions))


def _show(student: StudentRead, **headers: str) -> Response[StudentRead]:
    return Response(student, headers={"ETag": version_of(student), **headers})


class HealthController(Controller):
    """What a supervisor or a load balancer asks."""

    path = "/health"
    tags = ("health",)

    @route("/live", http_method=READ, status_code=200, summary="Is the process up?", responses=says_no_with(400))
    async def is_live(self) -> Message:
        """Answer as long as the process does."""
        return Message("live")

    @route(
        "/ready", http_method=READ, status_code=200, summary="Does the database answer?", responses=says_no_with(400)
    )
    async def is_ready(self, students_service: NamedDependency[StudentService]) -> Message:
        """Answer 200 while the database does."""
        async with asyncio.timeout(READY_SECONDS):
            await students_service.lanes.scan(students_service.check)
        return Message("ready")


@route("/", http_method=READ, status_code=307, include_in_schema=False)
async def go_to_docs() -> Redirect:
    """Show a person the documentation."""
    return Redirect("/docs", status_code=307)
