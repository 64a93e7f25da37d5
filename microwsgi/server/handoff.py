"""Send idle connections from a process that ends to its successor, so that no client notices.

A process that is replaced may close them (RFC 9112 9.5), but then a request that is being sent would be lost. Instead Unix can
send the descriptor to another process (SCM_RIGHTS). All children of one parent share one pair of sockets: children that serve
receive from one socket, children that retire send into the other. The received part of a head is sent with its connection. The
session of a TLS connection can't be sent: such a connection stays for one more request, answered with Connection: close.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

TIMEOUT = 1.0
"""Seconds to wait for room in the socket. A connection that could not be sent stays in this process for one more request."""
MAX_DATAGRAM = 128 * 1024
"""The limit of the bytes that are sent with a connection: twice the default of max_header_size. With more, it is not sent."""

Adopt = Callable[[socket.socket, object, int, bytes], object]
"""Called with a connection's socket, its client's address, the number of its listener, and the bytes that were received."""


class Handoff:
    """The socket pair: `send` sends a connection away, `receive` accepts those of other processes."""

    def __init__(self, receiver: socket.socket, sender: socket.socket) -> None:
        self.receiver = receiver
        self.sender = sender
        receiver.setblocking(False)
        sender.settimeout(TIMEOUT)

    @classmethod
    def new(cls) -> Handoff | None:
        """Create a pair; return None if the system can't send descriptors."""
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
                return  # none is left, or another process has received it
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                try:
                    address = connection.getpeername()
                except OSError:
                    connection.close()  # its client has disconnected
                    continue
                adopt(connection, address, data[0], data[1:])

    def close(self) -> None:
        """Close both sockets."""
        self.receiver.close()
        self.sender.close()
