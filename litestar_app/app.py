"""The application, made of settings: what it can do is a list of plugins."""

from importlib.metadata import version

from advanced_alchemy.extensions.litestar import SQLAlchemyInitPlugin
from litestar import Litestar
from litestar.exceptions import HTTPException

from litestar_app.access.plugin import AccessPlugin
from litestar_app.database import Database
from litestar_app.database.config import AlchemyConfig, create_alchemy_config
from litestar_app.database.failures import translate_error
from litestar_app.database.plugin import DatabasePlugin
from litestar_app.departments.plugin import DepartmentsPlugin
from litestar_app.entries import ImportLog
from litestar_app.history.plugin import HistoryPlugin
from litestar_app.http.access_log import AccessLog
from litestar_app.http.cors import create_cors
from litestar_app.http.docs import get_asset, go_to_docs
from litestar_app.http.gate import Gate
from litestar_app.http.openapi import StructSchemas, create_openapi_config, get_openapi
from litestar_app.http.problems import create_responder, respond_to_stop
from litestar_app.http.proxies import TrustedProxies
from litestar_app.http.security import add_security_fields
from litestar_app.operations.plugin import OperationsPlugin
from litestar_app.settings import Settings, split
from litestar_app.startup import limit_garbage_collection, name_wrong_setting
from litestar_app.students.plugin import StudentsPlugin
from litestar_app.transfer.plugin import TransferPlugin

MAX_BODY_BYTES = 1024 * 1024


def create_app(settings: Settings | None = None, alchemy: AlchemyConfig | None = None) -> Litestar:
    """Build the service; the database is not touched before its lifespan starts.

    Raises:
        SettingsError: a setting is wrong; settings default to those of the environment.

    """
    settings = settings or Settings.from_environment()
    alchemy = alchemy or create_alchemy_config(settings)
    database, cors, schemas = Database(alchemy), create_cors(settings.cors_origins), StructSchemas()
    has_history, trusted = settings.history == "on", split(settings.forwarded_allow_ips)
    app = Litestar(
        plugins=[
            # lifespans begin in this order and end in the opposite one
            SQLAlchemyInitPlugin(alchemy),
            DatabasePlugin(database),
            StudentsPlugin(database),
            TransferPlugin(database, ImportLog if has_history else None),
            DepartmentsPlugin(),
            *([HistoryPlugin(database)] if has_history else []),
            AccessPlugin(database, settings, cors),
            OperationsPlugin(database, settings),
            schemas,
            Gate(),
        ],
        route_handlers=[go_to_docs, get_openapi, get_asset],
        before_send=[add_security_fields],
        exception_handlers=dict.fromkeys((HTTPException, Exception), create_responder(translate_error)),
        lifespan=[name_wrong_setting, limit_garbage_collection],
        logging_config=None,
        openapi_config=create_openapi_config(version("student-records"), schemas.handlers),
        request_max_body_size=MAX_BODY_BYTES,
    )
    # around the router: middleware in the stack of its handlers sees no 404 and no 405 of the router itself
    for middleware in (cors, AccessLog(respond_to_stop), TrustedProxies(trusted) if trusted else None):
        app.asgi_handler = middleware(app.asgi_handler) if middleware else app.asgi_handler
    return app
