"""A request of the measuring clients, and how they know that its response is complete."""

from __future__ import annotations

import socket
import ssl
from typing import NamedTuple

HOST = "127.0.0.1"
LAST_CHUNK = b"\r\n0\r\n\r\n"
RESPONSE_TIMEOUT = 5.0  # seconds that a server may keep a client waiting


class Request(NamedTuple):
    """What is sent again and again, and the status and the piece of the body that must come back."""

    target: str = "/"
    method: str = "GET"
    fields: tuple[tuple[str, str], ...] = ()
    body: str = ""
    chunk: int = 0  # bytes of a chunk; 0 sends the body by its length
    status: int = 200
    expect: str = ""

    def octets(self, *, close: bool) -> bytes:
        """The whole request as it goes over the wire."""
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
    """What has come of a response so far."""

    def __init__(self) -> None:
        self.head = b""
        self.body: list[bytes] = []
        self.left: int | None = None  # bytes until the end; None is until the last chunk, or until the server closes
        self.chunked = self.keep_alive = False
        self.status = 0
        self.tail = b"\r\n"  # the last octets of a chunked body: its first chunk may be the last

    def feed(self, data: bytes) -> bool:
        """Take what came; whether the response is complete. No bytes are the server's closing."""
        if not data:
            if not self.status or self.chunked or self.left:
                raise ConnectionError("the server closed before the response was complete")
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
        return self.chunked and self.tail == LAST_CHUNK  # as none of our bodies ends

    def _open(self, head: bytes) -> None:
        lower = head.lower() + b"\r\n"
        self.status = int(head[9:12])
        self.chunked = b"\r\ntransfer-encoding: chunked\r\n" in lower
        _, found, length = lower.partition(b"\r\ncontent-length:")
        self.left = int(length.partition(b"\r\n")[0]) if found else None
        old = lower.startswith(b"http/1.0")
        self.keep_alive = b"\r\nconnection: keep-alive" in lower if old else b"\r\nconnection: close" not in lower

    def check(self, request: Request) -> None:
        """Raise when it is not the answer: a wrong one may well be a quick one."""
        body = b"".join(self.body).decode(errors="replace")
        if self.status != request.status or request.expect not in body:
            raise ValueError(f"answered {self.status} {body[:60]!r}, not {request.status} with {request.expect!r}")


def connect(port: int) -> socket.socket:
    """A connection whose small writes leave at once."""
    connection = socket.create_connection((HOST, port), RESPONSE_TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def unverified_context() -> ssl.SSLContext:
    """TLS for clients that ask whom the harness has just started: any certificate will do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
