"""Bodies as JSON: a struct, or every problem of the body at once."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, Struct

from litestar_app.exceptions import InvalidBodyError, UnreadableBodyError

S = TypeVar("S", bound=Struct)
MAX_DIGITS = 400
"""More than any double or 64-bit integer has."""
TOO_SHORT = "it ends too early"
SURROGATE = "a surrogate without its other half"


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
            data = _decode_again(_decode_untyped(raw), kind, expected)
    except RecursionError:
        raise UnreadableBodyError("The body is nested too deeply") from None
    except UnicodeEncodeError:
        raise UnreadableBodyError(f"The body is not JSON: {SURROGATE}") from None
    except (msgspec.DecodeError, ValueError):
        raise UnreadableBodyError(_explain(raw)) from None
    if problems := [
        (f"/{name}", f"expected {value}, or none")
        for name, value in expected.items()
        if getattr(data, name) not in {UNSET, value}
    ]:
        raise InvalidBodyError(problems)
    return data


def _decode_again(value: object, kind: type[S], expected: Mapping[str, object]) -> S:
    """List every problem; there is none where only an integer that is expected is written as `1.0`."""
    is_rewritten = False
    if isinstance(value, dict):
        for name in expected:
            number = value.get(name)
            if isinstance(number, float) and number.is_integer():
                value[name], is_rewritten = int(number), True
    problems = list(_find_problems(value, kind, expected))
    if is_rewritten and not problems:
        return msgspec.convert(value, kind)
    raise InvalidBodyError(problems or [("", "a field is given more than once")])


def _explain(raw: bytes) -> str:
    """Say why a body is not JSON, in the same words with every release of msgspec."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "The body is not UTF-8"
    return f"The body is not JSON: {explain_syntax(text)}"


def explain_syntax(text: str) -> str:
    """Say why a text is not JSON, and where.

    Raises:
        RecursionError: it is nested too deeply.

    """
    if text.startswith("\ufeff"):
        return "it begins with a byte order mark"
    try:
        value = json.loads(text, parse_constant=_reject_constant, parse_int=_parse_integer)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        reason = describe_error(error)
        return reason if reason == TOO_SHORT else f"{reason}, at character {error.pos + 1:,}"
    except UnicodeEncodeError:
        return SURROGATE
    except ValueError as error:
        return str(error)
    return "a number is out of range"


def describe_error(error: json.JSONDecodeError) -> str:
    """Say in a few words why a text is not JSON."""
    if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated"):
        return TOO_SHORT
    if error.msg.startswith("Extra data"):
        return "more follows after its end"
    if error.msg.startswith("Invalid control character"):
        return "a control character in a string"
    return "unexpected text"


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
    raise ValueError(f"{name} is no number of JSON")


def _find_problems(value: object, kind: type[Struct], expected: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    if not isinstance(value, dict):
        yield "", f"expected an object with {', '.join(name for name, field in fields.items() if field.required)}"
        return
    for name, field in fields.items():
        if name in value:
            try:
                converted = msgspec.convert(value[name], field.type)
            except msgspec.ValidationError:
                yield f"/{name}", f"expected {describe(field.type)}"
            else:
                for fault in filter(None, (rule(converted) for rule in find_rules(field.type))):
                    yield f"/{name}", fault
                if name in expected and value[name] != expected[name]:
                    yield f"/{name}", f"expected {expected[name]}, or none"
        elif field.required:
            yield f"/{name}", f"missing; expected {describe(field.type)}"
    for name in [name for name in value if name not in fields]:
        pointer = name.replace("~", "~0").replace("/", "~1")
        yield f"/{pointer}", f"no such field; expected only {', '.join(fields)}"


def find_rules(annotation: Any) -> Iterator[Callable[[Any], str]]:
    """Find the functions in the field's own annotation: each tells the fault of a value, or ""."""
    for part in (annotation, *get_args(annotation)):
        yield from filter(callable, getattr(part, "__metadata__", ()))


def describe(annotation: Any) -> str:
    """Return the words of a rule: the description in the field's own Meta."""
    for part in (annotation, *get_args(annotation)):
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, Meta) and meta.description:
                return meta.description
    return str(annotation)
