"""The documentation page: Swagger UI, from files that this service itself serves."""

import base64
import hashlib
from typing import Any
from urllib.parse import quote

from litestar import HttpMethod, MediaType, Request, Response, Router, route
from litestar.datastructures import ResponseHeader
from litestar.exceptions import NotFoundException
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.params import FromPath
from litestar.response import Redirect
from swagger_ui_bundle import swagger_ui_path

from litestar_app.http.parameters import PUBLIC

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


def create_docs_router() -> Router:
    """Make the place of the page; Litestar adds the page itself, from its plugin."""
    return Router(
        "/docs",
        opt=PUBLIC,
        route_handlers=[],
        include_in_schema=False,
        after_request=_reject_unknown_page,
        response_headers=[ResponseHeader("Content-Security-Policy", value=POLICY)],
    )


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
        router.register(_head_unknown_page)


@route("/", http_method=HttpMethod.HEAD, status_code=200, media_type=MediaType.HTML)
async def _head_page(request: Request[Any, Any, Any]) -> bytes:
    return _render(request)


@route("/{path:str}", http_method=HttpMethod.HEAD, status_code=200)
async def _head_unknown_page() -> None:
    raise NotFoundException


def _render(request: Request[Any, Any, Any]) -> bytes:
    return PAGE.replace("ROOT", get_root(request)).encode()


def get_root(request: Request[Any, Any, Any]) -> str:
    """Return the path under which a proxy serves this service, quoted for a URL and for HTML."""
    root = request.scope.get("root_path", "").strip("/")
    return f"/{quote(root)}" if root else ""


async def _reject_unknown_page(response: Response[Any]) -> Response[Any]:
    """Turn Litestar's HTML for an unknown page under /docs into the problem document of everywhere else."""
    if response.status_code == NotFoundException.status_code:
        raise NotFoundException
    return response


@route(
    "/docs/assets/{name:str}",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    status_code=200,
    include_in_schema=False,
    opt=PUBLIC,
)
async def get_asset(name: FromPath[str]) -> Response[bytes]:
    """Return one of the files that the page needs."""
    if name not in ASSETS:
        raise NotFoundException
    content = (swagger_ui_path / name).read_bytes()
    return Response(content, media_type=ASSETS[name], headers={"Cache-Control": "max-age=3600"})


@route("/", http_method=[HttpMethod.GET, HttpMethod.HEAD], status_code=307, include_in_schema=False, opt=PUBLIC)
async def go_to_docs(request: Request[Any, Any, Any]) -> Redirect:
    """Redirect a person to the documentation."""
    return Redirect(f"{get_root(request)}/docs", status_code=307)
