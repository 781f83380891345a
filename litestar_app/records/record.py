"""The declaration of a record: its table, its structs and its filters, and the statements that follow from them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

import msgspec
from advanced_alchemy.base import DefaultBase
from msgspec import UNSET, Struct
from sqlalchemy import Select, Table, Update, bindparam, delete, insert, select, update

from litestar_app.database.loader import select_by_ids
from litestar_app.records.fields import make_field
from litestar_app.records.filters import FilterKind
from litestar_app.records.texts import normalize

R = TypeVar("R", bound=Struct)

MAX_UPDATES = 128
"""Statements that change some columns, which are kept; another set of columns is changed with all the others."""


class Record(Generic[R]):
    """What a kind of record is: everything generic takes its columns, types and rules from here.

    The structs are the declaration: `create` has every field with its rules, without the id; `read` has the id first
    and then the same fields, in the same order, each of which may be None, since another program may have stored NULL.
    """

    def __init__(  # noqa: PLR0913  a declaration
        self,
        model: type[DefaultBase],
        *,
        create: type[Struct],
        patch: type[Struct],
        read: type[R],
        filters: Mapping[str, FilterKind] = MappingProxyType({}),
        natural_key: tuple[str, ...] = (),
    ) -> None:
        """Take the mapped class, the structs, how a listing can be filtered, and what else than an id names a record.

        Filters are by the names of the fields; the natural key has names of fields that are no numbers.

        Raises:
            TypeError: the class and the structs differ in their fields or in the order of those.

        """
        self.table = cast("Table", model.__table__)
        self.create = create
        self.patch = patch
        self.read = read
        self.filters = filters
        self.natural_key = natural_key
        self.fields = tuple(make_field(field) for field in msgspec.structs.fields(create))
        self.names = tuple(field.name for field in self.fields)
        """The columns without the id."""
        self.columns = ("id", *self.names)
        self.required = tuple(field.name for field in self.fields if not field.is_optional)
        self.texts = tuple(field.name for field in self.fields if field.kind is str)
        for what, names in (
            (read.__name__, read.__struct_fields__),
            (patch.__name__, ("id", *patch.__struct_fields__)),
            (model.__name__, tuple(self.table.c.keys())),
        ):
            if names != self.columns:
                raise TypeError(f"{what}: expected the fields {', '.join(self.columns)}, got {', '.join(names)}")
        self._kinds = tuple(field.kind for field in self.fields)
        self._are_plain = {bool, date}.isdisjoint(self._kinds)
        self._make_statements()

    def _make_statements(self) -> None:
        """Make the fixed statements, each of which a database compiles once."""
        table, is_this = self.table, self.table.c.id == bindparam("row_id")
        self.by_id = select(table).where(is_this)
        self.by_ids = select_by_ids(table)
        ordered = select(table).order_by(table.c.id).limit(bindparam("limit"))
        self.page = ordered.offset(bindparam("offset"))
        self.from_id = ordered.where(table.c.id >= bindparam("first"))
        self.insert = (
            insert(table).values({name: bindparam(name) for name in self.names}).inline()
        )  # lastrowid is enough
        self.delete = delete(table).where(is_this)
        self._updates: dict[tuple[str, ...], Update] = {}
        self._update_all = self._make_update(self.names)

    @property
    def reads(self) -> tuple[Select[Any], ...]:
        """The fixed statements that only read."""
        return (self.by_id, self.by_ids, self.page, self.from_id)

    def load(self, row: Sequence[Any]) -> R:
        """Read a row as a driver returns it: SQLite has neither dates nor booleans, and MySQL no booleans."""
        return self.read(*row) if self._are_plain else self.read(row[0], *map(_load, self._kinds, row[1:]))

    def load_all(self, rows: Iterable[Sequence[Any]]) -> list[R]:
        """Read rows as a driver returns them."""
        if self._are_plain:
            read = self.read
            return [read(*row) for row in rows]
        return [self.load(row) for row in rows]

    def dump(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return values as every driver takes them."""
        if self._are_plain:
            return values
        return {name: value.isoformat() if isinstance(value, date) else value for name, value in values.items()}

    def update(self, stored: R, changes: Mapping[str, object]) -> tuple[Update, Mapping[str, object]]:
        """Return the statement that changes some columns of a locked row, and its values but for the id."""
        names = tuple(changes)
        if (statement := self._updates.get(names)) is None:
            if len(self._updates) == MAX_UPDATES:
                return self._update_all, self.get_stored(stored) | dict(changes)
            statement = self._updates[names] = self._make_update(names)
        return statement, changes

    def _make_update(self, names: tuple[str, ...]) -> Update:
        columns: dict[str, Any] = {name: bindparam(name) for name in names}
        return update(self.table).where(self.table.c.id == bindparam("row_id")).values(columns)

    def get_stored(self, record: Struct) -> dict[str, Any]:
        """Return the values of a stored record without its id, in the order of the columns."""
        return {name: getattr(record, name) for name in self.names}

    def get_values(self, data: Struct, stored: R | None = None) -> dict[str, Any]:
        """Return what is given, in the order of the columns; a text normalised, unless it is the stored one."""
        values: dict[str, Any] = {}
        for name in self.names:
            value = getattr(data, name)
            if value.__class__ is str and (stored is None or value != getattr(stored, name)):
                value = normalize(value)
            if value is not UNSET:
                values[name] = value
        return values


def _load(kind: type, value: Any) -> Any:
    if kind is bool and isinstance(value, int):
        return bool(value)
    return date.fromisoformat(value) if kind is date and isinstance(value, str) else value


def etag(record: Struct) -> str:
    """Make a strong entity tag (RFC 9110), quotes included: it changes exactly when the record does."""
    return f'"{blake2b(msgspec.json.encode(record), digest_size=12).hexdigest()}"'
