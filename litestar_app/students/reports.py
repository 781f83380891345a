"""What an import reports."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from litestar_app.students.schemas import StudentRead

MAX_LISTED = 1000
"""Errors and changes that a report lists."""


class ImportProblem(Struct, gc=False):
    """One problem of one row."""

    row: Annotated[int, Meta(description="as a spreadsheet shows it; in JSON the position, from 1", examples=[7])]
    column: Annotated[str | None, Meta(description="the column, if it is one", examples=["cgpa"])]
    value: Annotated[str, Meta(description="what stands there, cut at 100 characters", examples=["11"])]
    detail: Annotated[str, Meta(description="what is expected", examples=["expected a number from 0 to 10"])]


ImportedStudent: Any = msgspec.defstruct(
    "ImportedStudent",
    [
        ("id", Annotated[int | None, Meta(description="null where the database will give it", examples=[1])]),
        *((field.name, field.type) for field in msgspec.structs.fields(StudentRead)[1:]),
    ],
    namespace={"__doc__": "A student as it will be."},
)


class ImportChange(Struct):
    """What one row changes."""

    row: Annotated[int, Meta(examples=[2])]
    id: Annotated[int | None, Meta(description="null for a student to create", examples=[1])]
    before: Annotated[
        StudentRead | None, Meta(examples=[{"id": 1, "name": "Ananya", "department": "CSE", "cgpa": 8.9}])
    ]
    after: Annotated[ImportedStudent, Meta(examples=[{"id": 1, "name": "Ananya", "department": "CSE", "cgpa": 9.1}])]


class Report(Struct, kw_only=True):
    """What an import did, or would do."""

    import_: Annotated[
        int | None,
        Meta(description="its id, to undo it; null where nothing was written or no history is kept", examples=[7]),
    ] = field(default=None, name="import")
    dry_run: Annotated[bool, Meta(description="whether nothing was written", examples=[False])] = False
    created: Annotated[int, Meta(examples=[3])] = 0
    updated: Annotated[int, Meta(examples=[1])] = 0
    unchanged: Annotated[int, Meta(examples=[0])] = 0
    rejected: Annotated[int, Meta(description="rows with a problem", examples=[0])] = 0
    renamed: Annotated[int, Meta(description="updated rows that change the name", examples=[0])] = 0
    duplicates: Annotated[
        int,
        Meta(
            description="created rows with the name and department of another student, or of an earlier row",
            examples=[0],
        ),
    ] = 0
    blank: Annotated[int, Meta(description="blank rows, which are skipped", examples=[0])] = 0
    above_header: Annotated[
        int, Meta(description="rows above the header that are not blank; they are skipped", examples=[0])
    ] = 0
    ignored_columns: Annotated[list[str], Meta(examples=[["Email"]])] = field(default_factory=list)
    ignored_sheets: Annotated[
        list[str], Meta(description="other sheets of the workbook that have rows", examples=[[]])
    ] = field(default_factory=list)
    changes: Annotated[list[ImportChange], Meta(description="of a dry run, the first 1000", examples=[[]])] = field(
        default_factory=list
    )
    errors: Annotated[list[ImportProblem], Meta(description="the first 1000", examples=[[]])] = field(
        default_factory=list
    )
