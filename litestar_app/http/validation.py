"""Bodies as JSON: a struct, or every problem of the body at once."""

import json
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, Struct

from litestar_app.exceptions import InvalidBodyError, UnreadableBodyError

S = TypeVar("S", bound=Struct)
MAX_DIGITS = 400
"""More than any double or 64-bit integer has."""


def decode(raw: bytes, kind: type[S], expected: Mapping[str, object] = MappingProxyType({})) -> S:
    """Read a body; where it has one of the expected fields, its value must be that.

    Raises:
        UnreadableBodyError: it is not JSON, not UTF-8, or nested too deeply.
        InvalidBodyError: it breaks rules of the struct; all of them are listed.

    """
    try:
        try:
            data = msgspec.json.decode(raw, type=kind)
        except msgspec.ValidationError:  # msgspec stops at the first problem, so each field gets another look
            problems = list(_find_problems(_decode_untyped(raw), kind, expected))
            raise InvalidBodyError(problems or [("", "a field is given more than once")]) from None
    except RecursionError:
        raise UnreadableBodyError("The body is nested too deeply") from None
    except UnicodeEncodeError:
        raise UnreadableBodyError("The body is not JSON: a surrogate without its other half") from None
    except (msgspec.DecodeError, ValueError) as error:
        if not _is_utf_8(raw):  # releases of msgspec raise different errors for it
            raise UnreadableBodyError("The body is not UTF-8") from None
        raise UnreadableBodyError(f"The body is not JSON: {error}") from None
    if problems := [
        (f"/{name}", f"expected {value}, or none")
        for name, value in expected.items()
        if getattr(data, name) not in {UNSET, value}
    ]:
        raise InvalidBodyError(problems)
    return data


def _is_utf_8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decode_untyped(raw: bytes) -> object:
    try:
        return msgspec.json.decode(raw)
    except msgspec.ValidationError:  # a number that no double or 64-bit integer can hold, which is JSON all the same
        value = json.loads(raw, parse_constant=_reject_constant, parse_int=_parse_integer)
        json.dumps(value, ensure_ascii=False).encode()  # a UnicodeEncodeError for a lone surrogate, which is no JSON
        return value


def _parse_integer(text: str) -> int | float:
    """Read an integer of any length; Python refuses those of thousands of digits, which no field can hold."""
    return int(text) if len(text) < MAX_DIGITS else math.copysign(math.inf, -1 if text.startswith("-") else 1)


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _find_problems(value: object, kind: type[Struct], expected: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    if not isinstance(value, dict):
        yield "", f"expected an object with {', '.join(name for name, field in fields.items() if field.required)}"
        return
    for name, field in fields.items():
        if name in value:
            try:
                msgspec.convert(value[name], field.type)
            except msgspec.ValidationError:
                yield f"/{name}", f"expected {describe(field.type)}"
            else:
                if name in expected and value[name] != expected[name]:
                    yield f"/{name}", f"expected {expected[name]}, or none"
        elif field.required:
            yield f"/{name}", f"missing; expected {describe(field.type)}"
    for name in value.keys() - fields.keys():
        pointer = name.replace("~", "~0").replace("/", "~1")
        yield f"/{pointer}", f"no such field; expected only {', '.join(fields)}"


def describe(annotation: Any) -> str:
    """Return the words of a rule: the description in the field's own Meta."""
    for part in (annotation, *get_args(annotation)):
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, Meta) and meta.description:
                return meta.description
    return str(annotation)
