"""What is remembered of a target: a ring of rounds, and the figures that a person wants of them."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from apps.probing.outcome import ANSWERED, Outcome

ROUNDS = 360
"""An hour of rounds, one every ten seconds."""


class Round(NamedTuple):
    """Some probes sent after each other: when, how many, the seconds of those that were answered, and the results."""

    at: float
    sent: int
    seconds: tuple[float, ...]
    """In the order in which they were sent."""
    results: dict[str, int]
    facts: dict[str, object]
    """What the last probe has learnt."""

    @classmethod
    def of(cls, at: float, outcomes: Sequence[Outcome]) -> Round:
        seconds = tuple(each.seconds for each in outcomes if each.result == ANSWERED and each.seconds is not None)
        phases = {f"{name} time": value for name, value in outcomes[-1].phases.items()}
        return cls(
            at, len(outcomes), seconds, dict(Counter(each.result for each in outcomes)), outcomes[-1].facts | phases
        )

    @property
    def loss(self) -> float:
        """The share that was not answered."""
        return 1 - len(self.seconds) / self.sent

    def percentile(self, share: float) -> float | None:
        """Of the answered: the nearest rank."""
        return percentile(sorted(self.seconds), share)


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest rank; None of nothing."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


class Summary(NamedTuple):
    """The figures of some rounds; times in seconds, None where nothing was answered."""

    sent: int
    loss: float
    median: float | None
    p90: float | None
    p99: float | None
    worst: float | None
    jitter: float | None
    """The mean difference between two answers that follow each other (RFC 3550 6.4.1's idea, without its smoothing)."""
    results: dict[str, int]


def summary(rounds: Sequence[Round]) -> Summary:
    """The figures of these rounds together."""
    ordered = sorted(value for each in rounds for value in each.seconds)
    steps = [abs(b - a) for each in rounds for a, b in pairwise(each.seconds)]
    sent = sum(each.sent for each in rounds)
    results: Counter[str] = Counter()
    for each in rounds:
        results.update(each.results)
    return Summary(
        sent,
        1 - len(ordered) / sent if sent else 0.0,
        percentile(ordered, 0.5),
        percentile(ordered, 0.9),
        percentile(ordered, 0.99),
        percentile(ordered, 1.0),
        sum(steps) / len(steps) if steps else None,
        dict(results),
    )


class History:
    """The rounds of one target: of bounded length, read by many threads and written by one."""

    def __init__(self, length: int = ROUNDS) -> None:
        self.ring: deque[Round] = deque(maxlen=length)
        self.guard = threading.Lock()

    def add(self, found: Round) -> None:
        with self.guard:
            self.ring.append(found)

    @property
    def rounds(self) -> list[Round]:
        with self.guard:
            return list(self.ring)
