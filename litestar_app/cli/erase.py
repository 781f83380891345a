"""`litestar students erase`: what is kept of one person is removed."""

import re
import sys
from typing import TYPE_CHECKING

import rich_click as click

from litestar_app.cli.run import REJECTED, failures, use_database
from litestar_app.records.fields import MAX_ID

if TYPE_CHECKING:
    from litestar_app.database import Database


def _read_id(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """Read an id as the routes do; Python takes 1_0 for 10."""
    del context, parameter
    if not re.fullmatch("-?(0|[1-9][0-9]{0,18})", value) or abs(int(value)) > MAX_ID:
        raise click.BadParameter(f"{value!r} is not the id of a student, such as 7")
    return int(value)


@click.command("erase")
@click.argument("student_id", metavar="ID", callback=_read_id)
def erase_command(student_id: int) -> None:
    """Delete the student ID, and what the history and stored responses hold of the person, for good.

    The history keeps that something happened, when and by whom, and not what. Backups are not touched. To run it again
    finishes what was interrupted.
    """
    with failures():
        from litestar_app.history.erasure import erase  # noqa: PLC0415
        from litestar_app.http.callers import LOCAL  # noqa: PLC0415  heavy

        async def run(database: "Database") -> bool:
            return await erase(database, student_id, LOCAL.name)

        is_complete = use_database(run)
        click.echo(f"Erased: student {student_id}.")
        if not is_complete:
            click.echo(
                "Its file or its -wal may still hold it, since another transaction is in the way: run this again.",
                err=True,
            )
            sys.exit(REJECTED)
