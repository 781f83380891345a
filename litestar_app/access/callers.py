"""Callers: on whose behalf a request is."""

from typing import Any, Literal

from litestar import Request
from msgspec import Struct

Role = Literal["reader", "editor"]


class Caller(Struct, frozen=True):
    """An API key, or a program on this machine where there are no keys."""

    name: str
    role: Role
    key_id: str | None = None


LOCAL = Caller("local", "editor")


def get_caller(request: Request[Any, Any, Any]) -> Caller:
    """Return who has made a request, as the guard has found out."""
    caller: Caller = request.scope["auth"]
    return caller
