"""Settings: where they come from, and what is rejected with which line."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from litestar_app.exceptions import SettingsError
from litestar_app.settings import Settings

PASSWORD = "p@ss:w/rd %25#?&é'\"\\"
MYSQL = {"MYSQL_USER": "u", "MYSQL_DATABASE": "d"}


@pytest.fixture
def dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The `.env` of the working directory, not there yet, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.__struct_fields__:
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path / ".env"


def reject(environment: dict[str, str] | None) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environment)
    message = str(caught.value)
    assert message.isprintable()
    return message


def test_defaults() -> None:
    settings = Settings.from_environment({"PORT": "", "DATABASE_URL": "", "MYSQL_USER": ""})
    assert settings == Settings()
    assert settings.url.render_as_string() == "sqlite+pysqlite:///students.db"
    assert (settings.host, settings.port, settings.log_level, settings.workers) == ("127.0.0.1", 8000, "info", 1)


@pytest.mark.parametrize("host", ["::", "db_1.example.", "a" * 63, "é.example"])
def test_variables_are_read(host: str) -> None:
    given = {"HOST": host, "PORT": "80", "LOG_LEVEL": "WARNING", "WORKERS": "2", "ROOT_PATH": "/a/..b~1"}
    given |= {"LOG_FORMAT": "JSON", "HISTORY": "OFF", "HISTORY_DAYS": "30"}
    expected = Settings(
        host=host,
        port=80,
        log_level="warning",
        log_format="json",
        workers=2,
        root_path="/a/..b~1",
        history="off",
        history_days=30,
    )
    assert Settings.from_environment({**given, "PATH": "/bin"}) == expected


def test_mysql_variables_take_any_password() -> None:
    given = {**MYSQL, "MYSQL_PASSWORD": PASSWORD, "MYSQL_HOST": "db", "MYSQL_PORT": "3307"}
    url = Settings.from_environment(given).url
    assert (url.drivername, url.username, url.password) == ("mysql+pymysql", "u", PASSWORD)
    assert (url.host, url.port, url.database) == ("db", 3307, "d")


HOST_LISTS = [
    ("h", [("h", 3310)]),
    ("h,i:3307 , j", [("h", 3310), ("i", 3307), ("j", 3310)]),
    ("::1", [("::1", 3310)]),
    ("[::1]:3307,fe80::1,[::2]", [("::1", 3307), ("fe80::1", 3310), ("::2", 3310)]),
]


@pytest.mark.parametrize(("given", "hosts"), HOST_LISTS)
def test_mysql_host_may_be_several(given: str, hosts: list[tuple[str, int]]) -> None:
    settings = Settings.from_environment({**MYSQL, "MYSQL_HOST": given, "MYSQL_PORT": "3310"})
    assert settings.hosts == hosts
    assert (settings.url.host, settings.url.port) == hosts[0]


HOST = "expected an IP address or a host name"
HOSTS = f"{HOST}, or several as in db1,db2:3307,[::1]:3308"
PREFIX = "expected a path such as /students-api, of letters, digits and . _ ~ -, without a slash at its end"
LEVEL = "expected one of critical, error, warning, info, debug"
RATE = "expected a number of requests and a time, such as 600/minute, 10/second or 9999/hour"
LIMITS = ["MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_CLIENT", "MAX_REQUESTS"]
BAD_HOSTS = [
    "::ffff:127.0.0.1",
    ".",
    "a..b",
    "a" * 64,
    "a b",
    "a.-b",
    "a-",
    "h:80",
    "[::1]",
    "a\0b",
    "é" * 64,
    ".".join(["abcd"] * 51),
]
BAD_HOST_LISTS = ["a..b", "h,", ",", "h,,i", "h,a..b", "h:0", "h:65536", "h:x", "h:1:2", "[h]", "[::1", "::1:x", "h:٨"]
BAD_VALUES = [
    *(("HOST", value, HOST) for value in BAD_HOSTS),
    *(("MYSQL_HOST", value, HOSTS) for value in BAD_HOST_LISTS),
    *(
        (name, value, "expected an integer from 1 to 65535")
        for name in ["PORT", "MYSQL_PORT"]
        for value in ["0", "65536", "http", " 8", "8 ", "+8", "1_0", "8.5", "٨", "9" * 5000]
    ),
    *(("WORKERS", value, "expected an integer from 1 to 64") for value in ["0", "65"]),
    *((name, value, "expected an integer from 1 to 100000") for name in LIMITS for value in ["0", "100001"]),
    *(("MAX_DATABASE_CONNECTIONS", value, "expected an integer from 4 to 1000") for value in ["3", "1001"]),
    *(
        ("RATE_LIMIT", value, RATE)
        for value in ["600", "0/minute", "1000000/hour", "600/day", "6.5/second", "600 /hour"]
    ),
    ("LOG_LEVEL", "Warn", LEVEL),
    *(
        ("ROOT_PATH", value, PREFIX)
        for value in ["/", "a", "/a/", "//a", "/a//b", "/a b", "/a/..", "/./a", "/é", "/a%2F"]
    ),
    ("LOG_FORMAT", "xml", "expected one of auto, json, text"),
    ("TRACING", "yes", "expected one of off, on"),
    ("HISTORY", "yes", "expected one of on, off"),
    *(("HISTORY_DAYS", value, "expected an integer from 1 to 36500") for value in ["0", "36501", "1.5", "null"]),
]


@pytest.mark.parametrize("name", ["a\udcff", "a\u202eb", "a b", "a\n", ""], ids=ascii)
def test_name_of_a_key_is_seen(name: str) -> None:
    expected = "NAME:ROLE:ID:SHA256, as litestar keys create --print-hash prints it; a comma between two of them"
    key = f"{name}:editor:abcdefgh:{'0' * 64}"
    assert reject({"API_KEYS": key}) == f"API_KEYS='…' is not possible: expected {expected}"


@pytest.mark.parametrize(
    "origin",
    ["http://a:99999", "https://[::1", "https://]", "https://a:b:c", "https://--", "https://a:443", "http://a:80"],
)
def test_impossible_origin(origin: str) -> None:
    """One that no browser sends would be of no effect."""
    assert reject({"CORS_ORIGINS": origin}).startswith(f"CORS_ORIGINS={origin!r} is not possible: expected origins")


def test_id_of_a_key_is_there_once() -> None:
    """Of two lines, the last would silently win."""
    keys = [f"{name}:{role}:abcdefgh:{'0' * 64}" for name, role in (("a", "editor"), ("b", "reader"))]
    assert reject({"API_KEYS": ",".join(keys)}) == "API_KEYS='…' is not possible: expected each ID once"


@pytest.mark.parametrize(("name", "value", "reason"), BAD_VALUES, ids=ascii)
def test_impossible_value(name: str, value: str, reason: str) -> None:
    assert reject({**MYSQL, name: value}) == f"{name}={value!r} is not possible: {reason}"


URLS = [
    ("sqlite:////var/lib/a b%3F..db", "sqlite+pysqlite:////var/lib/a b%3F..db"),
    ("mysql+pymysql://u:p@h:3307/d", "mysql+pymysql://u:p@h:3307/d"),
    ("mariadb://u@[::1]:3307/d", "mariadb+pymysql://u@[::1]:3307/d"),
    ("mysql://u:p%40%2F@h/d", "mysql+pymysql://u:p%40%2F@h/d"),
    ("mysql://u:p?w/:@h/d", "mysql+pymysql://u:p%3Fw%2F%3A@h/d"),
    ("mysql://u@/d?unix_socket=/run/x.sock", "mysql+pymysql://u@/d?unix_socket=%2Frun%2Fx.sock"),
]


@pytest.mark.parametrize(("url", "expected"), URLS)
def test_url_gets_the_driver_of_this_service(url: str, expected: str) -> None:
    settings = Settings.from_environment({"DATABASE_URL": url})
    assert settings.url.render_as_string(hide_password=False) == expected


URL_HOSTS = [
    ("mysql://u:p,q/r@h:3307,i,j/d", [("h", 3307), ("i", 3306), ("j", 3306)], "mysql+pymysql://u:p%2Cq%2Fr@h:3307/d"),
    ("mariadb+pymysql://[::1], i:3307/d", [("::1", 3306), ("i", 3307)], "mariadb+pymysql://[::1]/d"),
    ("mysql://u:p,q@h/d", [("h", 3306)], "mysql+pymysql://u:p%2Cq@h/d"),
    ("mysql://u@/d?unix_socket=/run/x,y", [], "mysql+pymysql://u@/d?unix_socket=%2Frun%2Fx%2Cy"),
    ("sqlite:////a,b/c", [], "sqlite+pysqlite:////a%2Cb/c"),
]


@pytest.mark.parametrize(("given", "hosts", "first"), URL_HOSTS)
def test_url_may_name_several_hosts(given: str, hosts: list[tuple[str, int]], first: str) -> None:
    settings = Settings.from_environment({"DATABASE_URL": given})
    assert settings.hosts == hosts
    assert settings.url.render_as_string(hide_password=False) == first


def test_mysqlclient_is_taken_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "mysql+mysqldb://u:p@h/d"
    if find_spec("MySQLdb") is None:
        assert reject({"DATABASE_URL": url}).startswith("DATABASE_URL names mysqldb, which is not installed: uv sync")
        (tmp_path / "MySQLdb.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
    settings = Settings.from_environment({"DATABASE_URL": url})
    assert settings.url.render_as_string(hide_password=False) == url
    tls = reject({"DATABASE_URL": f"{url}?ssl_ca={__file__}"})
    assert tls == "DATABASE_URL has the parameter 'ssl_ca': expected unix_socket"
    hosts = reject({"DATABASE_URL": "mysql+mysqldb://u:p@h,i/d"})
    assert hosts == "DATABASE_URL has several hosts, which do not go with mysqldb; leave +mysqldb out"


BAD_URLS = {
    "is not a database URL such as sqlite:///students.db": ["students.db", "mysql://u:secret"],
    "starts with postgresql://; expected sqlite, mysql or mariadb": ["postgresql://u:secret@h/d"],
    "starts with sqlite+aiosqlite://; expected sqlite, mysql or mariadb": ["sqlite+aiosqlite:///x"],
    "names no file: expected a file, such as": ["sqlite://", "sqlite:///%20", "sqlite:///:memory:"],
    "has parameters, which this service does not take for SQLite": ["sqlite:///x.db?mode=memory"],
    "names a host or a user, which SQLite does not have": ["sqlite://host/x.db", "sqlite://u:secret@/x.db"],
    "has blanks around its path, or ~, file: or .. in it": [
        "sqlite:///students.db ", "sqlite:///~/x.db", "sqlite:///file:students.db", "sqlite:///x/../students.db",
    ],
    "contains a control character": ["sqlite:///a\nb", "sqlite:///a%00b", "sqlite:///a\udcffb"],
    "contains an unescaped @: percent-encode the password": [
        "mysql://u:secret@secret/secret@h/d", "mysql://u/secret:secret@h/d",
    ],
    "names no database: expected mysql://user:password@host/name": ["mysql://u:secret@h"],
    "has an impossible host or port": [
        f"mysql://u:secret@{place}/d" for place in ("a..b", "h:0", "h:65536", "h,i:0", "a..b,h")
    ],
    "has an empty host": [f"mysql://u:secret@{place}/d" for place in ("h,", ",h", "h,,i")],
    "has the parameter unix_socket, which does not go with several hosts": ["mysql://u:secret@h,i/d?unix_socket=/x"],
    "has the parameter 'password': expected ssl_ca, ssl_cert, ssl_key, ": ["mysql://u:p@h/d?password=secret"],
    "has an empty or a repeated parameter": ["mysql://u:secret@h/d?ssl_ca=", "mysql://u:secret@h/d?ssl_ca=a&ssl_ca=b"],
    "names ssl_ca='/nowhere.pem', which is not a readable file": ["mysql://u:secret@h/d?ssl_ca=/nowhere.pem"],
    "names ssl_cert='/', which is not a readable file": ["mysql://u:secret@h/d?ssl_cert=/"],
    "has the parameter ssl_key, which does nothing without ssl_cert": [f"mysql://u:secret@h/d?ssl_key={__file__}"],
    "has the parameter ssl_check_hostname, which does nothing ": ["mysql://u:secret@h/d?ssl_check_hostname=true"],
    "has ssl_check_hostname='1': expected true or": [f"mysql://h/d?ssl_ca={__file__}&ssl_check_hostname=1"],
}  # fmt: skip


@pytest.mark.parametrize(("url", "says"), [(url, says) for says, urls in BAD_URLS.items() for url in urls], ids=ascii)
def test_rejected_url_never_shows_its_password(url: str, says: str) -> None:
    message = reject({"DATABASE_URL": url})
    assert message.startswith(f"DATABASE_URL {says}")
    assert "secret" not in message


def test_tls_parameters_reach_the_driver(tmp_path: Path) -> None:
    pem = tmp_path / "a.pem"
    pem.touch()
    query = {"ssl_ca": str(pem), "ssl_cert": str(pem), "ssl_key": str(pem), "ssl_check_hostname": "false"}
    given = "&".join(f"{name}={value}" for name, value in query.items())
    url = Settings.from_environment({"DATABASE_URL": f"mysql://u:p@h/d?{given}"}).url
    assert url.query == query
    _, arguments = url.get_dialect()().create_connect_args(url)
    assert arguments["ssl"] == {"ca": str(pem), "cert": str(pem), "key": str(pem), "check_hostname": False}


@pytest.mark.parametrize("given", [{"MYSQL_HOST": "h"}, {"MYSQL_USER": "u"}, {"MYSQL_DATABASE": "d"}], ids=str)
def test_incomplete_mysql_variables(given: dict[str, str]) -> None:
    assert reject(given) == "MYSQL_USER and MYSQL_DATABASE must both be set when any MYSQL_* variable is"


def test_database_named_twice(dotenv: Path) -> None:
    twice = "DATABASE_URL and MYSQL_* are both set; keep one of them"
    assert reject({"MYSQL_PASSWORD": "p", "DATABASE_URL": "sqlite:///x"}) == twice
    dotenv.write_text("DATABASE_URL=sqlite:///x\nMYSQL_USER=u\nMYSQL_DATABASE=d")
    assert reject(None) == twice


SOURCES = [
    ("PORT=1\nHOST=h", {"PORT": "2", "HOST": ""}, Settings(host="h", port=2)),
    ("DATABASE_URL=sqlite:///x", MYSQL, Settings(mysql_user="u", mysql_database="d")),
    ("MYSQL_USER=u\nMYSQL_DATABASE=d", {"DATABASE_URL": "sqlite:///x"}, Settings(database_url="sqlite:///x")),
    ("MYSQL_USER=u", {"MYSQL_DATABASE": "d"}, Settings(mysql_user="u", mysql_database="d")),
]


@pytest.mark.parametrize(("lines", "environment", "expected"), SOURCES)
def test_environment_wins_over_dotenv(
    dotenv: Path, monkeypatch: pytest.MonkeyPatch, lines: str, environment: dict[str, str], expected: Settings
) -> None:
    dotenv.write_text(lines)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment() == expected


def test_dotenv_may_have_bom_comments_and_export(dotenv: Path) -> None:
    dotenv.write_bytes(b"\xef\xbb\xbfHOST=h\r\n# comment\r\n\r\nUNRELATED=1\r\nexport PORT=1\r\n")
    assert Settings.from_environment() == Settings(host="h", port=1)


QUOTING = [
    ("a$b${HOME}", "a$b${HOME}"),
    ("a #b", "a"),
    (r"'a #b\\b\'c\n'", r"a #b\b'c\n"),
    (r'"a\\b\"c\n"', 'a\\b"c\n'),
]


@pytest.mark.parametrize(("written", "password"), QUOTING)
def test_quoting_in_dotenv(dotenv: Path, written: str, password: str) -> None:
    """The rules of docs/reference/settings.md about quotes."""
    dotenv.write_text(f"MYSQL_PASSWORD={written}\nMYSQL_USER=u\nMYSQL_DATABASE=d\n")
    assert Settings.from_environment().mysql_password == password


BAD_LINES = [("PORT='1", 3), ("UNRELATED='1\nPORT=2\nEND='", 3), ("\n\nPORT", 5), ("PORT: 1", 3)]


@pytest.mark.parametrize(("line", "number"), BAD_LINES)
def test_unreadable_line_of_dotenv(dotenv: Path, line: str, number: int) -> None:
    dotenv.write_text(f"\nDATABASE_URL=sqlite:///x\n{line}\n")
    expected = f".env cannot be read: line {number} is not NAME=value, with every quote closed"
    assert reject(None) == expected


def test_dotenv_that_is_no_text_file(dotenv: Path) -> None:
    dotenv.write_bytes(b"HOST=\xff")
    assert reject(None).startswith(".env cannot be read: 'utf-8' codec can't decode byte")
    dotenv.unlink()
    dotenv.mkdir()
    assert reject(None) == ".env cannot be read: [Errno 21] Is a directory: '.env'"
