"""The capability of the history: its entries, and the undo of an import."""

from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.plugins import InitPlugin

from litestar_app.database import Database
from litestar_app.entries import record_change
from litestar_app.history.controller import HistoryController
from litestar_app.history.service import HistoryService


class HistoryPlugin(InitPlugin):
    """Records every change in its own transaction, and serves what was recorded."""

    def __init__(self, database: Database) -> None:
        database.listen(record_change)
        self._history = HistoryService(database)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the routes, and the service that these depend on."""
        app_config.route_handlers.append(HistoryController)
        app_config.dependencies["history"] = Provide(lambda: self._history, sync_to_thread=False, use_cache=True)
        return app_config
