"""Log lines: JSON, or text on a terminal; each with its time, none with what is stored of a student."""

import json
import logging
import os
import re
import threading
import time
import traceback
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from litestar_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

VALUES = re.compile(r"""['"`].*['"`]""", re.DOTALL)
"""What an error quotes, from the first quote to the last: with "Duplicate entry 'O'Brien' for key", no less will do."""
STATEMENT = "\n[SQL: "
"""Where SQLAlchemy adds the statement to an error: with the names of parameters, never with their values."""


def make_log_config(settings: Settings) -> dict[str, Any]:
    """Make what `logging.config.dictConfig` takes: requests to standard output, all else to standard error."""

    def make_handler(stream: str) -> dict[str, str]:
        return {"()": "litestar_app.logs.LineHandler", "stream": f"ext://sys.{stream}", "style": settings.log_format}

    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"stderr": make_handler("stderr"), "stdout": make_handler("stdout")},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "litestar_app": {"level": settings.log_level.upper()},
            "litestar_app.access": {"handlers": ["stdout"], "propagate": False},
            # its tracebacks of connections that died are of no use: what they mean is logged where it matters
            "sqlalchemy.pool": {"level": "CRITICAL"},
        },
    }


class LineHandler(logging.Handler):
    """Writes a record at once and as a whole, so that lines of several workers do not mix and a kill loses none."""

    def __init__(self, stream: TextIO, style: str) -> None:
        """Take where to write, and `json`, `text`, or `auto`: text on a terminal."""
        super().__init__()
        is_text = style == "text" or (style == "auto" and stream.isatty())
        self.setFormatter(TextFormatter() if is_text else JsonFormatter())
        self._descriptor = stream.fileno()
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # half of what a record costs
        logging.captureWarnings(capture=True)
        threading.excepthook = log_exception_of_thread

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; where nobody reads any more, the service goes on without."""
        left = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")  # which is JSON's own way too
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            return


class TextFormatter(logging.Formatter):
    """A line for a person, with a traceback under it."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        lines = [f"{format_time(record.created)} {record.levelname:8} {_get_message(record)}"]
        if record.exc_info and record.exc_info[1]:
            lines += _format_exception(record.exc_info[1])
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """An object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; a struct as its message gives its own members."""
        level = record.levelname.lower()
        head = f'{{"time":"{format_time(record.created)}","level":"{level}","logger":"{record.name}",'
        if isinstance(record.msg, msgspec.Struct):
            return head + msgspec.json.encode(record.msg).decode()[1:]
        members = {"message": _get_message(record)}
        if request_id := getattr(record, "request_id", None):
            members["request_id"] = request_id
        if record.exc_info and record.exc_info[1]:
            members["traceback"] = "\n".join(_format_exception(record.exc_info[1]))
        return head + json.dumps(members, ensure_ascii=False, separators=(",", ":"))[1:]


def log_exception_of_thread(arguments: threading.ExceptHookArgs) -> None:
    """Log what has ended a thread, which Python would write as it is."""
    if arguments.exc_value is not None:
        name = arguments.thread.name if arguments.thread else "a thread"
        logging.getLogger("litestar_app").error("%s has ended", name, exc_info=arguments.exc_value)


def format_time(seconds: float) -> str:
    """Write a time as RFC 3339 has it, in UTC and milliseconds."""
    return f"{_format_second(int(seconds))}.{int(seconds % 1 * 1000):03d}Z"


@lru_cache(8)
def _format_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _get_message(record: logging.LogRecord) -> str:
    message = record.getMessage().rstrip()
    # asyncio adds a task or a future, with its exception as Python writes it
    return message.partition("\n")[0] if record.name == "asyncio" else message


def _format_exception(error: BaseException, indent: str = "") -> "Iterator[str]":
    """Give the lines of a traceback, with what led to the error first, and without the values that errors quote."""
    if before := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        yield from _format_exception(before, indent)
        yield f"{indent}which led to:"
    yield f"{indent}Traceback (most recent call last):"
    for line in "".join(traceback.format_tb(error.__traceback__)).splitlines():
        yield indent + line
    told, statement, sql = str(error).partition(STATEMENT)
    for line in f"{type(error).__qualname__}: {VALUES.sub('…', told)}{statement}{sql}".splitlines():
        yield indent + line
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _format_exception(inner, f"{indent}  | ")
