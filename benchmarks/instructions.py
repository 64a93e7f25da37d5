"""Instructions per request, counted by valgrind's callgrind in user space: `make instructions`.

On a shared machine, times differ by 10 to 20 % from one minute to the next; counted instructions differ by less than 1 %. CI
therefore compares them with the committed figures of `instructions.json`.

    main
      measure               for each workload: start a server under valgrind, warm up, then do two counted runs
        count_instructions  return the instructions of one run, access log included
      compare               compare the figures with the committed ones of the same interpreter
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.clients import lockstep
from benchmarks.interpreter import build_options
from benchmarks.processes import SERVER_CORE, Server, Unavailable
from benchmarks.servers import HELLO
from benchmarks.subjects.hello import BODY

REFERENCE = Path(__file__).with_suffix(".json")
TOLERANCE = 0.03
"""Relative increase over the committed figure above which `--check` fails."""
START_LIMIT = 120.0
"""Seconds within which a server under valgrind must answer."""
LOG_LIMIT = 60.0
"""Seconds within which all requests of a run must be in the access log."""
CONNECTIONS = 64
VALGRIND = ("valgrind", "--tool=callgrind", "--instr-atstart=no")
TOTAL = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)

Send = Callable[[int, int], None]
"""A function that sends requests: its arguments are the port and the number of requests."""
Figures = dict[str, int]
"""The instructions per request of each workload."""


class Workload:
    """A kind of request. The second counted run sends three times as many requests as the first."""

    def __init__(self, title: str, requests: int, send: Send) -> None:
        self.title = title
        self.requests = requests
        self.send = send


def _persistent(head: lockstep.Head) -> Send:
    return partial(lockstep.keep_alive, head=head, body=BODY, connections=CONNECTIONS)


WORKLOADS = {
    "hello": Workload(
        f"hello world, {CONNECTIONS} persistent connections", 16 * CONNECTIONS, _persistent(lockstep.hello)
    ),
    "browser": Workload(
        f"a browser's request with varying path and cookie, {CONNECTIONS} persistent connections",
        12 * CONNECTIONS,
        _persistent(lockstep.browser),
    ),
    "new-connection": Workload(
        "hello world, a new connection for each request", 500, partial(lockstep.new_connections, body=BODY)
    ),
}


def interpreter() -> str:
    """Return the name of this interpreter, with all that changes the figures: version, compiler, machine, build options."""
    flags = getattr(sys, "abiflags", "")
    name = f"{platform.python_implementation()} {platform.python_version()}{flags}"
    return ", ".join([name, platform.python_compiler(), platform.machine(), *build_options()])


def total(profile: str) -> int:
    """Return the instructions counted in a callgrind file. Raise Unavailable if the file has no total."""
    found = TOTAL.findall(profile)
    if not found:
        raise Unavailable("callgrind wrote a file without a total")
    return max(map(int, found))


class CountedServer:
    """A server under callgrind, which counts instructions in `count_instructions` only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "access.log"
        self.dumps = 0
        command = [
            *VALGRIND, f"--callgrind-out-file={folder}/profile", f"--vgdb-prefix={folder}/vgdb", f"--log-file={folder}/log",
            sys.executable, "-m", "benchmarks.subjects.counted", "serve", HELLO, "--port", "0", "--access-log", str(self.log),
        ]  # fmt: skip
        # A fixed hash seed: sets and dicts of strings are iterated in the same order in each run.
        self.server = Server(command, SERVER_CORE, limit=START_LIMIT, PYTHONHASHSEED="0")

    def send(self, workload: Workload, requests: int) -> None:
        """Send requests, and wait until all are in the access log: writing the line is part of a request's cost."""
        wanted = self.count_log_lines() + requests
        workload.send(self.server.port, requests)
        until = time.monotonic() + LOG_LIMIT
        while self.count_log_lines() < wanted:
            if time.monotonic() > until:
                raise Unavailable(
                    f"the access log has {self.count_log_lines()} of {wanted} lines after {LOG_LIMIT:.0f} s"
                )
            time.sleep(0.01)

    def count_log_lines(self) -> int:
        """Return the number of lines in the access log."""
        return self.log.read_bytes().count(b"\n")

    def count_instructions(self, workload: Workload, requests: int) -> int:
        """Send a number of requests, and return the instructions that the server executed for them."""
        self.command("zero")
        self.send(workload, requests)
        self.command("dump")
        self.dumps += 1
        return total((self.folder / f"profile.{self.dumps}").read_text())

    def command(self, *words: str) -> None:
        """Send a command to callgrind. Raise Unavailable if it fails."""
        command = ["vgdb", f"--pid={self.server.pid}", f"--vgdb-prefix={self.folder}/vgdb", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"vgdb {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")


def measure(workload: Workload) -> int:
    """Return the instructions per request: the difference of two runs, in which the constant cost of a run cancels out."""
    with tempfile.TemporaryDirectory() as folder:
        counting = CountedServer(Path(folder))
        with counting.server:
            counting.send(workload, workload.requests)  # warm-up: the interpreter specialises its bytecode
            counting.command("instrumentation", "on")
            few = counting.count_instructions(workload, workload.requests)
            many = counting.count_instructions(workload, 3 * workload.requests)
    return round((many - few) / (2 * workload.requests))


def compare(found: Figures, reference: Figures) -> dict[str, float]:
    """Return the relative difference of each figure from the committed one."""
    return {name: found[name] / reference[name] - 1 for name in found if name in reference}


def show(found: Figures, changes: dict[str, float]) -> None:
    """Print the figures, and their differences from the committed ones."""
    for name, count in found.items():
        change = f"  {changes[name]:+.1%}" if name in changes else ""
        print(f"{count:9,}{change}  {WORKLOADS[name].title}", flush=True)


def verdict(changes: dict[str, float]) -> str:
    """Return a message that names the workloads above the tolerance, or "" if there are none."""
    worse = [f"{name} takes {change:.1%} more" for name, change in changes.items() if change > TOLERANCE]
    return f"{'; '.join(worse)} (tolerance {TOLERANCE:.0%})" if worse else ""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description="Count the user-space instructions of a request with valgrind.",
    )
    names = ", ".join(WORKLOADS)
    result.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"{names} (default: all)")
    result.add_argument(
        "--check", action="store_true", help=f"fail if a figure is more than {TOLERANCE:.0%}% above the committed one"
    )
    result.add_argument("--record", action="store_true", help=f"write the figures to {REFERENCE.name}")
    result.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    return result


def main() -> int:
    """Run the command line."""
    options = parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that each `with` ends its processes
    if unknown := set(options.workloads) - set(WORKLOADS):
        raise SystemExit(f"Unknown workload {', '.join(unknown)}. Choose from: {', '.join(WORKLOADS)}")
    name, references = interpreter(), json.loads(REFERENCE.read_text())
    print(f"Instructions per request (user space), {name}:", flush=True)
    try:
        found = {each: measure(WORKLOADS[each]) for each in WORKLOADS if each in (options.workloads or WORKLOADS)}
    except FileNotFoundError as error:
        raise SystemExit(f"{error.filename} is not installed. On Debian and Ubuntu: apt-get install valgrind") from None
    except (Unavailable, OSError) as error:
        raise SystemExit(f"Counting the instructions failed: {error}") from None
    changes = compare(found, references.get(name, {}))
    show(found, changes)
    if options.json:
        options.json.write_text(json.dumps({"interpreter": name, "instructions": found}, indent=2) + "\n")
    if options.record:
        references[name] = {**references.get(name, {}), **found}
        REFERENCE.write_text(json.dumps(references, indent=2, sort_keys=True) + "\n")
    elif not changes:
        print("There are no committed figures for this interpreter. To add them: make instructions ARGS=--record")
    elif options.check and (failure := verdict(changes)):
        print(failure)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
