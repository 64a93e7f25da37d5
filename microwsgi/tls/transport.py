"""A transport over TLS: the methods of `microwsgi.server.transport.Transport`, on an SSLSocket that never blocks.

OpenSSL may have to write before it can read more (a key update of TLS 1.3), or the other way round: `interest_of` says which
event to wait for. The end of the data is announced by a closure alert, close_notify (RFC 8446 6.1, RFC 9112 9.8). A
client uses this alert to distinguish a complete response from a truncated one, so `abort` does not send it.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable
from ssl import SSLSocket

from microwsgi.options import Options
from microwsgi.server.state import READ, WRITE
from microwsgi.server.transport import Clock, FileRange, Transport, close_socket
from microwsgi.support.typenames import Any

PlainSocket = socket.socket  # within the class `socket` is an attribute
PIECE = 64 * 1024
"""Bytes that are encrypted at once.

If OpenSSL could not send a piece, the next call must pass the same piece again: so all pieces have this size."""


def would_block() -> BlockingIOError:
    """Return the error that a plain socket raises when there is nothing to receive, or no room in its send buffer."""
    return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


WOULD_BLOCK = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


def clear_error_queue(context: ssl.SSLContext) -> None:
    """Clear the queue of errors that OpenSSL has for this thread, by a handshake without a client.

    CPython does not clear it before a call, and leaves system errors in it, such as a reset connection. OpenSSL then reports
    that error for the next connection of the thread that has nothing to read (python/cpython#148594).
    """
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True).do_handshake()
    except ssl.SSLWantReadError:
        pass


class TLSTransport(Transport):
    """A client's TLS connection. `handshake` must be called until it returns 0."""

    __slots__ = (
        "encrypted",  # the handshake is done, and our closure alert was not sent
        "read_event",  # the event that reading has to wait for
        "truncated",  # the response is incomplete: no closure alert, so that the client notices
        "write_event",  # the event that writing has to wait for
    )

    is_secure = True
    sends_files = hasattr(os, "pread")

    socket: SSLSocket

    def __init__(self, connection: SSLSocket, address: object, options: Options, clock: Clock) -> None:
        super().__init__(connection, address, options, clock)
        self.encrypted = self.truncated = False
        self.read_event, self.write_event = READ, WRITE

    def handshake(self) -> int:
        """Continue the handshake. Return the event to wait for, 0 when the handshake is done. Raises OSError."""
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            return READ
        except ssl.SSLWantWriteError:
            return WRITE
        self.encrypted = True
        return 0

    def recv(self, size: int) -> bytes:
        """Return data that has arrived, at most the content of one record.

        After `half_close` the bytes are not decrypted: they are only discarded.
        """
        if not self.encrypted:
            return PlainSocket.recv(self.socket, size)
        data: bytes = self.read(self.socket.read, size)
        return data

    def recv_into(self, view: memoryview) -> int:
        """Receive into a buffer of at least one byte; return the count, 0 at the end of the stream."""
        count: int = self.read(self.socket.recv_into, view)
        return count

    def read(self, read: Callable[..., Any], argument: object) -> Any:
        """Return what a method of the socket reads. Raises BlockingIOError, OSError."""
        try:
            found = read(argument)
        except WOULD_BLOCK as error:
            raise self.wait_to_read(error) from None
        except OSError:
            found = self.read_again(read, argument)
            if not found:
                raise
        self.read_event = READ
        return found

    def wait_to_read(self, error: OSError) -> BlockingIOError:
        """Set the event that reading has to wait for, and return the error that says so."""
        self.read_event = READ if isinstance(error, ssl.SSLWantReadError) else WRITE
        return would_block()

    def read_again(self, read: Callable[[Any], Any], argument: object) -> Any:
        """Repeat a read that failed, perhaps with an error of another connection. Return nothing if it was this connection's.

        No local variable has an exception: the cycle of references would keep the buffer of `recv_into` in use.
        """
        clear_error_queue(self.socket.context)
        try:
            return read(argument)
        except WOULD_BLOCK as error:
            raise self.wait_to_read(error) from None
        except OSError:
            return None

    def pending(self) -> int:
        """Return how many bytes are already decrypted, and so will cause no event."""
        return self.socket.pending() if self.encrypted else 0

    def send(self, data: bytes | memoryview) -> int:
        """Encrypt and send some of the data. Return the number of bytes sent."""
        piece = memoryview(data)[:PIECE]
        try:
            try:
                count = self.socket.send(piece)
            except WOULD_BLOCK:
                raise
            except OSError:  # of this connection, or of another
                clear_error_queue(self.socket.context)
                count = self.socket.send(piece)
        except WOULD_BLOCK as error:
            self.write_event = WRITE if isinstance(error, ssl.SSLWantWriteError) else READ
            raise would_block() from None
        self.write_event = WRITE
        return count

    def write(self, data: bytes | memoryview) -> None:
        """Send the data after all data written before, and buffer the part that does not fit. Raises Disconnected."""
        first = self.out_buffer is None
        self.append(memoryview(data))
        if first:
            self.flush()

    def expect(self, event: int, seconds: float) -> None:
        """Set the event that the connection waits for, and the time limit."""
        super().expect(self.interest_of(event) if event else 0, seconds)

    def send_file(self, part: FileRange) -> int:
        """Read, encrypt and send some of a file. The kernel's sendfile would send it unencrypted."""
        return self.send(part.read(PIECE))

    def interest_of(self, event: int) -> int:
        """Return the event to wait for before reading, or writing, can continue."""
        return self.read_event if event == READ else self.write_event

    def close_notify(self) -> None:
        """Send close_notify, which says that no data is missing. Raises BlockingIOError if there is no room yet."""
        if self.encrypted and not self.truncated:
            try:
                self.socket.setblocking(False)  # an application may have taken the socket, and made it blocking
                self.socket.unwrap()
            except ssl.SSLWantWriteError:
                raise would_block() from None
            except OSError:
                pass  # our alert was sent, and we don't wait for the client's; or the client has disconnected
        self.encrypted = False

    def half_close(self) -> None:
        """Send the closure alert, and shut down our side (SHUT_WR). Raises BlockingIOError, OSError."""
        self.close_notify()
        PlainSocket.shutdown(self.socket, socket.SHUT_WR)

    def abort(self) -> None:
        """Make `close` send a reset, without a closure alert."""
        self.truncated = True
        super().abort()

    def close(self) -> None:
        """Close the socket, with the closure alert if there is room for it."""
        try:
            self.close_notify()
        except (BlockingIOError, ValueError):
            pass
        close_socket(self.socket)
