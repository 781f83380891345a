"""What can be set from outside, and the only reader of the environment."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec
from dotenv import dotenv_values
from msgspec import Meta, Struct
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from litestar_app.exceptions import SettingsError

DRIVERS = {"sqlite": "sqlite+pysqlite", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that can be set. A field's name in capitals is its variable; an empty variable is one not set."""

    database_url: str = "sqlite:///students.db"
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 8000
    log_level: Literal["critical", "error", "warning", "info", "debug"] = "info"
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    mysql_user: str | None = None
    mysql_password: str | None = None
    mysql_host: str = "127.0.0.1"
    mysql_port: Annotated[int, Meta(ge=1, le=65535)] = 3306
    mysql_database: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the environment, or the mapping given, over the values of `.env` in the working directory.

        Raises:
            SettingsError: a value is not what its variable takes.

        """
        if environment is None:
            environment = {**_read_dotenv(), **os.environ}
        given = {name: environment[name.upper()] for name in cls.__struct_fields__ if environment.get(name.upper())}
        if "log_level" in given:
            given["log_level"] = given["log_level"].lower()
        if "database_url" in given and any(name.startswith("mysql_") for name in given):
            raise SettingsError("DATABASE_URL and MYSQL_* are both set; keep one of them")
        try:
            settings = msgspec.convert(given, cls, strict=False)
        except msgspec.ValidationError as error:
            what, _, name = str(error).rstrip("`").rpartition(" - at `$.")
            raise SettingsError(f"{name.upper()}={given[name]!r} is not possible: {what}") from None
        if any(name.startswith("mysql_") for name in given) and not (settings.mysql_user and settings.mysql_database):
            raise SettingsError("MYSQL_USER and MYSQL_DATABASE must both be set where one of MYSQL_* is")
        _ = settings.url  # a wrong one had better be known before anything starts
        return settings

    @property
    def url(self) -> URL:
        """The database's URL, with the driver that this service uses.

        Raises:
            SettingsError: it is not the URL of a file of SQLite or a database of MySQL or MariaDB.

        """
        if self.mysql_user:
            return URL.create(
                DRIVERS["mysql"],
                self.mysql_user,
                self.mysql_password,
                self.mysql_host,
                self.mysql_port,
                self.mysql_database,
            )
        try:
            url = make_url(self.database_url)
        except (ArgumentError, ValueError):
            right = "sqlite:///students.db or mysql://user:password@host/name"
            raise SettingsError(f"DATABASE_URL is not a database URL such as {right}") from None
        backend = url.get_backend_name()
        if url.drivername not in {backend, DRIVERS.get(backend)} or backend not in DRIVERS:
            raise SettingsError(f"DATABASE_URL starts with {url.drivername}://; expected sqlite, mysql or mariadb")
        if not url.database or url.database == ":memory:":
            raise SettingsError("DATABASE_URL names no database that lasts: expected a file, or a name after the host")
        return url.set(drivername=DRIVERS[backend])


def _read_dotenv() -> dict[str, Any]:
    try:
        return dotenv_values(Path(".env"), interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f".env cannot be read: {error}") from None
