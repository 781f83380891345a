"""Access control: on whose behalf a request is, and whether that caller may make it."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import HTTPRouteHandler

from litestar_app.access.keys import KeyRing
from litestar_app.http.callers import LOCAL, Caller
from litestar_app.http.local import SAFE, WEBSOCKET, find_remote
from litestar_app.http.origin import reject_cross_site

REMEDY = (
    "No API key is configured, so only programs on this machine are served; create one: litestar keys create --help"
)
CHALLENGE = 'Bearer realm="students"'


class AccessControl:
    """Decides about every request before anything else looks at it."""

    def __init__(self, keys: KeyRing, origins: frozenset[str] = frozenset()) -> None:
        """Take the keys, and the origins whose pages may write."""
        self._keys = keys
        self._origins = origins

    def check(self, request: ASGIConnection[Any, Any, Any, Any]) -> None:
        """Find the caller of a request, and leave it in the scope. A WebSocket may write, so it counts as a write.

        Raises:
            NotAuthorizedException: 401, for no key or a wrong one.
            PermissionDeniedException: 403, for a role that is too low, for a page of another site, and, while there are
                no keys, for a client or a host that is not of this machine.

        """
        scope: Any = request.scope
        method = scope.get("method", WEBSOCKET)
        if method not in SAFE:
            reject_cross_site(scope, self._origins)
        access = request.route_handler.opt.get("access")
        if method == "OPTIONS" and isinstance(request.route_handler, HTTPRouteHandler):
            access = "public"  # what OPTIONS tells, the document tells everybody
        if self._keys.is_empty:
            if (reason := find_remote(request)) is not None:
                raise PermissionDeniedException(f"{reason}{REMEDY}")
            scope["auth"] = LOCAL
        elif access != "public" and not (access == "metrics" and find_remote(request) is None):
            caller = scope["auth"] = self._identify(request)
            if caller.role != "editor" and (method not in SAFE or access == "editor"):
                raise PermissionDeniedException(
                    f"The API key {caller.name!r} may only read; this needs one with the role editor",
                    headers={"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="editor"'},
                )

    def _identify(self, request: ASGIConnection[Any, Any, Any, Any]) -> Caller:
        given = [value for name, value in request.scope["headers"] if name == b"authorization"]
        if not given:
            raise NotAuthorizedException(
                "Expected an API key, as Authorization: Bearer sr_…", headers={"WWW-Authenticate": CHALLENGE}
            )
        scheme, _, secret = given[0].decode("latin-1").partition(" ")
        caller = self._keys.find(secret.strip(" ")) if scheme.lower() == "bearer" and len(given) == 1 else None
        if caller is None:
            raise NotAuthorizedException(
                "This is no API key of this service, or it has been revoked or has expired",
                headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
            )
        return caller
