"""A client's non-blocking socket, its output buffer, and its time limits. A transport knows no HTTP.

    recv, peek                     return received bytes, or raise BlockingIOError
    write, write_file, flush       send in order, and buffer the bytes that the kernel does not take
    receive_into, wait_until_sent  receive and send in a thread of the pool, which may wait for the client
    half_close, abort, close       end the connection; abort discards unsent output

`microwsgi.tls.transport.TLSTransport` has the same methods. Except for methods that say otherwise, one thread at a time uses
a transport: the leader, or the thread that runs its connection.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from microwsgi.errors import Disconnected, RequestTimeout, TruncatedFile
from microwsgi.options import Options
from microwsgi.server.poller import Poller
from microwsgi.server.state import NEVER, READ, WRITE

RECEIVE = 16 * 1024
"""Bytes received at once; a head and a small body fit."""
MAX_FLUSH = 4 * 1024 * 1024
"""Bytes sent to one client before other connections are served."""
NO_LINGER = struct.pack("ii", 1, 0)
"""For SO_LINGER: on, zero seconds. A close then sends a reset."""

# Waits for a single socket. select() can't watch descriptors from 1,024 on, so poll() is used where it exists.
Waiter: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


class FileRange:
    """The part of a file that is still to be sent."""

    def __init__(self, descriptor: int, offset: int, count: int, name: str) -> None:
        self.descriptor, self.offset, self.count = descriptor, offset, count
        self.name = name

    def read(self, limit: int) -> bytes:
        """Read up to `limit` bytes without sending them. Raises TruncatedFile if the file was truncated."""
        data = os.pread(self.descriptor, min(self.count, limit), self.offset)
        if not data:
            raise TruncatedFile(f"{self.name or 'A file'} was truncated while it was being sent.")
        return data

    def skip(self, count: int) -> None:
        """Advance by the bytes that were sent. Raises TruncatedFile for 0: the kernel found the end of the file."""
        if not count:
            raise TruncatedFile(f"{self.name or 'A file'} was truncated while it was being sent.")
        self.offset += count
        self.count -= count


class Clock:
    """The clock of time limits. It stops while a debugger's prompt is open."""

    def __init__(self) -> None:
        self.now: Callable[[], float] = monotonic
        self.lock = threading.Lock()  # protects all below
        self.pauses = 0
        self.paused = False
        self.paused_at = self.paused_seconds = 0.0  # the start of the current pause; the sum of the earlier ones

    def pause(self) -> None:
        """Stop the clock. Each call needs a call of `resume`."""
        with self.lock:
            self.pauses += 1
            if self.pauses == 1:
                self.paused = True
                self.paused_at = monotonic()
                frozen = self.now()
                self.now = lambda: frozen

    def resume(self) -> None:
        """Restart the clock if `resume` was called as often as `pause`."""
        with self.lock:
            self.pauses -= 1
            if not self.pauses:
                self.paused = False
                paused = self.paused_seconds = self.paused_seconds + monotonic() - self.paused_at
                self.now = lambda: monotonic() - paused


def close_socket(connection: socket.socket) -> None:
    """Close a socket even if files of `makefile` are open. A handler class whose `finish` was not called leaves such files."""
    connection.close()
    if (descriptor := connection.detach()) >= 0:
        socket.close(descriptor)


class Transport:
    """A client's TCP or Unix socket."""

    # Thousands of connections may be idle: slots take a third of the memory of a dict.
    __slots__ = (
        "wait_budget",  # seconds that a thread may still wait for this client
        "client",  # the client's address and port; ("", "") on a Unix socket
        "clock",  # the clock of time limits
        "deadline",  # the time at which `on_timeout` of the connection is called
        "descriptor",
        "flush_deadline",  # the time by which the kernel must have taken more of the output buffer
        "interest",  # the event that the connection waits for: READ, WRITE, 0
        "options",
        "out_buffer",  # data that the kernel has not taken yet; None if there is none
        "read_ahead",  # bytes that were received and belong to no request yet
        "registered",  # the event that the poller waits for; only the leader touches the poller
        "scheduled",  # the time of this connection's entry in the timer heap
        "sent",  # bytes that the kernel has taken
        "socket",
    )

    is_secure = False
    sends_files = hasattr(os, "sendfile")

    def __init__(self, connection: socket.socket, address: object, options: Options, clock: Clock) -> None:
        connection.setblocking(False)
        self.client = (address[0], str(address[1])) if isinstance(address, tuple) else ("", "")
        self.socket = connection
        self.descriptor = connection.fileno()
        self.options = options
        self.clock = clock
        self.out_buffer: deque[memoryview | FileRange] | None = None
        self.interest = self.registered = self.sent = 0
        self.deadline = self.scheduled = self.flush_deadline = NEVER
        self.wait_budget = 0.0
        self.read_ahead = b""

    def address_string(self) -> str:
        """Return the client's address and port, or "unix"."""
        return ":".join(self.client) if self.client[0] else "unix"

    def set_client(self, client: tuple[str, str]) -> None:
        """Set the address and port of the client, if those of the socket belong to a proxy."""
        self.client = client

    # --- Receiving ----------------------------------------------------------------------------------------------------

    def recv(self, size: int) -> bytes:
        """Return received bytes, b"" at the end of the stream. Raises BlockingIOError, OSError."""
        return self.socket.recv(size)

    def peek(self, size: int) -> bytes:
        """Return received bytes without removing them; over TLS, encrypted bytes. Raises OSError."""
        return socket.socket.recv(self.socket, size, socket.MSG_PEEK)

    def set_low_water_mark(self, count: int) -> bool:
        """Make the kernel report an event only when `count` bytes have arrived; return False if it can't."""
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
        except OSError:
            return False
        return True

    def replace_socket(self, connection: socket.socket) -> None:
        """Use another socket object for the same descriptor."""
        self.socket = connection

    def unread(self, data: bytes) -> None:
        """Keep received bytes for the next request on this connection."""
        self.read_ahead += data

    def take_read_ahead(self) -> bytes:
        """Return the bytes that `unread` has kept, and empty that buffer."""
        data, self.read_ahead = self.read_ahead, b""
        return data

    def recv_into(self, view: memoryview) -> int:
        """Receive into a buffer of at least one byte; return the count, 0 at the end of the stream. Raises OSError."""
        return self.socket.recv_into(view)

    def pending(self) -> int:
        """Return the number of received bytes that will cause no event, since TLS has already decrypted them."""
        return 0

    # --- Sending ------------------------------------------------------------------------------------------------------

    def send(self, data: bytes | memoryview) -> int:
        """Pass data to the kernel; return the number of bytes that the kernel took. Raises BlockingIOError, OSError."""
        return self.socket.send(data)

    def write(self, data: bytes | memoryview) -> None:
        """Send the data after all earlier output, and buffer the bytes that the kernel does not take. Raises Disconnected."""
        if self.out_buffer is None:
            try:
                count = self.socket.send(data)
            except BlockingIOError:
                count = 0
            except OSError as error:
                raise Disconnected("The client disconnected before it had received the whole response.") from error
            self.sent += count
            if count == len(data):
                return
            data = memoryview(data)[count:]
        self.append(memoryview(data))

    def write_file(self, part: FileRange) -> None:
        """Append part of a file to the output. `flush` sends it: only threads of the pool read files."""
        self.append(part)

    def append(self, part: memoryview | FileRange) -> None:
        """Append to the output buffer, which `flush` sends."""
        if self.out_buffer is None:
            self.out_buffer = deque()
            self.wait_budget = self.options.send_timeout
            self.flush_deadline = self.clock.now() + self.wait_budget
        self.out_buffer.append(part)

    def flush(self) -> int:
        """Send the output buffer until the kernel takes no more, up to MAX_FLUSH bytes; return the count. Raises Disconnected.

        Raises TruncatedFile for a file that ended early. If `blocks_on_file` is true, only a thread of the pool may call this.
        """
        total = 0
        try:
            while self.out_buffer and total < MAX_FLUSH:
                part = self.out_buffer[0]
                if isinstance(part, FileRange):
                    count = self.send_file(part)
                    part.skip(count)
                    left = part.count
                else:
                    count = self.send(part)
                    self.out_buffer[0] = part[count:]
                    left = len(part) - count
                self.sent += count
                total += count
                if not left:
                    self.out_buffer.popleft()
        except BlockingIOError:
            pass
        except OSError as error:
            raise Disconnected("The client disconnected before it had received the whole response.") from error
        if not self.out_buffer:
            self.out_buffer = None
        options = self.options
        self.flush_deadline = min(
            self.flush_deadline + total / options.min_send_rate, self.clock.now() + options.send_timeout
        )
        return total

    def flush_time_left(self) -> float:
        """Return the seconds left for the client to receive more. Each byte extends this time, as in `receive_into`."""
        return self.flush_deadline - self.clock.now()

    def send_file(self, part: FileRange) -> int:
        """Pass part of a file to the kernel; return the number of bytes that it took. Raises BlockingIOError, OSError."""
        return os.sendfile(self.socket.fileno(), part.descriptor, part.offset, min(part.count, MAX_FLUSH))

    def blocks_on_file(self) -> bool:
        """Return whether a file is to be sent, which may have to be read from a disk."""
        return any(isinstance(part, FileRange) for part in self.out_buffer or ())

    # --- Waiting for the client, in a thread of the pool --------------------------------------------------------------

    def wait(self, event: int, seconds: float) -> bool:
        """Wait for READ or WRITE; return False if the time runs out first."""
        end = self.clock.now() + seconds
        with Waiter() as waiter:
            waiter.register(self.socket, event)
            while not waiter.select(None if seconds == NEVER else max(end - self.clock.now(), 0)):
                if self.clock.now() >= end:  # the clock stops while a debugger's prompt is open
                    return False
        return True

    def receive_into(self, view: memoryview) -> int:
        """Receive at least one byte of a body; return 0 when the client has closed its side.

        The client has `wait_budget` seconds. Each byte adds 1/min_body_rate seconds; at no time are more than body_timeout
        seconds left, so that a client that sends a few bytes at a time (slow POST) is cut off. Raises RequestTimeout and
        Disconnected.
        """
        options = self.options
        while True:
            try:
                count = self.recv_into(view)
            except BlockingIOError:
                start = self.clock.now()
                if not self.wait(self.interest_of(READ), self.wait_budget):
                    raise RequestTimeout(
                        "The body arrived more slowly than body_timeout and min_body_rate allow."
                    ) from None
                self.wait_budget -= self.clock.now() - start
            except OSError as error:
                raise Disconnected("The client disconnected before it had sent the whole body.") from error
            else:
                self.wait_budget = min(self.wait_budget + count / options.min_body_rate, options.body_timeout)
                return count

    def wait_until_sent(self) -> None:
        """Wait for a client that reads more slowly than the application writes, with a limit like that of `receive_into`."""
        options = self.options
        while self.out_buffer is not None:
            start = self.clock.now()
            if not self.wait(self.interest_of(WRITE), self.wait_budget):
                raise Disconnected("The client read more slowly than send_timeout and min_send_rate allow.")
            self.wait_budget -= self.clock.now() - start
            self.wait_budget = min(self.wait_budget + self.flush() / options.min_send_rate, options.send_timeout)

    def set_wait_budget(self, seconds: float) -> None:
        """Set the seconds for which a thread of the pool may wait for this client."""
        self.wait_budget = seconds

    # --- The loop -----------------------------------------------------------------------------------------------------

    def interest_of(self, event: int) -> int:
        """Return the event to wait for before reading or writing can continue; with TLS it may be the other one."""
        return event

    def expect(self, event: int, seconds: float) -> None:
        """Set the event that the connection waits for, and its time limit."""
        self.interest = event
        self.deadline = self.clock.now() + seconds

    def expect_event(self, event: int) -> None:
        """Set the event that the connection waits for, and keep the deadline."""
        self.interest = event

    def extend(self, count: int, rate: float, seconds: float) -> None:
        """Extend the deadline by count/rate seconds, to at most `seconds` from now, so that a slow POST is cut off."""
        self.deadline = min(self.deadline + count / rate, self.clock.now() + seconds)

    def shorten(self, deadline: float) -> None:
        """Set the deadline to this time if it is earlier than the current deadline."""
        self.deadline = min(self.deadline, deadline)

    def update_interest(self, poller: Poller) -> None:
        """Register the connection's event with the poller. Leader only."""
        if not self.registered:
            poller.register(self.descriptor, self.interest)
        elif self.interest:
            poller.modify(self.descriptor, self.interest)
        else:
            poller.unregister(self.descriptor)
        self.registered = self.interest

    def unregister(self, poller: Poller) -> None:
        """Remove the connection from the poller. Leader only."""
        if self.registered:
            self.registered = 0
            try:
                poller.unregister(self.descriptor)
            except (OSError, KeyError):
                pass  # the application was given the socket and has closed it

    def set_scheduled(self, time: float) -> None:
        """Set the time of the entry in the timer heap; NEVER if there is no entry."""
        self.scheduled = time

    # --- The end ------------------------------------------------------------------------------------------------------

    def half_close(self) -> None:
        """Announce the end of our data (RFC 9112 9.6). Raises OSError; BlockingIOError if TLS has no room for its alert yet."""
        self.socket.shutdown(socket.SHUT_WR)

    def interrupt(self) -> None:
        """Shut the socket down, so that calls of other threads that wait for this client return. For any thread."""
        with suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def abort(self) -> None:
        """Make `close` send a reset: the client notices that data is missing, and the kernel discards its send buffer."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)

    def close(self) -> None:
        """Close the socket."""
        close_socket(self.socket)

    def release(self) -> None:
        """Close only the descriptor of this process: another process keeps the connection."""
        with suppress(OSError):
            os.close(self.socket.detach())

    def detach(self) -> socket.socket:
        """Send the output buffer, and return the socket, in blocking mode. Raises Disconnected."""
        self.socket.settimeout(None)
        while self.out_buffer is not None:
            self.flush()
        return self.socket
