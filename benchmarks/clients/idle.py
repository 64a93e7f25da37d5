"""Many kept connections that each made one request: `python -m benchmarks.clients.idle PORT COUNT`.

Says `open` when all are, and holds them until its standard input ends.
"""

from __future__ import annotations

import socket
import sys

from benchmarks.clients.exchange import Response

BATCH = 100  # connections at once: below every server's backlog


def open_all(port: int, count: int) -> list[socket.socket]:
    """Open the connections, a batch at a time, and read a response on each."""
    kept: list[socket.socket] = []
    while len(kept) < count:
        batch = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(min(BATCH, count - len(kept)))]
        for connection in batch:
            connection.sendall(b"GET /idle HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        for connection in batch:
            response = Response()
            while not response.feed(connection.recv(65536)):
                pass
            if not response.keep:
                raise ConnectionError("the server does not keep connections")
        kept += batch
    return kept


if __name__ == "__main__":
    connections = open_all(int(sys.argv[1]), int(sys.argv[2]))
    print("open", flush=True)
    sys.stdin.read()
