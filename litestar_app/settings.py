"""Settings: everything that can be set from outside, and the only reader of the environment."""

import contextlib
import importlib.util
import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args, get_origin

import msgspec
from dotenv.parser import parse_stream
from msgspec import Meta, Struct
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from litestar_app.exceptions import SettingsError

DRIVERS = {"sqlite": "sqlite+pysqlite", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
MYSQLDB = "mysqldb"
"""The driver mysqlclient, as a URL names it."""
TLS_FILES = ("ssl_ca", "ssl_cert", "ssl_key")
TLS_PAIRS = {"ssl_key": "ssl_cert", "ssl_check_hostname": "ssl_ca"}
MYSQL_PARAMETERS = (*TLS_FILES, "ssl_check_hostname", "unix_socket")
"""What a URL may carry. Not ssl_verify_…: with one of them, PyMySQL drops the ssl_ca of a SQLAlchemy URL."""
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
URL_HOSTS = re.compile(
    r"(?P<before>(?:mysql|mariadb)\b[^:/]*://(?:[^:/]*(?::[^@]*)?@)?)(?P<hosts>[^/?]*)(?P<after>.*)", re.DOTALL
)
"""The place of the hosts in a URL; what is before it is as SQLAlchemy reads it."""
HOST_AND_PORT = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?")
HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
RATE_LIMIT = re.compile("[1-9][0-9]{0,5}/(second|minute|hour)")

KEY_NAME = "[^:,\\s\x00-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u2028-\u202e\u2066-\u2069]{1,100}"
"""A key's name as a regular expression: whatever is seen where it stands in a log, without blanks."""
ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")

MIN_CONNECTIONS = 4
"""To the database: to read, to write, to export and to import at the same time."""
DEFAULT_PORTS = {"http": 80, "https": 443}
"""Ports that browsers leave out of an origin."""
MAX_PORT = 65535
MYSQL_PORT = 3306
Host: TypeAlias = tuple[str, int]
"""A host of MySQL and its port."""
Port = Annotated[int, Meta(ge=1, le=MAX_PORT)]
Count = Annotated[int, Meta(ge=1, le=100_000)]
LogLevel = Literal["critical", "error", "warning", "info", "debug"]
LogFormat = Literal["auto", "json", "text"]


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that can be set. A field's name in capitals is its variable; an empty variable counts as unset."""

    database_url: str = "sqlite:///students.db"
    host: str = "127.0.0.1"
    port: Port = 8000
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"
    tracing: Literal["off", "on"] = "off"
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    root_path: str = ""
    max_connections: Count = 1000
    max_connections_per_client: Count = 100
    max_requests: Count = 500
    max_database_connections: Annotated[int, Meta(ge=MIN_CONNECTIONS, le=1000)] = 43
    rate_limit: str | None = None
    history: Literal["on", "off"] = "on"
    history_days: Annotated[int, Meta(ge=1, le=36500)] | None = None
    mysql_user: str | None = None
    mysql_password: str | None = None
    mysql_host: str = "127.0.0.1"
    mysql_port: Port = MYSQL_PORT
    mysql_database: str | None = None
    api_keys: str = ""
    cors_origins: str = ""
    forwarded_allow_ips: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the mapping given; without one, the environment, and what is unset there from `.env`.

        `DATABASE_URL` and `MYSQL_*` name one thing: either in the environment overrides both in `.env`.

        Raises:
            SettingsError: a value is not possible, `.env` is unreadable, or both ways to name the database are used.

        """
        given: dict[str, str] = {}
        for source in [_read_dotenv(), os.environ] if environment is None else [environment]:
            found = {name: value for name in cls.__struct_fields__ if (value := source.get(name.upper()))}
            if mysql := {name for name in found if name.startswith("mysql_")}:
                given.pop("database_url", None)
            if "database_url" in found:
                if mysql:
                    raise SettingsError("DATABASE_URL and MYSQL_* are both set; keep one of them")
                given = {name: value for name, value in given.items() if not name.startswith("mysql_")}
            given |= found
        settings = cls._convert(given)
        is_mysql = any(name.startswith("mysql_") for name in given)
        if is_mysql and not (settings.mysql_user and settings.mysql_database):
            raise SettingsError("MYSQL_USER and MYSQL_DATABASE must both be set when any MYSQL_* variable is")
        for name, is_possible, expected in LISTS:
            for entry in split(getattr(settings, name)):
                _require(is_possible(entry), name, entry if name != "api_keys" else "…", expected)
        ids = [entry.split(":")[2] for entry in split(settings.api_keys)]
        _require(len({*ids}) == len(ids), "api_keys", "…", "each ID once")
        _ = settings.url  # an impossible one is reported before anything starts
        return settings

    @classmethod
    def _convert(cls, given: Mapping[str, str]) -> Self:
        values: dict[str, object] = dict(given)
        for field in msgspec.structs.fields(cls):
            name, value = field.name, given.get(field.name)
            if value is None:
                continue
            if name.startswith("mysql_") and any("\ud800" <= character <= "\udfff" for character in value):
                raise SettingsError(f"{name.upper()} is not UTF-8")
            if name in TEXTS:
                is_possible, expected = TEXTS[name]
                _require(is_possible(value), name, value, expected)
            # without None, which convert would read from the text "null"
            kind = get_args(field.type)[0] if NoneType in get_args(field.type) else field.type
            if kind is not str:
                try:
                    values[name] = msgspec.convert(value.lower(), kind, strict=False)
                except msgspec.ValidationError:
                    _require(False, name, value, _describe(kind))  # noqa: FBT003  it is not possible
        return msgspec.convert(values, cls)

    @property
    def url(self) -> URL:
        """The database's URL, with the driver that this service uses; of several hosts, with the first.

        Raises:
            SettingsError: it is not the URL of a SQLite file or of a MySQL or MariaDB database.

        """
        return self._urls[0]

    @property
    def hosts(self) -> list[Host]:
        """The hosts of MySQL, the preferred one first; none where it is SQLite or a socket."""
        return [(url.host, url.port or MYSQL_PORT) for url in self._urls if url.host]

    @property
    def _urls(self) -> list[URL]:
        """The same database on each host."""
        if self.mysql_user:
            user, password, database = self.mysql_user, self.mysql_password, self.mysql_database
            return [
                URL.create(DRIVERS["mysql"], user, password, host, port or self.mysql_port, database)
                for host, port in filter(None, map(_read_host, _split_hosts(self.mysql_host)))
            ]
        parts = URL_HOSTS.fullmatch(self.database_url)
        if parts is None or "," not in parts["hosts"]:
            return [_read_url(self.database_url)]
        urls = [_read_url(parts["before"] + part + parts["after"]) for part in _split_hosts(parts["hosts"])]
        if not all(url.host for url in urls):
            raise SettingsError("DATABASE_URL has an empty host; expected mysql://user:password@host1,host2:3307/name")
        if any("unix_socket" in url.query for url in urls):
            raise SettingsError("DATABASE_URL has the parameter unix_socket, which does not go with several hosts")
        if _is_mysqldb(urls[0]):
            raise SettingsError("DATABASE_URL has several hosts, which do not go with mysqldb; leave +mysqldb out")
        return urls


def split(setting: str) -> list[str]:
    """Return the parts of a list, which commas separate."""
    return [part.strip() for part in setting.split(",") if part.strip()]


def _read_url(text: str) -> URL:
    right = "sqlite:///students.db or mysql://user:password@host/name"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise SettingsError(f"DATABASE_URL is not a database URL such as {right}") from None
    if any(CONTROL_CHARACTER.search(part) for part in (text, url.database or "")):
        raise SettingsError(f"DATABASE_URL contains a control character; expected a URL such as {right}")
    backend = url.get_backend_name()
    if backend not in DRIVERS or not (_is_mysqldb(url) or url.drivername in {backend, DRIVERS[backend]}):
        raise SettingsError(f"DATABASE_URL starts with {url.drivername}://; expected sqlite, mysql or mariadb")
    for problem in _sqlite_problems(url) if backend == "sqlite" else _mysql_problems(url, text):
        raise SettingsError(f"DATABASE_URL {problem}")
    return url if _is_mysqldb(url) else url.set(drivername=DRIVERS[backend])


def _is_mysqldb(url: URL) -> bool:
    """Tell whether a URL names mysqlclient, which SQLAlchemy takes too where no driver is named."""
    return url.drivername in {f"mysql+{MYSQLDB}", f"mariadb+{MYSQLDB}"}


def _split_hosts(value: str) -> list[str]:
    """Return the parts of a list of hosts, empty ones too: a comma too many may stand for a host that is missing."""
    return [part.strip() for part in value.split(",")]


def _read_host(value: str) -> tuple[str, int | None] | None:
    """Return a host and its port, if it has one; None for what is no host."""
    if _is_host(value):
        return value, None
    if not (parts := HOST_AND_PORT.fullmatch(value)):
        return None
    host, port = parts["ipv6"] or parts["name"], int(parts["port"]) if parts["port"] else None
    is_possible = _is_host(host) and (parts["ipv6"] is None or ":" in host) and (port is None or 1 <= port <= MAX_PORT)
    return (host, port) if is_possible else None


def _require(condition: object, name: str, value: str, expected: str) -> None:
    if not condition:
        raise SettingsError(f"{name.upper()}={value!r} is not possible: expected {expected}")


def _describe(annotation: Any) -> str:
    """Say what a setting may be: one of some words, or an integer."""
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(get_args(annotation))}"
    (meta,) = annotation.__metadata__
    return f"an integer from {meta.ge} to {meta.le}"


def _is_host(value: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(value))
    try:
        name = value.encode("idna").decode("ascii").removesuffix(".")
    except UnicodeError:
        return False
    return len(name) <= 253 and all(HOST_LABEL.fullmatch(label) for label in name.split("."))  # noqa: PLR2004  RFC 1035


def _is_origin(value: str) -> bool:
    """Tell whether browsers send this as an origin: in lower case, and without the default port of its scheme."""
    parts = re.fullmatch(r"(https?)://([a-z0-9.:_\[\]-]+)", value)
    host = _read_host(parts[2]) if parts else None
    return parts is not None and host is not None and host[1] != DEFAULT_PORTS[parts[1]]


def _is_network(value: str) -> bool:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        return False
    return True


TEXTS: dict[str, tuple[Callable[[str], object], str]] = {
    "rate_limit": (RATE_LIMIT.fullmatch, "a number of requests and a time, such as 600/minute, 10/second or 9999/hour"),
    "host": (
        lambda value: _is_host(value) and not value.lower().startswith("::ffff:"),  # at which no socket can listen
        "an IP address or a host name",
    ),
    "mysql_host": (
        lambda value: all(map(_read_host, _split_hosts(value))),
        "an IP address or a host name, or several as in db1,db2:3307,[::1]:3308",
    ),
    "root_path": (
        ROOT_PATH.fullmatch,
        "a path such as /students-api, of letters, digits and . _ ~ -, without a slash at its end",
    ),
}
"""Settings with a form of their own, and how to say that."""

LISTS: list[tuple[str, Callable[[str], object], str]] = [
    (
        "api_keys",
        re.compile(f"{KEY_NAME}:(reader|editor):[0-9A-Za-z]{{8}}:[0-9a-fA-F]{{64}}").fullmatch,
        "NAME:ROLE:ID:SHA256, as litestar keys create --print-hash prints it; a comma between two of them",
    ),
    (
        "cors_origins",
        _is_origin,
        "origins as browsers send them, such as https://students.example, in lower case and without a path",
    ),
    ("forwarded_allow_ips", _is_network, "addresses or networks of proxies, such as 10.0.0.5 or 10.0.0.0/24"),
]
"""Settings that are lists, what each part of one must be, and how to say that."""


def _sqlite_problems(url: URL) -> Iterator[str]:
    path = url.database or ""
    right = "expected a file, such as sqlite:///students.db or sqlite:////var/lib/students.db"
    if url.host is not None or url.username is not None:
        yield f"names a host or a user, which SQLite does not have: {right}"
    if url.query:
        yield f"has parameters, which this service does not take for SQLite: {right}; %3F is a ? in the name of a file"
    if not path.strip() or path == ":memory:":
        yield f"names no file: {right}"
    if path != path.strip() or path.startswith(("~", "file:")) or ".." in Path(path).parts:
        yield f"has blanks around its path, or ~, file: or .. in it, which are not resolved: {right}"


def _mysql_problems(url: URL, text: str) -> Iterator[str]:
    right = "expected mysql://user:password@host/name, with the password percent-encoded"
    if text.count("@") > (url.username is not None):  # a part of the password would pass for the host or the database
        yield "contains an unescaped @: percent-encode the password (%40 for @, %2F for /), or use MYSQL_PASSWORD"
    if not url.database:
        yield f"names no database: {right}"
    if not (url.host is None or _is_host(url.host)) or not (url.port is None or 1 <= url.port <= MAX_PORT):
        yield f"has an impossible host or port: {right}"
    if _is_mysqldb(url) and importlib.util.find_spec("MySQLdb") is None:
        yield "names mysqldb, which is not installed: uv sync --extra mysqlclient, or leave +mysqldb out"
    parameters = text.rpartition("@")[2].partition("?")[2]
    if parameters and parameters.count("&") + 1 != len(url.query):
        yield "has an empty or a repeated parameter"
    for name, value in url.query.items():
        possible = ("unix_socket",) if _is_mysqldb(url) else MYSQL_PARAMETERS
        if name not in possible:
            yield f"has the parameter {name!r}: expected {', '.join(possible)}"
        yield from _tls_problems(name, str(value), url)


def _tls_problems(name: str, value: str, url: URL) -> Iterator[str]:
    if name in TLS_FILES and not (Path(value).is_file() and os.access(value, os.R_OK)):
        yield f"names {name}={value!r}, which is not a readable file"
    if (needed := TLS_PAIRS.get(name)) and needed not in url.query:
        yield f"has the parameter {name}, which does nothing without {needed}"
    if name == "ssl_check_hostname" and value not in {"true", "false"}:
        yield f"has {name}={value!r}: expected true or false"


def _read_dotenv() -> dict[str, str]:
    try:
        text = Path(".env").read_text("utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f".env cannot be read: {error}") from None
    values = {}
    for binding in parse_stream(StringIO(text)):
        line = binding.original.string
        if binding.error or "\n" in line.strip() or (binding.key and binding.value is None):
            number = binding.original.line + line[: len(line) - len(line.lstrip())].count("\n")
            raise SettingsError(f".env cannot be read: line {number} is not NAME=value, with every quote closed")
        if binding.key and binding.value:
            values[binding.key] = binding.value
    return values
