"""What a run found, on the terminal: tables with bars, verdicts only where the machine was quiet."""

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
    "cpu_us": ("CPU µs each", 1, ".1f"),
    "of_core": ("a core's connections/s", 1, ",.0f"),
    "p50": ("p50 ms", 1e3, ".3f"),
    "p90": ("p90 ms", 1e3, ".3f"),
    "p99": ("p99 ms", 1e3, ".2f"),
    "p999": ("p99.9 ms", 1e3, ".2f"),
    "max": ("max ms", 1e3, ".1f"),
    "seconds": ("seconds", 1, ".3f"),
    "cpu_s": ("CPU s", 1, ".3f"),
    "alone_p50": ("alone p50 ms", 1e3, ".3f"),
    "grown_kib": ("grown KiB", 1, ",.0f"),
    "rss_kib": ("resident KiB", 1, ",.0f"),
    "kib_each": ("KiB each", 1, ".2f"),
    "wakeups": ("wake-ups/s", 1, ".1f"),
    "core_percent": ("% of a core", 1, ".3f"),
    "scaling": ("times one", 1, ".2f"),
    "worst_percent": ("busier worker, worst %", 1, ".0f"),
    "median_percent": ("busier worker, median %", 1, ".0f"),
    "resumed_percent": ("% resumed", 1, ".0f"),
    "errors": ("errors", 1, ".0f"),
}
"""Each figure's heading, its factor and its format, in the order of the columns."""
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
OUTLIER_FACTOR = (
    10  # times the median of a table's figures: longer bars are cut, so that one failure does not flatten the others
)
ABOUT_LATENCY = (
    "By our own client, from the send to the last byte of the response. Medians of {rounds} rounds, and "
    "the range of their p50. CPU: the server's processor time for each request, as the kernel counts it. bare: a socket "
    "that answers whatever comes, the client's and the kernel's own share. Nothing is shown where too few responses lie "
    "beyond a percentile.\n"
)
ABOUT_THROUGHPUT = (
    "By wrk, one thread; each side has a core. Medians of the rounds. Below each table microwsgi is set "
    "beside the others: the median of the rounds' ratios and the range of them, above 1 where microwsgi is the better one; "
    "values beside which a limit has ≤ are better when they are less. A bar is what the project asks of itself at least, an "
    "aim is what lies beyond. Either is reached or missed only if the whole range is on one side of it.\n"
)


def show(console: Console, report: Report) -> None:
    """The whole report, part by part; what is broken comes last, where it is seen."""
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
    """A line for each peer that is not in a table."""
    for name, reason in absences.items():
        console.print(f"[dim]{escape(name)} left out: {escape(reason)}[/]", highlight=False)


def plain_table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")


def style_of(name: str) -> str:
    return "bold" if name.startswith(OURS) else ""


def stacks(report: Report) -> Group:
    """Each subject's frames as a bar, a character a frame, coloured by owner."""
    table = plain_table("frames from the thread's first to your function, counted by the request itself")
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
    told = Text(
        "lines: that a debugger steps over from the socket to the view; files: that they are in. "
        "What is compiled has neither.\n",
        style="dim",
    )
    return Group(table, legend, told)


def tower(depth: Depth) -> Text:
    return Text.assemble(*(("█", OWNER_STYLES[frame.owner]) for frame in depth.frames))


def latency(result: Result) -> Table:
    """One line a subject: the medians of the rounds, p50 with its range."""
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
    """The value of the longest bar: the largest that is not out of all proportion."""
    return max((value for value in values if value <= OUTLIER_FACTOR * median(values)), default=0)


def bar(value: float, longest: float) -> str:
    """A bar in eighths of a character, or one that goes on."""
    if value > longest:
        return "█" * (BAR_WIDTH - 1) + "▶"
    eighths = round(BAR_WIDTH * 8 * value / longest) if longest else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def ratio_to_peer(result: Result, too_noisy: str) -> str:
    """Ours over Werkzeug's, pair by pair in the rounds; no verdict from a noisy run."""
    found = result.ratio(OURS, "p50")
    if not found:
        return ""
    ratio, (low, high) = found
    told = f"p50 of {PEER}'s: {ratio:.2f} ({low:.2f}-{high:.2f})"
    if too_noisy:
        return f"[dim]{told}, no verdict: the machine was too noisy[/]"
    if high < 1:
        return f"{told}  [green]quicker[/]"
    return f"{told}  [red]slower[/]" if low > 1 else f"{told}  no difference that is sure"


def noise(report: Report) -> str:
    """What the machine was like."""
    found = report.noise
    line = f"noise: bare socket's medians spread by {found.spread():.0%}, {found.wait():.1%} of the time waiting for a core"
    if reason := found.too_noisy():
        return f"[red]too noisy for a verdict[/]: {reason}\n"
    return f"[dim]{line}[/]\n"


def figures_table(result: throughput.Result) -> Table:
    """One line a subject: its medians, and a bar as long as its first figure."""
    names = result.names()
    medians = {name: result.medians(name) for name in names}
    seen = {figure for found in medians.values() for figure in found}
    if "requests" in seen:  # the run's own duration: nobody asks
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
    """Each ratio beside its bar and its aim; verdicts in brackets if the machine was too noisy."""
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
    warning = f"[red]noisy: {noisy}; verdicts in brackets[/]\n" if noisy else ""
    return Group(table, warning)


def range_text(found: dict[str, Any]) -> str:
    """The lowest and the highest ratio, where they differ."""
    return "" if found["lowest"] == found["highest"] else f"{found['lowest']:.2f}-{found['highest']:.2f}"


def verdict(found: dict[str, Any], *, noisy: bool) -> str:
    """What became of the bar and the aim."""
    word = found["verdict"]
    if not word:
        return ""
    return f"({VERDICT_TEXTS[word]})" if noisy else f"[{VERDICT_STYLES[word]}]{VERDICT_TEXTS[word]}[/]"


def limit_text(found: dict[str, Any], which: str) -> str:
    """A bar or an aim, and on which side of it is good."""
    return "" if found[which] is None else f"{'≤' if found['at_most'] else '≥'} {found[which]:g}"


CHANGES = ("", "", "before", "now", "ratio", "interval", "peers", "")


def comparison(old: Report, new: Report) -> Group:
    """What changed since the earlier report; what did not is counted."""
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
    """A line of the table of changes."""
    label, factor, form = FIGURES.get(found.figure, (found.figure, 1, ".0f"))
    low, high = found.interval
    return [
        found.name, label, format(found.before * factor, form), format(found.now * factor, form), f"{found.ratio:.2f}",
        f"{low:.2f}-{high:.2f}" if high < math.inf else "one round", f"{found.peers:.2f}" if found.peers else "", found.verdict,
    ]  # fmt: skip
