"""The routes of the history."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, post, route
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Example, OpenAPIType
from litestar.params import PathParameter, QueryParameter

from litestar_app.history.exceptions import ImportNotFoundError
from litestar_app.history.schemas import Entry, ImportSummary, UndoProblem, UndoReport
from litestar_app.history.service import HistoryService, Page
from litestar_app.http.callers import get_caller
from litestar_app.http.connections import run_while_connected
from litestar_app.http.docs import get_root
from litestar_app.http.parameters import EDITOR, READ, format_links, is_plain_integer
from litestar_app.http.problems import document_problem, problem_responses
from litestar_app.http.security import NO_STORE
from litestar_app.students.controller import HEADERS, StudentId, read_id
from litestar_app.students.exceptions import StudentNotFoundError

MAX_IMPORT_ID = 2**31 - 1
NOT_UNDONE = "1 of its students changed after this import; nothing was undone"

ImportId = Annotated[str, PathParameter(description="the import's id", schema_extra={"type": OpenAPIType.INTEGER})]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="how many at most")]
CursorText = Annotated[str | None, QueryParameter(description="where the page begins, from a Link")]
LIMIT = {400: "query parameter 'limit': expected an integer from 1 to 1000, got 'ten'"}


class HistoryController(Controller):
    """What has been written, and the undo of imports."""

    tags = ("history",)

    @route(
        "/student/{student_id:str}/history",
        http_method=READ,
        opt=EDITOR,
        status_code=200,
        summary="List what has happened to a student",
        response_description="The entries of the page, newest first; an empty array where none are kept",
        responses=problem_responses(400, 404, details={**LIMIT, 404: StudentNotFoundError.summary}),
        response_headers=[HEADERS.link],
    )
    async def list_history(
        self,
        request: Request[Any, Any, Any],
        student_id: StudentId,
        history: NamedDependency[HistoryService],
        limit: Limit = 100,
        cursor: CursorText = None,
    ) -> Response[list[Entry]]:
        """Return who has created, updated and deleted a student, and when, of a deleted student too."""
        number = read_id(student_id)
        page = await history.list_entries(number, limit, cursor)
        return _respond(f"{get_root(request)}/student/{number}/history", limit, page)

    @route(
        "/imports",
        http_method=READ,
        opt=EDITOR,
        status_code=200,
        summary="List imports",
        response_description="The imports of the page, newest first",
        responses=problem_responses(400, details=LIMIT),
        response_headers=[HEADERS.link],
    )
    async def list_imports(
        self,
        request: Request[Any, Any, Any],
        history: NamedDependency[HistoryService],
        limit: Limit = 100,
        cursor: CursorText = None,
    ) -> Response[list[ImportSummary]]:
        """Return what imports have done; an undo is an import too."""
        return _respond(f"{get_root(request)}/imports", limit, await history.list_imports(limit, cursor))

    @post(
        "/imports/{import_id:str}/undo",
        status_code=200,
        summary="Undo an import",
        responses={
            200: ResponseSpec(
                UndoReport,
                description="What the undo did",
                examples=[Example(value=UndoReport(import_=8, deleted=3, updated=1))],
                generate_examples=False,
            ),
            **problem_responses(400, 404, details={404: ImportNotFoundError.summary}),
            409: document_problem(409, NOT_UNDONE, UndoProblem, students=[1]),
        },
    )
    async def undo_import(
        self, request: Request[Any, Any, Any], import_id: ImportId, history: NamedDependency[HistoryService]
    ) -> Response[UndoReport]:
        """Revert all that an import has changed, or nothing where one of its students has changed since.

        The undo is an import itself, which can be undone.
        """
        if not is_plain_integer(import_id) or not 0 < int(import_id) <= MAX_IMPORT_ID:
            raise ImportNotFoundError
        undoing = history.undo(int(import_id), get_caller(request).name)
        return Response(await run_while_connected(request, undoing))


def _respond(path: str, limit: int, page: Page) -> Response[list[Any]]:
    queries = {"first": f"limit={limit}"}
    for relation, cursor in (("prev", page.previous), ("next", page.next)):
        if cursor:
            queries[relation] = f"limit={limit}&cursor={cursor.encode()}"
    # a Link is otherwise one of students, which a browser may keep
    return Response(page.rows, headers={"Link": format_links(path, queries), **NO_STORE})
