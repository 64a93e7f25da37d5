"""The pictures of README.md and docs/performance.md: fewer subjects and larger letters than on the page, for phones."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from benchmarks.latency import BARE, OURS, PEER
from benchmarks.pictures import INK, OWNER_WORDS, OWNERS, STYLE, percentile_plot, slug, svg
from benchmarks.report import Report

WIDTH = 5.0  # inches: 480 pixels, which a phone scales to about two thirds
STACKS = (
    "granian", "bjoern", "microwsgi", "gunicorn gthread", "waitress", "wsgiref", "Werkzeug", "Bottle", "Flask", "Django",
)  # fmt: skip
LATENCIES = ("hello", "form")
SERIES = (BARE, OURS, "waitress", PEER)
LARGER = {**STYLE, "font.size": 12, "axes.titlesize": 13}


def stacks(report: Report) -> Figure:
    """Draw the stacks, one box per frame, from the thread's first frame at the left to the user's function at the right."""
    depths = [report.stacks[name] for name in STACKS if name in report.stacks]
    longest = max(len(depth.frames) for depth in depths)
    figure, axes = plt.subplots(figsize=(WIDTH, 0.42 * len(depths) + 0.9), layout="constrained")
    for row, depth in enumerate(depths):
        for level, frame in enumerate(depth.frames):
            box = Rectangle((level + 0.06, row - 0.38), 0.88, 0.76, color=OWNERS[frame.owner], linewidth=0)
            box.set_gid(f"frame-{slug(depth.name)}-{level}")
            axes.add_patch(box)
        axes.text(len(depth.frames) + 0.5, row, str(len(depth.frames)), va="center", fontsize=14, weight="bold")
    axes.set_xlim(0, longest + 3.5)
    axes.set_ylim(len(depths) - 0.4, -0.6)
    axes.set_xticks([])
    axes.set_yticks(range(len(depths)), [depth.name for depth in depths], color=INK)
    axes.tick_params(left=False)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    patches = [Patch(color=OWNERS[owner], label=OWNER_WORDS[owner]) for owner in OWNERS]
    axes.legend(handles=patches, loc="upper right", handlelength=1, handleheight=1)
    figure.suptitle("Stack frames from the thread's start to your function", x=0.02, ha="left", fontsize=13)
    return figure


def latency(report: Report) -> Figure:
    """Draw latency by percentile, one plot above the other."""
    results = [result for name in LATENCIES if (result := report.latency.get(name))]
    figure, grid = plt.subplots(
        len(results), 1, figsize=(WIDTH, 3.3 * len(results) + 0.5), squeeze=False, layout="constrained"
    )
    for axes, result in zip(grid[:, 0], results, strict=True):
        percentile_plot(axes, result, SERIES)
        axes.set_title(result.workload.title)
        axes.set_ylabel("milliseconds")
        axes.set_xlim(0.8, 15_000)
    grid[-1, 0].set_xlabel("percentile")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, columnspacing=1, handlelength=1.3)
    return figure


def write(directory: Path, report: Report) -> list[Path]:
    """Write the pictures for which the report has data, and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(LARGER):
        if set(STACKS) & set(report.stacks):
            written.append(directory / "stacks.svg")
            written[-1].write_text(svg(stacks(report), "stacks", "Frames of each server") + "\n")
        if set(LATENCIES) & set(report.latency):
            written.append(directory / "latency.svg")
            written[-1].write_text(svg(latency(report), "latency", "Latency by percentile") + "\n")
    return written
