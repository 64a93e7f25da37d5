"""Read the bytes of one connection with the parsers of microwsgi/wire, without a socket or a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from microwsgi.errors import ClientError
from microwsgi.options import Options
from tests.wire.subject import END_OF_HEAD, Decoder, check_partial, decoder, parse


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
        end = self.received.find(END_OF_HEAD, max(start - len(END_OF_HEAD) + 1, 0))
        if end < 0:
            if self.received:
                check_partial(self.received, start, self.options)
            return False
        self.read_head(self.received[:end])
        self.received = self.received[end + len(END_OF_HEAD) :]
        return True

    def read_head(self, head: bytes) -> None:
        parsed = parse(head, self.options)
        self.request = {
            "method": parsed["method"],
            "target": parsed["target"],
            "version": parsed["version"],
            "fields": parsed["lines"],
            "body": "",
            "trailers": [],
            "persistent": parsed["persistent"],
        }
        self.decoder = decoder(parsed["length"], self.options)

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
    """Return the outcome of bytes that arrive in these pieces."""
    exchange = Exchange(options or Options())
    for piece in pieces:
        exchange.feed(piece)
    return Outcome(exchange.requests, exchange.status, exchange.received, exchange.reason)
