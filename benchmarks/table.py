"""The throughput part as a page of Markdown: docs/figures.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks import machine
from benchmarks.noise import FOREIGN_LIMIT
from benchmarks.report import Report
from benchmarks.terminal import FIGURES, TRANSFERS, WORDS, limit, spread
from benchmarks.throughput import Result
from benchmarks.wrk import Figures

HEAD = """\
# Figures

Made by `{command} --table {path}`; [how each figure is measured](../benchmarks/README.md). Under each
title: requests per second, and CPU time per request. The *bar* is the target that the project must reach, the *aim* is a
further target. Each ratio is the median over all rounds, and the range is that of the rounds; a ratio above 1 means that
microwsgi is better. The last column is the verdict; it is `noisy` if other programs used the machine.

{machine}
"""
COLUMNS = """
| compared | ratio or value | range | bar | aim | verdict |
|---|---|---|---|---|---|
"""
SHOWN = ("rate", "cpu_us", "p99", "seconds", "rss_kib", "kib_each", "wakeups", "core_percent", "scaling")
"""Figures of which a subject's line has the first two that there are."""
SHORT = {
    "rate": "/s", "cpu_us": " µs", "p99": " ms p99", "seconds": " s", "rss_kib": " KiB", "kib_each": " KiB each",
    "wakeups": " wake-ups/s", "core_percent": " % of a core", "scaling": " times one",
}  # fmt: skip


def write(path: Path, report: Report) -> Path:
    """The page. Raises OSError."""
    command = report.machine["command"].partition(" --")
    told = machine.in_words(report.machine).replace("\n", "  \n")
    text = HEAD.format(command=command[0], path=path, machine=told)
    path.write_text(text + "".join(section(result) for result in report.throughput.values()), "utf-8")
    return path


def section(result: Result) -> str:
    """A row of the run: who did how much, and a line for each ratio."""
    told = "  \n".join(f"{name}: {figures(result, result.medians(name))}" for name in result.names())
    lines = []
    noisy = result.foreign() > FOREIGN_LIMIT
    for found in result.ratios():
        cells = [
            found["name"], f"{found['ratio']:.2f}", spread(found), limit(found, "bar"), limit(found, "aim"),
            "noisy" if noisy else WORDS[found["verdict"]],
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return f"\n## {result.row.title}\n\n{told}\n{COLUMNS if lines else ''}" + "".join(f"{line}\n" for line in lines)


def figures(result: Result, medians: Figures) -> str:
    """A subject's figures, the two that tell most."""
    labels = {**FIGURES, **(TRANSFERS if result.row.sized else {})}
    found = [name for name in SHOWN if name in medians and not (name == "seconds" and "rate" in medians)][:2]
    units = {**SHORT, **({"rate": " MB/s"} if result.row.sized else {})}
    return ", ".join(f"{medians[name] * labels[name][1]:{labels[name][2]}}{units[name]}" for name in found)
