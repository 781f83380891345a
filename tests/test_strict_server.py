"""The main flows on a server with ids that interleave, a binary log of rows, forced primary keys, and TLS only."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pymysql
import pytest

from litestar_app.database.limits import Timeouts
from litestar_app.exceptions import SettingsError
from tests.certificates import make_certificates
from tests.database import prepare
from tests.flows import CSV, run_flows
from tests.mariadb import MariaDB
from tests.service import ANANYA, serve_database

ROWS = 2000


@pytest.fixture
def url(strict_mariadb: MariaDB) -> Iterator[str]:
    """An empty database, whose server has to show its certificate."""
    name = f"test_{uuid.uuid4().hex}"
    plain = strict_mariadb.create_database(name)
    if "mysqldb" in plain:
        pytest.skip("mysqlclient has no ssl_ca here")
    yield f"{plain}?ssl_ca={strict_mariadb.directory / 'ca.pem'}"
    strict_mariadb.execute(f"DROP DATABASE `{name}`")


def test_settings_are_what_they_should_be(strict_mariadb: MariaDB) -> None:
    names = "innodb_autoinc_lock_mode", "innodb_force_primary_key", "binlog_format", "log_bin", "have_ssl"
    statement = f"SELECT {', '.join(f'@@{name}' for name in names)}"
    assert strict_mariadb.execute(statement) == [(2, 1, "ROW", 1, "YES")]
    with pytest.raises(pymysql.err.OperationalError):
        pymysql.connect(host=strict_mariadb.host, port=strict_mariadb.port, user="root", ssl_disabled=True)


def test_main_flows(url: str) -> None:
    with serve_database(url) as client:
        run_flows(client)


def test_tls_is_used_without_a_certificate_to_trust(url: str, strict_mariadb: MariaDB) -> None:
    """By PyMySQL 1.2, if the server has it; who the server is, nobody checks then."""
    with serve_database(url.partition("?")[0]) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        ciphers = "SELECT COUNT(*) FROM information_schema.processlist WHERE db IS NOT NULL"
        assert strict_mariadb.execute(ciphers) != [(0,)]


def test_certificate_of_another_authority_stops_the_start(url: str, tmp_path: Path) -> None:
    other = f"{url.partition('?')[0]}?ssl_ca={make_certificates(tmp_path).ca}"
    with pytest.raises(SettingsError, match="CERTIFICATE_VERIFY_FAILED"), prepare(other, Timeouts(start=0)):
        pass


@pytest.mark.parametrize("match", ["id", "none"])
def test_undo_of_an_import_leaves_what_others_have_created_meanwhile(url: str, match: str) -> None:
    """Though their ids lie among those of the import."""
    rows = "name,department,cgpa\n" + "".join(f"Import {number},CSE,1\n" for number in range(ROWS))
    with serve_database(url) as client, ThreadPoolExecutor(4) as pool:
        is_over = threading.Event()

        def create() -> set[int]:
            ids = set()
            while not is_over.is_set():
                response = client.post("/student", json=ANANYA)
                assert response.status_code == 201
                ids.add(response.json()["id"])
            return ids

        creating = [pool.submit(create) for _ in range(4)]
        imported = client.post(f"/students/import?match={match}", content=rows, headers=CSV)
        is_over.set()
        others = set().union(*(future.result() for future in creating))
        assert (imported.status_code, imported.json()["created"]) == (200, ROWS)
        (entry,) = client.get("/imports").json()
        undone = client.post(f"/imports/{entry['id']}/undo")
        assert (undone.status_code, undone.json()["deleted"]) == (200, ROWS)
        left = client.get("/students/export?format=csv").text.splitlines()[1:]
        assert {int(line.partition(",")[0]) for line in left} == others
