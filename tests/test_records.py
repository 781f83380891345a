"""Records: what a declaration says, and a record with every kind of field, stored, changed, listed and filtered."""

import random
from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from typing import Annotated, Any

import msgspec
import pytest
from advanced_alchemy.base import DefaultBase
from msgspec import UNSET, Meta, Struct, UnsetType
from sqlalchemy import Double, Index, MetaData, String
from sqlalchemy.orm import Mapped, mapped_column

from litestar_app.app import create_app
from litestar_app.database import Database
from litestar_app.database.plugin import DatabasePlugin
from litestar_app.exceptions import RejectedError
from litestar_app.models import MYSQL
from litestar_app.records.controller import create_controller
from litestar_app.records.filters import between, contains, equals
from litestar_app.records.listing import Listings
from litestar_app.records.record import Record
from litestar_app.records.service import RecordService
from litestar_app.records.texts import find_fault
from litestar_app.settings import Settings
from litestar_app.students.record import STUDENT
from tests.database import prepare, run
from tests.service import connect, serve_app


class Room(DefaultBase):
    """A table of every kind of column."""

    __tablename__ = "rooms"
    metadata = MetaData()  # not among the tables of the service
    __table_args__ = (Index("ix_rooms_floor", "floor"), MYSQL)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    nickname: Mapped[str | None] = mapped_column(String(100))
    seats: Mapped[int]
    floor: Mapped[int | None]
    area: Mapped[float] = mapped_column(Double)
    height: Mapped[float | None] = mapped_column(Double)
    is_open: Mapped[bool]
    is_old: Mapped[bool | None]
    built: Mapped[date]
    closed: Mapped[date | None]


Name = Annotated[str, Meta(description="a text"), find_fault]


class RoomCreate(Struct):
    name: Name
    nickname: Name | None
    seats: Annotated[int, Meta(ge=1, le=500)]
    floor: Annotated[Annotated[int, Meta(ge=-3)] | None, Meta(examples=[1])]
    area: float
    height: float | None
    is_open: bool
    is_old: bool | None
    built: date
    closed: date | None = None


class RoomPatch(Struct):
    name: Name | UnsetType = UNSET
    nickname: Name | UnsetType | None = UNSET
    seats: int | UnsetType = UNSET
    floor: int | UnsetType | None = UNSET
    area: float | UnsetType = UNSET
    height: float | UnsetType | None = UNSET
    is_open: bool | UnsetType = UNSET
    is_old: bool | UnsetType | None = UNSET
    built: date | UnsetType = UNSET
    closed: date | UnsetType | None = UNSET


class RoomRead(Struct):
    id: int
    name: str | None
    nickname: str | None
    seats: int | None
    floor: int | None
    area: float | None
    height: float | None
    is_open: bool | None
    is_old: bool | None
    built: date | None
    closed: date | None


ROOM = Record(
    Room,
    create=RoomCreate,
    patch=RoomPatch,
    read=RoomRead,
    filters={
        "seats": equals,
        "floor": between,
        "name": contains,
        "is_open": equals,
        "built": between,
        "closed": equals,
    },
)
ROOMS = Listings(ROOM)


class RoomNotFoundError(RejectedError):
    status = 404


class RoomService(RecordService[RoomRead]):
    record = ROOM
    not_found = RoomNotFoundError


def test_fields_come_from_the_struct() -> None:
    assert ROOM.columns == tuple(RoomRead.__struct_fields__)
    kinds = [str, str, int, int, float, float, bool, bool, date, date]
    assert [(field.kind, field.is_optional) for field in ROOM.fields] == [
        (kind, bool(number % 2)) for number, kind in enumerate(kinds)
    ]


def make_rooms(count: int) -> list[RoomCreate]:
    rng = random.Random(3)
    day = date(2000, 2, 27)

    def maybe(value: Any) -> Any:
        return None if rng.random() < 0.3 else value

    return [
        RoomCreate(
            name=rng.choice("ABCab") * rng.randint(1, 2),
            nickname=maybe(rng.choice("xyz")),
            seats=rng.randint(1, 4),
            floor=maybe(rng.randint(-3, 3)),
            area=rng.choice([0.1 + 0.2, 5e-324, -1.5, 1e300]),
            height=maybe(rng.choice([2.5, 3.0])),
            is_open=rng.random() < 0.5,
            is_old=maybe(rng.random() < 0.5),
            built=day + timedelta(rng.randint(0, 4)),
            closed=maybe(day + timedelta(rng.randint(0, 9000))),
        )
        for _ in range(count)
    ]


def use_rooms(database_url: str, main: Callable[[RoomService, list[RoomRead]], Awaitable[None]], count: int) -> None:
    """Store rooms, and work with them."""

    async def fill_and_use(database: Database) -> None:
        rooms = RoomService(database)
        stored = [await rooms.create(room, "nobody") for room in make_rooms(count)]
        await main(rooms, stored)

    with prepare(database_url) as alchemy:
        Room.metadata.create_all(alchemy.get_engine())
        try:
            run(alchemy, fill_and_use)
        finally:
            Room.metadata.drop_all(alchemy.get_engine())


def test_rooms_come_back_as_they_were(database_url: str) -> None:
    async def compare(rooms: RoomService, stored: list[RoomRead]) -> None:
        for room, given in zip(stored, make_rooms(len(stored)), strict=True):
            assert msgspec.structs.asdict(room) == {"id": room.id, **msgspec.structs.asdict(given)}
            assert await rooms.get(room.id) == room
            assert [type(value) for value in msgspec.structs.astuple(await rooms.get(room.id))] == [
                type(value) for value in msgspec.structs.astuple(room)
            ]
        (changed, *_) = stored
        patch = RoomPatch(floor=None, is_open=not changed.is_open, closed=date(1999, 12, 31), name=" A  b ")
        after = await rooms.change(changed.id, patch, "nobody")
        assert (after.floor, after.is_open, after.closed, after.name) == (None, patch.is_open, patch.closed, "A b")
        assert await rooms.get(changed.id) == after
        with pytest.raises(RoomNotFoundError):
            await rooms.get(10**9)
        await rooms.delete(changed.id, "nobody")
        with pytest.raises(RoomNotFoundError):
            await rooms.delete(changed.id, "nobody")

    use_rooms(database_url, compare, 20)


def test_every_order_is_walked_in_both_directions(database_url: str) -> None:
    """NULL is the lowest value, on both databases."""

    async def walk(rooms: RoomService, sort: str, first: str | None) -> list[int]:
        ids: list[int] = []
        cursor = first
        while True:
            page = await rooms.list_page(ROOMS.create(limit=7, sort=None if cursor else sort, cursor=cursor))
            numbers = [room.id for room in page.records]
            ids = [*numbers, *ids] if first else [*ids, *numbers]
            following = page.previous if first else page.next
            if following is None:
                return ids
            cursor = following.encode()

    async def walk_all(rooms: RoomService, stored: list[RoomRead]) -> None:
        sorts = [*ROOM.columns, "floor,is_open", "is_old,closed", "seats,nickname,built"]
        for sort in sorts:
            columns = [*sort.split(","), "id"]

            def rank(room: RoomRead, columns: list[str] = columns) -> list[Any]:
                values = [getattr(room, column) for column in columns]
                return [(value is not None, value) for value in values]

            expected = [room.id for room in sorted(stored, key=rank)]
            assert await walk(rooms, sort, None) == expected
            falling = ",".join(f"-{column}" for column in sort.split(","))
            assert await walk(rooms, falling, None) == expected[::-1]
            last = ROOMS.create(sort=sort).make_cursor(None, is_backward=True).encode()
            assert await walk(rooms, sort, last) == expected

    use_rooms(database_url, walk_all, 40)


FILTERS: list[tuple[dict[str, Any], Callable[[RoomRead], bool]]] = [
    ({"seats": (2,)}, lambda room: room.seats == 2),
    ({"seats": (1, 4)}, lambda room: room.seats in {1, 4}),
    ({"is_open": (True,)}, lambda room: room.is_open is True),
    ({"floor_min": 0}, lambda room: room.floor is not None and room.floor >= 0),
    ({"floor_min": -1, "floor_max": 1}, lambda room: room.floor in {-1, 0, 1}),
    ({"built_max": date(2000, 2, 29)}, lambda room: room.built is not None and room.built <= date(2000, 2, 29)),
    ({"name": "b"}, lambda room: "b" in (room.name or "").lower()),
    ({"closed": (date(1900, 1, 1),)}, lambda _: False),
]


@pytest.mark.parametrize(
    ("filters", "matches"), FILTERS, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
def test_fields_of_every_kind_are_filtered(
    database_url: str, filters: dict[str, Any], matches: Callable[[RoomRead], bool]
) -> None:
    """A cursor keeps the filters, and the number of records is theirs."""

    async def list_rooms(rooms: RoomService, stored: list[RoomRead]) -> None:
        expected = [room for room in stored if matches(room)]
        page = await rooms.list_page(ROOMS.create(limit=3, count=True, **filters))
        assert (page.records, page.total) == (expected[:3], len(expected))
        while page.next:
            page = await rooms.list_page(ROOMS.create(cursor=page.next.encode(), limit=1000))
            assert page.records == expected[3:]

    use_rooms(database_url, list_rooms, 30)


def test_query_parameters_come_from_the_declaration() -> None:
    assert list(ROOMS.query) == [
        "sort", "seats", "floor_min", "floor_max", "name", "is_open", "built_min", "built_max", "closed",
    ]  # fmt: skip
    floor, _ = ROOMS.query["floor_min"]
    (rule,) = floor.__metadata__
    assert (rule.ge, rule.le) == (-3, None)


def test_rare_sets_of_columns_are_changed_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statements that are kept stay few, however many columns there are."""
    monkeypatch.setattr("litestar_app.records.record.MAX_UPDATES", 1)
    record = Record(Room, create=RoomCreate, patch=RoomPatch, read=RoomRead)
    (room,) = [RoomRead(1, *msgspec.structs.astuple(given)) for given in make_rooms(1)]
    kept, values = record.update(room, {"floor": 2})
    assert (record.update(room, {"floor": 3})[0], values) == (kept, {"floor": 2})
    statement, values = record.update(room, {"seats": 2})
    assert values == {**msgspec.structs.asdict(make_rooms(1)[0]), "seats": 2}
    assert str(statement).count("=:") == len(ROOM.names)


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

    with pytest.raises(TypeError, match=r"^Stored: expected the fields id, name, nickname, .*, got id, name$"):
        Record(Room, create=RoomCreate, patch=RoomPatch, read=Stored)


@pytest.mark.parametrize("kind", [list[str], str | int])
def test_fields_of_other_types_are_rejected(kind: object) -> None:
    new = type("New", (Struct,), {"__annotations__": {"tags": kind}})
    with pytest.raises(TypeError, match=r"^tags: expected one of str, bool, int, float, date, perhaps with None, got"):
        Record(Room, create=new, patch=RoomPatch, read=RoomPatch)


def test_rooms_have_the_routes_of_a_student(database_url: str) -> None:
    """Every kind of field goes through HTTP as JSON, null too."""
    room = {
        "name": "A", "nickname": None, "seats": 2, "floor": -1, "area": 0.1, "height": None,
        "is_open": True, "is_old": None, "built": "2000-02-29", "closed": "2001-01-01",
    }  # fmt: skip
    settings = Settings(database_url=database_url)
    with prepare(database_url) as alchemy:
        Room.metadata.create_all(alchemy.get_engine())
        app = create_app(settings)
        app.register(create_controller(RoomService(app.plugins.get(DatabasePlugin).database), "room", "rooms"))
        with serve_app(app) as url, connect(url) as client:
            created = client.post("/room", json=room, headers={"Idempotency-Key": "a"})
            assert (created.status_code, created.json()) == (201, {"id": 1, **room})
            assert client.get("/room/1", headers={"If-None-Match": created.headers["ETag"]}).status_code == 304
            assert client.get("/room/1").json() == created.json()
            changes = {"floor": None, "is_old": False, "closed": None}
            assert client.patch("/room/1", json=changes).json() == {"id": 1, **room, **changes}
            assert client.put("/room/1", json=created.json()).json() == created.json()
            for query in ("seats=2", "is_open=true", "built_min=2000-02-29", "floor_max=-1", "closed=2001-01-01"):
                assert client.get(f"/rooms?{query}&count=true").json() == [created.json()]
            for query in (
                "seats=18446744073709551615",
                "floor_max=18446744073709551615",
                "seats=99999999999999999999",
                "built_min=29.2.2000",
            ):
                assert client.get(f"/rooms?{query}").status_code == 400, query
            assert client.delete("/room/1").status_code == 204
            assert client.get("/room/1").status_code == 404
        Room.metadata.drop_all(alchemy.get_engine())
