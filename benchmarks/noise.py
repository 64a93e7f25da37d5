"""How far the machine can be trusted: two measures of everything on it that is not the benchmark.

The bare socket does the same work every time it is measured, so what differs between its medians is the machine. And the
kernel counts how long a process was ready to run but another had its core: with a core for each side this is next to
nothing, whatever the subjects do, since the bare socket and the client have one thread each.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

from benchmarks.processes import CORES, Process

SPREAD_LIMIT = (
    0.20  # of the bare socket's medians: the half of them in the middle lie within this share of their median
)
WAIT_LIMIT = 0.05  # of the time: waiting for a core
OTHER_LOAD_LIMIT = 0.10  # of all cores: busy with what is neither the server nor its clients
SLOWDOWN_LIMIT = 0.15  # of the bare loop's least processor time: how much more its median may be


class Noise:
    """What was seen of the bare socket: its p50 and p99 in nanoseconds, and the share of time spent waiting for a core."""

    def __init__(self, limits: tuple[float, float] = (SPREAD_LIMIT, WAIT_LIMIT)) -> None:
        self.limits = limits
        self.p50: list[float] = []
        self.p99: list[float] = []
        self.waits: list[float] = []

    def add(self, p50: float, p99: float, wait: float) -> None:
        self.p50.append(p50)
        self.p99.append(p99)
        self.waits.append(wait)

    def spread(self) -> float:
        """The interquartile range of the medians, over their median."""
        return interquartile_range(self.p50) / median(self.p50) if self.p50 else 0.0

    def wait(self) -> float:
        """The share of its time that the typical measurement waited for a core."""
        return median(self.waits) if self.waits else 0.0

    def too_noisy(self) -> str:
        """Why no verdict is given; empty when one is."""
        reasons = []
        if self.spread() > self.limits[0]:
            reasons.append(f"the bare socket's medians spread by {self.spread():.0%} (limit {self.limits[0]:.0%})")
        if self.wait() > self.limits[1]:
            reasons.append(f"{self.wait():.0%} of the time was spent waiting for a core (limit {self.limits[1]:.0%})")
        return "; ".join(reasons)

    def as_json(self) -> dict[str, Any]:
        return {
            "bare_p50_ns": self.p50, "bare_p99_ns": self.p99, "waits": self.waits,
            "spread": self.spread(), "wait": self.wait(), "too_noisy": self.too_noisy(),
        }  # fmt: skip


def noise_from_json(found: dict[str, Any]) -> Noise:
    """What `as_json` wrote."""
    noise = Noise()
    noise.p50, noise.p99, noise.waits = found["bare_p50_ns"], found["bare_p99_ns"], found["waits"]
    return noise


def interquartile_range(values: Sequence[float]) -> float:
    """The distance between the quartiles."""
    ordered = sorted(values)
    count = len(ordered)
    return ordered[(3 * count) // 4 - (count % 4 == 0)] - ordered[count // 4]


class OtherLoad:
    """The share of all cores that others used while the `with` ran: what is busy, less the server, us and our children.

    Without a server, all processes that are to be subtracted have ended before the `with` does.
    """

    share = 0.0

    def __init__(self, server: Process | None = None) -> None:
        self.server = server

    def _readings(self) -> tuple[float, float, float]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        served = self.server.processor_seconds() if self.server else 0.0
        ours = served + children.ru_utime + children.ru_stime + time.process_time()
        return time.monotonic(), busy_seconds(), ours

    def __enter__(self) -> Self:
        self.before = self._readings()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        wall, busy, ours = (after - before for before, after in zip(self.before, self._readings(), strict=True))
        self.share = max(0.0, (busy - ours) / (wall * len(CORES)))


def busy_seconds() -> float:
    """Processor seconds that our cores have been busy since the system's start, time stolen by its host included."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in CORES:
            user, nice, system, _idle, _waiting, hard, soft, stolen, *_ = map(int, fields)
            ticks += user + nice + system + hard + soft + stolen
    return ticks / os.sysconf("SC_CLK_TCK")
