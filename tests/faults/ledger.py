"""What writers were told, and how that compares with what the database holds."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Self

UNKNOWN = "may or may not be stored"
"""What the detail says of a COMMIT whose outcome the service does not know."""
PATIENCE = 180.0
"""Seconds after which a state that is polled for is taken never to come; far beyond what a busy machine needs."""
STUDENTS = "SELECT id, name, department, cgpa FROM students"

State = tuple[str, float] | None
"""Department and cgpa of a student; None where there is no such student."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.01)


class Response(NamedTuple):
    """What the service said."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """Return the detail of a problem document; anything else that is no success fails."""
        problem = self.json()
        assert self.headers["Content-Type"] == "application/problem+json", self
        assert (problem["type"], problem["status"]) == ("about:blank", self.status)
        assert problem["title"]
        return str(problem["detail"])

    def assert_is_outage(self) -> None:
        """Check that this is what a client gets while the database is away: come again, nothing was stored."""
        assert self.status == 503, self
        assert self.detail == "The database is locked, full or unreachable; nothing was stored, retry later"
        assert int(self.headers["Retry-After"]) >= 1

    def assert_outcome_is_unknown(self) -> None:
        """Check that this is what a client gets where COMMIT went and no response to it came."""
        assert self.status == 503, self
        assert UNKNOWN in self.detail, self


class Wire:
    """One connection to the service; it never sends anything twice by itself."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def send(self, method: str, path: str, data: object = None, **headers: str) -> Response | None:
        """Send a request; None where no whole response came. `If_Match="x"` is a header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = None
        if data is not None:
            body, named["Content-Type"] = json.dumps(data), "application/json"
        try:
            self._connection.request(method, path, body, named)
            response = self._connection.getresponse()
            return Response(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return None

    def ask(self, method: str, path: str, data: object = None, **headers: str) -> Response:
        """Send a request that must be answered."""
        response = self.send(method, path, data, **headers)
        assert response is not None, f"{method} {path}: no response"
        return response

    @property
    def local_port(self) -> int:
        """The port that the service sees this connection come from."""
        port: int = self._connection.sock.getsockname()[1]
        return port

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ask(port: int, method: str, path: str, data: object = None, **headers: str) -> Response:
    """Send a request that must be answered, on a connection of its own."""
    with Wire(port) as wire:
        return wire.ask(method, path, data, **headers)


@dataclass
class Entry:
    """What the database may hold of one student."""

    possible: set[State] = field(default_factory=lambda: {None})
    acknowledged: bool = False
    id: int | None = None


@dataclass
class Verdict:
    """What the database holds against what writers were told."""

    lost: list[str] = field(default_factory=list)
    """Writes that were acknowledged and are not there, or not whole."""
    wrong: list[str] = field(default_factory=list)
    """Students who are there although they were refused, or twice, or whom nobody sent."""


class Ledger:
    """Students by name, each written by one thread at a time, so that what each must be is known at any moment."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.unanswered: dict[str, State] = {}
        self.failed = False
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def create(self, wire: Wire, name: str, state: tuple[str, float], *, key: bool = False) -> Response | None:
        """Create a student; with a key, one whom `repeat_unanswered` will ask for again."""
        headers = {"Idempotency_Key": name.replace(" ", "-")} if key else {}
        response = wire.send("POST", "/student", _body(name, state), **headers)
        self._note(name, state, response)
        with self._lock:
            if key and (response is None or response.status == 503):
                self.unanswered[name] = state
            if response is not None and response.status == 201:
                self._entries[name].id = response.json()["id"]
        return response

    def update(self, wire: Wire, name: str, state: tuple[str, float]) -> Response | None:
        response = wire.send("PUT", f"/student/{self._entries[name].id}", _body(name, state))
        return self._note(name, state, response)

    def delete(self, wire: Wire, name: str) -> Response | None:
        response = wire.send("DELETE", f"/student/{self._entries[name].id}")
        return self._note(name, None, response)

    def repeat_unanswered(self, wire: Wire) -> None:
        """Send again, under its key, every creation that got no response or a 503: each must now be there, once."""
        for name, state in [*self.unanswered.items()]:
            assert state is not None
            response = self.create(wire, name, state, key=True)
            assert response is not None
            assert response.status == 201, response
            del self.unanswered[name]

    def wait_for(self, what: str, more: int) -> None:
        """Wait until so many more responses of one kind have come."""
        target = self.count[what] + more
        wait_until(lambda: self.failed or self.count[what] >= target, f"{target} {what}")

    def compare(self, rows: Iterable[tuple[Any, ...]]) -> Verdict:
        """Compare with the rows of the table, read behind the service's back."""
        verdict = Verdict()
        stored: dict[str, list[tuple[int | None, State]]] = {}
        for student_id, name, department, cgpa in rows:
            stored.setdefault(name, []).append((student_id, (department, cgpa)))
        for name, entry in self._entries.items():
            found = stored.pop(name, [])
            if len(found) > 1:
                verdict.wrong.append(f"{name}: there {len(found)} times: {found}")
                continue
            ((student_id, state),) = found or [(entry.id, None)]
            if state in entry.possible and entry.id in {None, student_id}:
                continue
            story = f"{name}: expected {entry.id} to be one of {entry.possible}, found {student_id}, {state}"
            (verdict.lost if entry.acknowledged else verdict.wrong).append(story)
        verdict.wrong += [f"{name}: nobody sent this: {found}" for name, found in stored.items()]
        return verdict

    def check(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Fail where anything was lost or wrongly reported."""
        assert self.compare(rows) == Verdict()

    def _note(self, name: str, state: State, response: Response | None) -> Response | None:
        with self._lock:
            entry = self._entries.setdefault(name, Entry())
            if response is None or (response.status == 503 and UNKNOWN in response.detail):
                self.count["unknown"] += 1
                entry.possible = entry.possible | {state}
                entry.acknowledged = False
            elif 200 <= response.status < 300:
                self.count["acknowledged"] += 1
                entry.possible = {state}
                entry.acknowledged = True
            else:
                self.count["refused"] += 1
                self.count[str(response.status)] += 1
        return response


def _body(name: str, state: tuple[str, float]) -> dict[str, object]:
    return {"name": name, "department": state[0], "cgpa": state[1]}


def make_state(chance: random.Random) -> tuple[str, float]:
    """Make a state that no other is likely to equal."""
    number = chance.randrange(1_000_000)
    return f"department {number}", number / 100_000


def write(ledger: Ledger, port: int, name: str, stop: threading.Event) -> None:
    """Create, change and delete students until an response does not come, or until it is told to stop.

    Half of the creations have a key. A change whose outcome is unknown is the last one of its student, since it may
    still be under way.
    """
    chance = random.Random(name)
    with Wire(port) as wire:
        for number in range(1_000_000):
            if stop.is_set():
                return
            student = f"{name} {number}"
            steps: list[Callable[[], Response | None]] = [
                partial(ledger.create, wire, student, make_state(chance), key=chance.random() < 0.5),
            ]
            if chance.random() < 0.5:
                steps.append(partial(ledger.update, wire, student, make_state(chance)))
            if chance.random() < 0.3:
                steps.append(partial(ledger.delete, wire, student))
            for step in steps:
                response = step()
                if response is None:
                    return
                if response.status == 503:
                    time.sleep(0.02)
                    break
                if response.status not in {200, 201}:
                    ledger.failed = True  # so that nobody waits for what will not come
                    raise AssertionError(response)


@contextmanager
def writing(ledger: Ledger, port: int, writers: int, label: str) -> Iterator[None]:
    """Have so many threads write for the length of the block, and fail if one of them did."""
    stop = threading.Event()
    with ThreadPoolExecutor(writers) as pool:
        try:
            futures = [pool.submit(write, ledger, port, f"{label} {writer}", stop) for writer in range(writers)]
            yield
        finally:
            stop.set()
    for future in futures:
        future.result()
