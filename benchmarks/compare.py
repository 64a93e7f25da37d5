"""Compare two reports: list the changes of microwsgi's figures, and tell them from chance and from changes of the machine.

Peers of the same version in both reports are the control group: if their figures changed as much as microwsgi's, the machine
changed.
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
NEGLIGIBLE = 0.02  # smaller relative changes count as none, even if they are significant
VERDICTS = ("worse", "better", "machine", "unsure", "same")
COMPARED_FACTS = {"python": "Python", "processor": "processor", "cores": "cores", "system": "system"}

Values = dict[str, list[float]]  # for each subject the values of one figure, one of each round


class Change(NamedTuple):
    """The change of one figure of microwsgi: both medians, their ratio and its interval, the peers' ratio, and the verdict."""

    name: str
    figure: str
    before: float
    now: float
    ratio: float
    interval: Interval
    peers: float | None
    verdict: str  # one of VERDICTS


def changes(old: Report, new: Report) -> list[Change]:
    """Return the changes of microwsgi's depths, latencies and costs that both reports contain, ordered by verdict."""
    found = [*depths(old, new)]
    before, now, same = costs(old), costs(new), same_peers(old, new)
    for key in now:
        if key in before:
            found += change(
                *key, before[key].get(OURS, []), now[key].get(OURS, []), control(before[key], now[key], same)
            )
    return sorted(found, key=lambda each: VERDICTS.index(each.verdict))


def only_in(one: Report, other: Report) -> list[str]:
    """Return the rows and workloads of one report that the other does not contain."""
    known = {name for name, _ in costs(other)}
    return list(dict.fromkeys(name for name, _ in costs(one) if name not in known))


def differences(old: Report, new: Report) -> list[str]:
    """Return reasons to doubt the comparison: another machine or Python, or too much noise."""
    reasons = []
    for key, word in COMPARED_FACTS.items():
        before, now = (str({**each.machine, **each.machine["versions"]}.get(key)) for each in (old, new))
        if before != now:
            reasons.append(f"different {word}: {before} before, {now} now")
    for each, when in ((old, "earlier"), (new, "new")):
        if reason := each.noise.too_noisy():
            reasons.append(f"the {when} run was too noisy: {reason}")
        if rows := [name for name, row in each.throughput.items() if row.too_noisy()]:
            reasons.append(f"the {when} run was too noisy in the rows {', '.join(rows)}")
    return reasons


def depths(old: Report, new: Report) -> Iterator[Change]:
    """Compare the stack depths of microwsgi."""
    for name, depth in new.stacks.items():
        if name in old.stacks and name.startswith(OURS):
            before, now = len(old.stacks[name].frames), len(depth.frames)
            verdict = "same" if before == now else "better" if now < before else "worse"
            yield Change(
                f"stack of {name}", "frames", before, now, now / before, (now / before, now / before), None, verdict
            )


def costs(report: Report) -> dict[tuple[str, str], Values]:
    """Return all figures of which less is better, by name and figure."""
    found: dict[tuple[str, str], Values] = {}
    for name, result in report.latency.items():
        for figure in LATENCIES:
            found[f"latency {name}", figure] = {each: result.values(each, figure) for each in result.names()}
    for name, row in report.throughput.items():
        has_requests = any("requests" in figures for round_figures in row.rounds for figures in round_figures.values())
        for figure in COSTS:
            if figure == "seconds" and has_requests:
                continue  # the duration of the load
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
    """Return the peers whose version is the same in both reports."""
    before, now = old.machine["versions"], new.machine["versions"]
    distributions = {name: spec.distribution for name, spec in SERVERS.items() if not name.startswith(OURS)}
    return {name for name, each in distributions.items() if each is None or before.get(each) == now.get(each)}


def control(before: Values, now: Values, same: set[str]) -> float | None:
    """Return the median ratio of the peers' figures, now over before; None if there are no such peers."""
    ratios = [
        median(now[name]) / median(before[name])
        for name in same
        if now.get(name) and before.get(name) and median(before[name]) and median(now[name])
    ]
    return median(ratios) if ratios else None


def change(
    name: str, figure: str, before: Sequence[float], now: Sequence[float], peers: float | None = None
) -> Iterator[Change]:
    """Yield the change of a figure of which less is better, if both reports contain it."""
    if not before or not now or not median(before):
        return
    ratio, interval = median(now) / median(before), ratio_interval(now, before)
    yield Change(name, figure, median(before), median(now), ratio, interval, peers, verdict_of(ratio, interval, peers))


def verdict_of(ratio: float, interval: Interval, peers: float | None) -> str:
    """Return `better` or `worse` if the interval excludes 1, and if the peers' ratio does not explain the change."""
    if abs(ratio - 1) <= NEGLIGIBLE:
        return "same"
    if interval[0] <= 1 <= interval[1]:
        return "unsure"
    if peers and (interval[0] <= peers <= interval[1] or (ratio < 1) != (ratio < peers)):
        return "machine"
    return "better" if ratio < 1 else "worse"


def explanation(found: Sequence[Change]) -> str:
    """Return an explanation of the table of changes."""
    by_chance = (1 - LEVEL) * len(found)
    counts: Mapping[str, int] = {word: sum(each.verdict == word for each in found) for word in VERDICTS}
    totals = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return (
        f"{totals}. Less is better. interval: confidence interval of the ratio; from {ENOUGH_ROUNDS} rounds on at 95 %, by "
        f"bootstrap (of {len(found)} unchanged figures, about {by_chance:.0f} would be outside by chance); with fewer rounds, "
        "from the lowest to the highest ratio of any two rounds. unsure: the interval contains 1. peers: median ratio of other "
        "servers. machine: the other servers changed about as much."
    )
