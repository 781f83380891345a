"""The routes of a record of your own: what `students/controller.py` spells out for the student."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, Response, delete, patch, post, put, route
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import OpenAPIType
from litestar.params import JSONBody, PathParameter
from msgspec import UNSET, UnsetType

from litestar_app.http.bodies import PATCH_TYPES, BodyDTO, MergePatchDTO, MergePatchOperation
from litestar_app.http.callers import get_caller
from litestar_app.http.conditions import IfMatch, IfNoneMatch, UnlessMatch, matches, parse_condition
from litestar_app.http.connections import run_while_connected
from litestar_app.http.docs import get_root
from litestar_app.http.parameters import READ, IdempotencyKey, parse_key, with_query
from litestar_app.http.problems import problem_responses
from litestar_app.idempotency import KeyInUseError
from litestar_app.records.fields import GivenId
from litestar_app.records.listing import Listings
from litestar_app.records.record import etag
from litestar_app.records.responses import (
    check_links,
    document_headers,
    parse_id,
    respond,
    respond_with_page,
)
from litestar_app.records.service import RecordService

BODY = {400: "The body is not JSON: it ends too early"}
LIMIT = {400: "query parameter 'limit': expected an integer from 1 to 1000, got 'ten'"}


def create_controller(records: RecordService[Any], one: str, many: str) -> type[Controller]:
    """Make a controller with the six routes that a student has: `/<one>`, `/<one>/{id}` and `/<many>`."""
    record, not_found, listings = records.record, records.not_found, Listings(records.record)
    missing, headers = {404: not_found.summary}, document_headers(one, many)
    # annotations that Litestar reads when it registers the handlers
    create_type: Any = record.create
    patch_type: Any = record.patch
    read_type: Any = record.read
    id_type: Any = Annotated[
        str, PathParameter(description=f"the {one}'s id", schema_extra={"type": OpenAPIType.INTEGER})
    ]
    update_type: Any = msgspec.defstruct(  # what GET gave can be edited and sent back
        f"{one.capitalize()}Update",
        [("id", GivenId | UnsetType, UNSET)],
        bases=(create_type,),
        forbid_unknown_fields=True,
    )
    create_dto = type(f"{create_type.__name__}DTO", (BodyDTO[create_type],), {})
    update_dto = type(f"{update_type.__name__}DTO", (BodyDTO[update_type],), {"path_fields": {"id": "record_id"}})
    patch_dto = type(f"{patch_type.__name__}DTO", (MergePatchDTO[patch_type],), {})

    class RecordController(Controller):
        tags = (many,)
        return_dto = None

        @route(
            f"/{many}",
            http_method=READ,
            status_code=200,
            operation_id=f"list_{many}",
            summary=f"List {many}",
            responses=problem_responses(400, details=LIMIT),
            response_headers=[headers.link, headers.total],
        )
        @with_query(listings.page_query)
        async def list_records(self, request: Request[Any, Any, Any], **query: Any) -> Response[list[read_type]]:
            listing = listings.create(**query)
            check_links(listing)
            page = await run_while_connected(request, records.list_page(listing))
            return respond_with_page(f"{get_root(request)}/{many}", listing, page)

        @post(
            f"/{one}",
            dto=create_dto,
            operation_id=f"create_{one}",
            summary=f"Create a {one}",
            responses=problem_responses(400, 409, 413, 415, 422, details={**BODY, 409: KeyInUseError.summary}),
            response_headers=[headers.location, headers.etag],
        )
        async def create_record(
            self, request: Request[Any, Any, Any], data: JSONBody[create_type], idempotency_key: IdempotencyKey = None
        ) -> Response[read_type]:
            caller = get_caller(request)
            created = await records.create(data, caller.name, caller.scope_key(parse_key(idempotency_key)))
            return respond(created, Location=f"{get_root(request)}/{one}/{created.id}")

        @route(
            f"/{one}/{{record_id:str}}",
            http_method=READ,
            status_code=200,
            operation_id=f"get_{one}",
            summary=f"Get a {one}",
            responses={
                304: ResponseSpec(None, description="The client has this version"),
                **problem_responses(400, 404, details=missing),
            },
            response_headers=[headers.etag],
        )
        async def get_record(self, record_id: id_type, if_none_match: IfNoneMatch = None) -> Response[read_type]:
            found = await records.get(parse_id(record_id, not_found))
            if if_none_match is not None and matches(if_none_match, version := etag(found)):
                return Response(None, status_code=304, headers={"ETag": version})
            return respond(found)

        @put(
            f"/{one}/{{record_id:str}}",
            dto=update_dto,
            operation_id=f"update_{one}",
            summary=f"Replace a {one}",
            responses=problem_responses(400, 404, 409, 412, 413, 415, 422, details={**BODY, **missing}),
            response_headers=[headers.etag],
        )
        async def update_record(
            self,
            request: Request[Any, Any, Any],
            record_id: id_type,
            data: JSONBody[update_type],
            if_match: IfMatch = None,
            if_none_match: UnlessMatch = None,
        ) -> Response[read_type]:
            who, condition = get_caller(request).name, parse_condition(if_match, if_none_match)
            return respond(await records.change(parse_id(record_id, not_found), data, who, condition))

        @patch(
            f"/{one}/{{record_id:str}}",
            dto=patch_dto,
            operation_class=MergePatchOperation,
            operation_id=f"patch_{one}",
            summary=f"Change a {one}",
            responses=problem_responses(
                400, 404, 409, 412, 413, 415, 422, details={**BODY, **missing, 415: PATCH_TYPES}
            ),
            response_headers=[headers.etag],
        )
        async def patch_record(
            self,
            request: Request[Any, Any, Any],
            record_id: id_type,
            data: JSONBody[patch_type],
            if_match: IfMatch = None,
            if_none_match: UnlessMatch = None,
        ) -> Response[read_type]:
            who, condition = get_caller(request).name, parse_condition(if_match, if_none_match)
            return respond(await records.change(parse_id(record_id, not_found), data, who, condition))

        @delete(
            f"/{one}/{{record_id:str}}",
            status_code=204,
            operation_id=f"delete_{one}",
            summary=f"Delete a {one}",
            responses=problem_responses(400, 404, 409, 412, details=missing),
        )
        async def delete_record(
            self,
            request: Request[Any, Any, Any],
            record_id: id_type,
            if_match: IfMatch = None,
            if_none_match: UnlessMatch = None,
        ) -> None:
            who, condition = get_caller(request).name, parse_condition(if_match, if_none_match)
            await records.delete(parse_id(record_id, not_found), who, condition)

    return RecordController
