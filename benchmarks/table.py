"""The throughput part as a page of Markdown: docs/figures.md."""

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

Made by `python -m benchmarks throughput --table docs/{name}`, or row by row with `--rows`: below each title stand the date, the
commit, the Python and the machine of the run; [how each figure is measured](../benchmarks/README.md). Then come requests per
second, and CPU time per request. The *bar* is the target that the project must reach, the *aim* is a further target. Each ratio
is the median over all rounds, and the range is from the lowest round to the highest; a ratio above 1 means that microwsgi is
better. A bar or an aim is reached or missed only if the whole range is on one side of it. The last column is the verdict; it is
`noisy` if other programs used the machine.
"""
COLUMNS = """
| compared | ratio or value | range | rounds | bar | aim | verdict |
|---|---|---|---|---|---|---|
"""
SHOWN = (
    "rate", "cpu_us", "p99", "seconds", "rss_kib", "kib_each", "wakeups", "core_percent", "scaling",
    "worst_percent", "median_percent",
)  # fmt: skip
"""Figures of which a subject's line has the first two that there are."""
UNITS = {
    "rate": "/s", "cpu_us": " µs", "p99": " ms p99", "seconds": " s", "rss_kib": " KiB", "kib_each": " KiB each",
    "wakeups": " wake-ups/s", "core_percent": " % of a core", "scaling": " times one",
    "worst_percent": " % at worst", "median_percent": " % in the median",
}  # fmt: skip


def write(path: Path, report: Report) -> Path:
    """Write the page. Rows that it has and this report has not stay as they are. Raises OSError."""
    sections = {}
    if path.exists():
        _, *found = re.split(r"^## ", path.read_text("utf-8"), flags=re.MULTILINE)
        sections = {each.partition("\n")[0]: f"\n## {each.rstrip()}\n" for each in found}
    for result in report.throughput.values():
        if result.names():
            sections[result.row.title] = section(result, machine.describe_row(report.machine, result.names()))
    titles = [row.title for row in ROWS.values()]
    path.write_text(
        HEAD.format(name=path.name) + "".join(sections[title] for title in titles if title in sections), "utf-8"
    )
    return path


def section(result: Result, origin: str) -> str:
    """A row of the run: its origin, who did how much, and a line for each ratio."""
    told = "  \n".join(f"{name}: {figures(result, result.medians(name))}" for name in result.names())
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
    return f"\n## {result.row.title}\n\n*{origin}*\n\n{told}{left_out}\n{noise}{table}"


def figures(result: Result, medians: Figures) -> str:
    """A subject's figures, the two that tell most."""
    labels = {**FIGURES, **(TRANSFERS if result.row.takes_size else {})}
    found = [name for name in SHOWN if name in medians and not (name == "seconds" and "rate" in medians)][:2]
    units = {**UNITS, **({"rate": " MB/s"} if result.row.takes_size else {})}
    return ", ".join(f"{medians[name] * labels[name][1]:{labels[name][2]}}{units[name]}" for name in found)
