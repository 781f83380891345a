"""What is measured: the structs of the JSON file, and the medians that tables and picture are made from."""

import statistics
from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.benchmarks.candidates import CANDIDATES, Candidate, DatabaseKind


class Measurement(msgspec.Struct):
    """One operation under load; latencies are those of single responses."""

    responses: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int

    @property
    def per_second(self) -> float:
        """Good responses in a second."""
        return self.responses / self.seconds


class Turn(msgspec.Struct):
    """One candidate's turn in one round: started, loaded with every operation, stopped."""

    round: int
    database: DatabaseKind
    candidate: str
    failure: str = ""
    start_seconds: float = 0.0
    memory_at_rest_mb: float = 0.0
    memory_after_load_mb: float = 0.0
    operations: dict[str, Measurement] = {}


class Results(msgspec.Struct):
    """A whole run, with what is needed to judge it."""

    date: str
    machine: str
    load_generator: str
    versions: dict[str, str]
    rounds: int
    seconds: int
    connections: int
    seeded_rows: int
    busy_before_percent: float
    turns: list[Turn] = []

    def databases(self) -> list[DatabaseKind]:
        """Return what was measured on, in order."""
        return list(dict.fromkeys(turn.database for turn in self.turns))

    def candidates(self, database: DatabaseKind) -> list[Candidate]:
        """Return who was measured on a database, in the order of the tables."""
        names = {turn.candidate for turn in self.turns if turn.database == database}
        return [candidate for candidate in CANDIDATES if candidate.name in names]

    def median(self, database: DatabaseKind, candidate: str, measure: Callable[[Turn], float]) -> float | None:
        """Return the median of a candidate's rounds, None where no round was finished."""
        turns = [turn for turn in self._turns(database, candidate) if not turn.failure]
        return statistics.median(map(measure, turns)) if turns else None

    def per_second(self, database: DatabaseKind, candidate: str, operation: str) -> float | None:
        """Return the good responses in a second, the median of the rounds."""
        return self.median(database, candidate, lambda turn: turn.operations[operation].per_second)

    def errors(self, database: DatabaseKind, candidate: str, operation: str) -> int:
        """Count what was no good response, in all rounds."""
        turns = self._turns(database, candidate)
        return sum(turn.operations[operation].errors for turn in turns if operation in turn.operations)

    def failures(self) -> list[Turn]:
        """Return the turns that could not be finished."""
        return [turn for turn in self.turns if turn.failure]

    def _turns(self, database: DatabaseKind, candidate: str) -> list[Turn]:
        return [turn for turn in self.turns if (turn.database, turn.candidate) == (database, candidate)]


def write_results(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def read_results(path: Path) -> Results:
    return msgspec.json.decode(path.read_bytes(), type=Results)
