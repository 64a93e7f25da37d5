"""Accept connections. At the connection or descriptor limit, evict idle ones to make room.

The limit is `max_connections`, or the number of descriptors that the process may have. If new connections were refused then,
a flood of silent clients would lock all others out. So an idle connection is closed for each new one: first unfinished
handshakes, the oldest first, then connections whose next request has not arrived, or not completely, beginning with those
whose deadline is nearest. A connection stays while its request is received, runs or is answered; if all stay, new connections
wait in the kernel's queue.

If a server has several loops, the first one accepts, and gives each connection to the loop with the fewest; at the limit, to
the loop with the most idle connections, which closes one of them: only the leader of a loop may touch its connections.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from microwsgi.errors import ListenError
from microwsgi.server.balance import Balance
from microwsgi.server.connections import Connection
from microwsgi.server.environ import Environ
from microwsgi.server.loop import Loop
from microwsgi.server.state import NEVER, OWNED, State

ACCEPTS = 64
"""The maximum number of connections that are accepted before the existing connections are served again."""
RETRY = 0.5
"""Seconds for which nothing is accepted when no connection can be evicted, or when accept() has failed."""
NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
REACHED = "The connection limit is reached"

NewConnection = Callable[[socket.socket, object, Environ], Connection]
"""Makes the connection object, from an accepted socket, its client's address, and the environ of its listener."""
Accept = Callable[[], tuple[socket.socket, object]]


class Acceptor:
    """The listening sockets of a loop. Leader only, but for `load` and `idle`, which the leader of the first loop calls.

    `others` are the acceptors of the other loops of the server, which have no listening sockets.
    """

    def __init__(
        self,
        loop: Loop,
        new_connection: NewConnection,
        limit: int,
        balance: Balance | None = None,
        others: Sequence[Acceptor] = (),
    ) -> None:
        self.loop = loop
        self.new_connection = new_connection
        self.limit = limit or NEVER
        self.listeners: dict[int, Callable[[], object]] = {}
        self.count_when_full = 0  # the most connections in a shortage of room; 0 if there is room
        self.paused = False
        self.balance = balance
        """Shares new connections with the other worker processes; None if there are none."""
        self.others = others
        # Connections that the first loop has given to this one, written by the leader of the first loop; and those that have
        # arrived, written by the leader of this loop.
        self.given = self.taken = 0
        self.copies: list[tuple[Environ, Environ]] = []  # an environ of the first loop, and its copy for this loop

    def add_listener(self, listener: socket.socket, base: Environ, accept: Accept) -> None:
        """Accept the connections of a listening socket by the function `accept`."""
        descriptor = listener.fileno()
        if 0 < self.loop.poller.max_descriptor < descriptor:
            raise ListenError("select() can't watch this socket: the process has too many files open.")
        self.listeners[descriptor] = lambda: self.accept(accept, base)
        self.loop.add_source(descriptor, self.listeners[descriptor])
        if self.balance is not None:
            self.balance.publish(len(self.loop.connections))

    def accept(self, accept: Accept, base: Environ) -> None:
        """Accept the connections that have arrived."""
        connections = self.loop.connections
        balance = self.balance
        idle: deque[Connection] = deque()
        if balance is not None and (seconds := balance.deferral(len(connections))):
            self.pause(seconds)
            return
        for number in range(ACCEPTS):
            if number and balance is not None and balance.workers_with_fewer(len(connections)):
                return  # the kernel's queue may be empty by now; if not, there is an event
            full = (self.count() if self.others else len(connections)) >= self.limit
            if full and not self.can_evict(idle):
                if not number:  # else the kernel's queue may be empty by now; if not, there is an event
                    self.report_and_pause(f"{REACHED}: {self.limit} (--max-connections)")
                return
            try:
                connection, address = accept()
            except BlockingIOError:
                # Three quarters: one closed connection does not end the shortage.
                if self.count_when_full and self.count() * 4 < self.count_when_full * 3:
                    self.count_when_full = 0
                return
            except ConnectionError:
                continue  # the client reset the connection before it was accepted (ECONNABORTED)
            except OSError as error:
                idle = idle or self.idle_connections()
                problem = f"Accepting a connection failed: {error.strerror}"
                if error.errno in NO_DESCRIPTORS and self.evict_in_each_loop(idle):
                    self.report(problem)
                    continue
                self.report_and_pause(problem)
                return
            if full or self.others:
                self.distribute(connection, address, base, idle, full=full)
            else:
                self.add(connection, address, base, idle, full=full)
            if self.loop.event_count == 1 and not self.count_when_full:
                return  # the next poll costs less than an accept() that finds nothing

    def admit(self, connection: socket.socket, address: object, base: Environ) -> None:
        """Add a connection that `AcceptThread` has accepted."""
        self.distribute(connection, address, base, deque(), full=self.count() >= self.limit)

    def adopt(self, make: Callable[[Environ], Connection], base: Environ) -> None:
        """Add a connection of another process, which `make` creates from the environ of its listener."""
        target = min((self, *self.others), key=Acceptor.load)
        self.give(target, lambda: target.loop.add(make(target.own(base) if target is not self else base)))

    def distribute(
        self, connection: socket.socket, address: object, base: Environ, idle: deque[Connection], *, full: bool
    ) -> None:
        """Add an accepted connection to this loop or another one."""
        if full:
            self.report(f"{REACHED}: {self.limit} (--max-connections)")
        if not self.others:
            self.add(connection, address, base, idle, full=full)
            return
        acceptors = (self, *self.others)
        target = max(acceptors, key=Acceptor.idle) if full else min(acceptors, key=Acceptor.load)
        own = base if target is self else target.own(base)
        self.give(target, partial(target.add, connection, address, own, deque(), full=full))

    def add(
        self, connection: socket.socket, address: object, base: Environ, idle: deque[Connection], *, full: bool
    ) -> None:
        """Add an accepted connection to this loop, in the place of an idle one if there is no room."""
        max_descriptor = self.loop.poller.max_descriptor
        too_high = 0 < max_descriptor < connection.fileno()
        if full or too_high:
            if not idle:
                idle.extend(self.idle_connections())
            self.evict_one(idle)
            if too_high:
                self.report(f"{REACHED}: {max_descriptor} (the limit of select())")
                high, connection = connection, connection.dup()  # takes the lowest free descriptor
                high.close()
                if connection.fileno() > max_descriptor:
                    connection.close()
                    return
        self.loop.add(self.new_connection(connection, address, base))

    # --- Several loops ------------------------------------------------------------------------------------------------

    def load(self) -> int:  # of the first loop, `given` and `taken` are 0
        """Return how many connections this loop has, with those that it was given and has not added yet."""
        return len(self.loop.connections) + self.given - self.taken

    def count(self) -> int:
        """Return how many connections the server has."""
        count = len(self.loop.connections)
        for other in self.others:
            count += other.load()
        return count

    def idle(self) -> int:
        """Return how many connections may probably be closed for those that this loop will be given."""
        states = [(each.state, each.table) for each in self.loop.snapshot()]
        idle = [state for state, table in states if state not in OWNED and table[state].eviction_rank]
        return len(idle) - self.given + self.taken

    def give(self, target: Acceptor, add: Callable[[], object]) -> None:
        """Have the leader of a loop call a function that adds a connection."""
        if target is self:
            add()
        else:
            target.given += 1
            target.loop.call_soon(partial(target.take, add))

    def own(self, base: Environ) -> Environ:
        """Return this loop's copy of an environ: threads that copy the same dict for each request wait for each other."""
        found = next((copy for first, copy in self.copies if first is base), None)
        if found is None:
            found = dict(base)
            self.copies.append((base, found))
        return found

    def take(self, add: Callable[[], object]) -> None:
        """Add a connection that the first loop has given to this one."""
        self.taken += 1
        add()

    def evict_in_each_loop(self, idle: deque[Connection]) -> bool:
        """Close one of these connections, and one of each other loop; return False if this loop could close none."""
        for other in self.others:
            other.loop.call_soon(partial(other.make_room, self))
        return self.evict_one(idle)

    def make_room(self, first: Acceptor) -> None:
        """Close an idle connection of this loop; the first loop then accepts at once, if it has paused."""
        if self.evict_one(self.idle_connections()):
            first.loop.call_soon(first.resume)

    # --- The limit ----------------------------------------------------------------------------------------------------

    def can_evict(self, idle: deque[Connection]) -> bool:
        """Return whether a connection can be closed for a new one. With one loop, fill `idle` with those that can."""
        if self.others:
            return any(acceptor.idle() > 0 for acceptor in (self, *self.others))
        if not idle:
            idle.extend(self.idle_connections())
        while idle and not is_evictable(idle[0]):
            idle.popleft()
        return bool(idle)

    def idle_connections(self) -> deque[Connection]:
        """Return the connections that may be closed for a new connection, the least valuable first."""
        found = [
            each
            for each in self.loop.connections.values()
            if each.state not in OWNED and each.table[each.state].eviction_rank
        ]
        found.sort(key=lambda each: (each.table[each.state].eviction_rank, each.transport.deadline))
        return deque(found)

    def evict_one(self, idle: deque[Connection]) -> bool:
        """Close the first of these that is in a handshake, or has no unread data; return False if there is none."""
        while idle:
            connection = idle.popleft()
            if is_evictable(connection):
                connection.enter(State.CLOSED)
                self.loop.update(connection)
                return True
        return False

    def report(self, problem: str) -> None:
        """Log, once for each shortage, why there is no room for new connections."""
        if not self.count_when_full:
            self.loop.context.log_error(
                f"{problem}. Idle connections are closed if that makes room; else new connections wait."
            )
        self.count_when_full = max(self.count_when_full, self.count(), 1)

    def report_and_pause(self, problem: str) -> None:
        """Stop accepting for a while: serve the existing connections, and try again later."""
        self.report(problem)
        self.pause(RETRY)

    def pause(self, seconds: float) -> None:
        """Accept nothing for some seconds."""
        self.paused = True
        for descriptor in self.listeners:
            self.loop.remove_source(descriptor)
        self.loop.call_later(seconds, self.resume)

    def resume(self) -> None:
        """Accept again."""
        if self.paused:
            self.paused = False
            for descriptor, accept in self.listeners.items():
                self.loop.add_source(descriptor, accept)

    def stop(self) -> None:
        """Accept nothing more."""
        for descriptor in self.listeners:
            self.loop.remove_source(descriptor)
        self.listeners.clear()
        if self.balance is not None:
            self.balance.leave()


def is_evictable(connection: Connection) -> bool:
    """Return whether a connection is in a handshake, or its client has sent nothing that is still unread.

    Handshakes are closed even if they have unread data: a flood of them must not lock others out.
    """
    return connection.state < State.IDLE or not has_unread_data(connection)


def has_unread_data(connection: Connection) -> bool:
    """Return whether the client has sent bytes that were not received yet. The end of the stream and errors do not count."""
    try:
        return bool(connection.transport.peek(1))
    except OSError:
        return False
