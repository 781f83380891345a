"""Limits: how many threads and connections there are, and how long each thing is waited for."""

from msgspec import Struct

THREADS = 8
"""Threads that read, and on MySQL as many that write."""
GROUPS = 2
"""Groups of writes that are written at once on MySQL. More share fewer COMMITs; of one, a lock would hold up all."""
SCANNERS = 4
"""Threads for reads that pass many rows."""
TRANSFERS = 4
"""Threads for exports, and as many for imports, which no slow reader of an export holds up."""
SHARE = TRANSFERS // 2
"""Exports, and as many imports, that one caller may have under way, so that others find a thread."""
PART = 10_000
"""Rows that one statement changes at most, so that none takes as long as a server that hangs."""
POOL_SIZE = 2 * THREADS + 2 * (SCANNERS + 2 * TRANSFERS) + 3
"""A connection for each thread and to interrupt the long ones, for the ping, the event loop and the start."""


class Sizes(Struct, frozen=True):
    """How many threads of each kind share the connections; each thread keeps one."""

    short: int
    """That read, and as many that write."""
    long: int
    """That scan, as many that export, and as many that import."""
    has_scanners: bool = True
    """Whether scans have threads of their own; else those that do them do all reads."""
    has_pinger: bool = True
    """Whether the ping has one; else it takes its turn among the short reads."""


ONE_OF_EACH = 5
"""Connections that a reader, a writer, a scan, an export and an import have, one each."""


def size_threads(connections: int) -> Sizes:
    """Share connections among the threads; two more than one of each kind are for the ping and for interrupts.

    Of what is left, short work gets more than long work.
    """
    spare = max(0, connections - ONE_OF_EACH - 2)
    return Sizes(
        short=min(THREADS, 1 + spare // 4),
        long=min(TRANSFERS, 1 + spare // 8),
        has_scanners=connections >= ONE_OF_EACH,
        has_pinger=connections > ONE_OF_EACH,
    )


class Timeouts(Struct, frozen=True):
    """How long the database, or what holds it up, is waited for, in seconds."""

    start: float = 10
    """For a database that does not respond when the service starts."""
    lock: float = 5
    """For a lock that another process or session holds; and how long a unit of work is retried."""
    queue: float = 10
    """For a thread that is free."""
    socket: float = 10
    """For MySQL to respond, after which it counts as hung."""
    probe: float = 1
    """Between two probes of several hosts of MySQL."""
    stable: float = 5
    """For which one of them must be ready before it takes over from another one that is."""
    ready: float = 2
    """For the response to a ping."""
    send: float = 60
    """For a client to take what an export sends, whose snapshot keeps the database from cleaning up."""
    send_rate: float = 50_000
    """Bytes a second that it must take on average, beyond that time: 0.4 Mbit/s."""
    close: float = 10
    """For work that has begun, when the service stops."""
