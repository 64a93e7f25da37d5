"""What a run found, on the terminal: tables with bars, verdicts only where the machine was quiet."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from benchmarks import machine, throughput
from benchmarks.compare import changes
from benchmarks.latency import OURS, PEER, Result
from benchmarks.noise import FOREIGN_LIMIT
from benchmarks.report import Report
from benchmarks.stacks import Depth

FIGURES: dict[str, tuple[str, float, str]] = {
    "rate": ("requests/s", 1, ",.0f"),
    "cpu_us": ("CPU µs each", 1, ".1f"),
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
    "errors": ("errors", 1, ".0f"),
}
"""Each figure's heading, its factor and its format, in the order of the columns."""
TRANSFERS = {"rate": ("MB/s", 1e-6, ",.0f")}
LATENCIES = ("p50", "p90", "p99", "p999", "max", "cpu_us")
VERDICTS = {"aim": "green", "bar": "yellow", "below": "red", "short": "yellow", "better": "green", "worse": "red"}
OWNER_STYLES = {"stdlib": "bright_black", "server": "blue", "framework": "yellow", "yours": "green"}
BAR_WIDTH = 20  # characters of the longest bar


def show(console: Console, report: Report) -> None:
    """The whole report, part by part."""
    console.print(machine.in_words(report.machine), highlight=False)
    console.print()
    if report.stacks:
        console.print(stacks(report))
    for result in report.latency.values():
        console.print(latency(result))
        console.print(ratio_to_peer(result, report.noise.too_noisy()), highlight=False)
        console.print()
    if report.latency:
        console.print(noise(report), highlight=False)
    for row in report.throughput.values():
        if row.names():
            console.print(figures_of(row))
            console.print(ratios_of(row))
        for name, reason in row.left_out.items():
            console.print(f"[dim]{row.row.title}: {name} left out: {reason}[/]", highlight=False)
    for name, reason in report.left_out.items():
        console.print(f"[dim]{name} left out: {reason}[/]", highlight=False)


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
            name, str(len(depth.frames)), str(len(depth.trail)), str(lines.get("lines", "")),
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
    """One line a subject: the medians of the rounds, p50 with its confidence interval."""
    table = plain_table(result.workload.title)
    table.add_column("", min_width=18)
    for figure in LATENCIES:
        table.add_column(FIGURES[figure][0], justify="right")
        if figure == "p50":
            table.add_column("95 %", justify="right", style="dim")
    table.add_column("")
    names = result.names()
    longest = max((found[0] for name in names if (found := result.figure(name, "p50"))), default=0)
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
    for name, reason in result.left_out.items():
        table.add_row(name, f"[dim]{reason}[/]")
    return table


def bar(value: float, longest: float) -> str:
    """A bar in eighths of a character."""
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


def figures_of(result: throughput.Result) -> Table:
    """One line a subject: its medians, and a bar as long as its first figure."""
    names = result.names()
    medians = {name: result.medians(name) for name in names}
    seen = {figure for found in medians.values() for figure in found}
    if "requests" in seen:  # the run's own duration: nobody asks
        seen.discard("seconds")
    if not any(found.get("errors") for found in medians.values()):
        seen.discard("errors")
    labels = {**FIGURES, **(TRANSFERS if result.row.sized else {})}
    shown = [figure for figure in labels if figure in seen]
    table = plain_table(result.row.title)
    table.add_column("", min_width=18)
    for figure in shown:
        table.add_column(labels[figure][0], justify="right")
    table.add_column("")
    longest = max((found.get(shown[0], 0) for found in medians.values()), default=0) if shown else 0
    for name in names:
        cells = [
            format(medians[name][figure] * labels[figure][1], labels[figure][2]) if figure in medians[name] else ""
            for figure in shown
        ]
        table.add_row(name, *cells, bar(medians[name].get(shown[0], 0), longest), style=style_of(name))
    return table


def ratios_of(result: throughput.Result) -> Group | str:
    """Each ratio beside its bar and its aim; verdicts in brackets when others used the machine."""
    ratios = result.ratios()
    if not ratios:
        return ""
    noisy = result.foreign() > FOREIGN_LIMIT
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("microwsgi", "ratio", "range", "bar", "aim", ""):
        table.add_column(heading, justify="left" if heading in ("microwsgi", "") else "right")
    for found in ratios:
        verdict = found["verdict"]
        table.add_row(
            found["name"], f"{found['ratio']:.2f}", f"{found['lowest']:.2f}-{found['highest']:.2f}",
            limit(found, "bar"), limit(found, "aim"),
            f"({verdict})" if noisy else f"[{VERDICTS[verdict]}]{verdict}[/]",
        )  # fmt: skip
    warning = f"[red]noisy: others used {result.foreign():.0%} of the cores; verdicts in brackets[/]" if noisy else ""
    return Group(table, warning)


def limit(found: dict[str, Any], which: str) -> str:
    """A bar or an aim, and on which side of it is good."""
    return "" if found[which] is None else f"{'≤' if found['at_most'] else '≥'} {found[which]:g}"


def comparison(old: Report, new: Report) -> Table:
    """What changed since the earlier report."""
    table = plain_table(f"changes since {old.machine['date']} ({old.machine['commit'] or 'unknown commit'})")
    for heading in ("", "before", "now", "ratio", "95 %", ""):
        table.add_column(heading, justify="left" if not heading else "right")
    for found in changes(old, new):
        style = VERDICTS.get(found.verdict, "dim")
        around = f"{found.interval[0]:.2f}-{found.interval[1]:.2f}"
        table.add_row(
            found.what,
            f"{found.before:.4g}",
            f"{found.now:.4g}",
            f"{found.ratio:.2f}",
            around,
            f"[{style}]{found.verdict}[/]",
        )
    return table
