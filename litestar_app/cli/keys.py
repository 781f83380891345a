"""`litestar keys create`, `list` and `revoke`."""

import os
import re
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import rich_click as click

from litestar_app.cli.run import failures, use_database

if TYPE_CHECKING:
    from litestar_app.access.keys import Key
    from litestar_app.http.callers import Role

DAY = "%Y-%m-%d"
SECONDS_A_DAY = 24 * 60 * 60


def _check_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    from litestar_app.settings import KEY_NAME  # noqa: PLC0415  heavy

    del context, parameter
    if not re.fullmatch(KEY_NAME, value):
        raise click.BadParameter("expected 1 to 100 characters that are seen, without blanks, colons and commas")
    return value


def _check_day(context: click.Context, parameter: click.Parameter, value: datetime | None) -> int | None:
    """Return when the day ends, in seconds since 1970."""
    del context, parameter
    if value is None:
        return None
    end = int(value.replace(tzinfo=UTC).timestamp()) + SECONDS_A_DAY
    if end <= time.time():
        raise click.BadParameter(f"{value:{DAY}} is over")
    return end


@click.command("create")
@click.argument("name", callback=_check_name)
@click.option("--role", type=click.Choice(["reader", "editor"]), required=True, help="To read only, or to write too.")
@click.option(
    "--expires",
    type=click.DateTime([DAY]),
    callback=_check_day,
    metavar="DATE",
    help="The last day on which it works, in UTC, such as 2027-09-30.",
)
@click.option("--print-hash", is_flag=True, help="Store nothing; print what API_KEYS takes, for a container.")
def create_command(name: str, *, role: "Role", expires: int | None, print_hash: bool) -> None:
    """Create a key; its secret is the last line of the output, and is shown this once only."""
    with failures():
        from litestar_app.access.keys import KeyStore, make_key  # noqa: PLC0415  heavy

        key, secret = make_key(name, role, expires)
        if print_hash:
            if expires:
                raise click.UsageError("A key of API_KEYS does not expire: remove it there")
            click.echo(f"{key.name}:{key.role}:{key.id}:{key.sha256}")
            click.echo(secret)
            return
        use_database(lambda database: KeyStore(database).create(key))
        try:
            click.echo(f"Created the key {name}, {role}. It works within five seconds. Its secret:")
            click.echo(secret)
            sys.stdout.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter would complain too
            sys.exit(
                f"student-records: the key {name} was created, and its secret could not be written ({error.strerror}): "
                f"revoke it (litestar keys revoke {name}) and create another one"
            )


@click.command("list")
def list_command() -> None:
    """List the keys, without their secrets, which nobody has."""
    with failures():
        from litestar_app.access.keys import KeyStore  # noqa: PLC0415  heavy

        keys = use_database(lambda database: KeyStore(database).list())
        rows = [("id", "name", "role", "created", "expires", "state"), *map(_describe, keys)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@click.command("revoke")
@click.argument("name")
def revoke_command(name: str) -> None:
    """Revoke the key with this name, or this id."""
    with failures():
        from litestar_app.access.keys import KeyStore  # noqa: PLC0415  heavy

        count = use_database(lambda database: KeyStore(database).revoke(name))
        click.echo("Revoked; it works for five seconds at most." if count else "It had been revoked already.")


def _describe(key: "Key") -> tuple[str, ...]:
    if key.revoked_at is not None:
        state = f"revoked {_day(key.revoked_at)}"
    else:
        state = "valid" if key.is_valid(time.time()) else "expired"
    expires = _day(key.expires_at - 1) if key.expires_at else "never"
    return key.id, key.name, key.role, _day(key.created_at), expires, state


def _day(seconds: Any) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(DAY)
