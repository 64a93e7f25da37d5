"""Server-sent events, for views: `from microwsgi.events import Broadcaster, Stream`."""

from __future__ import annotations

from microwsgi.framework.events import HEARTBEAT, PENDING, Broadcaster, Stream, event_bytes

__all__ = ["HEARTBEAT", "PENDING", "Broadcaster", "Stream", "event_bytes"]
