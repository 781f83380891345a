"""The routes of import and export."""

from dataclasses import dataclass
from typing import Annotated, Any, cast

from litestar import Controller, HttpMethod, Request, route
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Operation, Schema
from litestar.params import QueryParameter

from litestar_app.database import Database
from litestar_app.http.downloads import Download, begin
from litestar_app.http.problems import problem_responses
from litestar_app.students.controller import CgpaMax, CgpaMin, Departments, NameFilter, Sort
from litestar_app.students.listing import create_listing
from litestar_app.transfer.export import Format, export

READ = [HttpMethod.GET, HttpMethod.HEAD]
CSV, NDJSON = "text/csv; charset=utf-8", "application/x-ndjson"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
MEDIA_TYPES: dict[Format, str] = {"csv": CSV, "ndjson": NDJSON, "xlsx": XLSX}

FormatName = Annotated[Format, QueryParameter(description="what kind of file")]


EXAMPLES = {
    CSV: "id,name,department,cgpa\r\n1,Ananya,CSE,8.9\r\n",
    NDJSON: '{"id":1,"name":"Ananya","department":"CSE","cgpa":8.9}\n',
}


@dataclass
class ExportOperation(Operation):
    """Documents the three kinds of files; Litestar knows one media type for a response."""

    def __post_init__(self) -> None:
        responses = cast("dict[str, OpenAPIResponse]", self.responses)
        responses["200"].content = {
            **{kind: OpenAPIMediaType(Schema(type=OpenAPIType.STRING), example) for kind, example in EXAMPLES.items()},
            XLSX: OpenAPIMediaType(Schema(content_media_type=XLSX)),
        }


class TransferController(Controller):
    """Students as files."""

    path = "/students"
    tags = ("transfer",)

    @route(
        "/export",
        http_method=READ,
        status_code=200,
        operation_class=ExportOperation,
        summary="Export students",
        responses={
            200: ResponseSpec(str, description="A file with all students that match", media_type=CSV),
            **problem_responses(400, details={400: "query parameter 'cgpa_min': expected a number, got 'ten'"}),
        },
    )
    async def export_students(  # noqa: PLR0913, PLR0917  the parameters of the route
        self,
        request: Request[Any, Any, Any],
        database: NamedDependency[Database],
        format: FormatName = "csv",  # noqa: A002  the parameter of the route
        sort: Sort = None,
        department: Departments = (),
        name: NameFilter = None,
        cgpa_min: CgpaMin = None,
        cgpa_max: CgpaMax = None,
    ) -> Download:
        """Return all students that match as a file: one state of the database, streamed."""
        listing = create_listing(sort=sort, department=department, name=name, cgpa_min=cgpa_min, cgpa_max=cgpa_max)
        parts = export(database, listing, format)
        if request.method == HttpMethod.GET:
            parts = await begin(parts)
        return Download(request, parts, MEDIA_TYPES[format], f"students.{format}")
