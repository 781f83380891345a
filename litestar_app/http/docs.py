"""The OpenAPI document and its Swagger UI page, from files that this service itself serves."""

import base64
import hashlib
from functools import cache
from typing import Any
from urllib.parse import quote

import msgspec
from litestar import HttpMethod, Litestar, MediaType, Request, Response, Router, route
from litestar._openapi.schema_generation import SchemaCreator
from litestar.datastructures import ResponseHeader
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import Contact, License, Schema, Tag
from litestar.params import FromPath
from litestar.plugins import OpenAPISchemaPlugin
from litestar.types import Method
from litestar.typing import FieldDefinition
from swagger_ui_bundle import swagger_ui_path

from litestar_app.http.problems import RETRY_AFTER

ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
SCRIPT = """
const page = document.getElementById("docs");
SwaggerUIBundle({
  url: page.dataset.document, domNode: page, deepLinking: true, tryItOutEnabled: true, defaultModelsExpandDepth: 0,
});
"""
PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Student Records</title>
<link rel="icon" type="image/png" href="ROOT/docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="ROOT/docs/assets/swagger-ui.css">
</head>
<body>
<div id="docs" data-document="ROOT/openapi.json"></div>
<script src="ROOT/docs/assets/swagger-ui-bundle.js"></script>
<script>{SCRIPT}</script>
</body>
</html>
"""
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    f"script-src 'self' 'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
WAIT = {
    "description": "how many seconds to wait before a retry",
    "schema": {"type": "integer"},
    "example": RETRY_AFTER,
}


def create_openapi_config(version: str) -> OpenAPIConfig:
    """Describe the service and put its page under /docs."""
    return OpenAPIConfig(
        title="Student Records",
        version=version,
        description="The students of a small department. Every error is a problem document (RFC 9457).",
        contact=Contact(name="The Student Records maintainers"),
        license=License(name="MIT", identifier="MIT"),
        tags=[
            Tag("students", description="Create, read, update and delete students."),
            Tag("health", description="Whether the process and its database respond."),
        ],
        security=[],
        operation_id_creator=_name_operation,
        use_handler_docstrings=True,
        render_plugins=[DocsPlugin(path="/")],
        openapi_router=Router(
            "/docs",
            route_handlers=[],
            include_in_schema=False,
            after_request=_reject_unknown_page,
            response_headers=[ResponseHeader("Content-Security-Policy", value=POLICY)],
        ),
    )


def _name_operation(handler: HTTPRouteHandler, method: Method, _path: object) -> str:
    """Name an operation after its function; HEAD, which the document leaves out, must still differ from GET."""
    return f"head_{handler.handler_name}" if method == HttpMethod.HEAD else handler.handler_name


class StructSchemas(OpenAPISchemaPlugin):
    """Documents a struct with msgspec's own JSON Schema, which says what msgspec accepts.

    Litestar's knows neither unknown fields nor `readOnly`, and of a field that may be unset it makes a `oneOf` with one
    member and loses `minimum: 0`.
    """

    @staticmethod
    def is_plugin_supported_type(value: object) -> bool:
        """Tell whether a type is a struct."""
        return isinstance(value, type) and issubclass(value, msgspec.Struct)

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: SchemaCreator) -> Schema:
        """Make the schema of a struct."""
        struct = field_definition.annotation
        _, schemas = msgspec.json.schema_components([struct], ref_template="#/components/schemas/{name}")
        schema = schema_creator.schema_registry.get_schema_for_field_definition(field_definition)
        attributes = schema.field_aliases()
        for key, value in schemas[struct.__name__].items():
            setattr(schema, attributes.get(key, key), value)
        for field in msgspec.structs.fields(struct):  # which adds the structs that this one refers to
            schema_creator.for_field_definition(FieldDefinition.from_annotation(field.type))
        return schema


@cache
def _describe(app: Litestar) -> dict[str, Any]:
    """Add to Litestar's document what it cannot be told."""
    document = app.openapi_schema.to_schema()
    schemas = document["components"]["schemas"]
    for path_item in document["paths"].values():
        path_item.pop("head", None)  # which every GET has, and which would double the page
        for operation in path_item.values():
            for parameter in operation.get("parameters", []):
                if types := parameter["schema"].pop("oneOf", None):  # of a header that may be absent, but not null
                    parameter["schema"]["type"] = types[0]["type"]
            responses = operation["responses"]
            responses["503"]["headers"] = {"Retry-After": WAIT}
            if "304" in responses:
                responses["304"]["headers"] = responses["200"]["headers"]
            for body in (operation.get("requestBody", {}), *responses.values()):
                for content in body.get("content", {}).values():
                    if "examples" not in content:
                        content["example"] = _make_example(content["schema"], schemas)
    return document


def _make_example(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """Make an example of a body from those of its required fields, or of one field where all are optional."""
    if "items" in schema:
        return [_make_example(schema["items"], schemas)]
    struct = schemas[schema["$ref"].rpartition("/")[2]]
    fields = struct["required"] or list(struct["properties"])[-1:]
    return {field: struct["properties"][field]["examples"][0] for field in fields}


def _get_root(request: Request[Any, Any, Any]) -> str:
    """Return the path under which a proxy serves this service, quoted for a URL and for HTML."""
    root = quote(request.scope.get("root_path", "").strip("/"))
    return f"/{root}" if root else ""


@route(
    "/openapi.json",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    status_code=200,
    include_in_schema=False,
    sync_to_thread=True,  # the first one takes a while
)
def get_openapi(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    return {**_describe(request.app), "servers": [{"url": _get_root(request) or "/"}]}


class DocsPlugin(OpenAPIRenderPlugin):
    """A page without a CDN, and with one inline script, which the policy knows by its hash."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the page; the browser asks for the document itself."""
        del openapi_schema
        return _render(request)

    def has_path(self, path: str) -> bool:
        """Claim the document's path too, or Litestar would serve a second one, under /docs."""
        return path == "/openapi.json" or super().has_path(path)

    def receive_router(self, router: Router) -> None:
        """Respond to HEAD where Litestar responds only to GET."""
        router.register(_head_page)


@route("/", http_method=HttpMethod.HEAD, status_code=200, media_type=MediaType.HTML)
async def _head_page(request: Request[Any, Any, Any]) -> bytes:
    return _render(request)


def _render(request: Request[Any, Any, Any]) -> bytes:
    return PAGE.replace("ROOT", _get_root(request)).encode()


async def _reject_unknown_page(response: Response[Any]) -> Response[Any]:
    """Turn Litestar's HTML for an unknown page under /docs into the problem document of everywhere else."""
    if response.status_code == NotFoundException.status_code:
        raise NotFoundException
    return response


@route(
    "/docs/assets/{name:str}", http_method=[HttpMethod.GET, HttpMethod.HEAD], status_code=200, include_in_schema=False
)
async def get_asset(name: FromPath[str]) -> Response[bytes]:
    """Return one of the files that the page needs."""
    if name not in ASSETS:
        raise NotFoundException
    content = (swagger_ui_path / name).read_bytes()
    return Response(content, media_type=ASSETS[name], headers={"Cache-Control": "max-age=3600"})
