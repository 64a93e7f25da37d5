"""The request of the measuring clients, and an incremental parser that finds the end of the response."""

from __future__ import annotations

import socket
import ssl
from typing import NamedTuple

HOST = "127.0.0.1"
LAST_CHUNK = b"\r\n0\r\n\r\n"
RESPONSE_TIMEOUT = 5.0  # seconds within which a response must be complete


class Request(NamedTuple):
    """A request that is sent repeatedly, with the expected status and the expected part of the response body."""

    target: str = "/"
    method: str = "GET"
    fields: tuple[tuple[str, str], ...] = ()
    body: str = ""
    chunk: int = 0  # bytes per chunk; 0 sends the body with Content-Length
    status: int = 200
    expect: str = ""

    def encode(self, *, close: bool) -> bytes:
        """Return the request as bytes, with "Connection: close" if `close`."""
        body = self.body.encode()
        fields = [("Host", HOST), *self.fields]
        if close:
            fields.append(("Connection", "close"))
        if self.chunk:
            fields.append(("Transfer-Encoding", "chunked"))
            pieces = [body[start : start + self.chunk] for start in range(0, len(body), self.chunk)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
        elif body:
            fields.append(("Content-Length", str(len(body))))
        head = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
        return "\r\n".join(head).encode() + body


class Response:
    """A response that is received incrementally."""

    def __init__(self) -> None:
        self.head = b""
        self.body: list[bytes] = []
        # Remaining bytes of the body; None means up to the last chunk, or until the server closes.
        self.left: int | None = None
        self.chunked = self.keep_alive = False
        self.status = 0
        # The last bytes of a chunked body. They begin with a line end, because the first chunk may be the last one.
        self.tail = b"\r\n"

    def feed(self, data: bytes) -> bool:
        """Add received data, and return whether the response is complete. Empty data mean that the server closed."""
        if not data:
            if not self.status or self.chunked or self.left:
                raise ConnectionError("the server closed the connection before the response was complete")
            return True
        if not self.status:
            self.head += data
            head, end, data = self.head.partition(b"\r\n\r\n")
            if not end:
                return False
            self._open(head)
        self.body.append(data)
        if self.left is not None:
            self.left -= len(data)
            return self.left <= 0
        self.tail = (self.tail + data[-len(LAST_CHUNK) :])[-len(LAST_CHUNK) :]
        return self.chunked and self.tail == LAST_CHUNK  # no body of the benchmarks contains these bytes at its end

    def _open(self, head: bytes) -> None:
        lower = head.lower() + b"\r\n"
        self.status = int(head[9:12])
        self.chunked = b"\r\ntransfer-encoding: chunked\r\n" in lower
        _, found, length = lower.partition(b"\r\ncontent-length:")
        self.left = int(length.partition(b"\r\n")[0]) if found else None
        old = lower.startswith(b"http/1.0")
        self.keep_alive = b"\r\nconnection: keep-alive" in lower if old else b"\r\nconnection: close" not in lower

    def check(self, request: Request) -> None:
        """Raise ValueError if the response is not the expected one: an error page, for example, may be faster."""
        body = b"".join(self.body).decode(errors="replace")
        if self.status != request.status or request.expect not in body:
            raise ValueError(f"response {self.status} {body[:60]!r}, expected {request.status} with {request.expect!r}")


def connect(port: int) -> socket.socket:
    """Return a connection with TCP_NODELAY, so that small writes are sent at once."""
    connection = socket.create_connection((HOST, port), RESPONSE_TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def unverified_context() -> ssl.SSLContext:
    """Return a TLS context that accepts any certificate: the benchmarks started the server themselves."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
