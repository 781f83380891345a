"""The service killed, again and again, while it writes: what it acknowledged is there, and nothing else."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.conftest import Rows
from tests.faults.ledger import AMISS, STUDENTS, Ledger, writing
from tests.service import Service, kill_one_worker

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("KILLS", "100"))
"""Kills of the service on each database."""
CHUNKS = min(10, KILLS)
"""Tests that share them, so that every core has some."""


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_kills_lose_no_acknowledged_write(
    chunk: int, database_url: str, query: Callable[..., Rows], tmp_path: Path
) -> None:
    """A 2xx on a write means that COMMIT has succeeded; a retry under an Idempotency-Key never makes a second row.

    The history has the newest entry of each. Each kill comes at a random moment of the load. One chunk in five has two
    workers.
    """
    ledger, workers = Ledger(), 2 if chunk % 5 == 4 else 1
    with Service(tmp_path, DATABASE_URL=database_url, LOG_LEVEL="warning", WORKERS=workers) as service:
        for kill in range(chunk, KILLS, CHUNKS):
            with writing(ledger, service, 32, f"kill {kill} writer"):
                ledger.wait_for("acknowledged", random.randint(1, 250))
                service.stop(SIGKILL)
            service.start()
            ledger.retry_unanswered(service.client)
            ledger.check(query(STUDENTS))
            assert query(AMISS) == []
    if database_url.startswith("sqlite"):
        assert query("PRAGMA integrity_check") == [("ok",)]
    else:
        assert query("CHECK TABLE students EXTENDED")[-1][2:] == ("status", "OK")
    assert "Traceback" not in service.log()


def test_kills_of_one_worker_lose_no_acknowledged_write(
    database_url: str, query: Callable[..., Rows], tmp_path: Path
) -> None:
    """The other one goes on meanwhile; each that is killed is replaced, even before it has started."""
    ledger = Ledger()
    with Service(tmp_path, DATABASE_URL=database_url, LOG_LEVEL="warning", WORKERS=2) as service:
        for kill in range(max(3, KILLS // 10)):
            with writing(ledger, service, 32, f"kill {kill} writer"):
                ledger.wait_for("acknowledged", random.randint(1, 250))
                kill_one_worker(service)
                ledger.wait_for("acknowledged", random.randint(1, 250))
        ledger.retry_unanswered(service.client)
        ledger.check(query(STUDENTS))
        assert query(AMISS) == []
        assert service.stop() == 0
    assert "Traceback" not in service.log()
