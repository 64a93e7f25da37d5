"""Client-wait permits: at most half of the pool's threads may wait for clients, so that slow clients can't occupy all."""

from __future__ import annotations

import threading
from collections import deque


class ClientPermits:
    """A semaphore with a queue of connections that wait for a permit without a thread."""

    def __init__(self, limit: int) -> None:
        self.lock = threading.Lock()  # protects all below; no other lock is taken while it is held
        self.free = limit
        self.waiting: deque[object] = deque()

    def acquire(self) -> bool:
        """Take a permit; return False if there is none."""
        with self.lock:
            if not self.free:
                return False
            self.free -= 1
            return True

    def acquire_or_wait(self, connection: object) -> bool:
        """Take a permit for a connection; if there is none, put the connection into the queue and return False."""
        with self.lock:
            if not self.free:
                self.waiting.append(connection)
                return False
            self.free -= 1
            return True

    def release(self) -> object | None:
        """Give a permit back: to the next connection in the queue, which is returned, or to the semaphore."""
        with self.lock:
            if self.waiting:
                return self.waiting.popleft()
            self.free += 1
            return None
