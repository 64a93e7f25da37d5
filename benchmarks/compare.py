"""What changed since an earlier report, and whether it is more than chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.confidence import Interval, ratio_interval
from benchmarks.latency import OURS
from benchmarks.report import Report

LATENCIES = ("p50", "p99", "cpu_us")
COSTS = ("cpu_us", "seconds", "rss_kib", "kib_each", "p99")
SMALL = 0.02  # a change below this share is not told as one, however sure it is


class Change(NamedTuple):
    """One figure of ours: before, now, their ratio with its interval, and the verdict on it."""

    what: str
    before: float
    now: float
    ratio: float
    interval: Interval
    verdict: str  # better, worse, same, or unsure


def changes(old: Report, new: Report) -> Iterator[Change]:
    """Depths, latencies and costs that both reports have, ours only: the peers did not change, the machine may have."""
    for name in new.stacks:
        if name in old.stacks and name.startswith(OURS):
            before, now = len(old.stacks[name].frames), len(new.stacks[name].frames)
            verdict = "same" if before == now else "better" if now < before else "worse"
            yield Change(f"stack of {name}, frames", before, now, now / before, (now / before, now / before), verdict)
    for name, result in new.latency.items():
        for figure in LATENCIES:
            if name in old.latency:
                yield from change(
                    f"{name} {figure}", old.latency[name].values(OURS, figure), result.values(OURS, figure)
                )
    for name, row in new.throughput.items():
        for figure in COSTS:
            if name in old.throughput:
                pair = [
                    [by[OURS][figure] for by in each.rounds if figure in by.get(OURS, {})]
                    for each in (old.throughput[name], row)
                ]
                yield from change(f"{name} {figure}", *pair)


def change(what: str, before: Sequence[float], now: Sequence[float]) -> Iterator[Change]:
    """The change of a cost, when both have it: smaller is better."""
    if not before or not now or not median(before):
        return
    ratio, around = median(now) / median(before), ratio_interval(now, before)
    if around[0] <= 1 <= around[1]:
        verdict = "unsure" if abs(ratio - 1) > SMALL else "same"
    elif abs(ratio - 1) <= SMALL:
        verdict = "same"
    else:
        verdict = "better" if ratio < 1 else "worse"
    yield Change(what, median(before), median(now), ratio, around, verdict)
