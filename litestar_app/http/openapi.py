"""The OpenAPI document: Litestar's own, with what Litestar cannot be told."""

import inspect
import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import partial
from threading import Lock
from typing import Any, Protocol, TypeAlias, cast, get_args

import msgspec
from litestar import HttpMethod, Request, route
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import (
    Components,
    Contact,
    Example,
    License,
    OpenAPI,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    PathItem,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
    Tag,
)
from litestar.plugins import OpenAPISchemaPlugin, OpenAPISchemaPluginProtocol, ReceiveRoutePlugin
from litestar.routes import BaseRoute, HTTPRoute
from litestar.types import Method
from litestar.typing import FieldDefinition
from msgspec import UNSET, Meta

from litestar_app.exceptions import RETRY_AFTER
from litestar_app.http.docs import DocsPlugin, create_docs_router, get_root
from litestar_app.http.parameters import PUBLIC
from litestar_app.http.problems import PROBLEM_JSON, TITLES
from litestar_app.http.translation import MAX_PATTERN

WAIT = OpenAPIHeader(
    schema=Schema(type=OpenAPIType.INTEGER),
    description="how many seconds to wait before a retry",
    example=RETRY_AFTER,
)
SCHEME = "apiKey"
CHALLENGE = OpenAPIHeader(
    schema=Schema(type=OpenAPIType.STRING),
    description="the scheme, and what is wrong with the key (RFC 6750)",
    example='Bearer realm="students"',
)
HEADERS = {"401": {"WWW-Authenticate": CHALLENGE}, "429": {"Retry-After": WAIT}, "503": {"Retry-After": WAIT}}
"""Header fields of problem documents."""
LIKE_OURS = {None: "list_students", "public": "get_liveness"}
"""An operation of this service with the problems of every route, by who may use it."""
COMMON = ("401", "403", "429", "500", "503")
SECURITY: dict[object, list[dict[str, list[str]]]] = {
    "public": [],
    "metrics": [{SCHEME: []}, {}],  # a program of this machine needs no key
}
METHODS = ("get", "put", "post", "delete", "options", "patch", "trace", "head")
Paths: TypeAlias = dict[str, PathItem]
Handlers: TypeAlias = dict[tuple[str, str], HTTPRouteHandler]
"""By path and method."""


class SchemaCreator(Protocol):
    """The part that is used here of the object with which Litestar makes schemas; its class is not public."""

    plugins: Iterable[OpenAPISchemaPluginProtocol]

    def plugin_supports_field(self, plugin: OpenAPISchemaPluginProtocol, field_definition: FieldDefinition) -> bool:
        """Tell whether a plugin makes the schema of a type."""

    def for_field_definition(self, field_definition: FieldDefinition) -> Schema | Reference:
        """Return the schema of a type, or a reference to it."""


def create_openapi_config(version: str, handlers: Handlers) -> OpenAPIConfig:
    """Describe the service and put its page where Litestar has one."""
    return CompletedConfig(
        handlers=handlers,
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


def _name_operation(handler: HTTPRouteHandler, method: Method, path: list[Any]) -> str:
    return _make_unique(handler.handler_name, handler, method, path)


def _make_unique(name: str, _handler: HTTPRouteHandler, method: Method, path: list[Any]) -> str:
    """Make a name unique, which Litestar insists on; `_rename_operations` makes it short again."""
    return "\n".join([name, method, *(getattr(component, "name", component) for component in path)])


class StructSchemas(OpenAPISchemaPlugin, ReceiveRoutePlugin):
    """Documents a struct as Litestar does, and adds what Litestar does not know: what msgspec accepts."""

    def __init__(self) -> None:
        self.handlers: Handlers = {}

    def receive_route(self, route: BaseRoute) -> None:
        """Note the handlers, and make their operation ids unique: one may stand for several paths or methods."""
        if not isinstance(route, HTTPRoute):
            return
        for method, (handler, _) in route.route_handler_map.items():
            self.handlers[route.path_format or "/", method.lower()] = handler
            if isinstance(handler.operation_id, str):
                handler.operation_id = partial(_make_unique, handler.operation_id)

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        """Tell whether a type is a struct."""
        return not field_definition.is_union and field_definition.is_subclass_of(msgspec.Struct)

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: SchemaCreator) -> Schema:
        """Make the schema of a struct."""
        litestars = next(
            plugin
            for plugin in schema_creator.plugins
            if plugin is not self and schema_creator.plugin_supports_field(plugin, field_definition)
        )
        schema = litestars.to_openapi_schema(field_definition, cast("Any", schema_creator))
        struct = field_definition.type_
        struct = getattr(struct, "__origin__", struct)
        properties = schema.properties or {}
        required = set(schema.required or ())
        schema.required = [name for name in properties if name in required]
        if struct.__doc__:
            schema.description = inspect.cleandoc(struct.__doc__)
        if struct.__struct_config__.forbid_unknown_fields:
            schema.additional_properties = False
        for field in msgspec.structs.fields(struct):
            if isinstance(rules := properties[field.encode_name], Schema):
                _add_rules(rules, field.type)
        if struct.__struct_config__.array_like:
            schema.type, schema.prefix_items = OpenAPIType.ARRAY, list(properties.values())
            schema.min_items = len(required)
            schema.properties = schema.required = schema.additional_properties = None
        return schema


def _add_rules(schema: Schema, annotation: Any) -> None:
    """Add rules of msgspec's `Meta` that Litestar leaves out: a bound of zero, and what is only for the document."""
    for part in (annotation, *get_args(annotation)):
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, Meta):
                schema.minimum = meta.ge if schema.minimum is None else schema.minimum
                schema.maximum = meta.le if schema.maximum is None else schema.maximum
                for key, value in (meta.extra_json_schema or {}).items():
                    if (name := schema.field_aliases().get(key, key)) in schema.__dataclass_fields__:
                        setattr(schema, name, value)


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
    return {**request.app.openapi_schema.to_schema(), "servers": [{"url": get_root(request) or "/"}]}


@dataclass(kw_only=True)
class CompletedConfig(OpenAPIConfig):
    """Has Litestar fill a `CompletedDocument`."""

    handlers: Handlers

    def to_openapi_schema(self) -> OpenAPI:
        """Return the document before Litestar adds paths and schemas."""
        plain = super().to_openapi_schema()
        document = CompletedDocument(**{one.name: getattr(plain, one.name) for one in fields(plain)})
        document.handlers = self.handlers
        return document


class CompletedDocument(OpenAPI):
    """Litestar's document, which is completed when its paths are first read; until then Litestar is filling it.

    Litestar makes a new one after a route has been added.
    """

    handlers: Handlers

    def __init__(self, **members: Any) -> None:
        self._lock = Lock()
        self._is_complete = False
        self._paths: Paths | None = None
        self._schema: dict[str, Any] | None = None
        super().__init__(**members)

    @property
    def paths(self) -> Paths | None:
        """The completed paths, whose schemas are in `components` from then on."""
        with self._lock:
            if not self._is_complete:
                # one copy, so that what both share stays shared; handlers own some of the objects
                paths, self.components = deepcopy((self._paths or {}, self.components))
                _complete(paths, self.components, self.handlers)
                self._paths, self._is_complete = paths, True
        return self._paths

    @paths.setter
    def paths(self, paths: Paths | None) -> None:
        self._paths = paths

    def to_schema(self) -> dict[str, Any]:
        """Return the document as JSON has it."""
        if self._schema is None:
            self._schema = super().to_schema()
        return self._schema


def _complete(paths: Paths, components: Components, handlers: Handlers) -> None:
    """Add to paths and schemas what Litestar cannot be told; it knows every route, also those of others."""
    schemas = components.schemas or {}
    operations = dict(_find_operations(paths))
    _rename_operations(operations)
    named = {operation.operation_id: operation for operation in operations.values()}
    for key, operation in operations.items():
        access = handlers[key].opt.get("access")
        if access in SECURITY:
            operation.security = SECURITY[access]
        if operation.parameters:  # those that a handler does not use come in another order in each process
            operation.parameters.sort(key=partial(_locate, key[0]))
        for parameter in operation.parameters or []:
            if isinstance(parameter, Parameter) and isinstance(parameter.schema, Schema):
                _remove_null(parameter.schema)
        ours = named[LIKE_OURS.get(access, LIKE_OURS[None])].responses or {}
        _complete_responses(operation, {status: ours[status] for status in COMMON if status in ours})
        _add_examples(operation, schemas)
    for schema in _find_schemas([paths, components]):
        _simplify(schema)


def _locate(path: str, parameter: Parameter | Reference) -> int:
    """Return where a parameter stands in a path; the others come behind, in the order they had."""
    found = path.find(f"{{{parameter.name}}}") if isinstance(parameter, Parameter) else -1
    return found if found >= 0 else len(path)


def _find_operations(paths: Paths) -> Iterator[tuple[tuple[str, str], Operation]]:
    """Find every operation by its path and method, without the HEAD that every GET has: it would double the page."""
    for path, item in paths.items():
        if item.get:
            item.head = None
        for method in METHODS:
            if operation := getattr(item, method):
                yield (path, method), operation


def _rename_operations(operations: dict[tuple[str, str], Operation]) -> None:
    """Name each operation after its function; of several with one name, the first keeps it."""
    taken: set[str] = set()
    for (path, method), operation in operations.items():
        name = (operation.operation_id or method).partition("\n")[0]
        longer = re.sub(r"\W+", "_", f"{name}_{method}{path}").strip("_")
        number = 2
        operation.operation_id = longer if name in taken else name
        while operation.operation_id in taken:
            operation.operation_id, number = f"{longer}_{number}", number + 1
        taken.add(operation.operation_id)


def _remove_null(schema: Schema) -> None:
    """Take null from a parameter: it may be absent, but `null` in one is a text as any other."""
    if schema.one_of:
        schema.one_of = [one for one in schema.one_of if isinstance(one, Reference) or one.type != OpenAPIType.NULL]
    if isinstance(schema.type, list):
        types = [one for one in schema.type if one != OpenAPIType.NULL]
        schema.type = types[0] if len(types) == 1 else types
    if schema.enum:
        schema.enum = [value for value in schema.enum if value is not None]


def _complete_responses(operation: Operation, common: dict[str, Any]) -> None:
    """Add the problems that every route has, and the header fields of responses."""
    responses = cast("dict[str, OpenAPIResponse]", operation.responses or {})
    operation.responses = {**responses, **{status: one for status, one in common.items() if status not in responses}}
    problem = next(iter(common.values())).content[PROBLEM_JSON].schema
    for status, response in operation.responses.items():
        if not isinstance(response, OpenAPIResponse):
            continue
        if any(_is_litestars_error(media.schema) for media in (response.content or {}).values()):
            response.content = {PROBLEM_JSON: OpenAPIMediaType(problem)}
        if PROBLEM_JSON in (response.content or {}):
            response.headers = {**HEADERS.get(status, {}), **(response.headers or {})} or None
        if response.headers:
            response.headers = dict(sorted(response.headers.items()))  # Litestar's order differs between processes
        for header in (response.headers or {}).values():
            if isinstance(header, OpenAPIHeader) and header.schema is None:
                header.schema = Schema(type=OpenAPIType.STRING)
    if operation.request_body:
        invalid = OpenAPIResponse(TITLES[422], content={PROBLEM_JSON: OpenAPIMediaType(problem)})
        operation.responses.setdefault("422", invalid)
    if "304" in responses and "200" in responses:
        responses["304"].headers = responses["200"].headers


def _is_litestars_error(schema: Schema | Reference | None) -> bool:
    """Tell whether a schema is the one that Litestar makes of its exceptions, which are problem documents here."""
    if not isinstance(schema, Schema):
        return False
    one = schema.one_of[0] if schema.one_of else schema
    return isinstance(one, Schema) and {"status_code", "detail", "extra"} == (one.properties or {}).keys()


def _add_examples(operation: Operation, schemas: dict[str, Schema]) -> None:
    """Make the examples of bodies that have none, where every field has one."""
    for body in (operation.request_body, *(operation.responses or {}).values()):
        if not isinstance(body, RequestBody | OpenAPIResponse):
            continue
        for media in (body.content or {}).values():
            for example in (media.examples or {}).values():
                if isinstance(example, Example):
                    example.id = None  # which is Litestar's, and no part of the document
            if media.example is None and not media.examples:
                media.example = _make_example(media.schema, schemas)


def _make_example(schema: Schema | Reference | None, schemas: dict[str, Schema]) -> Any:
    """Make an example of a body from those of its required fields, or of one field where all are optional."""
    if isinstance(schema, Schema):
        items = schema.items
        example = _make_example(items, schemas) if isinstance(items, Reference) else None
        return None if example is None else [example]
    struct = schemas.get(schema.ref.rpartition("/")[2]) if schema else None
    if struct is None or not struct.properties:
        return None
    rules = {name: struct.properties[name] for name in struct.required or list(struct.properties)[-1:]}
    example = {name: (getattr(rule, "examples", None) or [None])[0] for name, rule in rules.items()}
    return None if None in example.values() else example  # of which Litestar's document would leave out what is null


def _find_schemas(value: object) -> Iterator[Schema]:
    """Find every schema of a document, the inner ones first."""
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _find_schemas(inner)
    elif hasattr(value, "to_schema"):
        for field in fields(cast("Any", value)):
            yield from _find_schemas(getattr(value, field.name))
    if isinstance(value, Schema):
        yield value


def _simplify(schema: Schema) -> None:
    """Replace what only a program can read: a choice of one, a long expression, a default that JSON does not have."""
    if schema.one_of is not None and len(schema.one_of) == 1:
        (only,) = schema.one_of
        schema.one_of = None
        if isinstance(only, Reference):
            schema.all_of = [only]
        else:
            for field in fields(only):
                if getattr(schema, field.name) is None:
                    setattr(schema, field.name, getattr(only, field.name))
    if schema.pattern and len(schema.pattern) > MAX_PATTERN:
        schema.min_length = schema.min_length or (None if re.search(schema.pattern, "") else 1)
        schema.pattern = None
    if schema.default is UNSET or (schema.format and not isinstance(schema.default, str)):
        schema.default = None
    schema.default = msgspec.to_builtins(schema.default, enc_hook=str)
