"""A cluster to try out: three Galera nodes, two services of two workers and haproxy, all on loopback."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL

import httpx
import psutil
import pymysql

from tests.galera import MISSING, Cluster, Node, is_galera_installed, run_cluster
from tests.mariadb import find_binary
from tests.service import Service

HELP = "kill N, freeze N, thaw N, start N (a node of 1 to 3), state, quit"
HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    option redispatch
    option httpchk
    http-check send meth GET uri /health/ready ver HTTP/1.1 hdr Host localhost
    default-server inter 500ms fall 2 rise 1
frontend students
    bind 127.0.0.1:{port}
    default_backend services
backend services
    server service-1 127.0.0.1:{services[0].port} check
    server service-2 127.0.0.1:{services[1].port} check
"""
"""It adds no X-Forwarded-For: without API keys the services serve only what has come through no proxy."""


def describe(node: Node) -> str:
    if node.process is None or node.process.poll() is not None:
        return "stopped"
    if psutil.Process(node.process.pid).status() == psutil.STATUS_STOPPED:
        return "frozen"
    try:
        members = node.status("wsrep_cluster_size")
        return f"ready, of {members} members" if node.is_ready() else "not ready"
    except pymysql.err.Error as error:
        return f"not ready: {error}"


def show(cluster: Cluster, services: list[Service], port: int) -> None:
    for number, node in enumerate(cluster.nodes, 1):
        print(f"node {number}     127.0.0.1:{node.port}         {describe(node)}")
    for number, service in enumerate(services, 1):
        hosts = re.findall("(?:The|No) database host.*", service.log())
        ready = service.client.get("/health/ready").status_code == 200
        print(f"service {number}  {service.url}  {'ready' if ready else 'not ready'}  {hosts[-1] if hosts else ''}")
    print(f"proxy      http://127.0.0.1:{port}")


def obey(cluster: Cluster, command: str, node: Node) -> None:
    is_running = node.process is not None and node.process.poll() is None
    if command == "start" and not is_running:
        if not any(other.process for other in cluster.nodes if other is not node):
            print("no other node runs: start makes a cluster of what this one has")
            node.founds = True
            (node.directory / "data" / "gvwstate.dat").unlink(missing_ok=True)
        node.start()
    elif command == "kill" and is_running:
        node.stop(SIGKILL)
    elif command == "freeze" and is_running:
        node.pause()
    elif command == "thaw" and is_running:
        node.resume()
    else:
        print(HELP)


@contextlib.contextmanager
def run_haproxy(directory: Path, services: list[Service], port: int) -> Iterator[None]:
    config = directory / "haproxy.cfg"
    config.write_text(HAPROXY.format(services=services, port=port))
    process = subprocess.Popen([str(find_binary("haproxy")), "-q", "-db", "-f", str(config)])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    if not is_galera_installed() or find_binary("haproxy") is None:
        sys.exit(f"{MISSING}, and haproxy")
    port = int(os.environ.get("PORT") or 8000)
    print("three nodes start, which takes half a minute")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-")))
        cluster = stack.enter_context(run_cluster())
        cluster.nodes[0].create_database("college")
        services = []
        for number in (1, 2):
            place = directory / str(number)
            place.mkdir()
            service = Service(
                place, DATABASE_URL=cluster.url("college"), LOG_FORMAT="text", LOG_LEVEL="warning", WORKERS=2
            )
            service.client.timeout = httpx.Timeout(5)
            services.append(stack.enter_context(service))
        stack.enter_context(run_haproxy(directory, services, port))
        show(cluster, services, port)
        print(HELP)
        for line in sys.stdin:
            command, _, which = line.strip().partition(" ")
            if command == "quit":
                break
            if command == "state":
                show(cluster, services, port)
            elif which in {"1", "2", "3"}:
                obey(cluster, command, cluster.nodes[int(which) - 1])
            else:
                print(HELP)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
