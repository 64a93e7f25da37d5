"""Balance the connections of several worker processes: a worker with more than another leaves new ones to that one.

All workers wait for the same listening sockets, and each new connection wakes all that wait. Without balance the first to wake
accepts whatever is queued, and kept connections stay with it. nginx has the same rule (ngx_accept_disabled).

The workers share a table, which their parent has made: a number for each worker, which that worker alone writes. It has the
number of open connections plus one, or 0 for a worker that does not accept; and in the upper half how often it was written.
It is written and read as 8 aligned bytes. Half a number would only put a connection in the wrong worker.

A worker that has too many defers accepting for `FIRST` seconds. If the others have not accepted anything by then, they may be
stopped, or wait for a processor: the worker accepts one connection, and defers the next one for `FURTHER` seconds. After
`MAX_DEFERRALS` times in a row it waits for them no longer, until they write their numbers again. So a stopped worker delays a
client that connects alone by at most FURTHER seconds, and the last of many that connect at once by MAX_DEFERRALS times that.
"""

from __future__ import annotations

FIRST = 0.001
"""Seconds without accepting, in which another worker that was woken accepts. Pollers can't wait for less."""
FURTHER = 0.01
"""Seconds without accepting, if the first time was not enough. On a busy machine a process waits so long for a processor."""
MAX_DEFERRALS = 12
"""Deferrals in a row for workers that do nothing."""
SHARE = 8
"""A worker may have this fraction more connections than another: with many, exact balance is not worth the wake-ups."""
SIZE = 8
"""Bytes of a number."""
COUNT = 0xFFFFFFFF
"""The bits of a number that have the count of connections."""


class Balance:
    """One worker's access to the table. Leader only."""

    def __init__(self, table: memoryview, slot: int) -> None:
        self.table = table
        self.slot = slot  # the index of this worker's number
        self.writes = 0
        self.left = False
        self.fewer: list[
            tuple[int, int]
        ] = []  # the workers that had fewer connections at the last call, and their numbers
        self.deferred = False  # accepting was deferred for these
        self.deferrals = 0  # for these, in a row
        self.unresponsive: dict[int, int] = {}  # workers that were waited for in vain, and their numbers then

    def publish(self, connections: int) -> None:
        """Write how many connections this worker has."""
        self.writes = (self.writes + 1) & COUNT
        if not self.left:
            self.table[self.slot] = self.writes << 32 | connections + 1

    def leave(self) -> None:
        """Show that this worker does not accept connections any more."""
        self.left = True
        self.table[self.slot] = 0

    def with_fewer(self, connections: int) -> list[tuple[int, int]]:
        """Return the workers, and their numbers, that have fewer connections than this one may have."""
        found = []
        for slot, number in enumerate(self.table):
            count = (number & COUNT) - 1
            if (
                0 <= count < connections - count // SHARE
                and slot != self.slot
                and self.unresponsive.get(slot) != number
            ):
                found.append((slot, number))
        return found

    def deferral(self, connections: int) -> float:
        """Return for how many seconds to leave new connections to the workers with fewer connections; 0 to accept one now."""
        fewer = self.with_fewer(connections)
        if fewer != self.fewer:
            self.fewer = fewer
            self.deferred = False
            self.deferrals = 0
        if not fewer:
            return 0
        self.deferred = not self.deferred
        if self.deferred:
            return FURTHER if self.deferrals else FIRST
        self.deferrals += 1
        if self.deferrals >= MAX_DEFERRALS:
            self.unresponsive.update(fewer)
        return 0
