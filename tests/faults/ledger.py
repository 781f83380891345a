"""What writers were told, and how that compares with what the database holds."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx

from tests.service import Service, connect

PATIENCE = 180.0
"""Seconds after which a state that is polled for is taken never to come; far beyond what a busy machine needs."""
STUDENTS = "SELECT id, name, department, cgpa FROM students"
AMISS = """
SELECT h.* FROM history h LEFT JOIN students s ON s.id = h.student_id
WHERE h.id IN (SELECT MAX(id) FROM history GROUP BY student_id)
AND NOT (h.action <> 'delete' AND s.id IS NOT NULL AND s.name = h.after_name AND s.department = h.after_department
AND s.cgpa = h.after_cgpa OR h.action = 'delete' AND s.id IS NULL)
UNION ALL SELECT h.* FROM students s LEFT JOIN history h ON h.student_id = s.id WHERE h.id IS NULL
"""
"""The newest entry of each student that is not how the student is now, and a row for each without any."""
ENTRIES = "SELECT COALESCE(after_name, before_name), COUNT(*) FROM history GROUP BY 1"
UNKNOWN = "COMMIT failed without telling its outcome: the change may or may not be stored; check before you repeat it"

State = tuple[str, float] | None
"""Department and cgpa of a student; None where there is no such student."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.01)


def is_unknown(response: httpx.Response) -> bool:
    """Tell whether the response says that nobody knows what became of COMMIT."""
    return response.status_code == 503 and response.json()["detail"] == UNKNOWN


def assert_is_problem(response: httpx.Response, status: int, detail: str) -> None:
    """Check for a problem document, and for Retry-After exactly where a retry does no harm."""
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["status"], problem["detail"]) == (status, status, detail)
    assert ("Retry-After" in response.headers) is detail.endswith("retry later")


class Ledger:
    """Students by name, each written by one thread at a time, so that what each may be is known at any moment."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        """Writes by what came of them: acknowledged, unknown, or the status."""
        self.unanswered: dict[str, State] = {}
        """Creations under a key that got no response or a 503, by name."""
        self.log: list[tuple[float, float, str]] = []
        """When each write ended, in seconds as time.monotonic() counts them, how many it took, and what came of it."""
        self._possible: dict[str, set[State]] = {}
        self._changes: dict[str, Counter[str]] = {}
        self._ids: dict[str, int] = {}
        self._lock = threading.Lock()
        self._failed = threading.Event()

    def create(self, client: httpx.Client, name: str, state: State, *, key: bool = False) -> httpx.Response | None:
        """Create a student; with a key, one that `retry_unanswered` sends again."""
        headers = {"Idempotency-Key": name.replace(" ", "-")} if key else {}
        response = self._send(client, "POST", "/student", name, state, headers)
        if key and (response is None or response.status_code == 503):
            self.unanswered[name] = state
        if response is not None and response.status_code == 201:
            self._ids[name] = response.json()["id"]
        return response

    def update(self, client: httpx.Client, name: str, state: State) -> httpx.Response | None:
        return self._send(client, "PUT", f"/student/{self._ids[name]}", name, state)

    def delete(self, client: httpx.Client, name: str) -> httpx.Response | None:
        return self._send(client, "DELETE", f"/student/{self._ids[name]}", name, None)

    def retry_unanswered(self, client: httpx.Client) -> None:
        """Retry creations under their keys: each must now be there, once."""
        while self.unanswered:
            name, state = self.unanswered.popitem()
            self._changes[name].clear()  # the key makes one of all attempts
            response = self.create(client, name, state, key=True)
            assert response is not None
            assert response.status_code == 201

    def wait_for(self, what: str, more: int) -> None:
        """Wait until so many more responses of one kind have come."""
        target = self.count[what] + more
        wait_until(lambda: self._failed.is_set() or self.count[what] >= target, f"{target} {what}")

    def check(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Compare with the rows of the table, read behind the service's back."""
        stored: dict[str, tuple[int, State]] = {}
        for student_id, name, department, cgpa in rows:
            assert name not in stored, "there twice"
            stored[name] = (student_id, (department, cgpa))
        wrong = []
        for name, possible in self._possible.items():
            student_id, state = stored.pop(name, (self._ids.get(name, 0), None))
            if state not in possible or student_id != self._ids.get(name, student_id):
                wrong.append((name, self._ids.get(name), possible, student_id, state))
        assert wrong == [], "lost, or wrongly reported as such"
        assert stored == {}, "not sent by any writer"

    def check_history(self, rows: Iterable[tuple[str, int]]) -> None:
        """Compare with the number of entries of the history by name: one for each acknowledged change."""
        entries = dict(rows)
        wrong = []
        for name, changes in self._changes.items():
            count, sure = entries.pop(name, 0), changes["acknowledged"]
            if not sure <= count <= sure + changes["unknown"]:
                wrong.append((name, changes, count))
        assert wrong == [], "changes without an entry, or with two"
        assert entries == {}, "not sent by any writer"

    def write(self, service: Service, label: str, stop: threading.Event) -> None:
        """Create, change and delete students until it is told to stop.

        Half of the creations have a key. A change whose outcome is unknown is the last one of its student, since it
        may still be under way.
        """
        chance = random.Random(label)
        with connect(service.url, timeout=PATIENCE) as client:
            for number in range(1_000_000):
                if stop.is_set():
                    return
                name = f"{label} {number}"
                steps = [partial(self.create, client, name, make_state(chance), key=chance.random() < 0.5)]
                if chance.random() < 0.5:
                    steps.append(partial(self.update, client, name, make_state(chance)))
                if chance.random() < 0.3:
                    steps.append(partial(self.delete, client, name))
                for step in steps:
                    response = step()
                    if response is None or response.status_code == 503:
                        time.sleep(0.02)
                        break
                    if not response.is_success:
                        self._failed.set()  # so that nobody waits for what will not come
                        raise AssertionError(response.text)

    def _send(  # noqa: PLR0913, PLR0917  a request and what it is about
        self,
        client: httpx.Client,
        method: str,
        path: str,
        name: str,
        state: State,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response | None:
        body = state and {"name": name, "department": state[0], "cgpa": state[1]}
        began = time.monotonic()
        try:
            response = client.request(method, path, json=body, headers=headers)
        except httpx.TransportError:
            response = None
        ended = time.monotonic()
        with self._lock:
            possible = self._possible.setdefault(name, {None})
            if response is None or is_unknown(response):
                outcome = "unknown"
                possible.add(state)
            elif response.is_success:
                outcome = "acknowledged"
                self._possible[name] = {state}
            else:
                outcome = str(response.status_code)
            self.count[outcome] += 1
            self._changes.setdefault(name, Counter())[outcome] += 1
            self.log.append((ended, ended - began, outcome))
        return response


def make_state(chance: random.Random) -> tuple[str, float]:
    """Make a state that no other is likely to equal."""
    number = chance.randrange(1_000_000)
    return f"department {number}", number / 100_000


@contextmanager
def writing(ledger: Ledger, service: Service, writers: int, label: str) -> Iterator[None]:
    """Have so many threads write for the length of the block, and fail if one of them did."""
    stop = threading.Event()
    with ThreadPoolExecutor(writers) as pool:
        futures = [pool.submit(ledger.write, service, f"{label} {writer}", stop) for writer in range(writers)]
        try:
            yield
        finally:
            stop.set()
            for future in futures:
                future.result()
