"""Many idle connections: `python -m benchmarks.clients.idle PORT COUNT [half | tls | events]`.

Each connection receives one response and stays open. With `half`, it sends half of a request head instead; with `tls`, it
uses TLS; with `events`, it is an event stream of `/events`. The program prints `open` as soon as all are open, and closes
them at the end of its standard input.
"""

from __future__ import annotations

import socket
import sys

from benchmarks.clients.exchange import Response, unverified_context

BATCH = 100
"""Connections to open at once: fewer than any listen backlog. With TLS it is 1: some servers do one handshake at a time."""
REQUEST = b"GET /idle HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HALF = len(REQUEST) // 2
EVENTS = b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def open_all(port: int, count: int, *, half: bool = False, tls: bool = False) -> list[socket.socket]:
    """Open connections, a batch at a time. On each, read a response; with `half`, send half of a request head instead."""
    connections: list[socket.socket] = []
    context = unverified_context()
    while len(connections) < count:
        batch = [
            socket.create_connection(("127.0.0.1", port), 10)
            for _ in range(min(1 if tls else BATCH, count - len(connections)))
        ]
        if tls:
            batch = [context.wrap_socket(connection) for connection in batch]
        for connection in batch:
            connection.sendall(REQUEST[:HALF] if half else REQUEST)
        for connection in [] if half else batch:
            response = Response()
            while not response.feed(connection.recv(65536)):
                pass
            if not response.keep_alive:
                raise ConnectionError("the server does not keep connections open")
        connections += batch
    return connections


def open_streams(port: int, count: int) -> list[socket.socket]:
    """Open event streams, a batch at a time, and read the first bytes of each."""
    streams: list[socket.socket] = []
    while len(streams) < count:
        batch = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(min(BATCH, count - len(streams)))]
        for stream in batch:
            stream.sendall(EVENTS)
        for stream in batch:
            if not stream.recv(65536).startswith(b"HTTP/1.1 200 "):
                raise ConnectionError("the server refuses event streams")
        streams += batch
    return streams


if __name__ == "__main__":
    port, count, modes = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    connections = (
        open_streams(port, count)
        if "events" in modes
        else open_all(port, count, half="half" in modes, tls="tls" in modes)
    )
    print("open", flush=True)
    sys.stdin.read()
