"""The latency part: its workloads, and the rounds that measure all subjects in random order."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.clients.exchange import Request
from benchmarks.confidence import Histogram, Interval, histogram, merge, percentile, range_of
from benchmarks.measuring import Client, Measurement
from benchmarks.noise import Noise
from benchmarks.processes import Server, Unavailable
from benchmarks.servers import SERVERS, is_required, require

APP = "benchmarks.subjects.echo:app"
OURS, PEER, BARE = "microwsgi", "werkzeug", "bare"
SUBJECTS = (OURS, PEER, "wsgiref", "waitress", "cheroot", "gunicorn gthread", "granian", "bjoern")
SHARES = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "p999": 0.999, "max": 1.0}
MIN_OBSERVATIONS = (
    10  # a percentile is shown only if at least this many observations, of all rounds together, are above it
)
WARM_UP = 0.15  # seconds of unmeasured requests before each measurement

FORM = "name=Ada&text=" + "+".join(["short"] * 20)
UPLOAD = 64 * 1024  # bytes
FORM_TYPE = (("Content-Type", "application/x-www-form-urlencoded"),)


class Workload:
    """A request, and how to send it: on how many connections, persistent or not, closed-loop (rate 0) or at a fixed rate."""

    def __init__(
        self,
        name: str,
        title: str,
        request: Request,
        *,
        connections: int = 1,
        keep_alive: bool = True,
        rate: float = 0.0,
    ) -> None:
        self.name, self.title, self.request = name, title, request
        self.connections, self.keep_alive, self.rate = connections, keep_alive, rate


HELLO = Request("/hello", expect="Hello")
WORKLOADS = (
    Workload("hello", "hello world, one persistent connection", HELLO),
    Workload("hello-8", "hello world, 8 persistent connections", HELLO, connections=8),
    Workload("hello-new", "hello world, a new connection for each request", HELLO, keep_alive=False),
    Workload("hello-rate", "hello world, 500 requests per second on 4 connections", HELLO, connections=4, rate=500),
    Workload("form", "WebOb echo of a form", Request("/", "POST", FORM_TYPE, FORM, expect="<dd>Ada")),
    Workload("json", "JSON with WebOb", Request("/json", expect='"message"')),
    Workload("large", "a body of 100 KiB", Request("/large", expect="xxxx")),
    Workload("upload", "64 KiB sent in chunks", Request("/upload", "POST", (), "x" * UPLOAD, 8192, expect=str(UPLOAD))),
    Workload("sleep", "an application that sleeps 5 ms", Request("/sleep", expect="Hello")),
    Workload("traceback", "an exception: 500 and its traceback", Request("/boom", status=500)),
)
BY_NAME = {workload.name: workload for workload in WORKLOADS}
FAST_WORKLOADS = ("hello", "hello-new", "form", "traceback")  # for --fast


class Result:
    """The result of a workload: for each round, each subject's percentiles; for each subject, the histogram of all rounds."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.rounds: list[dict[str, dict[str, float]]] = []
        self.histograms: dict[str, Histogram] = {}
        self.left_out: dict[str, str] = {}

    def add(self, name: str, measured: Measurement) -> None:
        figures = {figure: percentile(measured.latencies, share) / 1e9 for figure, share in SHARES.items()}
        figures |= {
            "count": len(measured.latencies), "rate": len(measured.latencies) / measured.seconds, "cpu_us": measured.cpu_us,
        }  # fmt: skip
        self.rounds[-1][name] = figures
        self.histograms[name] = merge([self.histograms.get(name, {}), histogram(measured.latencies)])

    def names(self) -> list[str]:
        return [name for name in (BARE, *SUBJECTS) if any(name in round_figures for round_figures in self.rounds)]

    def absences(self) -> dict[str, str]:
        """Return the peers that were not measured, and the reasons. `Report.failures` returns the project's own subjects."""
        return {name: reason for name, reason in self.left_out.items() if not is_required(name)}

    def values(self, name: str, figure: str) -> list[float]:
        return [round_figures[name][figure] for round_figures in self.rounds if name in round_figures]

    def figure(self, name: str, figure: str) -> tuple[float, Interval] | None:
        """Return the median over the rounds and their range, or None if there are too few observations."""
        values = self.values(name, figure)
        if not values:
            return None
        share = SHARES.get(figure, 0.0)
        if share < 1 and (1 - share) * sum(self.values(name, "count")) < MIN_OBSERVATIONS:
            return None
        return median(values), range_of(values)

    def ratio(self, name: str, figure: str, to: str = PEER) -> tuple[float, Interval] | None:
        """Return the median and the range of the ratios to another subject's figure, each computed within a round."""
        pairs = [
            round_figures[name][figure] / round_figures[to][figure]
            for round_figures in self.rounds
            if name in round_figures and to in round_figures and round_figures[to][figure]
        ]
        return (median(pairs), range_of(pairs)) if pairs else None

    def as_json(self) -> dict[str, Any]:
        return {
            "title": self.workload.title,
            "request": self.workload.request._asdict() | {"body": len(self.workload.request.body)},
            "connections": self.workload.connections,
            "rate": self.workload.rate,
            "keep": self.workload.keep_alive,
            "rounds": self.rounds,
            "histograms": {name: [list(pair) for pair in counts.items()] for name, counts in self.histograms.items()},
            "left_out": self.left_out,
        }

    @classmethod
    def from_json(cls, name: str, found: dict[str, Any]) -> Result:
        result = cls(BY_NAME[name])
        result.rounds, result.left_out = found["rounds"], found["left_out"]
        result.histograms = {name: {int(b): c for b, c in pairs} for name, pairs in found["histograms"].items()}
        return result


class Run:
    """A run of the latency part. `results` and `noise` are filled as the run progresses."""

    def __init__(
        self, workloads: Iterable[Workload], subjects: Iterable[str], python: str, *, rounds: int, seconds: float,
        report_progress: Callable[[str, float], None],
    ) -> None:  # fmt: skip
        self.workloads, self.subjects, self.python = list(workloads), list(subjects), python
        self.round_count, self.seconds, self.report_progress = rounds, seconds, report_progress
        self.results = {workload.name: Result(workload) for workload in self.workloads}
        self.left_out: dict[str, str] = {}
        self.noise = Noise()

    def steps(self) -> int:
        """Return the total number of measurements, for the progress display."""
        return self.round_count * (len(self.workloads) * (len(self.subjects) + 1))

    def execute(self) -> None:
        done = 0
        with tempfile.TemporaryDirectory(prefix="microwsgi-benchmark-") as folder, Client() as client:
            for number in range(self.round_count):
                with ExitStack() as stack:
                    servers = self._start(stack, Path(folder))
                    for workload in shuffled(self.workloads):
                        self.results[workload.name].rounds.append({})
                        for name in shuffled([BARE, *servers]):
                            self.report_progress(
                                f"round {number + 1}/{self.round_count}  {workload.name}  {name}", done / self.steps()
                            )
                            done += 1
                            self._measure(client, servers, workload, name)

    def _start(self, stack: ExitStack, folder: Path) -> dict[str, Server]:
        servers: dict[str, Server] = {}
        self.bare = stack.enter_context(Server(SERVERS[BARE].command(self.python, "echo", "0", 0, os.devnull)))
        for name in shuffled(self.subjects):
            if name in self.left_out:
                continue
            try:
                require(name, self.python)
                command = SERVERS[name].command(self.python, APP, "0", 0, str(folder / f"{name}.log"))
                servers[name] = stack.enter_context(Server(command))
            except Unavailable as reason:
                self.left_out[name] = str(reason)
        return servers

    def _measure(self, client: Client, servers: dict[str, Server], workload: Workload, name: str) -> None:
        result = self.results[workload.name]
        if name == BARE:
            # The bare socket serves one connection at a time. It runs in every workload, to measure the machine's noise.
            found = self._bare(client, keep_alive=workload.keep_alive)
            if workload.name in ("hello", "hello-new"):
                result.add(BARE, found)
            return
        if name in result.left_out:
            return
        try:
            found = client.run(
                servers[name], workload.request, workload.connections, self.seconds,
                keep_alive=workload.keep_alive, rate=workload.rate, warm_up=WARM_UP,
            )  # fmt: skip
        except Unavailable as reason:
            result.left_out[name] = str(reason)
            return
        result.add(name, found)

    def _bare(self, client: Client, *, keep_alive: bool) -> Measurement:
        before = client.process.run_delay_seconds() + self.bare.run_delay_seconds()
        found = client.run(self.bare, HELLO, 1, self.seconds, keep_alive=keep_alive, warm_up=WARM_UP / 3)
        waited = client.process.run_delay_seconds() + self.bare.run_delay_seconds() - before
        if keep_alive:
            self.noise.add(percentile(found.latencies, 0.50), percentile(found.latencies, 0.99), waited / found.seconds)
        return found


def shuffled(things: Iterable[Any]) -> list[Any]:
    return random.sample(list(things), len(list(things)))
