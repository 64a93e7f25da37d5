"""The loops of a server: one, or several on an interpreter without the global interpreter lock.

    Loops           creates the parts, adds up their counters, and finds the loop of a connection
      Acceptor        the first one accepts, and gives each connection to the loop with the fewest   microwsgi.server.acceptor
      Loop            polls for its own connections                                                  microwsgi.server.loop
      LeaderFollowers   its threads, with a leader of their own                                      microwsgi.server.pool

With the lock only one thread runs Python code, so that a second loop would only cost time. Without it there is a loop for
each processor. A connection stays in the loop that it was given to: nothing of it is shared with the other loops, and what
`microwsgi.server.loop` says about the leader holds for each loop and its own leader. The permits to run requests are shared.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import chain

from microwsgi.options import Options
from microwsgi.server.acceptor import Acceptor, NewConnection
from microwsgi.server.balance import Balance
from microwsgi.server.connections import Connection
from microwsgi.server.context import ServerContext
from microwsgi.server.exchange import Exchange
from microwsgi.server.loop import Loop
from microwsgi.server.permits import RunPermits
from microwsgi.server.poller import Poller
from microwsgi.server.pool import LeaderFollowers, PoolThread
from microwsgi.server.transport import Transport


def default_count(options: Options) -> int:
    """Return how many loops a process should have: one for each processor, if several threads can run Python code at once."""
    if options.workers > 1 or getattr(sys, "_is_gil_enabled", lambda: True)():  # several processes use all processors
        return 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, options.threads)


class Loops:
    """Loops, and for each of them a pool and an acceptor; `on_empty` is called when a loop has lost its last connection.

    `acceptor`, the first one, gets the listening sockets. Its loop also runs the calls that belong to no connection.
    """

    def __init__(
        self,
        count: int,
        context: ServerContext,
        new_poller: Callable[[], Poller],
        new_connection: NewConnection,
        on_empty: Callable[[], object],
        balance: Balance | None = None,
    ) -> None:
        self.context = context
        options = context.options
        on_count = balance.publish if balance is not None else None
        permits = RunPermits(options.threads, context.log_error)
        self.loops = [Loop(context, new_poller(), on_empty, on_count) for _ in range(count)]
        self.pools = [
            LeaderFollowers(
                permits,
                loop.ready,
                loop.unsent,
                loop.poll_once,
                loop.finish,
                loop.wakeup.notify,
                f"microwsgi-{number}" if number else "microwsgi",
            )
            for number, loop in enumerate(self.loops)
        ]
        self.loop, self.pool = self.loops[0], self.pools[0]
        others = [Acceptor(loop, new_connection, options.max_connections) for loop in self.loops[1:]]
        self.acceptor = Acceptor(self.loop, new_connection, options.max_connections, balance, others)
        self.watchdogs = [
            threading.Thread(target=watch, args=(pool,), name="microwsgi-watchdog", daemon=True)
            for pool in self.pools[1:]
        ]
        self.undrained = deque(self.loops)

    def start(self) -> None:
        """Start the first thread of each pool. Raises RuntimeError if the system can't create one."""
        for pool in self.pools:
            pool.start()
        for watchdog in self.watchdogs:
            watchdog.start()

    # --- Any thread ---------------------------------------------------------------------------------------------------

    def loop_of(self, transport: Transport) -> Loop:
        """Return the loop of the connection that has this transport."""
        for loop in self.loops[1:]:
            found = loop.connections.get(transport.descriptor)
            if found is not None and found.transport is transport:
                return loop
        return self.loop  # also if the connection was closed

    def finish(self, connection: Connection, leading: bool) -> None:
        """Set the state of a connection after a thread that belongs to no pool has run it."""
        self.loop_of(connection.transport).finish(connection, leading)

    def resume(self, exchange: Exchange) -> None:
        """Resume a suspended response."""
        self.loop_of(exchange.transport).resume(exchange)

    def on_permit(self, connection: Connection) -> None:
        """Queue a connection that has got its client-wait permit."""
        self.loop_of(connection.transport).on_permit(connection)

    def wake(self) -> None:
        """Have each loop compute again how long it may wait."""
        for loop in self.loops:
            loop.wakeup.notify()

    # --- Counters -----------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Return the number of connections."""
        return self.acceptor.count()

    def requests(self) -> int:
        """Return how many requests were given to the application, or to a handler class."""
        return sum(loop.requests() for loop in self.loops)

    def snapshot(self) -> list[Connection]:
        """Return all connections."""
        return list(chain.from_iterable(loop.snapshot() for loop in self.loops))

    def threads(self) -> list[PoolThread]:
        """Return the threads of all pools."""
        return list(chain.from_iterable(list(pool.threads) for pool in self.pools))

    # --- The end ------------------------------------------------------------------------------------------------------

    def drain(self, on_idle: Callable[[Connection], bool], on_drained: Callable[[], object]) -> None:
        """Make each connection end after its current request. Called by the first loop's leader, after `Acceptor.stop`.

        `on_idle` is that of `Loop.drain`. `on_drained` is called when each loop has got all connections that were given to it,
        and has begun to drain: the calls of a loop are made in their order.
        """
        for loop in self.loops[1:]:
            loop.call_soon(partial(self.drain_one, loop, on_idle, on_drained))
        self.drain_one(self.loop, on_idle, on_drained)

    def drain_one(self, loop: Loop, on_idle: Callable[[Connection], bool], on_drained: Callable[[], object]) -> None:
        """Drain one of the loops. By the leader of that loop."""
        try:
            loop.drain(on_idle)
        finally:
            self.undrained.remove(loop)
            if not self.undrained:  # two threads may find it empty: `on_drained` may be called twice
                on_drained()

    def end(self, seconds: float) -> None:
        """End all threads; wait for the idle ones, and `seconds` for those that run a request."""
        for loop in self.loops:
            loop.interrupt_clients()
        for pool in self.pools:
            pool.end(seconds)
        for watchdog in self.watchdogs:
            if watchdog.ident is not None:
                watchdog.join()

    def close(self) -> None:
        """Close all connections. All threads have ended, except those that exceeded the time limit."""
        for loop in self.loops:
            loop.close_all()

    def release(self) -> None:
        """Close all descriptors in a forked child: the parent process goes on with the connections."""
        for loop in self.loops:
            loop.release()


def watch(pool: LeaderFollowers) -> None:
    """Run the watchdog of a pool until the pool ends; that of the first pool runs in the thread of `serve_forever`."""
    while not pool.finished:
        pool.run_watchdog()
