"""Balance the connections of several worker processes: a worker with more connections than another leaves new ones to it.

All workers wait for the same listening sockets, and each new connection wakes all that wait (the thundering herd). Without
balance the first to wake accepts whatever is queued, and kept connections stay with it. nginx limits that, too, but by each
worker's own load (ngx_accept_disabled).

The workers share a table, which their parent has made: a 64-bit slot for each worker, which that worker alone writes. The lower
half is the number of its open connections plus one, or 0 if it does not accept; the upper half counts the writes. A slot is
written and read as 8 aligned bytes; a torn read would only send a connection to the wrong worker.

A worker that has too many connections defers accepting for FIRST_DEFERRAL seconds. If the others have not accepted anything by
then, they may be stopped, or wait for a processor: the worker accepts one connection, and defers the next one for
FURTHER_DEFERRAL seconds. After MAX_DEFERRALS times in a row it does not wait for them any more, until they write to their
slots again. So a stopped worker delays a client that connects alone by at most FURTHER_DEFERRAL seconds, and the last of many
that connect at once by MAX_DEFERRALS times that.
"""

from __future__ import annotations

FIRST_DEFERRAL = 0.001
"""Seconds without accepting, in which another worker that was woken accepts. Pollers can't wait for less."""
FURTHER_DEFERRAL = 0.01
"""Seconds without accepting, if the first deferral was not enough. On a busy machine a process may wait this long to run."""
MAX_DEFERRALS = 12
"""Deferrals in a row for workers that do nothing."""
SHARE = 8
"""A worker may have 1/SHARE more connections than another: with many, exact balance is not worth the wake-ups."""
SIZE = 8
"""Bytes of a slot."""
COUNT = 0xFFFFFFFF
"""The bits of a slot that hold the number of connections."""


class Balance:
    """One worker's access to the table. Leader only."""

    def __init__(self, table: memoryview, slot: int) -> None:
        self.table = table
        self.slot = slot  # the index of this worker's slot
        self.writes = 0
        self.left = False
        self.fewer: list[tuple[int, int]] = []  # the result of `workers_with_fewer` at the last call of `deferral`
        self.deferred = False  # accepting was deferred for these
        self.deferrals = 0  # for these, in a row
        # The slots of workers that did not accept while this one deferred, with their values at that time.
        self.unresponsive: dict[int, int] = {}

    def publish(self, connections: int) -> None:
        """Write the number of connections of this worker."""
        self.writes = (self.writes + 1) & COUNT
        if not self.left:
            self.table[self.slot] = self.writes << 32 | connections + 1

    def leave(self) -> None:
        """Show that this worker does not accept connections any more."""
        self.left = True
        self.table[self.slot] = 0

    def workers_with_fewer(self, connections: int) -> list[tuple[int, int]]:
        """Return (slot, value) of the workers that have so few connections that this one should leave new ones to them."""
        found = []
        for slot, value in enumerate(self.table):
            count = (value & COUNT) - 1
            if 0 <= count < connections - count // SHARE and slot != self.slot and self.unresponsive.get(slot) != value:
                found.append((slot, value))
        return found

    def deferral(self, connections: int) -> float:
        """Return the seconds for which to leave new connections to the workers with fewer connections; 0 to accept one now."""
        fewer = self.workers_with_fewer(connections)
        if fewer != self.fewer:
            self.fewer = fewer
            self.deferred = False
            self.deferrals = 0
        if not fewer:
            return 0
        self.deferred = not self.deferred
        if self.deferred:
            return FURTHER_DEFERRAL if self.deferrals else FIRST_DEFERRAL
        self.deferrals += 1
        if self.deferrals >= MAX_DEFERRALS:
            self.unresponsive.update(fewer)
        return 0
