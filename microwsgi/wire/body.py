"""A request's body: from the bytes behind the head to `wsgi.input` (RFC 9112 6 and 7, PEP 3333).

A decoder is fed bytes and tells data from framing; it knows no socket. `Body` is the file that the application reads: it
gets bytes from the function that `microwsgi.server.handler` gives it and ends where the body ends.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

from microwsgi.errors import ClientError, ContentTooLarge, Disconnected, FieldsTooLarge
from microwsgi.options import Options
from microwsgi.wire.head import CHUNKED, CONTROL, FIELD_LINE, TOKEN

SCRATCH = 16 * 1024
"""Bytes received at once where a chunk's size is not known yet."""
EXTENSIONS = 16 * 1024
"""Bytes of chunk extensions beyond the size of the data: they are ignored, so only an attacker sends more."""

# RFC 9112 7.1. Sixteen digits hold every length that there is; more would be an attempt at an overflow.
QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
EXTENSION = rf"[ \t]*+;[ \t]*+{TOKEN}++(?:[ \t]*+=[ \t]*+(?:{TOKEN}++|{QUOTED}))?"
CHUNK_LINE = re.compile(rf"([0-9A-Fa-f]{{1,16}})((?:{EXTENSION})*+)".encode("latin-1"))


class LengthDecoder:
    """A body of `remaining` bytes (RFC 9112 6.2)."""

    failed = False

    def __init__(self, length: int) -> None:
        self.trailers: list[tuple[str, str]] = []
        self.remaining = length
        self.rest = b""

    @property
    def done(self) -> bool:
        """Whether all of the body was fed; what was fed beyond it is in `rest`."""
        return not self.remaining

    def feed(self, data: bytes) -> bytes:
        """The part of `data` that is the body's."""
        piece, self.rest = data[: self.remaining], data[self.remaining :]
        self.remaining -= len(piece)
        return piece

    def skip(self, count: int) -> None:
        """Take note of `count` bytes of data that went past `feed`."""
        self.remaining -= count


class ChunkedDecoder:
    """A body of chunks (RFC 9112 7.1), whose trailer fields are kept apart in `trailers` (RFC 9110 6.5.1).

    `remaining` is what is still to come of the current chunk's data. Raises a ClientError for what is no chunk.
    """

    def __init__(self, limits: Options) -> None:
        self.limits = limits
        self.remaining = 0
        self.rest = b""
        self.done = False
        self.failed = False
        self.trailers: list[tuple[str, str]] = []
        self.take_line = self.take_size
        self.size = self.extensions = self.trailer_size = 0

    def feed(self, data: bytes) -> bytes:
        """The data in these bytes. What ends within a line waits for the next; what is beyond the body is in `rest`."""
        if self.failed:
            raise ClientError("The body can't be read on behind a part that is not valid (RFC 9112 7.1).")
        self.failed = True  # until this has come to its end: nobody may go on behind bytes that were not understood
        data = self.rest + data
        pieces = []
        start = 0
        while not self.done:
            if self.remaining:
                piece = data[start : start + self.remaining]
                if not piece:
                    break
                pieces.append(piece)
                self.skip(len(piece))
                start += len(piece)
                continue
            end = data.find(b"\r\n", start)
            if end < 0:
                self.check_line(data[start:].removesuffix(b"\r"))
                break
            if end - start > self.limits.line_length:
                self.check_line(data[start:end])
            self.take_line(data[start:end])
            start = end + 2
        self.rest = data[start:]
        self.failed = False
        return b"".join(pieces)

    def skip(self, count: int) -> None:
        """Take note of `count` bytes of data that went past `feed`."""
        self.remaining -= count
        if not self.remaining:
            self.take_line = self.take_end

    def take_size(self, line: bytes) -> None:
        match = CHUNK_LINE.fullmatch(line)
        if match is None:
            raise ClientError("A chunk begins with its size in hexadecimal digits (RFC 9112 7.1).")
        self.remaining = int(match[1], 16)
        self.size += self.remaining
        self.extensions += len(match[2])
        if self.size > self.limits.body_size:
            raise ContentTooLarge(f"The body is longer than {self.limits.body_size} bytes, the limit (body_size).")
        if self.extensions > EXTENSIONS + self.size:
            raise ClientError(f"The body has more than {EXTENSIONS} bytes of chunk extensions, and less data.")
        if not self.remaining:
            self.take_line = self.take_trailer

    def take_end(self, line: bytes) -> None:
        if line:
            raise ClientError("A chunk's data is longer than its size says (RFC 9112 7.1).")
        self.take_line = self.take_size

    def take_trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        match = FIELD_LINE.fullmatch(line.decode("latin-1"))
        if match is None:
            raise ClientError("A trailer is not a field line (RFC 9112 7.1.2).")
        self.trailer_size += len(line)
        self.trailers.append((match[1], match[2].strip(" \t")))
        if self.trailer_size > self.limits.head_size or len(self.trailers) > self.limits.field_count:
            raise FieldsTooLarge("The trailer has more fields than head_size and field_count allow.")

    def check_line(self, line: bytes) -> None:
        """Refuse a line as soon as it can't become valid: no one waits for the end of what has none, or is too long."""
        control = CONTROL.search(line)
        if (control and control.start() <= self.limits.line_length) or (line and self.take_line == self.take_end):
            raise ClientError("A line of the chunked coding is not ended by CR LF (RFC 9112 7.1).")
        if len(line) > self.limits.line_length:
            kind = FieldsTooLarge if self.take_line == self.take_trailer else ClientError
            raise kind(f"A line of the chunked coding is longer than {self.limits.line_length} bytes (line_length).")


Decoder = LengthDecoder | ChunkedDecoder


def decoder(length: int, limits: Options) -> Decoder:
    """The decoder for what `framing` said."""
    return ChunkedDecoder(limits) if length == CHUNKED else LengthDecoder(length)


class Body(io.RawIOBase):
    """`wsgi.input` of a body that is received while the application reads it; wrap it in an `io.BufferedReader`.

    `receive` fills a buffer, waits for at least one byte, and answers how many; 0 means that the client has left, which
    raises Disconnected here: a body cut short is never taken for a whole one (RFC 9112 8).
    """

    def __init__(self, decoder: Decoder, receive: Callable[[memoryview], int], received: bytes) -> None:
        self.decoder = decoder
        self.receive = receive
        self.decoded = memoryview(received)

    def readable(self) -> bool:
        """Always: io.BufferedReader asks."""
        return True

    def readinto(self, buffer: object, /) -> int:
        """Fill the buffer with some of the body; 0 at its end."""
        with memoryview(buffer).cast("B") as view:  # type: ignore[arg-type]  # Buffer has a name from Python 3.12 on
            while not self.decoded:
                if self.decoder.done:
                    return 0
                if self.decoder.remaining and view:
                    count = self.take(view[: self.decoder.remaining])
                    self.decoder.skip(count)
                    return count
                scratch = bytearray(SCRATCH)
                count = self.take(memoryview(scratch))
                self.decoded = memoryview(self.decoder.feed(bytes(scratch[:count])))
            count = min(len(view), len(self.decoded))
            view[:count] = self.decoded[:count]
            self.decoded = self.decoded[count:]
            return count

    def take(self, view: memoryview) -> int:
        count = self.receive(view)
        if not count:
            raise Disconnected("The client left before it had sent the whole body.")
        return count
