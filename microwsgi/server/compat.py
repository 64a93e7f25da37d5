"""Handler classes of http.server on our server, and WSGI applications in such classes.

`microwsgi.server.server` serves a class with `do_GET` through PlainConnection; `wsgi` makes a `do_GET` of an application.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from microwsgi.server.context import Application, ServerContext, multithreaded
from microwsgi.server.environ import Environ, base_environ
from microwsgi.server.exchange import Exchange
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.state import OWNED, READ, Row, State, Table
from microwsgi.server.transport import Transport
from microwsgi.wire.body import LengthDecoder


class Postponed:
    """Mixed into a handler class: `BaseRequestHandler.__init__` then neither handles requests nor ends the connection."""

    def handle(self) -> None:
        """Do nothing: the server calls `handle_one_request` when data arrives."""

    def finish(self) -> None:
        """Do nothing: the connection goes on."""


class HandlerFactory:
    """How instances of a handler class are made, and divided into requests."""

    def __init__(self, given: Callable[..., BaseHTTPRequestHandler], context: ServerContext, server: object) -> None:
        self.context = context
        self.server = server
        base: type[BaseHTTPRequestHandler] = given.func if isinstance(given, functools.partial) else given  # type: ignore[assignment]
        self.whole = base.handle is not BaseHTTPRequestHandler.handle
        """The class has its own `handle`, which can't be divided into requests."""
        self.finish: Callable[[BaseHTTPRequestHandler], object] = base.finish
        self.make: Callable[..., BaseHTTPRequestHandler] = given
        if not self.whole:
            self.make = type(base.__name__, (Postponed, base), {})
            if isinstance(given, functools.partial):
                self.make = functools.partial(self.make, *given.args, **given.keywords)

    def connect(self, transport: Transport, base: Environ) -> PlainConnection:  # noqa: ARG002 - of WSGI only
        """Return the connection of a client."""
        return PlainConnection(transport, self.context, self)


class PlainConnection:
    """A connection of a handler class that reads its socket itself. It waits in the poller between requests.

    While the class reads and runs a request it has a thread, and a permit to wait for its client.
    """

    __slots__ = (
        "close_connection",
        "context",
        "ending",
        "factory",
        "handler",
        "requests",
        "started",
        "state",
        "transport",
    )

    exchange = None
    successor = None
    waits_for_client = True

    def __init__(self, transport: Transport, context: ServerContext, factory: HandlerFactory) -> None:
        self.transport = transport
        self.context = context
        self.factory = factory
        self.handler: BaseHTTPRequestHandler | None = None
        self.requests = 0
        self.started = 0.0
        self.close_connection = self.ending = False
        self.state = State.IDLE
        transport.expect(READ, context.options.idle_time)

    @property
    def requestline(self) -> str:
        """The request line, as far as it is known."""
        return getattr(self.handler, "requestline", "")

    def address_string(self) -> str:
        """Return the client's address and port, or "unix"."""
        return self.transport.address_string()

    def received(self) -> bytes:
        """Return the bytes that were received: none between two requests."""
        return b""

    def go_on(self, received: bytes) -> None:
        """Begin with the bytes that another process has received: there are none, see above."""

    # --- By the leader --------------------------------------------------------------------------------------------------------

    def on_ready(self) -> None:
        """Bytes have arrived: the class reads them itself, and may have to wait for the rest."""
        self.state = State.QUEUED

    def on_timeout(self) -> None:
        """The client has sent nothing for too long."""
        self.state = self.abort("")

    def on_drain(self) -> None:
        """The server is to end: the loop closes idle connections."""

    def enter(self, state: State) -> None:
        """Set the state."""
        self.state = state
        if state is State.IDLE:
            self.transport.expect(READ, self.context.options.idle_time)

    def abort(self, reason: str) -> State:  # noqa: ARG002 - the class has its own log
        """Give the connection up: the class is to finish, which is foreign code."""
        if self.handler is None or self.ending:
            return State.CLOSED
        self.ending = True
        return State.QUEUED

    # --- By a thread of the pool ----------------------------------------------------------------------------------------------

    def handle_one_request(self) -> None:
        """Let the class read and answer one request, or all if it wants to."""
        self.state = State.RUNNING
        if self.ending:
            self.end()
            return
        self.requests += 1
        self.started = self.context.clock.now()
        self.transport.socket.settimeout(self.context.options.idle_time)
        try:
            if self.handler is None:
                self.handler = self.factory.make(self.transport.socket, self.client_address(), self.factory.server)
            if self.factory.whole:
                self.close_connection = True
            else:
                self.handler.close_connection = True
                self.handler.handle_one_request()
                self.close_connection = self.handler.close_connection
        except BaseException as error:  # noqa: BLE001 - the class is anybody's code: SystemExit must not end a thread
            self.close_connection = True
            if not isinstance(error, ConnectionError):
                self.context.log_exception("A handler failed:", error)
        self.started = 0.0
        if self.close_connection:
            self.end()

    def client_address(self) -> tuple[str, int] | str:
        """Return the address as socketserver passes it."""
        host, port = self.transport.client
        return (host, int(port)) if host else ""

    def finish_turn(self) -> State:
        """Return the state after a request: the next one may be in the buffer of the class already."""
        if self.close_connection or self.ending:
            return State.CLOSED
        self.transport.socket.setblocking(False)
        try:
            buffered = self.handler.rfile.peek(1)  # type: ignore[union-attr]  # it has run, and socketserver's is buffered
        except OSError:  # TLS has nothing to read; a client that has left causes an event
            buffered = b""
        return State.QUEUED if buffered else State.IDLE

    def end(self) -> None:
        """Let the class finish, as socketserver would."""
        self.ending = True
        try:
            if self.handler is not None and not self.factory.whole:
                self.factory.finish(self.handler)
            self.transport.half_close()
        except OSError:
            pass
        except BaseException as error:  # noqa: BLE001 - as above
            self.context.log_exception("A handler failed in finish:", error)

    def close(self) -> State:
        """Close the connection."""
        return State.CLOSED

    def on_bytes(self) -> State:
        """The class reads them."""
        return State.QUEUED

    table: Table = {  # noqa: RUF012 - typing.ClassVar would cost its import
        State.IDLE: Row(READ, on_bytes, close, close, yields=2, handoff=True),
        State.CLOSED: Row(0),
    }


class HandlerTransport(Transport):
    """The files of an http.server handler as a transport. The head, which the handler has read, comes first."""

    __slots__ = ("connection", "head", "owner")

    sends_files = False

    def __init__(self, owner: BaseHTTPRequestHandler, head: bytes, context: ServerContext) -> None:
        super().__init__(owner.connection, owner.client_address, context.options, context.clock)
        owner.connection.setblocking(True)
        self.owner = owner
        self.head = head
        self.connection: WSGIRequestHandler | None = None

    def attach(self, connection: WSGIRequestHandler) -> None:
        """Read no more than the bodies of this connection."""
        self.connection = connection

    def recv(self, size: int) -> bytes:
        """Return some bytes; of a body no more than belongs to it, so that the next request stays where it is."""
        if self.head:
            data, self.head = self.head, b""
            return data
        exchange: Exchange | None = self.connection.exchange if self.connection is not None else None
        if exchange is not None and exchange.body is not None and isinstance(exchange.body.decoder, LengthDecoder):
            size = min(size, exchange.body.decoder.remaining)
        return self.owner.rfile.read1(size)

    def recv_into(self, view: memoryview) -> int:
        """Receive into a buffer; return the count."""
        data = self.recv(len(view))
        view[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        """Send all of the data."""
        self.owner.wfile.write(data)
        return len(data)

    def half_close(self) -> None:
        """Leave the end of the connection to the handler's server."""

    def abort(self) -> None:
        """Send a reset when the handler's server closes the connection."""
        super().abort()

    def close(self) -> None:
        """Leave the end of the connection to the handler's server."""

    def detach(self) -> socket.socket:
        """Give the socket away."""
        return self.socket


def wsgi(application: Application) -> Callable[[BaseHTTPRequestHandler], None]:
    """Return a method for a plain handler class that serves an application.

    In the class body: `do_GET = do_POST = wsgi(application)`.


    The request that the class has parsed is written down again and parsed strictly, so the application meets the same environ,
    and the client the same refusals, as on our own server.
    """

    def do_method(self: BaseHTTPRequestHandler) -> None:
        context = ServerContext(
            application, access_log=lambda exchange, _: self.log_request(exchange.status, exchange.size)
        )
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = f"{self.command} {self.path} {self.request_version}\r\n{fields}\r\n".encode("latin-1")
        address, errors = self.connection.getsockname(), context.error_stream()
        base: Environ = base_environ(address, errors, multithread=multithreaded(self.server))
        transport = HandlerTransport(self, head, context)
        connection = WSGIRequestHandler.connect(context, transport, base)
        transport.attach(connection)
        connection.on_ready()
        while connection.state in OWNED or connection.state in {State.BODY, State.DISCARDING, State.FLUSHING}:
            if connection.state in OWNED:
                connection.handle_one_request()
                connection.enter(connection.finish_turn())
            else:
                connection.on_ready()
        # More than the chunks of a body may have been received: that can't be given back.
        self.close_connection = connection.state is not State.IDLE or bool(transport.read_ahead)

    return do_method


__all__ = ["HandlerFactory", "PlainConnection", "wsgi"]
