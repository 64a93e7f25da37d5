"""Rounds as a picture, in the way of SmokePing: the median as a line whose colour is the loss, in the smoke of the others."""

from __future__ import annotations

from collections.abc import Sequence

from apps.look.chart import ceiling
from apps.probing.history import Round

WIDTH, HEIGHT = 720, 160
LEFT, BOTTOM, TOP = 46, 18, 8
"""Room for the axes."""
BANDS = ((0.0, 1.0, 0.16), (0.1, 0.9, 0.22), (0.25, 0.75, 0.30))
"""From which percentile to which, and how dense."""
LOSSES = ((0.0, "none"), (0.1, "some"), (0.3, "much"), (1.01, "most"))
"""Up to which share lost, and the class of the line (the stylesheet has its colour)."""


def text_of(seconds: float | None) -> str:
    """850 µs, 20.3 ms, 1.03 s; a dash for nothing."""
    if seconds is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"  # noqa: PLR2004
    raise AssertionError


def picture(rounds: Sequence[Round], length: int, label: str) -> str:
    """An SVG element; the newest round is at the right, and one without an answer is a red mark on the ground."""
    worst = max((value for each in rounds for value in each.seconds), default=0.001)
    top = ceiling(worst)
    plot_width, plot_height = WIDTH - LEFT, HEIGHT - TOP - BOTTOM
    step = plot_width / length

    def y(seconds: float) -> float:
        return round(TOP + plot_height * (1 - seconds / top), 1)

    marks = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y(at)}" y2="{y(at)}"/>'
        f'<text x="{LEFT - 6}" y="{y(at) + 4}" text-anchor="end">{text_of(at) if at else "0"}</text>'
        for at in (0.0, top / 2, top)
    ]
    for place, each in enumerate(rounds, length - len(rounds)):
        x = round(LEFT + place * step, 1)
        wide = round(max(step, 1.0) + 0.1, 1)
        if not each.seconds:
            marks.append(f'<rect class="lost" x="{x}" y="{y(0) - 4}" width="{wide}" height="4"/>')
            continue
        for low, high, density in BANDS:
            upper, lower = y(each.percentile(high) or 0), y(each.percentile(low) or 0)
            marks.append(
                f'<rect class="smoke" x="{x}" y="{upper}" width="{wide}" height="{max(lower - upper, 0.5):.1f}"'
                f' fill-opacity="{density}"/>'
            )
        kind = next(name for limit, name in LOSSES if each.loss <= limit)
        middle = y(each.percentile(0.5) or 0)
        marks.append(f'<rect class="median {kind}" x="{x}" y="{middle - 1}" width="{wide}" height="2"/>')
    return f'<svg class="smoke-picture" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(marks)}</svg>'
