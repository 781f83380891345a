"""Idempotency keys: the first response to a request is stored in the transaction of the request, and loaded again.

What is stored tells nobody what was sent: of the key its SHA-256, of the request an HMAC under the key. Whoever reads
the database can test a guess at the request only if they guess the key as well.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar, cast

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Table, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from litestar_app.database import Database
from litestar_app.database.unit_of_work import UnitOfWork
from litestar_app.exceptions import RejectedError, RetryTransactionError
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
MAX_GAP = 7 * 24 * 60 * 60
"""Seconds. If even the newest key expired as long ago, the clock may be ahead, and without the key a retry would make
its change twice. The next key lets all of them go."""
NEWEST = select(func.max(KEYS.c.created_at))
DELETE = delete(KEYS).where(KEYS.c.key == bindparam("given"))
LOAD = select(KEYS).where(KEYS.c.key.in_([bindparam("stored"), bindparam("given")]))
SAVE = insert(KEYS)
HASHED = "sha256 "
"""How keys are stored begins so; earlier releases stored them as they were sent, and none of those has a blank."""
ANY = ""
"""The fingerprint of a request that was erased: any request is taken for it, so that a retry changes nothing."""


class KeyReusedError(RejectedError):
    """The Idempotency-Key was used with another request."""

    status = 422
    summary = "This Idempotency-Key was used with another request; use a new one"


class KeyInUseError(RejectedError):
    """The first request with this Idempotency-Key is still running."""

    status = 409
    summary = "The first request with this Idempotency-Key is still running"


class Once(Generic[R]):
    """Makes a write once for each key, and repeats its response; responses are of one type."""

    def __init__(self, database: Database, kind: type[R]) -> None:
        self._database = database
        self._kind = kind
        self._in_use: set[str] = set()

    async def write(self, key: str | None, request: Struct, work: Callable[[UnitOfWork], R]) -> R:
        """Run a work in a transaction, or return the first response to the same request under this key.

        Without a key, always run it.

        Raises:
            KeyInUseError: the first request with this key is still running.
            KeyReusedError: the key was used with another request.

        """
        if key is None:
            return await self._database.write(work)
        with self.claim(key):
            return await self.write_claimed(key, request, work)

    async def write_claimed(
        self,
        key: str,
        request: Struct,
        work: Callable[[UnitOfWork], R],
        connection: Connection | None = None,
        shorten: Callable[[R], R] = lambda response: response,
    ) -> R:
        """Do the same under a key that is claimed already, and keep a shorter response."""

        def write_once(unit: UnitOfWork) -> R:
            if earlier := self._load(unit, key, request):
                return earlier
            response = work(unit)
            self._save(unit, key, request, shorten(response))
            return response

        return await self._database.write(write_once, connection)

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

    def _load(self, session: Session, key: str, request: Struct) -> R | None:
        """Return the first response to a request, if there is one, and delete some of the keys that have expired.

        Raises:
            KeyReusedError: the key belongs to another request.

        """
        rows = session.execute(LOAD, {"stored": _hash_key(key), "given": key}).all()
        delete_expired_keys(session)
        for row in rows:
            if row.created_at < int(time.time()) - KEY_TTL:
                session.connection().execute(DELETE, {"given": row.key})  # it may not have been among them
                continue
            digest = _hash(request)
            if row.request not in {ANY, _sign(key, digest) if row.key.startswith(HASHED) else digest}:
                raise KeyReusedError
            return msgspec.json.decode(row.answer, type=self._kind)
        return None

    def _save(self, session: Session, key: str, request: Struct, response: R) -> None:
        """Store a response in the transaction of its request; RetryTransactionError if the key has just been used."""
        answer = msgspec.json.encode(response).decode()
        row = {"key": _hash_key(key), "request": _sign(key, _hash(request)), "answer": answer}
        try:
            session.execute(SAVE, {**row, "created_at": int(time.time())})
        except IntegrityError as error:
            raise RetryTransactionError from error


def delete_expired_keys(session: Session) -> int:
    """Delete some of the keys that have expired, and return how many; none while the clock may be ahead."""
    now = int(time.time())
    expired = session.scalars(EXPIRED, {"oldest": now - KEY_TTL}).all()
    if not expired:
        return 0
    if session.execute(NEWEST).scalar_one() < now - KEY_TTL - MAX_GAP:
        return 0
    session.connection().execute(DELETE, [{"given": key} for key in expired])
    return len(expired)


def hash_stored_keys(connection: Connection) -> None:
    """Store the keys of earlier releases as this one does; the responses under them stay."""
    connection.execute(delete(KEYS).where(KEYS.c.created_at < int(time.time()) - KEY_TTL))
    plain = connection.execute(select(KEYS.c.key, KEYS.c.request).where(KEYS.c.key.not_like(f"{HASHED}%"))).all()
    if plain:
        replace = update(KEYS).where(KEYS.c.key == bindparam("given"))
        replace = replace.values(key=bindparam("stored"), request=bindparam("signed"))
        rows = [
            {"given": key, "stored": _hash_key(key), "signed": request and _sign(key, request)}
            for key, request in plain
        ]
        connection.execute(replace, rows)


def _hash_key(key: str) -> str:
    return HASHED + hashlib.sha256(key.encode()).hexdigest()


def _hash(request: Struct) -> str:
    return hashlib.sha256(msgspec.json.encode(request)).hexdigest()


def _sign(key: str, digest: str) -> str:
    return hmac.digest(key.encode(), digest.encode(), "sha256").hex()
