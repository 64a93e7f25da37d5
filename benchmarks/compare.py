"""What changed since an earlier report, and whether it is more than chance, or than the machine.

The peers are the control: where their code is the same in both reports and their figures moved as much as ours, it was the
machine that changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.confidence import ENOUGH_ROUNDS, LEVEL, Interval, ratio_interval
from benchmarks.latency import OURS
from benchmarks.report import Report
from benchmarks.servers import SERVERS

LATENCIES = ("p50", "p99", "cpu_us")
COSTS = ("cpu_us", "seconds", "rss_kib", "kib_each", "core_percent", "p50", "p99")
NEGLIGIBLE = 0.02  # a change below this share is not told as one, however sure it is
VERDICTS = ("worse", "better", "machine", "unsure", "same")
COMPARED_FACTS = {"python": "Python", "processor": "processor", "cores": "cores", "system": "system"}

Values = dict[str, list[float]]  # subject to a figure's value in each round


class Change(NamedTuple):
    """One figure of ours: before, now, their ratio with its interval, the peers' own ratio, and the verdict on it."""

    name: str
    figure: str
    before: float
    now: float
    ratio: float
    interval: Interval
    peers: float | None
    verdict: str  # one of VERDICTS


def changes(old: Report, new: Report) -> list[Change]:
    """Depths, latencies and costs of ours that both reports have; what changed comes first."""
    found = [*depths(old, new)]
    before, now, same = costs(old), costs(new), same_peers(old, new)
    for key in now:
        if key in before:
            found += change(
                *key, before[key].get(OURS, []), now[key].get(OURS, []), control(before[key], now[key], same)
            )
    return sorted(found, key=lambda each: VERDICTS.index(each.verdict))


def only_in(one: Report, other: Report) -> list[str]:
    """The rows and workloads that the other has not."""
    there = {name for name, _ in costs(other)}
    return list(dict.fromkeys(name for name, _ in costs(one) if name not in there))


def differences(old: Report, new: Report) -> list[str]:
    """Why the two can't well be compared: another machine or Python, or too much noise."""
    told = []
    for key, word in COMPARED_FACTS.items():
        before, now = (str({**each.machine, **each.machine["versions"]}.get(key)) for each in (old, new))
        if before != now:
            told.append(f"another {word}: {before} before, {now} now")
    for each, when in ((old, "earlier"), (new, "new")):
        if reason := each.noise.too_noisy():
            told.append(f"the {when} run was too noisy: {reason}")
        if rows := [name for name, row in each.throughput.items() if row.too_noisy()]:
            told.append(f"the {when} run was too noisy in the rows {', '.join(rows)}")
    return told


def depths(old: Report, new: Report) -> Iterator[Change]:
    for name, depth in new.stacks.items():
        if name in old.stacks and name.startswith(OURS):
            before, now = len(old.stacks[name].frames), len(depth.frames)
            verdict = "same" if before == now else "better" if now < before else "worse"
            yield Change(
                f"stack of {name}", "frames", before, now, now / before, (now / before, now / before), None, verdict
            )


def costs(report: Report) -> dict[tuple[str, str], Values]:
    """All that is less when it is better, by row and figure."""
    found: dict[tuple[str, str], Values] = {}
    for name, result in report.latency.items():
        for figure in LATENCIES:
            found[f"latency {name}", figure] = {each: result.values(each, figure) for each in result.names()}
    for name, row in report.throughput.items():
        loaded = any("requests" in figures for round_figures in row.rounds for figures in round_figures.values())
        for figure in COSTS:
            if figure == "seconds" and loaded:
                continue  # how long the load lasted
            values = {
                each: [
                    round_figures[each][figure] for round_figures in row.rounds if figure in round_figures.get(each, {})
                ]
                for each in row.names()
            }
            if any(values.values()):
                found[name, figure] = values
    return found


def same_peers(old: Report, new: Report) -> set[str]:
    """The peers whose version is the same in both."""
    before, now = old.machine["versions"], new.machine["versions"]
    distributions = {name: kind.distribution for name, kind in SERVERS.items() if not name.startswith(OURS)}
    return {name for name, each in distributions.items() if each is None or before.get(each) == now.get(each)}


def control(before: Values, now: Values, same: set[str]) -> float | None:
    """How the peers' figure changed, the middle of them."""
    ratios = [
        median(now[name]) / median(before[name])
        for name in same
        if now.get(name) and before.get(name) and median(before[name]) and median(now[name])
    ]
    return median(ratios) if ratios else None


def change(
    name: str, figure: str, before: Sequence[float], now: Sequence[float], peers: float | None = None
) -> Iterator[Change]:
    """The change of a cost, when both have it: smaller is better."""
    if not before or not now or not median(before):
        return
    ratio, interval = median(now) / median(before), ratio_interval(now, before)
    yield Change(name, figure, median(before), median(now), ratio, interval, peers, verdict_of(ratio, interval, peers))


def verdict_of(ratio: float, interval: Interval, peers: float | None) -> str:
    """Sure when the whole interval is on one side of no change, and of what the peers did."""
    if abs(ratio - 1) <= NEGLIGIBLE:
        return "same"
    if interval[0] <= 1 <= interval[1]:
        return "unsure"
    if peers and (interval[0] <= peers <= interval[1] or (ratio < 1) != (ratio < peers)):
        return "machine"
    return "better" if ratio < 1 else "worse"


def explanation(found: Sequence[Change]) -> str:
    """How to read the table."""
    by_chance = (1 - LEVEL) * len(found)
    counts: Mapping[str, int] = {word: sum(each.verdict == word for each in found) for word in VERDICTS}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return (
        f"{told}. Less is better. interval: of the ratio; from {ENOUGH_ROUNDS} rounds on the 95 % interval by "
        f"bootstrap, which of {len(found)} figures about {by_chance:.0f} would leave by chance; with fewer the lowest and the "
        "highest ratio of any two rounds. unsure: no change is in the interval too. peers: how "
        "the others' figure changed meanwhile; machine: they changed about as much."
    )
