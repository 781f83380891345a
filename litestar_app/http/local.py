"""Programs on this machine: the only callers of an application without access control."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import PermissionDeniedException

from litestar_app.http.callers import LOCAL
from litestar_app.http.origin import reject_cross_site
from litestar_app.http.proxies import MAX_NAME, shows_proxy

SAFE = {"GET", "HEAD", "OPTIONS"}
WEBSOCKET = "websocket"
"""What stands for the method of a WebSocket, which has none."""
LOCAL_HOSTS = {b"localhost", b"127.0.0.1", b"[::1]"}


def admit_local(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Leave the caller in the scope if it is a program on this machine.

    Raises:
        PermissionDeniedException: 403, for a client or a host that is not of this machine, and for a write by a page
            of another site.

    """
    scope: Any = connection.scope
    if scope.get("method", WEBSOCKET) not in SAFE:
        reject_cross_site(scope, frozenset())
    if (reason := find_remote(connection)) is not None:
        raise PermissionDeniedException(f"{reason}Only programs on this machine are served")
    scope["auth"] = LOCAL


def is_loopback(address: str) -> bool:
    """Tell whether an address is of this machine only."""
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"


def find_remote(request: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """Say what tells that a request is not of a program on this machine; None where nothing does."""
    hosts = []
    for name, value in request.scope["headers"]:
        if name == b"host":
            hosts.append(value)
        elif shows_proxy(name[:MAX_NAME]):
            return f"The request came through a proxy ({name[:MAX_NAME].decode('latin-1').title()}). "
    client = request.scope["client"]
    if client is None or not is_loopback(client[0]):
        return ""
    # a page that has its name point at this machine (DNS rebinding) would read the students
    if len(hosts) != 1 or _strip_port(hosts[0]).lower() not in LOCAL_HOSTS:
        return "Expected one Host: localhost, 127.0.0.1 or [::1]. "
    return None


def _strip_port(host: bytes) -> bytes:
    name, colon, port = host.rpartition(b":")
    return name if colon and (port.isdigit() or not port) else host
