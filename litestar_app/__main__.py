"""`python -m litestar_app`: serve, as the settings say."""

import signal

if __name__ in {"__main__", "__mp_main__"}:  # Ctrl-C during the imports, most of the start, leaves no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import asyncio
import logging
import os
import socket
import sys
import tempfile
from functools import partial
from multiprocessing import resource_tracker
from typing import cast

import uvicorn
from litestar import Litestar
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import ChangeReload, Multiprocess
from uvicorn.supervisors.multiprocess import Process

from litestar_app.access.control import is_loopback
from litestar_app.access.keys import has_keys
from litestar_app.access.rate_limit import SharedTable
from litestar_app.app import create_app, load_app
from litestar_app.database.config import AlchemyConfig, create_alchemy_config
from litestar_app.database.sqlite import identify
from litestar_app.exceptions import SettingsError
from litestar_app.http.protocol import Connections, Limits
from litestar_app.logs import make_log_config
from litestar_app.metrics import DIRECTORY, forget_worker
from litestar_app.settings import Settings

logger = logging.getLogger("litestar_app")

SHUTDOWN_TIMEOUT = 28
"""Seconds that requests in flight may take after SIGTERM; what they need at most while a MySQL server hangs."""

OTHER_FILES = 500
"""Open files of a process beside its connections: of the database, of uploads, and of clients that are refused."""


def serve() -> None:
    """Check the settings, the address and the database, then run uvicorn until a signal ends it.

    The exit code is 1 where the server does not start.
    """
    reload = sys.argv[1:] == ["--reload"]
    if sys.argv[1:] and not reload:
        sys.exit("student-records: expected no arguments, or --reload; HOST, PORT and the other settings are variables")
    try:
        settings = Settings.from_environment()
        _check_address(settings)
        _allow_files(settings.max_connections)
        alchemy = create_alchemy_config(settings)
        alchemy.prepare_database()
        _check_access(settings, alchemy)
        in_this_process = settings.workers == 1 and not reload
        if not in_this_process:
            alchemy.get_engine().dispose()
        app = create_app(settings, alchemy) if in_this_process else _choose_app(settings)
    except SettingsError as error:
        sys.exit(f"student-records: {error}")
    config = uvicorn.Config(
        app,
        factory=isinstance(app, partial),
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        root_path=settings.root_path,
        reload=reload,
        log_level=settings.log_level,
        log_config=make_log_config(settings),
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
        ws="none",
        server_header=False,
        proxy_headers=False,  # the application reads them itself
        forwarded_allow_ips=settings.forwarded_allow_ips,
        http=cast("type[asyncio.Protocol]", Connections(_make_limits(settings))),
    )
    try:
        _run(config, alchemy.file.path if alchemy.file is not None else None)
    except SystemExit:  # of uvicorn, which has logged why: the port was taken meanwhile, or the lifespan failed
        sys.exit(1)


def _choose_app(settings: Settings) -> "str | partial[Litestar]":
    if settings.rate_limit is None or sys.platform == "win32":
        return "litestar_app.main:app"
    return partial(load_app, SharedTable())


def _run(config: uvicorn.Config, database: str | None) -> None:
    if config.should_reload:
        ChangeReload(config, target=uvicorn.Server(config).run, sockets=[config.bind_socket()]).run()
    elif config.workers > 1:
        supervisor = Supervisor(config, [config.bind_socket()], database)
        with tempfile.TemporaryDirectory(prefix="student-records-") as directory:
            os.environ[DIRECTORY] = directory  # where the workers count
            supervisor.run()
        if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
            sys.exit(STARTUP_FAILURE)
    else:
        uvicorn.Server(config).run()


class Supervisor(Multiprocess):
    """uvicorn's own, which keeps the port open until its workers have ended; nobody would respond to new requests.

    And it goes on where a worker that replaces another does not start, as while a MySQL server is away.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], database: str | None) -> None:
        """Take the path of the SQLite file, if it is one."""
        super().__init__(config, sockets)
        self._database = database
        self._file = identify(database) if database else None
        self._has_started = False

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have died or hang, but not on another file than the others have: writes got lost so."""
        if not self._has_started:
            super().keep_subprocess_alive()
            self._has_started = all(process.is_ready() for process in self.processes)
            return
        for number, process in enumerate(self.processes):
            if process.is_alive(timeout=self.config.timeout_worker_healthcheck):
                continue
            if self._database and identify(self._database) != self._file:
                if all(other.exitcode is not None for other in self.processes):
                    logger.error("%s is not the file that was opened, and no worker is left", self._database)
                    self.should_exit.set()
                return  # those that are left respond 503
            process.kill()
            process.join()
            forget_worker(process.pid)
            self.processes[number] = Process(self.config, self.sockets)
            self.processes[number].start()

    def init_processes(self) -> None:
        """Start the workers; Ctrl-C, which a terminal sends to all processes, is left to the supervisor."""
        if sys.platform == "win32":
            super().init_processes()
        else:
            resource_tracker.ensure_running()  # or the first worker starts it, which ends the blocking
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the workers inherit it
            super().init_processes()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def terminate_all(self) -> None:
        """Take no new connections, then end the workers."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


def _check_access(settings: Settings, alchemy: AlchemyConfig) -> None:
    """Raise SettingsError where other machines could reach the service, and there are no API keys."""
    addresses = {str(found[4][0]) for found in socket.getaddrinfo(settings.host, settings.port)}
    if settings.api_keys or all(map(is_loopback, addresses)):
        return
    with alchemy.get_engine().connect() as connection:
        if not has_keys(connection):
            raise SettingsError(
                f"HOST={settings.host!r} is open to other machines, and there is no API key: create one "
                "(litestar keys create NAME --role editor), or set HOST=127.0.0.1"
            )


def _make_limits(settings: Settings) -> Limits:
    return Limits(
        connections=settings.max_connections,
        connections_per_client=settings.max_connections_per_client,
        requests=settings.max_requests,
    )


def _allow_files(connections: int) -> None:
    """Raise the limit of open files to what the connections need; the soft one is often 1024."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_FILES
    if soft not in {hard, resource.RLIM_INFINITY} and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _check_address(settings: Settings) -> None:
    try:
        addresses = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = addresses[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"HOST={settings.host!r}, PORT={settings.port}: cannot listen there: {error}") from None


if __name__ == "__main__":
    serve()
