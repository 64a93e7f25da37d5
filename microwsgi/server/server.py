"""From a listening socket to handlers that are ready: accept, poll, look for who is late, stop.

Connections wait in one poller, and hold no thread. `microwsgi.server.lead` says which thread polls, and which runs what is
ready; `microwsgi.server.handler` serves a connection.

A handler is *owned* from the moment that it is ready until its thread has settled it; the leader alone touches the others.
It stays in the poller meanwhile, since most requests are over before an event comes: if one does come, the leader takes the
connection out, and its thread puts it back. These two, and what else two threads could do to one handler, hold `guard`.
"""

from __future__ import annotations

import io
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from socketserver import BaseServer
from time import monotonic

from microwsgi.options import Options
from microwsgi.server.admission import IDLE, Admission
from microwsgi.server.connection import NEVER, READ, Connection
from microwsgi.server.environ import Environ, base_environ
from microwsgi.server.gateway import Application, Gateway, RequestLog
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.handover import Handover
from microwsgi.server.handshake import Handshakes
from microwsgi.server.lead import Lead
from microwsgi.server.plain import handler_class
from microwsgi.server.poller import Poller, PortablePoller
from microwsgi.server.rest import Rest
from microwsgi.server.sockets import listen, unlink

PIPELINED = 16
"""Requests of one connection that are answered before the others have their turn."""
COLLECTING = 4096
"""Small bodies that are waited for without a thread: with their limit, 64 MiB."""
FIRST_REQUEST = 2.0
"""Seconds in which a process that retires waits for the first request on a connection of TLS. Few clients would try again."""
ENDING = 0.1
"""Seconds for threads to end that run nothing; who runs an application still is left behind."""


class WSGIServer(Rest, Gateway, Admission, Lead, HTTPServer):  # type: ignore[misc]  # whose handlers are Connections
    """A WSGI server with the methods of http.server's HTTPServer.

    `server_address` is a (host, port), or an address as `microwsgi serve --bind` takes it; `sockets`, if given, are used
    instead, and listen already. With a plain BaseHTTPRequestHandler for RequestHandlerClass no application is needed.
    """

    # What a request's way reads: with it in the instance's dict, that would be too large for CPython to specialise on.
    __slots__ = (
        "access_log",
        "again",
        "alarm",
        "answered",
        "application",
        "bases",
        "clock",
        "collecting",
        "connections",
        "date",
        "error_page",
        "errors",
        "failures",
        "finished",
        "full",
        "guard",
        "handler_class",
        "holds",
        "hosts",
        "idle",
        "inline_since",
        "inline_thread",
        "lead",
        "listen_at",
        "long_bodies",
        "more_environ",
        "most_holds",
        "most_threads",
        "next_look",
        "options",
        "parks",
        "pauses",
        "polling",
        "poller",
        "ready",
        "sampled_until",
        "short",
        "slots",
        "stopping",
        "threads",
        "timer_number",
        "timing",
        "timers",
        "waiting",
        "waits_until",
        "watch_sleeps",
    )

    poller: PortablePoller
    next_look: float  # when somebody's time may be over
    listen_at: float  # when to accept again, after there were no descriptors left
    arrivals: int  # the descriptor by which connections come from a predecessor; 0 for none

    def __init__(
        self,
        server_address: tuple[str, int] | str = ("127.0.0.1", 0),
        RequestHandlerClass: Callable[..., BaseHTTPRequestHandler] = WSGIRequestHandler,  # noqa: N803 - socketserver's name
        bind_and_activate: bool = True,  # noqa: FBT001, FBT002 - socketserver's signature
        *,
        application: Application | None = None,
        options: Options | None = None,
        sockets: list[socket.socket] | None = None,
        access_log: RequestLog | None = None,
        errors: io.TextIOBase | None = None,
        tls: Handshakes | None = None,
    ) -> None:
        Gateway.__init__(self, application, options, access_log, errors)
        self.parks = True
        BaseServer.__init__(self, server_address, RequestHandlerClass)
        self.listeners = sockets or []
        self.guard = threading.Lock()
        self.ended = threading.Event()
        self.ended.set()
        self.stop_requested = self.final = False
        self.handover: Handover | None = None
        self.retiring = False  # a successor takes the connections that are between two requests
        self.on_shut_out: Callable[[], object] = bool  # called when, at a stop, nobody comes in any more
        self.patience = NEVER  # when a stop waits no longer
        self.forget_all()
        self.pauses = 0
        self.lost = 0.0  # seconds of pauses
        self.clock = monotonic  # type: ignore[method-assign]  # a call less than the method's
        self.handler_class = handler_class(RequestHandlerClass)
        self.more_environ: Environ = {}  # keys for all requests
        self.tls = tls
        if tls is not None:
            self.handler_class = tls.meet(self, self.handler_class)
        self.prepare(self.options.threads)
        if bind_and_activate and not self.listeners:
            self.server_bind()
        if self.listeners:
            self.take_address(self.listeners[0])

    # --- http.server's interface --------------------------------------------------------------------------------------

    def server_bind(self) -> None:
        """Listen on `server_address`. Raises ListenError, which says what to do."""
        address: object = self.server_address
        if isinstance(address, tuple):
            host, port = str(address[0]), address[1]
            address = f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}"  # noqa: S104 - as http.server
        self.listeners = listen(str(address), self.options.backlog)

    def take_address(self, listener: socket.socket) -> None:
        """Have the attributes of http.server's servers; these ask a name server for their name, which may take long."""
        self.socket = listener
        self.server_address = address = listener.getsockname()
        self.server_name, self.server_port = address[:2] if isinstance(address, tuple) else ("localhost", 80)

    def server_activate(self) -> None:
        """Nothing to do: `server_bind` listens."""

    def handle_request(self) -> None:
        """Serve one request in this thread, and return; or after `timeout` seconds without one."""
        self.socket.settimeout(self.timeout)
        HTTPServer.handle_request(self)

    def get_request(self) -> tuple[socket.socket, object]:
        """For `handle_request`: a connection, on which hands are shaken if that is to be. Raises OSError."""
        connection, address = HTTPServer.get_request(self)
        if self.tls is not None:
            connection.settimeout(self.options.handshake_time)
            try:
                connection = self.tls.wrap(connection)
                connection.shake()  # type: ignore[attr-defined]  # `wrap` says so
            except OSError as error:
                connection.close()
                self.complain(":".join(map(str, address[:2])), f"TLS handshake failed: {self.tls.reason(error)}.")
                raise
        return connection, address

    def serve_forever(self, poll_interval: float = 0.5) -> None:  # noqa: ARG002 - socketserver's; nothing is polled here
        """Serve until `shutdown`, or until an exception as that of Ctrl-C ends it; running requests get `grace_time`."""
        self.begin()
        try:
            self.add_thread()
            while not self.stop_requested:
                self.watch_until_alarm()
        finally:
            try:
                self.drain()
            finally:
                self.end()

    def request_stop(self) -> None:
        """Have `serve_forever` end for good, and return at once: the one thing to call in a signal's handler.

        From then on the system refuses connections; after a `shutdown` they wait for the next `serve_forever`.
        """
        self.final = self.stop_requested = True
        self.sound_alarm()

    def shutdown(self) -> None:
        """Have `serve_forever`, in another thread, end, and wait for it."""
        self.stop_requested = True
        self.sound_alarm()
        self.ended.wait()

    def stop_listening(self) -> None:
        """Accept nothing more."""
        for descriptor in self.bases:
            if self.listen_at == NEVER:
                self.poller.unregister(descriptor)
        self.bases.clear()
        if self.arrivals:
            self.poller.unregister(self.arrivals)
            self.arrivals = 0
        self.listen_at = NEVER
        if self.final:
            self.server_close()

    def server_close(self) -> None:
        """Close the listening sockets."""
        for listener in self.listeners:
            unlink(listener)
            listener.close()

    # --- Begin and end ------------------------------------------------------------------------------------------------

    def forget_all(self) -> None:
        """Nothing is known yet of connections, or any more."""
        self.stopping = self.polling = self.shut_out = False
        self.short = 0
        self.connections: dict[int, Connection] = {}
        self.bases: dict[int, Environ] = {}
        self.arrivals = 0
        self.again: deque[Connection] = deque()
        self.long_bodies: deque[Connection] = deque()
        self.collecting: set[object] = set()
        self.holds = 0
        self.most_holds = max(self.options.threads // 2, 1)
        self.forget_timers()
        self.next_look = self.listen_at = NEVER

    def begin(self) -> None:
        """Make what must not be inherited by a fork: the poller, and what is in it."""
        self.ended.clear()
        self.forget_all()
        self.prepare(self.options.threads)
        if self.tls is not None:
            self.tls.forget_threads()
        self.poller = Poller()
        multithread, multiprocess = self.options.threads > 1, self.options.workers > 1
        for listener in self.listeners:
            listener.setblocking(False)
            base = base_environ(listener.getsockname(), self.error_stream(), multithread=multithread)
            self.bases[listener.fileno()] = base | {"wsgi.multiprocess": multiprocess} | self.more_environ
            self.poller.register(listener.fileno(), READ)
        self.origins = list(self.bases.values())
        if self.handover is not None:
            self.arrivals = self.handover.taking.fileno()
            self.poller.register(self.arrivals, READ)

    def grant(self, seconds: float) -> None:
        """Give the requests that run so many seconds from now on, at a stop; the clock stands still at a debugger's prompt."""
        self.patience = self.clock() + seconds

    def drain(self) -> None:
        """Accept nothing more, and give the requests that run `grace_time` to end, or what `grant` has given meanwhile."""
        self.stopping = True
        self.retired_at = self.clock()
        self.poller.wake()
        self.patience = min(self.patience, self.clock() + self.options.grace_time)
        # The leader may just be accepting: what it has taken is answered before the end.
        while (self.connections or not self.shut_out) and (left := self.patience - self.clock()) > 0:
            self.alarm.acquire(timeout=min(left, 0.005))
            self.watch_once()
        if cut := self.in_flight():
            self.log_error(f"{len(cut)} of the requests had not ended after grace_time, and are cut off.")

    def end(self) -> None:
        """End the threads and the connections that are left."""
        for handler in list(self.connections.values()):
            with suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)  # whose thread waits for its client waits no longer
        self.end_threads(ENDING)
        if self.tls is not None:
            self.tls.end()
        for handler in list(self.connections.values()):
            if handler.owned and not handler.parked:  # its thread is left behind, and will find a closed socket
                handler.armed = 0
                handler.connection.close()
            else:
                handler.vanish("the server stops")
        self.connections.clear()
        self.poller.close()
        self.stop_requested = self.final = False  # here and not in `begin`: a stop may be asked for before that
        self.patience = NEVER
        self.ended.set()

    def interrupt_poll(self) -> None:
        """For `Lead`."""
        self.poller.wake()

    # --- Polling: only the leader -------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Wait for events and act on them; `ready` has afterwards what wants a thread."""
        if self.answered:
            for answered in self.answered:
                answered.send_answer()
            while self.answered:
                self.settle(self.answered.popleft(), True)
            if self.ready:
                return  # to requests that were pipelined behind those
        self.polling = True
        events = self.poller.poll(self.time_left())
        self.polling = False
        for descriptor, _ in events:
            # A descriptor may be a new connection's by now: then nothing is there to read, and no harm is done.
            handler = self.connections.get(descriptor)
            if handler is None:
                self.other_event(descriptor)
            elif handler.owned:
                self.owned_event(handler, descriptor)
            else:
                self.advance(handler)
        while self.again:
            self.line_up(self.again.popleft())
        if self.stopping:
            self.leave_idle()
        if self.next_look != NEVER and self.time_left() == 0:
            self.look()

    def time_left(self) -> float:
        """How long to wait for an event: for ever (-1), unless somebody's time will be over."""
        if self.again:
            return 0
        wait = NEVER if self.pauses else self.next_look - self.clock()
        if self.timers or self.listen_at != NEVER:
            wait = min(wait, min(self.listen_at, self.timers[0][0] if self.timers else NEVER) - monotonic())
        return -1 if wait == NEVER else max(wait, 0)

    def advance(self, handler: Connection) -> None:
        """An event of a connection that nobody owns: do what can be done without waiting."""
        try:
            handler.advance()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must not end the leader
            self.log_exception("A connection failed:", error)
            handler.close()
        if handler.ready:
            if handler.long_body or self.collecting:
                self.line_up(handler)
            else:
                handler.owned = True
                self.ready.append(handler)
        elif handler.wants != handler.armed:
            self.arm(handler)

    def line_up(self, handler: Connection) -> None:
        """Put a handler in line for a thread; with a long body, only if clients don't hold half of them already."""
        handler.owned = True
        if self.collecting:
            self.collecting.discard(handler)
        if not handler.long_body:
            self.ready.append(handler)
        elif handler.step == "shake":
            self.tls.line_up(handler)  # type: ignore[union-attr]  # who else has such handlers
        elif self.hold_for_client():
            handler.holds = True
            self.ready.append(handler)
        else:
            self.long_bodies.append(handler)

    def arm(self, handler: Connection) -> None:
        """Have the poller wait for what the handler waits for."""
        if handler.closed:
            return
        descriptor = handler.connection.fileno()
        if not handler.armed:
            self.poller.register(descriptor, handler.wants)
        elif handler.wants:
            self.poller.modify(descriptor, handler.wants)
        else:
            self.poller.unregister(descriptor)
        handler.armed = handler.wants

    def owned_event(self, handler: Connection, descriptor: int) -> None:
        """Something came while a thread runs the handler: take it out of the poller; or while it rests: see what it is."""
        with self.guard:
            if handler.closed:
                return
            if not handler.parked:
                if handler.owned and handler.armed:
                    self.poller.unregister(descriptor)  # the socket itself may just be wrapped for TLS
                    handler.armed = 0
                return
            handler.parked = False
        self.advance(handler)
        if not handler.closed:
            self.park(handler)

    def other_event(self, descriptor: int) -> None:
        """A new connection, one that a predecessor gives away, or a `wake`."""
        if descriptor in self.bases:
            self.accept(descriptor)
        elif descriptor == self.arrivals and self.handover is not None:
            self.handover.take(self.adopt)
        else:
            self.poller.woken(descriptor)

    def adopt(self, connection: socket.socket, address: object, listener: int, received: bytes) -> None:
        """Go on with a connection that a predecessor accepted on one of the listeners."""
        handler = self.handler_class.connected(connection, address, self, self.origins[listener])
        if received:
            handler.received = received
            handler.wait_in("read_head", READ, self.options.head_time)
        self.take_in(handler)

    def take_in(self, handler: Connection) -> None:
        """A connection has come; its first request often with it."""
        self.connections[handler.connection.fileno()] = handler
        self.watch(handler.deadline)
        self.advance(handler)

    def look(self) -> None:
        """Act on all whose time is over, and find out when to look again."""
        start = monotonic()
        self.fire_timers(start)
        if start >= self.listen_at:
            self.listen_at = NEVER
            for descriptor in self.bases:
                self.poller.register(descriptor, READ)
        if self.pauses:
            return
        now, soonest = self.clock(), NEVER
        for handler in list(self.connections.values()):
            if handler.owned:
                soonest = min(soonest, now + self.options.idle_time)
            elif handler.deadline > now:
                soonest = min(soonest, handler.deadline)
            else:
                self.call_time(handler)
        # With thousands of connections a look costs milliseconds: it may take two per cent of the time, not more.
        self.next_look = max(soonest, now + 50 * (monotonic() - start))

    def call_time(self, handler: Connection) -> None:
        """A connection's time is over, and nobody owns it."""
        try:
            handler.timed_out()
        except BaseException as error:  # noqa: BLE001 - `close` of what an application returned is its code
            self.log_exception("A connection failed:", error)
            handler.close()
        if handler.wants != handler.armed:
            self.arm(handler)

    def leave_idle(self) -> None:
        """The server stops: accept nothing more, close, or give away, what is between two requests, end what rests."""
        self.stop_listening()
        for handler in list(self.connections.values()):
            if handler.parked:
                self.end_rest(handler)
            elif not handler.owned and handler.step in IDLE and not self.is_awaited(handler):
                if self.retiring and self.handover is not None and (self.tls is None or handler.step == "greet"):
                    self.handover.give(handler, self.origins.index(handler.base))
                handler.close()  # of one that was given away our descriptor
        if not self.shut_out:
            self.shut_out = True
            self.on_shut_out()
        if not self.connections:
            self.sound_alarm()

    def is_awaited(self, handler: Connection) -> bool:
        """Whether a first request is to come here still: a successor can't go on with a handshake, or with its outcome."""
        if not self.retiring or self.tls is None or handler.step == "greet" or getattr(handler, "status", None):
            return False
        until = self.retired_at + FIRST_REQUEST
        handler.deadline = min(handler.deadline, until)
        self.watch(handler.deadline)
        return self.clock() < until

    # --- Settling: whoever ran the handler ----------------------------------------------------------------------------

    def settle(self, handler: Connection, leads: bool) -> None:  # noqa: FBT001 - on every request's way
        """A handler's turn is over: put it in line again, into the poller, or to rest."""
        handler.settle()
        if handler.holds:
            handler.holds = False
            self.release()
        if handler.ready:
            handler.turn = (handler.turn + 1) % PIPELINED
            if handler.turn:
                self.line_up(handler)
            else:
                self.again.append(handler)
                self.interrupt_poll()
        elif handler.asleep:
            self.park(handler)
        elif leads:
            handler.owned = False
            if handler.wants != handler.armed:
                self.arm(handler)
        else:
            with self.guard:
                if handler.wants != handler.armed:
                    self.arm(handler)
                handler.owned = False  # last: from here on the leader arms it, and does not ask for the guard

    # --- Gateway: what handlers ask of their server, from any thread ----------------------------------------------------

    def watch(self, deadline: float) -> None:
        """Look for who is late no later than this."""
        if deadline < self.next_look:
            self.next_look = deadline
            if self.polling:
                self.poller.wake()

    def may_collect(self, handler: object) -> bool:
        """Whether the poller has room for one more small body."""
        if len(self.collecting) >= COLLECTING:
            return False
        self.collecting.add(handler)
        return True

    def hold_for_client(self) -> bool:
        """Whether one more thread may wait for a client: half of them may."""
        with self.guard:
            if self.holds >= self.most_holds:
                return False
            self.holds += 1
            return True

    def release(self) -> None:
        """A thread waits for a client no longer; the next long body may come."""
        with self.guard:
            self.holds -= 1
        try:
            handler = self.long_bodies.popleft()
        except IndexError:
            return
        self.line_up(handler)
        if self.polling:
            self.poller.wake()

    def forget(self, handler: Connection) -> None:  # type: ignore[override]  # whose handlers are Connections
        """A connection is about to be closed, or the application's from here on."""
        with self.guard:
            descriptor = handler.connection.fileno()
            if self.connections.get(descriptor) is handler:
                del self.connections[descriptor]
            if handler.armed:
                self.poller.unregister(descriptor)
                handler.armed = 0
        self.collecting.discard(handler)
        if self.stopping and not self.connections:
            self.sound_alarm()

    def replace(self, handler: Connection, successor: Connection) -> None:  # type: ignore[override]  # both are Connections
        """A connection is another handler's from here on: hands have been shaken on it."""
        with self.guard:
            handler.closed = successor.owned = True
            successor.armed, handler.armed = handler.armed, 0
            self.connections[successor.connection.fileno()] = successor
            if successor.wants != successor.armed:
                self.arm(successor)
            successor.owned = False  # last, as above
        self.watch(successor.deadline)

    # --- For those who look at a server -------------------------------------------------------------------------------

    @contextmanager
    def limits_paused(self) -> Iterator[None]:
        """Let no time limit run out, while a person sits at a debugger's prompt."""
        with self.guard:
            self.pauses += 1
            if self.pauses == 1:
                self.paused_at = monotonic()
                frozen = self.clock()
                self.clock = lambda: frozen  # type: ignore[method-assign]
        try:
            yield
        finally:
            with self.guard:
                self.pauses -= 1
                if not self.pauses:
                    lost = self.lost = self.lost + monotonic() - self.paused_at
                    self.clock = lambda: monotonic() - lost  # type: ignore[method-assign]
            self.interrupt_poll()

    @property
    def requests(self) -> int:
        """How many requests were begun."""
        return sum(thread.requests for thread in self.threads)

    def in_flight(self) -> list[tuple[str, float]]:
        """The requests that run, as (request line, seconds)."""
        now = self.clock()
        return [(h.requestline, now - h.began) for h in list(self.connections.values()) if h.owned and h.began]

    def figures(self) -> dict[str, object]:
        """What has been done so far, and what it is at."""
        return {
            "requests": self.requests,
            "errors": self.failures,
            "connections": len(self.connections),
            "running": len(self.in_flight()),
        }


def make_server(
    host: str,
    port: int,
    app: Application,
    server_class: type[WSGIServer] = WSGIServer,
    handler_class: type[WSGIRequestHandler] = WSGIRequestHandler,
    *,
    ssl_context: object = None,
) -> WSGIServer:
    """A server for an application, as wsgiref.simple_server has it. Raises ListenError.

    `ssl_context`, for https, is an ssl.SSLContext, (certificate file, key file) or "adhoc". Raises CertificateError, too.
    """
    if ssl_context is None:
        server = server_class((host, port), handler_class)
    else:
        options = Options()
        # Imported here: plain HTTP does without the 5 ms that it takes.
        tls = import_module("microwsgi.tls.front").make_tls(options, ssl_context)
        server = server_class((host, port), handler_class, options=options, tls=tls)
    server.set_app(app)
    return server
