"""The commands of this service, which Litestar's own command line finds by their entry points.

Exit codes: 0 done; 1 a row was rejected, or a file, the database or a setting cannot be used; 2 wrong usage; 130
Ctrl-C; 141 where nobody reads the output any more. Whatever is heavy is imported when a command runs.
"""

import signal
import sys

import rich_click as click

from litestar_app.cli.backup import backup_command, restore_command
from litestar_app.cli.erase import erase_command
from litestar_app.cli.keys import create_command, list_command, revoke_command
from litestar_app.cli.run import end_at_once, handle_interrupts
from litestar_app.cli.transfer import export_command, import_command, seed_command

if {"students", "keys"}.intersection(sys.argv):  # else it is a command of somebody else, which Litestar also loads
    handle_interrupts(signal.default_int_handler, end_at_once)

CONTEXT = {"help_option_names": ["-h", "--help"]}


@click.group(name="students", context_settings=CONTEXT)
def students_group() -> None:
    """Import, export and erase students, and back them up, on the configured database, also while the service runs."""


for command in (import_command, export_command, seed_command, erase_command, backup_command, restore_command):
    students_group.add_command(command)


@click.group(name="keys", context_settings=CONTEXT)
def keys_group() -> None:
    """Create, list and revoke API keys; without any, only programs on this machine are served."""


for command in (create_command, list_command, revoke_command):
    keys_group.add_command(command)
