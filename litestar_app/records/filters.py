"""Filters: which records a listing has, by query parameters that a declaration names."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Annotated, Any, TypeAlias, cast, get_args

from litestar.openapi.spec import OpenAPIType, Schema
from litestar.params import QueryParameter
from msgspec import Meta
from sqlalchemy import Column, ColumnElement, LargeBinary, and_, func, or_
from sqlalchemy import cast as sql_cast

from litestar_app.records.fields import MAX_ID, Field
from litestar_app.records.texts import MAX_LENGTH, normalize

MAX_TEXT = MAX_LENGTH
"""Characters of a text to look for."""
NUL = "NUL is not possible"
TOO_LARGE = f"expected an integer from {-MAX_ID} to {MAX_ID}"


class Filter:
    """One query parameter that filters by a column. What it has no value for is its default, and filters nothing."""

    default: Any = None

    def __init__(self, name: str, column: Column[Any], kind: Any, annotation: Any) -> None:
        """Take its name, its column, the type of its values, and the annotation of the query parameter."""
        self.name = name
        self.column = column
        self.kind = kind
        self.annotation = annotation

    def find_fault(self, value: Any) -> str:
        """Return what is wrong with a value, or "": no database holds a larger integer."""
        return TOO_LARGE if isinstance(value, int) and abs(value) > MAX_ID else ""

    def make_condition(self, value: Any) -> ColumnElement[bool]:
        """Return the condition of SQL."""
        raise NotImplementedError


class OneOf(Filter):
    """The value is one of these, exactly. A text matches as given too: another program may have stored it so."""

    default = ()

    def find_forms(self, values: Sequence[Any]) -> list[Any]:
        """Return every value that matches."""
        return sorted(
            {form for value in values for form in ((value, normalize(value)) if _is_text(value) else (value,))}
        )

    def find_fault(self, value: Sequence[Any]) -> str:
        """Reject texts and integers that no record has."""
        if fault := next(filter(None, map(super().find_fault, value)), ""):
            return fault
        texts = [one for one in value if _is_text(one)]
        if not all(map(normalize, texts)):
            return "empty; leave it out"
        return NUL if any("\0" in text for text in texts) else ""

    def make_condition(self, value: Sequence[Any]) -> ColumnElement[bool]:
        """Compare texts with blanks at the end too, which most collations of MySQL leave out."""
        forms, column = self.find_forms(value), self.column
        if not _is_text(forms[0]):
            return column.in_(forms)
        if len(forms) == 1:
            return and_(column == forms[0], column + "|" == f"{forms[0]}|")
        return and_(column.in_(forms), (column + "|").in_([f"{text}|" for text in forms]))


class Contained(Filter):
    """The text contains this, letters in whatever case."""

    def find_fault(self, value: str) -> str:
        """Reject what no text contains."""
        text = normalize(value)
        if not text:
            return "empty; leave it out"
        if len(text) > MAX_TEXT:
            return f"expected at most {MAX_TEXT} characters"
        return NUL if "\0" in value else ""  # at which SQLite ends a text in some functions and not in others

    def make_condition(self, value: str) -> ColumnElement[bool]:
        """Look for the text as given, and normalised."""
        forms = {normalize(value), value[:MAX_TEXT]}
        return or_(*(_contains(self.column, form) for form in sorted(forms)))


class Lowest(Filter):
    """The value is this, or above."""

    def make_condition(self, value: Any) -> ColumnElement[bool]:
        """Compare."""
        return cast("ColumnElement[bool]", self.column >= value)


class Highest(Filter):
    """The value is this, or below."""

    def make_condition(self, value: Any) -> ColumnElement[bool]:
        """Compare."""
        return cast("ColumnElement[bool]", self.column <= value)


FilterKind: TypeAlias = Callable[[Field, Column[Any]], Sequence[Filter]]


def equals(field: Field, column: Column[Any]) -> Sequence[Filter]:
    """Filter by one parameter, which may be repeated: the field has one of its values."""
    kind: Any = field.kind
    extra = {"items": Schema(type=OpenAPIType.STRING, min_length=1)} if kind is str else {}
    rule = QueryParameter(description="one of these, exactly; it may be repeated", schema_extra=extra)
    return [OneOf(field.name, column, tuple[kind, ...], Annotated[tuple[kind, ...], rule])]


def contains(field: Field, column: Column[Any]) -> Sequence[Filter]:
    """Filter a text by a part of it."""
    words = f"contained in the {field.name}, in whatever case"
    rule = QueryParameter(min_length=1, max_length=MAX_TEXT, description=words)
    return [Contained(field.name, column, str | None, Annotated[str | None, rule])]


def between(field: Field, column: Column[Any]) -> Sequence[Filter]:
    """Filter by two parameters, `<field>_min` and `<field>_max`, within the rules of the field."""
    kind: Any = field.kind | None
    bounds = find_bounds(field)
    extra = {"minimum": bounds["ge"]} if "ge" in bounds else {}  # which Litestar leaves out if it is 0

    def make(filter_type: type[Filter], end: str, word: str) -> Filter:
        rule = QueryParameter(**bounds, description=f"the {word} that matches", schema_extra=extra)
        return filter_type(f"{field.name}_{end}", column, kind, Annotated[kind, rule])

    return [make(Lowest, "min", "lowest"), make(Highest, "max", "highest")]


def find_bounds(field: Field) -> dict[str, Any]:
    """Return the least and the greatest value, as the rules of the field or of its type beside None say."""
    metas = list(find_metas(field.annotation))
    return {name: bound for meta in metas for name in ("ge", "le") if (bound := getattr(meta, name)) is not None}


def find_metas(annotation: Any) -> Iterator[Meta]:
    """Find the rules of msgspec in an annotation, those of its parts too."""
    yield from (meta for meta in getattr(annotation, "__metadata__", ()) if isinstance(meta, Meta))
    for part in get_args(annotation):
        yield from find_metas(part)


def _is_text(value: object) -> bool:
    return value.__class__ is str


def _contains(column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    """Find a text in whatever case, alike on both databases.

    LIKE is fast, but folds only the letters of ASCII on SQLite. So names with others are matched by an expression that
    names every form of every letter.
    """
    has_others = func.char_length(column) < func.length(sql_cast(column, LargeBinary))
    like = column.icontains("".join(map(_fold, text)), autoescape=True)
    return or_(like, and_(has_others, column.regexp_match("".join(map(_match_any_case, text)))))


def _match_any_case(character: str) -> str:
    forms = _find_forms().get(_fold(character))
    return f"[{forms}]" if forms else re.escape(character)


@cache
def _find_forms() -> dict[str, str]:
    """Find all forms of each letter that has several, by its folded one."""
    forms: defaultdict[str, str] = defaultdict(str)
    for character in map(chr, range(0x1E944)):  # the last letter that has a case, of Adlam, comes before
        if (folded := _fold(character)) != character:
            forms[folded] = (forms[folded] or folded) + character
    return dict(forms)


def _fold(character: str) -> str:
    """Return one form of a letter for all of its forms, as i for a dotless one and for one with a dot."""
    upper = character.upper()
    return (upper if len(upper) == 1 else character).lower()[0]
