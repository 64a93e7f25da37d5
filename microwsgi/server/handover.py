"""Connections between two requests go from a process that ends to the one that follows: no client notices.

A process that is replaced could close them (RFC 9112 9.3.1), and a request that is on its way just then would be lost. Unix can
send the descriptor to another process instead. All processes of a parent share one pair of sockets: those that serve take from
the one end, those that retire put into the other. Bytes that were read of a head go with their connection.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from microwsgi.server.connection import Connection

PATIENCE = 1.0
"""Seconds that a successor may take to make room; afterwards a connection is closed, as idle ones may be."""
LONGEST = 128 * 1024
"""Bytes of a message: twice what a head may have by default; with a longer one the connection is closed."""


class Handover:
    """Both ends of the pair; None where the system can't send descriptors."""

    def __init__(self, taking: socket.socket, giving: socket.socket) -> None:
        self.taking = taking
        self.giving = giving
        taking.setblocking(False)
        giving.settimeout(PATIENCE)

    @classmethod
    def new(cls) -> Handover | None:
        """A pair, if there is such a thing here."""
        if not hasattr(socket, "send_fds"):
            return None
        return cls(*socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))

    def give(self, handler: Connection, listener: int) -> bool:
        """Send a connection that nobody owns to whoever serves; False if that can't be, and it is still ours."""
        connection = handler.connection
        # What TLS has agreed on with the client can't be sent.
        if type(connection) is not socket.socket or len(handler.received) >= LONGEST:
            return False
        try:
            socket.send_fds(self.giving, [bytes([listener]) + handler.received], [connection.fileno()])
        except OSError:
            self.giving.setblocking(False)  # who has kept one waiting is not to keep the others
            return False
        return True

    def take(self, receive: Callable[[socket.socket, object, int, bytes], None]) -> None:
        """Call `receive` with each connection that is there: its socket, address, listener, and what was read of it."""
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.taking, LONGEST, 1)
            except OSError:
                return  # there is none; or another process was quicker
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                try:
                    address = connection.getpeername()
                except OSError:
                    connection.close()  # its client has left
                    continue
                connection.setblocking(False)
                receive(connection, address, data[0], data[1:])

    def close(self) -> None:
        """Give the sockets back."""
        self.taking.close()
        self.giving.close()
