"""Send idle connections from a process that ends to its successor, so that no client notices.

A process that is replaced could close them (RFC 9112 9.3.1), and a request that is on its way just then would be lost. Unix can
send the descriptor to another process instead. All processes of a parent share one pair of sockets: those that serve receive
from one end, those that retire send into the other. The received part of a head is sent with its connection. The session of
a TLS connection can't be sent.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

TIMEOUT = 1.0
"""Seconds to wait for room in the socket; after that, connections are closed, as HTTP allows for idle ones."""
LONGEST = 128 * 1024
"""Bytes of the longest message: twice the default limit of a head. A connection with more is closed."""

Adopt = Callable[[socket.socket, object, int, bytes], object]
"""Called with a connection's socket, its client's address, the number of its listener, and the bytes that were received."""


class Handoff:
    """Both ends of the socket pair."""

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
        """Send a connection to the process that serves; return False if that failed, and we keep it."""
        if len(received) >= LONGEST:
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
                data, descriptors, _, _ = socket.recv_fds(self.receiver, LONGEST, 1)
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
