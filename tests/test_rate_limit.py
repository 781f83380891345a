"""The rate limit: what is granted, to whom, across processes, and what a client is told."""

import multiprocessing
import os
import re
import signal
import time
from collections import Counter
from fractions import Fraction
from math import ceil, floor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestar_app.access.rate_limit import (
    Policy,
    RateLimit,
    SharedTable,
    create_rate_limit,
    take_quota,
)
from litestar_app.http.callers import LOCAL, Caller
from tests.service import ANANYA, API_KEYS, AS_EDITOR, AS_READER, Service, serve_database

SPAWN = multiprocessing.get_context("spawn")
HOURLY = Policy(1000, 3600)


class Bucket:
    """The reference: a bucket that holds `requests` and fills at `requests` in `seconds`."""

    def __init__(self, policy: Policy) -> None:
        # the service counts whole nanoseconds for a request
        self.rate = Fraction(1, policy.seconds * 10**9 // policy.requests)
        self.size = self.level = Fraction(policy.requests)
        self.at = 0

    def take(self, now: int) -> tuple[bool, int, int]:
        self.level = min(self.size, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1:
            return True, 0, ceil((1 - self.level) / self.rate / 10**9)
        self.level -= 1
        return False, floor(self.level), ceil((self.size - self.level) / self.rate / 10**9)


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.one_of(st.integers(0, 2 * 10**9), st.integers(0, 4000 * 10**9))), max_size=60
)


@pytest.mark.parametrize("workers", [0, 3])
@given(requests=st.integers(1, 12), seconds=st.sampled_from([1, 60, 3600]), steps=STEPS, start=st.integers(0, 10**18))
def test_quota_is_that_of_a_bucket(
    workers: int, requests: int, seconds: int, steps: list[tuple[str, int]], start: int
) -> None:
    """By a clock of our own; with a table also where each request comes to another worker."""
    policy, now = Policy(requests, seconds), start
    table = SharedTable() if workers else None
    limits = [RateLimit(policy, table, lambda: now) for _ in range(workers or 1)]
    reference = {caller: Bucket(policy) for caller in "abc"}
    try:
        for number, (caller, passed) in enumerate(steps):
            now += passed
            quota = limits[number % len(limits)].take(caller)
            assert (quota.is_exceeded, quota.remaining, quota.reset) == reference[caller].take(now)
    finally:
        if table is not None:
            os.close(table.descriptor)


@pytest.mark.parametrize("requests", [1, 7, 99_991])
@pytest.mark.parametrize("seconds", [1, 60, 3600])
def test_whole_quota_may_be_used_at_once(requests: int, seconds: int) -> None:
    limit = RateLimit(Policy(requests, seconds), clock=lambda: 5)
    granted = 0
    while not limit.take("a").is_exceeded:
        granted += 1
    assert granted == requests


def test_caller_that_has_used_least_is_forgotten_first() -> None:
    """The table does not grow: this one has one place."""
    limit = RateLimit(Policy(10, 3600), SharedTable(places=1), lambda: 0)
    for caller, times in {"a": 4, "b": 3, "c": 2, "d": 5}.items():
        remaining = [limit.take(caller).remaining for _ in range(times)]
        assert remaining == [9 - number for number in range(times)]
    assert limit.take("e").remaining == 9
    assert [limit.take(caller).remaining for caller in "abd"] == [5, 6, 4]
    assert limit.take("c").remaining == 9


def take_all(table: SharedTable, ready: Any, connection: Connection) -> None:
    limit = RateLimit(HOURLY, table)
    ready.wait()
    connection.send([sum(not limit.take(caller).is_exceeded for _ in range(HOURLY.requests)) for caller in "ab"])


def stop_while_taking(table: SharedTable, connection: Connection) -> None:
    def stop() -> int:
        connection.send(None)
        time.sleep(3600)
        return 0

    RateLimit(HOURLY, table, stop).take("a")


def test_workers_grant_one_quota_together() -> None:
    table, ready = SharedTable(), SPAWN.Barrier(3)
    pipes = [SPAWN.Pipe() for _ in range(3)]
    workers = [SPAWN.Process(target=take_all, args=(table, ready, pipe[1])) for pipe in pipes]
    for worker in workers:
        worker.start()
    granted = [pipe[0].recv() for pipe in pipes]
    for worker in workers:
        worker.join()
    # at 3.6 s for a request, a test that takes long is granted some more
    assert all(1000 <= sum(counts) < 1050 for counts in zip(*granted, strict=True))
    assert RateLimit(HOURLY, table).take("a").remaining < 50


def test_killed_worker_leaves_no_lock() -> None:
    """It reads the clock while it holds the lock."""
    table = SharedTable()
    here, there = SPAWN.Pipe()
    worker = SPAWN.Process(target=stop_while_taking, args=(table, there))
    worker.start()
    here.recv()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    assert RateLimit(HOURLY, table).take("a").remaining == 999
    worker.join()


@pytest.mark.parametrize("workers", [1, 2])
def test_service_with_a_limit_leaves_nothing_behind(tmp_path: Path, workers: int) -> None:
    with Service(tmp_path, WORKERS=workers, RATE_LIMIT="600/minute") as service:
        assert service.client.post("/student", json=ANANYA).status_code == 201
        service.stop()
        assert "Traceback" not in service.log()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["service.log", "students.db"]


@pytest.mark.parametrize(
    ("setting", "policy"),
    [("600/minute", Policy(600, 60)), ("5/second", Policy(5, 1)), ("999999/hour", Policy(999_999, 3600))],
)
def test_setting_names_the_policy(setting: str, policy: Policy) -> None:
    limit = create_rate_limit(setting)
    assert limit is not None
    assert limit.take("a").policy == policy


@pytest.mark.parametrize(
    ("caller", "client", "name"),
    [
        (Caller("a", "reader", "k1"), ("192.0.2.7", 1), "key k1"),
        (LOCAL, ("192.0.2.7", 1), "192.0.2.7"),
        (None, ("2001:db8::1:2:3:4", 1), "2001:db8::"),
        (LOCAL, None, ""),
    ],
)
def test_quota_is_that_of_a_key_or_an_address(caller: Caller | None, client: Any, name: str) -> None:
    limit = RateLimit(Policy(5, 3600))
    scope: Any = {"client": client, "state": {}} | ({"auth": caller} if caller else {})
    take_quota(limit, scope)
    assert limit.take(name).remaining == 3
    assert Counter(scope["state"].keys()) == {"quota": 1}


def test_service_counts_for_each_key_and_address(sqlite_url: str) -> None:
    """A wrong key counts for the address that sends it; health checks do not count."""
    with serve_database(sqlite_url, api_keys=API_KEYS, rate_limit="3/hour") as client:
        for headers in (AS_EDITOR, AS_READER, {"Authorization": "Bearer x"}):
            expected = 401 if headers.get("Authorization") == "Bearer x" else 200
            assert [client.get("/students", headers=headers).status_code for _ in range(4)] == [expected] * 3 + [429]
        granted = client.get("/health/live")
        assert (granted.status_code, "RateLimit" in granted.headers) == (200, False)


def test_client_is_told_what_is_left(sqlite_url: str) -> None:
    """In the syntax of draft-ietf-httpapi-ratelimit-headers, and with its problem type."""
    with serve_database(sqlite_url, rate_limit="2/hour") as client:
        responses = [client.get("/students") for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert {response.headers["RateLimit-Policy"] for response in responses} == {'"default";q=2;w=3600'}
    told = [re.fullmatch('"default";r=([0-9]+);t=([0-9]+)', response.headers["RateLimit"]) for response in responses]
    left, seconds = zip(*[map(int, match.groups()) for match in told if match], strict=True)
    assert left == (1, 0, 0)
    waits = (1800, 3600, 1800)  # but for the time that passes between the requests
    assert all(0 <= wait - given < 60 for wait, given in zip(waits, seconds, strict=True))
    assert [response.headers.get("Retry-After") for response in responses] == [None, None, str(seconds[2])]
    assert responses[2].headers["Content-Type"] == "application/problem+json"
    assert responses[2].json() == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "detail": "More requests than the rate limit grants; retry after as many seconds as Retry-After says",
        "violated-policies": ["default"],
    }


def test_nothing_is_told_without_a_limit(idle_client: httpx.Client) -> None:
    assert not [name for name in idle_client.get("/students").headers if name.startswith("ratelimit")]
