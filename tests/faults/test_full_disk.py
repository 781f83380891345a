"""A disk that is full: writes are refused, reads go on, nothing is damaged, and it works again when there is room."""

import random
import shutil
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from litestar_app.exceptions import ResourceError
from litestar_app.resources import TEMPORARY
from tests.conftest import query_sqlite
from tests.faults.ledger import STUDENTS, Ledger, assert_is_problem, make_state, wait_until
from tests.service import ANANYA, UNAVAILABLE, Service

pytestmark = pytest.mark.faults


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


@pytest.mark.parametrize("small_disk", ["4m"], indirect=True)  # where there is room to start, once the ballast is gone
@pytest.mark.parametrize("is_killed", [False, True], ids=["served on", "killed while it is full"])
@pytest.mark.parametrize("workers", [1, 2], ids=["1 worker", "2 workers"])
def test_full_disk_rejects_writes_and_damages_nothing(
    small_disk: Path, tmp_path: Path, is_killed: bool, workers: int
) -> None:
    """Which has the temporary directory too."""
    path = small_disk / "students.db"
    variables: dict[str, Any] = {"DATABASE_URL": f"sqlite:///{path}", "TMPDIR": small_disk, "WORKERS": workers}
    ledger, chance = Ledger(), random.Random(0)
    with Service(tmp_path, LOG_LEVEL="warning", **variables) as service:
        for number in range(20):
            ledger.create(service.client, f"early {number}", make_state(chance))
        for attempt in range(3):
            ballast = fill(small_disk)
            # the log has some room of its own left, in pages that SQLite took earlier
            for number in range(10_000):
                ledger.create(service.client, f"full {attempt} {number}", make_state(chance), key=True)
                if ledger.unanswered:
                    break
            for response in (
                ledger.create(service.client, f"refused {attempt}", make_state(chance)),
                ledger.update(service.client, f"early {attempt}", make_state(chance)),
                ledger.delete(service.client, f"early {attempt + 10}"),
            ):
                assert response is not None
                assert_is_problem(response, 503, UNAVAILABLE)
            assert len(service.client.get("/students?limit=20").json()) == 20
            assert service.client.get("/health/ready").status_code == 200
            assert service.client.get("/metrics").status_code == 200
            if is_killed:
                service.stop(SIGKILL)
            ballast.unlink()
            if is_killed:
                service.start()
            for response in (
                ledger.update(service.client, f"early {attempt}", make_state(chance)),
                ledger.delete(service.client, f"early {attempt + 10}"),
                ledger.create(service.client, f"early {attempt + 10}", make_state(chance)),
            ):
                assert response is not None
                assert response.is_success
            ledger.retry_unanswered(service.client)
            assert query_sqlite(path, "PRAGMA integrity_check") == [("ok",)]
            ledger.check(query_sqlite(path, STUDENTS))
        service.stop()
    ledger.check(query_sqlite(path, STUDENTS))
    assert "Traceback" not in service.log()


NO_ROOM = {UNAVAILABLE, str(ResourceError(TEMPORARY))}
"""Details; of what SQLite itself has no room for, nobody knows on which disk."""


def try_all(service: Service) -> dict[str, int]:
    """Try requests of every kind; return the statuses of those that may need temporary files."""
    client, responses = service.client, {}
    for name, rows in (("small import", 100), ("import", 5000), ("large import", 50_000)):
        content = b"name,department,cgpa\n" + b"".join(b"Student %d,Physics,8.9\n" % number for number in range(rows))
        headers = {"Content-Type": "text/csv"}
        path = "/students/import?dry_run=true&match=name,department"
        responses[name] = client.post(path, content=content, headers=headers)
    responses["workbook"] = client.get("/students/export?format=xlsx")
    for response in responses.values():
        if response.status_code != 200:
            assert response.json()["detail"] in NO_ROOM
            assert_is_problem(response, 503, response.json()["detail"])
    assert client.post("/student", json=ANANYA).status_code == 201
    for path in ("/students", "/students/export", "/health/ready", "/metrics", "/docs", "/departments.svg"):
        assert client.get(path).status_code == 200
    return {name: response.status_code for name, response in responses.items()}


@pytest.mark.parametrize("workers", [1, 2], ids=["1 worker", "2 workers"])
@pytest.mark.parametrize("small_disk", ["8m"], indirect=True)
def test_temporary_directory_is_needed_for_large_files_only(small_disk: Path, tmp_path: Path, workers: int) -> None:
    """And the response says so where it is full or was removed."""
    place, url = small_disk / "tmp", f"sqlite:///{tmp_path}/students.db"
    place.mkdir()
    used = shutil.disk_usage(small_disk).used
    working = {"small import": 200, "import": 200, "large import": 200, "workbook": 200}
    with Service(tmp_path, DATABASE_URL=url, TMPDIR=place, WORKERS=workers) as service:
        wait_until(lambda: service.log().count("startup complete") == workers, "all workers")
        assert try_all(service) == working
        wait_until(lambda: shutil.disk_usage(small_disk).used <= used, "temporary files that are all closed")
        ballast = fill(small_disk)
        for _ in range(4):
            statuses = try_all(service)
            assert statuses["small import"] == 200
            if workers == 1:  # another one may look for its directory only now, and take the next one
                assert statuses == {"small import": 200, "import": 503, "large import": 503, "workbook": 503}
        ballast.unlink()
        place.rmdir()
        for _ in range(4):
            statuses = try_all(service)
            assert (statuses["small import"], statuses["import"]) == (200, 200)  # SQLite takes the next one
            if workers == 1:
                assert (statuses["large import"], statuses["workbook"]) == (503, 503)
        place.mkdir()
        assert try_all(service) == working
        assert "Traceback" not in service.log()
