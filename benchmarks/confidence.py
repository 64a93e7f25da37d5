"""How sure a figure is: percentiles, histograms, ranges, and confidence intervals by bootstrap."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from statistics import median

RESAMPLES = 2000
LEVEL = 0.95
ENOUGH_ROUNDS = 6
"""The median of what is measured lies within the range of six rounds in 97 of 100 runs (1 - 2 / 2**6), of three in 75."""
GROWTH = math.log(1.01)  # each bucket of a histogram is a hundredth wider than the one before
SEED = 20_000  # the same figures give the same interval

Interval = tuple[float, float]
Histogram = dict[int, int]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which so much of the sorted sample is (nearest rank)."""
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def range_of(values: Sequence[float]) -> Interval:
    """Return the range of the rounds, from the lowest to the highest; without limits if there is only one round."""
    return (min(values), max(values)) if len(values) > 1 else (-math.inf, math.inf)


def ratio_interval(new: Sequence[float], old: Sequence[float]) -> Interval:
    """Return an interval of the ratio of two medians of separate runs.

    From six rounds on it is the 95 % interval by bootstrap, where each run is resampled on its own. With fewer it is from the
    lowest ratio to the highest of any two rounds: resampling three values cannot show that others are possible.
    """
    fewest = min(len(new), len(old))
    if fewest < 2:
        return (0.0, math.inf)
    if fewest < ENOUGH_ROUNDS:
        return min(new) / max(old), max(new) / min(old)
    rng = random.Random(SEED)  # noqa: S311
    found = sorted(
        median(rng.choices(new, k=len(new))) / median(rng.choices(old, k=len(old))) for _ in range(RESAMPLES)
    )
    return percentile(found, (1 - LEVEL) / 2), percentile(found, (1 + LEVEL) / 2)


def histogram(values: Iterable[int]) -> Histogram:
    """Counts by bucket: small, and a hundredth exact at every size."""
    counts: Histogram = {}
    log = math.log
    for value in values:
        bucket = int(log(max(1, value)) / GROWTH)
        counts[bucket] = counts.get(bucket, 0) + 1
    return dict(sorted(counts.items()))


def bucket_value(bucket: int) -> float:
    """The value that a bucket stands for."""
    return math.exp((bucket + 0.5) * GROWTH)


def merge(histograms: Iterable[Histogram]) -> Histogram:
    """Their sum."""
    total: Histogram = {}
    for each in histograms:
        for bucket, count in each.items():
            total[bucket] = total.get(bucket, 0) + count
    return dict(sorted(total.items()))


def histogram_percentile(counts: Histogram, share: float) -> float:
    """As `percentile`, of what the histogram holds."""
    rank, seen = math.ceil(share * sum(counts.values())), 0
    for bucket, count in sorted(counts.items()):
        seen += count
        if seen >= rank:
            return bucket_value(bucket)
    raise ValueError("an empty histogram has no percentiles")
