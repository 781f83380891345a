"""What Prometheus reads: valid text, the sums of all workers, bounded labels, and what each of the counters counts."""

import contextlib
import multiprocessing
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from litestar_app import metrics
from litestar_app.database.limits import SCANNERS, THREADS, TRANSFERS, Timeouts
from litestar_app.exceptions import RetryTransactionError
from litestar_app.http.access_log import note_unparsed
from litestar_app.memory import SharedMemory
from litestar_app.metrics import METERS, create_shared_memory
from tests.conftest import Rows
from tests.database import break_writes, prepare, run
from tests.service import ANANYA, Service, kill_one_worker, serve_database

DASHBOARD = Path(__file__).parents[1] / "docs/deploy/grafana.json"
CSV = {"Content-Type": "text/csv"}
Samples = dict[tuple[str, ...], float]


def read_metrics(client: httpx.Client) -> Samples:
    """Return every sample under its name and the values of its labels, in the order of their names."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples: Samples = {}
    for family in text_string_to_metric_families(response.text):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, *(value for _, value in sorted(sample.labels.items())))
            assert key not in samples
            samples[key] = sample.value
    return samples


def changes(client: httpx.Client, act: Callable[[], Any]) -> Samples:
    """Return what has changed when something has been done; in a process of tests, not all counters begin at 0."""
    before = read_metrics(client)
    act()
    return {key: value - before.get(key, 0) for key, value in read_metrics(client).items() if value != before.get(key)}


def test_requests_are_counted_by_route_and_not_by_path(idle_client: httpx.Client) -> None:
    def act() -> None:
        for number in range(20):
            idle_client.get(f"/student/a{number}")
            idle_client.get(f"/nothing/{number}")
            idle_client.request("PATCH", f"/nothing/{number}")
        note_unparsed(431, None)

    seen = {key[1:]: count for key, count in changes(idle_client, act).items() if key[0] == "http_requests_total"}
    assert seen == {
        ("GET", "/student/{student_id}", "404"): 20,
        ("GET", "unmatched", "404"): 20,
        ("PATCH", "unmatched", "404"): 20,
        ("_OTHER", "unmatched", "431"): 1,
        ("GET", "/metrics", "200"): 1,
    }


def test_durations_are_a_histogram(idle_client: httpx.Client) -> None:
    seen = changes(idle_client, lambda: [idle_client.get("/health/live") for _ in range(5)])
    live = ("GET", "/health/live")
    assert seen["http_request_duration_seconds_count", *live] == 5
    assert seen["http_request_duration_seconds_bucket", "60.0", *live] == 5
    assert 0 < seen["http_request_duration_seconds_sum", *live] < 300


def test_threads_are_counted_by_kind(database_url: str, idle_client: httpx.Client) -> None:
    writers = 1 if database_url.startswith("sqlite") else THREADS
    transfers = {"export": TRANSFERS, "import": TRANSFERS}
    kinds = {"reader": THREADS, "scanner": SCANNERS, **transfers, "ping": 1, "writer": writers}
    if not database_url.startswith("sqlite"):
        kinds["merge"] = TRANSFERS
    before = read_metrics(idle_client)
    with serve_database(database_url) as client:
        seen = read_metrics(client)
        assert {kind: seen["database_threads", kind] - before["database_threads", kind] for kind in kinds} == kinds
    assert {kind: read_metrics(idle_client)["database_threads", kind] for kind in kinds} == {
        kind: before["database_threads", kind] for kind in kinds
    }


def test_lock_is_counted_as_contention(database_url: str, locked: Callable[[], Any]) -> None:
    with serve_database(database_url, Timeouts(lock=0.2)) as client:
        client.post("/student", json=ANANYA)
        with locked():
            seen = changes(client, lambda: client.delete("/student/1"))
        assert seen["database_errors_total", "contention"] == 1


def test_waiting_and_busy_writes_are_seen(tmp_path: Path, sqlite_path: Path) -> None:
    """Of one process with one writer: one write waits for the lock, and others wait for it."""
    with Service(tmp_path, DATABASE_URL=f"sqlite:///{sqlite_path}") as service, ThreadPoolExecutor(6) as pool:
        with contextlib.closing(sqlite3.connect(sqlite_path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            writes = [pool.submit(service.client.post, "/student", json=ANANYA)]
            while read_metrics(service.client)["database_threads_busy", "writer"] < 1:  # of two, it might take both
                time.sleep(0.01)
            writes += [pool.submit(service.client.post, "/student", json=ANANYA) for _ in range(4)]
            while (seen := read_metrics(service.client))["database_work_waiting", "writer"] < 4:
                time.sleep(0.01)
            assert seen["database_threads_busy", "writer"] == 1
        assert {write.result().status_code for write in writes} == {201}
        seen = read_metrics(service.client)
        assert (seen["database_work_waiting", "writer"], seen["database_threads_busy", "writer"]) == (0, 0)


def test_database_errors_are_counted_by_their_failure(
    client: httpx.Client, query: Callable[..., Rows], database_url: str
) -> None:
    client.post("/student", json=ANANYA)
    query("CREATE UNIQUE INDEX one_name ON students (name)")
    assert changes(client, lambda: client.post("/student", json=ANANYA))["database_errors_total", "constraint"] == 1
    break_writes(query, database_url)
    assert changes(client, lambda: client.post("/student", json=ANANYA))["database_errors_total", "defect"] == 1
    query("DROP TABLE students")
    assert changes(client, lambda: client.get("/student/1"))["database_errors_total", "refused"] == 1


FILE = b"id,name,department,cgpa\r\n1,Ananya,CSE,9\r\n,Boris,ECE,7\r\n,,,x\r\n"
IMPORTS: dict[str, Samples] = {
    "mode=valid": {
        ("imports_total", "written"): 1,
        ("import_rows_total", "created"): 1,
        ("import_rows_total", "updated"): 1,
        ("import_rows_total", "rejected"): 1,
    },
    "mode=all": {("imports_total", "rejected"): 1, ("import_rows_total", "rejected"): 1},
    "mode=valid&dry_run=true": {},
}


@pytest.mark.parametrize("options", IMPORTS)
def test_imports_and_their_rows_are_counted(client: httpx.Client, options: str) -> None:
    client.post("/student", json=ANANYA)
    seen = changes(client, lambda: client.post(f"/students/import?{options}", content=FILE, headers=CSV))
    assert {key: count for key, count in seen.items() if key[0].startswith("import")} == IMPORTS[options]


def test_repeated_import_is_counted_once(client: httpx.Client) -> None:
    def act() -> None:
        for _ in range(2):
            client.post("/students/import?mode=valid", content=FILE, headers={**CSV, "Idempotency-Key": "7"})

    assert changes(client, act)["imports_total", "written"] == 1


def test_transactions_that_run_again_are_counted(database_url: str, idle_client: httpx.Client) -> None:
    failures = [RetryTransactionError()] * 3

    def work(_session: object) -> None:
        if failures:
            raise failures.pop()

    def act() -> None:
        with prepare(database_url) as alchemy:
            run(alchemy, lambda database: database.write(work))

    assert changes(idle_client, act)["database_retries_total",] == 3


def test_workers_are_summed_also_those_that_died(tmp_path: Path) -> None:
    """Counters never go back; what a killed worker was doing is dropped."""
    with Service(tmp_path, WORKERS=2) as service:
        while service.log().count("startup complete") < 2:
            time.sleep(0.01)
        create = [service.client.post("/student", json=ANANYA).status_code for _ in range(40)]
        assert create == [201] * 40
        created = ("http_requests_total", "POST", "/student", "201")
        while (seen := read_metrics(service.client))[created] != 40:
            time.sleep(0.01)
        assert seen[created] == seen["http_request_duration_seconds_count", "POST", "/student"] == 40
        assert seen["database_threads", "writer"] == 2
        assert seen["process_resident_memory_bytes",] > 2 * 40 * 2**20
        time.sleep(1.5)  # in which the supervisor has seen that all have started
        kill_one_worker(service)
        while service.log().count("startup complete") < 3:
            time.sleep(0.01)
        assert service.client.post("/student", json=ANANYA).status_code == 201
        while read_metrics(service.client)[created] != 41:  # a request is counted when its response has been sent
            time.sleep(0.01)
        assert {read_metrics(service.client)[created] for _ in range(10)} == {41}
        assert read_metrics(service.client)["database_threads", "writer"] == 2


@pytest.mark.parametrize("small_disk", ["256k"], indirect=True)
def test_workers_need_no_temporary_directory(small_disk: Path, tmp_path: Path) -> None:
    """One that is full and then removed changes nothing: not for requests, not for metrics, not for a new worker."""
    place = small_disk / "tmp"
    place.mkdir()
    with Service(tmp_path, WORKERS=2, TMPDIR=place, DATABASE_URL=f"sqlite:///{tmp_path}/students.db") as service:
        while service.log().count("startup complete") < 2:
            time.sleep(0.01)
        with contextlib.suppress(OSError), (small_disk / "ballast").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        shutil.rmtree(place)
        for starts in (2, 3, 4):
            while service.log().count("startup complete") < starts:
                time.sleep(0.01)
            for method in ("GET", "HEAD", "OPTIONS", "PATCH", "PUT", "DELETE"):  # each of them counts something new
                for path in (f"/nothing/{starts}", "/student/7", "/students", "/health/ready", "/docs"):
                    assert service.client.request(method, path).status_code < 500
            counted = read_metrics(service.client)["http_requests_total", "PUT", "unmatched", "404"]
            assert 1 <= counted <= starts - 1
            kill_one_worker(service)
        assert "Traceback" not in service.log()


def count_in_memory(counts: SharedMemory, connection: Connection) -> None:
    """Count something new and what others count too, then wait for the end."""
    METERS.share(counts)
    metrics.REQUESTS.labels("GET", f"/{os.getpid()}", 200).inc()
    metrics.RETRIES.inc(2)
    metrics.BUSY.labels("test").inc()
    metrics.DURATIONS.labels("GET", "/").observe(0.3)
    connection.send(metrics.render())
    connection.recv()


def test_counts_of_processes_outlive_them_and_what_they_did_does_not() -> None:
    """More processes in turn than there are places: each takes one that is free, and counts on there."""
    counts = create_shared_memory(1)
    spawn = multiprocessing.get_context("spawn")
    for number in range(1, 6):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=count_in_memory, args=(counts, theirs))
        process.start()
        samples = [
            sample for family in text_string_to_metric_families(ours.recv().decode()) for sample in family.samples
        ]
        seen = {sample.name: sample.value for sample in samples if sample.labels.get("kind", "test") == "test"}
        assert seen["database_retries_total"] == 2 * number
        assert seen["database_threads_busy"] == 1
        assert seen["http_request_duration_seconds_count"] == number
        assert seen["http_request_duration_seconds_sum"] == pytest.approx(0.3 * number)
        process.kill()
        process.join()


def test_process_counts_on_where_there_is_no_place() -> None:
    place = metrics.Place(memoryview(bytearray(64 * 1024)))
    meter = metrics.Meter(CounterMetricFamily, "test", "A test.", ["number"])
    meter.move(place, {})
    for number in range(3000):
        meter.labels(number).inc()
        meter.labels(number).inc()
    assert 0 < len([*place.read()]) < 3000
    assert [sample.value for sample in meter.sum([]).samples] == [2] * 3000


def test_dashboard_asks_for_metrics_that_exist(idle_client: httpx.Client) -> None:
    dashboard = msgspec.json.decode(DASHBOARD.read_bytes())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    named = {name for query in queries for name in re.findall(r"\b([a-z]+(?:_[a-z]+)+)(?=[{\[)]| |$)", query)}
    known = {key[0] for key in read_metrics(idle_client)}
    assert len(queries) > 8
    assert named - known - {"histogram_quantile"} == set()
