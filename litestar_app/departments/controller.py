"""Departments: how many students each has, and their CGPA, as numbers and as a chart."""

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import Controller, HttpMethod, MediaType, Request, Response, get, route
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Example
from litestar.response.base import ASGIResponse
from msgspec import Meta, Struct
from sqlalchemy import LargeBinary, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from litestar_app.database import Database
from litestar_app.http.connections import run_while_connected
from litestar_app.http.problems import problem_responses
from litestar_app.students.record import STUDENT

SVG = "image/svg+xml"
STEP = 1000
CHART = ResponseSpec(
    str,
    description="The chart; a browser shows it as it is or in an `<img>`, in the colours of a light or a dark page",
    media_type=SVG,
    examples=[Example(value='<svg xmlns="http://www.w3.org/2000/svg" role="img"><title>Students</title></svg>')],
    generate_examples=False,
)


class DepartmentSummary(Struct, gc=False):
    """The students of a department; the CGPAs are null where no student has one."""

    department: Annotated[
        str | None, Meta(description="null for students who have none, as another program may store", examples=["CSE"])
    ]
    students: Annotated[int, Meta(description="how many", examples=[1])]
    cgpa_mean: Annotated[float | None, Meta(examples=[8.9])]
    cgpa_min: Annotated[float | None, Meta(examples=[8.9])]
    cgpa_max: Annotated[float | None, Meta(examples=[8.9])]


class CodePoints(FunctionElement[bytes]):
    """A text column, compared by code point, whatever collation it has in a table of another program."""

    inherit_cache = True
    type = LargeBinary()


@compiles(CodePoints, "sqlite")
def _compile_for_sqlite(element: CodePoints, compiler: SQLCompiler, **options: Any) -> str:
    return f"{compiler.process(element.clauses, **options)} COLLATE BINARY"  # which an index on it serves


@compiles(CodePoints, "mysql", "mariadb")
def _compile_for_mysql(element: CodePoints, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST(CONVERT({compiler.process(element.clauses, **options)} USING utf8mb4) AS BINARY)"


CGPA = STUDENT.table.c.cgpa + 0.0  # a double: a column of SQLite may hold anything
DEPARTMENT = CodePoints(STUDENT.table.c.department)
SUMMARIES = (
    select(
        func.min(STUDENT.table.c.department),  # all of a group are the same
        func.count(),
        func.avg(CGPA),
        func.min(CGPA),
        func.max(CGPA),
    )
    .group_by(DEPARTMENT)
    .order_by(DEPARTMENT)
)


async def summarize(database: Database) -> list[DepartmentSummary]:
    """Return every department that has a student, by code point, those without one first."""
    rows = await database.fetch(SUMMARIES, {}, short=False)
    return await asyncio.to_thread(
        lambda: [
            DepartmentSummary(department, students, _clamp(mean, low, high), low, high)
            for department, students, mean, low, high in rows
        ]
    )


def _encode(departments: list[DepartmentSummary]) -> bytes:
    """Write them as JSON, some at a time: what msgspec does is one step, in which no other thread runs."""
    steps = range(0, len(departments), STEP)
    return b"[%s]" % b",".join(msgspec.json.encode(departments[first : first + STEP])[1:-1] for first in steps)


def _clamp(mean: float | None, low: float | None, high: float | None) -> float | None:
    """Take back what rounding adds to a mean: that of three times 8.9 is not 8.900000000000002."""
    return None if mean is None or low is None or high is None else min(max(mean, low), high)


class DepartmentController(Controller):
    """The departments as numbers and as a chart. HEAD, which needs neither, runs no query."""

    tags = ("departments",)

    @get(
        "/departments",
        summary="Summarize the departments",
        response_description="Every department that has a student, ordered by its name; an empty array if none has",
        responses=problem_responses(400),
    )
    async def list_departments(
        self, request: Request[Any, Any, Any], database: NamedDependency[Database]
    ) -> Response[list[DepartmentSummary]]:
        """Return how many students each department has, and their mean, lowest and highest CGPA."""
        departments = await run_while_connected(request, summarize(database))
        content: Any = await asyncio.to_thread(_encode, departments)  # here it would hold up the event loop
        return Response(content, media_type=MediaType.JSON)

    @route("/departments", http_method=HttpMethod.HEAD, status_code=200, include_in_schema=False)
    async def head_departments(self) -> ASGIResponse:
        """Respond without a length, which only the query could tell."""
        return ASGIResponse(is_head_response=True, headers={"Content-Type": "application/json"})

    @get(
        "/departments.svg",
        media_type=SVG,
        summary="Chart the departments",
        # the page /docs shows the chart itself; Swagger UI prints the source of an SVG that it has fetched
        description="Return a picture of the same: students and mean CGPA by department, in words too, for screen "
        "readers.\n\n![Students and mean CGPA by department](departments.svg)",
        responses={200: CHART, **problem_responses(400)},
    )
    async def get_chart(self, request: Request[Any, Any, Any], database: NamedDependency[Database]) -> Response[str]:
        """Draw the chart on a thread, since of a thousand departments it takes milliseconds."""
        from litestar_app.departments.chart import HEADERS, draw_chart  # noqa: PLC0415  no start and no other route needs it

        departments = await run_while_connected(request, summarize(database))
        return Response(await asyncio.to_thread(draw_chart, departments), media_type=SVG, headers=HEADERS)

    @route("/departments.svg", http_method=HttpMethod.HEAD, status_code=200, include_in_schema=False)
    async def head_chart(self) -> ASGIResponse:
        """Respond without a length, which only the chart could tell."""
        from litestar_app.departments.chart import HEADERS  # noqa: PLC0415

        return ASGIResponse(is_head_response=True, headers={"Content-Type": SVG, **HEADERS})
