"""Figures over time as an SVG element: drawn by the server, and drawn anew when there is a new one."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 420, 110
LEFT, BOTTOM, TOP = 52, 6, 10
"""Room for what the grid's lines are called."""
STEPS = (1, 2, 5)
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def ceiling(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 1e-6
    while True:
        for step in STEPS:
            if step * power >= value:
                return step * power
        power *= 10


def amount(value: float, unit: str = "") -> str:
    """9.83 Mbit/s, 12 packets/s, 0."""
    size, prefix = next(((size, prefix) for size, prefix in UNITS if value >= size), (1.0, ""))
    return f"{value / size:.3g} {prefix}{unit}".rstrip()


def chart(lines: Sequence[tuple[str, Sequence[float]]], length: int, unit: str, label: str) -> str:
    """Lines of `length` places, the newest value at the right; of each the name, which is its class too, and its values."""
    top = ceiling(max((max(values) for _, values in lines if values), default=0.0) or 1.0)
    across, up = (WIDTH - LEFT) / max(length - 1, 1), HEIGHT - TOP - BOTTOM

    def y(value: float) -> float:
        return round(TOP + up * (1 - value / top), 1)

    marks = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y(at)}" y2="{y(at)}"/>'
        f'<text x="{LEFT - 6}" y="{y(at) + 4}" text-anchor="end">{amount(at)}</text>'
        for at in (0.0, top / 2, top)
    ]
    for name, values in lines:
        places = enumerate(values, length - len(values))
        points = " ".join(f"{LEFT + place * across:.1f},{y(value)}" for place, value in places)
        marks.append(f'<polyline class="line {escape(name)}" points="{points}"/>')
    now = ", ".join(f"{name} {amount(values[-1] if values else 0.0, unit)}" for name, values in lines)
    keys = "".join(
        f'<span class="key {escape(name)}">{escape(name)} <b>{amount(values[-1] if values else 0.0, unit)}</b></span>'
        for name, values in lines
    )
    return (
        f'<figure><figcaption>{escape(label)} {keys}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(f"{label}: {now}")}">{"".join(marks)}</svg></figure>'
    )
