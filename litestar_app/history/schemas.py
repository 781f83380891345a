"""What a client gets of the history."""

from datetime import datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType, field

from litestar_app.entries import Action
from litestar_app.http.problems import Problem
from litestar_app.students.reports import Report
from litestar_app.students.schemas import StudentRead

ANANYA = {"id": 1, "name": "Ananya", "department": "CSE", "cgpa": 8.9}
At = Annotated[datetime, Meta(description="in UTC", examples=["2026-11-25T08:30:00.123456Z"])]
Who = Annotated[str, Meta(description="the name of the API key, or local", examples=["registrar"])]


class Entry(Struct):
    """What one write has done to a student."""

    at: At
    who: Who
    action: Annotated[Action, Meta(examples=["update"])]
    import_: Annotated[int | None, Meta(description="the import that it belongs to", examples=[7])] = field(
        name="import"
    )
    before: Annotated[StudentRead | None, Meta(description="null of a create", examples=[ANANYA])]
    after: Annotated[StudentRead | None, Meta(description="null of a delete", examples=[ANANYA | {"cgpa": 9.1}])]


class ImportSummary(Struct):
    """What one import has done."""

    id: Annotated[int, Meta(examples=[7])]
    at: At
    who: Who
    created: Annotated[int, Meta(examples=[3])]
    updated: Annotated[int, Meta(examples=[1])]
    deleted: Annotated[int, Meta(description="by the undo of an import that has created them", examples=[0])]
    unchanged: Annotated[int, Meta(examples=[0])]
    rejected: Annotated[int, Meta(examples=[0])]
    undo_of: Annotated[int | None, Meta(description="the import that this one has undone", examples=[6])]
    undone_by: Annotated[int | None, Meta(description="the import that has undone this one", examples=[8])]


class UndoReport(Report, kw_only=True):
    """The report of an import that has undone another one."""

    deleted: Annotated[int, Meta(description="students whom that one had created", examples=[3])] = 0


class UndoProblem(Problem, omit_defaults=True):
    """A problem document (RFC 9457), of an import that cannot be undone."""

    students: (
        Annotated[list[int], Meta(description="the ids of those who have changed, the first 1000", examples=[[1]])]
        | UnsetType
    ) = UNSET
