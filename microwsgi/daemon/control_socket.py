"""The socket for `microwsgi status` and `restart --graceful`: one query and one answer for each connection.

The loop of the parent process reads it, so nothing here blocks, and silent clients time out.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

from microwsgi.process.system import System

QUESTION_SIZE = 64
"""Bytes that a question may have."""
QUESTION_TIME = 2.0
"""Seconds for a client to ask its question."""
MOST_CLIENTS = 32
"""Clients at once; when there is one more, the oldest that has not asked anything is dropped."""
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
            self.socket.shutdown(socket.SHUT_WR)  # a worker that was forked just now may have a copy for a moment
        except OSError:
            pass  # it has gone
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
        ask: Callable[[bytes, Client], object],
        system: System,
    ) -> None:
        self.listener = listener
        self.inputs = inputs
        self.ask = ask
        self.system = system
        self.clients: list[Client] = []  # that have not asked
        self.open: set[Client] = set()  # all
        listener.setblocking(False)
        inputs[listener.fileno()] = self.accept

    def next_timeout(self) -> float:
        """When to call `expire`."""
        return min((client.until for client in self.clients), default=NEVER)

    def accept(self) -> None:
        """Accept a connection."""
        try:
            connection = self.system.accept(self.listener)
        except OSError:
            # It waits on. Without a pause the loop would come here at once, and again and again.
            self.system.sleep(0.05)
            return
        connection.setblocking(False)
        if len(self.clients) >= MOST_CLIENTS:
            self.drop(self.clients[0])
        client = Client(connection, self.system.monotonic() + QUESTION_TIME, self.open.discard)
        self.clients.append(client)
        self.open.add(client)
        self.inputs[connection.fileno()] = lambda: self.read(client)

    def read(self, client: Client) -> None:
        """Read a query, or the end of the connection."""
        try:
            question = self.system.receive(client.socket, QUESTION_SIZE)
        except BlockingIOError:
            return
        except OSError:
            question = b""
        self.forget(client)
        if question:
            self.ask(question, client)
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
        """Close all descriptors. Workers have inherited copies, and close these."""
        for client in [*self.open]:
            client.close()
        self.listener.close()
