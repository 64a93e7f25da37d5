"""Rows of the throughput part: the load, its subjects, and the ratios with their targets."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.servers import HELLO
from benchmarks.wrk import Figures

RoundFigures = dict[str, Figures]  # one round of one row: subject to figures


class Bar:
    """A ratio or value with two targets: the bar, which must be reached, and the aim, a further target.

    `ratio` computes it from the figures of a round. With `at_most`, the targets are upper limits.
    """

    def __init__(
        self,
        name: str,
        ratio: Callable[[RoundFigures], float | None],
        bar: float | None,
        aim: float | None = None,
        *,
        at_most: bool = False,
    ) -> None:
        self.name, self.ratio, self.bar, self.aim, self.at_most = name, ratio, bar, aim, at_most

    def verdict(self, lowest: float, highest: float) -> str:
        """Return `aim` or `bar` if the whole range reaches it, `below` if the whole range misses the bar, else `within`.

        Without a bar, return `short` if the whole range misses the aim, and `near` if the aim is within the range. Without
        both, return "".
        """
        best, worst = (lowest, highest) if self.at_most else (highest, lowest)
        for word, limit in (("aim", self.aim), ("bar", self.bar)):
            if limit is not None and self._reaches(worst, limit):
                return word
        if self.bar is not None:
            return "within" if self._reaches(best, self.bar) else "below"
        if self.aim is not None:
            return "near" if self._reaches(best, self.aim) else "short"
        return ""

    def _reaches(self, value: float, limit: float) -> bool:
        return value <= limit if self.at_most else value >= limit


def ratio_to(peer: str, figure: str, bar: float | None, aim: float | None = None, *, unit: str = "") -> Bar:
    """Return the ratio of microwsgi's figure to a peer's, so that more than 1 is better: for costs and times it is inverted."""

    def ratio(round_figures: RoundFigures) -> float | None:
        ours, theirs = round_figures.get("microwsgi", {}).get(figure), round_figures.get(peer, {}).get(figure)
        if not ours or not theirs:
            return None
        return ours / theirs if figure == "rate" else theirs / ours

    return Bar(f"of {peer}, {unit or LABELS.get(figure, figure)}", ratio, bar, aim)


def value_of(
    figure: str, name: str, bar: float | None, aim: float | None = None, *, at_most: bool = True, scale: float = 1.0
) -> Bar:
    """Return a Bar for a figure of microwsgi itself, times `scale`."""

    def value(round_figures: RoundFigures) -> float | None:
        found = round_figures.get("microwsgi", {}).get(figure)
        return None if found is None else found * scale

    return Bar(name, value, bar, aim, at_most=at_most)


LABELS = {
    "cpu_us": "processor time", "rate": "requests/s", "p50": "p50", "p99": "p99", "max": "longest latency", "seconds": "time",
    "rss_kib": "memory",
}  # fmt: skip


class Row:
    """A row of the throughput part.

    `measure` is called with a running server and the duration, or, if `app` is None, with the subject's name, the interpreter
    and the path of the access log. `bare` is the mode of the bare loop (subjects/bare.py). `threads` 0 is the default of each
    server. `rounds` limits the rounds of a run.
    """

    def __init__(
        self,
        name: str,
        title: str,
        measure: Callable[..., Figures],
        bars: list[Bar],
        *,
        app: str | None = HELLO,
        bare: str | None = "hello",
        threads: int = 0,
        peers: tuple[str, ...] = (),
        optional_peers: tuple[str, ...] = (),
        rounds: int | None = None,
        takes_size: bool = False,
        warm_up: str | None = None,
        expected_seconds: float | None = None,
        required_build: str = "",
    ) -> None:
        self.name, self.title, self.measure, self.bars = name, title, measure, bars
        self.app, self.bare, self.threads, self.rounds = app, bare, threads, rounds
        self.warm_up = warm_up  # the path to load before the first measurement of a process
        self.required_build = required_build  # a build option, such as FREE_THREADED, that the Python must have
        self.expected_seconds = expected_seconds  # of a measurement, for the estimate; None: the run's seconds plus 1
        self.takes_size = takes_size  # whether `measure` also gets the number of bytes to transfer
        self.peers = ("microwsgi", *peers)  # measured unless --subjects selects others of `subjects`
        unlogged = ("microwsgi-nolog",) if app else ()
        self.subjects = tuple(dict.fromkeys(("microwsgi", *unlogged, *self.peers, *optional_peers)))
