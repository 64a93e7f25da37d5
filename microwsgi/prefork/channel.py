"""What a parent and its child say to each other: small dicts over a pair of sockets, each behind its length.

`microwsgi.prefork.supervisor` has one end, `microwsgi.prefork.worker` the other. marshal makes bytes of them: it is quick,
takes bytes as they are, and both ends are the same Python.
"""

from __future__ import annotations

import marshal
import socket
import threading

RECEIVE = 65536
LENGTH = 4
"""Bytes before each message that say how long it is."""

Message = dict[str, object]


class Channel:
    """One end. The other end's death is an end of file, whatever it died of."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.received = b""
        self.guard = threading.Lock()

    def fileno(self) -> int:
        """For selectors."""
        return self.socket.fileno()

    def tell(self, **message: object) -> None:
        """Send a message, from any thread; who is gone is told nothing."""
        data = marshal.dumps(message)
        try:
            with self.guard:
                self.socket.sendall(len(data).to_bytes(LENGTH, "big") + data)
        except OSError:
            pass

    def receive(self) -> list[Message] | None:
        """Wait for something, and answer the messages that are whole; None when the other end is gone."""
        try:
            data = self.socket.recv(RECEIVE)
        except OSError:
            data = b""
        if not data:
            return None
        self.received += data
        messages = []
        while len(self.received) >= LENGTH:
            end = LENGTH + int.from_bytes(self.received[:LENGTH], "big")
            if len(self.received) < end:
                break
            messages.append(marshal.loads(self.received[LENGTH:end]))  # noqa: S302 - of our own process
            self.received = self.received[end:]
        return messages

    def close(self) -> None:
        """Give the socket back."""
        self.socket.close()
