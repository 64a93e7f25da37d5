"""Notify open error pages that new code serves, by server-sent events on a separate port.

The page's script connects to that port, so that no URL of the application is used. Any other client that connects learns only
that there was a reload.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from contextlib import suppress

MAX_PAGES = 64
"""The maximum number of connected pages."""
TIMEOUT = 1.0
"""Seconds within which a page must send its request."""
HEAD = b"""\
HTTP/1.1 200 OK\r
Content-Type: text/event-stream\r
Cache-Control: no-store\r
Access-Control-Allow-Origin: *\r
Connection: close\r
\r
"""


class LiveReload:
    """Accepts connections of pages, in the process with the old code. Until `port` is read it has no port and no thread."""

    def __init__(self) -> None:
        self.listener: socket.socket | None = None
        self.pages: deque[socket.socket] = deque(maxlen=MAX_PAGES)

    @property
    def port(self) -> int:
        """The port on 127.0.0.1 to which pages connect. Raises OSError."""
        if self.listener is None:
            self.listener = socket.create_server(("127.0.0.1", 0))
            threading.Thread(target=self.serve, args=(self.listener,), name="microwsgi-livereload", daemon=True).start()
        port: int = self.listener.getsockname()[1]
        return port

    def serve(self, listener: socket.socket) -> None:
        """Accept connections of pages, for the life of the thread."""
        while True:
            page, _ = listener.accept()
            with suppress(OSError):
                page.settimeout(TIMEOUT)
                if page.recv(65536):
                    page.sendall(HEAD)
                    self.pages.append(page)

    def notify(self) -> None:
        """Send the event: new code serves."""
        while self.pages:
            with self.pages.popleft() as page, suppress(OSError):
                page.sendall(b"data: reload\n\n")
