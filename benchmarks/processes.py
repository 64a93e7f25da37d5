"""Processes that end with the harness, and what the system says that they use.

Everything is read from `/proc` and the processes' own clocks, for a server and all its children, so that a server of
several processes or threads is charged for each of them.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.clients.exchange import unverified_context

ROOT = Path(__file__).resolve().parent.parent
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = {CORES[0]}
CLIENT_CORES = set(CORES[1:]) or SERVER_CORE
START_LIMIT = 15.0  # seconds until a server must answer
STOP_LIMIT = 1.0  # seconds between asking a server to stop and ending it
DESCRIPTORS = 20_000  # 10,000 connections, and what a server needs beside them

_prctl = ctypes.CDLL(None).prctl
PR_SET_PDEATHSIG = 1


class Unavailable(Exception):
    """Why a subject cannot be measured here; the text is what the report says."""


def child_setup(cores: set[int]) -> Callable[[], None]:
    """What a child does before it becomes the program: its core, its descriptors, and an end when we end."""

    def prepare() -> None:
        os.sched_setaffinity(0, cores)
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    return prepare


def environment(**more: str) -> dict[str, str]:
    """What every process of a run gets: the tree to import from, and nothing that changes how Python runs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MICROWSGI_"))}
    return {**inherited, "PYTHONPATH": str(ROOT), **more}


class Process:
    """A program in a session of its own, on the core it is given; leaving the `with` ends all of it."""

    def __init__(self, command: Sequence[str], cores: set[int], *, piped: bool = False, **more: str) -> None:
        self.command = list(command)
        self.output = tempfile.TemporaryFile()  # closed in `stop`
        self.popen = subprocess.Popen(
            self.command,
            cwd=ROOT,
            env=environment(**more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if piped else self.output,
            stderr=self.output,
            start_new_session=True,
            preexec_fn=child_setup(cores),  # noqa: PLW1509 - the harness has one thread
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def error_line(self) -> str:
        """Why it failed, in a line of what it printed: a traceback's last, else the first."""
        self.output.seek(0)
        lines = [line for line in self.output.read().decode(errors="replace").splitlines() if line.strip()]
        if not lines:
            return "it said nothing"
        return lines[-1] if any(line.startswith("Traceback") for line in lines) else lines[0]

    def stop(self) -> None:
        """Ask, wait, end: the whole group, so no worker outlives its parent."""
        for number, limit in ((signal.SIGTERM, STOP_LIMIT), (signal.SIGKILL, STOP_LIMIT)):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(limit)
        for stream in (self.popen.stdin, self.popen.stdout, self.output):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # What the system says of it and its children.

    def process_tree(self) -> list[int]:
        """Its process and every descendant."""
        found, waiting = [], [self.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            with suppress(OSError):
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    waiting += [int(child) for child in children.read_text().split()]
        return found

    def processor_seconds(self) -> float:
        """Processor time of all threads so far, ended ones too, in nanosecond steps.

        Linux lets every process read another's clock; its number is made from the pid as clock_getcpuclockid(3) does.
        """
        total = 0
        for pid in self.process_tree():
            with suppress(OSError):
                total += time.clock_gettime_ns((~pid << 3) | 2)
        return total / 1e9

    def run_delay_seconds(self) -> float:
        """Time that its threads were ready to run and waited for a core; 0 where the kernel does not count it."""
        total = 0
        for pid in self.process_tree():
            for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with suppress(OSError):
                    total += int(path.read_text().split()[1])
        return total / 1e9

    def _status(self, field: str, *, threads: bool = False) -> int:
        total = 0
        for pid in self.process_tree():
            for path in Path(f"/proc/{pid}/task").glob("*/status") if threads else (Path(f"/proc/{pid}/status"),):
                with suppress(OSError, StopIteration):
                    lines = path.read_text().splitlines()
                    total += int(next(line for line in lines if line.startswith(field + ":")).split()[1])
        return total

    def resident_kib(self) -> int:
        """Resident memory (VmRSS)."""
        return self._status("VmRSS")

    def peak_kib(self) -> int:
        """The most resident memory so far (VmHWM)."""
        return self._status("VmHWM")

    def thread_count(self) -> int:
        """Threads of the system."""
        return self._status("Threads")

    def descriptors(self) -> int:
        """Open files and sockets."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.process_tree())

    def switches(self) -> int:
        """Context switches of every thread: a server that sleeps has none."""
        return self._status("voluntary_ctxt_switches", threads=True) + self._status(
            "nonvoluntary_ctxt_switches", threads=True
        )

    def listening(self) -> int | None:
        """The port of the first listening TCP socket of the family, once there is one."""
        sockets = set()
        for pid in self.process_tree():
            with suppress(OSError):
                for descriptor in os.scandir(f"/proc/{pid}/fd"):
                    with suppress(OSError):
                        sockets.add(os.readlink(descriptor.path))
        for table in ("tcp", "tcp6"):
            with suppress(OSError):
                for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                    _, local, _, state, *rest = line.split()
                    if state == "0A" and f"socket:[{rest[5]}]" in sockets:
                        return int(local.rpartition(":")[2], 16)
        return None


class Server(Process):
    """A server that answered once: `port` is where, and `scheme` how."""

    port: int

    def __init__(
        self,
        command: Sequence[str],
        cores: set[int] = SERVER_CORE,
        *,
        scheme: str = "http",
        limit: float = START_LIMIT,
        **more: str,
    ) -> None:
        super().__init__(command, cores, piped=False, **more)
        self.scheme = scheme
        try:
            self.port = self._wait_until_it_answers(limit)
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self, limit: float) -> int:
        until = time.monotonic() + limit
        while time.monotonic() < until:
            if self.popen.poll() is not None:
                raise Unavailable(f"ended with status {self.popen.returncode}: {self.error_line()}")
            if (port := self.listening()) and responds(port, 5.0, self.scheme):
                return port
            time.sleep(0.005)
        raise Unavailable(f"does not answer within {limit:.0f} s")


def responds(port: int, timeout: float, scheme: str = "http") -> bool:
    """Whether a request gets the beginning of a response."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout) as plain,
            unverified_context().wrap_socket(plain) if scheme == "https" else plain as connection,
        ):
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return connection.recv(1) != b""
    except OSError:
        return False


def client(command: Sequence[str], limit: float, **more: str) -> str:
    """Run a client on the clients' core to its end and return what it printed."""
    with Process(command, CLIENT_CORES, piped=True, **more) as process:
        try:
            out, _ = process.popen.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{command[0]} did not end within {limit:.0f} s") from None
        if process.popen.returncode:
            raise Unavailable(f"{Path(command[0]).name}: {process.error_line()}")
        return out.decode()


@contextmanager
def cpu_affinity(cores: set[int]) -> Iterator[None]:
    """Keep this process off the servers' core while it waits or measures."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def python_client(module: str, *arguments: object, limit: float) -> str:
    """Run one of our own clients with this interpreter."""
    return client([sys.executable, "-m", f"benchmarks.clients.{module}", *map(str, arguments)], limit)
