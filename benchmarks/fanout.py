"""The row `fanout`: how much a broadcast to many event streams delays other requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from socket import socket

from benchmarks.clients.exchange import Response, connect
from benchmarks.footprint import idle_connections
from benchmarks.processes import Server
from benchmarks.rows import Row, value_of
from benchmarks.servers import SERVERS
from benchmarks.wrk import Figures

APP = "benchmarks.subjects.broadcast:app"
LISTENERS = 10_000
EVENTS = 5
INTERVAL = 1.0  # seconds for which requests are sent, after each event or without events; longer than a broadcast takes
PAUSE = 0.002  # seconds between two requests
REQUEST = b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def get(connection: socket, path: bytes) -> None:
    """Send a GET request and read its response."""
    connection.sendall(REQUEST % path)
    response = Response()
    while not response.feed(connection.recv(4096)):
        pass


def worst_latency(connection: socket, seconds: float) -> float:
    """Send one request after another on a connection, and return the longest latency in seconds."""
    worst, end = 0.0, time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        get(connection, b"/")
        worst = max(worst, time.perf_counter() - start)
        time.sleep(PAUSE)
    return worst


def measure(listeners: int = LISTENERS, events: int = EVENTS) -> Callable[[str, str, str], Figures]:
    """Return a function that measures requests on one connection, first without events, then after each event.

    A request on another connection makes the application send the event.
    """

    def measure_subject(name: str, python: str, log: str) -> Figures:
        with (
            Server(SERVERS[name].command(python, APP, "0", 0, log)) as server,
            idle_connections(server, listeners, "events"),
            connect(server.port) as reader,
            connect(server.port) as sender,
        ):
            worst_latency(reader, INTERVAL)  # warm-up
            alone = max(worst_latency(reader, INTERVAL) for _ in range(events))
            beside = 0.0
            for _ in range(events):
                sender.sendall(REQUEST % b"/send")
                beside = max(beside, worst_latency(reader, INTERVAL))
                sender.recv(4096)
        return {"alone_ms": alone * 1000, "beside_ms": beside * 1000, "added_ms": (beside - alone) * 1000}

    return measure_subject


ROWS = [
    Row(
        "fanout", f"events to {LISTENERS:,} event streams: the longest latency of other requests", measure(),
        [value_of("added_ms", "ms more than without events", 20.0, 5.0), value_of("beside_ms", "ms with events", None)],
        app=None, expected_seconds=2 * EVENTS * INTERVAL + 10.0,
    ),
]  # fmt: skip
