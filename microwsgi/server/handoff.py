"""Send idle connections from a process that ends to its successor, so that no client notices.

A process that is replaced may close them (RFC 9112 9.5), but then a request that is on its way would be lost. Unix can send the
descriptor to another process instead. All children of one parent share one pair of sockets: those that serve receive from one
socket, those that retire send into the other. The received part of a head is sent with its connection. The session of a TLS
connection can't be sent: such a connection stays here for one more request, which is answered with Connection: close.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

TIMEOUT = 1.0
"""Seconds to wait for room in the socket. A connection that could not be sent stays here for one more request."""
MAX_DATAGRAM = 128 * 1024
"""Bytes that are sent with a connection: twice the default of max_header_size. A connection with as many is not sent."""

Adopt = Callable[[socket.socket, object, int, bytes], object]
"""Called with a connection's socket, its client's address, the number of its listener, and the bytes that were received."""


class Handoff:
    """The socket pair: `send` gives a connection away, `receive` takes those of other processes."""

    def __init__(self, receiver: socket.socket, sender: socket.socket) -> None:
        self.receiver = receiver
        self.sender = sender
        receiver.setblocking(False)
        sender.settimeout(TIMEOUT)

    @classmethod
    def new(cls) -> Handoff | None:
        """Make a pair; return None where the system can't send descriptors."""
        if not hasattr(socket, "send_fds"):
            return None
        return cls(*socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))

    def send(self, descriptor: int, listener: int, received: bytes) -> bool:
        """Send a connection to the process that serves; return False if that failed: it stays in this process."""
        if len(received) >= MAX_DATAGRAM:
            return False
        try:
            socket.send_fds(self.sender, [bytes([listener]) + received], [descriptor])
        except OSError:
            self.sender.setblocking(False)  # wait only once for a successor that is too slow
            return False
        return True

    def receive(self, adopt: Adopt) -> None:
        """Call `adopt` with each connection that has been sent."""
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.receiver, MAX_DATAGRAM, 1)
            except OSError:
                return  # there is none left; or another process has taken it
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                try:
                    address = connection.getpeername()
                except OSError:
                    connection.close()  # its client has left
                    continue
                adopt(connection, address, data[0], data[1:])

    def close(self) -> None:
        """Close both sockets."""
        self.receiver.close()
        self.sender.close()
