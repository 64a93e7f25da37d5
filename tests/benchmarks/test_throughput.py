"""Rows, bars and ratios; and that a run leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import frameworks, throughput
from benchmarks.processes import Server, Unavailable
from benchmarks.rows import Bar, Row, against, own
from benchmarks.servers import KINDS, require
from tests.running import ROOT, environment

pytestmark = pytest.mark.slow  # of the benchmarks, not of the package

RowResult = throughput.Result


def test_a_cost_that_is_half_is_a_ratio_of_two() -> None:
    by = {"microwsgi": {"cpu_us": 10.0, "rate": 900.0}, "bare": {"cpu_us": 20.0, "rate": 1000.0}}
    assert against("bare", "cpu_us", 1).ratio(by) == 2.0
    assert against("bare", "rate", 1).ratio(by) == 0.9
    assert against("bjoern", "rate", 1).ratio(by) is None
    assert own("cpu_us", "of 40", 1, scale=1 / 40).ratio(by) == 0.25


@pytest.mark.parametrize(
    ("at_most", "value", "verdict"),
    [(False, 0.5, "below"), (False, 1.0, "bar"), (False, 2.0, "aim"), (True, 3.0, "below"), (True, 0.9, "aim")],
)
def test_a_verdict_is_the_best_that_is_reached(at_most: bool, value: float, verdict: str) -> None:
    assert Bar("", lambda by: None, 1.0, 2.0 if not at_most else 0.9, at_most=at_most).verdict(value) == verdict


def test_a_ratio_without_bar_and_aim_has_no_verdict() -> None:
    assert against("bare", "rate", None).verdict(0.1) == ""


def test_an_aim_without_a_bar_can_only_be_missed_by_falling_short() -> None:
    assert Bar("", lambda by: None, None, 2.0).verdict(1.0) == "short"


def test_ratios_are_taken_pair_by_pair_within_rounds() -> None:
    result = RowResult(Row("x", "x", dict, [against("bare", "rate", 0.4, 0.6)]))
    # The machine was ten times slower in one round: the ratio is the same in each.
    result.rounds = [{"microwsgi": {"rate": rate / 2}, "bare": {"rate": rate}} for rate in (1000.0, 100.0, 900.0)]
    (found,) = result.ratios()
    assert (found["ratio"], found["lowest"], found["highest"], found["verdict"]) == (0.5, 0.5, 0.5, "bar")
    assert result.medians("bare") == {"rate": 900.0}


def test_a_result_comes_back_from_json() -> None:
    result = RowResult(throughput.ROWS["hello8"])
    result.rounds = [{"microwsgi": {"rate": 1.0, "cpu_us": 2.0}, "bare": {"rate": 2.0, "cpu_us": 1.0}}]
    result.left_out = {"bjoern": "not installed"}
    again = RowResult.from_json("hello8", result.as_json())
    assert again.as_json() == result.as_json()


def test_rows_have_every_bar_of_the_table() -> None:
    names = set(throughput.ROWS)
    assert {"hello1", "hello8", "hello64", "hello256", "browser8", "browser64", "close"} <= names
    assert {f"sleep{milliseconds}" for milliseconds in (1, 2, 3, 5, 50)} <= names
    assert {"beside-sleeping", "beside-spinning", "file", "upload", "chunked", "stream"} <= names
    assert {"tls8", "tls64", "tls-new", "tls-resumed", "idle-connections-tls"} <= names
    assert {"memory", "idle-connections", "start", "start-webob", "idle", "framework"} <= names
    assert all(row.bars for row in throughput.ROWS.values())


def test_what_is_not_installed_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KINDS["bjoern"], "distribution", "no-such-distribution")
    with pytest.raises(Unavailable, match="not installed: python -m pip install no-such-distribution"):
        require("bjoern", sys.executable)


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(Unavailable, match="ModuleNotFoundError: No module named 'nothing'"):
        Server(KINDS["wsgiref"].command(sys.executable, "nothing:app", "0", 0, "off"))


def test_two_servers_are_measured_and_compared() -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    said: list[tuple[str, float]] = []
    run = throughput.Run(
        [throughput.ROWS["hello8"], throughput.ROWS["memory"]], ["microwsgi", "bare", "werkzeug"], sys.executable,
        rounds=1, seconds=1, size=1 << 20, say=lambda what, done: said.append((what, done)),
    )  # fmt: skip
    run.go()
    hello, memory = run.results["hello8"], run.results["memory"]
    assert hello.names() == ["microwsgi", "bare", "werkzeug"]
    ours, bare = hello.medians("microwsgi"), hello.medians("bare")
    assert ours["rate"] > 0
    assert 1 < bare["cpu_us"] < ours["cpu_us"] < 1000
    assert len(hello.ratios()) == 2  # the others' bars have nobody to be beside
    assert 5_000 < memory.medians("microwsgi")["rss_kib"] < 100_000
    assert [done for _, done in said] == sorted(done for _, done in said)
    assert len(said) == run.steps


def test_an_app_is_measured_beside_webob_by_hand() -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    run = throughput.Run(
        [throughput.ROWS["framework"]], ["microwsgi", frameworks.HAND], sys.executable,
        rounds=1, seconds=1, size=0, say=lambda what, done: None,
    )  # fmt: skip
    run.go()
    result = run.results["framework"]
    assert result.left_out == {}
    (ratio,) = result.ratios()
    by = result.rounds[0]
    assert ratio["ratio"] == by["microwsgi"]["cpu_us"] - by[frameworks.HAND]["cpu_us"]
    assert frameworks.added({"microwsgi": by["microwsgi"]}) is None


@pytest.mark.parametrize("row", ["upload", "chunked", "stream"])
def test_transfers_are_whole(row: str) -> None:
    run = throughput.Run(
        [throughput.ROWS[row]], ["microwsgi", "bare"], sys.executable,
        rounds=1, seconds=1, size=4 << 20, say=lambda what, done: None,
    )  # fmt: skip
    run.go()
    result = run.results[row]
    assert result.left_out == {}
    least = 100_000 * 10 if row == "stream" else 4 << 20
    assert all(result.medians(name)["bytes"] >= least for name in ("microwsgi", "bare"))


def test_an_interrupted_run_leaves_no_process_behind() -> None:
    pytest.importorskip("rich")
    mark = f"BENCHMARK_OF_A_TEST={os.getpid()}"
    name, _, value = mark.partition("=")
    command = [sys.executable, "-m", "benchmarks", "latency", "--workloads", "hello", "--subjects", "wsgiref,microwsgi"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(**{name: value}), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_for(lambda: len(having(mark)) >= 4)  # the harness, its client, two servers or more
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    wait_for(lambda: not having(mark))


def having(mark: str) -> list[str]:
    """Processes with a variable in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def wait_for(condition: object, limit: float = 15.0) -> None:
    end = time.monotonic() + limit
    while not condition():  # type: ignore[operator]  # a function without arguments
        assert time.monotonic() < end
        time.sleep(0.02)
