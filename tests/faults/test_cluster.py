"""A Galera cluster of three nodes whose nodes die, freeze and are cut off: nothing is lost, and writes go on.

CI runs the first two tests. `just faults -n 0 -m cluster -s` runs the others, ten minutes, and shows their figures.
"""

import itertools
import os
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.faults.ledger import AMISS, ENTRIES, STUDENTS, Ledger, assert_is_problem, wait_until, writing
from tests.galera import (
    MISSING,
    Cluster,
    Node,
    connect_namespaces,
    is_galera_installed,
    run_cluster,
    wait_until_synced,
)
from tests.mariadb import find_binary, free_port
from tests.service import ANANYA, UNAVAILABLE, Service, connect

pytestmark = pytest.mark.faults

WRITERS = 16
"""On each of two services."""
SETTLED = 8.0
"""Seconds after which a preferred node that is back has taken over again."""


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    """A cluster in network namespaces, where they can be had, so that a node can be unplugged."""
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
def serve(tmp_path: Path) -> Iterator[Callable[[str], Service]]:
    """Serve a database with two workers, from a directory of its own."""
    with ExitStack() as stack:

        def serve(url: str) -> Service:
            place = tmp_path / uuid.uuid4().hex
            place.mkdir()
            return stack.enter_context(Service(place, DATABASE_URL=url, LOG_LEVEL="warning", WORKERS=2))

        yield serve


@pytest.fixture
def services(cluster: Cluster, name: str, serve: Callable[[str], Service]) -> list[Service]:
    """Two, which prefer the same node."""
    return [serve(cluster.url(name)) for _ in range(2)]


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


def report(ledger: Ledger, what: str, moments: dict[str, float]) -> float:
    """Print how long writes stopped after each moment, what came of them, and how long they took.

    Returns the longest stop, in seconds.
    """
    stops = [0.0]
    for (label, begin), (_, end) in itertools.pairwise([*moments.items(), ("end", float("inf"))]):
        part = sorted(entry for entry in ledger.log if begin <= entry[0] < end)
        good = [entry for entry in part if entry[2] == "acknowledged"]
        stops.append(max(later - earlier for earlier, later in itertools.pairwise([begin, *(e[0] for e in good)])))
        seconds = sorted(entry[1] for entry in good)
        print(  # noqa: T201  -s shows it
            f"{what}: {label}: {len(good) / (part[-1][0] - begin):.0f}/s, longest stop {stops[-1]:.1f} s, "
            f"p99 {seconds[int(len(seconds) * 0.99)] * 1000:.0f} ms, {dict(Counter(entry[2] for entry in part))}"
        )
    return max(stops)


def kill(node: Node) -> None:
    node.stop(SIGKILL)


def isolate(node: Node) -> None:
    node.isolate(on=True)


def rejoin(node: Node) -> None:
    node.isolate(on=False)


FAULTS: dict[str, tuple[Callable[[Node], None], Callable[[Node], None], float]] = {
    "killed": (kill, Node.start, 5),
    "frozen": (Node.pause, Node.resume, 15),
    "isolated": (isolate, rejoin, 15),  # from the other nodes: it responds, and is not ready
    "unplugged": (Node.unplug, Node.plug_in, 15),
}
"""What is done to a node, how that is ended, and the seconds for which writes may stop."""


def disturb(ledger: Ledger, cluster: Cluster, node: Node, fault: str) -> float:
    """Have a node fail and come back under load; return for how many seconds writes stopped."""
    begin, end, _ = FAULTS[fault]
    other = next(other for other in cluster.nodes if other is not node)
    moments = {"before": time.monotonic()}
    ledger.wait_for("acknowledged", 500)
    moments["without it"] = time.monotonic()
    begin(node)
    ledger.wait_for("acknowledged", 500)
    wait_until_synced(other, 2)
    ledger.wait_for("acknowledged", 500)
    moments["back"] = time.monotonic()
    end(node)
    wait_until_synced(other, 3)  # first: one that was frozen does not know yet that it has left
    wait_until_synced(node, 3)
    time.sleep(SETTLED)
    ledger.wait_for("acknowledged", 500)
    return report(ledger, f"node {cluster.nodes.index(node) + 1} {fault}", moments)


def test_nodes_that_die_or_are_not_ready_lose_no_write(cluster: Cluster, services: list[Service], name: str) -> None:
    """The short form of the next test."""
    ledger = Ledger()
    with writing(ledger, services[0], WRITERS, "first"), writing(ledger, services[1], WRITERS, "second"):
        for fault in ("killed", "isolated"):
            disturb(ledger, cluster, cluster.nodes[0], fault)
    check(ledger, cluster, services, name)
    for service in services:  # each worker went to the second node and back, twice
        assert service.log().count(f"The database host is now {cluster.nodes[1].host}:{cluster.nodes[1].port} (") == 4
        assert service.log().count(f"The database host is now {cluster.nodes[0].host}:{cluster.nodes[0].port}") == 4


def test_cluster_to_try_out() -> None:
    """`just cluster`, as docs/how-to/cluster.md shows it: the proxy goes on without a node."""
    if not is_galera_installed() or find_binary("haproxy") is None:
        assert "CI" not in os.environ, MISSING
        pytest.skip(MISSING)
    port = free_port()
    demo = subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.cluster"],
        env={**os.environ, "PORT": str(port)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert demo.stdin is not None
    assert demo.stdout is not None
    lines = iter(demo.stdout.readline, "")

    def show_state(members: int) -> bool:
        print("state", file=demo.stdin, flush=True)
        state = [*itertools.takewhile(lambda line: not line.startswith("proxy"), lines)]
        assert state[0].endswith("stopped\n") is (members == 2)
        return sum(f"ready, of {members} members" in line for line in state) == members

    with demo, connect(f"http://127.0.0.1:{port}", timeout=60) as client:
        for _ in itertools.takewhile(lambda line: not line.startswith("kill N"), lines):
            pass
        assert show_state(3)
        for command, members in (("kill 1", 2), ("start 1", 3)):
            print(command, file=demo.stdin)
            wait_until(partial(show_state, members), command)
            assert client.post("/student", json=ANANYA).status_code == 201
        demo.communicate("quit\n")
    assert demo.returncode == 0


@pytest.mark.cluster
@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_node_that_fails_loses_no_acknowledged_write(
    fault: str, number: int, cluster: Cluster, services: list[Service], name: str
) -> None:
    """Writes go on without it, and with it again when it is back."""
    ledger, node = Ledger(), cluster.nodes[number]
    if fault == "unplugged" and not node.namespace:
        pytest.skip("network namespaces need the right to make them")
    with writing(ledger, services[0], WRITERS, "first"), writing(ledger, services[1], WRITERS, "second"):
        stop = disturb(ledger, cluster, node, fault)
    check(ledger, cluster, services, name)
    assert stop < FAULTS[fault][2]


@pytest.mark.cluster
def test_node_that_rejects_queries_is_not_used(cluster: Cluster, name: str, serve: Callable[[str], Service]) -> None:
    """It says that it is ready, and responds to SHOW."""
    service, node = serve(cluster.url(name)), cluster.nodes[0]
    node.execute("SET GLOBAL wsrep_reject_queries = ALL")
    try:
        wait_until(lambda: service.client.post("/student", json=ANANYA).status_code == 201, "a write elsewhere")
        assert service.client.get("/health/ready").status_code == 200
    finally:
        node.execute("SET GLOBAL wsrep_reject_queries = NONE")


@pytest.mark.cluster
@pytest.mark.parametrize("count", [2, 3])
def test_cluster_without_a_majority_is_a_503(count: int, cluster: Cluster, services: list[Service], name: str) -> None:
    """A node that is left responds to pings, but is of no use; and the service goes on when the others are back."""
    ledger = Ledger()
    with writing(ledger, services[0], WRITERS, "first"), writing(ledger, services[1], WRITERS, "second"):
        moments = {"before": time.monotonic()}
        ledger.wait_for("acknowledged", 500)
        for node in cluster.nodes[3 - count :]:
            kill(node)
        ledger.wait_for("503", 100)
        for service in services:
            wait_until(lambda: service.client.get("/health/ready").status_code == 503, "not ready")  # noqa: B023
            assert service.client.get("/health/live").status_code == 200
            assert_is_problem(service.client.get("/health/ready"), 503, UNAVAILABLE)
            assert_is_problem(service.client.get("/students"), 503, UNAVAILABLE)
            assert_is_problem(service.client.post("/student", json=ANANYA), 503, UNAVAILABLE)
        moments["back"] = time.monotonic()
        cluster.heal()
        ledger.wait_for("acknowledged", 500)
        report(ledger, f"{count} nodes killed", moments)
        for service in services:
            assert service.client.get("/health/ready").status_code == 200
    check(ledger, cluster, services, name)


@pytest.mark.cluster
def test_conflicts_between_nodes_are_retried(cluster: Cluster, name: str, serve: Callable[[str], Service]) -> None:
    """Two nodes that change the same students: the certification of one fails at COMMIT, and it is run again."""
    services = [serve(cluster.url(name, first)) for first in (0, 1)]
    ids = [services[0].client.post("/student", json=ANANYA).json()["id"] for _ in range(3)]
    changes, numbers = 150, itertools.count()

    def change(service: Service) -> Counter[int]:
        statuses: Counter[int] = Counter()
        for _ in range(changes):
            body = {"cgpa": next(numbers) / 1000}  # as no other, so that each is a change
            statuses[service.client.patch(f"/student/{random.choice(ids)}", json=body).status_code] += 1
        return statuses

    with ThreadPoolExecutor(16) as pool:
        statuses = sum(pool.map(change, 8 * services), Counter[int]())
    retries = [
        line.split()[1]
        for service in services
        for line in service.client.get("/metrics").text.splitlines()
        if line.startswith("database_retries_total")
    ]
    print(f"conflicts: {dict(statuses)}, retries of the services {retries}")  # noqa: T201
    assert statuses == {200: 16 * changes}
    assert sum(map(float, retries)) > 0
    for node in cluster.nodes:
        assert node.read("SELECT COUNT(*) FROM history WHERE action = 'update'", name) == [(16 * changes,)]
        assert node.read(AMISS, name) == []


@pytest.mark.cluster
@pytest.mark.parametrize(("first", "sync_wait"), [(0, 0), (1, 0), (1, 1)])
def test_read_after_a_write_on_the_other_service(
    first: int, sync_wait: int, cluster: Cluster, name: str, serve: Callable[[str], Service]
) -> None:
    """It sees the write where both prefer the same node, or the nodes are told to wait: wsrep_sync_wait = 1."""
    for node in cluster.nodes:
        node.execute(f"SET GLOBAL wsrep_sync_wait = {sync_wait}")
    writer, reader = serve(cluster.url(name)), serve(cluster.url(name, first))
    missed, seconds = 0, []
    try:
        for _ in range(500):
            location = writer.client.post("/student", json=ANANYA).headers["Location"]
            began = time.monotonic()
            missed += reader.client.get(location).status_code == 404
            seconds.append(time.monotonic() - began)
    finally:
        for node in cluster.nodes:
            node.execute("SET GLOBAL wsrep_sync_wait = 0")
    seconds.sort()
    print(  # noqa: T201
        f"{'same' if first == 0 else 'other'} node, wsrep_sync_wait = {sync_wait}: {missed} of 500 reads missed the "
        f"write; median {seconds[250] * 1000:.2f} ms, p99 {seconds[495] * 1000:.2f} ms"
    )
    assert missed == 0 or (first, sync_wait) == (1, 0)
