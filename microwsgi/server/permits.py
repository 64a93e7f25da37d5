"""Permits to run requests, and to wait for clients: at most half of the threads may, so that slow clients can't occupy all."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class RunPermits:
    """A semaphore that the pools of a server share.

    A thread keeps its permit from one request to the next, and while it polls, so that a busy or an idle pool would keep its
    permits for ever. Therefore a pool that gets no permit is added to `starved`. The threads of the other pools look at
    `starved` before each request and after each poll, and release their permits, which the starved pools get in their order.
    """

    def __init__(self, count: int, log_error: Callable[[str], object]) -> None:
        self.count = count
        self.log_error = log_error
        self.wake: list[tuple[Callable[[], object], ...]] = []  # for each pool: these make a thread of it look for work
        self.lock = threading.Lock()  # protects all below; no other lock is taken while it is held
        self.free = count  # 0 while a starved pool has been given none
        self.starved: dict[int, bool] = {}  # by pool: whether it was given a permit, which it has not taken yet
        self.saturated = False  # the lack of permits was logged

    def join(self, *wake: Callable[[], object]) -> int:
        """Share the permits with another pool, which these functions wake; return its number."""
        self.wake.append(wake)
        return len(self.wake) - 1

    def acquire(self, pool: int) -> bool:
        """Take a permit for a thread of this pool; return False if there is none. The pool is woken when it is given one."""
        with self.lock:
            if self.free and not self.starved:  # the common case
                self.free -= 1
                return True
            shared = len(self.wake) > 1
            given = self.starved.get(pool)
            if given or self.free:
                self.free -= not given
                self.starved.pop(pool, None)
                return True
            if shared:
                self.starved[pool] = False
            # Threads that poll, in other pools, may have permits: only if these do not release them, all threads are busy.
            log = not self.saturated and (given is not None or not shared)
            self.saturated = self.saturated or log
        if given is None and shared:
            for number in range(len(self.wake)):
                if number != pool:
                    self.wake_pool(number)
        if log:
            self.log_error(f"All {self.count} threads are busy; new requests are queued (--threads).")
        return False

    def release(self) -> None:
        """Give a permit back: to the first starved pool, or to the semaphore."""
        with self.lock:
            pool = None
            if self.starved:
                pool = next((number for number, given in self.starved.items() if not given), None)
            if pool is None:
                self.free += 1
                polling = len(self.wake)  # in each pool, a thread that polls keeps its permit
                if (self.free + polling) * 2 > self.count:
                    self.saturated = False  # log the next shortage again
            else:
                self.starved[pool] = True
        if pool is not None:
            self.wake_pool(pool)

    def wake_pool(self, pool: int) -> None:
        """Make a thread of a pool look for work, whether it sleeps or polls."""
        for wake in self.wake[pool]:
            wake()

    def available(self, pool: int) -> bool:
        """Return whether this pool can take a permit."""
        with self.lock:
            return self.free > 0 or self.starved.get(pool, False)

    def wanted(self, pool: int, *, needed: bool) -> bool:
        """Return whether another pool has been given no permit. A pool that needs none itself is not starved any more."""
        with self.lock:
            unneeded = not needed and self.starved.pop(pool, False)
        if unneeded:
            self.release()
        with self.lock:
            return any(not given for number, given in self.starved.items() if number != pool)


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
