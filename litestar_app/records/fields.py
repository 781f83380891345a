"""The fields of a record, as a struct declares them."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

MAX_ID = 2**63 - 1
"""The highest id that a database holds."""
GivenId = Annotated[
    int, Meta(description="the id in the path, or none", examples=[1], extra_json_schema={"readOnly": True})
]
"""The id in a body that replaces a record."""
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


def make_field(field: msgspec.structs.FieldInfo) -> Field:
    """Describe a field of a struct; raise TypeError for a type that no column here has."""
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
