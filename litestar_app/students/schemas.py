"""What a client sends and gets of a student. The rules stand here, in the words that a client reads."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from litestar_app.records.fields import GivenId
from litestar_app.records.texts import MAX_LENGTH, PATTERN, find_fault

CGPA_MAX = 10
"""The best CGPA."""
CGPA_RULE = f"a number from 0 to {CGPA_MAX}"

_TEXT_RULE = (
    f"1 to {MAX_LENGTH} characters, at least one of them visible, once the text is normalised: Unicode NFC, no white "
    "space at the ends, one space for each run of spaces. No control characters, line separators, bidirectional "
    "overrides or isolates, and no U+FFFD"
)
_TEXT = Meta(
    description=f"a text of 1 to {MAX_LENGTH} characters",
    extra_json_schema={"pattern": PATTERN, "description": _TEXT_RULE},
)

Name = Annotated[str, _TEXT, Meta(examples=["Ananya"]), find_fault]
Department = Annotated[str, _TEXT, Meta(examples=["CSE"]), find_fault]
Cgpa = Annotated[float, Meta(ge=0, le=CGPA_MAX, description=CGPA_RULE, examples=[min(8.9, CGPA_MAX)])]


def _check(text: str) -> None:
    if fault := find_fault(text):
        raise ValueError(fault)  # which msgspec makes its own error


class StudentCreate(Struct, forbid_unknown_fields=True):
    """A new student, without an id: the database gives it. The texts are as sent: what stores them normalises them."""

    name: Name
    department: Department
    cgpa: Cgpa

    def __post_init__(self) -> None:
        _check(self.name)
        _check(self.department)
        self.cgpa += 0.0  # makes -0.0 the 0.0 that it equals


class StudentUpdate(StudentCreate, forbid_unknown_fields=True):
    """All of a student, as a replacement; it may repeat the id of its path."""

    id: GivenId | UnsetType = UNSET


class StudentPatch(Struct, forbid_unknown_fields=True):
    """What changes of a student: a merge patch (RFC 7396). No field can be removed, so none may be null."""

    name: Name | UnsetType = UNSET
    department: Department | UnsetType = UNSET
    cgpa: Cgpa | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.name is not UNSET:
            _check(self.name)
        if self.department is not UNSET:
            _check(self.department)
        if self.cgpa is not UNSET:
            self.cgpa += 0.0


class StudentRead(Struct):
    """A student as stored. A null comes only from a table that another program filled."""

    id: Annotated[int, Meta(description="given by the database", examples=[1])]
    name: Annotated[str | None, Meta(examples=["Ananya"])]
    department: Annotated[str | None, Meta(examples=["CSE"])]
    cgpa: Annotated[float | None, Meta(examples=[8.9])]


class Message(Struct):
    """A text for a person."""

    message: Annotated[str, Meta(description="what was done", examples=["Student deleted successfully"])]
