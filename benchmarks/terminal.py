"""The report on the terminal: tables with bar charts. Verdicts of noisy rows are in parentheses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from benchmarks import machine, throughput
from benchmarks.compare import Change, changes, differences, explanation, only_in
from benchmarks.latency import OURS, PEER, Result
from benchmarks.report import Report
from benchmarks.stacks import Depth

FIGURES: dict[str, tuple[str, float, str]] = {
    "rate": ("requests/s", 1, ",.0f"),
    "cpu_us": ("CPU µs/request", 1, ".1f"),
    "of_core": ("connections/s of a core", 1, ",.0f"),
    "p50": ("p50 ms", 1e3, ".3f"),
    "p90": ("p90 ms", 1e3, ".3f"),
    "p99": ("p99 ms", 1e3, ".2f"),
    "p999": ("p99.9 ms", 1e3, ".2f"),
    "max": ("max ms", 1e3, ".1f"),
    "seconds": ("seconds", 1, ".3f"),
    "cpu_s": ("CPU s", 1, ".3f"),
    "alone_p50": ("p50 ms alone", 1e3, ".3f"),
    "grown_kib": ("KiB added", 1, ",.0f"),
    "rss_kib": ("resident KiB", 1, ",.0f"),
    "kib_each": ("KiB each", 1, ".2f"),
    "wakeups": ("wake-ups/s", 1, ".1f"),
    "core_percent": ("% of a core", 1, ".3f"),
    "scaling": ("times one", 1, ".2f"),
    "worst_percent": ("busier worker, worst %", 1, ".0f"),
    "median_percent": ("busier worker, median %", 1, ".0f"),
    "alone_ms": ("max ms without events", 1, ".1f"),
    "beside_ms": ("max ms with events", 1, ".1f"),
    "added_ms": ("ms added", 1, ".1f"),
    "resumed_percent": ("% resumed", 1, ".0f"),
    "errors": ("errors", 1, ".0f"),
}
"""For each figure its heading, a factor and a format, in the order of the columns."""
TRANSFERS = {"rate": ("MB/s", 1e-6, ",.0f")}
LATENCIES = ("p50", "p90", "p99", "p999", "max", "cpu_us")
VERDICT_STYLES = {
    "aim": "green", "bar": "yellow", "below": "red", "short": "yellow", "within": "dim", "near": "dim",
    "better": "green", "worse": "red",
}  # fmt: skip
VERDICT_TEXTS = {
    "aim": "aim reached", "bar": "bar reached", "within": "bar within the range", "below": "bar missed",
    "near": "aim within the range", "short": "aim missed", "": "",
}  # fmt: skip
UNDECIDED = ("within", "near")
HIGHER_IS_BETTER = ("rate", "of_core", "scaling")  # figures of which more is better
OWNER_STYLES = {"stdlib": "bright_black", "server": "blue", "framework": "yellow", "yours": "green"}
BAR_WIDTH = 20  # characters of the longest bar
# Bars longer than this times the median are cut, so that one slow server does not shorten the others to nothing.
OUTLIER_FACTOR = 10
ABOUT_LATENCY = (
    "Measured by this project's client, from sending the request to the last byte of the response. Figures are medians of "
    "{rounds} rounds; range: the lowest and the highest p50. CPU: the server's processor time per request, as counted by the "
    "kernel. bare: a socket that sends a fixed response, which shows the share of the client and the kernel. A percentile with "
    "too few responses above it is not shown.\n"
)
ABOUT_THROUGHPUT = (
    "Measured by wrk with one thread; server and client have a core each. Figures are medians of the rounds. The second table "
    "of a row compares microwsgi with the others: the median and the range of the ratios of the rounds. A ratio above 1 means "
    "that microwsgi is better. Values with a limit of ≤ are better if they are lower. The bar is the target that the project "
    "must reach, the aim is a further target. Either is reached or missed only if the whole range is on one side of it.\n"
)


def show(console: Console, report: Report) -> None:
    """Print the report, part by part; failures come last, so that they are not overlooked."""
    console.print(machine.describe_run(report.machine), highlight=False)
    console.print()
    if report.stacks:
        console.print(stacks(report))
    if report.latency:
        rounds = max(len(result.rounds) for result in report.latency.values())
        console.print("[bold]Latency[/]")
        console.print(ABOUT_LATENCY.format(rounds=rounds), style="dim", highlight=False)
    for result in report.latency.values():
        console.print(latency(result))
        print_absences(console, result.absences())
        console.print(ratio_to_peer(result, report.noise.too_noisy()), highlight=False)
        console.print()
    if report.latency:
        console.print(noise(report), highlight=False)
    if report.throughput:
        console.print("[bold]Throughput and cost[/]")
        console.print(ABOUT_THROUGHPUT, style="dim", highlight=False)
    for row in report.throughput.values():
        console.print(figures_table(row) if row.names() else f"[bold]{row.row.title}[/]")
        print_absences(console, row.absences())
        console.print(ratios_table(row))
    print_absences(console, report.absences())
    for where, reason in report.failures().items():
        console.print(f"[bold red]FAILED[/] {escape(where)}: {escape(reason)}", highlight=False)


def print_absences(console: Console, absences: dict[str, str]) -> None:
    """Print a line for each peer that was not measured."""
    for name, reason in absences.items():
        console.print(f"[dim]{escape(name)} left out: {escape(reason)}[/]", highlight=False)


def plain_table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")


def style_of(name: str) -> str:
    return "bold" if name.startswith(OURS) else ""


def stacks(report: Report) -> Group:
    """Return a table of the stacks: a bar for each subject, one character per frame, coloured by owner."""
    table = plain_table("Stack frames from the start of the thread to your function")
    table.add_column("", min_width=26)
    for heading in ("frames", "traceback", "lines", "files"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for name, depth in report.stacks.items():
        lines = depth.lines or {}
        table.add_row(
            name, str(len(depth.frames)), str(len(depth.traceback)), str(lines.get("lines", "")),
            str(len(lines["files"])) if lines else "", tower(depth), style=style_of(name),
        )  # fmt: skip
    legend = Text.assemble(*((f"█ {owner}  ", style) for owner, style in OWNER_STYLES.items()))
    explained = Text(
        "lines: the lines that a debugger steps through from the socket to the view. files: the files that contain them. "
        "Compiled code has neither.\n",
        style="dim",
    )
    return Group(table, legend, explained)


def tower(depth: Depth) -> Text:
    return Text.assemble(*(("█", OWNER_STYLES[frame.owner]) for frame in depth.frames))


def latency(result: Result) -> Table:
    """Return a table with a line for each subject: the medians of the rounds, and the range of p50."""
    table = plain_table(result.workload.title)
    table.add_column("", min_width=18)
    for figure in LATENCIES:
        table.add_column(FIGURES[figure][0], justify="right")
        if figure == "p50":
            table.add_column("range", justify="right", style="dim")
    table.add_column("p50: less is better", no_wrap=True)
    names = result.names()
    longest = longest_bar([found[0] for name in names if (found := result.figure(name, "p50"))])
    for name in names:
        cells = []
        for figure in LATENCIES:
            _, factor, form = FIGURES[figure]
            found = result.figure(name, figure)
            cells.append(format(found[0] * factor, form) if found else "")
            if figure == "p50":
                cells.append("-".join(format(bound * factor, form) for bound in found[1]) if found else "")
        found = result.figure(name, "p50")
        table.add_row(name, *cells, bar(found[0] if found else 0, longest), style=style_of(name))
    return table


def longest_bar(values: Sequence[float]) -> float:
    """Return the value of the longest bar: the largest one that is not an outlier."""
    return max((value for value in values if value <= OUTLIER_FACTOR * median(values)), default=0)


def bar(value: float, longest: float) -> str:
    """Return a bar with a resolution of an eighth of a character; if the value is too large, a bar that ends with an arrow."""
    if value > longest:
        return "█" * (BAR_WIDTH - 1) + "▶"
    eighths = round(BAR_WIDTH * 8 * value / longest) if longest else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def ratio_to_peer(result: Result, too_noisy: str) -> str:
    """Return the ratio of microwsgi's median latency to Werkzeug's, with a verdict unless the machine was too noisy."""
    found = result.ratio(OURS, "p50")
    if not found:
        return ""
    ratio, (low, high) = found
    text = f"p50 relative to {PEER}: {ratio:.2f} ({low:.2f}-{high:.2f})"
    if too_noisy:
        return f"[dim]{text}, no verdict: the machine was too noisy[/]"
    if high < 1:
        return f"{text}  [green]faster[/]"
    return f"{text}  [red]slower[/]" if low > 1 else f"{text}  no significant difference"


def noise(report: Report) -> str:
    """Return a line about the noise of the machine."""
    found = report.noise
    waiting = f"{found.wait():.1%} of the time was spent waiting for a core"
    line = f"noise: the bare socket's medians spread by {found.spread():.0%}; {waiting}"
    if reason := found.too_noisy():
        return f"[red]too noisy for a verdict[/]: {reason}\n"
    return f"[dim]{line}[/]\n"


def figures_table(result: throughput.Result) -> Table:
    """Return a table with a line for each subject: its medians, and a bar that shows the first one."""
    names = result.names()
    medians = {name: result.medians(name) for name in names}
    seen = {figure for found in medians.values() for figure in found}
    if "requests" in seen:  # then "seconds" is the duration of the load, not a result
        seen.discard("seconds")
    if not any(found.get("errors") for found in medians.values()):
        seen.discard("errors")
    labels = {**FIGURES, **(TRANSFERS if result.row.takes_size else {})}
    shown = [figure for figure in labels if figure in seen]
    table = plain_table(result.row.title)
    table.add_column("", min_width=18)
    for figure in shown:
        table.add_column(labels[figure][0], justify="right")
    table.add_column("more is better" if shown[0] in HIGHER_IS_BETTER else "less is better", no_wrap=True)
    longest = max(found.get(shown[0], 0) for found in medians.values())
    for name in names:
        cells = [
            format(medians[name][figure] * labels[figure][1], labels[figure][2]) if figure in medians[name] else ""
            for figure in shown
        ]
        table.add_row(name, *cells, bar(medians[name].get(shown[0], 0), longest), style=style_of(name))
    return table


def ratios_table(result: throughput.Result) -> Group | str:
    """Return a table of the ratios with bar, aim and verdict; if the machine was too noisy, verdicts are in parentheses."""
    ratios = result.ratios()
    if not ratios:
        return ""
    noisy = result.too_noisy()
    table = Table(box=None, pad_edge=False, header_style="dim")
    rounds = result.round_count()
    for heading in ("microwsgi", "ratio or value", f"range of {rounds} rounds", "bar", "aim", ""):
        table.add_column(
            heading if rounds > 1 else heading.replace("range of 1 rounds", "one round"),
            justify="left" if heading in ("microwsgi", "") else "right",
        )
    for found in ratios:
        table.add_row(
            found["name"], f"{found['ratio']:.2f}", range_text(found),
            limit_text(found, "bar"), limit_text(found, "aim"), verdict(found, noisy=bool(noisy)),
        )  # fmt: skip
    warning = f"[red]noisy: {noisy}; the verdicts, in parentheses, are uncertain[/]\n" if noisy else ""
    return Group(table, warning)


def range_text(found: dict[str, Any]) -> str:
    """Return the lowest and the highest ratio as text, or "" if they are equal."""
    return "" if found["lowest"] == found["highest"] else f"{found['lowest']:.2f}-{found['highest']:.2f}"


def verdict(found: dict[str, Any], *, noisy: bool) -> str:
    """Return the verdict as text."""
    word = found["verdict"]
    if not word:
        return ""
    return f"({VERDICT_TEXTS[word]})" if noisy else f"[{VERDICT_STYLES[word]}]{VERDICT_TEXTS[word]}[/]"


def limit_text(found: dict[str, Any], which: str) -> str:
    """Return a bar or an aim as text, with ≥ for a lower limit and ≤ for an upper limit."""
    return "" if found[which] is None else f"{'≤' if found['at_most'] else '≥'} {found[which]:g}"


CHANGES = ("", "", "before", "now", "ratio", "interval", "peers", "")


def comparison(old: Report, new: Report) -> Group:
    """Return a table of the changes since an earlier report. Unchanged figures are only counted."""
    found = changes(old, new)
    table = plain_table(f"changes since {old.machine['date']} ({old.machine['commit'] or 'unknown commit'})")
    for heading in CHANGES:
        table.add_column(heading, justify="right" if heading else "left")
    for each in found:
        if each.verdict != "same":
            *cells, word = change_cells(each)
            table.add_row(*cells, f"[{VERDICT_STYLES.get(word, 'dim')}]{word}[/]")
    warnings = [Text(each, style="red") for each in differences(old, new)]
    only = [
        Text(f"only {when}: {', '.join(rows)}", style="dim")
        for when, rows in (("before", only_in(old, new)), ("now", only_in(new, old)))
        if rows
    ]
    return Group(table, *warnings, *only, Text(explanation(found), style="dim"))


def change_cells(found: Change) -> list[str]:
    """Return the cells of a line in the table of changes."""
    label, factor, form = FIGURES.get(found.figure, (found.figure, 1, ".0f"))
    low, high = found.interval
    return [
        found.name, label, format(found.before * factor, form), format(found.now * factor, form), f"{found.ratio:.2f}",
        f"{low:.2f}-{high:.2f}" if high < math.inf else "one round", f"{found.peers:.2f}" if found.peers else "", found.verdict,
    ]  # fmt: skip
