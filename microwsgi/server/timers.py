"""Deadlines of connections, the next one first: a heap with one entry for each connection.

The deadline of a connection changes with every request. Its entry in the heap stays, and is put back with the new deadline
when it comes up early: that costs one heap operation a minute instead of two per request. Leader only.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count

from microwsgi.server.connections import Connection
from microwsgi.server.state import NEVER, OWNED
from microwsgi.server.transport import Transport

MIN_STALE = 256
"""Stale entries are removed only if there are more than this."""

Entry = tuple[float, int, Connection, Transport]


class Timers:
    """A heap of (time, number, connection, its transport)."""

    def __init__(self) -> None:
        self.heap: list[Entry] = []
        self.numbers = count()  # no two entries are equal, so connections are never compared
        self.stale = 0  # entries to be dropped: of closed connections, or followed by an earlier one
        self.next_time = NEVER  # the time of the first entry

    def schedule(self, connection: Connection, transport: Transport) -> None:
        """Make sure that there is an entry no later than the deadline; called when that is before `transport.scheduled`."""
        if transport.scheduled != NEVER:
            self.stale += 1  # the later entry is dropped when it comes up
        transport.set_scheduled(transport.deadline)
        heappush(self.heap, (transport.deadline, next(self.numbers), connection, transport))
        self.next_time = self.heap[0][0]

    def cancel(self, transport: Transport) -> None:
        """Forget a closed connection. Stale entries are dropped together, when they are half of the heap."""
        if transport.scheduled != NEVER:
            transport.set_scheduled(NEVER)
            self.stale += 1
            if self.stale > MIN_STALE and self.stale * 2 > len(self.heap):
                self.heap = [entry for entry in self.heap if entry[3].scheduled == entry[0]]
                heapify(self.heap)
                self.stale = 0

    def expired(self, now: float, limit: int, keep_alive_timeout: float) -> list[Connection]:
        """Remove up to `limit` entries that are due, and return the connections whose deadline has passed.

        An entry that comes up early is put back: at the deadline, or, for a connection that a thread runs, `keep_alive_timeout`
        seconds from now.
        """
        found: list[Connection] = []
        while self.heap and self.heap[0][0] <= now and len(found) < limit:
            time, _, connection, transport = heappop(self.heap)
            if transport.scheduled != time:
                self.stale -= 1  # closed, or there is an earlier entry
                continue
            if connection.state in OWNED:
                again = now + keep_alive_timeout
            elif transport.deadline > now:
                again = transport.deadline
            else:
                again = NEVER
                found.append(connection)
            transport.set_scheduled(again)
            if again != NEVER:
                heappush(self.heap, (again, next(self.numbers), connection, transport))
        self.next_time = self.heap[0][0] if self.heap else NEVER
        return found
