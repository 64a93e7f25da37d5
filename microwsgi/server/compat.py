"""Handler classes of http.server on our server, and WSGI applications in such classes.

`microwsgi.server.server` serves a class with `do_GET` through PlainConnection; `wsgi` makes a `do_GET` of an application.
"""

from __future__ import annotations

import functools
import io
import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from microwsgi.errors import Disconnected
from microwsgi.server.context import Application, ServerContext, escape_controls, multithreaded
from microwsgi.server.environ import Environ, base_environ
from microwsgi.server.exchange import DONE, SERVER_ERROR, Exchange
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.hooks import call_handle_error
from microwsgi.server.state import OWNED, READ, Row, State, Table
from microwsgi.server.transport import RECEIVE, Transport
from microwsgi.wire.body import LengthDecoder
from microwsgi.wire.request import END, RequestHead

OK, SWITCHING = 200, 101
"""The first final status, and the 1xx status that ends HTTP on a connection (RFC 9110 15)."""


class Postponed:
    """Mixed into a handler class: `BaseRequestHandler.__init__` then neither handles requests nor ends the connection."""

    def handle(self) -> None:
        """Do nothing: the server calls `handle_one_request` when data arrives."""

    def finish(self) -> None:
        """Do nothing: the connection goes on."""


class Logged(BaseHTTPRequestHandler):
    """Mixed into a handler class without a log of its own: the server's logs have its requests, and what it says."""

    server_context: ServerContext

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Do nothing: PlainConnection writes one record when the request is over."""

    def log_error(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Write a line to the server's error log, but for what the access log says: that send_error was called."""
        if format != "code %d, message %s":
            self.log_message(format, *args)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Write a line to the server's error log."""
        self.server_context.log_error(f"{self.address_string()} {escape_controls(format % args)}")


class CountedFile:
    """The file that a handler writes its responses to, which counts the bytes and knows where the body begins."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file = file
        self.count = self.body = 0
        self.status = 0
        self.start = b""  # of the response, until the end of its head

    def begin(self) -> None:
        """Begin with a response."""
        self.count = self.body = self.status = 0
        self.start = b""

    def write(self, data: bytes) -> int:
        """Write bytes, and count them."""
        view = memoryview(data).cast("B")
        if not self.body:
            self.look(bytes(view[:RECEIVE]), len(view))
        self.count += len(view)
        return self.file.write(data)

    def look(self, data: bytes, size: int) -> None:
        """Find the status, and the end of the head, in a response of which these bytes come next."""
        self.start += data
        while (end := self.start.find(END)) >= 0:
            status = self.start[9:12]
            if not self.start.startswith(b"HTTP/") or not status.isdigit():
                break
            self.status = int(status)
            self.start = self.start[end + len(END) :]
            if self.status >= OK or self.status == SWITCHING:
                self.body = self.count + size - len(self.start)
                self.start = b""
                return

    def size(self) -> int:
        """Return how many bytes of a body were written."""
        return self.count - self.body

    def __getattr__(self, name: str) -> object:
        """Return an attribute of the file."""
        return getattr(self.file, name)


class HandlerFactory:
    """How instances of a handler class are made, and divided into requests.

    The server's access log has the requests of a class that does not override http.server's methods for that.
    """

    def __init__(
        self,
        given: Callable[..., BaseHTTPRequestHandler],
        context: ServerContext,
        server: object,
        *,
        handle_error: bool = False,
    ) -> None:
        self.context = context
        self.server = server
        self.handle_error = handle_error
        base: type[BaseHTTPRequestHandler] = given.func if isinstance(given, functools.partial) else given  # type: ignore[assignment]
        self.whole = base.handle is not BaseHTTPRequestHandler.handle
        """The class has its own `handle`, which can't be divided into requests."""
        self.finish: Callable[[BaseHTTPRequestHandler], object] = base.finish
        self.make: Callable[..., BaseHTTPRequestHandler] = given
        self.logs = context.access_log is not None and not any(
            getattr(base, name) is not getattr(BaseHTTPRequestHandler, name)
            for name in ("log_request", "log_message", "log_error")
        )
        if not self.whole:
            mixed = (Postponed, Logged, base) if self.logs else (Postponed, base)
            self.make = type(base.__name__, mixed, {"server_context": context})
            if isinstance(given, functools.partial):
                self.make = functools.partial(self.make, *given.args, **given.keywords)

    def connect(self, transport: Transport, base: Environ) -> PlainConnection:
        """Return the connection of a client."""
        return PlainConnection(transport, self.context, self, base)


class PlainConnection:
    """A connection of a handler class that reads its socket itself. It waits in the poller between requests.

    While the class reads and runs a request it has a thread, and a permit to wait for its client.
    """

    __slots__ = (
        "aborted",  # the response can't be completed: the client is to see that
        "base",
        "close_connection",
        "context",
        "ending",
        "factory",
        "handler",
        "output",
        "requests",
        "started",
        "state",
        "transport",
    )

    exchange = None
    successor = None
    waits_for_client = True

    def __init__(self, transport: Transport, context: ServerContext, factory: HandlerFactory, base: Environ) -> None:
        self.transport = transport
        self.context = context
        self.factory = factory
        self.base = base
        self.handler: BaseHTTPRequestHandler | None = None
        self.output: CountedFile | None = None
        self.requests = 0
        self.started = 0.0
        self.aborted = self.close_connection = self.ending = False
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
        failure: BaseException | None = None
        try:
            if self.handler is None:
                self.make_handler()
            if not self.factory.whole:
                self.run_handler(self.handler)  # type: ignore[arg-type]  # it was just made
        except BaseException as error:  # noqa: BLE001 - the class is anybody's code, and SystemExit must not end a thread
            failure = error
            self.close_connection = True
            self.end_request(failure)
        else:
            self.end_request(None)
        self.started = 0.0
        if self.close_connection:
            self.end()

    def make_handler(self) -> None:
        """Make the class's instance; one with a `handle` of its own serves the whole connection meanwhile."""
        if self.factory.whole:
            self.close_connection = True
        self.handler = self.factory.make(self.transport.socket, self.client_address(), self.factory.server)
        if not self.factory.whole:
            self.output = CountedFile(self.handler.wfile)
            self.handler.wfile = self.output  # type: ignore[assignment]  # it has the methods of a file

    def run_handler(self, handler: BaseHTTPRequestHandler) -> None:
        """Let the class read and answer one request."""
        output: CountedFile = self.output  # type: ignore[assignment]  # `make_handler` made it
        output.begin()
        handler.requestline = handler.command = handler.request_version = ""
        handler.close_connection = True
        handler.handle_one_request()
        self.close_connection = handler.close_connection or self.context.draining

    def end_request(self, error: BaseException | None) -> None:
        """Count and log the request; a failed one is a 500 if nothing was sent, and otherwise broken off."""
        handler, output = self.handler, self.output
        if output is None or handler is None:
            if error is not None and not isinstance(error, ConnectionError):
                self.report(error)
            return
        if not getattr(handler, "raw_requestline", b"") and not output.count:
            self.requests -= 1  # the client has closed the connection, or sent nothing
            return
        exchange = Exchange(self.context, self.transport, self.base, head_of(handler), self.started)
        exchange.take_result(output.status, output.size() if output.body else 0, sent=bool(output.count))
        if isinstance(error, ConnectionError):
            exchange.abort("The client left before it had received the whole response.")
        elif error is not None and not self.factory.handle_error:
            exchange.fail(error)
        try:
            if error is not None and exchange.phase is not DONE:
                self.report(error)
                exchange.answer_failure(error)
            if exchange.answer is not None:
                self.transport.write(exchange.answer)
            self.transport.wait_until_sent()
        except Disconnected as gone:
            exchange.abort(str(gone))
        self.aborted = exchange.aborted
        if self.factory.logs:
            exchange.finish()
        elif exchange.status >= SERVER_ERROR and not exchange.reason:
            self.context.count_error()

    def report(self, error: BaseException) -> None:
        """Log an exception of the class; or call handle_error of the server's class, within the `except` that caught it."""
        if self.factory.handle_error:
            call_handle_error(self.context, self.factory.server, self.transport, self.client_address())
        else:
            self.context.log_exception("A handler failed:", error)

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
            if not self.aborted:  # a reset says that something is missing; our end would come before it
                self.transport.half_close()
        except OSError:
            pass

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


def head_of(handler: BaseHTTPRequestHandler) -> RequestHead:
    """Return what a handler has parsed, for the log and the error page."""
    raw = bytes(getattr(handler, "raw_requestline", b"")).rstrip(b"\r\n")
    words = handler.requestline.split()
    version = handler.request_version
    if not handler.command or len(words) < 2 or words[0] != handler.command or not version.startswith("HTTP/"):  # noqa: PLR2004
        return RequestHead(raw, "", "", "", {})
    fields: dict[str, str] = {}
    for name, value in handler.headers.items():
        key = name.upper().replace("-", "_")
        if "_" not in name:
            fields[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
        raw += f"\r\n{name}: {value}".encode("latin-1", "replace")
    return RequestHead(raw, handler.command, words[1], version, fields)


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
