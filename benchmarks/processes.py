"""Processes that end together with the benchmarks, and their use of processor time, memory and descriptors.

The figures come from `/proc` and the processes' clocks, and include all child processes and threads of a server.
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
START_LIMIT = 15.0  # seconds within which a server must answer after its start
STOP_LIMIT = 1.0  # seconds from SIGTERM to SIGKILL
DESCRIPTORS = 20_000  # for 10,000 connections, and the files of the server

_prctl = ctypes.CDLL(None).prctl
PR_SET_PDEATHSIG = 1


class Unavailable(Exception):
    """A subject cannot be measured. The message is the reason, as the report shows it."""


def child_setup(cores: set[int]) -> Callable[[], None]:
    """Return a function for a child before exec: it sets the cores, the descriptor limit, and SIGTERM at the parent's end."""

    def prepare() -> None:
        os.sched_setaffinity(0, cores)
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    return prepare


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process: PYTHONPATH is this tree; other variables of Python and microwsgi are removed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MICROWSGI_"))}
    return {**inherited, "PYTHONPATH": str(ROOT), **more}


class Process:
    """A program in a new session, pinned to the given cores. As a context manager, it ends the program and its children."""

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
            preexec_fn=child_setup(cores),  # noqa: PLW1509 - this process has one thread
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def error_line(self) -> str:
        """Return the line of the output that explains a failure: the last line of a traceback, else the first line."""
        self.output.seek(0)
        lines = [line for line in self.output.read().decode(errors="replace").splitlines() if line.strip()]
        if not lines:
            return "no output"
        return lines[-1] if any(line.startswith("Traceback") for line in lines) else lines[0]

    def stop(self) -> None:
        """Send SIGTERM, wait, and send SIGKILL, to the whole process group, so that no worker outlives its parent."""
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

    # Figures of the process and its descendants.

    def process_tree(self) -> list[int]:
        """Return the pids of the process and all its descendants."""
        found, waiting = [], [self.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            with suppress(OSError):
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    waiting += [int(child) for child in children.read_text().split()]
        return found

    def processor_seconds(self) -> float:
        """Return the processor time of all threads so far, including ended ones, at nanosecond resolution.

        On Linux, a process can read the clock of another one. The clock's id is computed from the pid as in
        clock_getcpuclockid(3).
        """
        total = 0
        for pid in self.process_tree():
            with suppress(OSError):
                total += time.clock_gettime_ns((~pid << 3) | 2)
        return total / 1e9

    def run_delay_seconds(self) -> float:
        """Return the time that threads were ready to run but waited for a core; 0 if the kernel does not count it."""
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
        """Return the resident memory (VmRSS)."""
        return self._status("VmRSS")

    def peak_kib(self) -> int:
        """Return the peak resident memory (VmHWM)."""
        return self._status("VmHWM")

    def thread_count(self) -> int:
        """Return the number of threads."""
        return self._status("Threads")

    def descriptors(self) -> int:
        """Return the number of open files and sockets."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.process_tree())

    def switches(self) -> int:
        """Return the number of context switches of all threads. It does not change while a server sleeps."""
        return self._status("voluntary_ctxt_switches", threads=True) + self._status(
            "nonvoluntary_ctxt_switches", threads=True
        )

    def listening(self) -> int | None:
        """Return the port of the first listening TCP socket of the processes, or None."""
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
    """A server that is ready: it has answered one request. Its URL begins with `scheme` and has `port`."""

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
    """Send a request, and return whether a first byte of a response arrives."""
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
    """Run a client on the clients' cores to its end, and return its output."""
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
    """Pin this process to the given cores during the `with` block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def python_client(module: str, *arguments: object, limit: float) -> str:
    """Run a client of this project with this interpreter, and return its output."""
    return client([sys.executable, "-m", f"benchmarks.clients.{module}", *map(str, arguments)], limit)
