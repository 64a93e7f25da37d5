"""The server: a facade with the methods of http.server, around loops, each with a pool of threads and an acceptor.

    serve_forever       start, watch, drain, end                      LeaderFollowers.run_watchdog
      Loop.poll_once      one poll                                    microwsgi.server.loop
      LeaderFollowers     which thread polls, and which runs          microwsgi.server.pool
      Acceptor            new connections                             microwsgi.server.acceptor

`serve_forever` creates all parts: locks, threads and descriptors of a parent process can't be used after a fork.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import BaseServer, TCPServer

from microwsgi.options import Options
from microwsgi.server.balance import Balance
from microwsgi.server.compat import HandlerConnection, HandlerFactory
from microwsgi.server.connections import Connection, Security
from microwsgi.server.context import Application, ErrorPage, RequestLog, ServerContext
from microwsgi.server.environ import Environ, base_environ
from microwsgi.server.exchange import Exchange
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.handoff import Handoff
from microwsgi.server.hooks import AcceptThread, Hooks, UnverifiedConnection, check_hooks, hooked_class, overrides
from microwsgi.server.hosts import Hosts
from microwsgi.server.log import AccessLog, use_loggers
from microwsgi.server.loops import Loops, default_count
from microwsgi.server.poller import Poller, new_poller
from microwsgi.server.pool import PoolThread
from microwsgi.server.proxied import ProxiedConnection
from microwsgi.server.sockets import accept_function, listen, tune, unlink
from microwsgi.server.state import NEVER, OWNED
from microwsgi.server.transport import Transport

LAST_REQUEST = 2.0
"""Seconds for which a retiring process accepts one more request on a connection that can't be sent to its successor."""
ENDING = 0.1
"""Seconds to wait for threads whose request has exceeded `graceful_timeout`; after that they are abandoned."""


class Stop(Enum):
    """The reason why `serve_forever` has to return."""

    NO = 0
    PAUSE = 1
    """`shutdown`: new connections wait in the kernel for the next `serve_forever`."""
    FINAL = 2
    """`request_stop`: the listening sockets are closed, and the system refuses connections."""
    RETIRE = 3
    """`retire`: the listening sockets are closed, the next process accepts and gets the idle connections; no time limit."""


class WSGIServer(HTTPServer):
    """A WSGI server with the methods of http.server's HTTPServer.

    `server_address` is a (host, port), or an address as `microwsgi serve --bind` takes it. If `sockets` are given, the server
    uses these instead. With a handler class of http.server as RequestHandlerClass no application is needed. `more_environ` is
    added to the environ of every request. For the other arguments see `ServerContext`.

    The methods of socketserver that a subclass may override are called as its documentation says. docs/http-server.md lists
    them, and those that are refused with a TypeError when the server is activated.
    """

    tls_of_context: Callable[[object, Options], Security] | None = None
    """Makes the TLS of an ssl.SSLContext; `microwsgi.serving.embedding` sets it, since this layer is below that of TLS."""

    def __init__(
        self,
        server_address: tuple[str, int] | str = ("127.0.0.1", 0),
        RequestHandlerClass: Callable[..., BaseHTTPRequestHandler] = WSGIRequestHandler,
        bind_and_activate: bool = True,  # socketserver's signature
        *,
        application: Application | None = None,
        options: Options | None = None,
        sockets: list[socket.socket] | None = None,
        access_log: RequestLog | None = None,
        errors: object = None,
        tls: Security | None = None,
        hosts: Hosts | None = None,
        error_page: ErrorPage | None = None,
        timing: Callable[..., str] | None = None,
        sign_in: Callable[..., object] | None = None,
        more_environ: Environ | None = None,
        poller: Callable[[], Poller] = new_poller,
    ) -> None:
        BaseServer.__init__(self, server_address, RequestHandlerClass)
        if hasattr(access_log, "makeRecord"):
            access_log = AccessLog(access_log)  # a logger
        self.context = ServerContext(
            application,
            options,
            access_log,
            errors,
            hosts=hosts,
            error_page=error_page,
            timing=timing,
            sign_in=sign_in,
        )
        self.options = self.context.options
        self.more_environ = more_environ or {}
        self.tls = tls
        if tls is not None:
            tls.attach(self.context)
        self.new_poller = poller
        self.handler_class, self.new_connection = self.connection_factory()
        self.accept_thread: AcceptThread | None = None
        self.handoff: Handoff | None = None  # shared with the processes before and after this one
        self.balance: Balance | None = None  # shared with the other workers
        self.loops: Loops | None = None
        self.loop_count = 0  # 0: as many as the interpreter and the machine can use
        self.base_environs: list[Environ] = []  # one for each listener
        self.ended = threading.Event()
        self.ended.set()
        # Written by any thread and by signal handlers; read by the thread of serve_forever and by the leaders of the loops.
        self.stop = Stop.NO
        self.drain_deadline = NEVER
        self.accept_stopped = threading.Event()
        # Called, while draining, when this process accepts no more connections. `bool` does nothing.
        self.on_accept_stopped: Callable[[], object] = bool
        self.retired_at = 0.0
        self.listeners = sockets or []
        if self.listeners:
            self.set_address(self.listeners[0])
        elif self.binds_as_socketserver(bind_and_activate=bind_and_activate):
            self.socket = socket.socket(self.family(), self.socket_type)
        if bind_and_activate:
            try:
                if not self.listeners:
                    self.server_bind()
                self.server_activate()
            except BaseException:
                self.server_close()
                raise

    # --- http.server's interface
    # ------------------------------------------------------------------------------------------------

    def binds_as_socketserver(self, *, bind_and_activate: bool) -> bool:
        """Return whether the socket is created before `server_bind` is called, as socketserver documents it.

        The caller then sets socket options before `server_bind`, or in an override of it.
        """
        return isinstance(self.server_address, tuple) and (
            not bind_and_activate
            or any(
                overrides(type(self), WSGIServer, name)
                for name in ("server_bind", "address_family", "allow_reuse_address", "allow_reuse_port", "socket_type")
            )
        )

    def family(self) -> int:
        """Return the address family of the socket that `server_bind` binds."""
        if ":" in str(self.server_address[0]) and not overrides(type(self), WSGIServer, "address_family"):
            return socket.AF_INET6
        return self.address_family

    def server_bind(self) -> None:
        """Bind to `server_address`, and listen. Raises ListenError; OSError for a socket of the program."""
        if "socket" in vars(self):  # see `binds_as_socketserver`, or set by the program
            TCPServer.server_bind(self)  # HTTPServer.server_bind calls getfqdn(): a slow DNS lookup
            self.listeners = [self.socket]
        else:
            address: object = self.server_address
            if isinstance(address, tuple):
                host, port = str(address[0]), address[1]
                address = f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}"  # as http.server
            self.listeners = listen(
                str(address), self.backlog(), mode=self.options.socket_mode, group=self.options.socket_group
            )
        self.set_address(self.listeners[0])

    def backlog(self) -> int:
        """Return the length of the kernel's queue of connections that were not accepted yet."""
        return self.request_queue_size if "request_queue_size" in overridden(self) else self.options.backlog

    def set_address(self, listener: socket.socket) -> None:
        """Set `server_name` and `server_port` as HTTPServer does, but without its DNS lookup, which may take long."""
        self.socket = listener
        self.server_address = address = listener.getsockname()
        self.server_name, self.server_port = address[:2] if isinstance(address, tuple) else ("localhost", 80)

    def accept_from(self, listener: socket.socket) -> None:
        """Make `get_request` accept from this socket, which is one of several."""
        self.socket = listener

    def server_activate(self) -> None:
        """Listen on the sockets that do not listen yet. Raises TypeError for overridden methods that would not be called."""
        check_hooks(self, WSGIServer, self.RequestHandlerClass)
        self.take_socket()
        for listener in self.listeners:
            if not is_listening(listener):
                if listener.family in {socket.AF_INET, socket.AF_INET6}:
                    tune(listener)
                listener.listen(self.backlog())

    def take_socket(self) -> None:
        """Use `self.socket` if the program has replaced it; take the SSLContext of an SSLSocket.

        Raises TypeError for an SSLSocket if the server has TLS already, or if this class does not accept one.
        """
        given = vars(self).get("socket")
        if given is None or given in self.listeners:
            return
        context = getattr(given, "context", None)
        if context is not None:
            # Other threads do the handshakes, not accept(): so a plain socket takes over the descriptor.
            if self.tls is not None or self.tls_of_context is None:
                raise TypeError(
                    "The socket was wrapped by an SSLContext, and the server has TLS already (tls, ssl_context)."
                    if self.tls is not None
                    else "This class does not accept an SSLSocket. Use microwsgi.WSGIServer, or pass tls=."
                )
            self.tls = self.tls_of_context(context, self.options)
            given = socket.socket(fileno=given.detach())
        self.listeners[:1] = [given]
        self.set_address(given)

    def set_app(self, application: Application | None) -> None:
        """Set the application, as wsgiref's server does."""
        self.context.set_application(application)

    def get_app(self) -> Application | None:
        """Return the application, as wsgiref's server does."""
        return self.context.application

    @property
    def base_environ(self) -> dict[str, str]:
        """The part of the environ that wsgiref's handler class takes from its server."""
        server = {"SERVER_NAME": self.server_name, "SERVER_PORT": str(self.server_port), "GATEWAY_INTERFACE": "CGI/1.1"}
        return {**server, "SCRIPT_NAME": "", "REMOTE_HOST": "", "CONTENT_LENGTH": ""}

    @property
    def application(self) -> Application | None:
        """The application."""
        return self.context.application

    @property
    def access_log(self) -> RequestLog | None:
        """The function that gets a record of each request, or None."""
        return self.context.access_log

    def handle_request(self) -> None:
        """Serve one connection in this thread, and return; or call `handle_timeout` after `timeout` seconds without one."""
        self.server_activate()
        self.socket.settimeout(self.timeout)
        HTTPServer.handle_request(self)

    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]  # UDP has (data, socket)
        """Serve a connection of `handle_request`, in this thread; do the handshake of TLS first."""
        if self.tls is not None:
            request.settimeout(self.options.tls_handshake_timeout)
            try:
                request = self.tls.handshake(request)
            except OSError as error:
                request.close()
                client = ":".join(map(str, client_address[:2])) if isinstance(client_address, tuple) else "unix"
                self.context.log_client_error(client, f"TLS handshake failed: {self.tls.reason(error)}.")
                return
        self.handler_class(request, client_address, self)

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Serve until `shutdown`, or an exception such as KeyboardInterrupt; running requests get `graceful_timeout`.

        A `service_actions` of a subclass is called every `poll_interval` seconds; without one, the thread does not wake
        periodically. Raises RuntimeError if the system can't start a thread.
        """
        loops = self.start()
        try:
            loops.start()
        except RuntimeError:
            self.end(loops)
            raise
        try:
            if "service_actions" in overridden(self):
                self.watch_with_actions(loops, poll_interval)
            while self.stop is Stop.NO:
                loops.pool.run_watchdog()
        finally:
            try:
                self.drain(loops)
            finally:
                self.end(loops)

    def watch_with_actions(self, loops: Loops, poll_interval: float) -> None:
        """Call `service_actions` periodically until the server is asked to stop."""
        now = self.context.clock.now
        due = now() + poll_interval
        while self.stop is Stop.NO:
            loops.pool.run_watchdog(max(due - now(), 0.0))
            if now() >= due:
                due = now() + poll_interval
                self.service_actions()

    def shutdown(self) -> None:
        """Make `serve_forever` return, which runs in another thread, and wait until it has."""
        if self.stop is Stop.NO:
            self.stop = Stop.PAUSE
        self.notify()
        self.ended.wait()

    def request_stop(self) -> None:
        """Make `serve_forever` close the listening sockets and return; do not wait. A signal handler may call this."""
        if self.stop is not Stop.RETIRE:
            self.stop = Stop.FINAL
        self.notify()

    def retire(self, on_accept_stopped: Callable[[], object] = bool) -> None:
        """Hand idle connections to the successor process, then end. Running requests have no time limit until `limit_drain`.

        `on_accept_stopped` is called, in the thread of `serve_forever`, when only the successor accepts connections.
        """
        self.on_accept_stopped = on_accept_stopped
        self.stop = Stop.RETIRE
        self.notify()

    def limit_drain(self, seconds: float) -> None:
        """Limit the time of running requests to `seconds` from now, while the server drains."""
        self.drain_deadline = self.context.clock.now() + seconds
        self.notify()

    def release_descriptors(self) -> None:
        """Close the descriptors of this server, in a child process that the application has forked."""
        if self.loops is not None:
            self.loops.release()

    def notify(self) -> None:
        """Wake the thread of `serve_forever`, which then reads `stop`. Any thread and any signal handler may call this."""
        loops = self.loops
        if loops is not None:
            loops.pool.notify_watchdog()

    def server_close(self) -> None:
        """Close the listening sockets."""
        given = vars(self).get("socket")
        for listener in self.listeners if given is None or given in self.listeners else [*self.listeners, given]:
            unlink(listener)
            listener.close()

    # --- Start, drain and end
    # ----------------------------------------------------------------------------------------------

    def start(self) -> Loops:
        """Create the loops, with their pools and acceptors."""
        self.server_activate()
        self.handler_class, self.new_connection = self.connection_factory()
        self.ended.clear()
        self.accept_stopped.clear()
        context, options = self.context, self.options
        count = self.loop_count or default_count(options)
        loops = self.loops = Loops(count, context, self.new_poller, self.connection_maker(), self.notify, self.balance)
        use_loggers(context)
        context.attach_loop(loops.resume, loops.on_permit)
        if self.tls is not None:
            self.tls.start(context, loops.finish, self.new_connection)
        own_accept = "get_request" in overridden(self)
        self.base_environs = []
        for listener in self.listeners:
            listener.setblocking(False)
            base = base_environ(listener.getsockname(), context.error_stream(), multithread=options.threads > 1)
            self.base_environs.append(base | {"wsgi.multiprocess": options.workers > 1} | self.more_environ)
            if not own_accept:
                loops.acceptor.add_listener(listener, self.base_environs[-1], accept_function(listener))
        if own_accept:
            accepted = list(zip(self.listeners, self.base_environs, strict=True))
            admit = loops.acceptor.admit
            self.accept_thread = AcceptThread(self.get_request, self.accept_from, loops.loop, accepted, admit)
            self.accept_thread.start()
        if self.handoff is not None:
            handoff = self.handoff
            loops.loop.add_source(handoff.receiver.fileno(), lambda: handoff.receive(self.adopt))
        return loops

    def connection_factory(self) -> tuple[Callable[..., object], Callable[[Transport, Environ], Connection]]:
        """Return the handler class with its hooks, and the function that makes a connection over a transport."""
        given = self.RequestHandlerClass
        handle_error = "handle_error" in overridden(self)
        if isinstance(given, type) and issubclass(given, WSGIRequestHandler):
            handler = hooked_class(given, Hooks(given, handle_error=handle_error), server=self)
            return handler, partial(handler.new_connection, self.context)
        factory = HandlerFactory(given, self.context, self, handle_error=handle_error)  # type: ignore[arg-type]  # `isinstance` makes it a type[object]
        return given, factory.new_connection

    def connection_maker(self) -> Callable[[socket.socket, object, Environ], Connection]:
        """Return the function that makes the connection object of an accepted socket."""
        if "verify_request" in overridden(self):
            return self.connection_for_unverified
        return self.connection_for_wrapped if "get_request" in overridden(self) else self.connection_for

    def connection_for_unverified(self, connection: socket.socket, address: object, base: Environ) -> Connection:
        """Return a connection whose `verify_request` a thread of the pool has to call."""
        if hasattr(connection, "do_handshake"):
            verified = self.connection_for_wrapped(connection, address, base)
            return UnverifiedConnection(verified.transport, base, lambda *_: verified, self.context, self)
        transport = Transport(connection, address, self.options, self.context.clock)
        return UnverifiedConnection(transport, base, self.connection_for_transport, self.context, self)

    def connection_for_wrapped(self, connection: socket.socket, address: object, base: Environ) -> Connection:
        """Return the connection object of a socket that `get_request` may have wrapped: an SSLSocket after its handshake."""
        if not hasattr(connection, "context") or self.tls_of_context is None:
            return self.connection_for(connection, address, base)
        tls = self.tls_of_context(connection.context, self.options)
        transport = tls.transport(connection, address, self.context)
        return self.new_connection(transport, tls.environ(base, transport))

    def connection_for(self, connection: socket.socket, address: object, base: Environ) -> Connection:
        """Return the connection object of an accepted socket."""
        return self.connection_for_transport(Transport(connection, address, self.options, self.context.clock), base)

    def connection_for_transport(self, transport: Transport, base: Environ) -> Connection:
        """Return the connection object that receives the first bytes over a transport."""
        make = self.tls.new_connection if self.tls is not None else self.new_connection
        proxies = self.context.proxies
        if self.options.proxy_protocol and proxies is not None and proxies.trusts(transport.client[0]):
            return ProxiedConnection(transport, base, self.context, make)
        return make(transport, base)

    def adopt(self, connection: socket.socket, address: object, listener: int, received: bytes) -> None:
        """Add a connection that the previous process has accepted on one of the listeners. Leader of the first loop only."""
        if self.loops is not None:
            make = partial(self.connection_for_adopted, connection, address, received)
            self.loops.acceptor.adopt(make, self.base_environs[listener])

    def connection_for_adopted(
        self, connection: socket.socket, address: object, received: bytes, base: Environ
    ) -> Connection:
        """Return the connection object of a socket that the previous process has accepted."""
        if not received:
            return self.connection_for(connection, address, base)
        transport = Transport(connection, address, self.options, self.context.clock)
        adopted = self.new_connection(transport, base)
        adopted.start_with(received)
        return adopted

    def drain(self, loops: Loops) -> None:
        """Stop accepting, and wait until the running requests end or their time runs out."""
        self.retired_at = self.context.clock.now()
        if self.stop is not Stop.RETIRE:
            self.drain_deadline = min(self.drain_deadline, self.retired_at + self.options.graceful_timeout)
        self.context.drain()
        loops.loop.call_soon(partial(self.stop_accepting, loops))
        while True:
            left = self.drain_deadline - self.context.clock.now()
            if self.accept_stopped.is_set():
                self.on_accept_stopped()
                self.on_accept_stopped = bool
                if not loops.count():
                    return
            if left <= 0:
                break
            loops.pool.run_watchdog(None if left == NEVER else left)
        if cut := len(self.in_flight()):
            self.context.log_error(f"Requests aborted because the wait for them is over (graceful_timeout): {cut}.")

    def stop_accepting(self, loops: Loops) -> None:
        """Stop accepting, and close or hand off the idle connections. Leader of the first loop only."""
        try:
            loops.acceptor.stop()
            if self.accept_thread is not None:
                self.accept_thread.stop()
            if self.handoff is not None:
                loops.loop.remove_source(self.handoff.receiver.fileno())
            if self.stop in {Stop.FINAL, Stop.RETIRE}:
                self.server_close()
        finally:
            loops.drain(self.keep_or_hand_off, self.on_drained)

    def on_drained(self) -> None:
        """Let `drain` go on: nothing is accepted any more, and no connection waits that could end."""
        self.accept_stopped.set()
        self.notify()

    def keep_or_hand_off(self, connection: Connection) -> bool:
        """Return whether a connection without a request may wait for one, while the server drains. Leaders only.

        A retiring process sends it to its successor. Where that is impossible, one more request is answered, with
        `Connection: close`: otherwise a client that has just sent one could not know whether it was processed.
        """
        if self.stop is not Stop.RETIRE:
            return False
        transport = connection.transport
        row = connection.table[connection.state]
        # With the PROXY protocol the successor would not know the client's address, and would expect the header again.
        if self.handoff is not None and row.handoff and not transport.is_secure and not self.options.proxy_protocol:
            base = getattr(connection, "base", self.base_environs[0])
            listener = self.base_environs.index(base) if base in self.base_environs else 0
            if self.handoff.send(transport.descriptor, listener, connection.received()):
                return False
        transport.shorten(self.retired_at + LAST_REQUEST)
        return self.context.clock.now() < transport.deadline

    def end(self, loops: Loops) -> None:
        """End the threads, and close the remaining connections."""
        if self.accept_thread is not None:
            self.accept_thread.stop()
            self.accept_thread.join(ENDING)
            self.accept_thread = None
        loops.end(ENDING)
        if self.tls is not None:
            self.tls.end()
        loops.close()
        self.context.stop_log()
        self.stop = Stop.NO  # here and not in `start`: a stop may be requested before `start`
        self.drain_deadline = NEVER
        self.ended.set()

    # --- Counters and running requests
    # ------------------------------------------------------------------------------------------------------

    @contextmanager
    def limits_paused(self) -> Iterator[None]:
        """Stop the clock of time limits while a debugger's prompt is open."""
        self.context.clock.pause()
        try:
            yield
        finally:
            self.context.clock.resume()
            if self.loops is not None:
                self.loops.wake()

    @property
    def pauses(self) -> int:
        """The number of open debugger prompts."""
        return self.context.clock.pauses

    @property
    def requests(self) -> int:
        """The number of requests that were passed to the application."""
        return self.loops.requests() if self.loops is not None else 0

    @property
    def failures(self) -> int:
        """The number of requests that failed because of an error of the application or the server."""
        return self.context.errors_counted

    @property
    def threads(self) -> list[PoolThread]:
        """The threads that run requests."""
        return self.loops.threads() if self.loops is not None else []

    def running(self) -> list[Exchange | HandlerConnection]:
        """Return the requests that run or wait for a thread; a connection with a handler class stands for its request."""
        found: list[Exchange | HandlerConnection] = []
        for connection in self.loops.snapshot() if self.loops is not None else ():
            each = connection if isinstance(connection, HandlerConnection) else connection.exchange
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
            "connections": self.loops.count() if self.loops is not None else 0,
            "running": len(self.running()),
        }


def overridden(server: WSGIServer) -> set[str]:
    """Return the names of socketserver's methods and attributes that a server, or its class, overrides."""
    names = ("get_request", "handle_error", "request_queue_size", "service_actions", "verify_request")
    return {name for name in names if name in vars(server) or overrides(type(server), WSGIServer, name)}


def is_listening(listener: socket.socket) -> bool:
    """Return whether a socket listens already."""
    try:
        return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except (AttributeError, OSError):  # a system without this option; listening twice does no harm
        return False
