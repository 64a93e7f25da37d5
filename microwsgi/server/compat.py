"""Handler classes of http.server on this server, and WSGI applications in such classes.

`microwsgi.server.server` serves a class with `do_GET` through HandlerConnection; `wsgi` turns an application into a `do_GET`.
"""

from __future__ import annotations

import functools
import io
import socket
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer
from time import monotonic

from microwsgi.errors import ClientError, Disconnected, FieldsTooLarge
from microwsgi.options import Options
from microwsgi.server.context import Application, ServerContext, escape_controls, multithreaded
from microwsgi.server.environ import Environ, base_environ
from microwsgi.server.exchange import DONE, SERVER_ERROR, Exchange
from microwsgi.server.handler import LINGER, WSGIRequestHandler
from microwsgi.server.hooks import call_handle_error
from microwsgi.server.hosts import check_host
from microwsgi.server.state import OWNED, READ, Row, State, Table
from microwsgi.server.transport import RECEIVE, Transport
from microwsgi.support.typenames import UNSET, Any, WriteableBuffer
from microwsgi.wire.body import LengthDecoder
from microwsgi.wire.request import END, PartialHead, RequestHead, expects_continue, is_persistent, parse_head

OK, SWITCHING = 200, 101
"""The first final status, and the 1xx status that ends HTTP on a connection (RFC 9110 15)."""
MAX_LINE = 65537
"""Octets of a line that are read at once, as in http.server; a longer line is refused before its end."""


class DeferredHandler:
    """Mixed into a handler class: `BaseRequestHandler.__init__` then neither handles requests nor ends the connection."""

    def handle(self) -> None:
        """Do nothing: the server calls `handle_one_request` when data arrives."""

    def finish(self) -> None:
        """Do nothing: the connection continues."""


class Logged(BaseHTTPRequestHandler):
    """Mixed into a handler class without a log of its own: its requests and messages go to the server's logs."""

    server_context: ServerContext

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Do nothing: HandlerConnection writes one record when the request is over."""

    def log_error(self, format: str, *args: object) -> None:  # http.server's name
        """Write a line to the server's error log, except the line of send_error, which the access log has."""
        if format != "code %d, message %s":
            self.log_message(format, *args)

    def log_message(self, format: str, *args: object) -> None:  # http.server's name
        """Write a line to the server's error log."""
        self.server_context.log_error(f"{self.address_string()} {escape_controls(format % args)}")


class HeadFile(io.RawIOBase):
    """The file that a handler reads. It limits the time of a whole head, whereas a socket's timeout limits each receive."""

    def __init__(self, handler: BaseHTTPRequestHandler, context: ServerContext) -> None:
        self.file = handler.rfile
        # Without a `raw` if the class has rbufsize = 0.
        self.raw: io.RawIOBase | io.BufferedIOBase = getattr(handler.rfile, "raw", None) or handler.rfile
        self.connection = handler.connection
        self.context = context
        self.seconds = context.options.keep_alive_timeout if handler.timeout is None else handler.timeout
        self.deadline = 0.0

    def begin_head(self) -> None:
        """Start the time limit `header_timeout`, since the first bytes of a head have arrived."""
        self.deadline = self.context.clock.now() + self.context.options.header_timeout

    def end_head(self) -> None:
        """End the time limit of the head. Each receive of the body has its own time limit."""
        self.deadline = 0.0
        self.connection.settimeout(self.seconds)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Receive. Raises TimeoutError, which http.server logs before it ends the connection."""
        if self.deadline:
            left = self.deadline - self.context.clock.now()
            if left <= 0:
                raise TimeoutError("the headers were incomplete after header_timeout")
            self.connection.settimeout(min(left, self.seconds))
        return self.raw.readinto(buffer)

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        super().close()


class Limited(BaseHTTPRequestHandler):
    """Mixed into a handler class: applies the options header_timeout, max_header_size and allow_host."""

    server_context: ServerContext
    head_file: HeadFile
    raw_requestline: bytes  # this and the next four are attributes of http.server's classes
    headers: Message
    rfile: io.BufferedReader
    client_address: tuple[str, int]
    close_connection: bool

    def setup(self) -> None:
        """Limit the time of the first head."""
        super().setup()
        self.head_file = HeadFile(self, self.server_context)
        self.rfile = io.BufferedReader(self.head_file)
        self.head_file.begin_head()

    def parse_request(self) -> bool:
        """Parse the head by the class's own method; refuse a head that is too long, or for another host."""
        if not super().parse_request():
            return False
        self.head_file.end_head()
        context = self.server_context
        fields = self.headers.items()
        size = len(self.raw_requestline) + sum(len(name) + len(value) + len(": \r\n") for name, value in fields)
        try:
            if size > context.options.max_header_size:
                raise FieldsTooLarge(
                    f"The headers exceed the limit of {context.options.max_header_size} bytes (max_header_size)."
                )
            if context.hosts is not None and "Host" in self.headers and self.client_address:
                check_host(context.hosts, self.headers["Host"])
        except ClientError as error:
            self.close_connection = True
            self.send_error(int(error.status[:3]), explain=str(error))
            return False
        return True


class CountedFile:
    """The file to which a handler writes its responses. It counts the bytes, and finds the beginning of the body."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file = file
        self.count = self.body = 0
        self.status = 0
        self.start = b""  # of the response, until the end of its head

    def begin(self) -> None:
        """Reset the counters for the next response."""
        self.count = self.body = self.status = 0
        self.start = b""

    def write(self, data: bytes) -> int:
        """Write bytes, and count them."""
        view = memoryview(data).cast("B")
        if not self.body:
            self.find_head(bytes(view[:RECEIVE]), len(view))
        self.count += len(view)
        return self.file.write(data)

    def find_head(self, data: bytes, size: int) -> None:
        """Find the status and the end of the head. `data` are the next bytes of the response, the first of `size`."""
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
        """Return the number of body bytes that were written."""
        return self.count - self.body

    def __getattr__(self, name: str) -> object:
        """Return an attribute of the file."""
        return getattr(self.file, name)


class HandlerFactory:
    """Creates instances of a handler class, whose requests the server runs one by one.

    If the class does not override http.server's methods for the log, its requests are in the server's access log.
    """

    def __init__(
        self,
        given: Callable[..., BaseHTTPRequestHandler],
        context: ServerContext,
        server: BaseServer,
        *,
        handle_error: bool = False,
    ) -> None:
        self.context = context
        self.server = server
        self.handle_error = handle_error
        base: type[BaseHTTPRequestHandler] = given.func if isinstance(given, functools.partial) else given  # type: ignore[assignment]
        self.overrides_handle = base.handle is not BaseHTTPRequestHandler.handle
        """The class has its own `handle`, so one call serves the whole connection."""
        self.finish: Callable[[BaseHTTPRequestHandler], object] = base.finish
        # Creates an instance of a Limited subclass; for a class that does not derive from BaseHTTPRequestHandler, of the class.
        self.make: Callable[..., Any] = given
        self.logs = context.access_log is not None and not any(
            getattr(base, name, None) is not getattr(BaseHTTPRequestHandler, name)
            for name in ("log_request", "log_message", "log_error")
        )
        if not issubclass(base, BaseHTTPRequestHandler):
            return  # a handler of socketserver for another protocol than HTTP
        mixed: tuple[type, ...] = (Limited, base)
        if not self.overrides_handle:
            mixed = (DeferredHandler, Logged, Limited, base) if self.logs else (DeferredHandler, Limited, base)
        attributes = {"server_context": context, "__module__": base.__module__, "__qualname__": base.__qualname__}
        self.make = type(base.__name__, mixed, attributes)
        if isinstance(given, functools.partial):
            self.make = functools.partial(self.make, *given.args, **given.keywords)

    def new_connection(self, transport: Transport, base: Environ) -> HandlerConnection:
        """Return the connection of a client."""
        return HandlerConnection(transport, self.context, self, base)


class HandlerConnection:
    """A connection whose requests a handler class of http.server reads and answers. Between requests it waits in the poller.

    While the class reads and runs a request it has a thread, and a client-wait permit.
    """

    __slots__ = (
        "aborted",  # the response will not be completed, and the client must notice that
        "base",
        "close_connection",
        "context",
        "ending",  # `finish` of the class is to be called, or was called
        "factory",
        "handler",
        "output",
        "requests",
        "started",
        "state",
        "transport",
    )

    exchange = None
    replacement = None
    waits_for_client = True
    manages_permit = False

    def __init__(self, transport: Transport, context: ServerContext, factory: HandlerFactory, base: Environ) -> None:
        self.transport = transport
        self.context = context
        self.factory = factory
        self.base = base
        self.handler: Limited = UNSET  # set at the first request
        self.output: CountedFile = UNSET  # set at the first request, unless the class has a `handle` of its own
        self.requests = 0
        self.started = 0.0
        self.aborted = self.close_connection = self.ending = False
        self.state = State.IDLE
        transport.expect(READ, context.options.keep_alive_timeout)

    @property
    def requestline(self) -> str:
        """The request line, "" until the class has read it."""
        return getattr(self.handler, "requestline", "")

    def address_string(self) -> str:
        """Return the client's address and port, or "unix"."""
        return self.transport.address_string()

    def received(self) -> bytes:
        """Return the bytes that were received: none between two requests."""
        return b""

    def start_with(self, received: bytes) -> None:
        """Do nothing: the other process has received no bytes between two requests."""

    # --- By the leader ------------------------------------------------------------------------------------------------

    def on_ready(self) -> None:
        """Queue the connection: the class itself reads the bytes, and may have to wait for more."""
        with suppress(BlockingIOError):  # the client of a new connection may not have sent anything yet
            self.state = self.on_bytes()

    def on_timeout(self) -> None:
        """End the connection: no request arrived in time."""
        self.state = self.abort("")

    def on_drain(self) -> None:
        """Do nothing: the loop closes idle connections."""

    def enter(self, state: State) -> None:
        """Set the state."""
        self.state = state
        if state is State.IDLE:
            self.transport.expect(READ, self.context.options.keep_alive_timeout)

    def abort(self, reason: str) -> State:  # the class has its own log
        """End the connection. `finish` of the class may block, so a thread of the pool calls it."""
        if self.handler is None or self.ending:
            return State.CLOSED
        self.ending = True
        return State.QUEUED

    # --- By a thread of the pool --------------------------------------------------------------------------------------

    def handle_one_request(self) -> None:
        """Call the class for one request, or for all requests if it has its own `handle`."""
        self.state = State.RUNNING
        if self.ending:
            self.end()
            return
        self.requests += 1
        self.started = self.context.clock.now()
        self.transport.socket.settimeout(self.context.options.keep_alive_timeout)
        failure: BaseException | None = None
        try:
            if self.handler is None:
                self.make_handler()
            if not self.factory.overrides_handle:
                handler = self.begin_request()
                handler.handle_one_request()
                self.close_connection = handler.close_connection or self.context.draining
        except BaseException as error:  # the class may raise anything, and SystemExit must not end a thread
            failure = error
            self.close_connection = True
            self.end_request(failure)
        else:
            self.end_request(None)
        self.started = 0.0
        if self.close_connection:
            self.end()

    def make_handler(self) -> None:
        """Create the class's instance. A class with its own `handle` serves the whole connection in its constructor."""
        if self.factory.overrides_handle:
            self.close_connection = True
        self.handler = self.factory.make(self.transport.socket, self.client_address(), self.factory.server)
        if not self.factory.overrides_handle:
            self.output = CountedFile(self.handler.wfile)
            self.handler.wfile = self.output  # type: ignore[assignment]  # it has the methods of a file

    def begin_request(self) -> BaseHTTPRequestHandler:
        """Return the class's instance, ready for the next request."""
        handler = self.handler
        self.output.begin()
        handler.head_file.begin_head()
        handler.requestline = handler.command = handler.request_version = ""
        # Else the log of an incomplete head would have the fields of the previous request.
        handler.headers = handler.MessageClass()
        handler.close_connection = True
        return handler

    def end_request(self, error: BaseException | None) -> None:
        """Count and log the request. After a failure send a 500 response, or abort a response that was sent in part."""
        handler, output = self.handler, self.output
        if output is None or handler is None:
            if error is not None and not isinstance(error, ConnectionError):
                self.report(error)
            return
        if not getattr(handler, "raw_requestline", b"") and not output.count:
            self.requests -= 1  # the client has closed the connection, or sent nothing
            return
        exchange = Exchange(self.context, self.transport, self.base, head_of(handler), self.started)
        if self.context.proxies is not None:
            exchange.apply_forwarded(self.context.proxies)
        exchange.record_response(output.status, output.size() if output.body else 0, sent=bool(output.count))
        if isinstance(error, ConnectionError):
            exchange.abort("The client disconnected before it had received the whole response.")
        elif error is not None and not self.factory.handle_error:
            exchange.fail(error)
        try:
            if error is not None and exchange.phase is not DONE:
                self.report(error)
                exchange.send_failure_response(error)
            if exchange.response_bytes is not None:
                self.transport.write(exchange.response_bytes)
            self.transport.wait_until_sent()
        except Disconnected as gone:
            exchange.abort(str(gone))
        self.aborted = exchange.aborted
        if self.factory.logs:
            exchange.write_log()
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
        """Return the state after a request: QUEUED if the next request is already in the buffer of the class."""
        if self.close_connection or self.ending:
            return State.CLOSED
        self.handler.head_file.end_head()
        self.transport.socket.setblocking(False)
        try:
            buffered = self.handler.rfile.peek(1)
        except OSError:  # with TLS: nothing to read; a client that has disconnected causes an event
            buffered = b""
        return State.QUEUED if buffered else State.IDLE

    def end(self) -> None:
        """Call `finish` of the class, as socketserver does."""
        self.ending = True
        try:
            if self.handler is not None and not self.factory.overrides_handle:
                self.factory.finish(self.handler)
            # After an abort a reset must show the client that data is missing: no regular end may precede it.
            if not self.aborted:
                self.transport.half_close()
        except OSError:
            pass
        except BaseException as error:  # the class may raise anything, and SystemExit must not end a thread
            self.context.log_exception("A handler failed in finish:", error)

    def close(self) -> State:
        """Close the connection."""
        return State.CLOSED

    def on_bytes(self) -> State:
        """Return QUEUED; CLOSED after a request that signs a browser in, which the server answers (development only)."""
        sign_in = self.context.sign_in
        return State.CLOSED if sign_in is not None and self.answer_sign_in(sign_in) else State.QUEUED

    def answer_sign_in(self, sign_in: Callable[..., object]) -> bool:
        """Answer a request that signs a browser in; return whether it was one. Raises BlockingIOError.

        With TLS, where data can't be peeked at, the token has to be sent as a field.
        """
        try:
            raw, end, _ = self.transport.peek(RECEIVE).partition(END)
            head = parse_head(raw, self.context.options)
            exchange = Exchange(self.context, self.transport, self.base, head, self.context.clock.now())
            sign_in(exchange)
        except ClientError as error:
            if not error.status.startswith("3"):
                return False  # the class answers invalid requests
            self.transport.recv(len(raw + end))
            exchange.refuse(error)
            exchange.write_log()
            return True
        except BlockingIOError:
            raise
        except OSError:
            return False  # the class will get the error, too
        return False

    table: Table = {  # typing.ClassVar would cost its import
        State.IDLE: Row(READ, on_bytes, close, close, eviction_rank=2, handoff=True),
        State.CLOSED: Row(0),
    }


def head_of(handler: BaseHTTPRequestHandler) -> RequestHead:
    """Return the head that a handler class has parsed, for the log and the error page."""
    raw = bytes(getattr(handler, "raw_requestline", b"")).rstrip(b"\r\n")
    words = handler.requestline.split()
    version = handler.request_version
    if not handler.command or len(words) < 2 or words[0] != handler.command or not version.startswith("HTTP/"):
        return RequestHead(raw, "", "", "", {})
    fields: dict[str, str] = {}
    for name, value in handler.headers.items():
        key = name.upper().replace("-", "_")
        if "_" not in name:
            fields[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
        raw += f"\r\n{name}: {value}".encode("latin-1", "replace")
    return RequestHead(raw, handler.command, words[1], version, fields)


# --- An application in a handler class -----------------------------------------------------------------------


class HandlerTransport(Transport):
    """The files of an http.server handler as a transport. The head, which was read already, comes first."""

    __slots__ = ("aborted", "connection", "head", "owner", "peeked")

    sends_files = False

    def __init__(self, owner: BaseHTTPRequestHandler, head: bytes, context: ServerContext) -> None:
        timeout = owner.connection.gettimeout()
        super().__init__(owner.connection, owner.client_address, context.options, context.clock)
        owner.connection.settimeout(timeout)
        self.owner = owner
        self.head = head
        self.peeked = 0  # bytes that `recv` has returned and that are still in the handler's file
        self.aborted = False
        self.connection: WSGIRequestHandler | None = None

    def attach(self, connection: WSGIRequestHandler) -> None:
        """Limit reads to the request bodies of this connection, so that the next request stays in the file."""
        self.connection = connection

    def recv(self, size: int) -> bytes:
        """Return some bytes; of a body no more than belongs to it, so that the next request stays in the handler's file.

        Only the decoder finds the end of a chunked body: its bytes are taken out of the file by the next call, or by `unread`.
        """
        data: bytes
        if self.head:
            data, self.head = self.head, b""
            return data
        exchange: Exchange | None = self.connection.exchange if self.connection is not None else None
        if exchange is not None and exchange.body is not None and isinstance(exchange.body.decoder, LengthDecoder):
            return self.owner.rfile.read1(min(size, exchange.body.decoder.remaining))
        self.unread(b"")
        data = self.owner.rfile.peek(1)[:size]  # type: ignore[attr-defined]  # socketserver's is a BufferedReader
        self.peeked = len(data)
        return data

    def recv_into(self, view: memoryview) -> int:
        """Receive into a buffer; return the count."""
        data = self.recv(len(view))
        view[: len(data)] = data
        return len(data)

    def unread(self, data: bytes) -> None:
        """Leave the bytes after a chunked body, which are the last of those that `recv` returned, in the handler's file."""
        self.owner.rfile.read(self.peeked - len(data))
        self.peeked = 0

    def write(self, data: bytes | memoryview) -> None:
        """Send all of the data. Raises Disconnected."""
        try:
            self.owner.wfile.write(data)
            self.owner.wfile.flush()
        except OSError as error:
            raise Disconnected("The client disconnected before it had received the whole response.") from error

    def half_close(self) -> None:
        """Do nothing: the handler's server ends the connection."""

    def abort(self) -> None:
        """Send a reset when the connection is closed."""
        self.aborted = True
        super().abort()

    def close(self) -> None:
        """Do nothing: the handler's server ends the connection."""

    def detach(self) -> socket.socket:
        """Return the socket. The bytes that the handler's file has read ahead are kept by `unread`."""
        self.unread(b"")
        self.socket.setblocking(False)
        ahead = self.owner.rfile.peek(1)  # type: ignore[attr-defined]  # socketserver's is a BufferedReader
        super().unread(self.owner.rfile.read1(len(ahead)) if ahead else b"")
        return super().detach()


def wsgi(application: Application, options: Options | None = None) -> WSGIMethod:
    """Return a method for a handler class of http.server that serves an application.

    In the class body: `do_GET = do_POST = wsgi(application)`. This package then parses the requests of the class: the
    application gets the same environ, and the client the same refusals, as on microwsgi's own server; bodies are decoded,
    and an aborted response ends the connection. These differences come from the class and its server:

    - A method without `do_METHOD`, and a request line of more than 65,536 octets, are answered by http.server.
    - An invalid request is refused when its line is complete, not at its first invalid octet.
    - 100 Continue is sent when the application reads, also to a client that has sent the body already.
    - Time limits are those of the class (`timeout`, by default none), and responses are not suspended.
    - On http.server's HTTPServer one connection is served at a time.
    """
    return WSGIMethod(application, options)


class WSGIMethod:
    """A method of a handler class that serves an application. See `wsgi`."""

    def __init__(self, application: Application, options: Options | None = None) -> None:
        self.application = application
        self.options = options

    def __set_name__(self, owner: type, name: str) -> None:
        """Make the class parse its requests strictly."""
        if not getattr(getattr(owner, "parse_request", None), "strict", False):
            setattr(owner, "parse_request", strict_parse_request(owner, self.options))  # noqa: B010 - of any class

    def __get__(self, handler: BaseHTTPRequestHandler | None, owner: type | None = None) -> Callable[..., None]:
        """Return the method of a handler."""
        return self if handler is None else functools.partial(self, handler)

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        """Serve the request that the handler has parsed."""
        raw: bytes | None = vars(handler).pop("strict_head", None)
        if raw is None:
            raise TypeError(
                f"this request was not parsed by the parse_request that wsgi() adds to {type(handler).__qualname__}: write "
                "do_GET = wsgi(application) in the class body. If you override parse_request, call super().parse_request()."
            )
        context = context_of(handler, self.application, self.options)
        transport = HandlerTransport(handler, raw, context)
        connection = WSGIRequestHandler.new_connection(context, transport, environ_of(handler, context))
        transport.attach(connection)
        connection.on_ready()
        while connection.state in OWNED or connection.state in {State.BODY, State.DISCARDING, State.FLUSHING}:
            if connection.state in OWNED:
                connection.handle_one_request()
                connection.enter(connection.finish_turn())
            else:
                connection.on_ready()
        handler.close_connection = connection.state is not State.IDLE
        if transport.aborted:
            reset(handler)
        elif connection.state is State.LINGERING:
            linger(handler)


def strict_parse_request(owner: type, options: Options | None) -> Callable[[BaseHTTPRequestHandler], bool]:
    """Return a method `parse_request` that validates the head before http.server, which is lenient, parses it."""
    own: Callable[[BaseHTTPRequestHandler], bool] | None = vars(owner).get("parse_request")

    def parse_request(self: BaseHTTPRequestHandler) -> bool:
        context = context_of(self, None, options)
        self.close_connection = True
        partial = PartialHead(context.options)
        try:
            found = partial.feed(vars(self)["raw_requestline"])  # handle_one_request sets it
            while found is None:
                line = self.rfile.readline(MAX_LINE)
                if not line:
                    return False
                found = partial.feed(line)
            raw, _ = found
            head = parse_head(raw, context.options)
            served = isinstance(getattr(type(self), f"do_{head.method}", None), WSGIMethod)
            expects = not served and expects_continue(head)  # the application decides about the others
        except ClientError as error:
            refuse(self, context, bytes(partial.buffer), error)
            return False
        vars(self)["strict_head"] = raw + END
        inherited: Callable[[], bool] = (
            super(owner, self).parse_request if own is None else functools.partial(own, self)  # type: ignore[arg-type]  # a class
        )
        if getattr(inherited, "__func__", None) is not BaseHTTPRequestHandler.parse_request:
            return parse_by(self, inherited, raw)
        set_parsed_head(self, head)
        return self.handle_expect_100() if expects else True

    vars(parse_request)["strict"] = True  # for classes that derive from this one
    return parse_request


def parse_by(handler: BaseHTTPRequestHandler, parse: Callable[[], bool], raw: bytes) -> bool:
    """Make a class's own parse_request parse a head that was read already."""
    line, _, fields = raw.lstrip(b"\r\n").partition(b"\r\n")
    vars(handler)["raw_requestline"] = line + b"\r\n"
    file, handler.rfile = handler.rfile, io.BytesIO(fields + END if fields else b"\r\n")
    try:
        return parse()
    finally:
        handler.rfile = file


def set_parsed_head(handler: BaseHTTPRequestHandler, head: RequestHead) -> None:
    """Set the attributes that http.server's parse_request sets."""
    handler.command, handler.path, handler.request_version = head.method, head.target, head.version
    handler.requestline = f"{head.method} {head.target} {head.version}"
    if handler.path.startswith("//"):  # as http.server does since CVE-2021-28861
        handler.path = "/" + handler.path.lstrip("/")
    handler.headers = handler.MessageClass()
    for name, value in head.field_lines():
        handler.headers[name] = value
    handler.close_connection = not (is_persistent(head) and handler.protocol_version >= "HTTP/1.1")


def refuse(handler: BaseHTTPRequestHandler, context: ServerContext, raw: bytes, error: ClientError) -> None:
    """Refuse a request with an invalid head, and end the connection."""
    head = RequestHead(raw, "", "", "", {})
    handler.requestline, handler.command, handler.request_version = head.line, "", ""
    transport = HandlerTransport(handler, b"", context)
    exchange = Exchange(context, transport, environ_of(handler, context), head, context.clock.now())
    try:
        exchange.refuse(error)
    except Disconnected as gone:
        exchange.abort(str(gone))
    exchange.write_log()
    linger(handler)


def context_of(
    handler: BaseHTTPRequestHandler, application: Application | None, options: Options | None
) -> ServerContext:
    """Return the context of one request. Its log is that of the class, its default options those of microwsgi's server."""
    own = getattr(handler.server, "context", None)
    errors = None
    if isinstance(own, ServerContext):
        options, errors = options or own.options, own.errors
    return ServerContext(
        application, options, lambda exchange, _: handler.log_request(exchange.status or "-", exchange.size), errors
    )


def environ_of(handler: BaseHTTPRequestHandler, context: ServerContext) -> Environ:
    """Return the part of the environ that the requests of a connection share."""
    address, errors = handler.connection.getsockname(), context.error_stream()
    base = base_environ(address, errors, multithread=multithreaded(handler.server))
    if hasattr(handler.connection, "do_handshake"):
        base |= {"wsgi.url_scheme": "https", "HTTPS": "on"}
    return base


def reset(handler: BaseHTTPRequestHandler) -> None:
    """End a connection by a reset, so that the client does not take the partial response for a whole one."""
    if isinstance(getattr(handler.server, "context", None), ServerContext):
        raise Disconnected("The response was aborted.")  # HandlerConnection closes the socket
    # http.server would shut down our side first, and the handler's files keep the socket open: so it is closed here.
    socket.close(handler.connection.detach())


def linger(handler: BaseHTTPRequestHandler) -> None:
    """Discard for a while the bytes that still arrive: closing at once would destroy the response (RFC 9112 9.6)."""
    end = monotonic() + LINGER
    try:
        handler.connection.shutdown(socket.SHUT_WR)
        while (left := end - monotonic()) > 0:
            handler.connection.settimeout(left)
            if not handler.connection.recv(RECEIVE):
                return
    except OSError:
        pass


__all__ = ["HandlerConnection", "HandlerFactory", "HandlerTransport", "WSGIMethod", "wsgi"]
