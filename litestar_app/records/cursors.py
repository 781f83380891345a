"""Cursors: where a page begins, as a text that only this service reads."""

import base64
import binascii
from hashlib import blake2b
from typing import Self

import msgspec
from msgspec import Struct

from litestar_app.exceptions import InvalidQueryError

CHECKSUM_BYTES = 6
DAMAGED = "query parameter 'cursor': damaged; take it from a Link header as it is"


class OpaqueCursor(Struct, frozen=True, array_like=True):
    """The beginning of a page; its fields are those of a subclass."""

    def encode(self) -> str:
        """Write the cursor as a text for a URL."""
        payload = msgspec.msgpack.encode(self)  # JSON has no infinity, which tables of other programs may hold
        return base64.urlsafe_b64encode(_checksum(payload) + payload).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read a cursor, or raise InvalidQueryError for one that this service did not write."""
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            cursor = msgspec.msgpack.decode(data[CHECKSUM_BYTES:], type=cls)
        except (binascii.Error, ValueError):  # of msgspec, too
            cursor = None
        if cursor is None or _checksum(data[CHECKSUM_BYTES:]) != data[:CHECKSUM_BYTES] or cursor.encode() != text:
            raise InvalidQueryError(DAMAGED)
        return cursor


def _checksum(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=CHECKSUM_BYTES).digest()
