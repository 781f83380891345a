"""A Galera cluster of three nodes whose nodes die, freeze and are cut off: nothing is lost, and writes go on."""

import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.faults.ledger import AMISS, ENTRIES, STUDENTS, Ledger, wait_until, writing
from tests.galera import MISSING, Cluster, Node, connect_namespaces, is_galera_installed, run_cluster, wait_until_synced
from tests.service import Service

pytestmark = pytest.mark.faults

WRITERS = 16
"""On each of two services."""


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    if not is_galera_installed():
        assert "CI" not in os.environ, MISSING
        pytest.skip(MISSING)
    with connect_namespaces(3) as places, run_cluster(3, places) as cluster:
        yield cluster


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """All three nodes, which are there again at the end."""
    yield running_cluster
    running_cluster.heal()


@pytest.fixture
def name(cluster: Cluster) -> str:
    """The name of an empty database."""
    name = f"test_{uuid.uuid4().hex}"
    cluster.nodes[0].create_database(name)
    return name


@pytest.fixture
def services(cluster: Cluster, name: str, tmp_path: Path) -> Iterator[list[Service]]:
    """Two, of two workers each."""
    with ExitStack() as stack:
        services = []
        for number in (1, 2):
            place = tmp_path / str(number)
            place.mkdir()
            service = Service(place, DATABASE_URL=cluster.url(name), LOG_LEVEL="warning", WORKERS=2)
            services.append(stack.enter_context(service))
        yield services


def check(ledger: Ledger, cluster: Cluster, services: list[Service], name: str) -> None:
    """See that every node has what the writers were told, and the history an entry for each change."""
    ledger.retry_unanswered(services[0].client)
    for node in cluster.nodes:
        ledger.check(node.read(STUDENTS, name))
        ledger.check_history(node.read(ENTRIES, name))
        assert node.read(AMISS, name) == []
    for service in services:
        assert ": 500: " not in service.log()
        assert "Traceback" not in service.log()


def report(ledger: Ledger, what: str, moments: dict[str, float]) -> None:
    """Print how long writes stopped after each moment, what came of them, and how long they took."""
    marks = [*moments.items(), ("end", float("inf"))]
    for (label, begin), (_, end) in zip(marks, marks[1:], strict=False):
        part = sorted(entry for entry in ledger.log if begin <= entry[0] < end)
        if not part:
            print(f"{what}: {label}: nothing")
            continue
        good = [entry[0] for entry in part if entry[2] == "acknowledged"]
        edges = [begin, *good]
        gap = max(later - earlier for earlier, later in zip(edges, edges[1:], strict=False)) if good else -1.0
        seconds = sorted(entry[1] for entry in part if entry[2] == "acknowledged")
        p99 = seconds[int(len(seconds) * 0.99)] if seconds else -1.0
        outcomes = dict(Counter(entry[2] for entry in part))
        print(f"{what}: {label}: longest stop {gap:.1f} s, {outcomes}, p99 {p99 * 1000:.0f} ms, "
              f"{len(good) / (part[-1][0] - begin + 0.001):.0f}/s")  # fmt: skip


def kill(node: Node) -> None:
    node.stop(SIGKILL)


def isolate(node: Node) -> None:
    node.isolate(on=True)


def rejoin(node: Node) -> None:
    node.isolate(on=False)


FAULTS: dict[str, tuple[Callable[[Node], None], Callable[[Node], None], float]] = {
    "killed": (kill, Node.start, 5),
    "frozen": (Node.pause, Node.resume, 15),
    "isolated": (isolate, rejoin, 15),
    "unplugged": (Node.unplug, Node.plug_in, 15),
}
"""What is done to a node, how that is ended, and seconds for which writes may stop."""


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_node_that_fails_loses_no_acknowledged_write(
    fault: str, number: int, cluster: Cluster, services: list[Service], name: str
) -> None:
    """Writes go on without it, and with it again when it is back."""
    ledger, node = Ledger(), cluster.nodes[number]
    begin, end, stop = FAULTS[fault]
    if fault == "unplugged" and not node.namespace:
        pytest.skip("network namespaces need the right to make them")
    others = [other for other in cluster.nodes if other is not node]
    moments = {"before": time.monotonic()}
    with writing(ledger, services[0], WRITERS, "first"), writing(ledger, services[1], WRITERS, "second"):
        ledger.wait_for("acknowledged", 500)
        moments["without it"] = time.monotonic()
        begin(node)
        ledger.wait_for("acknowledged", 500)
        wait_until_synced(others[0], 2)
        ledger.wait_for("acknowledged", 500)
        moments["back"] = time.monotonic()
        end(node)
        wait_until_synced(others[0], 3)  # first: one that was frozen does not know yet that it has left
        wait_until_synced(node, 3)
        time.sleep(7)  # in which a preferred node takes over again
        ledger.wait_for("acknowledged", 500)
    report(ledger, f"node {number + 1} {fault}", moments)
    check(ledger, cluster, services, name)
    import re

    for service in services:
        for line, count in Counter(
            re.sub(r"^\S+|127.0.0.1:\d+|student/\d+", "", l) for l in service.log().splitlines()
        ).items():
            print(count, line[:300])
