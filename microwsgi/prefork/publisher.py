"""A thread of a child that sends its messages about events to the parent, so that publishing never blocks.

Without this thread `WorkerChannel.send` would block the application's threads while the parent is stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from microwsgi.support.typenames import Any

MAX_QUEUED = 4 * 1024 * 1024
"""Bytes of events that are queued for the parent."""
END_TIME = 1.0
"""Seconds within which a child that ends sends queued events."""


class Publisher:
    """A queue of messages and the thread that sends them, which is started with the first message."""

    def __init__(self, send: Callable[..., object], say: Callable[[str], object]) -> None:
        self.send_now = send
        self.say = say
        self.queue: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self.lock = threading.Lock()
        """Protects `size`, `lost` and `thread`."""
        self.size = 0
        self.lost = 0
        self.thread: threading.Thread | None = None

    def send(self, **message: Any) -> None:
        """Queue a message; drop it if too many bytes are queued."""
        size = len(message.get("chunk", b""))
        with self.lock:
            first = not self.lost
            if self.size + size > MAX_QUEUED:
                self.lost += 1
            else:
                self.lost = 0
                self.size += size
                self.queue.put(message)
            if self.thread is None:
                self.thread = threading.Thread(target=self.run, name="microwsgi-publisher", daemon=True)
                self.thread.start()
            lost = self.lost
        if lost and first:
            self.say("The parent process is not reading events: new ones are dropped until it does.")

    def run(self) -> None:
        """Send queued messages: the thread's main function."""
        while (message := self.queue.get()) is not None:
            self.send_now(**message)
            with self.lock:
                self.size -= len(message.get("chunk", b""))

    def close(self) -> None:
        """Send queued messages within END_TIME."""
        with self.lock:
            thread = self.thread
        if thread is not None:
            self.queue.put(None)
            thread.join(END_TIME)
