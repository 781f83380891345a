"""`python -m litestar_app`: serve, as the settings say."""

import copy
import socket
import sys

import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.supervisors import ChangeReload, Multiprocess

from litestar_app.database.config import create_alchemy_config
from litestar_app.exceptions import SettingsError
from litestar_app.settings import Settings

SHUTDOWN_TIMEOUT = 28
"""How long requests in flight may take to end after SIGTERM."""


def serve() -> None:
    """Check the settings and the database once, then run uvicorn until a signal ends it."""
    try:
        settings = Settings.from_environment()
        _check_address(settings)
        alchemy = create_alchemy_config(settings)
        alchemy.prepare_database()
        alchemy.get_engine().dispose()
    except SettingsError as error:
        sys.exit(f"student-records: {error}")
    log_config = copy.deepcopy(LOGGING_CONFIG)
    log_config["loggers"]["litestar_app"] = {"handlers": ["default"], "level": settings.log_level.upper()}
    config = uvicorn.Config(
        "litestar_app.main:app",
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        reload="--reload" in sys.argv,
        log_level=settings.log_level,
        log_config=log_config,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
    )
    if config.should_reload:
        ChangeReload(config, target=uvicorn.Server(config).run, sockets=[config.bind_socket()]).run()
    elif settings.workers > 1:
        Supervisor(config, sockets=[config.bind_socket()]).run()
    else:
        server = uvicorn.Server(config)
        server.run()
        if not server.started:
            sys.exit(1)


class Supervisor(Multiprocess):
    """uvicorn's own, which keeps the port open until its workers have ended; nobody would answer who comes then."""

    def terminate_all(self) -> None:
        """Take no new connections, then end the workers."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


def _check_address(settings: Settings) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[
            0
        ]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise SettingsError(f"HOST={settings.host!r}, PORT={settings.port}: cannot listen there: {error}") from None


if __name__ == "__main__":
    serve()
