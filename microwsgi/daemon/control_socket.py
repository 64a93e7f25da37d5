"""The socket for `microwsgi status` and `restart --graceful`: one query and one answer for each connection.

The loop of the parent process reads it, so nothing here blocks, and clients that send nothing time out.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

from microwsgi.process.system import System

QUERY_SIZE = 64
"""The maximum size of a query in bytes."""
QUERY_TIMEOUT = 2.0
"""Seconds within which a client must send its query."""
MAX_CLIENTS = 32
"""Clients that have sent no query yet. When there is one more, the oldest of them is dropped."""
NEVER = float("inf")


class Client:
    """A connection of a client."""

    def __init__(self, connection: socket.socket, until: float, on_close: Callable[[Client], object]) -> None:
        self.socket = connection
        self.until = until
        self.on_close = on_close

    def answer(self, message: dict[str, object]) -> None:
        """Send JSON and close the connection. Bytes beyond the socket's buffer (about 200 KB) are not sent."""
        try:
            self.socket.send(json.dumps(message).encode() + b"\n")
            self.socket.shutdown(
                socket.SHUT_WR
            )  # close alone is not enough: a worker that was just forked may still have a copy
        except OSError:
            pass  # the client has disconnected
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.on_close(self)
        self.socket.close()


class ControlSocket:
    """A listening socket, and the clients that have not sent their query yet. The loop polls `inputs`."""

    def __init__(
        self,
        listener: socket.socket,
        inputs: dict[int, Callable[[], object]],
        handle_query: Callable[[bytes, Client], object],
        system: System,
    ) -> None:
        self.listener = listener
        self.inputs = inputs
        self.handle_query = handle_query
        self.system = system
        self.clients: list[Client] = []  # those that have sent no query yet
        self.open: set[Client] = set()  # all clients, including those that wait for an answer
        listener.setblocking(False)
        inputs[listener.fileno()] = self.accept

    def next_timeout(self) -> float:
        """Return the time when `expire` must be called."""
        return min((client.until for client in self.clients), default=NEVER)

    def accept(self) -> None:
        """Accept a connection."""
        try:
            connection = self.system.accept(self.listener)
        except OSError:
            # The connection stays in the kernel's queue. Without a pause the loop would call this again at once, repeatedly.
            self.system.sleep(0.05)
            return
        connection.setblocking(False)
        if len(self.clients) >= MAX_CLIENTS:
            self.drop(self.clients[0])
        client = Client(connection, self.system.monotonic() + QUERY_TIMEOUT, self.open.discard)
        self.clients.append(client)
        self.open.add(client)
        self.inputs[connection.fileno()] = lambda: self.read(client)

    def read(self, client: Client) -> None:
        """Read a query, or the end of the connection."""
        try:
            query = self.system.receive(client.socket, QUERY_SIZE)
        except BlockingIOError:
            return
        except OSError:
            query = b""
        self.forget(client)
        if query:
            self.handle_query(query, client)
        else:
            client.close()

    def expire(self) -> None:
        """Close connections that have reached their time limit."""
        now = self.system.monotonic()
        for client in self.clients[:]:
            if now >= client.until:
                self.drop(client)

    def drop(self, client: Client) -> None:
        """Close the connection of a client that has sent no query."""
        self.forget(client)
        client.close()

    def forget(self, client: Client) -> None:
        """Stop reading a connection."""
        self.clients.remove(client)
        self.inputs.pop(client.socket.fileno(), None)

    def close(self) -> None:
        """Close all descriptors. Also called by workers, which have inherited copies."""
        for client in [*self.open]:
            client.close()
        self.listener.close()
