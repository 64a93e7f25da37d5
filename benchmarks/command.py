"""The command line of `make bench` and `python -m benchmarks`: [PART ...] [--fast] and other options."""

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
WIDTH = 120  # columns where there is no terminal


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Stack depth, latency and throughput of microwsgi beside every other server that is installed.",
        epilog=f"Rows of the throughput part: {', '.join(throughput.ROWS)}. Workloads: {', '.join(plan.ALL_WORKLOADS)}.",
    )
    made.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(plan.PARTS)}; all when none is named")
    made.add_argument("--fast", action="store_true", help="fewer and shorter measurements")
    made.add_argument(
        "--full",
        action="store_true",
        help="every row, at length (the default of `throughput` alone)",
    )
    made.add_argument("--rows", help="of the throughput part, comma separated: names, or how names begin")
    made.add_argument("--workloads", help="of the latency part, likewise")
    made.add_argument(
        "--subjects", help="who takes part, comma separated; `all` in the throughput part is everyone who can"
    )
    made.add_argument("--rounds", type=int)
    made.add_argument("--seconds", type=float, help="of each measurement (wrk takes whole ones)")
    made.add_argument("--size", type=int, metavar="MIB", help="of the file and the uploads")
    made.add_argument("--python", default=sys.executable, help="the interpreter of the subjects")
    made.add_argument(
        "--json", type=Path, metavar="FILE", help="write everything; a run of all parts goes to benchmarks/out"
    )
    made.add_argument("--html", type=Path, metavar="FILE", help="write the page, likewise")
    made.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="write the throughput part as a table of Markdown; rows that are there and were not measured now stay",
    )
    made.add_argument("--docs", type=Path, metavar="DIRECTORY", help="write the pictures of the documentation there")
    made.add_argument("--compare", type=Path, metavar="FILE", help="an earlier --json: what changed since")
    made.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="show an earlier --json, measure nothing"
    )
    return made


def choose_size(options: argparse.Namespace, parts: tuple[str, ...]) -> plan.Size:
    """The size of the run, with what was asked for instead."""
    size = plan.FAST if options.fast else plan.FULL if options.full or parts == ("throughput",) else plan.DEFAULT
    if options.rows or (options.fast and parts == ("throughput",)):
        size = size._replace(rows=select_names(options.rows or "", throughput.ROWS), subjects=None)
    missing = [name for name in size.rows if not throughput.runs_on(throughput.ROWS[name], options.python)]
    if missing and options.rows:
        raise SystemExit(f"{', '.join(missing)}: needs a {throughput.ROWS[missing[0]].required_build} Python")
    size = size._replace(rows=tuple(name for name in size.rows if name not in missing))
    if options.workloads:
        size = size._replace(workloads=select_names(options.workloads, plan.ALL_WORKLOADS))
    if options.table:
        if options.rounds and options.rounds < ENOUGH_ROUNDS:
            raise SystemExit(f"--table takes {ENOUGH_ROUNDS} rounds or more: the range of fewer says too little")
        size = size._replace(rounds=max(size.rounds, ENOUGH_ROUNDS))
    if options.rounds:
        size = size._replace(rounds=options.rounds, latency_rounds=options.rounds)
    if options.seconds:
        size = size._replace(seconds=options.seconds, latency_seconds=options.seconds)
    return size._replace(mib=options.size) if options.size else size


def select_names(wanted: str, known: Iterable[str]) -> tuple[str, ...]:
    """Names in their own order, by name or by how they begin: `hello` is all of them, `hello8` is one."""
    known, chosen = tuple(known), set[str]()
    for name in wanted.split(","):
        found = {name} if name in known else {each for each in known if each.startswith(name)}
        if not found:
            raise SystemExit(f"there is no {name!r}, but {', '.join(known)}")
        chosen |= found
    return tuple(each for each in known if each in chosen)


def main() -> int:
    options = parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that every `with` ends its processes
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    parts = tuple(part for part in plan.PARTS if part in options.parts) or plan.PARTS
    if unknown := set(options.parts) - set(plan.PARTS):
        raise SystemExit(f"there is no part {', '.join(unknown)}, but {', '.join(plan.PARTS)}")
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
    """The files that were asked for, and after a run of all parts both in any case."""
    data = options.json or (OUT / "benchmark.json" if everything else None)
    html = options.html or (OUT / "benchmark.html" if everything else None)
    if data:
        report.write(data)
        print(f"everything: {data}")
    if options.table:
        print(f"the table:  {table.write(options.table, report)}")
    if html or options.docs:
        from benchmarks import page, readme  # matplotlib takes a second to import
    if html:
        page.write(html, report, old)
        print(f"the page:   {html}")
    if options.docs:
        for written in readme.write(options.docs, report):
            print(f"picture:    {written}")
