"""The capability of import and export."""

from collections.abc import Callable

from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.plugins import InitPlugin

from litestar_app.database import Database
from litestar_app.database.limits import SHARE
from litestar_app.database.unit_of_work import UnitOfWork
from litestar_app.transfer.controller import TransferController
from litestar_app.transfer.imports import ImportService
from litestar_app.transfer.merge import ChangeLog, Unrecorded
from litestar_app.transfer.shares import TransferShares


class TransferPlugin(InitPlugin):
    """Imports and exports files of students."""

    def __init__(self, database: Database, begin_log: Callable[[UnitOfWork, str], ChangeLog] | None = None) -> None:
        """Take what begins the log of an import by a caller, if a history is kept."""
        self._imports = ImportService(database, begin_log or Unrecorded)
        self._shares = TransferShares(SHARE, database.timeouts.queue)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the routes, and the services that these depend on."""
        app_config.route_handlers.append(TransferController)
        app_config.dependencies |= {
            "imports": Provide(lambda: self._imports, sync_to_thread=False, use_cache=True),
            "shares": Provide(lambda: self._shares, sync_to_thread=False, use_cache=True),
        }
        return app_config
