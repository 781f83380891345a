"""Who is compared, and the command that starts each of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from tests.benchmarks.isolation import run_isolated

DatabaseKind = Literal["sqlite", "mariadb"]

BASELINE = "tutorial"
SERVICE = "service"
PEERS = "tests.benchmarks.peers"
SERVERS = {
    "uvicorn": "--host 127.0.0.1 --port {port} --loop uvloop --http httptools --no-access-log",
    "gunicorn": "--bind 127.0.0.1:{port} --workers 1 --worker-class gthread --threads 8 --no-control-socket",
}


@dataclass(frozen=True)
class Candidate:
    """One stack with the common API: what it is made of, its server, and the databases that it is measured on."""

    name: str
    label: str
    application: str
    packages: str
    server: Literal["uvicorn", "gunicorn", "own"] = "uvicorn"
    databases: tuple[DatabaseKind, ...] = ("sqlite", "mariadb")
    stores: bool = True
    scheme: str = "mysql"
    """Of the URL of a database on MariaDB."""

    @property
    def is_bound(self) -> bool:
        """A bound shows what is possible; it is no stack to choose."""
        return self.name.startswith("bound_")

    def serve(self, port: int) -> list[str]:
        """Return the command for one worker on a port of 127.0.0.1, without an access log."""
        if self.server == "own":  # which takes settings, and no arguments
            return self.run(self.application.partition(".")[0])
        return self.run(self.server, self.application, *SERVERS[self.server].format(port=port).split())

    def run(self, module: str, *arguments: str) -> list[str]:
        """Return the command that runs a module with this candidate's own packages alone."""
        server = {"gunicorn"} if self.server == "gunicorn" else {"uvicorn", "uvloop", "httptools"}
        return run_isolated(module, server.union(self.packages.split()), arguments)


MYSQLCLIENT = Candidate(
    "service_mysqlclient",
    "this service, mysqlclient",
    "litestar_app.main:app",
    "student-records[mysqlclient]",
    server="own",
    databases=("mariadb",),
    scheme="mysql+mysqldb",
)
CANDIDATES = (
    Candidate(SERVICE, "this service", "litestar_app.main:app", "student-records", server="own"),
    *([MYSQLCLIENT] if find_spec("MySQLdb") else []),  # which is compiled, and so an extra
    Candidate(
        BASELINE,
        "tutorial: FastAPI, sync ORM",
        f"{PEERS}.tutorial:app",
        "fastapi sqlalchemy pymysql",
    ),
    Candidate(
        "sqlmodel",
        "FastAPI, async SQLModel",
        f"{PEERS}.fastapi_sqlmodel:app",
        "fastapi sqlmodel sqlalchemy[asyncio] aiosqlite asyncmy",
    ),
    Candidate(
        "litestar_aa",
        "Litestar, async AA service",
        f"{PEERS}.litestar_aa:app",
        "litestar advanced-alchemy pydantic sqlalchemy[asyncio] aiosqlite asyncmy",
    ),
    Candidate(
        "flask",
        "Flask, sync ORM",
        f"{PEERS}.flask_app:app",
        "flask sqlalchemy pymysql",
        server="gunicorn",
    ),
    Candidate(
        "drf",
        "Django REST framework",
        f"{PEERS}.drf:app",
        "django djangorestframework pymysql",
        server="gunicorn",
    ),
    Candidate(
        "bound_litestar",
        "bound: Litestar, no database",
        f"{PEERS}.bound_litestar:app",
        "litestar",
        databases=("sqlite",),
        stores=False,
    ),
    Candidate(
        "bound_asgi",
        "bound: bare ASGI, sqlite3",
        f"{PEERS}.bound_asgi:app",
        "msgspec",
        databases=("sqlite",),
    ),
)


TRANSFER_CANDIDATES = (
    CANDIDATES[0],
    Candidate(
        BASELINE,
        "FastAPI, UploadFile, sync ORM",
        f"{PEERS}.fastapi_files:app",
        "fastapi sqlalchemy pymysql python-multipart",
    ),
    Candidate(
        "drf",
        "DRF, django-import-export",
        f"{PEERS}.drf_import_export:app",
        "django djangorestframework pymysql django-import-export",
        server="gunicorn",
    ),
    Candidate("datasette", "Datasette, sqlite-utils", f"{PEERS}.datasette_app:app", "datasette"),
)
"""Those that can import and export files; the name says whose stack it is."""


def select_candidates(names: str | None, offered: Sequence[Candidate] = CANDIDATES) -> list[Candidate]:
    """Take the candidates that a comma list names, all of them for None; ValueError for a name of nobody."""
    if names is None:
        return list(offered)
    wanted = set(names.split(","))
    if unknown := wanted - {candidate.name for candidate in offered}:
        known = ", ".join(dict.fromkeys(candidate.name for candidate in offered))
        raise ValueError(f"no candidate {', '.join(sorted(unknown))}; there are {known}")
    return [candidate for candidate in offered if candidate.name in wanted]
