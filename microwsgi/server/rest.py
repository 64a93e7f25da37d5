"""Responses that have nothing to send yet: they rest in the poller, without a thread, until somebody wakes them.

PEP 3333 lets an iterable yield b"" for "nothing yet"; docs/environ.md has the contract of `microwsgi.wake`, which ends here.
A handler is *asleep* from the call of `wake(after=...)` on; it is *parked* when its thread has let go of it. Who wakes it may
be any thread: `guard` decides between a wake, a timer, and the client's end.
"""

from __future__ import annotations

import threading
from collections import deque
from heapq import heappop, heappush
from time import monotonic

from microwsgi.server.connection import NEVER, Connection
from microwsgi.server.poller import PortablePoller


class Rest:
    """What a server does for responses that rest."""

    guard: threading.Lock
    ready: deque[Connection]
    polling: bool
    poller: PortablePoller

    def forget_timers(self) -> None:
        """Nobody rests yet."""
        self.timers: list[tuple[float, int, Connection]] = []
        self.timer_number = 0

    def wake(self, handler: Connection, after: float) -> None:
        """Ask an iterable on: at once, or after so many seconds when nobody else does."""
        with self.guard:
            if after > 0:
                handler.asleep = True
                handler.wake_at = monotonic() + after
                self.set_timer(handler)
            elif handler.parked:
                handler.parked = False
                self.ready.append(handler)
                if self.polling:
                    self.poller.wake()
            else:
                handler.asleep = False

    def park(self, handler: Connection) -> None:
        """Let a response that has nothing to send rest without a thread, unless it was woken meanwhile."""
        with self.guard:
            if not handler.asleep:
                self.ready.append(handler)
                return
            handler.parked = True
            if handler.wants != handler.armed:
                self.arm(handler)

    def set_timer(self, handler: Connection) -> None:
        """Have one timer for each handler that may rest, and no more: one that goes off early is set again."""
        if handler.wake_at < handler.timer_at:
            handler.timer_at = handler.wake_at
            self.timer_number += 1
            heappush(self.timers, (handler.timer_at, self.timer_number, handler))
            if self.polling and self.timers[0][2] is handler:
                self.poller.wake()

    def fire_timers(self, now: float) -> None:
        """Ask on the iterables whose time has come."""
        while self.timers and self.timers[0][0] <= now:
            with self.guard:
                handler = heappop(self.timers)[2]
                handler.timer_at = NEVER
                if handler.closed or not handler.asleep:
                    continue
                if handler.wake_at > now:
                    self.set_timer(handler)
                elif handler.parked:
                    handler.parked = False
                    self.ready.append(handler)
                else:
                    handler.asleep = False

    def end_rest(self, handler: Connection) -> None:
        """A response that rests will not be asked on."""
        with self.guard:
            claimed, handler.parked = handler.parked, False
        if claimed:
            handler.vanish("the server stops")

    def arm(self, handler: Connection) -> None:
        """Have the poller wait for what the handler waits for."""
        raise NotImplementedError
