"""The wire: what a client may send, what it gets, and every problem of a body at once."""

import json
from hashlib import blake2b
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

# Control characters are Unicode's category Cc; white space at both ends is what str.strip() takes off.
_TEXT = r"^\s*[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]{0,98}[^\s\x00-\x1f\x7f-\x9f])?\s*$"
RULES = {
    "name": "1 to 100 characters after trimming white space at both ends, without control characters",
    "department": "1 to 100 characters after trimming white space at both ends, without control characters",
    "cgpa": "a number from 0 to 10",
    "id": "the id in the path, or none",
}


class StudentCreate(Struct, forbid_unknown_fields=True):
    """A student to be: without an id, since the database gives it."""

    name: Annotated[str, Meta(pattern=_TEXT, description=RULES["name"], examples=["Ananya"])]
    department: Annotated[str, Meta(pattern=_TEXT, description=RULES["department"], examples=["CSE"])]
    cgpa: Annotated[float, Meta(ge=0, le=10, description=RULES["cgpa"], examples=[8.9])]

    def __post_init__(self) -> None:
        self.name = self.name.strip()
        self.department = self.department.strip()
        self.cgpa += 0.0  # makes -0.0 the 0.0 that it equals


class StudentUpdate(StudentCreate, forbid_unknown_fields=True):
    """All of a student, as a replacement; it may repeat the id of its path."""

    id: Annotated[int, Meta(description=RULES["id"], examples=[1])] | UnsetType = UNSET


class StudentPatch(Struct, forbid_unknown_fields=True):
    """What is to change of a student: a merge patch (RFC 7396). No field can be removed, so none may be null."""

    name: Annotated[str, Meta(pattern=_TEXT, description=RULES["name"], examples=["Ananya"])] | UnsetType = UNSET
    department: Annotated[str, Meta(pattern=_TEXT, description=RULES["department"], examples=["CSE"])] | UnsetType = (
        UNSET
    )
    cgpa: Annotated[float, Meta(ge=0, le=10, description=RULES["cgpa"], examples=[9.1])] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.name is not UNSET:
            self.name = self.name.strip()
        if self.department is not UNSET:
            self.department = self.department.strip()
        if self.cgpa is not UNSET:
            self.cgpa += 0.0


class StudentRead(Struct):
    """A student as stored. A null comes only from a table that another program filled."""

    id: Annotated[int, Meta(description="given by the database, never given twice", examples=[1])]
    name: Annotated[str | None, Meta(examples=["Ananya"])]
    department: Annotated[str | None, Meta(examples=["CSE"])]
    cgpa: Annotated[float | None, Meta(examples=[8.9])]


def version_of(student: StudentRead) -> str:
    """Make a strong entity tag (RFC 9110), quotes included: another one exactly when the student is another one."""
    return f'"{blake2b(msgspec.json.encode(student), digest_size=12).hexdigest()}"'


class Message(Struct):
    """Words for a person."""

    message: str


class FieldProblem(Struct):
    """What is wrong with one place of a body."""

    pointer: Annotated[str, Meta(description="the place, as a JSON Pointer (RFC 6901)", examples=["/cgpa"])]
    detail: Annotated[str, Meta(examples=["expected a number from 0 to 10"])]


class Problem(Struct, omit_defaults=True):
    """A problem document (RFC 9457)."""

    type: Annotated[str, Meta(description="always about:blank: the status says what kind it is")]
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | UnsetType = UNSET
    request_id: str | UnsetType = UNSET


class UnreadableError(Exception):
    """The bytes are not JSON in UTF-8."""


class InvalidError(Exception):
    """Readable, but not what the schema asks for; `errors` holds every problem."""

    def __init__(self, errors: list[FieldProblem]) -> None:
        super().__init__(errors)
        self.errors = errors


S = TypeVar("S", bound=StudentCreate | StudentPatch)


def decode_student(raw: bytes, kind: type[S], student_id: int | None = None) -> S:
    """Read a body that must be of this kind and may repeat this id.

    Raises:
        UnreadableError: it is not JSON, not UTF-8, or nested too deeply.
        InvalidError: it breaks rules; all of them are listed.

    """
    try:
        try:
            data = msgspec.json.decode(raw, type=kind)
        except msgspec.ValidationError as first:  # and msgspec stops there, so look at each field
            errors = _find_problems(json.loads(raw.decode()), kind, student_id)
            raise InvalidError(errors or [FieldProblem("", str(first))]) from None
    except RecursionError:
        raise UnreadableError("The body is nested too deeply") from None
    except UnicodeDecodeError:
        raise UnreadableError("The body is not UTF-8") from None
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: json's own, and an integer of too many digits
        raise UnreadableError(f"The body is not JSON: {error}") from None
    if errors := _find_id_problems(getattr(data, "id", UNSET), student_id):
        raise InvalidError(errors)
    return data


def _find_problems(value: object, kind: type[Struct], student_id: int | None) -> list[FieldProblem]:
    if not isinstance(value, dict):
        return [FieldProblem("", "expected an object with name, department and cgpa")]
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    problems = []
    for name, field in fields.items():
        if name in value:
            problems += _find_field_problems(value[name], field, student_id)
        elif field.required:
            problems.append(FieldProblem(f"/{name}", f"missing; expected {RULES[name]}"))
    for name in value.keys() - fields.keys():
        pointer = "/" + name.replace("~", "~0").replace("/", "~1").encode("utf-8", "replace").decode()
        problems.append(FieldProblem(pointer, f"no such field; expected only {', '.join(fields)}"))
    return problems


def _find_field_problems(value: Any, field: msgspec.structs.FieldInfo, student_id: int | None) -> list[FieldProblem]:
    try:
        msgspec.convert(value, field.type)
    except msgspec.ValidationError:
        return [FieldProblem(f"/{field.name}", f"expected {RULES[field.name]}")]
    return _find_id_problems(value, student_id) if field.name == "id" else []


def _find_id_problems(given: int | UnsetType, student_id: int | None) -> list[FieldProblem]:
    return [] if given is UNSET or given == student_id else [FieldProblem("/id", f"expected {student_id}, or none")]
