"""The server: a facade with the methods of http.server, around a loop, a pool of threads and an acceptor.

    serve_forever       start, watch, drain, end                      microwsgi.server.pool.LeaderFollowers.watch
      Loop.poll_once      one poll                                    microwsgi.server.loop
      LeaderFollowers     which thread polls, and which runs          microwsgi.server.pool
      Acceptor            new connections                             microwsgi.server.acceptor

All parts are made when `serve_forever` begins: after a fork, the locks, threads and descriptors of the parent are worth
nothing.
"""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import BaseServer

from microwsgi.options import Options
from microwsgi.server.acceptor import Acceptor
from microwsgi.server.compat import HandlerFactory, PlainConnection
from microwsgi.server.connections import Connection, Security
from microwsgi.server.context import Application, ErrorPage, RequestLog, ServerContext
from microwsgi.server.environ import Environ, base_environ
from microwsgi.server.exchange import Exchange
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.handoff import Handoff
from microwsgi.server.hosts import Hosts
from microwsgi.server.loop import Loop
from microwsgi.server.poller import Poller, new_poller
from microwsgi.server.pool import LeaderFollowers, WorkerThread
from microwsgi.server.sockets import listen, unlink
from microwsgi.server.state import NEVER, OWNED
from microwsgi.server.transport import Transport

LAST_REQUEST = 2.0
"""Seconds in which a process that retires answers one more request on a connection that can't be sent to its successor."""
ENDING = 0.1
"""Seconds for threads to end that run a request which did not end in time; then they are left behind."""


class Stop(Enum):
    """Why `serve_forever` is to return."""

    NO = 0
    PAUSE = 1
    """`shutdown`: new connections wait in the kernel for the next `serve_forever`."""
    FINAL = 2
    """`request_stop`: the listening sockets are closed, and the system refuses connections."""
    RETIRE = 3
    """`retire`: as before, but connections go to a successor, and running requests have no time limit."""


class WSGIServer(HTTPServer):
    """A WSGI server with the methods of http.server's HTTPServer.

    `server_address` is a (host, port), or an address as `microwsgi serve --bind` takes it. `sockets`, if given, are used
    instead, and listen already. With a plain BaseHTTPRequestHandler for RequestHandlerClass no application is needed.
    `more_environ` are keys for all requests; `handoff` is shared with the processes before and after this one. For the other
    arguments see `ServerContext`.
    """

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
        tls: Security | None = None,
        hosts: Hosts | None = None,
        error_page: ErrorPage | None = None,
        timing: Callable[..., str] | None = None,
        more_environ: Environ | None = None,
        poller: Callable[[], Poller] = new_poller,
    ) -> None:
        BaseServer.__init__(self, server_address, RequestHandlerClass)
        self.context = ServerContext(
            application, options, access_log, errors, hosts=hosts, error_page=error_page, timing=timing
        )
        self.options = self.context.options
        self.more_environ = more_environ or {}
        self.tls = tls
        self.new_poller = poller
        self.new_connection = connection_factory(RequestHandlerClass, self.context, self)
        self.handoff: Handoff | None = None
        self.loop: Loop | None = None
        self.pool: LeaderFollowers | None = None
        self.acceptor: Acceptor | None = None
        self.bases: list[Environ] = []  # of each listener
        self.ended = threading.Event()
        self.ended.set()
        # Written by any thread and by signal handlers; read by the thread of serve_forever after it was woken.
        self.stop = Stop.NO
        self.drain_deadline = NEVER
        self.accept_stopped = threading.Event()
        self.on_accept_stopped: Callable[[], object] = bool  # called, while draining, when nobody can connect any more
        self.retired_at = 0.0
        self.listeners = sockets or []
        if bind_and_activate and not self.listeners:
            self.server_bind()
        if self.listeners:
            self.set_address(self.listeners[0])

    # --- http.server's interface
    # ------------------------------------------------------------------------------------------------

    def server_bind(self) -> None:
        """Listen on `server_address`. Raises ListenError, which says what to do."""
        address: object = self.server_address
        if isinstance(address, tuple):
            host, port = str(address[0]), address[1]
            address = f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}"  # noqa: S104 - as http.server
        self.listeners = listen(str(address), self.options.backlog)

    def set_address(self, listener: socket.socket) -> None:
        """Set the attributes of http.server's servers. These ask a name server for their name, which may take long."""
        self.socket = listener
        self.server_address = address = listener.getsockname()
        self.server_name, self.server_port = address[:2] if isinstance(address, tuple) else ("localhost", 80)

    def server_activate(self) -> None:
        """Do nothing: `server_bind` listens."""

    def set_app(self, application: Application | None) -> None:
        """Set the application, as wsgiref's server does."""
        self.context.set_application(application)

    def get_app(self) -> Application | None:
        """Return the application, as wsgiref's server does."""
        return self.context.application

    @property
    def application(self) -> Application | None:
        """The application."""
        return self.context.application

    @property
    def access_log(self) -> RequestLog | None:
        """The destination of records about requests."""
        return self.context.access_log

    def handle_request(self) -> None:
        """Serve one request in this thread, and return; or return after `timeout` seconds without one."""
        self.socket.settimeout(self.timeout)
        HTTPServer.handle_request(self)

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept a connection for `handle_request`, and do the handshake of TLS. Raises OSError."""
        connection, address = HTTPServer.get_request(self)
        if self.tls is not None:
            connection.settimeout(self.options.handshake_time)
            try:
                connection = self.tls.handshake(connection)
            except OSError as error:
                connection.close()
                client = ":".join(map(str, address[:2]))
                self.context.log_client_error(client, f"TLS handshake failed: {self.tls.reason(error)}.")
                raise
        return connection, address

    def serve_forever(self, poll_interval: float = 0.5) -> None:  # noqa: ARG002 - socketserver's; nothing is polled here
        """Serve until `shutdown`, or until an exception like that of Ctrl-C ends it; running requests get `grace_time`.

        Raises RuntimeError if the system has no thread to give.
        """
        loop, pool = self.start()
        try:
            pool.start()
        except RuntimeError:
            self.end(loop, pool)
            raise
        try:
            while self.stop is Stop.NO:
                pool.watch()
        finally:
            try:
                self.drain(loop, pool)
            finally:
                self.end(loop, pool)

    def shutdown(self) -> None:
        """Make `serve_forever`, in another thread, return, and wait for that."""
        if self.stop is Stop.NO:
            self.stop = Stop.PAUSE
        self.notify()
        self.ended.wait()

    def request_stop(self) -> None:
        """Make `serve_forever` return for good, and return at once. A signal handler may call this, and nothing else."""
        if self.stop is not Stop.RETIRE:
            self.stop = Stop.FINAL
        self.notify()

    def retire(self, on_accept_stopped: Callable[[], object] = bool) -> None:
        """Leave to a successor what does not run, then end; running requests have no time limit until `limit_drain`.

        `on_accept_stopped` is called, in the thread of `serve_forever`, when all that comes from then on is the successor's.
        """
        self.on_accept_stopped = on_accept_stopped
        self.stop = Stop.RETIRE
        self.notify()

    def limit_drain(self, seconds: float) -> None:
        """Give the requests that run so many seconds from now on, when the server ends."""
        self.drain_deadline = self.context.clock.now() + seconds
        self.notify()

    def release_descriptors(self) -> None:
        """Close the descriptors of this server, in a child process that the application has forked."""
        if self.loop is not None:
            self.loop.release()

    def notify(self) -> None:
        """Make the thread of `serve_forever` look at what was asked for. For all threads and signal handlers."""
        pool = self.pool
        if pool is not None:
            pool.notify_watchdog()

    def server_close(self) -> None:
        """Close the listening sockets."""
        for listener in self.listeners:
            unlink(listener)
            listener.close()

    # --- The life of serve_forever
    # ----------------------------------------------------------------------------------------------

    def start(self) -> tuple[Loop, LeaderFollowers]:
        """Make the parts."""
        self.ended.clear()
        self.accept_stopped.clear()
        context, options = self.context, self.options
        loop = self.loop = Loop(context, self.new_poller(), self.notify)
        context.attach_loop(loop.resume, loop.on_permit)
        self.pool = pool = LeaderFollowers(
            options.threads,
            loop.ready,
            loop.answered,
            loop.poll_once,
            loop.finish,
            loop.wakeup.notify,
            context.log_error,
        )
        if self.tls is not None:
            self.tls.start(context, loop.finish, self.new_connection)
        self.acceptor = Acceptor(loop, self.connect, options.max_connections)
        self.bases = []
        for listener in self.listeners:
            listener.setblocking(False)
            base = base_environ(listener.getsockname(), context.error_stream(), multithread=options.threads > 1)
            self.bases.append(base | {"wsgi.multiprocess": options.workers > 1} | self.more_environ)
            self.acceptor.listen(listener, self.bases[-1], listener.accept)
        if self.handoff is not None:
            handoff = self.handoff
            loop.add_source(handoff.receiver.fileno(), lambda: handoff.receive(self.adopt))
        return loop, pool

    def connect(self, connection: socket.socket, address: object, base: Environ) -> Connection:
        """Return the connection object of an accepted socket."""
        transport = Transport(connection, address, self.options, self.context.clock)
        return self.tls.connect(transport, base) if self.tls is not None else self.new_connection(transport, base)

    def adopt(self, connection: socket.socket, address: object, listener: int, received: bytes) -> None:
        """Go on with a connection that a predecessor has accepted on one of the listeners. Leader only."""
        base = self.bases[listener]
        if received:
            transport = Transport(connection, address, self.options, self.context.clock)
            adopted = self.new_connection(transport, base)
            adopted.go_on(received)
        else:
            adopted = self.connect(connection, address, base)
        if self.loop is not None:
            self.loop.add(adopted)

    def drain(self, loop: Loop, pool: LeaderFollowers) -> None:
        """Accept nothing more, and give the requests that run their time to end."""
        self.retired_at = self.context.clock.now()
        if self.stop is not Stop.RETIRE:
            self.drain_deadline = min(self.drain_deadline, self.retired_at + self.options.grace_time)
        self.context.drain()
        loop.call_soon(self.stop_accepting)
        while True:
            left = self.drain_deadline - self.context.clock.now()
            if self.accept_stopped.is_set():
                self.on_accept_stopped()
                self.on_accept_stopped = bool
                if not loop.connections:
                    return
            if left <= 0:
                break
            pool.watch(None if left == NEVER else left)
        if cut := len(self.in_flight()):
            self.context.log_error(f"{cut} of the requests had not ended after grace_time, and are cut off.")

    def stop_accepting(self) -> None:
        """Accept nothing more, and end what waits. Leader only."""
        if self.loop is None or self.acceptor is None:
            return
        try:
            self.acceptor.stop()
            if self.handoff is not None:
                self.loop.remove_source(self.handoff.receiver.fileno())
            if self.stop in {Stop.FINAL, Stop.RETIRE}:
                self.server_close()
            self.loop.drain(self.may_wait)
        finally:
            self.accept_stopped.set()
            self.notify()

    def may_wait(self, connection: Connection) -> bool:
        """Return whether a connection without a request may wait for one, while the server drains. Leader only.

        A process that retires sends it to its successor. Where that is impossible, one more request is answered, with
        `Connection: close`: a client that has just sent one can't know otherwise whether it was processed.
        """
        if self.stop is not Stop.RETIRE:
            return False
        transport = connection.transport
        row = connection.table[connection.state]
        if self.handoff is not None and row.handoff and not transport.is_secure:
            base = getattr(connection, "base", self.bases[0])
            listener = self.bases.index(base) if base in self.bases else 0
            if self.handoff.send(transport.descriptor, listener, connection.received()):
                return False
        transport.shorten(self.retired_at + LAST_REQUEST)
        return self.context.clock.now() < transport.deadline

    def end(self, loop: Loop, pool: LeaderFollowers) -> None:
        """End the threads, and the connections that are left."""
        loop.interrupt_clients()
        pool.end(ENDING)
        if self.tls is not None:
            self.tls.end()
        loop.close_all()
        self.stop = Stop.NO  # here and not in `start`: a stop may be asked for before that
        self.drain_deadline = NEVER
        self.ended.set()

    # --- What a server is at
    # ------------------------------------------------------------------------------------------------------

    @contextmanager
    def limits_paused(self) -> Iterator[None]:
        """Let no time limit run out while a person sits at a debugger's prompt."""
        self.context.clock.pause()
        try:
            yield
        finally:
            self.context.clock.resume()
            if self.loop is not None:
                self.loop.wakeup.notify()

    @property
    def pauses(self) -> int:
        """How many persons are at a prompt."""
        return self.context.clock.pauses

    @property
    def requests(self) -> int:
        """How many requests were given to the application."""
        return self.loop.requests() if self.loop is not None else 0

    @property
    def failures(self) -> int:
        """How many requests failed by the fault of the application or the server."""
        return self.context.errors_counted

    @property
    def threads(self) -> list[WorkerThread]:
        """The threads of the pool."""
        return list(self.pool.threads) if self.pool is not None else []

    def running(self) -> list[Exchange | PlainConnection]:
        """Return the requests that run, or wait for a thread."""
        found: list[Exchange | PlainConnection] = []
        for connection in self.loop.snapshot() if self.loop is not None else ():
            each = connection if isinstance(connection, PlainConnection) else connection.exchange
            if connection.state in OWNED and each is not None and each.started:
                found.append(each)
        return found

    def in_flight(self) -> list[tuple[str, float]]:
        """Return the requests that run, as (request line, seconds)."""
        now = self.context.clock.now()
        return [(each.requestline, now - each.started) for each in self.running()]

    def stats(self) -> dict[str, object]:
        """Return the counters."""
        return {
            "requests": self.requests,
            "errors": self.failures,
            "connections": len(self.loop.connections) if self.loop is not None else 0,
            "running": len(self.running()),
        }


def connection_factory(
    given: Callable[..., BaseHTTPRequestHandler], context: ServerContext, server: object
) -> Callable[[Transport, Environ], Connection]:
    """Return the function that makes a connection over a transport, for a handler class or a partial of one."""
    if isinstance(given, type) and issubclass(given, WSGIRequestHandler):
        return partial(given.connect, context)
    return HandlerFactory(given, context, server).connect  # type: ignore[arg-type]  # `isinstance` makes it a type[object]
