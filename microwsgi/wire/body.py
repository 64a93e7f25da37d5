"""The body of a request: decoders of the bytes after the head (RFC 9112 6 and 7), and `wsgi.input` (PEP 3333).

A decoder is fed bytes and separates data from framing; it has no socket. `BodyReader` is the raw file behind `wsgi.input`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

from microwsgi.errors import ClientError, ContentTooLarge, Disconnected, FieldsTooLarge
from microwsgi.options import Options
from microwsgi.support.typenames import WriteableBuffer
from microwsgi.wire.request import CHUNKED
from microwsgi.wire.syntax import CONTROL, FIELD_LINE, TOKEN

SCRATCH = 16 * 1024
"""Bytes received at once while the size of a chunk is not known."""
EXTENSIONS = 16 * 1024
"""Bytes by which chunk extensions may exceed the data. They are ignored, and only an attacker sends as many."""

# RFC 9112 7.1. Sixteen digits are enough for any length; more would be an attempt at an overflow. Leading zeros are allowed.
QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
EXTENSION = rf"[ \t]*+;[ \t]*+{TOKEN}++(?:[ \t]*+=[ \t]*+(?:{TOKEN}++|{QUOTED}))?"
CHUNK_LINE = re.compile(rf"(0*+[0-9A-Fa-f]{{0,16}}+)(?<=[0-9A-Fa-f])((?:{EXTENSION})*+)".encode("latin-1"))


class LengthDecoder:
    """A body of `remaining` bytes (RFC 9112 6.2)."""

    failed = False
    trailers: tuple[()] = ()

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.unused_data = b""
        """Bytes that were fed after the end of the body."""

    @property
    def done(self) -> bool:
        """Whether the whole body was fed."""
        return not self.remaining

    def feed(self, data: bytes) -> bytes:
        """Return the part of `data` that belongs to the body."""
        piece, self.unused_data = data[: self.remaining], data[self.remaining :]
        self.remaining -= len(piece)
        return piece

    def take_unused_data(self) -> bytes:
        """Return the bytes after the end of the body, once."""
        data, self.unused_data = self.unused_data, b""
        return data

    def skip(self, count: int) -> None:
        """Count `count` bytes of data that did not pass through `feed`."""
        self.remaining -= count


class ChunkedDecoder:
    """A chunked body (RFC 9112 7.1). Its trailer fields are kept separately in `trailers` (RFC 9110 6.5.1).

    `remaining` is the number of bytes of the current chunk's data that have not arrived. Raises ClientError for invalid chunks.
    """

    def __init__(self, limits: Options) -> None:
        self.limits = limits
        self.remaining = 0
        self.unused_data = b""
        """An incomplete line; once the body has ended, the bytes after it."""
        self.done = False
        self.failed = False
        self.trailers: list[tuple[str, str]] = []
        self.on_line = self.on_size_line
        self.size = self.extensions = self.trailer_size = 0
        self.searched = 0  # bytes of an incomplete line that have no line end and no control character

    def feed(self, data: bytes) -> bytes:
        """Return the data in these bytes. An incomplete line is kept for the next call."""
        if self.failed:
            raise ClientError("The body can't be read further: its chunked coding is invalid (RFC 9112 7.1).")
        self.failed = True  # reset below if this call succeeds: nothing may be read after invalid bytes
        data = self.unused_data + data
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
            end = data.find(b"\r\n", start + max(self.searched - 1, 0))
            if end < 0 or end - start > self.limits.max_line_size:
                self.check_line(data, start, end if end >= 0 else len(data) - data.endswith(b"\r"))
            if end < 0:
                break
            self.searched = 0
            self.on_line(data[start:end])
            start = end + 2
        self.unused_data = data[start:]
        self.failed = False
        return b"".join(pieces)

    def skip(self, count: int) -> None:
        """Count `count` bytes of the current chunk's data as received."""
        self.remaining -= count
        if not self.remaining:
            self.on_line = self.on_data_end

    def take_unused_data(self) -> bytes:
        """Return the bytes after the end of the body, once."""
        data, self.unused_data = self.unused_data, b""
        return data

    def on_size_line(self, line: bytes) -> None:
        """Parse the line that begins a chunk."""
        match = CHUNK_LINE.fullmatch(line)
        if match is None:
            raise ClientError("A chunk must begin with its size in hexadecimal digits (RFC 9112 7.1).")
        self.remaining = int(match[1], 16)
        self.size += self.remaining
        self.extensions += len(match[2])
        if self.size > self.limits.max_body_size:
            raise ContentTooLarge(f"The body exceeds the limit of {self.limits.max_body_size} bytes (max_body_size).")
        if self.extensions > EXTENSIONS + self.size:
            raise ClientError(f"The chunk extensions are more than {EXTENSIONS} bytes longer than the data.")
        if not self.remaining:
            self.on_line = self.on_trailer_line

    def on_data_end(self, line: bytes) -> None:
        """Check the line end after the data of a chunk."""
        if line:
            raise ClientError("A chunk's data is longer than its size says (RFC 9112 7.1).")
        self.on_line = self.on_size_line

    def on_trailer_line(self, line: bytes) -> None:
        """Parse a line after the last chunk; an empty one ends the body."""
        if not line:
            self.done = True
            return
        match = FIELD_LINE.fullmatch(line.decode("latin-1"))
        if match is None:
            raise ClientError("A trailer is not a field line (RFC 9112 7.1.2).")
        self.trailer_size += len(line)
        self.trailers.append((match[1], match[2].strip(" \t")))
        if self.trailer_size > self.limits.max_header_size or len(self.trailers) > self.limits.max_header_count:
            raise FieldsTooLarge("The trailer fields exceed max_header_size or max_header_count.")

    def check_line(self, data: bytes, start: int, end: int) -> None:
        """Reject a line as soon as it can no longer be valid, instead of waiting for its CRLF."""
        length, limit = end - start, self.limits.max_line_size
        control = CONTROL.search(data, start + min(self.searched, length), end)
        if (control and control.start() - start <= limit) or (length and self.on_line == self.on_data_end):
            raise ClientError("A line of the chunked coding does not end with CR LF (RFC 9112 7.1).")
        if length > limit:
            kind = FieldsTooLarge if self.on_line == self.on_trailer_line else ClientError
            raise kind(f"A line of the chunked coding is longer than {limit} bytes (max_line_size).")
        self.searched = length


Decoder = LengthDecoder | ChunkedDecoder


def new_decoder(length: int, limits: Options) -> Decoder:
    """Return the decoder for a value of `request.body_length`."""
    return ChunkedDecoder(limits) if length == CHUNKED else LengthDecoder(length)


class BodyReader(io.RawIOBase):
    """A body that is received while the application reads it; wrap it in an `io.BufferedReader`.

    `receive` fills a buffer with at least one byte and returns the count. 0 means that the client has closed the connection,
    which raises Disconnected here: an incomplete body must not look like a complete one (RFC 9112 8).
    """

    def __init__(self, decoder: Decoder, receive: Callable[[memoryview], int], decoded: bytes) -> None:
        self.decoder = decoder
        self.receive = receive
        self.decoded = memoryview(decoded)  # data that was decoded already, and is read first

    def readable(self) -> bool:
        """Return True, as io.BufferedReader requires."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer with some of the body; return 0 at its end."""
        with memoryview(buffer).cast("B") as view:
            while not self.decoded:
                if self.decoder.done:
                    return 0
                if self.decoder.remaining and view:
                    count = self.receive_some(view[: self.decoder.remaining])
                    self.decoder.skip(count)
                    return count
                scratch = bytearray(SCRATCH)
                count = self.receive_some(memoryview(scratch))
                self.decoded = memoryview(self.decoder.feed(bytes(scratch[:count])))
            count = min(len(view), len(self.decoded))
            view[:count] = self.decoded[:count]
            self.decoded = self.decoded[count:]
            return count

    def receive_some(self, view: memoryview) -> int:
        """Receive at least one byte. Raises Disconnected at the end of the stream."""
        count = self.receive(view)
        if not count:
            raise Disconnected("The client disconnected before it had sent the whole body.")
        return count
