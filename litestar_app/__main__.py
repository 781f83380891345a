"""`python -m litestar_app`: serve, as the settings say."""

import os
import signal
import sys

if __name__ == "__main__":  # what was closed is opened, or a database file would get its number
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003  takes no name
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115  a descriptor, for good
if __name__ in {"__main__", "__mp_main__"}:  # Ctrl-C during the imports, most of the start, leaves no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
if __name__ == "__main__" and os.getpid() == 1:  # as in a container: the kernel ignores what has no handler
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))

import asyncio
import logging
import socket
from functools import partial
from pathlib import Path
from typing import cast

import uvicorn
from litestar import Litestar
from sqlalchemy.exc import SQLAlchemyError
from uvicorn.supervisors import ChangeReload

from litestar_app.access.keys import has_keys
from litestar_app.access.rate_limit import SharedTable
from litestar_app.app import create_app
from litestar_app.database.config import AlchemyConfig, create_alchemy_config
from litestar_app.database.failures import unwrap
from litestar_app.database.sqlite import SQLite
from litestar_app.exceptions import SettingsError
from litestar_app.http.cors import create_cors
from litestar_app.http.local import is_loopback
from litestar_app.logs import make_log_config
from litestar_app.metrics import create_shared_memory
from litestar_app.server.protocol import MAX_REFUSED, Connections, Limits
from litestar_app.server.supervisor import Supervisor
from litestar_app.server.workers import load_app
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
        limits, warning = _make_limits(settings)
        alchemy = create_alchemy_config(settings)
        alchemy.prepare_database()
        needs_key = _check_access(settings, alchemy)
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
        http=cast("type[asyncio.Protocol]", Connections(limits, create_cors(settings.cors_origins))),
    )
    if warning:
        logger.warning(warning)
    for line in _describe(settings, needs_key=needs_key):
        logger.info(line)
    try:
        _run(config, alchemy.backend.file.path if isinstance(alchemy.backend, SQLite) else None)
    except SystemExit:  # of uvicorn, which has logged why: the port was taken meanwhile, or the lifespan failed
        sys.exit(1)


def _choose_app(settings: Settings) -> "str | partial[Litestar]":
    """Choose what a worker loads: on Windows, each of several counts for itself."""
    if sys.platform == "win32":
        return "litestar_app.main:app"
    try:
        counts = create_shared_memory(settings.workers) if settings.workers > 1 else None
        table = SharedTable() if settings.rate_limit is not None else None
    except OSError as error:
        raise SettingsError(f"WORKERS={settings.workers}: the system grants no shared memory: {error}") from None
    return partial(load_app, counts, table)


def _run(config: uvicorn.Config, database: str | None) -> None:
    if config.should_reload:
        ChangeReload(config, target=uvicorn.Server(config).run, sockets=[config.bind_socket()]).run()
    elif config.workers > 1:
        if not Supervisor(config, [config.bind_socket()], database).run():
            sys.exit(1)
    else:
        uvicorn.Server(config).run()


def _describe(settings: Settings, *, needs_key: bool) -> list[str]:
    """Say what a person looks for first: where the database and the documentation are, and who may connect."""
    url = settings.url
    if url.get_backend_name() == "sqlite":
        database = f"SQLite, {Path(url.database or '').absolute()}"
    else:
        hosts = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in settings.hosts)
        database = f"MySQL, {url.database} on {hosts or url.query.get('unix_socket', 'localhost')}"
    host = "localhost" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104  where it listens
    docs = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/docs"
    if settings.root_path:
        docs = f"{docs}, behind the proxy {settings.root_path}/docs"
    return [
        f"Database: {database}",
        f"Documentation: {docs}",
        "Who may connect: clients with an API key"
        if needs_key
        else "Who may connect: programs on this machine only; no API key exists",
    ]


def _check_access(settings: Settings, alchemy: AlchemyConfig) -> bool:
    """Tell whether there are API keys; SettingsError where there are none, and other machines could connect."""
    if settings.api_keys:
        return True
    try:
        with alchemy.get_engine().connect() as connection:
            if has_keys(connection):
                return True
    except SQLAlchemyError as error:  # it has just responded
        raise SettingsError(f"the database does not tell whether there are API keys: {unwrap(error)}") from None
    addresses = {str(found[4][0]) for found in socket.getaddrinfo(settings.host, settings.port)}
    if not all(map(is_loopback, addresses)):
        raise SettingsError(
            f"HOST={settings.host!r} is open to other machines, and there is no API key: create one "
            "(litestar keys create NAME --role editor), or set HOST=127.0.0.1"
        )
    return False


def _make_limits(settings: Settings) -> tuple[Limits, str | None]:
    """Bound what a worker does at a time: to less than the settings say where it may not open as many files.

    Then there is a warning to log. The limit of open files, of which the soft one is often 1024, is raised if possible.
    """
    connections, refused, warning = settings.max_connections, MAX_REFUSED, None
    files, needed = _allow_files(connections + OTHER_FILES), connections + OTHER_FILES
    if files < needed:
        connections = min(connections, max(files - OTHER_FILES, files // 4))
        refused = min(refused, connections)
        warning = (
            f"A process may open {files} files, which is enough for {connections} connections to a worker and not for "
            f"MAX_CONNECTIONS={settings.max_connections}: raise the limit to {needed} (ulimit -n, LimitNOFILE=)"
        )
    return Limits(
        connections=connections,
        connections_per_client=settings.max_connections_per_client,
        requests=settings.max_requests,
        refused=refused,
    ), warning


def _allow_files(needed: int) -> int:
    """Raise the limit of open files to what is needed, as far as the system allows; return what it is now."""
    if sys.platform == "win32":
        return needed
    import resource  # noqa: PLC0415  not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return needed
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


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
