"""The turns of a run, one after the other, with a line of progress for each."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tests.benchmarks.results import TransferTurn, Turn

AnyTurn = TypeVar("AnyTurn", Turn, TransferTurn)


@dataclass
class Planned(Generic[AnyTurn]):
    """A turn that is to be taken: what the progress calls it, and what fills it."""

    title: str
    turn: AnyTurn
    take: Callable[[], None]


def take_all(planned: list[Planned[AnyTurn]], estimate: float) -> None:
    """Take all turns and note in each how it failed; `estimate` is the seconds of the first."""
    started = time.monotonic()
    for number, plan in enumerate(planned):
        each = (time.monotonic() - started) / number if number else estimate
        minutes = each * (len(planned) - number) / 60
        show(f"[{number + 1}/{len(planned)}, {minutes:.1f} min to go] round {plan.turn.round}, {plan.title}:")
        try:
            plan.take()
        except Exception as error:  # noqa: BLE001 - whatever befalls one candidate, the others are measured
            plan.turn.failure = f"{type(error).__name__}: {error}"
            show(f"  FAILED: {plan.turn.failure}")
        show("\n")


def show(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
