"""API keys: how a secret is made, what is kept of it, and which keys there are."""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import re
import secrets
import string
import time
import zlib
from collections.abc import AsyncIterator, Iterable
from typing import cast

from msgspec import Struct
from sqlalchemy import Connection, Table, bindparam, exists, insert, select, update
from sqlalchemy.orm import Session

from litestar_app.database import Database
from litestar_app.exceptions import RejectedError, StudentRecordsError
from litestar_app.http.callers import Caller, Role
from litestar_app.models import ApiKey
from litestar_app.settings import split

logger = logging.getLogger("litestar_app")

LETTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH, RANDOM_LENGTH, CHECKSUM_LENGTH = 8, 37, 6
"""Letters; those of the random part are 220 bits, so that a fast hash is enough to keep."""
SECRET = re.compile(
    f"(sr_([0-9A-Za-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{RANDOM_LENGTH}}})([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)
REFRESH = 2
"""Seconds after which the keys are read again, so that a new one and a revoked one take effect in every process."""

KEYS = cast("Table", ApiKey.__table__)
SELECT = select(KEYS).order_by(KEYS.c.created_at, KEYS.c.id)
INSERT = insert(KEYS)
REVOKE = update(KEYS).where(KEYS.c.id == bindparam("key_id"), KEYS.c.revoked_at.is_(None))


class ApiKeyError(RejectedError):
    """There is no such API key, or there is one already; the message says which."""


class Key(Struct, frozen=True, kw_only=True):
    """What is kept of a key: never its secret. Times are seconds since 1970."""

    id: str
    name: str
    role: Role
    sha256: str
    created_at: int = 0
    expires_at: int | None = None
    revoked_at: int | None = None

    def is_valid(self, now: float) -> bool:
        """Tell whether it may be used."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def make_key(name: str, role: Role, expires_at: int | None = None) -> tuple[Key, str]:
    """Make a key and its secret, which nobody can make again.

    Its last letters are a checksum of the others, by which a scanner knows a secret from any other text.
    """
    key_id = "".join(secrets.choice(LETTERS) for _ in range(ID_LENGTH))
    body = f"sr_{key_id}_{''.join(secrets.choice(LETTERS) for _ in range(RANDOM_LENGTH))}"
    secret = body + _checksum(body)
    key = Key(id=key_id, name=name, role=role, sha256=_hash(secret), created_at=int(time.time()), expires_at=expires_at)
    return key, secret


def parse_keys(setting: str) -> list[Key]:
    """Read the keys of API_KEYS, whose form the settings have checked."""
    parts = [entry.split(":") for entry in split(setting)]
    return [
        Key(id=key_id, name=name, role=cast("Role", role), sha256=sha256.lower())
        for name, role, key_id, sha256 in parts
    ]


def has_keys(connection: Connection) -> bool:
    """Tell whether any key is stored, be it valid or not."""
    return bool(connection.execute(select(exists().select_from(KEYS))).scalar())


class KeyStore:
    """The keys of one database, and what can be done with them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> list[Key]:
        """Return all keys, the oldest first, revoked and expired ones too."""
        return [Key(**row._mapping) for row in await self._database.fetch(SELECT, {})]  # noqa: SLF001  SQLAlchemy's name

    async def create(self, key: Key) -> None:
        """Store a new key; ApiKeyError if a valid one has its name."""

        def create(session: Session) -> None:
            taken = session.connection().execute(SELECT.where(KEYS.c.name == key.name))
            if any(Key(**row._mapping).is_valid(time.time()) for row in taken):  # noqa: SLF001
                raise ApiKeyError(f"there is a key named {key.name!r}; revoke it first, or take another name")
            session.connection().execute(INSERT, {name: getattr(key, name) for name in Key.__struct_fields__})

        await self._database.write(create)

    async def revoke(self, name: str) -> int:
        """Revoke the keys with a name or an id, and return how many; those that are revoked already do not count."""

        def revoke(session: Session) -> int:
            connection = session.connection()
            found = [row.id for row in connection.execute(SELECT) if name in {row.id, row.name}]
            if not found:
                raise ApiKeyError(f"there is no key named {name!r}")
            now = int(time.time())
            return sum(connection.execute(REVOKE, {"key_id": one, "revoked_at": now}).rowcount for one in found)

        return await self._database.write(revoke)


class KeyRing:
    """The keys that a process knows: those of its settings, and those of the database a moment ago."""

    def __init__(self, store: KeyStore, configured: Iterable[Key] = ()) -> None:
        self._store = store
        self._configured = tuple(configured)
        self._keys: dict[str, tuple[Key, Caller]] = {}
        self._is_failing = False
        self._replace([])

    @property
    def is_empty(self) -> bool:
        """Tell whether no key was ever made; a revoked one still keeps the service closed."""
        return not self._keys

    def find(self, secret: str) -> Caller | None:
        """Return whose secret this is, if its key is valid."""
        match = SECRET.fullmatch(secret)
        if match is None or match[3] != _checksum(match[1]):
            return None
        key, caller = self._keys.get(match[2], (None, None))
        if key is None or not hmac.compare_digest(_hash(secret), key.sha256) or not key.is_valid(time.time()):
            return None
        return caller

    async def load(self) -> None:
        """Read the keys of the database."""
        self._replace(await self._store.list())

    @contextlib.asynccontextmanager
    async def open(self, _app: object = None) -> AsyncIterator[None]:
        """Read the keys now and every few seconds."""
        await self.load()
        task = asyncio.create_task(self._refresh())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH)
            try:
                await self.load()
            except StudentRecordsError as error:  # then no request for students succeeds either
                if not self._is_failing:
                    logger.warning("the API keys cannot be read, those that are known stay: %s", error)
                self._is_failing = True
            else:
                self._is_failing = False

    def _replace(self, stored: Iterable[Key]) -> None:
        self._keys = {key.id: (key, Caller(key.name, key.role, key.id)) for key in (*stored, *self._configured)}


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(text: str) -> str:
    number, letters = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        number, rest = divmod(number, len(LETTERS))
        letters = LETTERS[rest] + letters
    return letters
