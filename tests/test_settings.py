"""Settings: where they come from, and what a wrong one says."""

from pathlib import Path

import pytest

from litestar_app.settings import Settings, SettingsError


def test_nothing_needs_to_be_set() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.url.render_as_string() == "sqlite+pysqlite:///students.db"
    assert (settings.host, settings.port, settings.log_level, settings.workers) == ("127.0.0.1", 8000, "info", 1)


def test_an_empty_variable_is_one_not_set() -> None:
    assert Settings.from_environment({"PORT": "", "DATABASE_URL": "", "MYSQL_USER": ""}) == Settings()


def test_variables_are_read() -> None:
    given = {"HOST": "::", "PORT": "80", "LOG_LEVEL": "WARNING", "WORKERS": "2", "PATH": "/bin"}
    assert Settings.from_environment(given) == Settings(host="::", port=80, log_level="warning", workers=2)


def test_the_environment_wins_over_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("PORT=1111\nHOST=0.0.0.0\nUNRELATED=1\n")
    monkeypatch.setenv("PORT", "2222")
    settings = Settings.from_environment()
    assert (settings.host, settings.port) == ("0.0.0.0", 2222)


def test_a_dotenv_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(b"HOST=\xff")
    with pytest.raises(SettingsError, match=r"^\.env cannot be read: "):
        Settings.from_environment()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////var/lib/students.db", "sqlite+pysqlite:////var/lib/students.db"),
        ("mysql://u:p@h/d", "mysql+pymysql://u:p@h/d"),
        ("mysql+pymysql://u:p@h:3307/d", "mysql+pymysql://u:p@h:3307/d"),
        ("mariadb://u@h/d", "mariadb+pymysql://u@h/d"),
        ("mysql://u:p%40%2F@h/d", "mysql+pymysql://u:p%40%2F@h/d"),
    ],
)
def test_a_url_gets_the_driver_of_this_service(url: str, expected: str) -> None:
    settings = Settings.from_environment({"DATABASE_URL": url})
    assert settings.url.render_as_string(hide_password=False) == expected


PASSWORD = "p@ss:w/rd %25#?&é'\"\\"


def test_the_parts_of_the_tutorial_make_a_url_with_any_password() -> None:
    given = {
        "MYSQL_USER": "root", "MYSQL_PASSWORD": PASSWORD, "MYSQL_HOST": "db", "MYSQL_PORT": "3307",
        "MYSQL_DATABASE": "college",
    }  # fmt: skip
    url = Settings.from_environment(given).url
    assert (url.drivername, url.username, url.password) == ("mysql+pymysql", "root", PASSWORD)
    assert (url.host, url.port, url.database) == ("db", 3307, "college")


WRONG = [
    ({"PORT": "0"}, "PORT='0' is not possible: Expected `int` >= 1"),
    ({"PORT": "65536"}, "PORT='65536' is not possible: Expected `int` <= 65535"),
    ({"PORT": "http"}, "PORT='http' is not possible: Expected `int`, got `str`"),
    ({"LOG_LEVEL": "loud"}, "LOG_LEVEL='loud' is not possible: Invalid enum value 'loud'"),
    ({"WORKERS": "0"}, "WORKERS='0' is not possible: Expected `int` >= 1"),
    ({"MYSQL_PORT": "x", "MYSQL_USER": "u", "MYSQL_DATABASE": "d"}, "MYSQL_PORT='x' is not possible: "),
    ({"MYSQL_HOST": "h"}, "MYSQL_USER and MYSQL_DATABASE must both be set where one of MYSQL_* is"),
    ({"MYSQL_USER": "u"}, "MYSQL_USER and MYSQL_DATABASE must both be set where one of MYSQL_* is"),
    ({"MYSQL_USER": "u", "DATABASE_URL": "sqlite:///x"}, "DATABASE_URL and MYSQL_* are both set; keep one of them"),
    ({"DATABASE_URL": "students.db"}, "DATABASE_URL is not a database URL such as sqlite:///students.db"),
    ({"DATABASE_URL": "mysql://u:secret@h:port/d"}, "DATABASE_URL is not a database URL such as sqlite:///students.db"),
    ({"DATABASE_URL": "postgresql://u:secret@h/d"}, "DATABASE_URL starts with postgresql://; expected sqlite, mysql"),
    ({"DATABASE_URL": "sqlite+aiosqlite:///x"}, "DATABASE_URL starts with sqlite+aiosqlite://; expected sqlite, mysql"),
    ({"DATABASE_URL": "mysql://u:secret@h"}, "DATABASE_URL names no database that lasts"),
    ({"DATABASE_URL": "sqlite://"}, "DATABASE_URL names no database that lasts"),
    ({"DATABASE_URL": "sqlite:///:memory:"}, "DATABASE_URL names no database that lasts"),
]


@pytest.mark.parametrize(("given", "says"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_value_is_one_line_that_names_the_variable(given: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(given)
    message = str(caught.value)
    assert message.startswith(says)
    assert "\n" not in message
    assert "secret" not in message
