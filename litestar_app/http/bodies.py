"""Request bodies as DTOs, which is where Litestar asks what `data` is made of."""

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, cast

from litestar import Request
from litestar.dto import MsgspecDTO
from litestar.exceptions import HTTPException
from litestar.openapi.spec import Operation, Reference, RequestBody, Schema
from litestar.typing import FieldDefinition
from msgspec import Struct

from litestar_app.http.openapi import SchemaCreator
from litestar_app.http.parameters import is_plain_integer
from litestar_app.http.validation import decode

S = TypeVar("S", bound=Struct)


class BodyDTO(MsgspecDTO[S], Generic[S]):
    """Reads a JSON body into its struct, and names every problem of it."""

    media_types: ClassVar[tuple[str, ...]] = ("application/json",)
    """What Content-Type may say."""
    path_fields: ClassVar[dict[str, str]] = {}
    """Integer fields that may repeat a path parameter, and the name of that."""

    def decode_bytes(self, value: bytes) -> S:
        """Decode a body.

        Raises:
            HTTPException: 415, for another Content-Type, or none, or for a Content-Encoding.
            UnreadableBodyError: it is not JSON.
            InvalidBodyError: it breaks rules of its struct.

        """
        request = cast("Request[Any, Any, Any]", self.asgi_connection)
        self._check_media_type(request)
        given = {field: request.path_params[name] for field, name in self.path_fields.items()}
        expected = {field: int(text) for field, text in given.items() if is_plain_integer(text)}
        data: S = decode(value, self.model_type, expected)
        return data

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: SchemaCreator
    ) -> Reference | Schema:
        """Document the struct itself, in place of a model made of it."""
        del field_definition, handler_id
        return schema_creator.for_field_definition(FieldDefinition.from_annotation(cls.model_type))

    def _check_media_type(self, request: Request[Any, Any, Any]) -> None:
        media_type, options = request.content_type
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise HTTPException(status_code=415, detail="Expected a body without Content-Encoding")
        if media_type not in self.media_types or options.get("charset", "utf-8").lower() not in {"utf-8", "utf8"}:
            expected = f"Expected a body with Content-Type: {' or '.join(self.media_types)}, in UTF-8"
            raise HTTPException(status_code=415, detail=expected)


class MergePatchDTO(BodyDTO[S], Generic[S]):
    """Reads a merge patch (RFC 7396)."""

    media_types = ("application/merge-patch+json", "application/json")


PATCH_TYPES = f"Expected a body with Content-Type: {' or '.join(MergePatchDTO.media_types)}, in UTF-8"


@dataclass
class MergePatchOperation(Operation):
    """Documents both media types of a merge patch; Litestar knows one for a body."""

    def __post_init__(self) -> None:
        body = cast("RequestBody", self.request_body)
        (content,) = body.content.values()
        body.content = dict.fromkeys(MergePatchDTO.media_types, content)
