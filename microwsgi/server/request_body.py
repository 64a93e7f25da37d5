"""The body of one request on its way to the application: received before the call, or while the application reads it.

A small body is received before the call, so that no thread waits for the client. The application receives a longer one itself,
by `wsgi.input`. What it leaves unread is discarded up to a limit, so that the connection can be used again.
"""

from __future__ import annotations

import io

from microwsgi.options import Options
from microwsgi.server.transport import Transport
from microwsgi.wire.body import BodyReader, new_decoder
from microwsgi.wire.response import CONTINUE

SMALL_BODY = 16 * 1024
"""Bytes of a body up to which it is received before the application is called."""
BUFFER = 64 * 1024
"""Bytes of a long body that are received at once, when the application reads so many."""
DISCARD = 256 * 1024
"""Bytes of an unread body that are received for the sake of the next request; a longer one ends the connection."""


class RequestBody:
    """A body of `length` bytes, or CHUNKED, on a transport."""

    __slots__ = ("decoder", "discarded", "expects", "received", "transport")

    def __init__(self, transport: Transport, length: int, options: Options, *, expects: bool) -> None:
        self.transport = transport
        self.decoder = new_decoder(length, options)
        self.received: list[bytes] = []  # the data that came before the application was called
        self.discarded = 0
        self.expects = expects
        """The client waits for 100 Continue."""

    def feed(self, data: bytes) -> None:
        """Take received bytes. Raises ClientError for invalid framing."""
        piece = self.decoder.feed(data)
        if piece:
            self.received.append(piece)
        if self.decoder.done:
            self.expects = False  # RFC 9110 10.1.1: there is no need to ask for a body that is here

    @property
    def done(self) -> bool:
        """Whether the whole body has arrived."""
        return self.decoder.done

    def take_excess(self) -> bytes:
        """Return, once, the bytes behind the end of the body that were received with it."""
        return self.decoder.take_excess()

    @property
    def size(self) -> int:
        """How many bytes of data have been received before the application was called."""
        return sum(map(len, self.received))

    # --- The application reads ------------------------------------------------------------------------------------------

    def open(self) -> io.BytesIO | io.BufferedReader:
        """Return `wsgi.input`. It ends where the body ends."""
        data = b"".join(self.received)
        if self.decoder.done:
            return io.BytesIO(data)
        return io.BufferedReader(BodyReader(self.decoder, self.receive_into, data), BUFFER)

    def receive_into(self, view: memoryview) -> int:
        """Receive for an application that reads; first tell a client that waits to send. Raises OSError, ClientError."""
        if self.expects:
            self.expects = False
            self.transport.write(CONTINUE)
        return self.transport.receive_into(view)

    def response_begins(self) -> bool:
        """Take note of the final response; return whether the connection can be used after it.

        Too much may be left to discard. A client that was not told to continue may send the body, or not (RFC 9110 10.1.1).
        """
        if self.decoder.done:
            return True
        reusable = not (self.expects or self.decoder.failed or self.decoder.remaining > DISCARD)
        self.expects = False
        return reusable

    # --- What the application did not read --------------------------------------------------------------------------------

    def discard(self, data: bytes) -> bool:
        """Take received bytes and forget them; return False if too many came. Raises ClientError."""
        self.decoder.feed(data)
        self.discarded += len(data)
        return self.discarded <= DISCARD or self.decoder.done
