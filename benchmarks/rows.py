"""What a row of the performance table is made of: what is done, who takes part, and the bar beside each ratio."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.servers import HELLO
from benchmarks.wrk import Figures

RoundFigures = dict[str, Figures]  # one round of one row: subject to figures


class Bar:
    """A ratio that is 1 or more when microwsgi is at least as good, the bar that it must reach and the aim beyond."""

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
        """Return `aim` or `bar` if the whole range reaches it, `below` if all of it misses the bar, else `within`.

        Without a bar, all of it can fall `short` of the aim, or have it within (`near`). Without an aim too, return "".
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
    """Ours beside a peer's; of costs and times less is better, of rates more."""

    def ratio(round_figures: RoundFigures) -> float | None:
        ours, theirs = round_figures.get("microwsgi", {}).get(figure), round_figures.get(peer, {}).get(figure)
        if not ours or not theirs:
            return None
        return ours / theirs if figure == "rate" else theirs / ours

    return Bar(f"of {peer}, {unit or LABELS.get(figure, figure)}", ratio, bar, aim)


def value_of(
    figure: str, name: str, bar: float | None, aim: float | None = None, *, at_most: bool = True, scale: float = 1.0
) -> Bar:
    """A figure of ours beside a fixed limit."""

    def value(round_figures: RoundFigures) -> float | None:
        found = round_figures.get("microwsgi", {}).get(figure)
        return None if found is None else found * scale

    return Bar(name, value, bar, aim, at_most=at_most)


LABELS = {
    "cpu_us": "processor time", "rate": "requests/s", "p50": "p50", "p99": "p99", "max": "worst", "seconds": "time",
    "rss_kib": "memory",
}  # fmt: skip


class Row:
    """One line of the table. `measure` gets a running server, or, when `app` is None, the subject's name and python."""

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
        self.warm_up = warm_up  # the path that is loaded before the first measurement of a process
        self.required_build = required_build  # a word that `versions` has for the Python that the row is for; "" is any
        self.expected_seconds = (
            expected_seconds  # seconds that a measurement of a subject takes, if not those of the run; for the estimate
        )
        self.takes_size = takes_size  # `measure` also gets the bytes to move
        self.peers = ("microwsgi", *peers)  # who takes part unless others are asked for
        unlogged = ("microwsgi-nolog",) if app else ()
        self.subjects = tuple(dict.fromkeys(("microwsgi", *unlogged, *self.peers, *optional_peers)))
