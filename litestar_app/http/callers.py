"""Callers: plain values in the scope, left there by access control."""

import hashlib
from typing import Any, Literal

from litestar import Request
from litestar.types import HTTPScope
from msgspec import Struct

from litestar_app.http.clients import get_network

Role = Literal["reader", "editor"]


class Caller(Struct, frozen=True):
    """An API key, or a program on this machine where there are no keys."""

    name: str
    role: Role
    key_id: str | None = None

    def scope_key(self, key: str | None) -> str | None:
        """Return an Idempotency-Key as this caller's own, which is another one than anybody else's."""
        if key is None or self.key_id is None:
            return key
        return hashlib.sha256(f"{self.key_id}:{key}".encode()).hexdigest()


LOCAL = Caller("local", "editor")
"""A program on this machine, while there are no keys."""


def name_caller(scope: HTTPScope) -> str:
    """Name whose request this is where callers are counted: an API key, or an address where there is none."""
    caller: Caller | None = scope.get("auth")
    if caller is not None and caller.key_id is not None:
        return f"key {caller.key_id}"
    return get_network(scope["client"][0]) if scope["client"] else ""


def get_caller(request: Request[Any, Any, Any]) -> Caller:
    """Return the caller that access control has admitted, or raise KeyError: nobody else may write."""
    caller: Caller = request.scope["auth"]
    return caller
