"""The capability of the departments."""

from litestar.config.app import AppConfig
from litestar.plugins import InitPlugin

from litestar_app.departments.controller import DepartmentController


class DepartmentsPlugin(InitPlugin):
    """Sums up the students by department, as numbers and as a chart."""

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the routes."""
        app_config.route_handlers.append(DepartmentController)
        return app_config
