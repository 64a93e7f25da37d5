"""The throughput part: in each round, measure all rows, and in each row all subjects, in random order.

Each round starts new server processes, so that random effects of one process (hash seed, memory layout) average out. The
subjects of a row are measured within seconds of each other, and ratios are computed within a round, so that slow phases of
the machine cancel out.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import balance, cores, fanout, footprint, frameworks, loads, reload, secure, transfers, wrk
from benchmarks.noise import OTHER_LOAD_LIMIT, SLOWDOWN_LIMIT
from benchmarks.processes import Server, Unavailable
from benchmarks.rows import Row
from benchmarks.servers import SERVERS, is_required, require, versions
from benchmarks.wrk import Figures

PARTS = (loads, secure, transfers, footprint, reload, balance, fanout, cores, frameworks)
ROWS = {row.name: row for part in PARTS for row in part.ROWS}
NOT_SERVERS = {
    "http.server",
    "import webob",
    *reload.SUBJECTS,
    *balance.SUBJECTS,
    *frameworks.SUBJECTS,
    secure.PLAIN,
}
"""Subjects without an entry in SERVERS."""
GIB = 1 << 30
WARM_UP = 1.0  # seconds of load before the first measurement of a process, for CPython to specialise its bytecode

ReportProgress = Callable[[str, float], None]
"""Called before each measurement with its description, and the share of the part that is done."""


class Result:
    """The result of a row: for each round, each subject's figures, and the reasons why subjects were left out."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.rounds: list[dict[str, Figures]] = []
        self.left_out: dict[str, str] = {}

    def medians(self, name: str) -> Figures:
        """Return a subject's figures, each the median over the rounds."""
        found = [round_figures[name] for round_figures in self.rounds if name in round_figures]
        return {figure: median(each[figure] for each in found) for figure in found[0]} if found else {}

    def names(self) -> list[str]:
        return [name for name in self.row.subjects if any(name in round_figures for round_figures in self.rounds)]

    def absences(self) -> dict[str, str]:
        """Return the peers that were not measured, and the reasons. `Report.failures` returns the project's own subjects."""
        return {name: reason for name, reason in self.left_out.items() if not is_required(name)}

    def ratios(self) -> list[dict[str, Any]]:
        """Return the ratio of each bar: the median and the range over the rounds, with the verdict."""
        found = []
        for bar in self.row.bars:
            each = [value for round_figures in self.rounds if (value := bar.ratio(round_figures)) is not None]
            if each:
                value = median(each)
                found.append({
                    "name": bar.name, "ratio": value, "lowest": min(each), "highest": max(each),
                    "rounds": len(each),
                    "bar": bar.bar, "aim": bar.aim, "at_most": bar.at_most, "verdict": bar.verdict(min(each), max(each)),
                })  # fmt: skip
        return found

    def other_load(self) -> float:
        """Return the share of the cores that other processes used: the median over all measurements; 0 if not measured."""
        shares = [
            figures["foreign"]
            for round_figures in self.rounds
            for figures in round_figures.values()
            if "foreign" in figures
        ]
        return median(shares) if shares else 0.0

    def slowdown(self) -> float:
        """Return the median of the bare loop's processor time divided by its minimum, less 1.

        The bare loop does the same work in each round, so this shows a core that is slowed down, or whose caches others use,
        even if no process waits for it.
        """
        for figure in ("cpu_us", "cpu_s"):
            if spent := [each for round_figures in self.rounds if (each := round_figures.get("bare", {}).get(figure))]:
                return median(spent) / min(spent) - 1
        return 0.0

    def too_noisy(self) -> str:
        """Return the reasons why the machine is too noisy for a verdict, or ""."""
        reasons = []
        if self.other_load() > OTHER_LOAD_LIMIT:
            reasons.append(f"other processes used {self.other_load():.0%} of the cores")
        if self.slowdown() > SLOWDOWN_LIMIT:
            reasons.append(f"the bare loop's median processor time is {self.slowdown():.0%} above its best round")
        return "; ".join(reasons)

    def round_count(self) -> int:
        """Return the number of rounds in which microwsgi was measured."""
        return sum("microwsgi" in round_figures for round_figures in self.rounds)

    def as_json(self) -> dict[str, Any]:
        return {
            "title": self.row.title,
            "rounds": self.rounds,
            "medians": {name: self.medians(name) for name in self.names()},
            "ratios": self.ratios(),
            "left_out": self.left_out,
        }

    @classmethod
    def from_json(cls, name: str, found: dict[str, Any]) -> Result:
        result = cls(ROWS[name])
        result.rounds, result.left_out = found["rounds"], found["left_out"]
        return result


def runs_on(row: Row, python: str) -> bool:
    """Return whether the Python is of the build that the row requires."""
    return row.required_build in versions(python)["python"]


class Run:
    """A run of some rows. `results` is filled as the run progresses, so that an interrupted run still has a report."""

    def __init__(
        self,
        rows: Iterable[Row],
        subjects: list[str] | None,
        python: str,
        *,
        rounds: int,
        seconds: float,
        size: int,
        report_progress: ReportProgress,
    ) -> None:
        self.rows, self.subjects, self.python = [row for row in rows if runs_on(row, python)], subjects, python
        self.round_count, self.seconds, self.size, self.report_progress = rounds, seconds, size, report_progress
        self.results = {row.name: Result(row) for row in self.rows}
        self.steps = sum(min(rounds, row.rounds or rounds) * len(self.selected_subjects(row)) for row in self.rows)
        self.done = 0

    def selected_subjects(self, row: Row) -> list[str]:
        """Return the subjects to measure: those that the bars need, or those that were chosen and that the row supports."""
        if self.subjects is None:
            return list(row.peers)
        return [name for name in row.subjects if "all" in self.subjects or name in self.subjects]

    def execute(self) -> None:
        with tempfile.TemporaryDirectory(prefix="microwsgi-benchmark-") as directory:
            folder = Path(directory)
            if any(row.takes_size for row in self.rows):
                self._make_file(folder / "file")
            for number in range(self.round_count):
                for _, group in groupby(self.rows, key=lambda row: (row.app, row.threads, row.bare)):
                    rows = [row for row in group if number < (row.rounds or self.round_count)]
                    if rows:
                        self._round(number, rows, folder)

    def _make_file(self, path: Path) -> None:
        with path.open("wb") as file:
            block = bytes(1 << 20)
            for _ in range(self.size >> 20):
                file.write(block)

    def _round(self, number: int, rows: list[Row], folder: Path) -> None:
        for row in rows:
            self.results[row.name].rounds.append({})
        with ExitStack() as stack:
            servers: dict[str, Server] = {}
            for row in rows:
                names = self.selected_subjects(row)
                random.shuffle(names)
                for name in names:
                    self._measure(number, row, name, servers, stack, folder)

    def _measure(
        self, number: int, row: Row, name: str, servers: dict[str, Server], stack: ExitStack, folder: Path
    ) -> None:
        result, log = self.results[row.name], str(folder / f"{name}.log")
        if name in result.left_out:
            return
        self.report_progress(f"round {number + 1}/{self.round_count}  {row.name}  {name}", self.done / self.steps)
        self.done += 1
        try:
            if name not in NOT_SERVERS:
                require(name, self.python)
            if row.app is None:
                figures = row.measure(name, self.python, log)
            else:
                if name not in servers or servers[name].popen.poll() is not None:
                    servers[name] = stack.enter_context(self._start(row, name, folder, log))
                arguments = (self.size,) if row.takes_size else ()
                figures = row.measure(servers[name], self.seconds, *arguments)
        except Unavailable as reason:
            result.left_out[name] = str(reason)
            return
        except (OSError, ValueError) as error:
            result.left_out[name] = f"{type(error).__name__}: {error}"
            return
        finally:
            # Truncate the log instead of removing it: the server keeps the file open and appends to it.
            if Path(log).exists():
                Path(log).write_bytes(b"")
        result.rounds[-1][name] = figures

    def _start(self, row: Row, name: str, folder: Path, log: str) -> Server:
        app = row.bare if name == "bare" else row.app
        assert app
        server = Server(
            SERVERS[name].command(self.python, app, "0", row.threads, log), BENCHMARK_FILE=str(folder / "file")
        )
        if row.warm_up:
            try:
                wrk.load(server, row.warm_up, 8, WARM_UP)
            except BaseException:
                server.stop()
                raise
        return server
