"""Requests that may be sent again: a key, and the first answer, stored in the transaction of what was done."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar, cast

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Table, bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError

from litestar_app.models import IdempotencyKey
from litestar_app.transactions import OvertakenError

A = TypeVar("A", bound=Struct)

KEPT_SECONDS = 24 * 60 * 60
"""How long a key is remembered."""

KEYS = cast("Table", IdempotencyKey.__table__)
EXPIRE = delete(KEYS).where(KEYS.c.created_at < bindparam("oldest"))
RECALL = select(KEYS.c.request, KEYS.c.answer).where(KEYS.c.key == bindparam("given"))
REMEMBER = insert(KEYS)


class KeyReusedError(Exception):
    """The key came before with another request."""


class KeyInUseError(Exception):
    """The first request with this key has not been answered yet."""


class FirstAnswers(Generic[A]):
    """The answers of one kind that were given under a key."""

    def __init__(self, kind: type[A]) -> None:
        self._kind = kind
        self._in_use: set[str] = set()

    @contextmanager
    def claim(self, key: str | None) -> Iterator[None]:
        """Hold a key while its request runs in this process, on the event loop; raise KeyInUseError if it is held."""
        if key is None:
            yield
            return
        if key in self._in_use:
            raise KeyInUseError
        self._in_use.add(key)
        try:
            yield
        finally:
            self._in_use.remove(key)

    def recall(self, connection: Connection, key: str, request: Struct) -> A | None:
        """Find the first answer to a request, and forget the keys that are too old.

        Raises:
            KeyReusedError: the key belongs to another request.

        """
        connection.execute(EXPIRE, {"oldest": int(time.time()) - KEPT_SECONDS})
        row = connection.execute(RECALL, {"given": key}).first()
        if row is None:
            return None
        if row.request != _fingerprint(request):
            raise KeyReusedError
        return msgspec.json.decode(row.answer, type=self._kind)

    def remember(self, connection: Connection, key: str, request: Struct, answer: A) -> None:
        """Store the answer in the transaction that it tells of; raise OvertakenError if the key has just been used."""
        row = {"key": key, "request": _fingerprint(request), "answer": msgspec.json.encode(answer).decode()}
        try:
            connection.execute(REMEMBER, {**row, "created_at": int(time.time())})
        except IntegrityError as error:
            raise OvertakenError from error


def _fingerprint(request: Struct) -> str:
    return hashlib.sha256(msgspec.json.encode(request)).hexdigest()
