"""Metrics: what is counted, under which names, and the text that Prometheus reads.

The workers of a service count in memory that they share, each in a place of its own, and each of them can sum up all.
In words of 8 bytes, a place holds the id of its process, how many words are in use, and records: the length of a name,
how many numbers there are, the name, the numbers. A worker that takes the place of one that has died counts on there.
"""

import contextlib
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import TypeAlias

import msgspec
from prometheus_client import REGISTRY
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from litestar_app.memory import SharedMemory

CONTENT_TYPE = "text/plain; version=0.0.4"
"""Its charset is UTF-8."""
PLACE = 256 * 1024
"""Bytes of a place, many times what the routes of this service need."""
WORD = 8
"""Bytes of a word, which a number or a length takes."""
PID, USED, HEAD = 0, 1, 2
"""Where the two words before the records are, and how many there are."""
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, float("inf"))
"""Upper bounds of the durations, in seconds."""
Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
Labels: TypeAlias = tuple[str, ...]


class Place:
    """The records of one process."""

    def __init__(self, memory: memoryview) -> None:
        """Take memory that is all 0, or what another process has left."""
        self._bytes = memory
        self._words = memory.cast("Q")
        self.numbers = memory.cast("d")

    def get(self, at: int, count: int) -> list[float]:
        """Return the numbers of a record."""
        return list(self.numbers[at : at + count])

    @property
    def pid(self) -> int:
        """The id of the process that counts here, or did."""
        return self._words[PID]

    @pid.setter
    def pid(self, pid: int) -> None:
        self._words[PID] = pid

    def read(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield the name of each record, where its numbers are, and how many."""
        at, end = HEAD, min(self._words[USED], len(self._words) - HEAD)
        while at < end:
            size, count = self._words[at], self._words[at + 1]
            begin, at = at + HEAD, at + HEAD + -(-size // WORD)
            yield bytes(self._bytes[begin * WORD : begin * WORD + size]), at, count
            at += count

    def add(self, name: bytes, count: int) -> int | None:
        """Add a record of so many numbers and return where they are; None if there is no room."""
        at = self._words[USED] or HEAD
        begin, numbers = at + HEAD, at + HEAD + -(-len(name) // WORD)
        if numbers + count > len(self._words):
            return None
        self._words[at], self._words[at + 1] = len(name), count
        self._bytes[begin * WORD : begin * WORD + len(name)] = name
        self._words[USED] = numbers + count  # at last, so that no process reads half a record
        return numbers


class Series:
    """What is counted under one set of labels."""

    def __init__(self, name: bytes, count: int) -> None:
        self._name = name
        self._count = count
        self._numbers = memoryview(bytearray(count * WORD)).cast("d")
        self._at = 0
        self._lock = Lock()

    def move(self, place: Place, at: int | None) -> None:
        """Count on in a place: in the record at an index, or in a new one; without room for it, where it was."""
        with self._lock:
            at = at or place.add(self._name, self._count)
            if at is not None:
                for index in range(self._count):
                    place.numbers[at + index] += self._numbers[self._at + index]
                self._numbers, self._at = place.numbers, at

    def read(self) -> list[float]:
        """Return the numbers."""
        return list(self._numbers[self._at : self._at + self._count])

    def inc(self, amount: float = 1) -> None:
        """Add to a counter or a gauge."""
        with self._lock:
            self._numbers[self._at] += amount

    def dec(self, amount: float = 1) -> None:
        """Take off a gauge."""
        self.inc(-amount)

    def observe(self, seconds: float) -> None:
        """Count a duration in its bucket of a histogram, and add it to the sum, which is behind the buckets."""
        bucket = bisect_left(BUCKETS, seconds)
        with self._lock:
            self._numbers[self._at + bucket] += 1
            self._numbers[self._at + len(BUCKETS)] += seconds


class Meter:
    """A metric, and its series by their labels."""

    def __init__(self, family: type[Family], name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        """Take what prometheus-client makes of it."""
        self._family, self._name, self._documentation, self._labels = family, name, documentation, labels
        self.is_gauge = family is GaugeMetricFamily
        self.count = len(BUCKETS) + 1 if family is HistogramMetricFamily else 1
        self._series: dict[Labels, Series] = {}
        self._place: Place | None = None
        self._lock = Lock()

    def labels(self, *values: object) -> Series:
        """Return the series under these labels, which begins at 0."""
        labels = tuple(map(str, values))
        return self._series.get(labels) or self._add(labels)

    def _add(self, labels: Labels) -> Series:
        with self._lock:
            if labels not in self._series:
                series = Series(msgspec.json.encode([self._name, *labels]), self.count)
                if self._place is not None:
                    series.move(self._place, None)
                self._series[labels] = series
            return self._series[labels]

    def move(self, place: Place, records: dict[Labels, int]) -> None:
        """Count on in a place that has these records."""
        for labels, at in records.items():
            self._add(labels)
            if self.is_gauge:
                place.numbers[at] = 0  # what the process did that has died
        with self._lock:
            self._place = place
            for labels, series in self._series.items():
                series.move(place, records.get(labels))

    def sum(self, others: Iterable[tuple[Labels, list[float]]]) -> Family:
        """Sum up what this process and others have counted."""
        rows = {labels: series.read() for labels, series in self._series.copy().items()}
        for labels, numbers in others:
            rows[labels] = [a + b for a, b in zip(numbers, rows[labels], strict=True)] if labels in rows else numbers
        family = self._family(self._name, self._documentation, labels=self._labels)
        for labels, numbers in rows.items():
            if isinstance(family, HistogramMetricFamily):
                buckets = zip(map(floatToGoString, BUCKETS), accumulate(numbers[:-1]), strict=True)
                family.add_metric(labels, [*buckets], numbers[-1])
            else:
                family.add_metric(labels, numbers[0])
        return family


class Workers:
    """The places of all workers, of which this process has one while it lives."""

    def __init__(self, memory: SharedMemory) -> None:
        """Take a place that is free; without one, this process counts for itself."""
        self._memory = memory
        parts = memoryview(memory.memory)
        self._places = [Place(parts[start : start + PLACE]) for start in range(0, len(parts), PLACE)]
        self.own = next((place for number, place in enumerate(self._places) if self._lock(number)), None)
        if self.own is not None:
            self.own.pid = os.getpid()

    def read_others(self) -> Iterator[tuple[Place, bool]]:
        """Yield every other place, and whether the process lives that counts there."""
        for number, place in enumerate(self._places):
            if place is not self.own:
                yield place, not self._lock(number, for_long=False)

    def _lock(self, number: int, *, for_long: bool = True) -> bool:
        """Lock a place until this process ends, however it does, or only for a moment; false if another one has."""
        from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, lockf  # noqa: PLC0415  not on Windows

        try:
            lockf(self._memory.descriptor, (LOCK_EX if for_long else LOCK_SH) | LOCK_NB, 1, number)
        except OSError:
            return False
        if not for_long:
            lockf(self._memory.descriptor, LOCK_UN, 1, number)
        return True


class Meters(Collector):
    """All metrics of a service, of all of its workers."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}
        self._workers: Workers | None = None

    @property
    def is_shared(self) -> bool:
        """Tell whether there are several workers."""
        return self._workers is not None

    def make(self, family: type[Family], name: str, documentation: str, labels: Sequence[str] = ()) -> Meter:
        """Make a metric."""
        self._meters[name] = Meter(family, name, documentation, labels)
        return self._meters[name]

    def share(self, memory: SharedMemory) -> None:
        """Count in memory that all workers share."""
        self._workers = Workers(memory)
        if (place := self._workers.own) is not None:
            records = self._read(place)
            for name, meter in self._meters.items():
                meter.move(place, records[name])

    def collect(self) -> Iterator[Metric]:
        """Sum up each metric, and in several workers their memory, where there is /proc."""
        counted: dict[str, list[tuple[Labels, list[float]]]] = defaultdict(list)
        pids = [os.getpid()]
        for place, is_live in self._workers.read_others() if self._workers else ():
            pids += [place.pid] * is_live
            for name, records in self._read(place).items():
                if is_live or not self._meters[name].is_gauge:
                    counted[name] += [
                        (labels, place.get(at, self._meters[name].count)) for labels, at in records.items()
                    ]
        for name, meter in self._meters.items():
            yield meter.sum(counted[name])
        if self.is_shared:
            documentation = "Resident memory size in bytes."
            yield GaugeMetricFamily("process_resident_memory_bytes", documentation, sum(map(_weigh, pids)))

    def _read(self, place: Place) -> dict[str, dict[Labels, int]]:
        """Return where the numbers of each series are."""
        found: dict[str, dict[Labels, int]] = defaultdict(dict)
        for record, at, count in place.read():
            name, *labels = msgspec.json.decode(record, type=list[str])
            if name in self._meters and self._meters[name].count == count:
                found[name][tuple(labels)] = at
        return found


def _weigh(pid: int) -> int:
    """Return how many bytes of memory a process takes."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def create_shared_memory(workers: int) -> SharedMemory:
    """Make the memory for the counts of so many workers, and of those that replace them."""
    return SharedMemory(2 * workers * PLACE)


def render() -> bytes:
    """Return the metrics in the text format 0.0.4: of all workers where there are several, also of those that died."""
    return generate_latest(METERS) + (b"" if METERS.is_shared else generate_latest(REGISTRY))


METERS = Meters()
REQUESTS = METERS.make(
    CounterMetricFamily, "http_requests", "Requests, by the template of their route.", ["method", "route", "status"]
)
DURATIONS = METERS.make(
    HistogramMetricFamily,
    "http_request_duration_seconds",
    "From the header section of a request to the end of its response.",
    ["method", "route"],
)
THREADS = METERS.make(GaugeMetricFamily, "database_threads", "Threads that work on the database.", ["kind"])
BUSY = METERS.make(GaugeMetricFamily, "database_threads_busy", "Those of them that work now.", ["kind"])
WAITING = METERS.make(GaugeMetricFamily, "database_work_waiting", "Work that waits for a thread.", ["kind"])
ERRORS = METERS.make(CounterMetricFamily, "database_errors", "What requests failed for in the database.", ["failure"])
RETRIES = METERS.make(
    CounterMetricFamily, "database_retries", "Transactions that were run again: another one was in their way."
).labels()
IMPORTS = METERS.make(CounterMetricFamily, "imports", "Imports, other than dry runs.", ["outcome"])
IMPORTED = METERS.make(
    CounterMetricFamily,
    "import_rows",
    "Rows of imports that created or updated a student, or were rejected.",
    ["outcome"],
)

for outcome in ("written", "rejected"):
    IMPORTS.labels(outcome)  # so that each is there from the start, as 0
for outcome in ("created", "updated", "rejected"):
    IMPORTED.labels(outcome)
