"""Tests of the benchmarks: that they count, measure and judge rightly."""
