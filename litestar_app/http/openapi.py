"""The OpenAPI document: Litestar's own, with what Litestar cannot be told."""

import re
from functools import cache
from typing import Any

import msgspec
from litestar import HttpMethod, Litestar, Request, route
from litestar._openapi.schema_generation import SchemaCreator
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, Contact, License, Schema, SecurityScheme, Tag
from litestar.plugins import OpenAPISchemaPlugin
from litestar.types import Method
from litestar.typing import FieldDefinition

from litestar_app.http.docs import DocsPlugin, create_docs_router, get_root
from litestar_app.http.parameters import PUBLIC
from litestar_app.http.problems import RETRY_AFTER

WAIT = {
    "description": "how many seconds to wait before a retry",
    "schema": {"type": "integer"},
    "example": RETRY_AFTER,
}

SCHEME = "apiKey"
CHALLENGE = {
    "description": "the scheme, and what is wrong with the key (RFC 6750)",
    "schema": {"type": "string"},
    "example": 'Bearer realm="students"',
}
ABOVE_FFFF = re.compile(r"\\U[0-9a-f]{8}(-\\U[0-9a-f]{8})?")
"""Escapes of Python's expressions that those of JSON Schema (ECMA-262) do not have."""


def create_openapi_config(version: str) -> OpenAPIConfig:
    """Describe the service and put its page where Litestar has one."""
    return OpenAPIConfig(
        title="Student Records",
        version=version,
        description="The students of a small department. Every error is a problem document (RFC 9457).",
        contact=Contact(name="The Student Records maintainers"),
        license=License(name="MIT", identifier="MIT"),
        tags=[
            Tag("students", description="Create, read, update and delete students."),
            Tag("transfer", description="Export and import students as files."),
            Tag("history", description="What has been written by whom, and the undo of imports."),
            Tag("departments", description="How many students each department has, and their CGPA."),
            Tag("health", description="Whether the process and its database respond."),
        ],
        security=[{SCHEME: []}],
        components=Components(
            security_schemes={
                SCHEME: SecurityScheme(
                    type="http",
                    scheme="bearer",
                    description="An API key, `sr_…`; `litestar keys create` makes one. While there is none at all, "
                    "programs on the machine of the service need none.",
                )
            }
        ),
        operation_id_creator=_name_operation,
        use_handler_docstrings=True,
        render_plugins=[DocsPlugin(path="/")],
        openapi_router=create_docs_router(),
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
        for rules in schemas[struct.__name__]["properties"].values():
            if "pattern" in rules:
                rules["pattern"] = ABOVE_FFFF.sub("", rules["pattern"])
        for key, value in schemas[struct.__name__].items():
            setattr(schema, attributes.get(key, key), value)
        for field in msgspec.structs.fields(struct):  # which adds the structs that this one refers to
            schema_creator.for_field_definition(FieldDefinition.from_annotation(field.type))
        return schema


@route(
    "/openapi.json",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    status_code=200,
    include_in_schema=False,
    opt=PUBLIC,
    sync_to_thread=True,  # the first one takes a while
)
def get_openapi(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    return {**_describe(request.app), "servers": [{"url": get_root(request) or "/"}]}


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
            if "401" in responses:
                responses["401"]["headers"] = {"WWW-Authenticate": CHALLENGE}
                responses["429"]["headers"] = {"Retry-After": WAIT}
            else:
                operation["security"] = []
            responses["503"]["headers"] = {"Retry-After": WAIT}
            if "304" in responses:
                responses["304"]["headers"] = responses["200"]["headers"]
            for body in (operation.get("requestBody", {}), *responses.values()):
                for content in body.get("content", {}).values():
                    if not {"example", "examples"} & content.keys() and {"$ref", "items"} & content["schema"].keys():
                        content["example"] = _make_example(content["schema"], schemas)
    document["paths"]["/metrics"]["get"]["security"] = [{SCHEME: []}, {}]  # a program of this machine needs no key
    return document


def _make_example(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """Make an example of a body from those of its required fields, or of one field where all are optional."""
    if "items" in schema:
        return [_make_example(schema["items"], schemas)]
    struct = schemas[schema["$ref"].rpartition("/")[2]]
    fields = struct["required"] or list(struct["properties"])[-1:]
    return {field: struct["properties"][field]["examples"][0] for field in fields}
