"""Rows about the cost of a server apart from requests: start-up, memory, idle connections. Each row starts new processes."""

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
    child_setup,
    environment,
    responds,
)
from benchmarks.rows import Bar, RoundFigures, Row, ratio_to, value_of
from benchmarks.servers import HELLO, SERVERS
from benchmarks.wrk import Figures

ECHO = "benchmarks.subjects.echo:app"
STARTS = 5  # per round: a single start varies by 20 %
IDLE_CONNECTIONS = 10_000
IDLE_TLS_CONNECTIONS = (
    900  # fewer, because of the handshakes, and because granian accepts at most 1,000 with the baseline
)
BASELINE_CONNECTIONS = 100  # opened before memory is first read, so that one-time allocations are not counted
QUIET_TIME = 1.0  # seconds from the last request to the measurement of an idle server
OBSERVED_TIME = 5.0  # seconds during which the idle server is measured
WEBOB_BUDGET = 0.030  # seconds from start to first response that a server may need in addition to `import webob`


def free_port() -> int:
    """Return a free port, for a client that has to know the port before the server listens."""
    with create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def first_response(command: list[str], port: int) -> float:
    """Return the seconds from starting a server to the first byte of a response."""
    begun = time.perf_counter()
    with Process(command, SERVER_CORE) as process:
        while not responds(port, START_LIMIT):
            if process.popen.poll() is not None:
                raise Unavailable(f"ended: {process.error_line()}")
            if time.perf_counter() - begun > START_LIMIT:
                raise Unavailable(f"does not answer within {START_LIMIT:.0f} s")
            time.sleep(0.0005)
        return time.perf_counter() - begun


def run_time(command: list[str]) -> float:
    """Return the seconds from starting a program to its end."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, env=environment(), preexec_fn=child_setup(SERVER_CORE))
    return time.perf_counter() - begun


def start_up(app: str) -> Callable[[str, str, str], Figures]:
    """Return a function that measures the median start-up time of a subject."""

    def measure(name: str, python: str, log: str) -> Figures:
        with OtherLoad() as other_load:
            times = [start_once(name, python, app, log) for _ in range(STARTS)]
        return {"seconds": statistics.median(times), "foreign": other_load.share}

    return measure


def start_once(name: str, python: str, app: str, log: str) -> float:
    """Return the seconds of one start; for `import webob`, which is no server, those of the whole program."""
    if name == "import webob":
        return run_time([python, "-c", "import webob"])
    port = free_port()
    if name == "http.server":
        options = ["--bind", "127.0.0.1", "--directory", "benchmarks/subjects"]
        return first_response([python, "-m", "http.server", str(port), *options], port)
    return first_response(SERVERS[name].command(python, app, str(port), 0, log), port)


def times_http_server(round_figures: RoundFigures) -> float | None:
    """Return the ratio of the start-up time to that of `python -m http.server`."""
    ours, theirs = round_figures.get("microwsgi"), round_figures.get("http.server")
    return ours["seconds"] / theirs["seconds"] if ours and theirs else None


def over_webob_budget(round_figures: RoundFigures) -> float | None:
    """Return the ratio of the start-up time with WebOb to the time of `import webob` plus WEBOB_BUDGET."""
    ours, theirs = round_figures.get("microwsgi"), round_figures.get("import webob")
    return ours["seconds"] / (theirs["seconds"] + WEBOB_BUDGET) if ours and theirs else None


def measure_memory(name: str, python: str, log: str) -> Figures:
    """Measure resident memory after the first response of the echo application."""
    with Server(SERVERS[name].command(python, ECHO, "0", 0, log)) as server:
        return {"rss_kib": server.resident_kib()}


def measure_idle_connections(name: str, python: str, log: str) -> Figures:
    """Measure the process memory per idle persistent connection, each after one request. Kernel memory is not included."""
    with (
        Server(SERVERS[name].command(python, HELLO, "0", 0, log)) as server,
        idle_connections(server, BASELINE_CONNECTIONS),
    ):
        before = server.resident_kib()
        with idle_connections(server, IDLE_CONNECTIONS):
            return {"kib_each": (server.resident_kib() - before) / IDLE_CONNECTIONS}


def measure_idle_tls(name: str, python: str, log: str) -> Figures:
    """Measure the process memory per idle persistent connection over TLS."""
    with secure.serving(name, python, log) as server, idle_connections(server, BASELINE_CONNECTIONS, "tls"):
        before = server.resident_kib()
        with idle_connections(server, IDLE_TLS_CONNECTIONS, "tls"):
            return {"kib_each": (server.resident_kib() - before) / IDLE_TLS_CONNECTIONS}


def measure_idling(name: str, python: str, log: str) -> Figures:
    """Measure context switches and processor time per second of an idle server with one open connection."""
    with Server(SERVERS[name].command(python, HELLO, "0", 0, log)) as server, idle_connections(server, 1):
        time.sleep(QUIET_TIME)
        switches, spent = server.switches(), server.processor_seconds()
        time.sleep(OBSERVED_TIME)
        return {
            "wakeups": (server.switches() - switches) / OBSERVED_TIME,
            "core_percent": (server.processor_seconds() - spent) / OBSERVED_TIME * 100,
        }


@contextmanager
def idle_connections(server: Server, count: int, *modes: str) -> Iterator[None]:
    """Keep a number of idle connections open during the `with` block; `modes` are those of `clients/idle.py`."""
    command = [sys.executable, "-m", "benchmarks.clients.idle", str(server.port), str(count), *modes]
    with Process(command, CLIENT_CORES, piped=True) as client:
        assert client.popen.stdout is not None
        if client.popen.stdout.readline() != b"open\n":
            raise Unavailable(f"the connections did not open: {client.error_line()}")
        yield
        if server.descriptors() < count:
            raise Unavailable("the server closed idle connections")


OPTIONAL_PEERS = ("bjoern", "granian", "gunicorn gthread", "waitress", "cheroot", "werkzeug", "wsgiref")

ROWS = [
    Row(
        "memory", "resident memory after start, with a WebOb application", measure_memory,
        [ratio_to("werkzeug", "rss_kib", 1.0)],
        app=None, peers=("werkzeug",), optional_peers=OPTIONAL_PEERS, expected_seconds=1.0,
    ),
    Row(
        "idle-connections", f"memory of each of {IDLE_CONNECTIONS:,} idle persistent connections", measure_idle_connections,
        [value_of("kib_each", "KiB each", 1.1, 1.0)],
        app=None, optional_peers=("bjoern", "granian", "waitress", "cheroot"), rounds=1,
        expected_seconds=8.0,
    ),
    Row(
        "idle-connections-tls",
        f"memory of each of {IDLE_TLS_CONNECTIONS:,} idle persistent connections over TLS", measure_idle_tls,
        [value_of("kib_each", "KiB each", 20.0)], app=None, peers=("granian",), rounds=1, expected_seconds=8.0,
    ),
    Row(
        "start", "start to first response, hello world without WebOb", start_up(HELLO),
        [Bar("start-up time relative to http.server", times_http_server, 1.1, 1.0, at_most=True)],
        app=None, peers=("http.server",), optional_peers=OPTIONAL_PEERS, expected_seconds=STARTS * 0.15,
    ),
    Row(
        "start-webob", "start to first response, with WebOb", start_up(ECHO),
        [Bar("of import webob + 30 ms", over_webob_budget, 1.0, at_most=True)],
        app=None, peers=("import webob",), optional_peers=OPTIONAL_PEERS,
        expected_seconds=STARTS * 0.15,
    ),
    Row(
        "idle", "idle: wake-ups a second, share of a core", measure_idling,
        [value_of("wakeups", "wake-ups a second", 0.0), value_of("core_percent", "% of a core", 0.1)],
        app=None, optional_peers=OPTIONAL_PEERS, rounds=1, expected_seconds=QUIET_TIME + OBSERVED_TIME + 1,
    ),
]  # fmt: skip
