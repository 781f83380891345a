"""Idempotency keys: the first response to a request is stored in the transaction of the request, and loaded again."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar, cast

import msgspec
from msgspec import Struct
from sqlalchemy import Table, bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from litestar_app.exceptions import KeyInUseError, KeyReusedError, RetryTransactionError
from litestar_app.models import IdempotencyKey

R = TypeVar("R", bound=Struct)

KEY_TTL = 24 * 60 * 60
"""Seconds for which a key is kept."""

KEYS = cast("Table", IdempotencyKey.__table__)
MAX_EXPIRED = 100
"""Expired keys that a transaction deletes: few, so that none takes long, and more than a request adds."""
EXPIRED = (
    select(KEYS.c.key).where(KEYS.c.created_at < bindparam("oldest")).order_by(KEYS.c.created_at).limit(MAX_EXPIRED)
)
DELETE = delete(KEYS).where(KEYS.c.key == bindparam("given"))
LOAD = select(KEYS.c.request, KEYS.c.answer, KEYS.c.created_at).where(KEYS.c.key == bindparam("given"))
SAVE = insert(KEYS)


class IdempotencyStore(Generic[R]):
    """Responses of one kind by the key of their request."""

    def __init__(self, kind: type[R]) -> None:
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

    def load(self, session: Session, key: str, request: Struct) -> R | None:
        """Return the first response to a request, if there is one, and delete some of the keys that have expired.

        Raises:
            KeyReusedError: the key belongs to another request.

        """
        row = session.execute(LOAD, {"given": key}).first()
        delete_expired_keys(session)
        if row is not None and row.created_at < int(time.time()) - KEY_TTL:
            session.connection().execute(DELETE, {"given": key})  # it may not have been among them
            row = None
        if row is None:
            return None
        if row.request != _fingerprint(request):
            raise KeyReusedError
        return msgspec.json.decode(row.answer, type=self._kind)

    def save(self, session: Session, key: str, request: Struct, response: R) -> None:
        """Store a response in the transaction of its request; RetryTransactionError if the key has just been used."""
        row = {"key": key, "request": _fingerprint(request), "answer": msgspec.json.encode(response).decode()}
        try:
            session.execute(SAVE, {**row, "created_at": int(time.time())})
        except IntegrityError as error:
            raise RetryTransactionError from error


def delete_expired_keys(session: Session) -> int:
    """Delete some of the keys that have expired, and return how many."""
    expired = session.scalars(EXPIRED, {"oldest": int(time.time()) - KEY_TTL}).all()
    if expired:
        session.connection().execute(DELETE, [{"given": key} for key in expired])
    return len(expired)


def _fingerprint(request: Struct) -> str:
    return hashlib.sha256(msgspec.json.encode(request)).hexdigest()
