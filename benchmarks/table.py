"""The results of the throughput part as a Markdown page: docs/figures.md."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import machine
from benchmarks.report import Report
from benchmarks.terminal import FIGURES, TRANSFERS, VERDICT_TEXTS, limit_text, range_text
from benchmarks.throughput import ROWS, Result
from benchmarks.wrk import Figures

HEAD = """\
# Figures

`python -m benchmarks throughput --table docs/{name}` writes this page; with `--rows` it updates some rows. Each row begins with
the date, commit, Python, versions and machine of its run. Then come, for each server, the two main figures: mostly requests per
second, and processor time per request. [Benchmarks](../benchmarks/README.md) explains how each figure is measured.

The table compares microwsgi with the other servers. A ratio of requests per second is microwsgi's figure divided by the other
server's; a ratio of a time, or of another cost, is the other server's figure divided by microwsgi's. So a ratio above 1 always
means that microwsgi is better. Each ratio is the median over all rounds, and its range is from the lowest round to the
highest. The *bar* is the target that the project must reach, the *aim* is a further target; ≥ is a lower limit, ≤ an upper
limit. A bar or an aim is reached or missed only if the whole range is on one side of it. The verdict is `noisy` if other
programs used the machine.
"""
COLUMNS = """
| compared | ratio or value | range | rounds | bar | aim | verdict |
|---|---|---|---|---|---|---|
"""
SHOWN = (
    "rate", "cpu_us", "p99", "seconds", "rss_kib", "kib_each", "wakeups", "core_percent", "scaling",
    "worst_percent", "median_percent", "alone_ms", "beside_ms", "added_ms",
)  # fmt: skip
"""Figures in order of precedence: the line of a subject shows the first two that it has."""
UNITS = {
    "rate": "/s", "cpu_us": " µs", "p99": " ms p99", "seconds": " s", "rss_kib": " KiB", "kib_each": " KiB each",
    "wakeups": " wake-ups/s", "core_percent": " % of a core", "scaling": " times one",
    "worst_percent": " % at worst", "median_percent": " % in the median",
    "alone_ms": " ms without events", "beside_ms": " ms with events", "added_ms": " ms added by events",
}  # fmt: skip
"""Units of the figures, as they follow the value."""


def write(path: Path, report: Report) -> Path:
    """Write the page. If it exists, keep its title, and the rows that are not in the report. Raise OSError."""
    head, sections = HEAD.format(name=path.name), {}
    if path.exists():
        old_head, *found = re.split(r"^## ", path.read_text("utf-8"), flags=re.MULTILINE)
        sections = {each.partition("\n")[0]: f"\n## {each.rstrip()}\n" for each in found}
        old_title = old_head.partition("\n")[0]
        if old_title.startswith("# "):
            head = old_title + "\n" + head.partition("\n")[2]
    for result in report.throughput.values():
        if result.names():
            sections[result.row.title] = section(result, machine.describe_row(report.machine, result.names()))
    titles = [row.title for row in ROWS.values()]
    path.write_text(head + "".join(sections[title] for title in titles if title in sections), "utf-8")
    return path


def section(result: Result, origin: str) -> str:
    """Return the section of a row: its origin, a line for each subject, and a table of the ratios."""
    subjects = "  \n".join(f"{name}: {figures(result, result.medians(name))}" for name in result.names())
    left_out = "".join(f"  \n{name} left out: {reason}" for name, reason in result.absences().items())
    lines = []
    noisy = result.too_noisy()
    for found in result.ratios():
        cells = [
            found["name"], f"{found['ratio']:.2f}", range_text(found), str(found["rounds"]),
            limit_text(found, "bar"), limit_text(found, "aim"), "noisy" if noisy else VERDICT_TEXTS[found["verdict"]],
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    table = (COLUMNS if lines else "") + "".join(f"{line}\n" for line in lines)
    noise = f"\nNoisy: {noisy}.\n" if noisy else ""
    return f"\n## {result.row.title}\n\n*{origin}*\n\n{subjects}{left_out}\n{noise}{table}"


def figures(result: Result, medians: Figures) -> str:
    """Return the two main figures of a subject as text."""
    labels = {**FIGURES, **(TRANSFERS if result.row.takes_size else {})}
    found = [name for name in SHOWN if name in medians and not (name == "seconds" and "rate" in medians)][:2]
    units = {**UNITS, **({"rate": " MB/s"} if result.row.takes_size else {})}
    return ", ".join(f"{medians[name] * labels[name][1]:{labels[name][2]}}{units[name]}" for name in found)
