"""The report: JSON, comparison with an earlier report, tables, and the HTML page with its pictures in a browser."""

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
    """Return an invented report, in which microwsgi is slower by the factor `scale`."""
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


def test_a_report_is_read_back_from_its_file(tmp_path: Path) -> None:
    report = make_report()
    report.write(tmp_path / "new" / "report.json")
    again = Report.read(tmp_path / "new" / "report.json")
    assert json.dumps(again.as_json()) == json.dumps(report.as_json())


def test_reading_a_file_that_is_no_report_fails(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="not a report"):
        Report.read(tmp_path / "other.json")


def test_a_change_larger_than_chance_gets_a_verdict() -> None:
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
        (1.3, (1.2, 1.4), 1.25, "machine"),  # the peers became as slow
        (1.3, (1.2, 1.4), 1.6, "machine"),  # or slower
        (1.3, (1.2, 1.4), 0.8, "worse"),
        (0.7, (0.6, 0.8), 1.0, "better"),
        (0.7, (0.6, 0.8), 0.5, "machine"),
        (1.3, (0.9, 1.4), 1.0, "unsure"),
        (1.01, (1.005, 1.015), 1.0, "same"),
    ],
)
def test_a_change_that_peers_share_is_attributed_to_the_machine(
    ratio: float, interval: tuple[float, float], peers: float | None, verdict: str
) -> None:
    assert compare.verdict_of(ratio, interval, peers) == verdict


def test_peers_of_another_version_are_no_control_group() -> None:
    old, new = make_report(), make_report()
    new.machine["versions"] = {"python": "3.13.0", "werkzeug": "9"}
    assert "werkzeug" in compare.same_peers(old, old)
    assert "werkzeug" not in compare.same_peers(old, new)
    assert "microwsgi" not in compare.same_peers(old, old)
    assert compare.control({"bare": [2.0], "x": [1.0]}, {"bare": [3.0], "x": [9.0]}, {"bare"}) == 1.5


def test_runs_are_compared_in_common_rows_and_other_machines_are_named() -> None:
    old, new = make_report(), make_report(1.3, wait=0.4)
    del old.latency["json"], new.throughput["hello64"]
    new.machine = {**MACHINE, "processor": "Another", "versions": {"python": "3.14.0"}}
    found = compare.changes(old, new)
    assert {("latency hello", "p50"), ("hello8", "cpu_us")} <= {(each.name, each.figure) for each in found}
    assert not [each for each in found if each.name in ("latency json", "hello64")]
    assert compare.only_in(new, old) == ["latency json"]
    assert compare.only_in(old, new) == ["hello64"]
    reasons = "; ".join(compare.differences(old, new))
    assert "different Python: 3.13.0 before, 3.14.0 now" in reasons
    assert "different processor" in reasons
    assert "the new run was too noisy" in reasons
    assert compare.differences(old, old) == []


def test_a_percentile_with_too_few_observations_is_not_shown() -> None:
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
    assert re.search(r"p50 relative to werkzeug: 0\.2\d \(0\.2\d-0\.2\d\)  faster", text)
    assert "too noisy" not in text
    assert "bjoern left out: not installed" in text


def test_a_noisy_run_has_a_warning_and_no_verdict() -> None:
    text = printed(make_report(wait=0.4))
    assert "too noisy for a verdict: 40% of the time was spent waiting for a core" in text
    assert "faster" not in text
    assert "no verdict" in text


def test_verdicts_from_a_busy_machine_are_in_parentheses() -> None:
    report = make_report()
    assert "(bar missed)" not in printed(report)
    for round_figures in report.throughput["hello8"].rounds:
        for figures in round_figures.values():
            figures["foreign"] = 0.3
    text = printed(report)
    assert "other processes used 30% of the cores" in text
    assert "(bar missed)" in text


def test_the_markdown_page_has_each_ratio_with_its_bar(tmp_path: Path) -> None:
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


def test_the_markdown_page_keeps_rows_that_are_not_in_the_report(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("old", "title"),
    [
        ("# Figures of a profile-guided Python\n\nAn outdated paragraph.\n", "# Figures of a profile-guided Python"),
        ("no title\n", "# Figures"),
        ("", "# Figures"),
    ],
)
def test_the_markdown_page_keeps_its_title(tmp_path: Path, old: str, title: str) -> None:
    pytest.importorskip("rich")
    from benchmarks import table

    page = tmp_path / "figures-profile-guided.md"
    page.write_text(old)
    for _ in range(2):
        table.write(page, make_report())
        head = page.read_text().partition("\n## ")[0]
        assert head.partition("\n")[0] == title
        assert head.partition("\n")[2] == table.HEAD.format(name=page.name).partition("\n")[2]


def test_the_row_fanout_shows_the_worst_request_with_and_without_events() -> None:
    pytest.importorskip("rich")
    from benchmarks import table

    report = Report({**MACHINE})
    result = report.throughput["fanout"] = throughput.Result(throughput.ROWS["fanout"])
    result.rounds = [{"microwsgi": {"alone_ms": 1.5, "beside_ms": 9.25, "added_ms": 7.75}}]
    assert "\nmicrowsgi: 1.5 ms without events, 9.2 ms with events\n" in table.section(result, "origin")
    text = printed(report)
    assert re.search("max ms without events +max ms with events +ms added", text)
    assert re.search(r"microwsgi +1\.5 +9\.2 +7\.8", text)


def test_each_row_of_the_committed_figures_has_a_date_and_a_commit() -> None:
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


def test_the_reason_for_a_missing_peer_is_below_its_table() -> None:
    report, reason = make_report(), "ValueError: answered 200 '0', not 200 with '65536'"
    bars = printed(report).count("█")
    report.latency["upload"].left_out["wsgiref"] = reason
    text = printed(report)
    assert text.count("█") == bars
    assert f"wsgiref left out: {reason}\n" in text
    assert report.failures() == {}


def test_one_slow_server_does_not_shorten_the_bars_of_the_others() -> None:
    pytest.importorskip("rich")
    from benchmarks import terminal

    longest = terminal.longest_bar([0.1, 0.2, 0.4, 1000.0])
    assert longest == 0.4
    assert terminal.bar(0.2, longest) == "█" * 10
    assert terminal.bar(1000.0, longest) == "█" * 19 + "▶"


OWN_FAILURES = {
    "stacks: microwsgi, App": "the view responded with status 500",
    "latency, hello: microwsgi": "ended with status 3",
    "throughput, hello8: bare": "wrk printed [nothing]",
}


def broken() -> Report:
    """Return a report in which each part lacks one of the project's own subjects and one peer."""
    report = make_report()
    report.left_out |= {
        "stacks: microwsgi, App": OWN_FAILURES["stacks: microwsgi, App"],
        "stacks: Flask": "not installed",
    }
    report.latency["hello"].left_out |= {"microwsgi": "ended with status 3", "granian": "not installed"}
    report.throughput["hello8"].left_out |= {"bare": "wrk printed [nothing]", "bjoern": "not installed"}
    return report


def test_a_missing_subject_of_the_project_is_a_failure() -> None:
    assert broken().failures() == OWN_FAILURES
    text = printed(broken()).replace("\n", " ")
    for where, reason in OWN_FAILURES.items():
        assert f"FAILED {where}: {reason}" in text
        assert f"{where.rpartition(': ')[2]} left out" not in text
    assert text.count("left out: not installed") == 4  # the peers, and the one of made()


def test_a_failure_is_at_the_head_of_the_page_and_sets_the_exit_status(tmp_path: Path) -> None:
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


def test_the_page_has_all_pictures_with_their_data_and_no_network_requests(tmp_path: Path) -> None:
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
        assert len(inks) == 2  # the colour of text differs between the themes
        assert asked == [f"file://{tmp_path}/page.html"] * 2
        browser.close()


def expected(report: Report) -> list[str]:
    """Return the ids of all series that the pictures of a report must contain."""
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


def test_names_are_escaped_in_the_page() -> None:
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


def test_the_readmes_pictures_are_legible_on_a_phone(tmp_path: Path) -> None:
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


def test_the_command_shows_a_report_and_its_changes(tmp_path: Path) -> None:
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
        (["nothing"], "Unknown part nothing. Choose from: stacks, latency, throughput"),
        (["latency", "--workloads", "x"], "Unknown name 'x'. Choose from: hello,"),
        (["throughput", "--table", "unused.md", "--rounds", "5"], "--table needs 6 rounds or more"),
    ],
)
def test_the_message_for_an_invalid_argument_names_the_valid_ones(arguments: list[str], message: str) -> None:
    pytest.importorskip("rich")
    command = [sys.executable, "-m", "benchmarks", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), check=False)
    assert run.returncode == 1
    assert message in run.stderr


@pytest.mark.parametrize("package", ["rich", "matplotlib"])
def test_the_message_for_a_missing_package_names_the_command_that_installs_it(tmp_path: Path, package: str) -> None:
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
    assert run.stderr.endswith("run the benchmarks: make bench\n")
