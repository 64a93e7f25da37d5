"""Rows about what a server costs before and between requests: start-up, memory, idling. Each starts its own process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import create_server

from benchmarks import secure
from benchmarks.noise import OtherLoad
from benchmarks.processes import (
    CLIENT_CORES,
    ROOT,
    SERVER_CORE,
    START_LIMIT,
    Process,
    Server,
    Unavailable,
    answers,
    environment,
    in_child,
)
from benchmarks.rows import Bar, By, Row, against, own
from benchmarks.servers import HELLO, KINDS
from benchmarks.wrk import Figures

ECHO = "benchmarks.subjects.echo:app"
STARTS = 5  # in a round: one start wavers by a fifth
IDLE = 10_000  # connections
IDLE_TLS = 900  # of them, each of which costs a handshake; with the few below what granian takes at once
FEW = 100
QUIET_TIME = 1.0  # seconds that a server gets before it must be idle
WATCHED = 5.0  # seconds of idling that are watched
WEBOB_ALLOWANCE = 0.030  # seconds that a server may add to `import webob`


def free_port() -> int:
    """A port that was free a moment ago: for a client that must knock before the server listens."""
    with create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def first_response(command: list[str], port: int) -> float:
    """Seconds from starting the program to the first bytes of a response."""
    begun = time.perf_counter()
    with Process(command, SERVER_CORE) as process:
        while not answers(port, START_LIMIT):
            if process.popen.poll() is not None:
                raise Unavailable(f"ended: {process.complaint()}")
            if time.perf_counter() - begun > START_LIMIT:
                raise Unavailable(f"does not answer within {START_LIMIT:.0f} s")
            time.sleep(0.0005)
        return time.perf_counter() - begun


def run_to_end(command: list[str]) -> float:
    """Seconds that a program takes."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, env=environment(), preexec_fn=in_child(SERVER_CORE))
    return time.perf_counter() - begun


def start_up(app: str) -> Callable[[str, str, str], Figures]:
    def measure(name: str, python: str, log: str) -> Figures:
        with OtherLoad() as foreign:
            times = [start_once(name, python, app, log) for _ in range(STARTS)]
        return {"seconds": statistics.median(times), "foreign": foreign.share}

    return measure


def start_once(name: str, python: str, app: str, log: str) -> float:
    """Return the seconds of one start, or of one run of a program that is no server."""
    if name == "import webob":
        return run_to_end([python, "-c", "import webob"])
    port = free_port()
    if name == "http.server":
        options = ["--bind", "127.0.0.1", "--directory", "benchmarks/subjects"]
        return first_response([python, "-m", "http.server", str(port), *options], port)
    return first_response(KINDS[name].command(python, app, str(port), 0, log), port)


def times_http_server(by: By) -> float | None:
    """Return the time to the first response over that of `python -m http.server`."""
    ours, theirs = by.get("microwsgi"), by.get("http.server")
    return ours["seconds"] / theirs["seconds"] if ours and theirs else None


def beyond_webob(by: By) -> float | None:
    """Start-up with WebOb over its import and the wait_budget."""
    ours, theirs = by.get("microwsgi"), by.get("import webob")
    return ours["seconds"] / (theirs["seconds"] + WEBOB_ALLOWANCE) if ours and theirs else None


def measure_memory(name: str, python: str, log: str) -> Figures:
    """Resident memory once the echo application answered."""
    with Server(KINDS[name].command(python, ECHO, "0", 0, log)) as server:
        return {"rss_kib": server.resident_kib()}


def measure_idle_connections(name: str, python: str, log: str) -> Figures:
    """Memory of the process for each of many kept connections that made one request; the kernel's is not in it."""
    with Server(KINDS[name].command(python, HELLO, "0", 0, log)) as server, kept(server, FEW):
        before = server.resident_kib()  # with a few open, what is made once, and not for each, is made
        with kept(server, IDLE):
            return {"kib_each": (server.resident_kib() - before) / IDLE}


def measure_idle_tls(name: str, python: str, log: str) -> Figures:
    """The same over TLS."""
    with secure.serving(name, python, log) as server, kept(server, FEW, "tls"):
        before = server.resident_kib()
        with kept(server, IDLE_TLS, "tls"):
            return {"kib_each": (server.resident_kib() - before) / IDLE_TLS}


def measure_idling(name: str, python: str, log: str) -> Figures:
    """Context switches and processor time a second while nothing happens, with one kept connection open."""
    with Server(KINDS[name].command(python, HELLO, "0", 0, log)) as server, kept(server, 1):
        time.sleep(QUIET_TIME)
        switches, spent = server.switches(), server.processor_seconds()
        time.sleep(WATCHED)
        return {
            "wakeups": (server.switches() - switches) / WATCHED,
            "core_percent": (server.processor_seconds() - spent) / WATCHED * 100,
        }


@contextmanager
def kept(server: Server, count: int, *how: str) -> Iterator[None]:
    """So many kept connections, each after one request, while the `with` runs."""
    command = [sys.executable, "-m", "benchmarks.clients.idle", str(server.port), str(count), *how]
    with Process(command, CLIENT_CORES, piped=True) as client:
        assert client.popen.stdout is not None
        if client.popen.stdout.readline() != b"open\n":
            raise Unavailable(f"the connections did not open: {client.complaint()}")
        yield
        if server.descriptors() < count:
            raise Unavailable("the server closed connections that were to be kept")


OTHERS = ("bjoern", "granian", "gunicorn gthread", "waitress", "cheroot", "werkzeug", "wsgiref")

ROWS = [
    Row(
        "memory", "resident memory after start, with a WebOb application", measure_memory,
        [against("werkzeug", "rss_kib", 1.0)], app=None, peers=("werkzeug",), others=OTHERS, cost=1.0,
    ),
    Row(
        "idle-connections", f"memory of each of {IDLE:,} idle persistent connections", measure_idle_connections,
        [own("kib_each", "KiB each", 1.1, 1.0)], app=None, others=("bjoern", "granian", "waitress", "cheroot"), rounds=1,
        cost=8.0,
    ),
    Row(
        "idle-connections-tls", f"memory of each of {IDLE_TLS:,} idle persistent connections over TLS", measure_idle_tls,
        [own("kib_each", "KiB each", 20.0)], app=None, peers=("granian",), rounds=1, cost=8.0,
    ),
    Row(
        "start", "start to first response, bare application", start_up(HELLO),
        [Bar("times http.server's time", times_http_server, 1.1, 1.0, at_most=True)],
        app=None, peers=("http.server",), others=OTHERS, cost=STARTS * 0.15,
    ),
    Row(
        "start-webob", "start to first response, with WebOb", start_up(ECHO),
        [Bar("of import webob + 30 ms", beyond_webob, 1.0, at_most=True)], app=None, peers=("import webob",), others=OTHERS,
        cost=STARTS * 0.15,
    ),
    Row(
        "idle", "idle: wake-ups a second, share of a core", measure_idling,
        [own("wakeups", "wake-ups a second", 0.0), own("core_percent", "% of a core", 0.1)],
        app=None, others=OTHERS, rounds=1, cost=QUIET_TIME + WATCHED + 1,
    ),
]  # fmt: skip
