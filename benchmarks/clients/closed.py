"""Closed loop over a few kept connections: `python -m benchmarks.clients.closed PORT PATH CONNECTIONS SECONDS`.

Prints every latency in nanoseconds, in the order in which the responses came.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from array import array


def closed_loop(port: int, path: str, connections: int, seconds: float) -> array[int]:
    """Send, wait for the whole response, send again, on each connection, for some seconds."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    selector = selectors.DefaultSelector()
    latencies, now = array("q"), time.perf_counter_ns
    end = now() + int(seconds * 1e9)
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port), 5)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        state = {"begun": now(), "got": b""}
        connection.sendall(request)
        selector.register(connection, selectors.EVENT_READ, state)
    while (begun := now()) < end:
        for key, _ in selector.select((end - begun) / 1e9):
            data = key.fileobj.recv(65536)  # type: ignore[union-attr] # sockets
            if not data:
                raise ConnectionError("the server closed a connection that was to be kept")
            state = key.data
            state["got"] += data
            if complete(state["got"]):
                latencies.append(now() - state["begun"])
                state["got"], state["begun"] = b"", now()
                key.fileobj.sendall(request)  # type: ignore[union-attr]
    return latencies


def complete(response: bytes) -> bool:
    """Whether a response with Content-Length is here in full."""
    head, end, body = response.partition(b"\r\n\r\n")
    if not end:
        return False
    _, _, length = head.lower().partition(b"\r\ncontent-length:")
    return len(body) >= int(length.partition(b"\r\n")[0])


if __name__ == "__main__":
    port, path, connections, seconds = sys.argv[1:5]
    print(json.dumps(list(closed_loop(int(port), path, int(connections), float(seconds)))))
