"""The pictures: SVG drawn by matplotlib, for light and dark themes.

Matplotlib writes fixed colours. The colours of text, background and grid are placeholders, which are replaced by CSS variables
afterwards; each picture contains the values of both themes. Each series has an id, by which a test finds it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from benchmarks.confidence import Histogram, bucket_value, histogram_percentile
from benchmarks.latency import BARE, OURS, Result
from benchmarks.report import Report
from benchmarks.stacks import Depth
from benchmarks.throughput import Result as RowResult

INK, MUTED, PAPER, GRID = "#010203", "#040506", "#070809", "#0a0b0c"
THEMES = {
    "light": {INK: "#1f2328", MUTED: "#59636e", PAPER: "#ffffff", GRID: "#d1d9e0"},
    "dark": {INK: "#e6edf3", MUTED: "#9198a1", PAPER: "#0d1117", GRID: "#3d444d"},
}
NAMES = {INK: "--ink", MUTED: "--muted", PAPER: "--paper", GRID: "--grid"}
OWNERS = {"stdlib": "#64748b", "server": "#2563eb", "framework": "#b45309", "yours": "#047857"}
OWNER_WORDS = {"stdlib": "standard library", "server": "server", "framework": "framework", "yours": "yours"}
SERIES = {
    OURS: "#0f9d6b", "werkzeug": "#e0562c", "wsgiref": "#9a8c3f", "waitress": "#8b6fd6", "cheroot": "#cf5c9d",
    "gunicorn gthread": "#b0812a", "granian": "#d64550", "bjoern": "#3b8fd1",
    "freastal": "#2aa5a0", "fastwsgi": "#7a9a2b", BARE: "#8b949e",
}  # fmt: skip
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "microwsgi", "font.family": "sans-serif", "font.size": 10,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.titlecolor": INK,
    "xtick.color": MUTED, "ytick.color": MUTED, "grid.color": GRID, "axes.grid": True, "grid.linewidth": 0.6,
    "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "axes.titlelocation": "left",
}  # fmt: skip
TOWERS = (
    "granian", "bjoern", "microwsgi", "httpsrv.py on HTTPServer", "wsgiref", "waitress", "cheroot", "gunicorn gthread",
    "gunicorn sync", "Werkzeug", "Flask", "Bottle", "Django",
)  # fmt: skip
PERCENTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999)
VIOLINS = ("hello", "form", "traceback")


PX = 4 / 3  # CSS pixels in a point


def svg(figure: Figure, name: str, title: str) -> str:
    """Return the figure as an SVG element with a title for screen readers and the colours of both themes."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in NAMES.items():
        text = text.replace(colour, f"var({variable})")
    # Ids must be unique on a page, which contains several pictures.
    text = re.sub(r'(\bid="|url\(#|xlink:href="#|clip-path="url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    style = f"svg{{{variables('light')}}}@media(prefers-color-scheme:dark){{svg{{{variables('dark')}}}}}"
    opened = re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", text[: text.index(">")])
    # An explicit width: without one, an <img> fills the width of the page.
    width, height = (float(each) for each in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opened).groups())  # type: ignore[union-attr]
    label = f' id="{name}" width="{width * PX:.0f}" height="{height * PX:.0f}" role="img" aria-label="{title}"'
    return f"{opened}{label}><title>{title}</title><style>{style}</style>{text[text.index('>') + 1 :]}"


def variables(theme: str) -> str:
    return "".join(f"{NAMES[colour]}:{value};" for colour, value in THEMES[theme].items())


def towers(report: Report) -> Figure:
    """Draw the stacks side by side, one box per frame, with the thread's first frame at the bottom."""
    depths = [report.stacks[name] for name in TOWERS if name in report.stacks]
    figure, axes = plt.subplots(figsize=(1.05 * max(4, len(depths)), 7.4))
    tallest = max((len(depth.frames) for depth in depths), default=1)
    for column, depth in enumerate(depths):
        tower(axes, column, depth)
    axes.set_xlim(-0.5, len(depths) - 0.5)
    axes.set_ylim(0, tallest + 1.5)
    axes.set_xticks(range(len(depths)), [wrap(depth.name) for depth in depths], color=INK, fontsize=9)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(bottom=False)
    patches = [Patch(color=OWNERS[owner], label=OWNER_WORDS[owner]) for owner in OWNERS]
    axes.legend(handles=patches[::-1], loc="upper left", title="code of", alignment="left")
    axes.set_title("Stack frames from the start of the thread (bottom) to your function (top)", pad=14)
    return figure


def tower(axes: Axes, column: int, depth: Depth) -> None:
    for level, frame in enumerate(depth.frames):
        box = Rectangle((column - 0.46, level + 0.04), 0.92, 0.92, color=OWNERS[frame.owner], linewidth=0)
        box.set_gid(f"frame-{slug(depth.name)}-{level}")
        axes.add_patch(box)
        name = shorten(frame.function)
        axes.text(column, level + 0.47, name, ha="center", va="center", fontsize=5.5, color="#ffffff")
    axes.text(
        column, len(depth.frames) + 0.15, str(len(depth.frames)), ha="center", va="bottom", fontsize=14, weight="bold"
    )


def shorten(function: str, limit: int = 18) -> str:
    """Return the last part of a qualified name, shortened to the width of a box."""
    name = function.replace(".<locals>", "").rpartition(".")[2]
    return name if len(name) <= limit else name[: limit - 1] + "…"


def wrap(name: str) -> str:
    """Return a name with line breaks."""
    return name.replace(" on ", "\non ").replace("gunicorn ", "gunicorn\n").replace("microwsgi ", "microwsgi\n")


MIN_LINES = 20  # servers with fewer lines are compiled, and are not shown: their bars would make them look simple


def subjects_with_lines(report: Report) -> list[Depth]:
    """Return the subjects that are written in Python."""
    return [depth for depth in report.stacks.values() if depth.lines and depth.lines["lines"] > MIN_LINES]


def lines(report: Report) -> Figure:
    """Draw the number of lines that a debugger steps through, by owner, with the number of files."""
    depths = subjects_with_lines(report)
    depths.sort(key=lambda depth: -depth.lines["lines"] if depth.lines else 0)
    figure, axes = plt.subplots(figsize=(9, 0.34 * max(4, len(depths)) + 1))
    most = max((depth.lines["lines"] for depth in depths if depth.lines), default=1)
    for row, depth in enumerate(depths):
        found, left = depth.lines or {}, 0
        for owner, count in found["owners"].items():
            container = axes.barh(row, count, left=left, color=OWNERS[owner], height=0.7)
            container.patches[0].set_gid(f"lines-{slug(depth.name)}-{owner}")
            left += count
        axes.text(
            left + 0.01 * most, row, f"{found['lines']:,} lines, {len(found['files'])} files", va="center", fontsize=9
        )
    axes.set_yticks(range(len(depths)), [depth.name for depth in depths], color=INK)
    axes.set_xlim(0, 1.25 * most)
    axes.grid(axis="y", visible=False)
    axes.set_title("Lines that a debugger steps through from the socket to your function")
    patches = [Patch(color=OWNERS[owner], label=OWNER_WORDS[owner]) for owner in ("stdlib", "server", "framework")]
    axes.legend(handles=patches, loc="upper right")
    return figure


def percentile_plot(axes: Axes, result: Result, names: Iterable[str]) -> None:
    """Plot latency by percentile as HdrHistogram does: the axis is logarithmic towards 100 %."""
    for name in names:
        if name not in result.histograms:
            continue
        counts = result.histograms[name]
        shares = [share for share in PERCENTILES if (1 - share) * sum(counts.values()) >= 1]
        xs = [1 / (1 - share) for share in shares]
        ys = [histogram_percentile(counts, share) / 1e6 for share in shares]
        line = axes.plot(xs, ys, color=SERIES[name], label=name, **line_style(name))[0]
        line.set_gid(f"percentiles-{result.workload.name}-{slug(name)}")
    axes.set_xscale("log")
    ticks = {1: "0", 2: "50", 10: "90", 100: "99", 1000: "99.9", 10_000: "99.99"}
    axes.set_xticks(list(ticks), list(ticks.values()))
    logarithmic(axes)
    axes.set_title(result.workload.title, fontsize=10)


def logarithmic(axes: Axes) -> None:
    """Set a logarithmic scale with ticks between the powers of ten, or a linear scale for a range below a factor of two."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high > 2 * low:
        steps = (1, 2, 5) if high < 200 * low else (1,)
        ticks = [each * 10.0**power for power in range(-3, 8) for each in steps]
        axes.set_yticks([tick for tick in ticks if low <= tick <= high])
    else:
        axes.set_yscale("linear")
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}")


def line_style(name: str) -> dict[str, Any]:
    if name == OURS:
        return {"linewidth": 2.6, "zorder": 5}
    return {"linewidth": 1.3, "linestyle": "dashed" if name == BARE else "solid"}


def percentiles(report: Report) -> Figure:
    """Draw latency by percentile: a small plot for each workload, with a common legend."""
    results = [result for result in report.latency.values() if result.histograms]
    columns = min(3, max(1, len(results)))
    rows = -(-len(results) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(4.1 * columns, 3.1 * rows), squeeze=False, layout="constrained")
    for axes, result in zip(grid.flat, results, strict=False):
        percentile_plot(axes, result, result.names())
    for axes in grid.flat[len(results) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("milliseconds")
    for axes in grid[-1]:
        axes.set_xlabel("percentile")
    handles = {
        label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=5)
    return figure


def violins(report: Report) -> Figure:
    """Draw the distribution of the latencies as a violin plot of each subject, on a logarithmic scale."""
    results = [report.latency[name] for name in VIOLINS if name in report.latency and report.latency[name].histograms]
    figure, grid = plt.subplots(
        len(results), 1, figsize=(9.5, 3.2 * max(1, len(results))), squeeze=False, layout="constrained"
    )
    for axes, result in zip(grid.flat, results, strict=True):
        names = result.names()
        for column, name in enumerate(names):
            violin(axes, column, result.histograms[name], SERIES[name], f"violin-{result.workload.name}-{slug(name)}")
        logarithmic(axes)
        axes.set_xticks(range(len(names)), [wrap(name) for name in names], color=INK)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel("milliseconds")
        axes.set_title(f"{result.workload.title}: the fastest 99.9 % of the responses, and the median", fontsize=10)
    return figure


def violin(axes: Axes, column: int, counts: Histogram, colour: str, gid: str) -> None:
    top = histogram_percentile(counts, 0.999)
    shown = {bucket: count for bucket, count in widen_buckets(counts).items() if bucket_value(bucket) <= top}
    most = max(shown.values())
    ys = [bucket_value(bucket) / 1e6 for bucket in shown]
    half = [0.42 * (count / most) ** 0.5 for count in shown.values()]  # the square root keeps the tails visible
    body = axes.fill_betweenx(
        ys, [column - w for w in half], [column + w for w in half], color=colour, alpha=0.75, linewidth=0.8
    )
    body.set_gid(gid)
    axes.plot([column - 0.2, column + 0.2], [histogram_percentile(counts, 0.5) / 1e6] * 2, color=INK, linewidth=1.6)


def widen_buckets(counts: Histogram, factor: int = 4) -> Histogram:
    """Return the histogram with fewer and wider buckets, without gaps, for a smooth outline."""
    wide: Histogram = {}
    for bucket, count in counts.items():
        wide[bucket // factor] = wide.get(bucket // factor, 0) + count
    return {index * factor + factor // 2: wide.get(index, 0) for index in range(min(wide), max(wide) + 1)}


def hello_rows(report: Report) -> dict[int, RowResult]:
    """Return the hello-world rows, by number of connections."""
    return {int(name[5:]): row for name, row in report.throughput.items() if name.startswith("hello") and row.names()}


def throughput(report: Report) -> Figure:
    """Draw requests per second by number of connections, for each server."""
    rows = hello_rows(report)
    figure, axes = plt.subplots(figsize=(8.5, 4.6))
    names = dict.fromkeys(name for row in rows.values() for name in row.names())
    for name in names:
        points = [(count, row.medians(name)["rate"]) for count, row in sorted(rows.items()) if row.medians(name)]
        xs, ys = zip(*points, strict=True)
        line = axes.plot(
            xs, ys, marker="o", markersize=4, color=SERIES.get(name, MUTED), label=name, **line_style(name)
        )[0]
        line.set_gid(f"throughput-{slug(name)}")
    axes.set_xscale("log")
    logarithmic(axes)
    axes.set_xticks(sorted(rows), [str(count) for count in sorted(rows)])
    axes.set_xlabel("persistent connections")
    axes.set_ylabel("requests per second")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title("hello world, wrk, one core for the server")
    return figure


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


PICTURES: dict[str, tuple[str, Callable[[Report], Figure], Callable[[Report], object]]] = {
    "towers": ("Stack frames of each server", towers, lambda report: set(TOWERS) & set(report.stacks)),
    "lines": ("Lines from the socket to the function", lines, subjects_with_lines),
    "percentiles": ("Latency by percentile", percentiles, lambda report: report.latency),
    "violins": ("Distribution of the latencies", violins, lambda report: set(VIOLINS) & set(report.latency)),
    "throughput": (
        "Requests per second by number of connections",
        throughput,
        lambda report: len(hello_rows(report)) > 1,
    ),
}
"""For each picture its title, the function that draws it, and a function that tells whether the report has its data."""


def draw(report: Report) -> dict[str, str]:
    """Return all pictures for which the report has data, by name."""
    with mpl.rc_context(STYLE):
        return {
            name: svg(drawn(report), name, title) for name, (title, drawn, needs) in PICTURES.items() if needs(report)
        }
