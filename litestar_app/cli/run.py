"""How a command works with the configured database, and how it ends."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

import rich_click as click

if TYPE_CHECKING:
    from litestar_app.database import Database
    from litestar_app.settings import Settings

T = TypeVar("T")

ENVIRONMENT = dict(os.environ)
"""As it was before Litestar's own command read a `.env`: of another directory, and by other rules than ours."""
REJECTED, INTERRUPTED, BROKEN_PIPE = 1, 130, 141


def end_at_once(_signal: int, _frame: object) -> None:
    """End the process on Ctrl-C at once: while others' code runs, which would show a traceback, nothing has begun."""
    os._exit(INTERRUPTED)


def handle_interrupts(old: object, new: Callable[[int, FrameType | None], object]) -> None:
    """Replace one handler of Ctrl-C by another; a process in the background, which ignores it, goes on ignoring it."""
    if signal.getsignal(signal.SIGINT) is old:
        signal.signal(signal.SIGINT, new)


def read_settings() -> "Settings":
    """Read the settings as the service does."""
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    from litestar_app.settings import Settings  # noqa: PLC0415  heavy

    return Settings.from_environment()


def use_database(work: "Callable[[Database], Awaitable[T]]") -> T:
    """Prepare the configured database as a start of the service does, and work with it."""
    settings = read_settings()
    from litestar_app.database import Database  # noqa: PLC0415  heavy
    from litestar_app.database.config import create_alchemy_config  # noqa: PLC0415
    from litestar_app.entries import record_change  # noqa: PLC0415

    alchemy = create_alchemy_config(settings)
    alchemy.prepare_database()

    async def run() -> T:
        database = Database(alchemy)
        if settings.history == "on":
            database.listen(record_change)
        async with database.open():
            return await work(database)

    return asyncio.run(run())


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """End the process with one line and an exit code for whatever is no defect."""
    handle_interrupts(end_at_once, signal.default_int_handler)
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter would complain at its end
        sys.exit(BROKEN_PIPE)
    except click.ClickException:
        raise
    except Exception as error:
        from litestar_app.exceptions import StudentRecordsError  # noqa: PLC0415  heavy

        if not isinstance(error, (StudentRecordsError, OSError)):
            raise
        summary = error.summary if isinstance(error, StudentRecordsError) else ""
        reason = ": ".join(filter(None, [summary, str(error)]))
        sys.exit(f"student-records: {' '.join(reason.split())}")
