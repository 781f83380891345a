"""Several hosts of MySQL, such as the nodes of a cluster: which one is in use, and what follows when that changes."""

import contextlib
import logging
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy.exc import DisconnectionError

from litestar_app.database.failures import Failure, classify, is_lost
from litestar_app.settings import Host

logger = logging.getLogger("litestar_app")

PROBE_TIMEOUT = 2.0
"""Seconds that a host has for a response to a probe."""
CANNOT_CONNECT, NOT_READY, READ_ONLY, INNODB_READ_ONLY, DENIED = 2003, 1047, 1290, 1874, 1142
"""Codes of errors."""
READ_ONLY_VARIABLES = ("read_only", "transaction_read_only", "tx_read_only")
"""Of them, MySQL and MariaDB have the first and one of the others. `super_read_only` switches the first on too."""
VARIABLES = (
    *READ_ONLY_VARIABLES,
    "innodb_read_only",  # a replica of Aurora has this alone
    "wsrep_on",
    "wsrep_reject_queries",
    "group_replication_group_name",
    "group_replication_unreachable_majority_timeout",
)
ASK_VARIABLES = f"SHOW GLOBAL VARIABLES WHERE Variable_name IN {VARIABLES}"
ASK_MEMBERS = "SELECT member_id = @@server_uuid, member_state FROM performance_schema.replication_group_members"


class Hosts:
    """The hosts in the order in which they are preferred. All connections go to the first that is ready.

    While it is open a thread probes them; beside that, they are probed where a connection fails.
    """

    def __init__(self, hosts: Sequence[Host], interval: float, stable_after: float) -> None:
        """Take the seconds between two probes, and for how many a host is ready before it takes over from another.

        A node that was frozen says that it is ready until it knows that it was expelled; and one that fails again and
        again must not take all connections with it each time.
        """
        self.current: Host | None = None
        """The one in use, or while none is ready the last that was; None before the first probe."""
        self._hosts = hosts
        self._interval = interval
        self._stable_after = stable_after
        self._outage: tuple[int, str] | None = None
        """What a new connection fails with while no host is ready."""
        self._ready_since: dict[Host, float] = {}
        self._make: Callable[..., Any] | None = None
        self._probes: dict[Host, Any] = {}
        self._probed_at = float("-inf")
        self._probing = threading.Lock()
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self._adding = threading.Lock()
        self._stop: threading.Event | None = None

    def open(self) -> None:
        """Start to probe the hosts."""
        self._stop = threading.Event()
        threading.Thread(target=self._watch, args=[self._stop], name="hosts", daemon=True).start()

    def close(self) -> None:
        """Let the thread end, without waiting for it: a probe takes seconds where a host hangs."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None

    def is_current(self, connection: Any) -> bool:
        """Tell whether a connection goes to the host in use."""
        return (connection.host, connection.port) == self.current

    def check(self, connection: Any) -> None:
        """Have the pool replace a connection that goes to another host."""
        if not self.is_current(connection):
            raise DisconnectionError

    def connect(self, make: Callable[..., Any]) -> Any:
        """Open a connection to the host in use, or to the one that takes over where that fails.

        It is made of a host, a port and what else PyMySQL takes.

        Raises:
            pymysql.err.Error: no host is ready, or the connection fails.

        """
        self._make = make
        if self.current is None or (self._outage is not None and self._stop is None):
            self._probe(time.monotonic())
        began, host = time.monotonic(), self._require_host()
        try:
            return self._connect(make, host)
        except Exception:
            self._probe(began)
            if self._require_host() == host:
                raise
        return self._connect(make, self._require_host())

    def _connect(self, make: Callable[..., Any], host: Host) -> Any:
        connection = make(host=host[0], port=host[1], defer_connect=True)
        with self._adding:
            self._connections.add(connection)  # before it connects, which takes long where the host hangs
        try:
            connection.connect()
            check_ready(connection)
        except BaseException:
            _close(connection)
            raise
        return connection

    def _require_host(self) -> Host:
        if (outage := self._outage) is not None:
            raise _error(*outage)
        assert self.current is not None  # noqa: S101  there has been a probe
        return self.current

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(self._interval):
            self._probe(time.monotonic())
        with self._probing:
            while self._probes:
                _close(self._probes.popitem()[1])

    def _probe(self, since: float) -> None:
        """Probe the hosts, unless another thread has begun to do so since then."""
        with self._probing:
            if self._probed_at >= since or self._make is None:
                return
            now = self._probed_at = time.monotonic()
            known, self._ready_since = self._ready_since, {}
            problems: dict[Host, Exception] = {}
            chosen: Host | None = None
            for host in self._hosts:
                if (problem := self._find_problem(host, self._make)) is not None:
                    problems[host] = problem
                    continue
                chosen = chosen or host
                began = self._ready_since[host] = known.get(host, now)
                if self.current in {host, None} or now - began >= self._stable_after:
                    chosen = host
                    break
            self._choose(chosen, problems)

    def _find_problem(self, host: Host, make: Callable[..., Any]) -> Exception | None:
        """Ask a host on a connection that is kept for that, which may have been closed meanwhile."""
        began = time.monotonic()
        while True:
            connection, is_kept = self._probes.pop(host, None), True
            try:
                if connection is None:
                    is_kept = False
                    timeouts = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), PROBE_TIMEOUT)
                    connection = make(host=host[0], port=host[1], **timeouts)
                check_ready(connection)
            except Exception as error:  # noqa: BLE001  whatever it is, the host is not ready
                if connection is not None:
                    _close(connection)
                if not is_kept or time.monotonic() - began >= PROBE_TIMEOUT:
                    return error
            else:
                self._probes[host] = connection
                return None

    def _choose(self, chosen: Host | None, problems: Mapping[Host, Exception]) -> None:
        reasons = "; ".join(f"{_name(host)}: {_reason(problem)}" for host, problem in problems.items())
        if chosen is None:
            if self._outage is None:
                logger.warning("No database host is ready: %s", reasons)
            refused = [problem for problem in problems.values() if classify(problem) is Failure.REFUSED]
            code = refused[0].args[0] if refused else CANNOT_CONNECT
            self._outage = (code, f"no host is ready: {reasons}")
            return
        before, had_outage = self.current or self._hosts[0], self._outage is not None
        self.current, self._outage = chosen, None
        if chosen != before or had_outage:
            logger.warning("The database host is now %s%s", _name(chosen), f" ({reasons})" if reasons else "")
        problem = problems.get(before)
        if problem is not None and problem.args[:1] not in {(NOT_READY,), (READ_ONLY,)} and _is_silent(problem):
            self._abandon(before)

    def _abandon(self, host: Host) -> None:
        """Let the statements fail that wait for a host which does not respond."""
        with self._adding:
            connections = [connection for connection in self._connections if (connection.host, connection.port) == host]
        for connection in connections:
            with contextlib.suppress(OSError, TypeError):  # its thread has closed it
                # not the method of a TLS socket, which ends the encryption before it ends the connection
                socket.socket.shutdown(connection._sock, socket.SHUT_RDWR)  # noqa: SLF001  there is no public way


def check_ready(connection: Any) -> None:
    """Raise OperationalError if a server responds, but is not to be used.

    A node of a Galera cluster without the majority responds to a ping and to SELECT 1, and reads old rows if told to.
    """
    with connection.cursor() as cursor:
        cursor.execute(ASK_VARIABLES)
        variables = dict(cursor.fetchall())
        if variables.get("innodb_read_only", "OFF") != "OFF":
            raise _error(INNODB_READ_ONLY, "it is read-only: innodb_read_only is not OFF")
        for name in READ_ONLY_VARIABLES:
            if variables.get(name, "OFF") != "OFF":
                raise _error(READ_ONLY, f"it is read-only: {name} is not OFF")
        if variables.get("wsrep_on") == "ON":  # pragma: no cover  tests/faults/test_cluster.py has the cluster for it
            cursor.execute("SHOW GLOBAL STATUS LIKE 'wsrep_ready'")
            if cursor.fetchone() != ("wsrep_ready", "ON"):
                raise _error(NOT_READY, "wsrep_ready is not ON")
            if variables.get("wsrep_reject_queries", "NONE") != "NONE":
                raise _error(NOT_READY, "wsrep_reject_queries is not NONE")
        if variables.get("group_replication_group_name"):
            _check_group(cursor, variables.get("group_replication_unreachable_majority_timeout", "0"))


def _check_group(cursor: Any, timeout: str) -> None:
    """Raise OperationalError for a member of Group Replication that is not online, or cut off from the majority.

    A primary without the majority reads, and its COMMIT hangs, unless it gives up after a timeout of its own.
    """
    try:
        cursor.execute(ASK_MEMBERS)
    except Exception as error:
        if error.args[:1] != (DENIED,):
            raise
        if timeout == "0":
            raise _error(
                NOT_READY,
                "it may be cut off from its group: GRANT SELECT ON performance_schema.replication_group_members, "
                "or set group_replication_unreachable_majority_timeout",
            ) from None
        return
    members = cursor.fetchall()
    if "ONLINE" not in [state for is_this, state in members if is_this]:
        raise _error(NOT_READY, "it is not ONLINE in its group")
    if 2 * sum(state == "UNREACHABLE" for _, state in members) >= len(members):
        raise _error(NOT_READY, "it is cut off from the majority of its group")


def _error(code: int, reason: str) -> Exception:
    from pymysql.err import OperationalError  # noqa: PLC0415  it is not loaded where the database is SQLite

    return OperationalError(code, reason)


def _is_silent(problem: Exception) -> bool:
    """Tell a host that does not respond from one that rejects a connection more, as with too many of them."""
    return is_lost(problem) or problem.args[:1] == (CANNOT_CONNECT,)


def _close(connection: Any) -> None:
    with contextlib.suppress(Exception):
        connection.close()


def _name(host: Host) -> str:
    return f"[{host[0]}]:{host[1]}" if ":" in host[0] else f"{host[0]}:{host[1]}"


def _reason(problem: Exception) -> str:
    return " ".join(str(problem.args[-1] if problem.args else problem).split())
