"""The row `balance`: how evenly two workers share the connections, over many starts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from socket import socket
from statistics import median

from benchmarks.clients.exchange import Response, connect
from benchmarks.processes import CORES, Server
from benchmarks.rows import Row, value_of
from benchmarks.servers import SERVERS, require
from benchmarks.wrk import Figures

APP = "benchmarks.subjects.process_id:app"
WORKERS = 2
STARTS = 12
CONNECTIONS = 16
READY_LIMIT = 5.0  # seconds to wait until each worker has answered once; then the measurement begins in any case
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n"
OPTIONS = {
    "microwsgi": ("microwsgi", ["--workers", str(WORKERS)]),
    "gunicorn --workers": ("gunicorn gthread", ["--workers", str(WORKERS)]),
    "granian --workers": ("granian", ["--workers", str(WORKERS)]),
}
"""For each subject its entry in SERVERS, and options to append to its command: of repeated options, the last one counts."""


def command(name: str, python: str, log: str) -> list[str]:
    """Return the command that starts a subject with two workers. Raise Unavailable if it is not installed."""
    kind, options = OPTIONS[name]
    require(kind, python)
    return [*SERVERS[kind].command(python, APP, "0", 0, log), *options]


SUBJECTS = tuple(name for name in OPTIONS if name != "microwsgi")
"""Subjects of this row only."""


def worker_of(connection: socket, field: bytes = b"") -> int:
    """Send a request on a connection, and return the process id of the worker that answers."""
    connection.sendall(REQUEST % field)
    response = Response()
    while not response.feed(connection.recv(4096)):
        pass
    return int(b"".join(response.body))


def wait_for_workers(port: int) -> None:
    """Open connections until each worker has answered on one of them; then let the server close them all."""
    until, found = time.monotonic() + READY_LIMIT, set[int]()
    while len(found) < WORKERS and time.monotonic() < until:
        with ExitStack() as stack:
            held: list[socket] = []
            while len(found) < WORKERS and len(held) < CONNECTIONS:
                held.append(stack.enter_context(connect(port)))
                found.add(worker_of(held[-1]))
            for connection in held:
                # The server may have closed the connection after its keep-alive timeout.
                with suppress(ConnectionError):
                    worker_of(connection, b"Connection: close\r\n")
                    while connection.recv(4096):
                        pass


def busier_percent(port: int) -> float:
    """Open persistent connections, and return the percentage of them that the busier worker has."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(port)) for _ in range(CONNECTIONS)]
        counts = Counter(map(worker_of, connections))
    return max(counts.values()) / CONNECTIONS * 100


def measure(starts: int = STARTS) -> Callable[[str, str, str], Figures]:
    """Return a function that starts a subject many times and measures the balance of each start."""

    def measure_subject(name: str, python: str, log: str) -> Figures:
        shares = []
        for _ in range(starts):
            with Server(command(name, python, log), cores=set(CORES)) as server:
                wait_for_workers(server.port)
                shares.append(busier_percent(server.port))
        each = {f"start_{number}_percent": share for number, share in enumerate(shares, 1)}
        return {"worst_percent": max(shares), "median_percent": median(shares), **each}

    return measure_subject


ROWS = [
    Row(
        "balance",
        f"two workers, {CONNECTIONS} persistent connections: share of the busier worker in {STARTS} starts",
        measure(),
        [
            value_of("worst_percent", "% in the worst start", 65.0, 55.0),
            value_of("median_percent", "% in the median start", None),
        ],
        app=None, peers=SUBJECTS, rounds=1, expected_seconds=STARTS * 1.0,
    ),
]  # fmt: skip
