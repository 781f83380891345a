"""The service killed, again and again, while it writes: what it acknowledged is there, and nothing else."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.conftest import Rows
from tests.faults.ledger import STUDENTS, Ledger, Verdict, Wire, writing
from tests.service import Service

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("KILLS", "100"))
"""Kills of the service on each database."""
CHUNKS = min(10, KILLS)
"""Tests that share them, so that every core has some."""
WRITERS = 32


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_acknowledged_write_is_lost_however_often_the_service_is_killed(  # noqa: PLR0913, PLR0917  fixtures and a table of cases
    chunk: int,
    database_url: str,
    query: Callable[..., Rows],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    assert_database_is_sound: Callable[[], None],
) -> None:
    """A 2xx on a write means that COMMIT has succeeded; a retry under an Idempotency-Key never makes a second row.

    Each kill comes at a random moment of the load. One chunk in five has two workers.
    """
    kills = len(range(chunk, KILLS, CHUNKS))
    ledger, verdict = Ledger(), Verdict()
    workers = 2 if chunk % 5 == 4 else 1
    with Service(tmp_path, DATABASE_URL=database_url, LOG_LEVEL="warning", WORKERS=workers) as service:
        for kill in range(kills):
            with writing(ledger, service.port, WRITERS, f"kill {kill} writer"):
                ledger.wait_for("acknowledged", random.randint(1, 250))
                service.stop(SIGKILL)
            service.start()
            with Wire(service.port) as wire:
                ledger.repeat_unanswered(wire)
            verdict = ledger.compare(query(STUDENTS))
            if verdict != Verdict():
                break
        service.stop(SIGKILL)
    totals = {
        "kills": kills,
        **{what: ledger.count[what] for what in ("acknowledged", "unknown", "refused")},
        "lost": len(verdict.lost),
        "wrongly reported": len(verdict.wrong),
    }
    record_property(f"total: kills of the service on {database_url.partition(':')[0]}", totals)
    assert verdict == Verdict()
    assert_database_is_sound()
    assert "Traceback" not in service.log()
