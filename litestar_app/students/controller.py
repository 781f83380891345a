"""The routes of the students."""

from typing import Annotated, Any, ClassVar

from litestar import Controller, Request, Response, delete, patch, post, put, route
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import OpenAPIType
from litestar.params import JSONBody, PathParameter

from litestar_app.http.bodies import PATCH_TYPES, BodyDTO, MergePatchDTO, MergePatchOperation
from litestar_app.http.callers import get_caller
from litestar_app.http.conditions import IfMatch, IfNoneMatch, UnlessMatch, matches, parse_condition
from litestar_app.http.connections import run_while_connected
from litestar_app.http.docs import get_root
from litestar_app.http.parameters import READ, IdempotencyKey, parse_key, with_query
from litestar_app.http.problems import problem_responses
from litestar_app.idempotency import KeyInUseError
from litestar_app.records.record import etag
from litestar_app.records.responses import (
    check_links,
    document_headers,
    parse_id,
    respond,
    respond_with_page,
)
from litestar_app.students.exceptions import StudentNotFoundError
from litestar_app.students.record import LISTINGS
from litestar_app.students.schemas import Message, StudentCreate, StudentPatch, StudentRead, StudentUpdate
from litestar_app.students.service import StudentService

StudentId = Annotated[str, PathParameter(description="the student's id", schema_extra={"type": OpenAPIType.INTEGER})]
HEADERS = document_headers("student", "students")
# What the documentation shows of a wrong id, and of a body that cannot be read.
NOT_FOUND = {404: StudentNotFoundError.summary}
BODY = {400: "The body is not JSON: it ends too early"}


class CreateDTO(BodyDTO[StudentCreate]):
    """The body of POST."""


class UpdateDTO(BodyDTO[StudentUpdate]):
    """The body of PUT; what GET gave can be edited and sent back."""

    path_fields: ClassVar = {"id": "student_id"}


class PatchDTO(MergePatchDTO[StudentPatch]):
    """The body of PATCH."""


class StudentController(Controller):
    """Create, read, update and delete students."""

    tags = ("students",)
    return_dto = None

    @route(
        "/students",
        http_method=READ,
        status_code=200,
        summary="List students",
        response_description="The students of the page; an empty array past the end",
        responses=problem_responses(
            400, details={400: "query parameter 'limit': expected an integer from 1 to 1000, got 'ten'"}
        ),
        response_headers=[HEADERS.link, HEADERS.total],
    )
    @with_query(LISTINGS.page_query)
    async def list_students(
        self, request: Request[Any, Any, Any], students: NamedDependency[StudentService], **query: Any
    ) -> Response[list[StudentRead]]:
        """Return a page of the students, in id order or as `sort` says; the header Link leads to the other pages."""
        listing = LISTINGS.create(**query)
        check_links(listing)
        if listing.is_short and not listing.count:
            page = await students.list_page(listing)
        else:
            page = await run_while_connected(request, students.list_page(listing))
        return respond_with_page(f"{get_root(request)}/students", listing, page)

    @post(
        "/student",
        dto=CreateDTO,
        summary="Create a student",
        response_description="The student as stored",
        responses=problem_responses(400, 409, 413, 415, 422, details={**BODY, 409: KeyInUseError.summary}),
        response_headers=[HEADERS.location, HEADERS.etag],
    )
    async def create_student(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[StudentCreate],
        students: NamedDependency[StudentService],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[StudentRead]:
        """Store a new student; the database gives the id. With an Idempotency-Key the request can be retried safely."""
        caller = get_caller(request)
        key = caller.scope_key(parse_key(idempotency_key))
        student = await students.create(data, caller.name, key)
        return respond(student, Location=f"{get_root(request)}/student/{student.id}")

    @route(
        "/student/{student_id:str}",
        http_method=READ,
        status_code=200,
        summary="Get a student",
        response_description="The student",
        responses={
            304: ResponseSpec(None, description="The client has this version"),
            **problem_responses(400, 404, details=NOT_FOUND),
        },
        response_headers=[HEADERS.etag],
    )
    async def get_student(
        self, student_id: StudentId, students: NamedDependency[StudentService], if_none_match: IfNoneMatch = None
    ) -> Response[StudentRead]:
        """Return one student, or 304 if the client has this version."""
        student = await students.get(read_id(student_id))
        if if_none_match is not None and matches(if_none_match, version := etag(student)):
            not_modified: Response[Any] = Response(None, status_code=304, headers={"ETag": version})
            return not_modified
        return respond(student)

    @put(
        "/student/{student_id:str}",
        dto=UpdateDTO,
        summary="Replace a student",
        response_description="The student as replaced",
        responses=problem_responses(400, 404, 409, 412, 413, 415, 422, details={**BODY, **NOT_FOUND}),
        response_headers=[HEADERS.etag],
    )
    async def update_student(  # noqa: PLR0913, PLR0917  the parameters of the route
        self,
        request: Request[Any, Any, Any],
        student_id: StudentId,
        data: JSONBody[StudentUpdate],
        students: NamedDependency[StudentService],
        if_match: IfMatch = None,
        if_none_match: UnlessMatch = None,
    ) -> Response[StudentRead]:
        """Replace a student. The body of a GET can be edited and sent back as it is, its id included."""
        who, condition = get_caller(request).name, parse_condition(if_match, if_none_match)
        return respond(await students.change(read_id(student_id), data, who, condition))

    @patch(
        "/student/{student_id:str}",
        dto=PatchDTO,
        operation_class=MergePatchOperation,
        summary="Change a student",
        response_description="The student as changed",
        responses=problem_responses(400, 404, 409, 412, 413, 415, 422, details={**BODY, **NOT_FOUND, 415: PATCH_TYPES}),
        response_headers=[HEADERS.etag],
    )
    async def patch_student(  # noqa: PLR0913, PLR0917  the parameters of the route
        self,
        request: Request[Any, Any, Any],
        student_id: StudentId,
        data: JSONBody[StudentPatch],
        students: NamedDependency[StudentService],
        if_match: IfMatch = None,
        if_none_match: UnlessMatch = None,
    ) -> Response[StudentRead]:
        """Change the given fields and keep the others: a merge patch (RFC 7396)."""
        who, condition = get_caller(request).name, parse_condition(if_match, if_none_match)
        return respond(await students.change(read_id(student_id), data, who, condition))

    @delete(
        "/student/{student_id:str}",
        status_code=200,
        summary="Delete a student",
        response_description="The student is deleted",
        responses=problem_responses(400, 404, 409, 412, details=NOT_FOUND),
    )
    async def delete_student(
        self,
        request: Request[Any, Any, Any],
        student_id: StudentId,
        students: NamedDependency[StudentService],
        if_match: IfMatch = None,
        if_none_match: UnlessMatch = None,
    ) -> Message:
        """Delete a student for good."""
        who, condition = get_caller(request).name, parse_condition(if_match, if_none_match)
        await students.delete(read_id(student_id), who, condition)
        return Message("Student deleted successfully")


def read_id(given: str) -> int:
    """Read the id of a path, or raise StudentNotFoundError."""
    return parse_id(given, StudentNotFoundError)
