"""A client that sends a fixed number of requests in batches: one request on each connection, then it reads all responses.

The number of requests, and the number of those that arrive together, do not depend on the speed of the server.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

HELLO = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nConnection: close\r\n\r\n"
BROWSER = """\
GET /articles/{0}/edit?page={1}&q=short+stack+{2} HTTP/1.1
Host: 127.0.0.1:8000
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8
Accept-Language: en-GB,en;q=0.7,de;q=0.3
Accept-Encoding: gzip, deflate, br, zstd
Connection: keep-alive
Upgrade-Insecure-Requests: 1
Sec-Fetch-Dest: document
Sec-Fetch-Mode: navigate
Sec-Fetch-Site: same-origin
Sec-Fetch-User: ?1
Cookie: theme=dark; session={3}-{0}

""".replace("\n", "\r\n")
TIMEOUT = 60.0
"""Seconds for a response. A server under valgrind is slow."""

Head = Callable[[int], bytes]
"""A function that returns the head of a request, given the request's number."""


def hello(number: int) -> bytes:
    """Return the same short head for each request."""
    return HELLO


def browser(number: int) -> bytes:
    """Return a browser's head, with a different path, query and cookie for each request."""
    return BROWSER.format(number, number % 97, number * 7, number * 2654435761 % 2**32).encode()


def keep_alive(port: int, requests: int, head: Head, body: bytes, connections: int) -> None:
    """Send requests on persistent connections. Raise OSError."""
    opened = [socket.create_connection(("127.0.0.1", port), TIMEOUT) for _ in range(connections)]
    try:
        for first in range(0, requests, connections):
            for number, each in enumerate(opened, first):
                each.sendall(head(number))
            for each in opened:
                receive(each, body)
    finally:
        for each in opened:
            each.close()


def receive(connection: socket.socket, body: bytes) -> None:
    """Receive a response up to the end of its body. Raise OSError."""
    received = b""
    while not received.endswith(body):
        data = connection.recv(65536)
        if not data:
            raise ConnectionError(f"The server closed the connection after {received!r}")
        received += data


def new_connections(port: int, requests: int, body: bytes) -> None:
    """Send each request on a new connection, after the previous one is closed. Raise OSError."""
    for _ in range(requests):
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
            connection.sendall(CLOSE)
            receive(connection, body)
            while connection.recv(65536):
                pass
