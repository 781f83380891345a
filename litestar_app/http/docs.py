"""The OpenAPI document and its Swagger UI page, from files that this service itself serves."""

import base64
import hashlib
from functools import cache
from html import escape
from typing import Any

from litestar import HttpMethod, Litestar, MediaType, Request, Response, Router, route
from litestar.datastructures import ResponseHeader
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.params import FromPath
from swagger_ui_bundle import swagger_ui_path

from litestar_app.students.schemas import StudentCreate, StudentPatch, StudentUpdate

ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
START = """
const place = document.getElementById("docs");
SwaggerUIBundle({
  url: place.dataset.document, domNode: place, deepLinking: true, tryItOutEnabled: true, defaultModelsExpandDepth: 0,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
})
"""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Student Records</title>
<link rel="icon" type="image/png" href="{root}/docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="{root}/docs/assets/swagger-ui.css">
</head>
<body>
<div id="docs" data-document="{root}/openapi.json"></div>
<script src="{root}/docs/assets/swagger-ui-bundle.js"></script>
<script>{start}</script>
</body>
</html>
"""
START_HASH = base64.b64encode(hashlib.sha256(START.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; script-src 'self' 'sha256-{START_HASH}'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


EXAMPLES: dict[str, dict[str, Any]] = {
    "StudentCreate": {"name": "Ananya", "department": "CSE", "cgpa": 8.9},
    "StudentUpdate": {"name": "Ananya", "department": "CSE", "cgpa": 9.1},
    "StudentPatch": {"cgpa": 9.1},
    "StudentRead": {"id": 1, "name": "Ananya", "department": "CSE", "cgpa": 8.9},
}


class DocsPlugin(SwaggerRenderPlugin):
    """Litestar's Swagger UI with a page of its own: no CDN, and one inline script that the policy knows by its hash."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the page; the browser asks for the document itself."""
        del openapi_schema
        return _render(request)

    def has_path(self, path: str) -> bool:
        """Claim the document's path too, or Litestar would serve a second one, under /docs."""
        return path == "/openapi.json" or super().has_path(path)

    def receive_router(self, router: Router) -> None:
        """Answer HEAD where Litestar answers only GET."""
        router.register(_head_page)


@route("/", http_method=HttpMethod.HEAD, status_code=200, media_type=MediaType.HTML)
async def _head_page(request: Request[Any, Any, Any]) -> bytes:
    return _render(request)


def _render(request: Request[Any, Any, Any]) -> bytes:
    root = escape(request.scope.get("root_path", ""))  # where a proxy has put the service
    return PAGE.replace("{root}", root).replace("{start}", START).encode()


async def _refuse_unknown_page(response: Response[Any]) -> Response[Any]:
    """Turn Litestar's HTML for an unknown page under /docs into the problem document of everywhere else."""
    if response.status_code == NotFoundException.status_code:
        raise NotFoundException
    return response


@route(
    "/openapi.json",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    status_code=200,
    include_in_schema=False,
    sync_to_thread=True,  # the first one takes a while
)
def get_openapi(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    return _describe(request.app)


@cache
def _describe(app: Litestar) -> dict[str, Any]:
    """Add to Litestar's document what it leaves out."""
    document = app.openapi_schema.to_schema()
    schemas = document["components"]["schemas"]
    for kind in (StudentCreate, StudentUpdate, StudentPatch):
        schemas[kind.__name__]["additionalProperties"] = False
    schemas[StudentUpdate.__name__]["properties"]["id"]["readOnly"] = True  # the database's to give
    schemas[StudentPatch.__name__]["properties"] = schemas[StudentCreate.__name__]["properties"]  # a union loses its 0
    for operation in (operation for item in document["paths"].values() for operation in item.values()):
        for status, response in operation["responses"].items():
            if status == "503":
                response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
            _add_examples(response)
        _add_examples(operation.get("requestBody", {}))
        for parameter in operation.get("parameters", []):
            if kinds := parameter["schema"].pop("oneOf", None):  # of a header that may be absent, but not null
                parameter["schema"]["type"] = kinds[0]["type"]
    patch = document["paths"]["/student/{student_id}"]["patch"]["requestBody"]["content"]
    patch["application/merge-patch+json"] = patch["application/json"]
    return document


def _add_examples(body: dict[str, Any]) -> None:
    for media_type in body.get("content", {}).values():
        schema = media_type["schema"]
        name = schema.get("items", schema).get("$ref", "").rpartition("/")[2]
        if name in EXAMPLES:
            media_type["example"] = [EXAMPLES[name]] if "items" in schema else EXAMPLES[name]


def create_openapi_config(version: str) -> OpenAPIConfig:
    """Describe the service and put its page under /docs."""
    return OpenAPIConfig(
        title="Student Records",
        version=version,
        description="The students of a small department. Every error is a problem document (RFC 9457).",
        use_handler_docstrings=True,
        render_plugins=[DocsPlugin(path="/", media_type=MediaType.HTML)],
        openapi_router=Router(
            "/docs",
            route_handlers=[],
            include_in_schema=False,
            after_request=_refuse_unknown_page,
            response_headers=[ResponseHeader("Content-Security-Policy", value=POLICY)],
        ),
    )


@route(
    "/docs/assets/{name:str}", http_method=[HttpMethod.GET, HttpMethod.HEAD], status_code=200, include_in_schema=False
)
async def get_asset(name: FromPath[str]) -> Response[bytes]:
    """Return one of the files that the page needs."""
    if name not in ASSETS:
        raise NotFoundException
    content = (swagger_ui_path / name).read_bytes()
    return Response(content, media_type=ASSETS[name], headers={"Cache-Control": "max-age=3600"})
