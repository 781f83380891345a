"""Records: what a declaration says of its fields, and which declarations are rejected."""

from datetime import date
from typing import Annotated

import pytest
from advanced_alchemy.base import DefaultBase
from msgspec import UNSET, Meta, Struct, UnsetType
from sqlalchemy.orm import Mapped, mapped_column

from litestar_app.records.record import Record
from litestar_app.students.record import STUDENT

Seats = Annotated[int, Meta(ge=1)]


class Room(DefaultBase):
    """A table of every kind of column."""

    __tablename__ = "rooms"
    metadata = DefaultBase.metadata.__class__()  # not among the tables of the service
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    seats: Mapped[int | None]
    area: Mapped[float]
    is_open: Mapped[bool]
    built: Mapped[date | None]


class RoomCreate(Struct):
    name: str
    area: float
    is_open: bool


class RoomPatch(Struct):
    name: str | UnsetType = UNSET


def test_fields_come_from_the_struct() -> None:
    class New(Struct):
        name: str
        seats: Annotated[Seats | None, Meta(examples=[30])]
        area: float
        is_open: bool
        built: date | None = None

    class Changed(Struct):
        name: str | UnsetType = UNSET
        seats: Seats | UnsetType | None = UNSET
        area: float | UnsetType = UNSET
        is_open: bool | UnsetType = UNSET
        built: date | UnsetType | None = UNSET

    class Stored(Struct):
        id: int
        name: str | None
        seats: int | None
        area: float | None
        is_open: bool | None
        built: date | None

    record = Record(Room, create=New, patch=Changed, read=Stored)
    assert record.columns == ("id", "name", "seats", "area", "is_open", "built")
    assert [(field.kind, field.is_optional) for field in record.fields] == [
        (str, False),
        (int, True),
        (float, False),
        (bool, False),
        (date, True),
    ]


def test_fields_of_a_student() -> None:
    assert [field[:3] for field in STUDENT.fields] == [
        ("name", str, False),
        ("department", str, False),
        ("cgpa", float, False),
    ]


def test_structs_with_other_fields_are_rejected() -> None:
    class Stored(Struct):
        id: int
        name: str | None

    with pytest.raises(TypeError, match=r"^Stored: expected the fields id, name, area, is_open, got id, name$"):
        Record(Room, create=RoomCreate, patch=RoomPatch, read=Stored)


@pytest.mark.parametrize("kind", [list[str], str | int])
def test_fields_of_other_types_are_rejected(kind: object) -> None:
    new = type("New", (Struct,), {"__annotations__": {"tags": kind}})
    with pytest.raises(TypeError, match=r"^tags: expected one of str, bool, int, float, date, perhaps with None, got"):
        Record(Room, create=new, patch=RoomPatch, read=RoomPatch)
