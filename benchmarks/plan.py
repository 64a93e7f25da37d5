"""The extent of a run (three sizes), its estimated duration, and its execution, part after part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import latency, stacks, throughput
from benchmarks.confidence import ENOUGH_ROUNDS
from benchmarks.processes import CLIENT_CORES, Unavailable, cpu_affinity
from benchmarks.report import Report
from benchmarks.rows import Row

PARTS = ("stacks", "latency", "throughput")
MIB = 1 << 20


class Size(NamedTuple):
    """The extent of a run."""

    # The latency part; seconds are those of each measurement.
    latency_rounds: int
    latency_seconds: float
    workloads: tuple[str, ...]
    latency_subjects: tuple[str, ...]
    # The throughput part. `subjects` None: the default ones of each row. `mib` is the size of each transfer.
    rounds: int
    seconds: int
    rows: tuple[str, ...]
    subjects: tuple[str, ...] | None
    mib: int


ALL_WORKLOADS = tuple(workload.name for workload in latency.WORKLOADS)
FAST = Size(
    3, 0.2, latency.FAST_WORKLOADS, ("microwsgi", "werkzeug", "waitress"),
    1, 1, ("hello1", "hello8", "hello64"), ("microwsgi", "bare", "bjoern", "werkzeug"), 64,
)  # fmt: skip
DEFAULT = Size(
    ENOUGH_ROUNDS, 0.3, ALL_WORKLOADS, latency.SUBJECTS, 3, 1,
    (
        "hello1", "hello8", "hello64", "hello256", "browser64", "close", "sleep5", "file", "upload",
        "tls8", "memory", "start", "start-webob", "framework",
    ),
    None, 256,
)  # fmt: skip
FULL = Size(ENOUGH_ROUNDS, 1.0, ALL_WORKLOADS, latency.SUBJECTS, ENOUGH_ROUNDS, 2, tuple(throughput.ROWS), None, 1024)
"""The size for docs/figures.md."""


class ProgressDisplay:
    """The progress display: a progress bar with the remaining time on a terminal, otherwise plain lines."""

    def __init__(self, console: Console) -> None:
        self.console, self.last_line = console, ""
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            TextColumn("remaining:"), TimeRemainingColumn(), console=console, auto_refresh=False, transient=True,
        )  # fmt: skip
        self.task = self.progress.add_task("", total=1.0)
        self.begin, self.share = 0.0, 1.0

    @contextmanager
    def part(self, name: str, begin: float, share: float) -> Iterator[None]:
        """Begin a part of the run: it takes `share` of the time, and `begin` is the share of the parts before it."""
        self.name, self.begin, self.share = name, begin, share
        self.report_progress("", 0.0)
        yield

    def report_progress(self, step: str, done: float) -> None:
        """Show the current step, and the share of the part that is done."""
        if self.console.is_terminal:
            self.progress.update(
                self.task, description=f"{self.name}  {step:50.50}", completed=self.begin + done * self.share
            )
            self.progress.refresh()
            return
        # Without a terminal, print a line for each round instead of each measurement.
        stage = f"{self.name}: {step.partition('  ')[0] or 'starting'}"
        if stage != self.last_line:
            self.last_line = stage
            self.console.print(f"{stage} ({self.begin + done * self.share:.0%} done)", highlight=False)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()


def estimate(parts: tuple[str, ...], size: Size) -> dict[str, float]:
    """Return the estimated seconds of each part, if all default subjects are installed and measured."""
    measurements = len(size.workloads) * (len(size.latency_subjects) + 1)
    seconds = {
        "stacks": len(stacks.SUBJECTS) * 1.2,
        "latency": size.latency_rounds * (measurements * (size.latency_seconds + 0.25) + 4),
        "throughput": sum(row_seconds(throughput.ROWS[name], size) for name in size.rows),
    }
    return {part: seconds[part] for part in parts}


def row_seconds(row: Row, size: Size) -> float:
    """Return the estimated seconds of a row, all rounds together."""
    each = size.seconds + 1.0 if row.expected_seconds is None else row.expected_seconds
    return min(size.rounds, row.rounds or size.rounds) * len(row.peers) * each


def duration(seconds: float) -> str:
    """Return an estimated duration as text."""
    return f"about {seconds:.0f} seconds" if seconds < 90 else f"about {seconds / 60:.0f} minutes"


def measure(
    parts: tuple[str, ...],
    size: Size,
    python: str,
    report: Report,
    console: Console,
    *,
    subjects: list[str] | None = None,
) -> None:
    """Measure, and fill the report. Ctrl-C ends the run; the results up to then remain."""
    seconds = estimate(parts, size)
    begin, share = 0.0, {part: seconds[part] / sum(seconds.values()) for part in parts}
    with ProgressDisplay(console) as display, cpu_affinity(CLIENT_CORES):
        try:
            for part in parts:
                with display.part(part, begin, share[part]):
                    MEASURE[part](size, python, report, display, subjects)
                begin += share[part]
        except KeyboardInterrupt:
            console.print("Interrupted. The results up to now:")


def measure_stacks(
    size: Size, python: str, report: Report, display: ProgressDisplay, subjects: list[str] | None
) -> None:
    for number, subject in enumerate(stacks.SUBJECTS):
        display.report_progress(f"one round  {subject.name}", number / len(stacks.SUBJECTS))
        try:
            report.stacks[subject.name] = stacks.measure(subject, python)
        except (Unavailable, OSError, ValueError) as reason:
            report.left_out[f"stacks: {subject.name}"] = str(reason)


def measure_latency(
    size: Size, python: str, report: Report, display: ProgressDisplay, subjects: list[str] | None
) -> None:
    workloads = [workload for workload in latency.WORKLOADS if workload.name in size.workloads]
    chosen = [name for name in latency.SUBJECTS if name in subjects] if subjects else list(size.latency_subjects)
    run = latency.Run(
        workloads,
        chosen,
        python,
        rounds=size.latency_rounds,
        seconds=size.latency_seconds,
        report_progress=display.report_progress,
    )
    report.latency, report.noise = run.results, run.noise
    try:
        run.execute()
    finally:
        report.left_out |= {f"latency: {name}": reason for name, reason in run.left_out.items()}


def measure_throughput(
    size: Size, python: str, report: Report, display: ProgressDisplay, subjects: list[str] | None
) -> None:
    rows = [throughput.ROWS[name] for name in size.rows]
    chosen = subjects or (list(size.subjects) if size.subjects else None)
    run = throughput.Run(
        rows,
        chosen,
        python,
        rounds=size.rounds,
        seconds=size.seconds,
        size=size.mib * MIB,
        report_progress=display.report_progress,
    )
    report.throughput = run.results
    run.execute()


MEASURE: dict[str, Any] = {"stacks": measure_stacks, "latency": measure_latency, "throughput": measure_throughput}
