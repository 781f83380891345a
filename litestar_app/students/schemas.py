"""What a client sends and gets of a student. The rules stand here, in the words that a client reads."""

from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

MAX_ID = 2**63 - 1
"""The highest id that a database holds."""

# Of Unicode: control characters, line and paragraph separators, bidirectional overrides and isolates.
_FORBIDDEN = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
# What shows nothing by itself: joiners and other formatting, fillers, variation selectors, blanks.
_INVISIBLE = (
    r"\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u206f\u2800\u3164\ufe00-\ufe0f"
    r"\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_TEXT = (
    rf"^(?=[{_INVISIBLE}{_FORBIDDEN}]*[^{_INVISIBLE}{_FORBIDDEN}])"
    rf"\s*[^\s{_FORBIDDEN}]([^{_FORBIDDEN}]{{0,98}}[^\s{_FORBIDDEN}])?\s*$"
)
_TEXT_RULE = (
    "1 to 100 characters after trimming white space at both ends, at least one of them visible, "
    "without control characters, line separators and bidirectional overrides"
)

Name = Annotated[str, Meta(pattern=_TEXT, description=_TEXT_RULE, examples=["Ananya"])]
Department = Annotated[str, Meta(pattern=_TEXT, description=_TEXT_RULE, examples=["CSE"])]
Cgpa = Annotated[float, Meta(ge=0, le=10, description="a number from 0 to 10", examples=[8.9])]
GivenId = Annotated[
    int, Meta(description="the id in the path, or none", examples=[1], extra_json_schema={"readOnly": True})
]


class StudentCreate(Struct, forbid_unknown_fields=True):
    """A new student, without an id: the database gives it."""

    name: Name
    department: Department
    cgpa: Cgpa

    def __post_init__(self) -> None:
        self.name = self.name.strip()
        self.department = self.department.strip()
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
            self.name = self.name.strip()
        if self.department is not UNSET:
            self.department = self.department.strip()
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


def etag(student: StudentRead) -> str:
    """Make a strong entity tag (RFC 9110), quotes included: it changes exactly when the student does."""
    return f'"{blake2b(msgspec.json.encode(student), digest_size=12).hexdigest()}"'
