"""The command line: `python -m benchmarks throughput [--rows ...] [--subjects ...]`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from rich.console import Console

from benchmarks import machine, report, throughput
from benchmarks.processes import CLIENT_CORES, here

MIB = 1 << 20


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=sys.modules["benchmarks"].__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("throughput", help="requests per second, processor time, memory, start-up: issue 4's table")
    part.add_argument("--rows", help=f"which, comma separated, or a beginning of their names; of {', '.join(throughput.ROWS)}")
    part.add_argument("--subjects", help="who takes part besides the bars' peers being the default; 'all' for everyone who can")
    part.add_argument("--rounds", type=int, default=5)
    part.add_argument("--seconds", type=float, default=2, help="of load for each measurement (wrk takes whole ones)")
    part.add_argument("--size", type=int, default=1024, metavar="MIB", help="of the file and the uploads")
    part.add_argument("--fast", action="store_true", help="one round of one second, 64 MiB")
    part.add_argument("--json", type=Path, metavar="FILE", help="write everything here too")
    part.add_argument("--python", default=sys.executable, help="the interpreter of the subjects")
    return parser.parse_args(given)


def chosen_rows(wanted: str | None) -> list[throughput.Row]:
    """Rows by name or by how their names begin: `hello` is all four."""
    if not wanted:
        return list(throughput.ROWS.values())
    chosen = []
    for name in wanted.split(","):
        found = [row for row in throughput.ROWS.values() if row.name == name] or [
            row for row in throughput.ROWS.values() if row.name.startswith(name)
        ]
        if not found:
            raise SystemExit(f"no row {name!r}; there are {', '.join(throughput.ROWS)}")
        chosen += [row for row in found if row not in chosen]
    return [row for row in throughput.ROWS.values() if row in chosen]


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that every `with` ends its processes
    if options.fast:
        options.rounds, options.seconds, options.size = 1, 1, 64
    console, progress = Console(width=None if sys.stdout.isatty() else 110), Console(stderr=True)
    facts = machine.facts(options.python)
    console.print(machine.in_words(facts), highlight=False)
    subjects = options.subjects.split(",") if options.subjects else None
    with here(CLIENT_CORES), progress.status("") as status:

        def say(what: str) -> None:
            if progress.is_terminal:
                status.update(what)
            else:
                progress.print(what, highlight=False)

        run = throughput.run(
            chosen_rows(options.rows), subjects, options.python,
            rounds=options.rounds, seconds=options.seconds, size=options.size * MIB, say=say,
        )  # fmt: skip
    report.show(console, run.results)
    if options.json:
        report.write_json(options.json, facts, run.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
