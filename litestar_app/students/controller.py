"""The routes of the students."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast
from urllib.parse import urlencode

import msgspec
from litestar import Controller, Request, Response, delete, patch, post, put, route
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import OpenAPIType, Operation, RequestBody, Schema
from litestar.params import JSONBody, PathParameter, QueryParameter

from litestar_app.exceptions import InvalidQueryError
from litestar_app.http.bodies import BodyDTO
from litestar_app.http.callers import get_caller
from litestar_app.http.conditions import IfMatch, IfNoneMatch, UnlessMatch, matches, parse_condition
from litestar_app.http.connections import run_while_connected
from litestar_app.http.docs import get_root
from litestar_app.http.parameters import MAX_QUERY, READ, IdempotencyKey, format_links, is_plain_integer, parse_key
from litestar_app.http.problems import problem_responses
from litestar_app.idempotency import KeyInUseError
from litestar_app.students.exceptions import StudentNotFoundError
from litestar_app.students.listing import BY_ID, MAX_NAME, SORT_PATTERN, Filters, Listing, create_listing
from litestar_app.students.schemas import MAX_ID, Message, StudentCreate, StudentPatch, StudentRead, StudentUpdate, etag
from litestar_app.students.service import Page, StudentService

NO_FILTERS = Filters()

StudentId = Annotated[str, PathParameter(description="the student's id", schema_extra={"type": OpenAPIType.INTEGER})]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="how many students at most")]
Offset = Annotated[
    int | None,
    QueryParameter(
        ge=0,
        le=2**53 - 1,
        description="how many students to skip; not beside a cursor",
        schema_extra={"minimum": 0},  # without a default, which generated clients would send beside a cursor
    ),
]
CursorText = Annotated[
    str | None, QueryParameter(description="where the page begins, from a Link; it keeps the filters and the sort")
]
Sort = Annotated[
    str | None,
    QueryParameter(
        description="columns, each at most once, with - before one for descending; the id breaks ties",
        schema_extra={"pattern": SORT_PATTERN, "examples": ["department,-cgpa"]},
    ),
]
Departments = Annotated[
    tuple[str, ...],
    QueryParameter(
        description="one of these, exactly; it may be repeated",
        schema_extra={"items": Schema(type=OpenAPIType.STRING, min_length=1)},
    ),
]
NameFilter = Annotated[
    str | None, QueryParameter(min_length=1, max_length=MAX_NAME, description="contained in the name, in whatever case")
]
CgpaMin = Annotated[
    float | None, QueryParameter(ge=0, le=10, description="the lowest that matches", schema_extra={"minimum": 0})
]
CgpaMax = Annotated[
    float | None, QueryParameter(ge=0, le=10, description="the highest that matches", schema_extra={"minimum": 0})
]
Count = Annotated[bool, QueryParameter(description="whether X-Total-Count tells how many students match")]
MAX_LINK = MAX_QUERY - 1500
"""Bytes of the query of a link, but for the student at a boundary: a text of 100 characters may have 400."""
# Of a header that is only documented, the value says of what type it is.
ETAG = ResponseHeader(
    "ETag",
    documentation_only=True,
    value="",
    description="the version of the student",
    example='"33c00e7dc6ec343591bbd6e5"',
)
LOCATION = ResponseHeader(
    "Location", documentation_only=True, value="", description="the path of the new student", example="/student/1"
)
LINK = ResponseHeader(
    "Link",
    documentation_only=True,
    value="",
    description="the pages first, prev and next, where there are such (RFC 8288)",
    example='</students?limit=100>; rel="first"',
)
TOTAL = ResponseHeader(
    "X-Total-Count",
    documentation_only=True,
    value=cast("Any", 0),
    description="how many students match, if count is true",
    example=250,
)
# What the documentation shows of a body that cannot be read.
NOT_FOUND = {404: StudentNotFoundError.summary}
BODY = {400: "The body is not JSON: it ends too early"}
PATCH_TYPES = "Expected a body with Content-Type: application/merge-patch+json or application/json, in UTF-8"


class CreateDTO(BodyDTO[StudentCreate]):
    """The body of POST."""


class UpdateDTO(BodyDTO[StudentUpdate]):
    """The body of PUT; what GET gave can be edited and sent back."""

    path_fields: ClassVar = {"id": "student_id"}


class PatchDTO(BodyDTO[StudentPatch]):
    """The body of PATCH."""

    media_types = ("application/merge-patch+json", "application/json")


@dataclass
class PatchOperation(Operation):
    """Documents both media types of PATCH; Litestar knows one for a body."""

    def __post_init__(self) -> None:
        body = cast("RequestBody", self.request_body)
        (content,) = body.content.values()
        body.content = dict.fromkeys(PatchDTO.media_types, content)


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
        response_headers=[LINK, TOTAL],
    )
    async def list_students(  # noqa: PLR0913, PLR0917  the parameters of the route
        self,
        request: Request[Any, Any, Any],
        students: NamedDependency[StudentService],
        limit: Limit = 100,
        offset: Offset = None,
        cursor: CursorText = None,
        sort: Sort = None,
        department: Departments = (),
        name: NameFilter = None,
        cgpa_min: CgpaMin = None,
        cgpa_max: CgpaMax = None,
        count: Count = False,  # noqa: FBT002  a query parameter
    ) -> Response[list[StudentRead]]:
        """Return a page of the students, in id order or as `sort` says; the header Link leads to the other pages."""
        listing = create_listing(
            limit=limit,
            offset=offset,
            cursor=cursor,
            sort=sort,
            department=department,
            name=name,
            cgpa_min=cgpa_min,
            cgpa_max=cgpa_max,
            count=count,
        )
        if listing.filters != NO_FILTERS:
            _check_links(listing)
        if listing.is_short and not count:
            page = await students.list_page(listing)
        else:
            page = await run_while_connected(request, students.list_page(listing))
        headers = {"Link": _link_pages(f"{get_root(request)}/students", listing, page)}
        if page.total is not None:
            headers["X-Total-Count"] = str(page.total)
        return Response(page.students, headers=headers)

    @post(
        "/student",
        dto=CreateDTO,
        summary="Create a student",
        response_description="The student as stored",
        responses=problem_responses(400, 409, 413, 415, 422, details={**BODY, 409: KeyInUseError.summary}),
        response_headers=[LOCATION, ETAG],
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
        return _respond(student, Location=f"{get_root(request)}/student/{student.id}")

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
        response_headers=[ETAG],
    )
    async def get_student(
        self, student_id: StudentId, students: NamedDependency[StudentService], if_none_match: IfNoneMatch = None
    ) -> Response[StudentRead]:
        """Return one student, or 304 if the client has this version."""
        student = await students.get(parse_id(student_id))
        if if_none_match is not None and matches(if_none_match, version := etag(student)):
            not_modified: Response[Any] = Response(None, status_code=304, headers={"ETag": version})
            return not_modified
        return _respond(student)

    @put(
        "/student/{student_id:str}",
        dto=UpdateDTO,
        summary="Replace a student",
        response_description="The student as replaced",
        responses=problem_responses(400, 404, 409, 412, 413, 415, 422, details={**BODY, **NOT_FOUND}),
        response_headers=[ETAG],
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
        return _respond(await students.change(parse_id(student_id), data, who, condition))

    @patch(
        "/student/{student_id:str}",
        dto=PatchDTO,
        operation_class=PatchOperation,
        summary="Change a student",
        response_description="The student as changed",
        responses=problem_responses(400, 404, 409, 412, 413, 415, 422, details={**BODY, **NOT_FOUND, 415: PATCH_TYPES}),
        response_headers=[ETAG],
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
        return _respond(await students.change(parse_id(student_id), data, who, condition))

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
        await students.delete(parse_id(student_id), who, condition)
        return Message("Student deleted successfully")


def parse_id(given: str) -> int:
    """Read the id of a path; raise StudentNotFoundError for what no database could hold."""
    if not is_plain_integer(given) or abs(int(given)) > MAX_ID:
        raise StudentNotFoundError
    return int(given)


def _respond(student: StudentRead, **headers: str) -> Response[StudentRead]:
    return Response(student, headers={"ETag": etag(student), **headers})


def _check_links(listing: Listing) -> None:
    """Reject filters of which a page could have a link that is too long for this service itself."""
    cursor = listing.make_cursor(None, is_backward=True)
    if max(len(_write_first(listing)), len(cursor.encode())) > MAX_LINK:
        raise InvalidQueryError(f"The filters are too long: the links to other pages have {MAX_LINK} bytes for them")


def _write_first(listing: Listing) -> str:
    """Write the filters and the sort for a query."""
    filters = msgspec.to_builtins(listing.filters)
    if listing.sort != BY_ID:
        filters["sort"] = ",".join(map(str, listing.sort))
    return urlencode(filters, doseq=True)


def _link_pages(path: str, listing: Listing, page: Page) -> str:
    """Write the header Link: to the first page and to those beside this one."""
    common = f"limit={listing.limit}{'&count=true' if listing.count else ''}"
    first = _write_first(listing)
    queries = {"first": f"{common}&{first}" if first else common}
    if page.previous:
        queries["prev"] = f"{common}&cursor={page.previous.encode()}"
    if page.next:
        queries["next"] = f"{common}&cursor={page.next.encode()}"
    return format_links(path, queries)
