"""The students as a plugin of Litestar: their routes, and the service that these depend on."""

from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.plugins import InitPlugin

from litestar_app.database import Database
from litestar_app.students.controller import StudentController
from litestar_app.students.service import StudentService


class StudentsPlugin(InitPlugin):
    """Creates, reads, updates, deletes and lists students."""

    def __init__(self, database: Database) -> None:
        self._students = StudentService(database)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the routes and the service."""
        app_config.route_handlers.append(StudentController)
        app_config.dependencies["students"] = Provide(lambda: self._students, sync_to_thread=False, use_cache=True)
        return app_config
