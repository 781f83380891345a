"""Lifespans for any server: how a start fails, and when Python collects garbage."""

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar_app.exceptions import SettingsError

GARBAGE_THRESHOLD = 10_000
"""Objects of requests that Python's collector waits for: more than those in flight have."""


@asynccontextmanager
async def name_wrong_setting(_app: object) -> AsyncIterator[None]:
    """Have uvicorn log a start that fails for a wrong setting as one line.

    Litestar gives the server the traceback, and passes the messages of the lifespan to nobody else.
    """
    try:
        yield
    except SettingsError:
        logging.getLogger("uvicorn.error").addFilter(shorten_failure)
        raise


def shorten_failure(record: logging.LogRecord) -> bool:
    """Replace the traceback of a SettingsError by its reason; pass every record."""
    head, found, reason = record.getMessage().rpartition(f"{SettingsError.__name__}: ")
    if found and "Traceback (most recent call last):" in head:  # perhaps that of an exception group
        record.msg, record.args = f"student-records: {reason.splitlines()[0]}", ()
    return True


@asynccontextmanager
async def limit_garbage_collection(_app: object) -> AsyncIterator[None]:
    """Keep Python's collector from all that the start has made, and from requests in flight.

    It would look at a hundred thousand objects again and again, 0.1 seconds each time, for next to no garbage.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
