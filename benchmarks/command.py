"""The command line of `make bench` and `python -m benchmarks`: [PART ...] [OPTION ...]."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from benchmarks import machine, plan, table, terminal, throughput
from benchmarks.confidence import ENOUGH_ROUNDS
from benchmarks.report import Report

OUT = Path(__file__).parent / "out"
WIDTH = 120  # columns, if the output is not a terminal


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure stack depth, latency and throughput of microwsgi and of all other servers that are installed.",
        epilog=f"Rows of the throughput part: {', '.join(throughput.ROWS)}. Workloads: {', '.join(plan.ALL_WORKLOADS)}.",
    )
    result.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(plan.PARTS)} (default: all)")
    result.add_argument(
        "--fast",
        action="store_true",
        help="one short round of few workloads and rows; of every row if `throughput` is the only part",
    )
    result.add_argument(
        "--full",
        action="store_true",
        help="measure every row, with more and longer rounds (default if `throughput` is the only part)",
    )
    result.add_argument(
        "--rows",
        help="rows of the throughput part, comma separated; a word that is no name selects each row that begins with it",
    )
    result.add_argument(
        "--workloads",
        help="workloads of the latency part, comma separated; a word that is no name selects each that begins with it",
    )
    result.add_argument(
        "--subjects",
        help="servers and frameworks to measure in the latency and throughput parts, comma separated; in the throughput part, "
        "`all` selects all that a row supports",
    )
    result.add_argument("--rounds", type=int, help="rounds of the latency and throughput parts")
    result.add_argument(
        "--seconds",
        type=float,
        help="duration of each measurement, for wrk in whole seconds; rows that start their own servers have fixed durations",
    )
    result.add_argument(
        "--size",
        type=int,
        metavar="MIB",
        help="size of the file and the uploads in the rows `file`, `upload` and `chunked`",
    )
    result.add_argument("--python", default=sys.executable, help="Python interpreter that runs the servers")
    result.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the report as JSON (default if all parts run: benchmarks/out/benchmark.json)",
    )
    result.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write the report as an HTML page (default if all parts run: benchmarks/out/benchmark.html)",
    )
    result.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="write the throughput part as a Markdown page; an existing page keeps its title and all other rows",
    )
    result.add_argument("--docs", type=Path, metavar="DIRECTORY", help="write the pictures of the documentation")
    result.add_argument("--compare", type=Path, metavar="FILE", help="compare with an earlier report (--json)")
    result.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="show an earlier report (--json); measure nothing"
    )
    return result


def choose_size(options: argparse.Namespace, parts: tuple[str, ...]) -> plan.Size:
    """Return the size of the run: one of the three of `plan`, changed by the options."""
    size = plan.FAST if options.fast else plan.FULL if options.full or parts == ("throughput",) else plan.DEFAULT
    if options.rows or (options.fast and parts == ("throughput",)):
        size = size._replace(rows=select_names(options.rows or "", throughput.ROWS), subjects=None)
    missing = [name for name in size.rows if not throughput.runs_on(throughput.ROWS[name], options.python)]
    if missing and options.rows:
        raise SystemExit(
            f"Needs a {throughput.ROWS[missing[0]].required_build} Python, which --python selects: {', '.join(missing)}."
        )
    size = size._replace(rows=tuple(name for name in size.rows if name not in missing))
    if options.workloads:
        size = size._replace(workloads=select_names(options.workloads, plan.ALL_WORKLOADS))
    if options.table:
        if options.rounds and options.rounds < ENOUGH_ROUNDS:
            raise SystemExit(f"--table needs {ENOUGH_ROUNDS} rounds or more: with fewer, the ranges are not reliable")
        size = size._replace(rounds=max(size.rounds, ENOUGH_ROUNDS))
    if options.rounds:
        size = size._replace(rounds=options.rounds, latency_rounds=options.rounds)
    if options.seconds:
        size = size._replace(seconds=options.seconds, latency_seconds=options.seconds)
    return size._replace(mib=options.size) if options.size else size


def select_names(wanted: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the known names that a comma-separated list selects, in the order of `known`.

    A word that is a name selects only that name: `reload`. Another word selects all names that begin with it: `tls`.
    """
    known, chosen = tuple(known), set[str]()
    for name in wanted.split(","):
        found = {name} if name in known else {each for each in known if each.startswith(name)}
        if not found:
            raise SystemExit(f"Unknown name {name!r}. Choose from: {', '.join(known)}")
        chosen |= found
    return tuple(each for each in known if each in chosen)


def main() -> int:
    """Run the command line. Return the exit status: 1 if microwsgi or a bare loop could not be measured."""
    options = parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that every `with` ends its processes
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    parts = tuple(part for part in plan.PARTS if part in options.parts) or plan.PARTS
    if unknown := set(options.parts) - set(plan.PARTS):
        raise SystemExit(f"Unknown part {', '.join(unknown)}. Choose from: {', '.join(plan.PARTS)}")
    old = Report.read(options.compare) if options.compare else None
    if options.source:
        report = Report.read(options.source)
    else:
        report = Report(machine.facts(options.python))
        subjects = options.subjects.split(",") if options.subjects else None
        size, progress = choose_size(options, parts), Console(stderr=True)
        estimate = plan.duration(sum(plan.estimate(parts, size).values()))
        progress.print(f"{', '.join(parts)}: {estimate}", highlight=False)
        plan.measure(parts, size, options.python, report, progress, subjects=subjects)
    terminal.show(console, report)
    if old:
        console.print(terminal.comparison(old, report))
    write(options, report, old, everything=parts == plan.PARTS and not options.source)
    return 1 if report.failures() else 0


def write(options: argparse.Namespace, report: Report, old: Report | None, *, everything: bool) -> None:
    """Write the files that the options name; after a run of all parts, always write the report and the page."""
    data = options.json or (OUT / "benchmark.json" if everything else None)
    html = options.html or (OUT / "benchmark.html" if everything else None)
    if data:
        report.write(data)
        print(f"report:  {data}")
    if options.table:
        print(f"figures: {table.write(options.table, report)}")
    if html or options.docs:
        from benchmarks import page, readme  # matplotlib takes a second to import
    if html:
        page.write(html, report, old)
        print(f"page:    {html}")
    if options.docs:
        for written in readme.write(options.docs, report):
            print(f"picture: {written}")
