"""Many connections that wait: `python -m benchmarks.clients.idle PORT COUNT [half | tls]`.

Each has made one request and keeps its connection; with `half`, each has sent half a head; with `tls`, it is over TLS. Says
`open` when all are there, and holds them until its standard input ends.
"""

from __future__ import annotations

import socket
import sys

from benchmarks.clients.exchange import Response, trusting

BATCH = (
    100  # connections at once: below every server's backlog; over TLS one, since some shake hands with one at a time
)
REQUEST = b"GET /idle HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HALF = len(REQUEST) // 2


def open_all(port: int, count: int, *, half: bool = False, tls: bool = False) -> list[socket.socket]:
    """Open the connections, a batch at a time, and read a response on each, unless they are to send half a head."""
    kept: list[socket.socket] = []
    context = trusting()
    while len(kept) < count:
        batch = [
            socket.create_connection(("127.0.0.1", port), 10)
            for _ in range(min(1 if tls else BATCH, count - len(kept)))
        ]
        if tls:
            batch = [context.wrap_socket(connection) for connection in batch]
        for connection in batch:
            connection.sendall(REQUEST[:HALF] if half else REQUEST)
        for connection in [] if half else batch:
            response = Response()
            while not response.feed(connection.recv(65536)):
                pass
            if not response.keep:
                raise ConnectionError("the server does not keep connections")
        kept += batch
    return kept


if __name__ == "__main__":
    connections = open_all(int(sys.argv[1]), int(sys.argv[2]), half="half" in sys.argv[3:], tls="tls" in sys.argv[3:])
    print("open", flush=True)
    sys.stdin.read()
