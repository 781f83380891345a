"""The rate limit: how many requests a caller may make in a time, counted by all workers of a machine together."""

import os
import struct
import time
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import Any, ClassVar

from litestar.types import HTTPScope, Message, Scope
from msgspec import Struct

from litestar_app.exceptions import QuotaExceededError
from litestar_app.http.callers import name_caller
from litestar_app.memory import SharedMemory

PERIODS = {"second": 1, "minute": 60, "hour": 3600}
SECOND = 1_000_000_000
"""Nanoseconds, in which this module counts."""
SLOT = struct.Struct("=Qq")
"""The name of a caller, hashed, and when its whole quota will be free again."""
PLACE = struct.Struct("=QqQqQqQq")
"""Slots for the callers whose names fall on one place; of five, the one that has used least of its quota goes."""
PLACES = 16_384
"""Of a table, which is a megabyte then."""
QUOTA = "quota"
"""The key in the state of a scope."""


class Policy(Struct, frozen=True):
    """So many requests in so many seconds."""

    requests: int
    seconds: int

    def __str__(self) -> str:
        """Write the field RateLimit-Policy."""
        return f'"default";q={self.requests};w={self.seconds}'


class Quota(Struct, frozen=True):
    """What a caller has left."""

    policy: Policy
    remaining: int
    reset: int
    """Seconds until the whole quota is there again; of a refused request, until one is granted."""
    is_exceeded: bool = False

    def __str__(self) -> str:
        """Write the field RateLimit."""
        return f'"default";r={self.remaining};t={self.reset}'


class SharedTable(SharedMemory):
    """The quotas that the workers of a machine count together."""

    inherited: ClassVar["SharedTable | None"] = None

    def __init__(self, places: int = PLACES) -> None:
        """Make one for four times as many callers."""
        super().__init__(places * PLACE.size)
        self.key = os.urandom(16)

    def __getstate__(self) -> tuple[Any, ...]:
        """Hand it to a process that is being started."""
        return *super().__getstate__(), self.key

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take it over in that process."""
        *inherited, self.key = state
        super().__setstate__(tuple(inherited))


class RateLimit:
    """The generic cell rate algorithm: a caller may use its quota at once, and gets it back evenly."""

    def __init__(
        self, policy: Policy, table: SharedTable | None = None, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Count in a table, or in this process alone. The clock gives nanoseconds, the same in every process."""
        self._policy = policy
        self._interval = policy.seconds * SECOND // policy.requests
        self._whole = policy.requests * self._interval
        self._clock = clock
        self._memory = bytearray(PLACES * PLACE.size) if table is None else table.memory
        self._key = os.urandom(16) if table is None else table.key
        self._locate = lru_cache(maxsize=4096)(self._hash)
        self._locks: tuple[Callable[[int], None], Callable[[int], None]] | None = None
        if table is not None:
            from fcntl import LOCK_EX, LOCK_UN, lockf  # noqa: PLC0415  not on Windows, where there is no table

            descriptor = table.descriptor
            # of the process: the system takes them off one that is killed
            self._locks = (
                lambda place: lockf(descriptor, LOCK_EX, 1, place),
                lambda place: lockf(descriptor, LOCK_UN, 1, place),
            )

    def take(self, caller: str) -> Quota:
        """Take one request from the quota of a caller; a refused one takes nothing."""
        place, name = self._locate(caller)
        if self._locks is None:
            return self._take(place, name)
        lock, unlock = self._locks
        lock(place)
        try:
            return self._take(place, name)
        finally:
            unlock(place)

    def _take(self, place: int, name: int) -> Quota:
        now = self._clock()
        slots = PLACE.unpack_from(self._memory, place)
        names, times = slots[::2], slots[1::2]
        if name in names:
            way = names.index(name)
            free_at = max(now, times[way]) + self._interval
        else:
            way = times.index(min(times))
            free_at = now + self._interval
        left = self._whole - (free_at - now)
        if left < 0:
            return Quota(self._policy, 0, -(left // SECOND), is_exceeded=True)
        SLOT.pack_into(self._memory, place + way * SLOT.size, name, free_at)
        return Quota(self._policy, left // self._interval, -((now - free_at) // SECOND))

    def _hash(self, caller: str) -> tuple[int, int]:
        """Give the place and the name of a caller, neither of which can be chosen by who does not know the key."""
        digest = blake2b(caller.encode(), digest_size=16, key=self._key).digest()
        place, name = struct.unpack("=QQ", digest)
        return place % (len(self._memory) // PLACE.size) * PLACE.size, name or 1


def create_rate_limit(setting: str | None) -> RateLimit | None:
    """Make the limit that the setting asks for, `600/minute`, on the table that this process has inherited, if any."""
    if setting is None:
        return None
    requests, period = setting.split("/")
    return RateLimit(Policy(int(requests), PERIODS[period]), SharedTable.inherited)


def take_quota(rate_limit: RateLimit | None, scope: HTTPScope) -> None:
    """Take a request from the quota of the API key in `scope["auth"]`, or of the address where there is none.

    Raises:
        QuotaExceededError: nothing is left.

    """
    if rate_limit is None:
        return
    quota = rate_limit.take(name_caller(scope))
    if quota.is_exceeded:
        fields = {"RateLimit-Policy": str(quota.policy), "RateLimit": str(quota), "Retry-After": str(quota.reset)}
        raise QuotaExceededError(fields)
    scope["state"][QUOTA] = quota


async def add_quota_fields(message: Message, scope: Scope) -> None:
    """Add the remaining quota to a granted response, as a hook of `before_send`; a refused one has the fields."""
    if message["type"] == "http.response.start" and (quota := scope["state"].get(QUOTA)) is not None:
        fields = [(b"ratelimit-policy", str(quota.policy).encode()), (b"ratelimit", str(quota).encode())]
        message["headers"] = [*message.get("headers", ()), *fields]
