"""How an open error page learns that other code serves by now: a port of its own, on which nothing comes until then.

The page's script listens there for an event (server-sent events), so that no URL is taken from the application, and no request
has to pass anything on its way to it. Whoever else connects, learns when there was a reload, and nothing more.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from contextlib import suppress

MOST = 64
"""Pages that are told; more than that nobody has open."""
TIMEOUT = 1.0
"""Seconds for a page to ask."""
HEAD = b"""\
HTTP/1.1 200 OK\r
Content-Type: text/event-stream\r
Cache-Control: no-store\r
Access-Control-Allow-Origin: *\r
Connection: close\r
\r
"""


class LiveReload:
    """Lit once, in the process that serves no longer. One that is never asked for its port has none, and no thread."""

    def __init__(self) -> None:
        self.listener: socket.socket | None = None
        self.pages: deque[socket.socket] = deque(maxlen=MOST)

    @property
    def port(self) -> int:
        """Where pages listen, on 127.0.0.1. Raises OSError."""
        if self.listener is None:
            self.listener = socket.create_server(("127.0.0.1", 0))
            threading.Thread(
                target=self.attend, args=(self.listener,), name="microwsgi-livereload", daemon=True
            ).start()
        port: int = self.listener.getsockname()[1]
        return port

    def attend(self, listener: socket.socket) -> None:
        """The thread's whole life: let pages listen."""
        while True:
            page, _ = listener.accept()
            with suppress(OSError):
                page.settimeout(TIMEOUT)
                if page.recv(65536):
                    page.sendall(HEAD)
                    self.pages.append(page)

    def notify(self) -> None:
        """Other code serves: tell all that listen."""
        while self.pages:
            with self.pages.popleft() as page, suppress(OSError):
                page.sendall(b"data: reload\n\n")
