"""The body of one request: received before the application is called, or while the application reads it.

    in advance    by the leader into memory, then by threads of the pool into a temporary file; no thread waits
    streamed      reads of `wsgi.input` receive from the client; the thread waits, and has a client-wait permit

`microwsgi.server.handler` chooses. The rest that the application does not read is discarded, up to a limit, so that the
connection can be used again.
"""

from __future__ import annotations

import io

from microwsgi.errors import ClientError, Disconnected
from microwsgi.options import Options
from microwsgi.server.body_storage import BodyStorage, open_file, storage_error
from microwsgi.server.transport import Transport
from microwsgi.wire.body import BodyReader, new_decoder
from microwsgi.wire.response import CONTINUE

BUFFER_SIZE = 64 * 1024
"""Bytes of a body that are received at once."""
RECEIVE_BUDGET = 1024 * 1024
"""Bytes that are received into a file before other connections are served."""
DISCARD = 256 * 1024
"""Bytes of an unread body that are discarded to reach the next request; a longer body ends the connection."""
INCOMPLETE = "The client closed the connection before the end of the body (RFC 9112 8)."
CLIENT_LEFT = "The client disconnected before it had sent the whole body."


class RequestBody:
    """A body of `length` bytes, or a chunked one (`length` is CHUNKED), on a transport."""

    __slots__ = (
        "decoder",
        "discarded",
        "expects",  # the client waits for 100 Continue
        "file",  # the received data, when it is not in memory
        "in_file",  # bytes of data in the file, counted by the storage
        "in_memory",  # bytes of data in `received` that the storage has counted
        "reader",  # `wsgi.input`, when the data is in a file
        "received",  # the data that was received before the application was called
        "storage",
        "time_left",  # seconds that the client had left to send more when the connection became QUEUED
        "transport",
    )

    def __init__(
        self, transport: Transport, length: int, options: Options, storage: BodyStorage, *, expects: bool
    ) -> None:
        self.transport = transport
        self.storage = storage
        self.decoder = new_decoder(length, options)
        self.received: bytes | bytearray = b""
        self.file: io.FileIO | None = None
        self.reader: io.BufferedReader | None = None
        self.in_memory = self.in_file = self.discarded = 0
        self.time_left = 0.0
        self.expects = expects

    @property
    def done(self) -> bool:
        """Whether the whole body has arrived."""
        return self.decoder.done

    @property
    def size(self) -> int:
        """The number of bytes of data that were received in advance."""
        return self.in_file or len(self.received)

    def take_unused_data(self) -> bytes:
        """Return, once, the bytes that were received after the end of the body."""
        return self.decoder.take_unused_data()

    # --- Before the application is called -----------------------------------------------------------------------------

    def keep_time(self, seconds: float) -> None:
        """Store the seconds that the client has left, since the time in the queue of the pool does not count."""
        self.time_left = seconds

    def feed(self, data: bytes) -> None:
        """Decode received bytes and keep the data. Raises ClientError for invalid framing."""
        piece = self.decoder.feed(data)
        if piece:
            if not self.received:
                self.received = piece
            else:
                if isinstance(self.received, bytes):
                    self.received = bytearray(self.received)  # grows with the data that arrives
                self.received += piece
        if self.decoder.done:
            self.expects = False  # RFC 9110 10.1.1: no 100 is needed for a body that has arrived

    def tell_to_continue(self) -> None:
        """Send 100 Continue to a client that waits for it. Raises Disconnected."""
        if self.expects:
            self.expects = False
            self.transport.write(CONTINUE)

    def keep_in_memory(self, limit: int) -> bool:
        """Count the received data as kept in memory; return False if the limits do not allow that."""
        size = len(self.received)
        if size > limit or not self.storage.add_memory(size - self.in_memory):
            return False
        self.in_memory = size
        return True

    def receive_into_file(self) -> int:
        """Receive the bytes that have arrived, up to RECEIVE_BUDGET, into a file; return the count.

        File systems may block, so this is for threads of the pool. Raises ClientError, Disconnected.
        """
        file = self.file
        if file is None:
            file = self.file = open_file()
            data, self.received = self.received, b""
            self.write(file, data)
            self.storage.release(self.in_memory, 0)
            self.in_memory = 0
        total = 0
        while not self.decoder.done and total < RECEIVE_BUDGET:
            try:
                received = self.transport.recv(BUFFER_SIZE)
            except BlockingIOError:
                return total
            except OSError as error:
                raise Disconnected(CLIENT_LEFT) from error
            if not received:
                raise ClientError(INCOMPLETE)
            total += len(received)
            self.write(file, self.decoder.feed(received))
        if self.decoder.done:
            self.storage.stored()
        return total

    def write(self, file: io.FileIO, data: bytes | bytearray) -> None:
        """Append to the file. Raises ServiceUnavailable, InsufficientStorage."""
        self.storage.add_to_files(len(data))
        self.in_file += len(data)
        left = memoryview(data)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            raise storage_error(error) from error

    # --- The application reads ----------------------------------------------------------------------------------------

    def open(self) -> io.BytesIO | io.BufferedReader:
        """Return `wsgi.input`. It ends where the body ends."""
        if self.file is not None:
            if self.reader is None:
                self.reader = io.BufferedReader(self.file, BUFFER_SIZE)
            self.reader.seek(0)
            return self.reader
        self.received = bytes(self.received)
        if self.decoder.done:
            return io.BytesIO(self.received)
        return io.BufferedReader(BodyReader(self.decoder, self.receive_into, self.received), BUFFER_SIZE)

    def receive_into(self, view: memoryview) -> int:
        """Receive for an application that reads; first send the 100 that the client waits for. Raises OSError, ClientError."""
        self.tell_to_continue()
        return self.transport.receive_into(view)

    def prepare_for_response(self) -> bool:
        """Prepare for the final response; return whether the connection can be used after that response.

        It can't if too much of the body is left to discard. A client that got no 100 Continue may send the body, or may not
        (RFC 9110 10.1.1).
        """
        if self.decoder.done:
            return True
        reusable = not (self.expects or self.decoder.failed or self.decoder.remaining > DISCARD)
        self.expects = False
        return reusable

    # --- The end ------------------------------------------------------------------------------------------------------

    def discard(self, data: bytes) -> bool:
        """Decode received bytes and discard the data; return False if there was too much. Raises ClientError."""
        self.decoder.feed(data)
        self.discarded += len(data)
        return self.discarded <= DISCARD or self.decoder.done

    def release_memory(self) -> None:
        """Release the memory of the received data."""
        if self.in_memory:
            self.storage.release(self.in_memory, 0)
            self.in_memory = 0

    def close_file(self) -> None:
        """Close the file, which frees its space. Freeing much space may block, so only threads of the pool call this."""
        file, self.file = self.reader or self.file, None
        self.reader = None
        if file is not None:
            file.close()
            self.storage.release(0, self.in_file)
