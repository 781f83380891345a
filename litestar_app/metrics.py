"""Metrics: what is counted, under which names, and the text that Prometheus reads."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4"
"""Its charset is UTF-8."""
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable, of prometheus-client, that names the directory in which the workers of one service count."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each one, which nothing here asks for

REQUESTS = Counter("http_requests", "Requests, by the template of their route.", ["method", "route", "status"])
DURATIONS = Histogram(
    "http_request_duration_seconds",
    "From the header section of a request to the end of its response.",
    ["method", "route"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
THREADS = Gauge("database_threads", "Threads that work on the database.", ["kind"], multiprocess_mode="livesum")
BUSY = Gauge("database_threads_busy", "Those of them that work now.", ["kind"], multiprocess_mode="livesum")
WAITING = Gauge("database_work_waiting", "Work that waits for a thread.", ["kind"], multiprocess_mode="livesum")
ERRORS = Counter("database_errors", "What requests failed for in the database.", ["failure"])
RETRIES = Counter("database_retries", "Transactions that were run again: another one was in their way.")
IMPORTS = Counter("imports", "Imports, other than dry runs.", ["outcome"])
IMPORTED = Counter("import_rows", "Rows of imports that created or updated a student, or were rejected.", ["outcome"])

for outcome in ("written", "rejected"):
    IMPORTS.labels(outcome)  # so that each is there from the start, as 0
for outcome in ("created", "updated", "rejected"):
    IMPORTED.labels(outcome)


def render() -> bytes:
    """Return the metrics in the text format 0.0.4: of all workers where there are several, also of those that died."""
    if DIRECTORY not in os.environ:
        return generate_latest(REGISTRY)
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415  for several workers only

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(WorkerMemory())
    return generate_latest(registry)


class WorkerMemory(Collector):
    """What prometheus-client says of one process, for all workers together, where there is /proc."""

    def collect(self) -> Iterator[Metric]:
        """Weigh each worker that has not died."""
        resident = 0
        for path in Path(os.environ[DIRECTORY]).glob("gauge_live*.db"):
            with contextlib.suppress(OSError):
                pages = Path(f"/proc/{path.stem.rpartition('_')[2]}/statm").read_text("ascii").split()[1]
                resident += int(pages) * os.sysconf("SC_PAGE_SIZE")
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory size in bytes.", resident)


def forget_worker(pid: int | None) -> None:
    """Drop what a worker that has died was doing; what it has counted stays."""
    for path in Path(os.environ[DIRECTORY]).glob(f"gauge_live*_{pid}.db"):
        path.unlink(missing_ok=True)
