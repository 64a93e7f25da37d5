"""The event loop: the poller, the deadlines, and the connections.

    poll_once              wait for events, handle them; queue connections for the pool in `ready`  by the leader
    finish                 set the state of a connection after its request has run                  by it, or by the leader
    resume, call_soon      queue work for the leader, and wake the leader                           by any thread

**Access.** Only the leader (the thread that holds the leader lock of `microwsgi.server.pool`) touches the poller,
the timers, `connections`, and a connection whose state is not in OWNED. A connection that is QUEUED or RUNNING belongs to the
thread that runs it, or will run it. It stays registered with the poller meanwhile, since most requests end before the next
event: that saves two system calls. If an event does come, the leader unregisters the connection.

**After a request.** If the thread that led ran the request, and the response is complete, the connection waits in `unsent`:
the next `poll_once`, which may be that of a new leader, sends the response and sets the next state. Any other thread puts the
connection into `returned`, and the leader sets the state. The most common case needs no such transfer: the next state is IDLE,
and the connection is still registered. That thread enters IDLE, and the leader unregisters OWNED connections, while each holds
`lock`. If the leader comes first, `enter_idle` finds the connection unregistered, and leaves it to the leader; if the thread
comes first, the leader sees IDLE, and the connection stays registered. So none waits without being registered.

**No application code runs under the leader lock**: no application, no `close` of an iterable, no hook; and no file is read.
(Exception: the access log, which may be a function of the program. Error records are only queued.) A connection that needs one
of these becomes QUEUED, and is run by a thread that does not hold the lock.

Queues are deques, whose append and popleft are documented as atomic. A thread that appends work for the leader then calls
`Wakeup.notify`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from microwsgi.server.connections import Connection
from microwsgi.server.context import ServerContext
from microwsgi.server.exchange import Exchange
from microwsgi.server.poller import Poller, Wakeup
from microwsgi.server.state import IDLE, NEVER, OWNED, QUEUED, READ, State
from microwsgi.server.timers import Timers

MAX_PIPELINED = 16
"""Pipelined requests of one connection that run before other connections are served."""
MAX_PER_POLL = 64
"""The number of suspended responses to resume, and of deadlines to handle, before the next poll."""


class Loop:
    """All connections, and the events they wait for; `on_empty` is called when the last one ends while the server drains."""

    def __init__(
        self,
        context: ServerContext,
        poller: Poller,
        on_empty: Callable[[], object],
        on_count: Callable[[int], object] | None = None,
    ) -> None:
        self.context = context
        self.clock = context.clock
        self.poller = poller
        self.on_empty = on_empty
        self.on_count = on_count  # called with the number of connections when that changes
        self.wakeup = Wakeup()
        self.timers = Timers()
        self.connections: dict[int, Connection] = {}
        self.sources: dict[int, Callable[[], object]] = {}  # functions for events on other descriptors
        self.calls_later: list[tuple[float, Callable[[], object]]] = []
        self.event_count = 0  # of the last poll
        self.draining = False
        self.may_stay_idle: Callable[[Connection], object] | None = None  # set while the server drains
        self.requests_closed = 0  # requests of connections that are closed
        self.lock = threading.Lock()  # see above; no other lock is taken while it is held
        # Queues. `ready` is for the pool; the others are emptied by the leader.
        self.ready: deque[Connection] = deque()
        self.unsent: deque[Connection] = (
            deque()
        )  # run by a leader, with a complete response: the next `poll_once` sends it
        self.returned: deque[tuple[Connection, State]] = deque()
        self.resumed: deque[Exchange] = deque()
        self.calls: deque[Callable[[], object]] = deque()
        self.add_source(self.wakeup.descriptor, self.wakeup.clear)

    # --- The leader ---------------------------------------------------------------------------------------------------

    def poll_once(self) -> None:
        """Wait for events and handle them. Afterwards `ready` contains the connections that need a thread of the pool."""
        unsent = self.unsent
        if unsent:
            # Send all responses of this batch together: each send pushes the interpreter out of the processor's caches.
            for each in unsent:
                each.exchange.send_response()  # type: ignore[union-attr]  # the pool appends only those with `response_bytes`
            for _ in range(len(unsent)):
                self.finish(unsent.popleft(), True)  # removed first: an error must not finish it twice
            if self.ready:
                return  # pipelined requests that followed these run first
        connections = self.connections
        timeout = self.poll_timeout()
        events = self.poller.poll(timeout)
        self.event_count = len(events)
        for descriptor, _ in events:
            # The descriptor may belong to a newer connection by now. Then a receive finds nothing, which is harmless.
            connection = connections.get(descriptor)
            if connection is None:
                self.on_source(descriptor)
            elif connection.state in OWNED:
                self.on_early_event(connection)
            else:
                try:
                    connection.on_ready()
                except BaseException as error:  # a bug of the server must not end the leader
                    self.fail(connection, error)
                if connection.state is QUEUED and not connection.waits_for_client:  # the common case of `update`
                    self.ready.append(connection)
                else:
                    self.update(connection)
        if self.returned or self.resumed or self.calls:
            self.empty_queues()
        if timeout == 0 or not events:  # after a deadline the timeout is 0, so `expire` is reached even under load
            self.expire()

    def poll_timeout(self) -> float:
        """Return the seconds to wait for an event: 0 if there is something to do, -1 for no limit."""
        if self.returned or self.resumed or self.calls or self.unsent:
            return 0
        if self.clock.paused:
            return -1
        time = self.timers.next_time
        if self.calls_later:
            time = min(time, self.calls_later[0][0])
        return -1 if time == NEVER else max(time - self.clock.now(), 0)

    def on_source(self, descriptor: int) -> None:
        """Handle an event of a listening socket, of the hand-off channel, or of the wake-up."""
        source = self.sources.get(descriptor)
        if source is not None:
            source()

    def on_early_event(self, connection: Connection) -> None:
        """Unregister a connection whose client has sent data, or disconnected, while a thread runs the connection."""
        with self.lock:
            if connection.state in OWNED:
                connection.transport.unregister(self.poller)
        # Otherwise the thread has just finished, and the next poll reports the event again.

    def update(self, connection: Connection) -> None:
        """Register, queue or remove a connection, as its new state requires."""
        state, transport = connection.state, connection.transport
        if state in OWNED:
            if state is QUEUED:  # RUNNING: a thread of the HandshakePool has it
                self.enqueue(connection)
        elif state >= State.DETACHED:
            self.remove(connection)
        elif self.may_stay_idle is not None and state < State.BODY and not self.may_stay_idle(connection):
            connection.on_drain()
            self.remove(connection)
        else:
            if transport.interest != transport.registered:
                try:
                    transport.update_interest(self.poller)
                except (OSError, ValueError, KeyError) as error:  # no more epoll watches, or a closed socket
                    self.fail(connection, error)
                    self.remove(connection)
                    return
            if transport.deadline < transport.scheduled:
                self.timers.schedule(connection, transport)

    def empty_queues(self) -> None:
        """Handle the calls, the connections and the resumed responses that other threads have queued."""
        for _ in range(len(self.calls)):
            call = self.calls.popleft()
            try:
                call()
            except BaseException as error:  # a bug of the server must not end the leader
                self.context.log_exception("Internal error of the server:", error)
        for _ in range(len(self.returned)):
            connection, state = self.returned.popleft()
            connection.enter(state)
            self.update(connection)
        for _ in range(min(len(self.resumed), MAX_PER_POLL)):
            exchange = self.resumed.popleft()
            waiting = self.connections.get(exchange.transport.descriptor)
            # None, or serving another request, or not suspended yet: in this last case `enter` will see `Exchange.resumed`.
            if waiting is not None and waiting.state is State.SUSPENDED and waiting.exchange is exchange:
                waiting.enter(QUEUED)
                self.update(waiting)

    def expire(self) -> None:
        """Handle deadlines that have passed."""
        now = self.clock.now()
        while self.calls_later and self.calls_later[0][0] <= now:
            self.calls_later.pop(0)[1]()
        if self.clock.paused:
            return
        for connection in self.timers.expired(now, MAX_PER_POLL, self.context.options.keep_alive_timeout):
            try:
                connection.on_timeout()
            except BaseException as error:  # a bug of the server must not end the leader
                self.fail(connection, error)
            self.update(connection)

    def fail(self, connection: Connection, error: BaseException) -> None:
        """Log an exception that is a bug of the server, and close the connection."""
        self.context.log_exception(f"{connection.address_string()}: internal error, connection closed:", error)
        connection.enter(State.CLOSED)

    def add(self, connection: Connection) -> None:
        """Add an accepted connection, and handle its first request if that has arrived."""
        self.connections[connection.transport.descriptor] = connection
        if self.on_count is not None:
            self.on_count(len(self.connections))
        try:
            if connection.state not in OWNED:
                connection.on_ready()
        except BaseException as error:  # a bug of the server must not end the leader
            self.fail(connection, error)
        self.update(connection)

    def remove(self, connection: Connection) -> None:
        """Remove a connection; close its socket unless its replacement or the application uses it."""
        transport = connection.transport
        if self.connections.get(transport.descriptor) is connection:
            del self.connections[transport.descriptor]
            transport.unregister(self.poller)
            if self.on_count is not None:
                self.on_count(len(self.connections))
        self.timers.cancel(transport)
        self.requests_closed += connection.requests
        if connection.replacement is not None and connection.state is State.REPLACED:
            self.add(connection.replacement)
        elif connection.state is not State.DETACHED:
            transport.close()
        if self.draining and not self.connections:
            self.on_empty()

    def add_source(self, descriptor: int, source: Callable[[], object]) -> None:
        """Call a function for each event of a descriptor."""
        self.sources[descriptor] = source
        self.poller.register(descriptor, READ)

    def remove_source(self, descriptor: int) -> None:
        """Stop waiting for events of a descriptor."""
        if self.sources.pop(descriptor, None) is not None:
            self.poller.unregister(descriptor)

    def call_later(self, seconds: float, call: Callable[[], object]) -> None:
        """Call a function after some seconds."""
        self.calls_later.append((self.clock.now() + seconds, call))
        self.calls_later.sort(key=lambda each: each[0])

    def drain(self, may_stay_idle: Callable[[Connection], bool]) -> None:
        """Make each connection end after its current request.

        `may_stay_idle` is called for each connection that waits for a request, or for the rest of its head, now and later: it
        returns whether the connection may keep waiting. If not, the connection is closed.
        """
        with self.lock:  # no thread is in the middle of `enter_idle`
            self.draining = True
        self.may_stay_idle = may_stay_idle
        suspended = 0
        for connection in self.snapshot():
            if connection.state in OWNED:
                continue  # this connection ends after its response
            suspended += connection.state is State.SUSPENDED
            if connection.state >= State.BODY:  # for the other states `update` calls `may_stay_idle`
                connection.on_drain()
            self.update(connection)
        if suspended:
            self.context.log_error(f"The server is stopping. Suspended responses that end: {suspended}.")
        if not self.connections:
            self.on_empty()

    def close_all(self) -> None:
        """Close all connections. Called when all threads of the pool have ended, or have exceeded the time limit."""
        self.may_stay_idle = None
        while self.unsent:  # the leader ended after it made these responses, and before it sent them
            unsent = self.unsent.popleft()
            unsent.exchange.send_response()  # type: ignore[union-attr]  # see poll_once
            self.finish(unsent, True)
        self.empty_queues()
        for connection in self.snapshot():
            if connection.state is not State.RUNNING:
                state = connection.abort("the server is stopping")
                while state in OWNED:  # `close` or `finish` is left to call: here, since no pool is left
                    connection.handle_one_request()
                    state = connection.finish_turn()
                connection.enter(state if state is State.DETACHED else State.CLOSED)
            else:
                # Its thread did not end in time, and will find a closed socket.
                connection.transport.close()
            with suppress(OSError, ValueError, KeyError):
                self.remove(connection)
        for source in list(self.sources):
            self.remove_source(source)
        self.poller.close()
        self.wakeup.close()

    def release(self) -> None:
        """Close all descriptors in a forked child: the parent process keeps the connections."""
        for connection in self.snapshot():
            connection.transport.release()
        self.poller.close()
        self.wakeup.close()

    # --- Any thread ---------------------------------------------------------------------------------------------------

    def enqueue(self, connection: Connection) -> None:
        """Queue a connection for the pool. If its request will wait for the client, it needs a client-wait permit first."""
        if (
            not connection.waits_for_client
            or connection.manages_permit
            or self.context.permits.acquire_or_wait(connection)
        ):
            self.ready.append(connection)

    def on_permit(self, connection: Connection) -> None:
        """Queue a connection that has got its client-wait permit."""
        self.ready.append(connection)
        self.wakeup.notify()

    def finish(self, connection: Connection, leading: bool) -> None:
        """Set the state of a connection after its request has run. `leading`: the calling thread is the leader."""
        waited = connection.waits_for_client
        try:
            state = connection.finish_turn()
        except BaseException as error:  # a bug of the server must not end a thread of the pool
            self.context.log_exception(f"{connection.address_string()}: internal error, connection closed:", error)
            state = State.CLOSED
        if waited and not connection.manages_permit:
            self.context.release_permit()
        if state is QUEUED:
            if connection.requests % MAX_PIPELINED:
                connection.enter(state)
                self.enqueue(connection)
            else:
                self.returned.append((connection, state))  # after the next poll's events: others are served first
            if not leading:
                self.wakeup.notify()
        elif leading:
            connection.enter(state)
            transport = connection.transport
            # In the common case `update` would do nothing.
            if (
                state is not IDLE
                or transport.registered != READ
                or transport.deadline < transport.scheduled
                or self.draining
            ):
                self.update(connection)
        elif state is not IDLE or not self.enter_idle(connection):
            self.returned.append((connection, state))
            self.wakeup.notify()

    def enter_idle(self, connection: Connection) -> bool:
        """Set the state IDLE; return False if only the leader may do that."""
        transport = connection.transport
        deadline = self.clock.now() + self.context.options.keep_alive_timeout
        with self.lock:
            # An earlier deadline than the scheduled one needs `timers.schedule`, which only the leader may call.
            if transport.registered != READ or transport.scheduled > deadline or self.draining:
                return False
            connection.enter(IDLE)
            return True

    def resume(self, exchange: Exchange) -> None:
        """Resume a suspended response. An Exchange calls this at most once for each time that it is suspended."""
        self.resumed.append(exchange)
        self.wakeup.notify()

    def call_soon(self, call: Callable[[], object]) -> None:
        """Make the leader call a function."""
        self.calls.append(call)
        self.wakeup.notify()

    def interrupt_clients(self) -> None:
        """Make calls that wait for a client return, since the server is stopping."""
        for connection in self.snapshot():
            connection.transport.interrupt()

    def snapshot(self) -> list[Connection]:
        """Return all connections."""
        return list(self.connections.copy().values())  # a dict must not be iterated while the leader changes it

    def requests(self) -> int:
        """Return the number of requests that were passed to the application, or to a handler class."""
        return self.requests_closed + sum(connection.requests for connection in self.snapshot())
