"""Percentiles, intervals and histograms of known values."""

from __future__ import annotations

import math
import random

import pytest

from benchmarks.confidence import (
    ENOUGH_ROUNDS,
    bucket_value,
    histogram,
    histogram_percentile,
    merge,
    percentile,
    range_of,
    ratio_interval,
)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100)])
def test_a_percentile_is_the_nearest_rank(share: float, value: int) -> None:
    assert percentile(range(1, 101), share) == value


def test_the_relative_error_of_a_histogram_is_at_most_one_percent() -> None:
    rng = random.Random(7)
    values = sorted(int(rng.lognormvariate(12, 2)) + 1 for _ in range(20_000))
    counts = histogram(values)
    assert sum(counts.values()) == len(values)
    for share in (0.01, 0.5, 0.9, 0.99, 0.999):
        assert histogram_percentile(counts, share) == pytest.approx(percentile(values, share), rel=0.01)


def test_merging_histograms_is_the_same_as_a_histogram_of_all_values() -> None:
    assert merge([histogram([5, 80, 900]), histogram([80, 7_000])]) == histogram([5, 80, 80, 900, 7_000])
    assert merge([]) == {}


def test_the_value_of_a_bucket_is_its_middle() -> None:
    for value in (1, 17, 1_000, 123_456_789):
        (bucket,) = histogram([value])
        assert bucket_value(bucket) == pytest.approx(value, rel=0.01)


def test_an_empty_histogram_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="empty"):
        histogram_percentile({}, 0.5)


@pytest.mark.parametrize(("rounds", "share"), [(3, 0.75), (ENOUGH_ROUNDS, 0.97)])
def test_the_range_of_the_rounds_contains_the_true_median_as_often_as_documented(rounds: int, share: float) -> None:
    rng = random.Random(11)
    hits = 0
    for _ in range(2000):
        low, high = range_of([rng.gauss(100, 5) for _ in range(rounds)])
        hits += low <= 100 <= high
    assert hits / 2000 == pytest.approx(share, abs=0.03)


def test_the_ratio_interval_of_few_rounds_is_from_the_lowest_to_the_highest_ratio() -> None:
    assert ratio_interval([2.0, 3.0, 4.0], [1.0, 2.0, 1.0]) == (1.0, 4.0)


def test_a_single_value_has_an_infinite_interval() -> None:
    assert range_of([3.0]) == (-math.inf, math.inf)
    assert ratio_interval([3.0], [1.0, 2.0]) == (0.0, math.inf)


def test_the_range_of_a_figure_is_from_the_lowest_round_to_the_highest() -> None:
    values = [1.0, 4.0, 2.0, 8.0, 3.0]
    assert range_of(values) == (1.0, 8.0)


def test_the_ratio_of_doubled_values_is_two() -> None:
    rng = random.Random(3)
    old = [rng.gauss(100, 2) for _ in range(9)]
    low, high = ratio_interval([2 * value for value in old], old)
    assert low < 2 < high
    assert high - low < 0.2
