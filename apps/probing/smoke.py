"""Rounds as SmokePing shows them: the median as a line in the smoke of the other times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from apps.look.chart import LEFT, WIDTH, Axes, ceiling, milliseconds
from apps.look.page import clock_time
from apps.probing.rounds import Round
from microwsgi.framework.markup import Markup

BANDS = ((0.0, 1.0, 0.5), (0.1, 0.9, 0.15), (0.25, 0.75, 0.15))
"""From which quantile to which, and how dense."""
LEGEND = (
    '<p class="quiet">Line: the median of the answers, rejections included. Smoke: the other times. '
    "Red: the share of probes that failed or lost a packet. Grey: no data. Empty: before the first round.</p>"
)
SPARK = 22
"""Height of the small chart in a table."""


def picture(rounds: Sequence[Round], begin: float, end: float, step: float, label: str) -> str:
    """A chart of a period; `step` is the seconds from one round to the next. A round without an answer is a red column."""
    worst = max((value for each in rounds for value in each.seconds), default=0.0)
    axes = Axes(begin, end, ceiling(worst or 0.001))
    marks = [*axes.grid(lambda value: milliseconds(value) if value and worst else "0" if worst else "")]
    marks += axes.gaps([each.at for each in rounds], step)
    for each, wide in zip(rounds, axes.widths([each.at for each in rounds], step), strict=True):
        marks += columns(each, axes, wide)
        marks.append(axes.hover(each.at, wide, words(each)))
    return axes.svg(label, marks) + LEGEND


def columns(found: Round, axes: Axes, wide: float) -> Iterator[str]:
    """The smoke, the median, and a red column from the ground: the share of probes that failed or lost a packet."""
    x, ground, height = axes.x(found.at), axes.y(0), axes.y(0) - axes.y(axes.top)
    for low, high, density in BANDS if found.seconds else ():
        upper, lower = axes.y(found.quantile(high) or 0), axes.y(found.quantile(low) or 0)
        tall = max(lower - upper, 0.5)
        yield f'<rect class="smoke" x="{x}" y="{upper}" width="{wide:.1f}" height="{tall:.1f}" fill-opacity="{density}"/>'
    if found.bad:
        tall = max(height * found.bad, 3.0)
        y, opacity = ground - tall, 0.55 if found.passed else 0.75
        yield f'<rect class="lost" x="{x}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}" fill-opacity="{opacity}"/>'
    if (middle := found.quantile(0.5)) is not None:
        y = axes.y(middle) - 1
        yield f'<rect class="median" x="{x}" y="{y:.1f}" width="{wide:.1f}" height="2.5"/>'


def words(found: Round) -> str:
    median = f"median {milliseconds(found.quantile(0.5))}" if found.seconds else "no answer"
    loss = f", packet loss {found.loss:.0%}" if found.loss is not None else ""
    reasons = "".join(f", {count} probes {reason}" for reason, count in found.reasons.items())
    return f"{clock_time(found.at)}: {median}{loss}{reasons}"


def spark(rounds: Sequence[Round], begin: float, end: float, step: float) -> Markup:
    """The last minutes in a table's cell."""
    worst = max((value for each in rounds for value in each.seconds), default=0.0)
    axes, marks = Axes(begin, end, ceiling(worst or 0.001)), list[str]()
    for each, wide in zip(rounds, axes.widths([each.at for each in rounds], step), strict=True):
        x, middle = axes.x(each.at), each.quantile(0.5)
        if each.bad:
            tall = max(SPARK * each.bad, 5.0)
            kind = "partly" if each.passed else "lost"
            marks.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{SPARK - tall:.0f}" width="{wide:.1f}" height="{tall:.0f}"/>'
            )
        if middle is not None:
            y = (SPARK - 4) * (1 - middle / axes.top)
            marks.append(f'<rect class="smoke" x="{x:.1f}" y="{y:.0f}" width="{wide:.1f}" height="4"/>')
    box = f'viewBox="{LEFT} 0 {WIDTH - LEFT} {SPARK}" preserveAspectRatio="none" aria-hidden="true"'
    return Markup(f'<svg class="spark" {box}>{"".join(marks)}</svg>')
