"""Instructions per request: parsing callgrind's files, and comparing figures with the committed ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.processes import Unavailable
from tests.programs import need

PROFILE = """\
# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 4242
cmd:  python -m benchmarks.subjects.counted serve

desc: Trigger: Client Request
positions: line
events: Ir
summary: 81697804

ob=(1) /usr/bin/python3
fl=(1) ceval.c
fn=(1) _PyEval_EvalFrameDefault
120 700

totals: 81697804
"""
NAME = "CPython 3.13.0, GCC 12.2.0, x86_64"


def test_the_total_of_a_profile_is_read() -> None:
    assert instructions.total(PROFILE) == 81_697_804


def test_a_profile_without_a_total_is_an_error() -> None:
    with pytest.raises(Unavailable, match="without a total"):
        instructions.total(PROFILE.replace("summary:", "sum:").replace("totals:", "total:"))


def test_only_an_increase_above_the_tolerance_is_a_failure() -> None:
    changes = instructions.compare(
        {"hello": 1031, "browser": 1029, "new-connection": 500}, {"hello": 1000, "browser": 1000}
    )
    assert instructions.verdict(changes) == "hello takes 3.1% more (tolerance 3%)"
    assert not instructions.verdict(
        instructions.compare({"hello": 1029, "browser": 900}, {"hello": 1000, "browser": 1000})
    )


@pytest.mark.parametrize(
    ("committed", "status", "text"),
    [
        ({NAME: {"hello": 1000}}, 0, "+2.0%"),
        ({NAME: {"hello": 900}}, 1, "hello takes 13.3% more"),
        ({"CPython 3.9.0": {"hello": 900}}, 0, "no committed figures for this interpreter"),
    ],
)
def test_the_check(
    committed: dict[str, dict[str, int]],
    status: int,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """--check fails above the tolerance. Without committed figures it passes, with a message."""
    reference, found = tmp_path / "reference.json", tmp_path / "found.json"
    reference.write_text(json.dumps(committed))
    monkeypatch.setattr(instructions, "REFERENCE", reference)
    monkeypatch.setattr(instructions, "interpreter", lambda: NAME)
    monkeypatch.setattr(instructions, "measure", lambda workload: 1020)
    monkeypatch.setattr(sys, "argv", ["instructions", "hello", "--check", "--json", str(found)])
    assert instructions.main() == status
    assert text in capsys.readouterr().out
    assert json.loads(found.read_text()) == {"interpreter": NAME, "instructions": {"hello": 1020}}


def test_the_committed_figures_are_of_all_workloads() -> None:
    committed = json.loads(instructions.REFERENCE.read_text())
    assert committed
    for name, figures in committed.items():
        assert list(figures) == sorted(instructions.WORKLOADS), name


@pytest.mark.slow
def test_a_server_under_valgrind_is_counted() -> None:
    """A request takes tens of thousands of instructions: not 0, and not those of a whole run."""
    need("valgrind")
    few = instructions.Workload("", 64, instructions.WORKLOADS["hello"].send)
    assert 20_000 < instructions.measure(few) < 400_000
