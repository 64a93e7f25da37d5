"""The report: JSON and back, what changed, the tables, and the page with its pictures in a browser."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare, latency, throughput
from benchmarks.measuring import Measurement
from benchmarks.report import Report
from benchmarks.stacks import Depth
from microwsgi.devtools.stack import Frame, capture
from tests.programs import need, need_package
from tests.running import ROOT, environment, python

pytestmark = pytest.mark.slow  # of the benchmarks, not of the package

MACHINE: dict[str, Any] = {
    "date": "2026-01-01T00:00:00+00:00", "command": "python -m benchmarks", "commit": "abc", "versions": {"python": "3.13.0"},
    "system": "Linux", "processor": "A processor & <more>", "cores": 2, "memory_kib": 1 << 24, "load_before": 0.1,
    "server_cores": [0], "client_cores": [1],
}  # fmt: skip
SPEEDS = {"bare": 0.05, "microwsgi": 0.08, "werkzeug": 0.3, "gunicorn gthread": 0.15}  # milliseconds


def make_report(scale: float = 1.0, *, wait: float = 0.001) -> Report:
    """A report of a run that never was; ours is `scale` times as slow."""
    rng, report = random.Random(5), Report({**MACHINE})
    lines = {
        "lines": 180,
        "calls": 30,
        "owners": {"stdlib": 30, "server": 150},
        "files": ["a.py", "b.py"],
        "threads": 1,
    }
    for name, count in (("microwsgi", 3), ("Werkzeug", 9), ("Django", 20)):
        frames = [
            Frame("a.module", f"function_{n}", "a/module.py", n, ("stdlib", "server", "yours")[n % 3])
            for n in range(count)
        ]
        report.stacks[name] = Depth(name, frames, frames[-2:], {**lines, "lines": 60 * count})
    for workload in latency.WORKLOADS:
        result = report.latency[workload.name] = latency.Result(workload)
        for _ in range(5):
            result.rounds.append({})
            for name, speed in SPEEDS.items():
                each = speed * (scale if name == "microwsgi" else 1) * rng.uniform(0.98, 1.02) * 1e6
                result.add(
                    name, Measurement([int(each * rng.lognormvariate(0, 0.1)) for _ in range(400)], 0.3, each / 1e3)
                )
    for name in ("hello1", "hello8", "hello64", "file"):
        row = report.throughput[name] = throughput.Result(throughput.ROWS[name])
        row.rounds = [
            {
                each: {"rate": 1000 / speed, "cpu_us": speed * 500, "seconds": speed, "requests": 9.0}
                for each, speed in SPEEDS.items()
            }
            for _ in range(2)
        ]
    for _ in range(5):
        report.noise.add(50_000 * rng.uniform(0.98, 1.02), 90_000, wait)
    report.left_out = {"latency: bjoern": "not installed"}
    return report


def test_a_report_comes_back_from_its_file(tmp_path: Path) -> None:
    report = make_report()
    report.write(tmp_path / "new" / "report.json")
    again = Report.read(tmp_path / "new" / "report.json")
    assert json.dumps(again.as_json()) == json.dumps(report.as_json())


def test_another_file_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="not a report"):
        Report.read(tmp_path / "other.json")


def test_a_change_is_told_when_it_is_more_than_chance() -> None:
    same = {change.name: change.verdict for change in compare.changes(make_report(), make_report())}
    assert set(same.values()) == {"same"}
    slower = {(change.name, change.figure): change for change in compare.changes(make_report(), make_report(1.3))}
    found = slower["latency hello", "p50"]
    assert found.verdict == "worse"
    assert found.ratio == pytest.approx(1.3, rel=0.05)
    assert found.interval[0] < 1.3 < found.interval[1]
    quicker = {
        (change.name, change.figure): change.verdict for change in compare.changes(make_report(1.3), make_report())
    }
    assert quicker["latency hello", "p50"] == "better"


def test_a_change_within_the_spread_is_unsure() -> None:
    (found,) = compare.change("x", "p50", [100.0, 80.0, 120.0, 95.0], [110.0, 90.0, 125.0, 92.0])
    assert found.verdict == "unsure"
    assert list(compare.change("x", "p50", [], [1.0])) == []


@pytest.mark.parametrize(
    ("ratio", "interval", "peers", "verdict"),
    [
        (1.3, (1.2, 1.4), 1.0, "worse"),
        (1.3, (1.2, 1.4), None, "worse"),
        (1.3, (1.2, 1.4), 1.25, "machine"),  # they became as slow
        (1.3, (1.2, 1.4), 1.6, "machine"),  # or slower
        (1.3, (1.2, 1.4), 0.8, "worse"),
        (0.7, (0.6, 0.8), 1.0, "better"),
        (0.7, (0.6, 0.8), 0.5, "machine"),
        (1.3, (0.9, 1.4), 1.0, "unsure"),
        (1.01, (1.005, 1.015), 1.0, "same"),
    ],
)
def test_what_the_peers_did_too_is_the_machines_doing(
    ratio: float, interval: tuple[float, float], peers: float | None, verdict: str
) -> None:
    assert compare.verdict_of(ratio, interval, peers) == verdict


def test_a_peer_of_another_version_is_no_control() -> None:
    old, new = make_report(), make_report()
    new.machine["versions"] = {"python": "3.13.0", "werkzeug": "9"}
    assert "werkzeug" in compare.same_peers(old, old)
    assert "werkzeug" not in compare.same_peers(old, new)
    assert "microwsgi" not in compare.same_peers(old, old)
    assert compare.control({"bare": [2.0], "x": [1.0]}, {"bare": [3.0], "x": [9.0]}, {"bare"}) == 1.5


def test_runs_of_different_rows_and_machines_are_compared_as_far_as_they_go() -> None:
    old, new = make_report(), make_report(1.3, wait=0.4)
    del old.latency["json"], new.throughput["hello64"]
    new.machine = {**MACHINE, "processor": "Another", "versions": {"python": "3.14.0"}}
    found = compare.changes(old, new)
    assert {("latency hello", "p50"), ("hello8", "cpu_us")} <= {(each.name, each.figure) for each in found}
    assert not [each for each in found if each.name in ("latency json", "hello64")]
    assert compare.only_in(new, old) == ["latency json"]
    assert compare.only_in(old, new) == ["hello64"]
    told = "; ".join(compare.differences(old, new))
    assert "another Python: 3.13.0 before, 3.14.0 now" in told
    assert "another processor" in told
    assert "the new run was too noisy" in told
    assert compare.differences(old, old) == []


def test_a_figure_is_only_shown_when_there_is_enough_behind_it() -> None:
    result = make_report().latency["hello"]
    assert result.figure("microwsgi", "p99")  # 20 of 2,000 lie beyond
    assert result.figure("microwsgi", "p999") is None
    assert result.figure("nobody", "p50") is None


def printed(report: Report) -> str:
    console = pytest.importorskip("rich.console")
    from benchmarks import terminal  # needs rich

    out = console.Console(width=120, record=True, file=open("/dev/null", "w"))
    with out.file:
        terminal.show(out, report)
    return str(out.export_text())


def test_a_quiet_run_has_a_verdict() -> None:
    text = printed(make_report())
    assert re.search(r"p50 of werkzeug's: 0\.2\d \(0\.2\d-0\.2\d\)  quicker", text)
    assert "too noisy" not in text
    assert "bjoern left out: not installed" in text


def test_a_noisy_run_says_so_and_has_none() -> None:
    text = printed(make_report(wait=0.4))
    assert "too noisy for a verdict: 40% of the time was spent waiting for a core" in text
    assert "quicker" not in text
    assert "no verdict" in text


def test_verdicts_of_a_busy_machine_are_in_brackets() -> None:
    report = make_report()
    assert "(bar missed)" not in printed(report)
    for round_figures in report.throughput["hello8"].rounds:
        for figures in round_figures.values():
            figures["foreign"] = 0.3
    text = printed(report)
    assert "others used 30% of the cores" in text
    assert "(bar missed)" in text


def test_the_table_for_the_docs_has_every_ratio_beside_its_bar(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    report = make_report()
    for round_figures in report.throughput["hello64"].rounds:
        round_figures["microwsgi"]["foreign"] = 0.3
    written = tmp_path / "figures.md"
    report.write(tmp_path / "a.json")
    command = [sys.executable, "-m", "benchmarks", "--from", str(tmp_path / "a.json"), "--table", str(written)]
    subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, check=True)
    _, quiet, noisy, last, file = re.split("^## ", written.read_text(), flags=re.MULTILINE)
    assert last.startswith("hello world, 1 connection, keep-alive\n")
    assert "\n*2026-01-01T00:00:00+00:00, commit abc, Python 3.13.0; A processor & <more>, 2 cores, Linux*\n" in quiet
    assert "microwsgi: 12,500/s, 40.0 µs  \n" in quiet
    assert "| of bare, processor time | 0.62 |  | 2 | ≥ 0.38 | ≥ 0.5 | aim reached |" in quiet
    assert "| of werkzeug, requests/s | 3.75 |  | 2 | ≥ 20 | ≥ 30 | bar missed |" in quiet
    assert "| of bare, processor time | 0.62 |  | 2 | ≥ 0.45 | ≥ 0.55 | noisy |" in noisy
    assert "missed" not in noisy
    assert "of bare, time" in file


def test_the_table_keeps_the_rows_that_were_not_measured_now(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    from benchmarks import table

    written, first, second = tmp_path / "figures.md", make_report(), make_report(2.0)
    first.machine = {
        **MACHINE,
        "commit": "first",
        "versions": {"python": "3.11.2", "granian": "1.0", "gunicorn": "2.0"},
    }
    second.machine = {**MACHINE, "commit": "second"}
    second.throughput = {name: second.throughput[name] for name in ("hello64", "file")}
    second.throughput["hello1"] = throughput.Result(throughput.ROWS["hello1"])  # interrupted before its first round
    table.write(written, first)
    once = written.read_text()
    table.write(written, first)
    assert written.read_text() == once
    table.write(written, second)
    head, *sections = re.split("^## ", written.read_text(), flags=re.MULTILINE)
    assert head == once.partition("## ")[0]
    assert "--table docs/figures.md`" in head
    titles = [section.partition("\n")[0] for section in sections]
    assert titles == [throughput.ROWS[name].title for name in ("hello8", "hello64", "hello1", "file")]
    commits = [re.findall("commit ([a-z]+), Python", section) for section in sections]
    assert commits == [["first"], ["second"], ["first"], ["second"]]
    assert "Python 3.11.2; gunicorn 2.0; A processor" in sections[0]
    assert sections[0] == re.split("^## ", once, flags=re.MULTILINE)[1]


def test_each_row_of_the_committed_figures_says_when_and_of_which_commit_it_is() -> None:
    pytest.importorskip("rich")
    from benchmarks import table

    text = (ROOT / "docs" / "figures.md").read_text()
    assert text.startswith(table.HEAD.format(name="figures.md"))
    titles = {row.title for row in throughput.ROWS.values()}
    for section in re.split("^## ", text, flags=re.MULTILINE)[1:]:
        assert section.partition("\n")[0] in titles
        assert re.search(r"\A.+\n\n\*\d{4}-\S+, commit (?!\S*dirty)\S+, Python \d.+\*\n\n", section), section


def test_the_committed_picture_of_stacks_has_every_subject() -> None:
    pytest.importorskip("matplotlib")
    from benchmarks import pictures, readme, stacks

    assert set(readme.STACKS) <= set(pictures.TOWERS) <= {subject.name for subject in stacks.SUBJECTS}
    drawn = (ROOT / "docs" / "stacks.svg").read_text()
    assert [name for name in readme.STACKS if f'id="stacks-frame-{pictures.slug(name)}-0"' not in drawn] == []


def test_why_a_peer_is_missing_stands_below_its_table_and_squeezes_no_bar() -> None:
    report, reason = make_report(), "ValueError: answered 200 '0', not 200 with '65536'"
    bars = printed(report).count("█")
    report.latency["upload"].left_out["wsgiref"] = reason
    text = printed(report)
    assert text.count("█") == bars
    assert f"wsgiref left out: {reason}\n" in text
    assert report.failures() == {}


def test_one_slow_server_does_not_flatten_the_others_bars() -> None:
    pytest.importorskip("rich")
    from benchmarks import terminal

    longest = terminal.longest_bar([0.1, 0.2, 0.4, 1000.0])
    assert longest == 0.4
    assert terminal.bar(0.2, longest) == "█" * 10
    assert terminal.bar(1000.0, longest) == "█" * 19 + "▶"


OWN_FAILURES = {
    "stacks: microwsgi, App": "its view answered 500",
    "latency, hello: microwsgi": "ended with status 3",
    "throughput, hello8: bare": "wrk said [nothing]",
}


def broken() -> Report:
    """A report in which subjects of ours are missing, one in each part, and a peer in each too."""
    report = make_report()
    report.left_out |= {
        "stacks: microwsgi, App": OWN_FAILURES["stacks: microwsgi, App"],
        "stacks: Flask": "not installed",
    }
    report.latency["hello"].left_out |= {"microwsgi": "ended with status 3", "granian": "not installed"}
    report.throughput["hello8"].left_out |= {"bare": "wrk said [nothing]", "bjoern": "not installed"}
    return report


def test_a_subject_of_ours_that_is_missing_is_a_failure_not_left_out() -> None:
    assert broken().failures() == OWN_FAILURES
    text = printed(broken()).replace("\n", " ")
    for where, reason in OWN_FAILURES.items():
        assert f"FAILED {where}: {reason}" in text
        assert f"{where.rpartition(': ')[2]} left out" not in text
    assert text.count("left out: not installed") == 4  # the peers, and the one of made()


def test_a_failure_of_ours_stands_at_the_head_of_the_page_and_is_the_exit_status(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    for report, status in ((make_report(), 0), (broken(), 1)):
        report.write(tmp_path / "report.json")
        command = [
            sys.executable,
            "-m",
            "benchmarks",
            "--from",
            f"{tmp_path}/report.json",
            "--html",
            f"{tmp_path}/page.html",
        ]
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), check=False)
        assert run.returncode == status, run.stderr
    head = (tmp_path / "page.html").read_text().partition("<h2>")[0]
    assert all(reason in head for reason in OWN_FAILURES.values())
    assert "not installed" not in head


def test_the_page_has_every_picture_with_its_data_and_asks_the_network_for_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    need_package("playwright")
    from playwright.sync_api import sync_playwright

    from benchmarks import page  # needs matplotlib

    chromium, report = need("chromium"), make_report()
    page.write(tmp_path / "page.html", report, make_report(1.3))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        asked: list[str] = []
        inks = set()
        for theme in ("light", "dark"):
            tab = browser.new_page(color_scheme=theme)
            tab.on("request", lambda request: asked.append(request.url))
            tab.goto(f"file://{tmp_path}/page.html")
            pictures = tab.evaluate(
                "[...document.querySelectorAll('figure svg')].map(svg => [svg.id, svg.getBoundingClientRect().height, "
                "svg.getAttribute('aria-label')])"
            )
            assert [name for name, _, _ in pictures] == ["towers", "lines", "percentiles", "violins", "throughput"]
            assert all(height > 100 and label for _, height, label in pictures)
            drawn = tab.evaluate(
                "Object.fromEntries([...document.querySelectorAll('figure svg [id]')].map(each => [each.id, "
                "each.getBoundingClientRect().width]))"
            )
            for series in expected(report):
                assert drawn.get(series, 0) > 1, series
            inks.add(tab.evaluate("getComputedStyle(document.querySelector('#towers text')).fill"))
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert len(inks) == 2  # the ink of dark is not that of light
        assert asked == [f"file://{tmp_path}/page.html"] * 2
        browser.close()


def expected(report: Report) -> list[str]:
    """The ids of all series that the pictures of a report must have."""
    names = ("bare", "microwsgi", "werkzeug", "gunicorn-gthread")
    return [
        *(
            f"towers-frame-{name}-{level}"
            for name, count in (("microwsgi", 3), ("django", 20))
            for level in range(count)
        ),
        *(f"lines-lines-{name}-server" for name in ("microwsgi", "werkzeug", "django")),
        *(f"percentiles-percentiles-{workload}-{name}" for workload in report.latency for name in names),
        *(f"violins-violin-{workload}-{name}" for workload in ("hello", "form", "traceback") for name in names),
        *(f"throughput-throughput-{name}" for name in names),
    ]


def test_text_of_others_is_escaped_in_the_page() -> None:
    pytest.importorskip("matplotlib")
    from benchmarks import page

    report = Report({**MACHINE})
    report.stacks["<b>"] = Depth("<b>", capture(), [], None)
    text = page.html(report)
    assert "A processor &amp; &lt;more&gt;" in text
    assert "<b>:" not in text


def test_the_readmes_pictures_follow_the_readers_theme(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks import pictures, readme

    written = readme.write(tmp_path, make_report())
    assert [path.name for path in written] == ["stacks.svg", "latency.svg"]
    for path in written:
        text = path.read_text()
        assert text.startswith("<svg")
        assert "prefers-color-scheme:dark" in text
        assert not any(colour in text for colour in pictures.NAMES)


def test_the_readmes_pictures_can_be_read_on_a_telephone(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    need_package("playwright")
    from playwright.sync_api import sync_playwright

    from benchmarks import readme

    chromium, wanted = (
        need("chromium"),
        {"stacks": "stacks-frame-django-19", "latency": "latency-percentiles-form-werkzeug"},
    )
    readme.write(tmp_path, make_report())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        for name, series in wanted.items():
            tab = browser.new_page(viewport={"width": 360, "height": 800})
            svg = (tmp_path / f"{name}.svg").read_text()
            tab.set_content(f"<style>svg {{ width: 328px; height: auto }}</style>{svg}")
            heights = tab.evaluate(
                "[...document.querySelectorAll('text')].map(each => each.getBoundingClientRect().height)"
            )
            assert len(heights) > 5
            assert min(heights) >= 10, name  # pixels, from the ascent to the descent
            assert tab.evaluate("id => document.getElementById(id).getBoundingClientRect().width", series) > 1
        browser.close()


def test_the_command_shows_an_earlier_report_and_what_changed(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    make_report().write(tmp_path / "old.json")
    make_report(1.3).write(tmp_path / "new.json")
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--from",
        str(tmp_path / "new.json"),
        "--compare",
        str(tmp_path / "old.json"),
    ]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), check=True)
    assert "changes since 2026-01-01" in run.stdout
    assert re.search(r"latency hello +p50 ms .* worse", run.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "there is no part nothing"),
        (["latency", "--workloads", "x"], "there is no 'x'"),
        (["throughput", "--table", "unused.md", "--rounds", "5"], "--table takes 6 rounds or more"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(arguments: list[str], message: str) -> None:
    pytest.importorskip("rich")
    command = [sys.executable, "-m", "benchmarks", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), check=False)
    assert run.returncode == 1
    assert message in run.stderr


@pytest.mark.parametrize("package", ["rich", "matplotlib"])
def test_a_package_that_is_not_installed_is_named_with_the_command_that_installs_it(
    tmp_path: Path, package: str
) -> None:
    if package == "matplotlib":
        pytest.importorskip("rich")
    make_report().write(tmp_path / "a.json")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    command = python("-m", "benchmarks", "--from", f"{tmp_path}/a.json", "--html", f"{tmp_path}/page.html")
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment(PYTHONPATH=str(tmp_path)), check=False
    )
    assert run.returncode == 1
    assert run.stderr.startswith(f"The benchmarks need the package {package}")
    assert run.stderr.endswith("with: make bench\n")
