"""What a run found, on the terminal and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.throughput import Result

FIGURES: dict[str, tuple[str, float, str]] = {
    "rate": ("requests/s", 1, ",.0f"),
    "cpu_us": ("CPU µs each", 1, ".1f"),
    "p50": ("p50 ms", 1e3, ".3f"),
    "p99": ("p99 ms", 1e3, ".2f"),
    "max": ("max ms", 1e3, ".1f"),
    "seconds": ("seconds", 1, ".3f"),
    "cpu_s": ("CPU s", 1, ".3f"),
    "alone_p50": ("alone p50 ms", 1e3, ".3f"),
    "grown_kib": ("grown KiB", 1, ",.0f"),
    "rss_kib": ("resident KiB", 1, ",.0f"),
    "kib_each": ("KiB each", 1, ".2f"),
    "wakeups": ("wake-ups/s", 1, ".1f"),
    "core_percent": ("% of a core", 1, ".3f"),
    "errors": ("errors", 1, ".0f"),
}
TRANSFERS = {"rate": ("MB/s", 1e-6, ",.0f")}
COLOURS = {"aim": "green", "bar": "yellow", "below": "red"}
BAR_WIDTH = 20  # characters of the longest bar


def figures_of(result: Result) -> Table:
    """One line a subject: its medians, and a bar as long as its first figure."""
    names = result.names()
    medians = {name: result.medians(name) for name in names}
    seen = {figure for found in medians.values() for figure in found}
    if "seconds" in seen and "requests" in seen:  # wrk's own duration: nobody asks
        seen.discard("seconds")
    if not any(found.get("errors") for found in medians.values()):
        seen.discard("errors")
    shown = [figure for figure in FIGURES if figure in seen]
    table = Table(title=result.row.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", min_width=18)
    labels = {**FIGURES, **(TRANSFERS if result.row.sized else {})}
    for figure in shown:
        table.add_column(labels[figure][0], justify="right")
    table.add_column("")
    longest = max((found.get(shown[0], 0) for found in medians.values()), default=0) if shown else 0
    for name in names:
        cells = [
            format(medians[name][figure] * labels[figure][1], labels[figure][2]) if figure in medians[name] else ""
            for figure in shown
        ]
        length = round(BAR_WIDTH * medians[name].get(shown[0], 0) / longest) if longest else 0
        style = "bold" if name == "microwsgi" else ""
        table.add_row(name, *cells, "█" * length, style=style)
    return table


def ratios_of(result: Result) -> Table:
    """Each ratio beside its bar and its aim."""
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    for heading in ("microwsgi", "ratio", "range", "bar", "aim", ""):
        table.add_column(heading, justify="left" if heading in ("microwsgi", "") else "right")
    for found in result.ratios():
        sign, verdict = "≤" if found["at_most"] else "≥", str(found["verdict"])
        aim = f"{sign} {found['aim']:g}" if found["aim"] is not None else ""
        table.add_row(
            str(found["name"]), f"{found['ratio']:.2f}", f"{found['lowest']:.2f}-{found['highest']:.2f}",
            f"{sign} {found['bar']:g}", aim, f"[{COLOURS[verdict]}]{verdict}[/]",
        )  # fmt: skip
    return table


def show(console: Console, results: dict[str, Result]) -> None:
    """The whole table, row by row."""
    for result in results.values():
        if result.names():
            console.print(figures_of(result))
            if result.ratios():
                console.print(ratios_of(result))
        for name, reason in result.left_out.items():
            console.print(f"[dim]{result.row.name}: {name} left out: {reason}[/]", highlight=False)
        console.print()


def write_json(path: Path, facts: dict[str, object], results: dict[str, Result]) -> None:
    """Everything, raw rounds included."""
    document = {"machine": facts, "throughput": {name: result.as_json() for name, result in results.items()}}
    path.write_text(json.dumps(document, indent=1) + "\n")
