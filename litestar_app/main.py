"""All wiring: `create_app` for code, `app` for uvicorn."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from advanced_alchemy.extensions.litestar import SQLAlchemyInitPlugin
from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException

from litestar_app.controllers import HealthController, StudentController, go_to_docs
from litestar_app.database import Reader, check_database, create_alchemy_config, prepare_database
from litestar_app.docs import create_openapi_config, get_asset, get_openapi
from litestar_app.errors import answer_error
from litestar_app.lanes import Lanes
from litestar_app.requests import StudentRequest, check_request
from litestar_app.services import StudentService
from litestar_app.settings import Settings, SettingsError

MAX_BODY_BYTES = 1024 * 1024


def create_app(settings: Settings | None = None) -> Litestar:
    """Build the service; nothing is opened before its lifespan starts.

    Raises:
        SettingsError: a setting is wrong; settings default to those of the environment.

    """
    alchemy = create_alchemy_config(settings or Settings.from_environment())
    engine = alchemy.get_engine()
    reader = Reader(engine)
    lanes = Lanes(engine)
    students_service = StudentService(reader, lanes)

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        prepare_database(engine)
        try:
            yield
        finally:
            lanes.close()
            reader.close()
            engine.dispose()  # the last to close a file of SQLite folds its log back into it

    return Litestar(
        route_handlers=[StudentController, HealthController, go_to_docs, get_openapi, get_asset],
        plugins=[SQLAlchemyInitPlugin(alchemy)],
        dependencies={
            "students_service": Provide(lambda: students_service, sync_to_thread=False, use_cache=True),
        },
        before_request=check_request,
        exception_handlers={HTTPException: answer_error, Exception: answer_error},
        lifespan=[lifespan],
        logging_config=None,
        openapi_config=create_openapi_config(version("student-records")),
        request_class=StudentRequest,
        request_max_body_size=MAX_BODY_BYTES,
    )


def __getattr__(name: str) -> Litestar:
    """Build `app` when a server asks for it; a wrong setting or database ends the process with one line."""
    if name != "app":
        raise AttributeError(name)
    try:
        settings = Settings.from_environment()
        check_database(settings)
        return create_app(settings)
    except SettingsError as error:
        sys.exit(f"student-records: {error}")
