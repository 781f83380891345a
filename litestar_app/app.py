"""All wiring: the application, made of settings."""

import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from advanced_alchemy.extensions.litestar import SQLAlchemyInitPlugin
from litestar import HttpMethod, Litestar, Request, Response, route
from litestar.config.app import AppConfig
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.plugins import InitPlugin, ReceiveRoutePlugin
from litestar.response import Redirect
from litestar.routes import ASGIRoute, BaseRoute, HTTPRoute, WebSocketRoute

from litestar_app.access.control import AccessControl
from litestar_app.access.keys import KeyRing, KeyStore, parse_keys
from litestar_app.access.rate_limit import SharedTable, add_quota_fields, create_rate_limit, take_quota
from litestar_app.cleanup import CleanUp
from litestar_app.database import Database
from litestar_app.database.config import AlchemyConfig, create_alchemy_config
from litestar_app.database.limits import SHARE
from litestar_app.departments.controller import DepartmentController
from litestar_app.entries import ImportLog, create_listeners
from litestar_app.exceptions import SettingsError
from litestar_app.history.controller import HistoryController
from litestar_app.history.service import HistoryService
from litestar_app.http.access_log import AccessLog, add_request_id
from litestar_app.http.cors import create_cors
from litestar_app.http.docs import get_asset, get_root
from litestar_app.http.health import HealthController
from litestar_app.http.metrics import MetricsController
from litestar_app.http.openapi import StructSchemas, create_openapi_config, get_openapi
from litestar_app.http.parameters import PUBLIC, RequestCheck
from litestar_app.http.problems import respond_to_error, respond_to_stop
from litestar_app.http.proxies import TrustedProxies
from litestar_app.http.security import add_security_fields
from litestar_app.memory import SharedMemory
from litestar_app.metrics import METERS
from litestar_app.settings import Settings, split
from litestar_app.students.controller import StudentController
from litestar_app.students.service import FIXED, StudentService
from litestar_app.transfer.controller import TransferController
from litestar_app.transfer.imports import ImportService
from litestar_app.transfer.merge import Unrecorded
from litestar_app.transfer.shares import TransferShares

if TYPE_CHECKING:
    from litestar_app.http.tracing import Tracing

MAX_BODY_BYTES = 1024 * 1024
GARBAGE_THRESHOLD = 10_000
"""Objects of requests that Python's collector waits for: more than those in flight have."""


def create_app(settings: Settings | None = None, alchemy: AlchemyConfig | None = None) -> Litestar:
    """Build the service; the database is not touched before its lifespan starts.

    Raises:
        SettingsError: a setting is wrong; settings default to those of the environment.

    """
    settings = settings or Settings.from_environment()
    alchemy = alchemy or create_alchemy_config(settings)
    tracing = _create_tracing() if settings.tracing == "on" else None
    listeners = create_listeners(settings)
    database = Database(alchemy, fixed=FIXED, listeners=listeners)
    students, history = StudentService(database), HistoryService(database)
    imports = ImportService(database, ImportLog if listeners else Unrecorded)
    shares = TransferShares(SHARE, database.timeouts.queue)
    clean_up = CleanUp(database, settings.history_days)
    trusted = split(settings.forwarded_allow_ips)
    cors, proxies = create_cors(settings.cors_origins), TrustedProxies(trusted) if trusted else None
    keys = KeyRing(KeyStore(database), parse_keys(settings.api_keys))
    access = AccessControl(keys, cors.origins if cors else frozenset())
    schemas = StructSchemas()
    rate_limit, check_request = create_rate_limit(settings.rate_limit), RequestCheck()

    def admit(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        try:
            access.check(connection)
        finally:  # who guesses keys is limited too
            if connection.route_handler.opt.get("access") != "public":
                take_quota(rate_limit, cast("Any", connection.scope))

    async def check(request: Request[Any, Any, Any]) -> Response[None] | None:
        admit(request)
        return await check_request(request)

    app = Litestar(
        route_handlers=[
            StudentController,
            TransferController,
            DepartmentController,
            *([HistoryController] if listeners else []),
            HealthController,
            MetricsController,
            go_to_docs,
            get_openapi,
            get_asset,
        ],
        plugins=[
            SQLAlchemyInitPlugin(alchemy),
            DatabasePlugin(database, keys, clean_up),
            schemas,
            GuardPlugin(admit, check),
        ],
        middleware=[tracing.middleware] if tracing else [],
        on_shutdown=[tracing.close] if tracing else [],
        lifespan=[name_wrong_setting, limit_garbage_collection],
        dependencies={
            "students": Provide(lambda: students, sync_to_thread=False, use_cache=True),
            "imports": Provide(lambda: imports, sync_to_thread=False, use_cache=True),
            "shares": Provide(lambda: shares, sync_to_thread=False, use_cache=True),
            "history": Provide(lambda: history, sync_to_thread=False, use_cache=True),
            "database": Provide(lambda: database, sync_to_thread=False, use_cache=True),
        },
        before_request=check,
        before_send=[
            add_security_fields,
            *([add_quota_fields] if rate_limit else []),
            *([cors.add_to_response] if cors else []),
            add_request_id,
        ],
        exception_handlers={HTTPException: respond_to_error, Exception: respond_to_error},
        logging_config=None,
        openapi_config=create_openapi_config(version("student-records"), schemas.handlers),
        request_max_body_size=MAX_BODY_BYTES,
    )
    # around the router: middleware in the stack of its handlers sees no 404 and no 405 of the router itself
    for middleware in (cors, AccessLog(respond_to_stop), proxies):
        app.asgi_handler = middleware(app.asgi_handler) if middleware else app.asgi_handler
    return app


def load_app(counts: SharedMemory | None, table: SharedTable | None) -> Litestar:
    """Load the application of a worker, which counts in memory that all of them share."""
    SharedTable.inherited = table
    if counts is not None:
        METERS.share(counts)
    from litestar_app.main import app  # noqa: PLC0415  it is made when it is imported

    return app


def _create_tracing() -> "Tracing":
    try:
        from litestar_app.http.tracing import Tracing  # noqa: PLC0415  of packages that few have
    except ImportError:
        raise SettingsError("TRACING=on needs packages of the extra otel: uv sync --extra otel") from None
    return Tracing()


@asynccontextmanager
async def name_wrong_setting(_app: object) -> AsyncIterator[None]:
    """Have uvicorn log a start that fails for a wrong setting as one line.

    Litestar gives the server the traceback, and passes the messages of the lifespan to nobody else.
    """
    try:
        yield
    except SettingsError:
        logging.getLogger("uvicorn.error").addFilter(shorten_failure)
        raise


def shorten_failure(record: logging.LogRecord) -> bool:
    """Replace the traceback of a SettingsError by its reason; pass every record."""
    head, found, reason = record.getMessage().rpartition(f"{SettingsError.__name__}: ")
    if found and "Traceback (most recent call last):" in head:  # perhaps that of an exception group
        record.msg, record.args = f"student-records: {reason.splitlines()[0]}", ()
    return True


@asynccontextmanager
async def limit_garbage_collection(_app: object) -> AsyncIterator[None]:
    """Keep Python's collector from all that the start has made, and from requests in flight.

    It would look at a hundred thousand objects again and again, 0.1 seconds each time, for next to no garbage.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


class DatabasePlugin(InitPlugin):
    """Opens the database after advanced-alchemy's plugin has created the tables, and closes it before the engine.

    Then it reads the API keys, and cleans up.
    """

    def __init__(self, database: Database, keys: KeyRing, clean_up: CleanUp) -> None:
        self._database = database
        self._keys = keys
        self._clean_up = clean_up

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the lifespan of the database."""
        app_config.lifespan += [self._database.open, self._keys.open, self._clean_up.open]
        return app_config


class GuardPlugin(ReceiveRoutePlugin):
    """Guards the handlers that respond without our `before_request`, so that access control covers every handler.

    Litestar runs none for `asgi` and `websocket`, nor for a response from its cache. A handler, a controller or a
    router may also have a `before_request` of its own, which replaces ours.
    """

    def __init__(
        self,
        admit: Callable[[ASGIConnection[Any, Any, Any, Any]], None],
        before_request: Callable[[Request[Any, Any, Any]], Awaitable[object]],
    ) -> None:
        """Take the check, and the `before_request` that makes it."""
        self._before_request = before_request

        async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
            admit(connection)

        self._guard = guard

    def receive_route(self, route: BaseRoute) -> None:
        """Add the guard to the handlers of a route that need it."""
        handlers: Iterable[BaseRouteHandler] = ()
        if isinstance(route, HTTPRoute):
            handlers = route.route_handlers
        elif isinstance(route, (ASGIRoute, WebSocketRoute)):
            handlers = [route.route_handler]
        for handler in handlers:
            guards = handler.resolve_guards()  # the handler's own list: it has resolved them by now
            if self._needs_guard(handler) and self._guard not in guards:
                guards.insert(0, self._guard)

    def _needs_guard(self, handler: BaseRouteHandler) -> bool:
        if not isinstance(handler, HTTPRouteHandler):
            return True
        return bool(handler.cache) or handler.resolve_before_request() is not self._before_request


@route("/", http_method=[HttpMethod.GET, HttpMethod.HEAD], status_code=307, include_in_schema=False, opt=PUBLIC)
async def go_to_docs(request: Request[Any, Any, Any]) -> Redirect:
    """Redirect a person to the documentation."""
    return Redirect(f"{get_root(request)}/docs", status_code=307)
