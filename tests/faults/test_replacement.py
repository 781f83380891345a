"""The SQLite file replaced under load, while another program uses the new one."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import query_sqlite
from tests.faults.ledger import STUDENTS, Ledger, wait_until, writing
from tests.service import Service

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("workers", [1, 2])
def test_replacement_under_load_loses_nothing(tmp_path: Path, sqlite_path: Path, sqlite_url: str, workers: int) -> None:
    """Each acknowledged write is in the file that was moved, and what another program has written in the new one."""
    ledger, moved, other = Ledger(), tmp_path / "moved.db", tmp_path / "other.db"
    query_sqlite(other, "PRAGMA journal_mode=WAL")
    query_sqlite(other, "CREATE TABLE theirs (x)")
    with Service(tmp_path, DATABASE_URL=sqlite_url, WORKERS=workers) as service:
        wait_until(lambda: service.log().count("startup complete") >= workers, "the start of each worker")
        with writing(ledger, service, 16, "writer"):
            ledger.wait_for("acknowledged", 300)
            with service.client.stream("GET", "/students/export"):  # a snapshot, perhaps
                sqlite_path.rename(moved)
                other.rename(sqlite_path)
                wait_until(lambda: service.log().count("was moved, replaced") == workers, "the notice of each worker")
                for number in range(50):
                    with closing(sqlite3.connect(sqlite_path)) as connection, connection:
                        connection.execute("INSERT INTO theirs VALUES (?)", [number])
            ledger.wait_for("503", 30)
        service.stop()
    ledger.check(query_sqlite(moved, STUDENTS))
    assert query_sqlite(sqlite_path, "SELECT count(*) FROM theirs") == [(50,)]
    for path in (moved, sqlite_path):
        assert query_sqlite(path, "PRAGMA integrity_check") == [("ok",)]
    assert "Traceback" not in service.log()
