"""Figures over time as SVG that the server draws: a time axis with labels, values on hover (SVG titles), gaps left empty."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

WIDTH, HEIGHT = 720, 170
LEFT, BOTTOM, TOP = 80, 20, 10
"""Room for the axes' labels."""
GAP = 2.5
"""Steps without a value that are a gap."""
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
TICKS = ((600, 120), (3600, 600), (86400, 14400))
"""Of a period up to so many seconds, the seconds between two labels of the time axis."""


class Axes(NamedTuple):
    """The plot's area: times from `begin` to `end`, values from 0 to `top`."""

    begin: float
    end: float
    top: float

    def x(self, at: float) -> float:
        return round(LEFT + (WIDTH - LEFT) * (at - self.begin) / (self.end - self.begin), 1)

    def y(self, value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(value / self.top, 1.0)), 1)

    def grid(self, text: Callable[[float], str]) -> Iterator[str]:
        for value in (0.0, self.top / 2, self.top):
            y = self.y(value)
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y}" y2="{y}"/>'
            yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{escape(text(value))}</text>'
        step = next((step for period, step in TICKS if self.end - self.begin <= period), TICKS[-1][1])
        offset = time.localtime(self.end).tm_gmtoff
        at = ((self.begin + offset) // step + 1) * step - offset
        while at <= self.end:
            x = self.x(at)
            yield f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{self.y(0)}"/>'
            anchor = "end" if x > WIDTH - 30 else "start" if x < LEFT + 30 else "middle"
            label = time.strftime("%H:%M", time.localtime(at))
            yield f'<text x="{x}" y="{HEIGHT - 5}" text-anchor="{anchor}">{label}</text>'
            at += step

    def widths(self, times: Sequence[float], step: float) -> list[float]:
        """The width of a column at each time: up to the next one, or a step wide before a gap."""
        following = [*times, math.inf][1:]
        ends = [after if after - at <= GAP * step else at + step for at, after in zip(times, following, strict=True)]
        return [max(self.x(min(end, self.end)) - self.x(at), 1.0) for at, end in zip(times, ends, strict=True)]

    def gaps(self, times: Sequence[float], step: float) -> Iterator[str]:
        """The periods without values between the first value and now, marked."""
        edges = [*times, self.end]
        for before, after in pairwise(edges):
            if after - before > GAP * step + (step if after == self.end else 0):
                x, wide = self.x(before + step), max(self.x(after) - self.x(before + step), 1)
                edge_times = (time.strftime("%T", time.localtime(edge)) for edge in (before + step, after))
                text = f"no data {' to '.join(edge_times)}"
                y, height = TOP, self.y(0) - TOP
                yield f'<rect class="gap" x="{x}" y="{y}" width="{wide:.1f}" height="{height}"><title>{text}</title></rect>'

    def hover(self, at: float, wide: float, text: str) -> str:
        """A column without a colour that shows a text."""
        x, height = self.x(at), self.y(0) - TOP
        title = f"<title>{escape(text)}</title>"
        return f'<rect class="hover" x="{x}" y="{TOP}" width="{wide:.1f}" height="{height}">{title}</rect>'

    def svg(self, label: str, marks: Sequence[str]) -> str:
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(marks)}</svg>'


def ceiling(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten from a value above 0 on."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def amount(value: float, unit: str = "") -> str:
    """9.83 Mbit/s, 12 /s, 0."""
    size, prefix = next(((size, prefix) for size, prefix in UNITS if value >= size), (1.0, ""))
    return f"{value / size:.3g} {prefix}{unit}".rstrip()


def milliseconds(seconds: float | None) -> str:
    """850 µs, 20.3 ms, 1.03 s; a dash for none."""
    if seconds is None or seconds < 0:
        return "-"
    unit, size = ("s", 1.0) if seconds >= 1 else ("ms", 1e-3) if seconds >= 1e-3 else ("µs", 1e-6)
    value = seconds / size
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


Line = tuple[str, Sequence[tuple[float, float]]]


def lines(begin: float, end: float, step: float, series: Sequence[Line], unit: str, label: str) -> str:
    """A line for each series of (time, value); its name is its class as well."""
    values = [value for _, points in series for _, value in points]
    axes = Axes(begin, end, ceiling(max(values, default=0.0) or 1.0))
    times = [at for at, _ in series[0][1]] if series else []
    marks = [*axes.grid(amount), *axes.gaps(times, step)]
    for name, points in series:
        drawn, last = "", -math.inf
        for at, value in points:  # with a new beginning after a gap
            drawn += f"{'L' if at - last <= GAP * step else 'M'}{axes.x(at)},{axes.y(value)}"
            last = at
        marks.append(f'<path class="line {escape(name)}" d="{drawn}"/>')
    wide = max(axes.x(begin + step) - LEFT, 1.0)
    for place, at in enumerate(times):
        texts = [f"{name} {amount(points[place][1], unit)}" for name, points in series]
        marks.append(axes.hover(at, wide, f"{time.strftime('%T', time.localtime(at))}: {', '.join(texts)}"))
    now = {name: amount(points[-1][1] if points else 0.0, unit) for name, points in series}
    keys = " ".join(
        f'<span class="key {escape(name)}">{escape(name)} <b>{text}</b></span>' for name, text in now.items()
    )
    spoken = f"{label}: {', '.join(f'{name} {text}' for name, text in now.items())}"
    return f"<figure><figcaption>{escape(label)} {keys}</figcaption>{axes.svg(spoken, marks)}</figure>"
