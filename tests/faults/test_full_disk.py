"""A disk that is full: writes are refused, reads go on, nothing is damaged, and it works again when there is room."""

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.conftest import query_sqlite
from tests.faults.ledger import STUDENTS, Ledger, Wire, make_state
from tests.service import Service

pytestmark = pytest.mark.faults


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte; where it cannot be had its tests are skipped, but never where CI is set."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        reason = f"a small disk needs the right to mount: {mounted.stderr.strip()}"
        assert "CI" not in os.environ, reason
        pytest.skip(reason)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Leave no room; return the file that takes it."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return ballast


@pytest.mark.parametrize("end", [None, SIGKILL], ids=["served on", "killed while it is full"])
def test_a_full_disk_refuses_writes_keeps_reads_and_damages_nothing(
    small_disk: Path, tmp_path: Path, end: object, record_property: Callable[[str, object], None]
) -> None:
    path = small_disk / "students.db"
    ledger, chance = Ledger(), random.Random(0)

    def assert_nothing_is_lost() -> None:
        assert query_sqlite(path, "PRAGMA integrity_check") == [("ok",)]
        ledger.check(query_sqlite(path, STUDENTS))

    with Service(tmp_path, DATABASE_URL=f"sqlite:///{path}", LOG_LEVEL="warning") as service:
        with Wire(service.port) as wire:
            for number in range(20):
                response = ledger.create(wire, f"early {number}", make_state(chance))
                assert response is not None
                assert response.status == 201
            for attempt in range(3):
                ballast = fill(small_disk)
                # the log has some room of its own left, in pages that SQLite took earlier
                number = 0
                while not ledger.unanswered:
                    number += 1
                    ledger.create(wire, f"full {attempt} {number}", make_state(chance), key=True)
                    assert number < 10_000
                for _ in range(3):
                    refused = [
                        ledger.create(wire, f"refused {attempt}", make_state(chance)),
                        ledger.update(wire, f"early {attempt}", make_state(chance)),
                        ledger.delete(wire, f"early {attempt + 10}"),
                    ]
                    for response in refused:
                        assert response is not None
                        response.assert_is_outage()
                    assert wire.ask("GET", "/student/1").json()["name"] == "early 0"
                    assert len(wire.ask("GET", "/students?limit=20").json()) == 20
                    assert wire.ask("GET", "/health/ready").status == 200
                ballast.unlink()
                for response in (
                    ledger.update(wire, f"early {attempt}", make_state(chance)),
                    ledger.delete(wire, f"early {attempt + 10}"),
                    ledger.create(wire, f"early {attempt + 10}", make_state(chance)),
                ):
                    assert response is not None
                    assert response.status in {200, 201}
                ledger.repeat_unanswered(wire)
                assert_nothing_is_lost()
            fill(small_disk)
            for number in range(200):
                ledger.create(wire, f"last {number}", make_state(chance))
            assert ledger.count["503"] > 10
        if end is not None:
            service.stop(SIGKILL)
            ballast.unlink()
            service.start()
        else:
            ballast.unlink()
        with Wire(service.port) as wire:
            response = ledger.create(wire, "late", make_state(chance))
            assert response is not None
            assert response.status == 201
        assert_nothing_is_lost()
        assert service.stop() != 1
    assert_nothing_is_lost()
    assert "Traceback" not in service.log()
    record_property("total: full disk", {what: ledger.count[what] for what in ("acknowledged", "refused", "unknown")})
