"""The capability of access control: API keys, quotas, and pages of other origins."""

from typing import cast

from litestar.config.app import AppConfig
from litestar.plugins import InitPlugin
from litestar.types import HTTPScope

from litestar_app.access.control import AccessControl
from litestar_app.access.keys import KeyRing, KeyStore, parse_keys
from litestar_app.access.rate_limit import add_quota_fields, create_rate_limit, take_quota
from litestar_app.database import Database
from litestar_app.http.cors import CorsRules
from litestar_app.http.gate import ADMIT, Connection
from litestar_app.settings import Settings


class AccessPlugin(InitPlugin):
    """Admits callers by their API keys, and counts their requests. Without it, only this machine is served."""

    def __init__(self, database: Database, settings: Settings, cors: CorsRules | None) -> None:
        """Take the rules for pages of other origins, if there are any."""
        self._keys = KeyRing(KeyStore(database), parse_keys(settings.api_keys))
        self._access = AccessControl(self._keys, cors.origins if cors else frozenset())
        self._rate_limit = create_rate_limit(settings.rate_limit)
        self._cors = cors

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Admit every request, read the keys after the database is open, and add the header fields."""
        app_config.opt[ADMIT] = self.admit
        app_config.lifespan.append(self._keys.open)
        if self._rate_limit is not None:
            app_config.before_send.append(add_quota_fields)
        if self._cors is not None:
            app_config.before_send.append(self._cors.add_to_response)
        return app_config

    def admit(self, connection: Connection) -> None:
        """Leave the caller in the scope, or raise what `AccessControl.check` and `take_quota` raise."""
        try:
            self._access.check(connection)
        finally:  # who guesses keys is limited too
            if connection.route_handler.opt.get("access") != "public":
                take_quota(self._rate_limit, cast("HTTPScope", connection.scope))
