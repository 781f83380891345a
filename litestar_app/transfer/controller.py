"""The routes of import and export."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from tempfile import TemporaryFile
from typing import Annotated, Any, BinaryIO, cast

import msgspec
from litestar import Controller, HttpMethod, Request, Response, post, route
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import (
    Example,
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
)
from litestar.params import QueryParameter
from litestar.response import Stream
from msgspec import Meta

from litestar_app.database import Database
from litestar_app.exceptions import DatabaseUnavailableError
from litestar_app.http.callers import get_caller, name_caller
from litestar_app.http.connections import run_while_connected
from litestar_app.http.downloads import Download, Pace, begin
from litestar_app.http.parameters import READ, IdempotencyKey, parse_key, with_query
from litestar_app.http.problems import PROBLEM_JSON, make_problem, problem_responses
from litestar_app.http.uploads import FORM, receive_file
from litestar_app.students.record import LISTINGS, STUDENT
from litestar_app.students.reports import ImportChange, ImportedStudent, ImportProblem, Report
from litestar_app.students.schemas import CGPA_RULE
from litestar_app.transfer.exceptions import ImportRejectedError
from litestar_app.transfer.export import Format, export
from litestar_app.transfer.formats import Kind, Match
from litestar_app.transfer.imports import ImportOptions, ImportService, Mode
from litestar_app.transfer.shares import TransferShares

logger = logging.getLogger("litestar_app")

TEXT_CSV, NDJSON = "text/csv", "application/x-ndjson"
CSV = f"{TEXT_CSV}; charset=utf-8"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
MEDIA_TYPES: dict[Format, str] = {"csv": CSV, "ndjson": NDJSON, "xlsx": XLSX}

KINDS: dict[str, Kind | None] = {
    TEXT_CSV: "csv",
    "text/tab-separated-values": "csv",  # which has the delimiter of its header, whatever it is called
    NDJSON: "ndjson",
    "application/jsonl": "ndjson",
    "application/json": "json",
    XLSX: "xlsx",
    FORM: None,  # where the content decides, whatever type a browser gives the part
}
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_FORM_BYTES = 64 * 1024
"""What a form may have around its file."""
PART = 64 * 1024
"""Bytes of the rejected rows that are read at once."""
REJECTED = "A row is rejected, so nothing was imported; errors lists the problems"
IMPORT_DETAILS = {
    400: "query parameter 'mode': expected all or valid, got 'some'",
    409: "The first request with this Idempotency-Key is still running",
    413: f"The file is over {MAX_FILE_BYTES // 1024**2} MiB",
    415: f"Expected a file with Content-Type: {', '.join(KINDS)}; no Content-Encoding",
}

DryRun = Annotated[bool, QueryParameter(description="whether to report only, and write nothing")]
ModeName = Annotated[Mode, QueryParameter(description="every row or none, or the valid rows")]
MatchName = Annotated[Match, QueryParameter(description="what tells that a row is a student who is stored")]
Charset = Annotated[str | None, QueryParameter(description="of a text; else a byte order mark, Content-Type, UTF-8")]
FormatName = Annotated[Format, QueryParameter(description="what kind of file")]


EXAMPLES = {
    CSV: "id,name,department,cgpa\r\n1,Ananya,CSE,8.9\r\n",
    NDJSON: '{"id":1,"name":"Ananya","department":"CSE","cgpa":8.9}\n',
}


RULE = f"expected {CGPA_RULE}"
REPORT = Report(rejected=1, errors=[ImportProblem(7, "cgpa", "11", RULE)])


BORIS = dict.fromkeys(STUDENT.columns) | {"name": "Boris", "department": "ECE", "cgpa": 7.4}
DRY_RUN = Report(dry_run=True, created=1, changes=[ImportChange(2, None, None, ImportedStudent(**BORIS))])


class Rejection(Report, kw_only=True):
    """A problem document (RFC 9457) with the members of a report, where a row and not the whole file is wrong."""

    dry_run: Annotated[bool, Meta(description="whether nothing was to be written", examples=[False])] = False
    type: Annotated[str, Meta(examples=["about:blank"])]
    title: Annotated[str, Meta(examples=["Unprocessable Content"])]
    status: Annotated[int, Meta(examples=[422])]
    detail: Annotated[str, Meta(description="what is wrong, where it is not a row", examples=[REJECTED])]


REJECTION = msgspec.convert(
    msgspec.to_builtins(make_problem(422, REJECTED)) | msgspec.to_builtins(REPORT), type=Rejection
)


@dataclass
class ImportOperation(Operation):
    """Documents a form with a file; the handler reads the body itself.

    It takes other media types too. They are in the description only: generated clients take one, and guess wrong among
    several.
    """

    def __post_init__(self) -> None:
        responses = cast("dict[str, OpenAPIResponse]", self.responses)
        for status in ("200", "422"):
            content = cast("dict[str, OpenAPIMediaType]", responses[status].content)
            content[CSV] = OpenAPIMediaType(
                Schema(type=OpenAPIType.STRING), f"name,department,cgpa,error\r\nAnanya,CSE,11,cgpa: {RULE}\r\n"
            )
        file = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description="CSV, NDJSON, JSON or xlsx")
        form = Schema(type=OpenAPIType.OBJECT, properties={"file": file}, required=["file"])
        self.request_body = RequestBody(required=True, content={FORM: OpenAPIMediaType(form)})


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
            **problem_responses(400, details={400: f"query parameter 'cgpa_min': {RULE}, got 'ten'"}),
        },
    )
    @with_query(LISTINGS.query)
    async def export_students(
        self,
        request: Request[Any, Any, Any],
        database: NamedDependency[Database],
        shares: NamedDependency[TransferShares],
        format: FormatName = "csv",  # noqa: A002  the parameter of the route
        **query: Any,
    ) -> Download:
        """Return all students that match as a file: one state of the database, streamed."""
        listing = LISTINGS.create(**query)
        parts = shares.exports.stream(name_caller(request.scope), export(database, listing, format))
        if request.method == HttpMethod.GET:
            parts = await run_while_connected(request, begin(parts))
        pace = Pace(database.timeouts.send, database.timeouts.send_rate)
        return Download(request, parts, MEDIA_TYPES[format], f"students.{format}", pace)

    @post(
        "/import",
        status_code=200,
        operation_class=ImportOperation,
        request_max_body_size=MAX_FILE_BYTES + MAX_FORM_BYTES,
        summary="Import students",
        responses={
            200: ResponseSpec(
                Report,
                description="What the import did",
                examples=[Example(value=DRY_RUN)],
                generate_examples=False,
            ),
            **problem_responses(400, 409, 413, 415, details=IMPORT_DETAILS),
            422: ResponseSpec(
                Rejection,
                description="Unprocessable Content",
                media_type=PROBLEM_JSON,
                examples=[Example(value=REJECTION)],
                generate_examples=False,
            ),
        },
    )
    async def import_students(  # noqa: PLR0913, PLR0917  the parameters of the route
        self,
        request: Request[Any, Any, Any],
        imports: NamedDependency[ImportService],
        shares: NamedDependency[TransferShares],
        dry_run: DryRun = False,  # noqa: FBT002  a query parameter
        mode: ModeName = "all",
        match: MatchName = "id",
        charset: Charset = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Any]:
        """Create and update students from a file: every row or none, or with `mode=valid` the good ones.

        The file is the part `file` of a form; its content says what it is. It may also be the body itself, with
        `Content-Type: text/csv` or `text/tab-separated-values`, `application/x-ndjson` or `application/jsonl`,
        `application/json` (an array) or
        `application/vnd.openxmlformats-officedocument.spreadsheetml.sheet`.

        With `Accept: text/csv` the response is the rejected rows as a file, to correct and send again.
        """
        kind = _read_kind(request)
        wants_csv = _prefers_csv(request.headers.get("accept", "").lower())
        caller = get_caller(request)
        key = caller.scope_key(parse_key(idempotency_key))

        async def import_in_turn() -> Report:
            async with shares.imports.take(name_caller(request.scope)):
                return await imports.import_file(file, options, caller.name, key)

        async with receive_file(request, MAX_FILE_BYTES) as (file, declared):
            options = ImportOptions(
                kind=kind, charset=charset or declared, match=match, mode=mode, dry_run=dry_run, all_errors=wants_csv
            )
            try:
                report = await run_while_connected(request, import_in_turn())
            except ImportRejectedError as error:
                report, status = error.report, 422
            else:
                status = 200
            rejected = None
            if wants_csv:
                rejected = await run_while_connected(request, _make_rejected_file(imports, file, options, report))
            if rejected is not None:
                headers = {"Content-Disposition": 'attachment; filename="rejected.csv"'}
                return Stream(_read_parts(rejected), status_code=status, media_type=TEXT_CSV, headers=headers)
        if status == HTTPStatus.OK:
            return Response(report)
        rejection = msgspec.to_builtins(make_problem(status, REJECTED)) | msgspec.to_builtins(report)
        return Response(rejection, status_code=status, media_type=PROBLEM_JSON)


def _prefers_csv(accept: str) -> bool:
    """Tell whether CSV is accepted by its name, and no less than JSON (RFC 9110, 12.5.1)."""
    qualities = {}
    for part in accept.split(","):
        kind, *parameters = [text.strip() for text in part.split(";")]
        given = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        qualities[kind] = float(given) if re.fullmatch(r"[01](\.[0-9]{0,3})?", given) else 1.0
    json = next((qualities[kind] for kind in ("application/json", "application/*", "*/*") if kind in qualities), 0.0)
    csv = qualities.get(TEXT_CSV, qualities.get("text/*", 0.0))
    return csv > 0 and csv >= json


def _read_kind(request: Request[Any, Any, Any]) -> Kind | None:
    """Return the kind of file, as the Content-Type has it; HTTPException for another."""
    media_type = request.content_type[0]
    if media_type not in KINDS or request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(status_code=415, detail=IMPORT_DETAILS[415])
    return KINDS[media_type]


async def _make_rejected_file(
    imports: ImportService, file: BinaryIO, options: ImportOptions, report: Report
) -> BinaryIO | None:
    """Write the rejected rows to the disk: of short ones, the reasons make fifty times the file.

    None where it has no room, or no thread is free, since the import may be done, and must not be reported as failed.
    """
    try:
        rejected = cast("BinaryIO", TemporaryFile())  # noqa: SIM115  closed by what reads it
        await imports.write_rejected(file, options, report, rejected)
        rejected.seek(0)
    except (OSError, DatabaseUnavailableError) as error:
        logger.warning("the rejected rows cannot be written, so the response is the report: %s", error)
        return None
    return rejected


async def _read_parts(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while part := await asyncio.to_thread(file.read, PART):
            yield part
