"""Tests of the benchmarks: counting, measuring and verdicts."""
