"""The pictures, drawn by matplotlib as SVG that is readable in light and dark.

Matplotlib writes fixed colours; those of the paper and the ink are stand-ins here, which become CSS variables afterwards,
with both sets of values inside each picture. Every series has an id, by which a test finds its data.
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
    """The figure as one SVG element that is named for those who cannot see it, and follows the reader's theme."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in NAMES.items():
        text = text.replace(colour, f"var({variable})")
    # Ids are the page's, and several pictures stand on one page.
    text = re.sub(r'(\bid="|url\(#|xlink:href="#|clip-path="url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    style = f"svg{{{variables('light')}}}@media(prefers-color-scheme:dark){{svg{{{variables('dark')}}}}}"
    opened = re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", text[: text.index(">")])
    # A width of its own: an <img> without one takes all there is.
    width, height = (float(each) for each in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opened).groups())  # type: ignore[union-attr]
    label = f' id="{name}" width="{width * PX:.0f}" height="{height * PX:.0f}" role="img" aria-label="{title}"'
    return f"{opened}{label}><title>{title}</title><style>{style}</style>{text[text.index('>') + 1 :]}"


def variables(theme: str) -> str:
    return "".join(f"{NAMES[colour]}:{value};" for colour, value in THEMES[theme].items())


def towers(report: Report) -> Figure:
    """The stacks side by side, a box a frame, the socket below and your function on top."""
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
    axes.legend(handles=patches[::-1], loc="upper left", title="a frame of", alignment="left")
    axes.set_title("Frames from the thread's first, below, to your function, on top", pad=14)
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
    """The last part of a qualified name, as much as fits a box."""
    name = function.replace(".<locals>", "").rpartition(".")[2]
    return name if len(name) <= limit else name[: limit - 1] + "…"


def wrap(name: str) -> str:
    """A name on two lines or three."""
    return name.replace(" on ", "\non ").replace("gunicorn ", "gunicorn\n").replace("microwsgi ", "microwsgi\n")


MIN_LINES = 20  # lines: below that a server is compiled, and its bar would say that it is simple


def subjects_with_lines(report: Report) -> list[Depth]:
    """The subjects whose way can be stepped through."""
    return [depth for depth in report.stacks.values() if depth.lines and depth.lines["lines"] > MIN_LINES]


def lines(report: Report) -> Figure:
    """The lines that a debugger steps over, by owner, and how many files they are in."""
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
    axes.set_title("Lines that a debugger steps over from the socket to your function")
    patches = [Patch(color=OWNERS[owner], label=OWNER_WORDS[owner]) for owner in ("stdlib", "server", "framework")]
    axes.legend(handles=patches, loc="upper right")
    return figure


def percentile_plot(axes: Axes, result: Result, names: Iterable[str]) -> None:
    """HDR-style: latency over percentile, the axis stretched towards 100 %."""
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
    """A logarithmic scale that has more ticks than powers of ten; linear where there is less than a doubling."""
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
    """A small plot for each workload, one legend for all."""
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
    """Where the latencies lie: a violin for each subject, its width as the histogram has it, log scale."""
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
        axes.set_title(f"{result.workload.title}: 99.9 % of the responses, and their median", fontsize=10)
    return figure


def violin(axes: Axes, column: int, counts: Histogram, colour: str, gid: str) -> None:
    top = histogram_percentile(counts, 0.999)
    shown = {bucket: count for bucket, count in widen_buckets(counts).items() if bucket_value(bucket) <= top}
    most = max(shown.values())
    ys = [bucket_value(bucket) / 1e6 for bucket in shown]
    half = [0.42 * (count / most) ** 0.5 for count in shown.values()]  # the root: tails stay visible
    body = axes.fill_betweenx(
        ys, [column - w for w in half], [column + w for w in half], color=colour, alpha=0.75, linewidth=0.8
    )
    body.set_gid(gid)
    axes.plot([column - 0.2, column + 0.2], [histogram_percentile(counts, 0.5) / 1e6] * 2, color=INK, linewidth=1.6)


def widen_buckets(counts: Histogram, factor: int = 4) -> Histogram:
    """Fewer, wider buckets without gaps: a shape, not a comb."""
    wide: Histogram = {}
    for bucket, count in counts.items():
        wide[bucket // factor] = wide.get(bucket // factor, 0) + count
    return {index * factor + factor // 2: wide.get(index, 0) for index in range(min(wide), max(wide) + 1)}


def hello_rows(report: Report) -> dict[int, RowResult]:
    """The rows that differ by their connections alone."""
    return {int(name[5:]): row for name, row in report.throughput.items() if name.startswith("hello") and row.names()}


def throughput(report: Report) -> Figure:
    """Requests per second by connections, for each server."""
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
    axes.set_xlabel("connections, keep-alive")
    axes.set_ylabel("requests per second")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title("hello world, wrk, one core for the server")
    return figure


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


PICTURES: dict[str, tuple[str, Callable[[Report], Figure], Callable[[Report], object]]] = {
    "towers": ("Stacks side by side", towers, lambda report: set(TOWERS) & set(report.stacks)),
    "lines": ("Lines from the socket to the function", lines, subjects_with_lines),
    "percentiles": ("Latency by percentile", percentiles, lambda report: report.latency),
    "violins": ("Where the latencies lie", violins, lambda report: set(VIOLINS) & set(report.latency)),
    "throughput": ("Requests per second by connections", throughput, lambda report: len(hello_rows(report)) > 1),
}
"""Each picture's title, how it is drawn, and what it needs of a report."""


def draw(report: Report) -> dict[str, str]:
    """Every picture that the report has the data for."""
    with mpl.rc_context(STYLE):
        return {
            name: svg(drawn(report), name, title) for name, (title, drawn, needs) in PICTURES.items() if needs(report)
        }
