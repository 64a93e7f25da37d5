"""New connections, one after another: `python -m benchmarks.clients.handshakes PORT SECONDS plain|full|resumed`.

Each makes one request. With `full` each has a TLS handshake of its own, with `resumed` it offers the session of the one before;
wrk would resume whether or not it is asked to. Prints the latencies in nanoseconds, from the `connect` to the last byte of the
response, their seconds, and how many connections the server did resume.
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
OCTETS = REQUEST.octets(close=True)
PROTOCOL = "TLSv1.3"

now = time.perf_counter_ns


def exchange(connection: socket.socket) -> int:
    """One request; when its response was complete. The rest is read, so that nobody is reset."""
    connection.sendall(OCTETS)
    response = Response()
    while not response.feed(connection.recv(65536)):
        pass
    complete = now()
    response.check(REQUEST)
    with suppress(OSError):  # some servers close without telling TLS
        while connection.recv(65536):
            pass
    return complete


def run(port: int, seconds: float, mode: str) -> dict[str, Any]:
    """Connections for so long. Raises ValueError when it is not the protocol that all are compared with."""
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
                        raise ValueError(f"the server spoke {connection.version()}, not {PROTOCOL}")
                    latencies.append(exchange(connection) - begun)
                    if mode == "resumed":
                        session = connection.session
        begun = now()
    return {"latencies": latencies, "seconds": (begun - start) / 1e9, "resumed": resumed}


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])))
