"""Rows, bars and ratios of the throughput part; and no process is left after a run."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import balance, fanout, frameworks, loads, stacks, throughput
from benchmarks.processes import Server, Unavailable
from benchmarks.rows import Bar, Row, ratio_to, value_of
from benchmarks.servers import HELLO, SERVERS, require
from tests.running import ROOT, environment

pytestmark = pytest.mark.slow  # of the benchmarks, not of the package

RowResult = throughput.Result
RECORDED = """\
heads, paths, cookies = 0, set(), set()

def app(environ, start_response):
    global heads
    body = b"."
    if environ["PATH_INFO"] == "/recorded":
        body = b"%d %d %d" % (heads, len(paths), len(cookies))
    elif environ.get("HTTP_COOKIE"):
        heads += 1
        paths.add(environ["PATH_INFO"])
        cookies.add(environ["HTTP_COOKIE"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def test_half_the_cost_is_a_ratio_of_two() -> None:
    round_figures = {"microwsgi": {"cpu_us": 10.0, "rate": 900.0}, "bare": {"cpu_us": 20.0, "rate": 1000.0}}
    assert ratio_to("bare", "cpu_us", 1).ratio(round_figures) == 2.0
    assert ratio_to("bare", "rate", 1).ratio(round_figures) == 0.9
    assert ratio_to("bjoern", "rate", 1).ratio(round_figures) is None
    assert value_of("cpu_us", "of 40", 1, scale=1 / 40).ratio(round_figures) == 0.25


@pytest.mark.parametrize(
    ("at_most", "lowest", "highest", "verdict"),
    [
        (False, 0.5, 0.9, "below"),
        (False, 0.9, 1.1, "within"),
        (False, 0.9, 2.1, "within"),
        (False, 1.0, 1.9, "bar"),
        (False, 1.5, 2.5, "bar"),
        (False, 2.0, 2.5, "aim"),
        (True, 1.1, 3.0, "below"),
        (True, 0.8, 1.1, "within"),
        (True, 0.8, 1.0, "bar"),
        (True, 0.8, 0.9, "aim"),
    ],
)
def test_a_target_is_reached_or_missed_only_by_the_whole_range(
    at_most: bool, lowest: float, highest: float, verdict: str
) -> None:
    bar = Bar("", lambda round_figures: None, 1.0, 2.0 if not at_most else 0.9, at_most=at_most)
    assert bar.verdict(lowest, highest) == verdict


def test_a_ratio_without_bar_and_aim_has_no_verdict() -> None:
    assert ratio_to("bare", "rate", None).verdict(0.1, 0.2) == ""


def test_verdicts_of_an_aim_without_a_bar() -> None:
    aim = Bar("", lambda round_figures: None, None, 2.0)
    assert [aim.verdict(1.0, highest) for highest in (1.5, 2.5)] == ["short", "near"]


def test_ratios_are_computed_within_each_round() -> None:
    result = RowResult(Row("x", "x", dict, [ratio_to("bare", "rate", 0.4, 0.6)]))
    # The machine was ten times slower in one round: the ratio is the same in each.
    result.rounds = [{"microwsgi": {"rate": rate / 2}, "bare": {"rate": rate}} for rate in (1000.0, 100.0, 900.0)]
    (found,) = result.ratios()
    assert (found["ratio"], found["lowest"], found["highest"], found["verdict"]) == (0.5, 0.5, 0.5, "bar")
    assert result.medians("bare") == {"rate": 900.0}


def test_a_verdict_is_based_on_the_range_and_has_the_number_of_rounds() -> None:
    result = RowResult(Row("x", "x", dict, [ratio_to("bare", "rate", 0.5)]))
    result.rounds = [{"microwsgi": {"rate": rate}, "bare": {"rate": 100.0}} for rate in (49.0, 52.0, 60.0)]
    result.rounds.append({"bare": {"rate": 100.0}})
    (found,) = result.ratios()
    assert (found["ratio"], found["rounds"], found["verdict"]) == (0.52, 3, "within")


def test_a_bare_loop_that_is_mostly_slower_than_its_best_round_shows_a_slow_core() -> None:
    result = RowResult(Row("x", "x", dict, [ratio_to("bare", "cpu_us", 0.5)]))
    result.rounds = [{"bare": {"cpu_us": spent, "foreign": 0.01}} for spent in (5.0, 5.1, 5.2, 9.0)]
    assert result.too_noisy() == ""
    result.rounds = [{"bare": {"cpu_us": spent, "foreign": 0.01}} for spent in (5.0, 6.0, 6.2, 6.1)]
    assert "the bare loop's median processor time is 21% above its best round" in result.too_noisy()
    result.rounds = [{"microwsgi": {"seconds": 1.0}}]
    assert result.too_noisy() == ""


def test_a_result_is_read_back_from_json() -> None:
    result = RowResult(throughput.ROWS["hello8"])
    result.rounds = [{"microwsgi": {"rate": 1.0, "cpu_us": 2.0}, "bare": {"rate": 2.0, "cpu_us": 1.0}}]
    result.left_out = {"bjoern": "not installed"}
    again = RowResult.from_json("hello8", result.as_json())
    assert again.as_json() == result.as_json()


def test_all_rows_exist_and_have_bars() -> None:
    names = set(throughput.ROWS)
    assert {"hello1", "hello8", "hello64", "hello256", "browser8", "browser64", "close"} <= names
    assert {f"sleep{milliseconds}" for milliseconds in (1, 2, 3, 5, 50)} <= names
    assert {"beside-sleeping", "beside-spinning", "file", "upload", "chunked", "stream"} <= names
    assert {"tls8", "tls64", "tls-new", "tls-resumed", "idle-connections-tls"} <= names
    assert {"memory", "idle-connections", "start", "start-webob", "idle", "framework", "balance"} <= names
    assert all(row.bars for row in throughput.ROWS.values())


def test_the_estimate_of_a_row_counts_its_rounds_and_subjects() -> None:
    pytest.importorskip("rich")
    from benchmarks import plan

    browser, idle = throughput.ROWS["browser64"], throughput.ROWS["idle-connections"]
    assert plan.row_seconds(browser, plan.FULL._replace(rounds=6, seconds=2)) == 6 * len(browser.peers) * 3.0
    assert plan.row_seconds(idle, plan.FULL) == idle.expected_seconds  # one round, one subject


def test_each_request_of_the_browser_rows_has_another_path_and_cookie(tmp_path: Path) -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    (tmp_path / "recorded.py").write_text(RECORDED)
    with Server(
        SERVERS["microwsgi"].command(sys.executable, "recorded:app", "0", 0, "off"), PYTHONPATH=f"{tmp_path}:{ROOT}"
    ) as server:
        figures = throughput.ROWS["browser64"].measure(server, 1)
        with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
            connection.sendall(b"GET /recorded HTTP/1.0\r\n\r\n")
            with connection.makefile("rb") as file:
                heads, paths, cookies = map(int, file.read().rpartition(b"\r\n\r\n")[2].split())
    assert heads >= figures["requests"] > 64
    assert paths == cookies == heads


@pytest.mark.parametrize("name", loads.FASTEST)
def test_the_fastest_peers_serve_where_they_are_installed(name: str) -> None:
    assert name in throughput.ROWS["hello8"].peers
    if find_spec(name) is None:  # these packages have no wheels for some Pythons
        with pytest.raises(Unavailable, match="not installed"):
            require(name, sys.executable)
        return
    with Server(SERVERS[name].command(sys.executable, HELLO, "0", 0, "off")) as server:
        status, body = stacks.get(server.port, "/")
    assert (status, body) == (200, "Hello, world!\n")


def test_the_bars_and_aims_are_the_agreed_ones() -> None:
    of_werkzeug: dict[str, tuple[float, float | None]] = {"of werkzeug, requests/s": (20, 30)}
    wanted: dict[str, dict[str, tuple[float, float | None]]] = {
        "hello8": {
            "of bare, processor time": (0.38, 0.5),
            "of bjoern, processor time": (0.5, 0.65),
            "of granian, requests/s": (1.0, 1.2),
            **of_werkzeug,
        },
        "hello64": {
            "of bare, processor time": (0.45, 0.55),
            "of bjoern, processor time": (0.65, 0.8),
            "of granian, requests/s": (1.1, 1.3),
            **of_werkzeug,
        },
        "browser64": {"of bare, processor time": (0.32, 0.45), "of bjoern, processor time": (0.6, 0.75)},
        "close": {"of bjoern, requests/s": (0.75, 0.9)},
        "idle-connections": {"KiB each": (1.1, 1.0)},
        "start": {"start-up time relative to http.server": (1.1, 1.0)},
        "balance": {"% in the worst start": (65, 55)},
        "fanout": {"ms more than without events": (20, 5)},
        "cores-compute": {"times one core": (1.8, 1.95)},
        "cores-hello": {"times one core": (1.3, None)},
    }
    for name, limits in wanted.items():
        found = {bar.name: (bar.bar, bar.aim) for bar in throughput.ROWS[name].bars}
        assert found.items() >= limits.items(), name


def test_rows_for_another_build_of_python_are_left_out_without_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [throughput.ROWS["cores-hello"], throughput.ROWS["memory"]]
    for name, found in (("3.13.0 profile-guided", ["memory"]), ("3.13.5 free-threaded", ["cores-hello", "memory"])):
        monkeypatch.setattr(throughput, "versions", lambda _, name=name: {"python": name})
        run = throughput.Run(
            rows, ["microwsgi"], sys.executable, rounds=1, seconds=1, size=0, report_progress=lambda step, done: None
        )
        assert list(run.results) == found


def test_the_rate_on_all_cores_is_compared_with_that_on_one() -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    figures = throughput.ROWS["cores-hello"].measure("microwsgi", sys.executable, os.devnull)
    assert figures["rate"] > 0
    assert figures["scaling"] > 0


def test_the_balance_of_two_workers_is_measured_for_each_start() -> None:
    figures = balance.measure(2)("microwsgi", sys.executable, os.devnull)
    starts = [figures["start_1_percent"], figures["start_2_percent"]]
    assert all(50 <= share <= 100 for share in starts)
    assert figures["worst_percent"] == max(starts)
    assert figures["median_percent"] == sum(starts) / 2


def test_the_busier_workers_share_is_a_multiple_of_one_connection() -> None:
    with Server(balance.command("microwsgi", sys.executable, os.devnull)) as server:
        balance.wait_for_workers(server.port)
        assert len(server.process_tree()) > balance.WORKERS
        assert balance.busier_percent(server.port) * balance.CONNECTIONS % 100 == 0
    with Server(SERVERS["microwsgi"].command(sys.executable, balance.APP, "0", 0, os.devnull)) as server:
        assert balance.busier_percent(server.port) == 100  # there is only one


def test_requests_during_broadcasts_are_compared_with_requests_without_broadcasts() -> None:
    figures = fanout.measure(50, 1)("microwsgi", sys.executable, os.devnull)
    assert figures["alone_ms"] > 0
    assert figures["beside_ms"] > 0
    assert figures["added_ms"] == pytest.approx(figures["beside_ms"] - figures["alone_ms"])


def test_a_server_that_is_not_installed_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SERVERS["bjoern"], "distribution", "no-such-distribution")
    with pytest.raises(Unavailable, match="not installed: python -m pip install no-such-distribution"):
        require("bjoern", sys.executable)


def test_a_server_that_does_not_start_is_unavailable_with_its_error() -> None:
    with pytest.raises(Unavailable, match="ModuleNotFoundError: No module named 'nothing'"):
        Server(SERVERS["wsgiref"].command(sys.executable, "nothing:app", "0", 0, "off"))


def test_two_servers_are_measured_and_compared() -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    reports: list[tuple[str, float]] = []
    run = throughput.Run(
        [throughput.ROWS["hello8"], throughput.ROWS["memory"]], ["microwsgi", "bare", "werkzeug"], sys.executable,
        rounds=1, seconds=1, size=1 << 20, report_progress=lambda step, done: reports.append((step, done)),
    )  # fmt: skip
    run.execute()
    hello, memory = run.results["hello8"], run.results["memory"]
    assert hello.names() == ["microwsgi", "bare", "werkzeug"]
    ours, bare = hello.medians("microwsgi"), hello.medians("bare")
    assert ours["rate"] > 0
    assert 1 < bare["cpu_us"] < ours["cpu_us"] < 1000
    assert len(hello.ratios()) == 2  # no ratios to subjects that were not measured
    assert 5_000 < memory.medians("microwsgi")["rss_kib"] < 100_000
    assert [done for _, done in reports] == sorted(done for _, done in reports)
    assert len(reports) == run.steps


def test_an_app_is_compared_with_plain_webob() -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    run = throughput.Run(
        [throughput.ROWS["framework"]], ["microwsgi", frameworks.PLAIN_WEBOB], sys.executable,
        rounds=1, seconds=1, size=0, report_progress=lambda step, done: None,
    )  # fmt: skip
    run.execute()
    result = run.results["framework"]
    assert result.left_out == {}
    (ratio,) = result.ratios()
    round_figures = result.rounds[0]
    assert ratio["ratio"] == round_figures["microwsgi"]["cpu_us"] - round_figures[frameworks.PLAIN_WEBOB]["cpu_us"]
    assert frameworks.added_cpu_us({"microwsgi": round_figures["microwsgi"]}) is None


@pytest.mark.parametrize("row", ["upload", "chunked", "stream"])
def test_transfers_are_complete(row: str) -> None:
    run = throughput.Run(
        [throughput.ROWS[row]], ["microwsgi", "bare"], sys.executable,
        rounds=1, seconds=1, size=4 << 20, report_progress=lambda step, done: None,
    )  # fmt: skip
    run.execute()
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
        wait_for(lambda: len(processes_with(mark)) >= 4)  # the benchmarks, their client, two servers or more
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    wait_for(lambda: not processes_with(mark))


def processes_with(mark: str) -> list[str]:
    """Return the ids of the processes that have a variable in their environment."""
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
