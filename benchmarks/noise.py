"""Measures of the machine's noise: the spread of the bare socket's latency, the time spent waiting for a core, and other load.

The bare socket does the same work in each measurement, so differences between its medians are caused by the machine. The kernel
counts how long a process was ready to run while another used its core. The bare socket and the client have one thread each, and
a core each, so on a quiet machine this time is close to 0.
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

# A run above one of these limits is too noisy for a verdict.
SPREAD_LIMIT = 0.20  # interquartile range of the bare socket's medians, relative to their median
WAIT_LIMIT = 0.05  # share of the time spent waiting for a core
OTHER_LOAD_LIMIT = 0.10  # share of all cores used by processes other than the server and its clients
SLOWDOWN_LIMIT = 0.15  # median of the bare loop's processor time, relative to its minimum, less 1


class Noise:
    """Measurements of the bare socket: p50 and p99 in nanoseconds, and the share of time spent waiting for a core."""

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
        """Return the interquartile range of the medians, divided by their median."""
        return interquartile_range(self.p50) / median(self.p50) if self.p50 else 0.0

    def wait(self) -> float:
        """Return the share of time spent waiting for a core: the median over the measurements."""
        return median(self.waits) if self.waits else 0.0

    def too_noisy(self) -> str:
        """Return the reasons why the machine is too noisy for a verdict, or ""."""
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
    """Return the Noise that `as_json` wrote."""
    noise = Noise()
    noise.p50, noise.p99, noise.waits = found["bare_p50_ns"], found["bare_p99_ns"], found["waits"]
    return noise


def interquartile_range(values: Sequence[float]) -> float:
    """Return the distance between the first and the third quartile."""
    ordered = sorted(values)
    count = len(ordered)
    return ordered[(3 * count) // 4 - (count % 4 == 0)] - ordered[count // 4]


class OtherLoad:
    """The share of all cores that other processes used during the `with` block.

    It is the busy time of the cores minus that of the server, this process and its ended children. Without a server, all
    processes to subtract must have ended before the end of the block.
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
    """Return the busy time of the cores in seconds since boot, including time stolen by the host."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in CORES:
            user, nice, system, _idle, _waiting, hard, soft, stolen, *_ = map(int, fields)
            ticks += user + nice + system + hard + soft + stolen
    return ticks / os.sysconf("SC_CLK_TCK")
