"""A unit of work that writes: all or nothing, tried again while others are in its way, honest about COMMIT."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from litestar_app.database import LOCK_SECONDS, SQLITE_LOCKED

T = TypeVar("T")

MYSQL_CONTENTION = {1205, 1213}
"""MySQL's codes for a lock not given in time and for a deadlock; a Galera cluster says 1213 at COMMIT too."""


class OvertakenError(Exception):
    """Another transaction was faster; a second try will see what it did."""


class OutcomeUnknownError(Exception):
    """The connection was lost during COMMIT: the change may be stored or not."""


class Transactions:
    """Runs units of work, each as one transaction that has been committed when `run` returns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: Connection | None = None

    def close(self) -> None:
        """Give the connection that is kept back to the pool, which rolls back whatever a failed COMMIT left open."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def run(self, work: Callable[[Connection], T]) -> T:
        """Call `work` with a connection, and commit.

        Where others are in the way, the whole of it is tried again, for `LOCK_SECONDS` seconds at most. Whatever it
        raises, nothing is stored, but for one case.

        Raises:
            OutcomeUnknownError: that case. It is never tried again.
            DBAPIError: what the database said, the last time.

        """
        began = time.monotonic()
        try:
            return self._attempt(work)
        except (DBAPIError, OvertakenError) as error:
            left = LOCK_SECONDS - (time.monotonic() - began)
            if left <= 0 or not _may_pass(error):
                raise
        for attempt in Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_delay(left),
            wait=wait_random_exponential(multiplier=0.01, max=0.5),
            reraise=True,
        ):
            with attempt:
                return self._attempt(work)
        raise AssertionError  # Retrying ends by an answer or an exception

    def run_group(self, group: Sequence[Callable[[Connection], T]]) -> list[T | BaseException]:
        """Call several units of work with one COMMIT for all; return what each has returned or raised.

        They go through together or not at all. If not, each is run by itself, so that none fails for another.
        """
        if len(group) > 1:
            try:
                return self._attempt(lambda connection: [work(connection) for work in group])
            except BaseException as error:  # noqa: BLE001  run by itself, whoever it belongs to raises it again
                if _is_contention(error) or isinstance(error, OutcomeUnknownError):  # and these belong to all
                    return [error for _ in group]
        outcomes: list[T | BaseException] = []
        for number, work in enumerate(group):
            try:
                outcomes.append(self.run(work))
            except BaseException as error:  # noqa: BLE001  for the caller to raise, on its own thread
                if _is_contention(error):  # who comes after would wait as long, and in vain
                    return outcomes + [error for _ in group[number:]]
                outcomes.append(error)
        return outcomes

    def _attempt(self, work: Callable[[Connection], T]) -> T:
        only_commit_is_left = False
        try:
            with self._connect() as connection, connection.begin():
                answer = work(connection)
                only_commit_is_left = True
        except BaseException as error:
            self.close()
            if only_commit_is_left and isinstance(error, DBAPIError) and error.connection_invalidated:
                raise OutcomeUnknownError("the connection was lost during COMMIT") from error
            raise
        return answer

    def _connect(self) -> AbstractContextManager[Connection]:
        """Give a connection: on SQLite the one of the one thread that writes, from the pool elsewhere."""
        if self._engine.dialect.name != "sqlite":
            return self._engine.connect()
        if self._kept is None:
            self._kept = self._engine.connect()
        return nullcontext(self._kept)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, OvertakenError) or _is_contention(error)


def _is_contention(error: BaseException) -> bool:
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False
    if (code := getattr(error.orig, "sqlite_errorcode", None)) is not None:
        return code & 0xFF in SQLITE_LOCKED
    return bool(error.orig.args) and error.orig.args[0] in MYSQL_CONTENTION
