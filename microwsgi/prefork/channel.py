"""Messages between a parent and its child: small dicts over a pair of sockets, each preceded by its length.

The parent's end is a `Channel`, which never blocks: bytes that the kernel does not take are queued, up to a limit. The child's
end is a `WorkerChannel`, on which a thread waits. marshal encodes the messages: it is fast and handles bytes objects, and both
ends are the same version of Python.
"""

from __future__ import annotations

import errno
import marshal
import os
import select
import socket
import threading
from collections import deque

from microwsgi.process.system import READ, WRITE, System
from microwsgi.support.typenames import Any

RECEIVE = 65536
LENGTH = 4
"""Bytes of the length before each message."""
MAX_QUEUED = 64 * 1024
"""Bytes of orders that are queued for a child. An order has some twenty bytes: a child with a full queue no longer reads."""
MAX_QUEUED_EVENTS = 4 * 1024 * 1024
"""Bytes of events (`microwsgi.prefork.topics`) that are queued for a child; orders are sent before them."""
MAX_MESSAGE = 256 * 1024 * 1024
"""Bytes of a message. A greater length is not one of our messages: code of the child has corrupted memory or the stream."""

DEAD = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF}
"""Errors that mean the end of a channel; others are temporary."""

_poll = select.poll  # bound at import, before an application can replace it
Message = dict[str, Any]


def encode(message: Message) -> bytes:
    """Encode a message, with its length before it."""
    data = marshal.dumps(message)
    return len(data).to_bytes(LENGTH, "big") + data


class Decoder:
    """Decodes bytes to messages. Raises ValueError for invalid messages."""

    def __init__(self) -> None:
        self.received = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that these bytes complete."""
        self.received += data
        messages, begin = [], 0
        while len(self.received) - begin >= LENGTH:
            length = int.from_bytes(self.received[begin : begin + LENGTH], "big")
            if length > MAX_MESSAGE:
                raise ValueError(f"a message of {length} bytes")
            end = begin + LENGTH + length
            if len(self.received) < end:
                break
            try:
                message = marshal.loads(self.received[begin + LENGTH : end])  # noqa: S302 - of our own process
            except (EOFError, TypeError) as error:
                raise ValueError(str(error)) from None
            messages.append(message)
            begin = end
        del self.received[:begin]
        return messages


class Channel:
    """The parent's end. If the child dies, the parent reads an end of file."""

    def __init__(self, connection: socket.socket, system: System) -> None:
        self.socket = connection
        self.system = system
        self.decoder = Decoder()
        self.queue = bytearray()
        self.max_queued = MAX_QUEUED
        """The maximum size of `queue`: higher while it holds an event."""
        self.events: deque[bytes] = deque()
        """Encoded, to be sent when the queue is empty."""
        self.queued_events = 0  # the number of bytes in `events`
        self.drained = False  # the last `receive` found nothing to read
        connection.setblocking(False)

    def fileno(self) -> int:
        """The descriptor; -1 after the end."""
        return self.socket.fileno()

    @property
    def interest(self) -> int:
        """The events of poll(2) to wait for."""
        return READ | (WRITE if self.queue else 0)

    def send(self, **message: object) -> bool:
        """Send a message, now or when the child reads. Return False if it is dropped because the queue is full."""
        data = encode(message)
        if len(self.queue) + len(data) > self.max_queued:
            return False
        self.queue += data
        self.try_to_write()
        return True

    def send_event(self, data: bytes) -> bool:
        """Send an encoded message after all others. Return False if it is dropped because the queue of events is full."""
        if self.queued_events + len(data) > MAX_QUEUED_EVENTS:
            return False
        self.events.append(data)
        self.queued_events += len(data)
        self.try_to_write()
        return True

    def try_to_write(self) -> None:
        """Send queued messages; if that fails, the loop tries again."""
        try:
            self.write_queued()
        except OSError:
            pass

    def write_queued(self) -> None:
        """Send queued messages until the socket's buffer is full."""
        try:
            while self.queue or self.events:
                if not self.queue:
                    self.queue += self.events[0]
                    self.queued_events -= len(self.events[0])
                    self.max_queued = MAX_QUEUED + len(self.events.popleft())
                del self.queue[: self.system.send(self.socket, self.queue)]
            self.max_queued = MAX_QUEUED
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in DEAD:
                raise  # the system is out of memory at the moment; the queue is kept
            self.queue.clear()
            self.events.clear()
            self.queued_events = 0  # the child is dead, as the end of file will show

    def receive(self) -> list[Message] | None:
        """Return the received messages; None at the end of file. Raises OSError."""
        self.drained = False
        try:
            data = self.system.receive(self.socket, RECEIVE)
            return self.decoder.feed(data) if data else None
        except (BlockingIOError, InterruptedError):
            self.drained = True
            return []
        except ValueError:
            return None
        except OSError as error:
            if error.errno not in DEAD:
                raise
            return None

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class WorkerChannel:
    """The child's end, and a descriptor by which a signal handler wakes the thread that reads."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.decoder = Decoder()
        self.lock = threading.Lock()
        """Protects the sending side: several threads send."""
        self.wake_reader, self.wake_writer = socket.socketpair()
        self.wake_writer.setblocking(False)

    def send(self, **message: object) -> None:
        """Send a message, from any thread. It blocks only while the parent is stopped, for example by Ctrl-Z."""
        try:
            with self.lock:
                self.socket.sendall(encode(message))
        except OSError:
            pass  # the parent is dead, as the end of file will show

    def wake(self) -> None:
        """Wake `receive`. This is the only method that a signal handler may call."""
        try:
            self.wake_writer.send(b"\0")
        except OSError:
            pass  # its buffer is full: the reader will wake anyway

    def receive(self) -> tuple[bool, list[Message] | None]:
        """Wait. Return whether `wake` was called, and the received messages; None at the end of file."""
        poll = _poll()
        poll.register(self.socket.fileno(), READ)
        poll.register(self.wake_reader.fileno(), READ)
        ready = dict(poll.poll())
        woken = self.wake_reader.fileno() in ready
        if woken:
            self.wake_reader.recv(4096)
        if self.socket.fileno() not in ready:
            return woken, []
        try:
            data = self.socket.recv(RECEIVE)
        except OSError:
            data = b""
        return woken, self.decoder.feed(data) if data else None

    def release(self) -> None:
        """Close the descriptors, in a process that the application has forked; another thread may have held the lock then."""
        self.lock = threading.Lock()
        for each in (self.socket, self.wake_reader, self.wake_writer):
            os.close(each.detach())
