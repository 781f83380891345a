"""The gate: the check of every request, whatever handler responds to it."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from litestar import Request, Response
from litestar.config.app import AppConfig
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.plugins import InitPlugin, ReceiveRoutePlugin
from litestar.routes import ASGIRoute, BaseRoute, HTTPRoute, WebSocketRoute

from litestar_app.http.local import admit_local
from litestar_app.http.parameters import RequestCheck

Connection: TypeAlias = ASGIConnection[Any, Any, Any, Any]
ADMIT = "admit"
"""The key in the application's `opt` of what admits a connection; `admit_local` if there is none."""


def admit(connection: Connection) -> None:
    """Leave the caller in the scope, or raise: as access control decides, or else only a program on this machine."""
    check: Callable[[Connection], None] = connection.route_handler.opt.get(ADMIT, admit_local)
    check(connection)


class Gate(InitPlugin, ReceiveRoutePlugin):
    """Admits each caller and checks the parameters of each request, in `before_request`.

    Litestar runs none for `asgi` and `websocket`, nor for a response from its cache. A handler, a controller or a
    router may also have a `before_request` of its own, which replaces ours. Those handlers get a guard.
    """

    def __init__(self) -> None:
        self._check_request = RequestCheck()

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Check every request."""
        app_config.before_request = self._before_request
        return app_config

    def receive_route(self, route: BaseRoute) -> None:
        """Add the guard to the handlers of a route that need it."""
        handlers: Iterable[BaseRouteHandler] = ()
        if isinstance(route, HTTPRoute):
            handlers = route.route_handlers
        elif isinstance(route, (ASGIRoute, WebSocketRoute)):
            handlers = [route.route_handler]
        for handler in handlers:
            guards = handler.resolve_guards()  # the handler's own list: it has resolved them by now
            if self._needs_guard(handler) and _guard not in guards:
                guards.insert(0, _guard)

    async def _before_request(self, request: Request[Any, Any, Any]) -> Response[None] | None:
        admit(request)
        return await self._check_request(request)

    def _needs_guard(self, handler: BaseRouteHandler) -> bool:
        if not isinstance(handler, HTTPRouteHandler):
            return True
        return bool(handler.cache) or handler.resolve_before_request() != self._before_request


async def _guard(connection: Connection, _: BaseRouteHandler) -> None:
    admit(connection)
