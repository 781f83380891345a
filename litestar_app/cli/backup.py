"""`litestar students backup` and `restore`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from litestar_app.cli.files import require_directory
from litestar_app.cli.run import failures, read_settings

if TYPE_CHECKING:
    from litestar_app.settings import Settings


@click.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE.")
def backup_command(file: Path, *, force: bool) -> None:
    """Copy the SQLite database to FILE, as it is at one moment; the service may write meanwhile.

    FILE appears when it is complete and checked, and only its owner may read it. A file of that name is replaced with
    --force only, also one that appears while the command runs.
    """
    if str(file) == "-":
        raise click.BadParameter("a backup is a file, which is checked before it gets its name; compress that")
    require_directory(file)
    if file.exists() and not file.is_file():
        raise click.BadParameter(f"{click.format_filename(file)} is not a regular file")
    if file.exists() and not force:
        raise click.BadParameter(f"{click.format_filename(file)} exists; --force replaces a file")
    with failures():
        settings = read_settings()
        database = _name_file(
            settings,
            "mariadb-dump (mysqldump) --single-transaction --no-tablespaces --default-character-set=utf8mb4"
            " --result-file=FILE {options}",
        )
        from litestar_app.database.backup import back_up  # noqa: PLC0415  heavy

        if file.exists() and database.exists() and file.samefile(database):
            raise click.BadParameter("it is the database itself")
        students = back_up(database, file, replaces=force)
        click.echo(f"Wrote {click.format_filename(file)}: {students:,} students.")


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore_command(file: Path, *, yes: bool) -> None:
    """Replace the content of the SQLite database by that of FILE, a backup; the service may run meanwhile.

    What is there now is kept in a file next to the database. If the command is killed, the database holds either the
    old content or the new one, never a part of both.
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("--yes is needed where nobody can be asked")
    with failures():
        settings = read_settings()
        database = _name_file(settings, "mariadb (mysql) {options} < FILE")
        from litestar_app.database.backup import prepare_restore, restore  # noqa: PLC0415  heavy

        names = click.format_filename(database), click.format_filename(file)
        with prepare_restore(settings, file) as copy:
            if not yes:
                click.confirm("Replace everything in {} by {}?".format(*names), abort=True)
            kept = restore(database, copy)
        click.echo("Restored {} from {}.".format(*names))
        if kept is not None:
            click.echo(f"What it held before is in {click.format_filename(kept)}; delete that when it is not needed.")


def _name_file(settings: "Settings", right_tool: str) -> Path:
    """Return the database's file, or end with the right tool for a server."""
    url = settings.url
    if url.get_backend_name() != "sqlite":
        options = [
            *([f"--host={url.host}"] if url.host else []),
            *([f"--port={url.port}"] if url.port else []),
            *([f"--socket={url.query['unix_socket']}"] if "unix_socket" in url.query else []),
            f"--user={url.username} --password {url.database}",
        ]
        command = right_tool.format(options=" ".join(options))
        sys.exit(f"student-records: {url.host or 'MySQL'} is a server with tools of its own: {command}")
    return Path(str(url.database))
