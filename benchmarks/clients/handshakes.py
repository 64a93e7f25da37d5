"""New connections, one after another: `python -m benchmarks.clients.handshakes PORT SECONDS plain|full|resumed`.

Each connection sends one request. With `full`, each has a full TLS handshake; with `resumed`, it offers the session of the
previous connection. wrk cannot be used, because it always resumes sessions. The program prints the latencies in nanoseconds,
from the `connect` to the last byte of the response, the duration in seconds, and the number of resumed connections.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
from contextlib import suppress
from typing import Any

from benchmarks.clients.exchange import Request, Response, connect, unverified_context

REQUEST = Request(expect="Hello")
OCTETS = REQUEST.encode(close=True)
PROTOCOL = "TLSv1.3"

now = time.perf_counter_ns


def exchange(connection: socket.socket) -> int:
    """Send a request, and return the time at which its response was complete.

    Then read up to the server's close: closing with unread data would send a TCP reset.
    """
    connection.sendall(OCTETS)
    response = Response()
    while not response.feed(connection.recv(65536)):
        pass
    complete = now()
    response.check(REQUEST)
    with suppress(OSError):  # some servers close without close_notify
        while connection.recv(65536):
            pass
    return complete


def run(port: int, seconds: float, mode: str) -> dict[str, Any]:
    """Open connections for some seconds. Raise ValueError if the server negotiates another version of TLS."""
    context, latencies, resumed = unverified_context(), list[int](), 0
    session: ssl.SSLSession | None = None
    start = begun = now()
    while begun < start + seconds * 1e9:
        with connect(port) as plain:
            if mode == "plain":
                latencies.append(exchange(plain) - begun)
            else:
                with context.wrap_socket(plain, session=session) as connection:
                    resumed += bool(connection.session_reused)
                    if connection.version() != PROTOCOL:
                        raise ValueError(f"the server negotiated {connection.version()}, expected {PROTOCOL}")
                    latencies.append(exchange(connection) - begun)
                    if mode == "resumed":
                        session = connection.session
        begun = now()
    return {"latencies": latencies, "seconds": (begun - start) / 1e9, "resumed": resumed}


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])))
