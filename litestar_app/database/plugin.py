"""The database as a plugin of Litestar, beside advanced-alchemy's, whose engine and session it uses."""

from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.plugins import InitPlugin

from litestar_app.database import Database


class DatabasePlugin(InitPlugin):
    """Opens the database after advanced-alchemy's plugin has created the tables, and closes it before the engine."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the lifespan, and the database for handlers that depend on it."""
        app_config.lifespan.append(self.database.open)
        app_config.dependencies["database"] = Provide(lambda: self.database, sync_to_thread=False, use_cache=True)
        return app_config
