"""One client's connection: bytes in and out without waiting, time limits for when it must be waited, a clean end.

`microwsgi.server.handler.WSGIRequestHandler` is a Connection that knows HTTP. What waits for the client is named by `step`,
the method that the next event belongs to: the server's poller calls `advance` then, and a waiting connection holds no thread.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
from collections import deque
from contextlib import suppress

from microwsgi.errors import ClientError, Disconnected, RequestTimeout
from microwsgi.server.environ import Environ
from microwsgi.server.gateway import Gateway

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

RECEIVE = 16 * 1024
"""Bytes received at once; a head and a small body fit."""
PIECE = 64 * 1024
"""Bytes of a file that are read at once where they have to be encrypted; OpenSSL wants what did not fit again as it was."""
TURN = 4 * 1024 * 1024
"""Bytes sent to one reader before the next connection has its turn."""
NO_LINGER = struct.pack("ii", 1, 0)
"""For SO_LINGER: on, for no time."""
LINGER = 2.0
"""Seconds to receive, after the last response, what the client still sends: closed at once, the kernel would answer that
with a reset, and the client might never see the response (RFC 9112 9.6)."""
NEVER = float("inf")

# What waits for one socket, where the system has poll; select knows only the first 1,024 descriptors.
Waiter: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


class FileSlice:
    """What is still to be sent of a file."""

    def __init__(self, descriptor: int, offset: int, count: int) -> None:
        self.descriptor, self.offset, self.count = descriptor, offset, count

    def __len__(self) -> int:
        return self.count

    def send(self, connection: socket.socket) -> int:
        """Have the kernel send a piece, or, where it would go out in the clear, read and send it; how many bytes it took."""
        if connection.__class__ is socket.socket:
            sent = os.sendfile(connection.fileno(), self.descriptor, self.offset, min(self.count, TURN))
        else:
            data = os.pread(self.descriptor, min(self.count, PIECE), self.offset)
            sent = connection.send(data) if data else 0
        if not sent:
            raise Disconnected("The file became shorter while it was sent.")
        self.offset += sent
        self.count -= sent
        return sent


class Connection:
    """A socket that never blocks, and what is known of the client's patience and ours."""

    # Slots: CPython reads them faster than what may be the instance's or the class's, and thousands of idle connections
    # need no dict each.
    __slots__ = (
        "answer",  # a whole response, to be sent by `settle`
        "allowance",  # seconds that a thread may still wait for this client
        "armed",  # the event that the poller watches for; 0 if it does not
        "asleep",  # the iterable has nothing yet, and has said when to ask again
        "base",  # the part of the environ that does not change
        "began",  # when the request came that is under way; 0 if none is
        "client_address",
        "close_connection",
        "closed",
        "connection",
        "deadline",
        "gateway",
        "holds",  # its thread is counted among those that may wait for clients
        "long_body",  # the application will read what has not come yet: its thread may have to wait for the client
        "owned",  # a thread has it, or it is in line for one: nobody else may touch it
        "parked",  # it is asleep, and rests without a thread
        "ready",  # a thread is wanted: to call the application, or to ask its iterable on
        "received",  # bytes that belong to no request yet
        "step",  # the method that the next event belongs to
        "timer_at",  # when the timer of `wake_at` goes off
        "turn",  # requests since the others had their turn
        "unsent",  # what the client was too slow for
        "wake_at",  # when the iterable is asked on at the latest
        "wants",  # the event that `step` waits for
    )

    connection: socket.socket
    gateway: Gateway
    base: Environ
    step: str
    received: bytes
    answer: bytes | None
    unsent: deque[memoryview | FileSlice] | None
    began: float
    deadline: float
    requestline: str
    chunks: object = None  # of a response that has begun, what is still to be asked for

    @classmethod
    def connected(cls, connection: socket.socket, address: object, gateway: Gateway, base: Environ) -> Connection:
        """The handler of a new connection. It does nothing by itself: the server calls `advance` when bytes arrive."""
        self = cls.__new__(cls)
        self.open(connection, address, gateway, base)
        return self

    def open(self, connection: socket.socket, address: object, gateway: Gateway, base: Environ) -> None:
        """Begin with a socket that does not block."""
        self.connection = connection
        self.client_address = address
        self.gateway = gateway
        self.base = base
        self.step = "read_head"
        self.wants = READ
        self.deadline = gateway.clock() + gateway.options.idle_time
        self.armed = self.turn = 0
        self.owned = self.ready = self.closed = self.close_connection = self.holds = False
        self.asleep = self.parked = self.long_body = False
        self.received = b""
        self.answer = self.unsent = None
        self.began = self.allowance = 0.0
        self.wake_at = self.timer_at = NEVER

    # --- Without waiting --------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Do what can be done without waiting; afterwards `ready` says whether a thread is wanted."""
        try:
            if self.step == "read_head":
                self.read_head()
            else:
                getattr(self, self.step)()
        except BlockingIOError:
            pass
        except ClientError as error:
            self.refuse(error)
        except OSError as error:
            self.vanish(str(error))

    def send(self, data: bytes | memoryview) -> None:
        """Send, and keep in `unsent` what the client is too slow for; all that leaves goes through here, in order."""
        if self.unsent is None:
            try:
                sent = self.connection.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise Disconnected("The client left before it had received the whole response.") from error
            if sent == len(data):
                return
            self.unsent = deque()
            self.allowance = self.gateway.options.write_time
            data = memoryview(data)[sent:]
        self.unsent.append(memoryview(data))

    def send_answer(self) -> None:
        """Send a whole response that waits for it."""
        answer, self.answer = self.answer, None
        try:
            self.send(answer)  # type: ignore[arg-type]  # there is one, or this is not called
        except Disconnected as gone:
            self.vanish(str(gone))

    def send_unsent(self) -> int:
        """Send as much of `unsent` as the client takes, within one turn, and answer how much that was."""
        total = 0
        try:
            while self.unsent and total < TURN:
                part = self.unsent[0]
                if isinstance(part, FileSlice):
                    total += part.send(self.connection)
                else:
                    sent = self.connection.send(part)
                    total += sent
                    self.unsent[0] = part = part[sent:]
                if not len(part):
                    self.unsent.popleft()
        except BlockingIOError:
            pass
        except OSError as error:
            raise Disconnected("The client left before it had received the whole response.") from error
        if not self.unsent:
            self.unsent = None
        return total

    def flush(self) -> None:
        """The client takes more: send it; at the end, `settle` has the next thing to do."""
        sent = self.send_unsent()
        if self.unsent is None:
            self.settle()
        else:
            self.extend(sent, self.gateway.options.write_rate, self.gateway.options.write_time)

    def linger(self) -> None:
        """Receive, and forget, until the client has closed its side too."""
        if not self.connection.recv(RECEIVE):
            self.close()

    # --- Waiting ----------------------------------------------------------------------------------------------------

    def wait_in(self, step: str, wants: int, seconds: float) -> None:
        """Let the poller call `step` when the client is there for it, or `timed_out` after so many seconds."""
        self.step = step
        self.wants = wants
        self.deadline = self.gateway.clock() + seconds
        self.gateway.watch(self.deadline)

    def extend(self, count: int, rate: float, seconds: float) -> None:
        """`count` bytes buy time, at `rate` a second, and never more than `seconds` ahead: a trickle can't go on for ever."""
        self.deadline = min(self.deadline + count / rate, self.gateway.clock() + seconds)

    def wait_for(self, event: int, deadline: float) -> bool:
        """Wait in this thread until the client is there; False if the time is over first."""
        with Waiter() as waiter:
            waiter.register(self.connection, event)
            while not waiter.select(None if deadline == NEVER else max(deadline - self.gateway.clock(), 0)):
                if self.gateway.clock() >= deadline:
                    return False
        return True

    def receive_into(self, view: memoryview) -> int:
        """Receive at least one byte for an application that reads a body; 0 when the client has closed its side."""
        options = self.gateway.options
        while True:
            try:
                count = self.connection.recv_into(view)
            except BlockingIOError:
                start = self.gateway.clock()
                if not self.wait_for(READ, start + self.allowance):
                    raise RequestTimeout("The body came more slowly than body_time and body_rate allow.") from None
                self.allowance -= self.gateway.clock() - start
            except OSError as error:
                raise Disconnected("The client left before it had sent the whole body.") from error
            else:
                self.allowance = min(self.allowance + count / options.body_rate, options.body_time)
                return count

    def wait_until_sent(self) -> None:
        """Wait in this thread for a reader that is slower than the application."""
        options = self.gateway.options
        while self.unsent is not None:
            start = self.gateway.clock()
            if not self.wait_for(WRITE, start + self.allowance):
                raise Disconnected("The client read more slowly than write_time and write_rate allow.")
            self.allowance -= self.gateway.clock() - start
            self.allowance = min(self.allowance + self.send_unsent() / options.write_rate, options.write_time)

    # --- The end ----------------------------------------------------------------------------------------------------

    def shut(self) -> None:
        """Tell the client that nothing more comes, and receive what it still sends: a close that loses no response."""
        try:
            self.connection.shutdown(socket.SHUT_WR)
        except BlockingIOError:  # there is no room yet for the closure alert of TLS
            self.wait_in("shut", WRITE, LINGER)
        except OSError:
            self.close()
        else:
            self.wait_in("linger", READ, LINGER)

    def reset(self) -> None:
        """End the connection with a reset: what the kernel holds for a client that does not read is freed, too."""
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        if hasattr(self.connection, "whole"):  # of TLS: its closure alert would say that nothing is missing
            self.connection.whole = False
        self.close()

    def decrypted(self) -> bytes:
        """What TLS has decrypted beyond the end of a body: no event comes for it. All else is received by whole records."""
        return self.connection.recv(RECEIVE) if getattr(self.connection, "pending", int)() else b""

    def close(self) -> None:
        """End the connection, whatever it is at; once."""
        if not self.closed:
            self.closed = True
            self.ready = False
            self.gateway.forget(self)
            self.connection.close()

    # --- What HTTP makes of it, in microwsgi.server.handler -----------------------------------------------------------

    def read_head(self) -> None:
        """Bytes have come while no request is under way."""
        raise NotImplementedError

    def handle_one_request(self) -> None:
        """The connection is ready, and has a thread."""
        raise NotImplementedError

    def timed_out(self) -> None:
        """The time for what the client was to do is over."""
        raise NotImplementedError

    def settle(self) -> None:
        """Nothing is left to send: what comes next."""
        raise NotImplementedError

    def refuse(self, error: ClientError) -> None:
        """The client broke a rule."""
        raise NotImplementedError

    def vanish(self, reason: str) -> None:
        """The client has left."""
        raise NotImplementedError
