"""Where a request's time went: Server-Timing (W3C), for the developer tools of browsers; what is known when the head leaves."""

from __future__ import annotations

from time import monotonic
from typing import Any

MILLISECONDS = 1e3


def server_timing(handler: Any) -> str:  # noqa: ANN401 - a handler of the server, of which devtools knows nothing
    """The field line: `wait` from the whole head to the call (parsing, and waiting for a thread), `app` from there to here."""
    now = monotonic()
    threads = getattr(handler.gateway, "threads", ())
    started = next((thread.started for thread in threads if thread.handler is handler), now)
    wait, app = max(started - handler.began, 0.0), now - started
    return f"Server-Timing: wait;dur={wait * MILLISECONDS:.3f}, app;dur={app * MILLISECONDS:.3f}\r\n"
