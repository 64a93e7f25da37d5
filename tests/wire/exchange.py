"""What the parsers of microwsgi/wire make of one connection's bytes, without a socket or a server.

`read` is the shortest handler that there could be; `microwsgi.server.handler` walks the same steps around a socket.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from microwsgi.errors import ClientError
from microwsgi.options import Options
from microwsgi.wire.body import Decoder, decoder
from microwsgi.wire.head import (
    END,
    check_partial,
    expects_continue,
    field_lines,
    framing,
    parse_head,
    persistent,
)


class Outcome(NamedTuple):
    """What came of a connection's bytes."""

    requests: list[dict[str, Any]]
    status: int | None
    """The refusal that ended it."""
    unread: bytes
    """What was received, and belongs to no request (yet)."""
    reason: str
    """What the refusal says."""


class Exchange:
    """A connection's receiving side, fed piece by piece."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.received = b""
        self.requests: list[dict[str, Any]] = []
        self.request: dict[str, Any] = {}
        self.decoder: Decoder | None = None
        self.status: int | None = None
        self.reason = ""
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Receive; read as many requests as are whole."""
        start = len(self.received)
        self.received += data
        try:
            while not self.ended and self.step(start):
                start = 0
        except ClientError as error:
            self.status, self.reason = int(error.status[:3]), str(error)
            self.ended = True

    def step(self, start: int) -> bool:
        """Read a head or some of a body; whether there may be more to read."""
        if self.decoder is not None:
            return self.read_body()
        end = self.received.find(END, max(start - len(END) + 1, 0))
        if end < 0:
            if self.received:
                check_partial(self.received, start, self.options)
            return False
        self.read_head(self.received[:end])
        self.received = self.received[end + len(END) :]
        return True

    def read_head(self, head: bytes) -> None:
        method, target, version, fields = parse_head(head, self.options)
        length = framing(version, fields, self.options.body_size)
        expects_continue(version, fields.get("HTTP_EXPECT"))
        self.request = {
            "method": method,
            "target": target,
            "version": version,
            "fields": [list(pair) for pair in field_lines(head)],
            "body": "",
            "trailers": [],
            "persistent": persistent(version, fields.get("HTTP_CONNECTION")),
        }
        self.decoder = decoder(length, self.options)

    def read_body(self) -> bool:
        assert self.decoder is not None
        if not self.decoder.done:
            if not self.received:
                return False
            self.request["body"] += self.decoder.feed(self.received).decode("latin-1")
            self.received = self.decoder.rest if self.decoder.done else b""
        if not self.decoder.done:
            return False
        self.request["trailers"] = [list(pair) for pair in self.decoder.trailers]
        self.requests.append(self.request)
        self.ended = not self.request["persistent"]
        self.decoder = None
        return True


def read(pieces: Iterable[bytes], options: Options | None = None) -> Outcome:
    """The outcome of bytes that arrive in these pieces."""
    exchange = Exchange(options or Options())
    for piece in pieces:
        exchange.feed(piece)
    return Outcome(exchange.requests, exchange.status, exchange.received, exchange.reason)
