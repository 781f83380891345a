"""The capability of operations: health, metrics, tracing and clean-up."""

from litestar.config.app import AppConfig
from litestar.plugins import InitPlugin

from litestar_app.database import Database
from litestar_app.exceptions import SettingsError
from litestar_app.http.access_log import add_request_id
from litestar_app.operations.cleanup import CleanUp
from litestar_app.operations.health import HealthController
from litestar_app.operations.metrics import MetricsController
from litestar_app.settings import Settings


class OperationsPlugin(InitPlugin):
    """Tells how the service is, and deletes what has expired."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Raise SettingsError if tracing is on and its packages are missing."""
        self._clean_up = CleanUp(database, settings.history_days)
        self._is_traced = settings.tracing == "on"

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the routes, the request id of each response, the spans if tracing is on, and the clean-up."""
        app_config.route_handlers += [HealthController, MetricsController]
        app_config.lifespan.append(self._clean_up.open)
        app_config.before_send.append(add_request_id)
        if self._is_traced:
            try:
                from litestar_app.operations.tracing import Tracing  # noqa: PLC0415  of packages that few have
            except ImportError:
                raise SettingsError("TRACING=on needs packages of the extra otel: uv sync --extra otel") from None
            tracing = Tracing()
            app_config.middleware.append(tracing.middleware)
            app_config.on_shutdown.append(tracing.close)
        return app_config
