"""All wiring: the application, made of settings."""

from importlib.metadata import version
from typing import Any

from advanced_alchemy.extensions.litestar import SQLAlchemyInitPlugin
from litestar import HttpMethod, Litestar, Request, route
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.plugins import InitPlugin
from litestar.response import Redirect
from litestar.types import LifeSpanReceive, LifeSpanScope, LifeSpanSendMessage, Receive, Scope

from litestar_app.database import Database
from litestar_app.database.config import AlchemyConfig, create_alchemy_config
from litestar_app.exceptions import SettingsError
from litestar_app.http.docs import get_asset, get_root
from litestar_app.http.health import HealthController
from litestar_app.http.openapi import StructSchemas, create_openapi_config, get_openapi
from litestar_app.http.parameters import check_request
from litestar_app.http.problems import respond_to_error
from litestar_app.settings import Settings
from litestar_app.students.controller import StudentController
from litestar_app.students.departments import DepartmentController
from litestar_app.students.service import FIXED, StudentService
from litestar_app.transfer.controller import TransferController
from litestar_app.transfer.imports import ImportService

MAX_BODY_BYTES = 1024 * 1024


def create_app(settings: Settings | None = None, alchemy: AlchemyConfig | None = None) -> Litestar:
    """Build the service; the database is not touched before its lifespan starts.

    Raises:
        SettingsError: a setting is wrong; settings default to those of the environment.

    """
    alchemy = alchemy or create_alchemy_config(settings or Settings.from_environment())
    database = Database(alchemy, fixed=FIXED)
    students, imports = StudentService(database), ImportService(database)
    return StudentRecords(
        route_handlers=[
            StudentController,
            TransferController,
            DepartmentController,
            HealthController,
            go_to_docs,
            get_openapi,
            get_asset,
        ],
        plugins=[SQLAlchemyInitPlugin(alchemy), DatabasePlugin(database), StructSchemas()],
        dependencies={
            "students": Provide(lambda: students, sync_to_thread=False, use_cache=True),
            "imports": Provide(lambda: imports, sync_to_thread=False, use_cache=True),
            "database": Provide(lambda: database, sync_to_thread=False, use_cache=True),
        },
        before_request=check_request,
        exception_handlers={HTTPException: respond_to_error, Exception: respond_to_error},
        logging_config=None,
        openapi_config=create_openapi_config(version("student-records")),
        request_max_body_size=MAX_BODY_BYTES,
    )


class StudentRecords(Litestar):
    """A Litestar application whose start fails in one line, where the settings or the database are what is wrong."""

    async def __call__(self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Any) -> None:
        """Respond to the server."""
        if scope["type"] != "lifespan":
            await super().__call__(scope, receive, send)
            return

        async def send_line(message: LifeSpanSendMessage) -> None:
            if message["type"] == "lifespan.startup.failed":
                _, is_known, reason = message["message"].rpartition(f"{SettingsError.__name__}: ")
                if is_known:
                    message["message"] = f"student-records: {reason.splitlines()[0]}"
            await send(message)

        await super().__call__(scope, receive, send_line)


class DatabasePlugin(InitPlugin):
    """Opens the database after advanced-alchemy's plugin has created the tables, and closes it before the engine."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the lifespan of the database."""
        app_config.lifespan.append(self._database.open)
        return app_config


@route("/", http_method=[HttpMethod.GET, HttpMethod.HEAD], status_code=307, include_in_schema=False)
async def go_to_docs(request: Request[Any, Any, Any]) -> Redirect:
    """Redirect a person to the documentation."""
    return Redirect(f"{get_root(request)}/docs", status_code=307)
