"""The declaration of a record: its table and its structs."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec
from advanced_alchemy.base import DefaultBase
from msgspec import Struct
from sqlalchemy import Table

R = TypeVar("R", bound=Struct)

KINDS: Mapping[type[msgspec.inspect.Type], type] = {
    msgspec.inspect.StrType: str,
    msgspec.inspect.BoolType: bool,
    msgspec.inspect.IntType: int,
    msgspec.inspect.FloatType: float,
    msgspec.inspect.DateType: date,
}
"""The types that a field may have, by msgspec's own name of each."""


class Field(NamedTuple):
    """One field of a record, apart from its id."""

    name: str
    kind: type
    """str, bool, int, float or date."""
    is_optional: bool
    """Whether a client may leave it out or send null, which is stored as NULL."""
    annotation: Any
    """Its type with the rules, as the struct of a new record declares it."""


class Record(Generic[R]):
    """What a kind of record is: everything generic takes its columns, types and rules from here.

    The structs are the declaration: `create` has every field with its rules, without the id; `read` has the id first
    and then the same fields, in the same order, each of which may be None, since another program may have stored NULL.
    """

    def __init__(self, model: type[DefaultBase], *, create: type[Struct], patch: type[Struct], read: type[R]) -> None:
        """Take the mapped class and the structs; raise TypeError unless they have the same fields in the same order."""
        self.table = cast("Table", model.__table__)
        self.create = create
        self.patch = patch
        self.read = read
        self.fields = tuple(_make_field(field) for field in msgspec.structs.fields(create))
        self.names = tuple(field.name for field in self.fields)
        """The columns without the id."""
        self.columns = ("id", *self.names)
        for what, names in (
            (read.__name__, read.__struct_fields__),
            (patch.__name__, ("id", *patch.__struct_fields__)),
            (model.__name__, tuple(self.table.c.keys())),
        ):
            if names != self.columns:
                raise TypeError(f"{what}: expected the fields {', '.join(self.columns)}, got {', '.join(names)}")


def _make_field(field: msgspec.structs.FieldInfo) -> Field:
    types = list(_find_types(msgspec.inspect.type_info(field.type)))
    kinds = [KINDS.get(type(one)) for one in types if not isinstance(one, msgspec.inspect.NoneType)]
    if len(kinds) != 1 or kinds[0] is None:
        expected = ", ".join(kind.__name__ for kind in KINDS.values())
        raise TypeError(f"{field.name}: expected one of {expected}, perhaps with None, got {field.type}")
    return Field(field.name, kinds[0], len(types) > 1, field.type)


def _find_types(information: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    if isinstance(information, msgspec.inspect.Metadata):
        yield from _find_types(information.type)
    elif isinstance(information, msgspec.inspect.UnionType):
        for one in information.types:
            yield from _find_types(one)
    else:
        yield information
