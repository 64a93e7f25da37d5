"""Read the bytes of one connection with the parsers of microwsgi/wire, without a socket or a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from microwsgi.errors import ClientError
from microwsgi.options import Options
from tests.wire.subject import Decoder, HeadReader, decoder, parse


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
        self.head: HeadReader | None = None
        self.decoder: Decoder | None = None
        self.status: int | None = None
        self.reason = ""
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Receive; read as many requests as are whole."""
        self.received += data
        try:
            while self.received and not self.ended:
                if self.decoder is None:
                    self.read_head()
                else:
                    self.read_body(self.decoder)
        except ClientError as error:
            self.status, self.reason = int(error.status[:3]), str(error)
            self.ended = True

    def read_head(self) -> None:
        self.head = self.head or HeadReader(self.options)
        data, self.received = self.received, b""
        found = self.head.feed(data)
        if found is None:
            return
        self.head = None
        head, self.received = found
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
        if self.decoder.done:
            self.finish(self.decoder)

    def read_body(self, body: Decoder) -> None:
        data, self.received = self.received, b""
        self.request["body"] += body.feed(data).decode("latin-1")
        if body.done:
            self.received = body.unused_data
            self.finish(body)

    def finish(self, body: Decoder) -> None:
        self.request["trailers"] = [list(pair) for pair in body.trailers]
        self.requests.append(self.request)
        self.ended = not self.request["persistent"]
        self.decoder = None


def read(pieces: Iterable[bytes], options: Options | None = None) -> Outcome:
    """Return the outcome of bytes that arrive in these pieces."""
    exchange = Exchange(options or Options())
    for piece in pieces:
        exchange.feed(piece)
    return Outcome(exchange.requests, exchange.status, exchange.received, exchange.reason)
