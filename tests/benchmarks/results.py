"""What is measured: the structs of the JSON file, and the medians that tables and picture are made from."""

import statistics
from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.benchmarks.candidates import CANDIDATES, TRANSFER_CANDIDATES, Candidate, DatabaseKind


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


class Transfer(msgspec.Struct):
    """One file imported or exported."""

    seconds: float
    growth_mb: float
    """Of the resident memory, from before the request to the highest value while it ran."""


class TransferTurn(msgspec.Struct):
    """One candidate's turn in one round: a file imported and exported, then pages of what was imported."""

    round: int
    candidate: str
    failure: str = ""
    transfers: dict[str, Transfer] = {}
    pages: dict[str, Measurement] = {}


class Transfers(msgspec.Struct):
    """Pages and files of many rows, on SQLite."""

    rows: int
    turns: list[TransferTurn] = []

    def candidates(self) -> list[Candidate]:
        """Return who was measured, in the order of the tables."""
        names = {turn.candidate for turn in self.turns}
        return [candidate for candidate in TRANSFER_CANDIDATES if candidate.name in names]

    def median(self, candidate: str, measure: Callable[[TransferTurn], float]) -> float | None:
        """Return the median of a candidate's rounds, None where no round was finished."""
        turns = [turn for turn in self.turns if turn.candidate == candidate and not turn.failure]
        return statistics.median(map(measure, turns)) if turns else None


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
    transfers: Transfers | None = None

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

    def failures(self) -> list[str]:
        """Say which turns could not be finished."""
        turns = [(f"{turn.candidate} on {turn.database}", turn) for turn in self.turns]
        transfers = [(f"{turn.candidate} with files", turn) for turn in self.transfers.turns] if self.transfers else []
        return [f"{what}, round {turn.round}: {turn.failure}" for what, turn in turns + transfers if turn.failure]

    def _turns(self, database: DatabaseKind, candidate: str) -> list[Turn]:
        return [turn for turn in self.turns if (turn.database, turn.candidate) == (database, candidate)]


def write_results(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def read_results(path: Path) -> Results:
    return msgspec.json.decode(path.read_bytes(), type=Results)
