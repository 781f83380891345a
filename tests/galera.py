"""A throwaway Galera cluster of three nodes, each of which can be killed, frozen and cut off."""

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pymysql

from tests.mariadb import MariaDB, free_port, is_installed

PROVIDER = next(
    (path for path in map(Path, ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so"))
     if path.exists()),
    None,
)  # fmt: skip
MISSING = "no Galera: install Debian's mariadb-server, galera-4 and rsync"
OPTIONS = {
    "evs.keepalive_period": "PT0.5S",
    "evs.suspect_timeout": "PT2S",
    "evs.inactive_timeout": "PT6S",
    "evs.inactive_check_period": "PT0.5S",
    "gcache.size": "32M",
}
"""A node that is gone is expelled after two seconds instead of five; docs/how-to/cluster.md recommends the same."""
USER = "mysql"
"""Who runs the nodes where the tests are root: the state transfer by rsync refuses to."""


def is_galera_installed() -> bool:
    return is_installed() and PROVIDER is not None and shutil.which("rsync") is not None


@dataclass
class Node(MariaDB):
    """A node of a cluster."""

    peers: list["Node"] = field(default_factory=list, repr=False)
    group_port: int = field(default_factory=free_port)
    transfer_ports: tuple[int, int] = field(default_factory=lambda: (free_port(), free_port()))
    namespace: str = ""
    """The network namespace that it runs in, and the name of the cable between that and this one; empty on loopback."""
    position: str = ""
    founds: bool = False
    """Whether the next start makes a new cluster of the data that this node has."""
    patience: ClassVar[float] = 90

    def start(self) -> None:
        """Start it and wait until it is a ready member; now and then Galera stops at a start, so there are three."""
        self.position = self.recover_position()
        for attempt in (1, 2, 3):
            try:
                super().start()
            except RuntimeError:
                self.stop(signal.SIGKILL)
                if attempt == 3:
                    raise
            else:
                self.founds = False
                return

    def command(self) -> list[str]:
        istransfer, sst = self.transfer_ports
        options = OPTIONS | {
            "gmcast.listen_addr": f"tcp://{self.host}:{self.group_port}",
            "ist.recv_addr": f"{self.host}:{istransfer}",
        }
        return [
            *(["ip", "netns", "exec", self.namespace] if self.namespace else []),
            *super().command(),
            "--skip-grant-tables",  # root may come from the other end of a cable too
            "--binlog-format=ROW", "--default-storage-engine=InnoDB", "--innodb-autoinc-lock-mode=2",
            "--wsrep-on=ON", f"--wsrep-provider={PROVIDER}", "--wsrep-cluster-name=students",
            f"--wsrep-cluster-address=gcomm://{','.join(f'{peer.host}:{peer.group_port}' for peer in self.peers)}",
            f"--wsrep-node-address={self.host}:{self.group_port}", f"--wsrep-node-name=node-{self.port}",
            "--wsrep-sst-method=rsync", f"--wsrep-sst-receive-address={self.host}:{sst}",
            f"--wsrep-provider-options={';'.join(f'{name}={value}' for name, value in options.items())}",
            *(["--wsrep-new-cluster"] if self.founds else []),
            *([f"--wsrep-start-position={self.position}"] if self.position else []),
        ]  # fmt: skip

    def recover_position(self) -> str:
        """Return the last transaction that this node has, as Debian's galera_recovery looks it up before each start.

        Without it, of nodes that were all killed any may become the one whose data the others take.
        """
        if not (self.directory / "data" / "grastate.dat").exists():
            return ""
        command = [*self.command(), "--wsrep-recover", f"--log-error={self.directory / 'recovery.log'}"]
        subprocess.run(command, check=False, capture_output=True)
        log = (self.directory / "recovery.log").read_text(errors="replace")
        return str(re.findall(r"Recovered position: (\S+)", log)[-1])

    def is_ready(self) -> bool:
        return self.status("wsrep_ready") == "ON"

    def status(self, name: str) -> str:
        rows = self.execute("SHOW GLOBAL STATUS LIKE %s", name)
        return str(rows[0][1]) if rows else ""

    def read(self, statement: str, database: str) -> list[tuple[Any, ...]]:
        """Read when it has all that the cluster had at this moment."""
        return self.execute(statement, database=database, init_command="SET wsrep_sync_wait = 1")

    def isolate(self, *, on: bool) -> None:
        """Cut it off from the other nodes, but not from its clients, or end that."""
        self.execute(f"SET GLOBAL wsrep_provider_options = 'gmcast.isolate={int(on)}'")

    def unplug(self) -> None:
        """Cut it off from the other nodes and from its clients, none of whom is told."""
        run("ip", "link", "set", self.namespace, "down")

    def plug_in(self) -> None:
        run("ip", "link", "set", self.namespace, "up")

    @staticmethod
    def _user() -> list[str]:
        return [f"--user={USER}"] if os.geteuid() == 0 else []


@dataclass
class Cluster:
    """Three nodes."""

    nodes: list[Node]

    def url(self, name: str, first: int = 0) -> str:
        """Return the URL of a database on all nodes, with one of them as the preferred one."""
        nodes = self.nodes[first:] + self.nodes[:first]
        return f"mysql://root@{','.join(f'{node.host}:{node.port}' for node in nodes)}/{name}"

    def start(self) -> None:
        """Start a new cluster of the data of the first node."""
        first, *others = self.nodes
        first.founds = True
        for node in (first, *others):
            node.start()

    def heal(self) -> None:
        """Bring every node back, and wait until all are members: whatever has been done to them."""
        for node in self.nodes:
            if node.namespace:
                node.plug_in()
            if node.process is not None and node.process.poll() is None:
                node.resume()
            else:
                node.process = None
        gone = [node for node in self.nodes if node.process is None]
        with ThreadPoolExecutor(len(self.nodes)) as pool:  # at once: one alone may not be a majority
            list(pool.map(Node.start, gone))
        for node in self.nodes:
            wait_until_synced(node, len(self.nodes))

    def stop(self) -> None:
        for node in reversed(self.nodes):
            node.stop(signal.SIGKILL)


def wait_until_synced(node: Node, size: int, patience: float = 90) -> None:
    """Wait until a node is a ready member of a cluster of this size."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(pymysql.err.Error):
            if node.is_ready() and node.status("wsrep_cluster_size") == str(size):
                return
        time.sleep(0.1)
    raise RuntimeError(f"node {node.port} did not come back: {node.directory / 'server.log'}")


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def connect_namespaces(count: int) -> Iterator[list[tuple[str, str]]]:
    """Make network namespaces on a bridge to this one; yield the name and the address of each.

    Yields nothing where this is not permitted.
    """
    network = f"g{os.getpid() % 100_000}"
    prefix = f"198.18.{os.getpid() % 250}"
    names = [f"{network}-{number}" for number in range(1, count + 1)]
    with contextlib.ExitStack() as stack:
        try:
            run("ip", "link", "add", network, "type", "bridge")
            stack.callback(run, "ip", "link", "delete", network)
            run("ip", "address", "add", f"{prefix}.254/24", "dev", network)
            run("ip", "link", "set", network, "up")
            for number, name in enumerate(names, 1):
                run("ip", "netns", "add", name)
                stack.callback(run, "ip", "netns", "delete", name)
                run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
                run("ip", "link", "set", name, "master", network, "up")
                run("ip", "-n", name, "address", "add", f"{prefix}.{number}/24", "dev", "eth0")
                for device in ("lo", "eth0"):
                    run("ip", "-n", name, "link", "set", device, "up")
        except (FileNotFoundError, subprocess.CalledProcessError):
            stack.close()
            names = []
        yield [(name, f"{prefix}.{number}") for number, name in enumerate(names, 1)]


@contextlib.contextmanager
def run_cluster(size: int = 3, places: Sequence[tuple[str, str]] = ()) -> Iterator[Cluster]:
    """Run a throwaway cluster for the length of the block, on loopback or in these namespaces.

    Raises:
        RuntimeError: the binaries are not installed, or a node does not start (its log is in the message).

    """
    if not is_galera_installed():
        raise RuntimeError(MISSING)
    with tempfile.TemporaryDirectory(prefix="galera-") as directory:
        nodes: list[Node] = []
        for number in range(size):
            place = Path(directory) / str(number + 1)
            place.mkdir()
            namespace, host = places[number] if places else ("", "127.0.0.1")
            nodes.append(Node(place, host=host, peers=nodes, namespace=namespace))
        if os.geteuid() == 0:
            owner = pwd.getpwnam(USER)
            for place in (Path(directory), *(node.directory for node in nodes)):
                os.chown(place, owner.pw_uid, owner.pw_gid)
        nodes[0].install()
        for node in nodes[1:]:
            (node.directory / "data").mkdir()
            shutil.chown(node.directory / "data", *([USER, USER] if os.geteuid() == 0 else [os.geteuid()]))
        cluster = Cluster(nodes)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
