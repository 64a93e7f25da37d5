"""The time of a request, as Server-Timing (W3C) for the developer tools of browsers, measured when the head is sent."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any

MILLISECONDS = 1e3


def server_timing(exchange: Any) -> str:  # an Exchange of the server, which devtools does not import
    """Return the field line: `wait` is from the complete head to the call (parsing, waiting for a thread), `app` the rest."""
    now = monotonic()
    started = getattr(
        threading.current_thread(), "started", now
    )  # the start of the request in this thread, set by the pool
    wait, app = max(started - exchange.started, 0.0), now - started
    return f"Server-Timing: wait;dur={wait * MILLISECONDS:.3f}, app;dur={app * MILLISECONDS:.3f}\r\n"
