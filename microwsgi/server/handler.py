"""One client's connection: request after request over one transport, as a state machine.

The state defines the event that the connection waits for; the method in `table` handles it, and returns the next state.
A request passes through WSGIRequestHandler in this order; each of the three calls returns before the next begins:

    on_ready              the head has arrived, then the body or a part of it    by the leader
      handle_head             parse the head: the state becomes QUEUED
    handle_one_request    call the application, and iterate its result           by a thread of the pool
    finish_turn           send the response, write the log; then IDLE again      by the same thread, or by the leader

`microwsgi.server.exchange` has the rules of PEP 3333, `microwsgi.server.loop` calls these methods, and
`microwsgi.server.pool` decides which thread runs them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler

from microwsgi.errors import ClientError, Disconnected, RequestTimeout
from microwsgi.options import Options
from microwsgi.server.context import Application, ServerContext, escape_controls, multithreaded
from microwsgi.server.environ import Environ, base_environ
from microwsgi.server.exchange import CALL, DONE, Exchange, Phase
from microwsgi.server.hosts import check_host
from microwsgi.server.request_body import BUFFER_SIZE, CLIENT_LEFT, INCOMPLETE, RequestBody
from microwsgi.server.state import FLUSHING, IDLE, OWNED, QUEUED, READ, RUNNING, WRITE, Row, State, Table
from microwsgi.server.transport import RECEIVE, Transport
from microwsgi.support.typenames import UNSET
from microwsgi.wire.proxy_protocol import BEGINNING, SIGNATURE
from microwsgi.wire.request import (
    CHUNKED,
    END,
    PartialHead,
    RequestHead,
    body_length,
    expects_continue,
    is_persistent,
    parse_head,
)
from microwsgi.wire.response import SERVER

LINGER = 2.0
"""Seconds for which the bytes that arrive after the last response are discarded. If the socket were closed at once, the kernel
would answer these with a reset, and the client might never see the response (RFC 9112 9.6)."""
TLS_RECORD = b"\x16\x03"
"""The first bytes that a TLS client sends: a handshake record (RFC 8446 5.1)."""
PROXY_PROTOCOL = (
    "The connection begins with a PROXY protocol header, and this server does not expect one from this address: serve with "
    "--proxy-protocol and --forwarded-allow-ips."
)
SPEAKS_TLS = "sent a TLS handshake to a plain HTTP port: use http://, or serve with --tls."


class WSGIRequestHandler(BaseHTTPRequestHandler):
    """A connection whose requests a WSGI application answers (PEP 3333).

    Pass the class to `microwsgi.WSGIServer`, or `WSGIRequestHandler.of(application)` to http.server's own servers.
    """

    # There may be thousands of idle connections, so slots save memory, and the state of a request is in its exchange.
    __slots__ = (
        "base",  # the part of the environ that all requests share
        "context",
        "exchange",  # the current request; UNSET (None) between two requests
        "partial",  # a head that has arrived in part
        "requests",  # the number of requests that were passed to the application
        "state",
        "transport",
        "waits_for_client",  # the application reads a body from the client, and has a client-wait permit for that
    )

    protocol_version = "HTTP/1.1"
    server_version, sys_version = SERVER, ""
    replacement = None
    hooked: Callable[[type[WSGIRequestHandler]], type[WSGIRequestHandler]] | None = None
    """`hooks.hooked_class`; `microwsgi.serving.embedding` sets it, since this module can't import hooks, which imports it."""
    manages_permit = True
    """The class itself acquires (`handle_body`) and releases (`end_body`) the client-wait permit."""
    context: ServerContext
    shared: ServerContext  # of the classes that `of` makes
    exchange: Exchange  # UNSET between two requests: in the states IDLE and HEAD, and at the end of the connection
    partial: PartialHead  # UNSET except in the state HEAD

    # --- http.server's interface --------------------------------------------------------------------------------------

    @classmethod
    def of(cls, application: Application, options: Options | None = None) -> type[WSGIRequestHandler]:
        """Return a handler class for http.server's servers: `ThreadingHTTPServer(("", 8000), WSGIRequestHandler.of(app))`."""
        made = type(cls.__name__, (cls,), {"shared": ServerContext(application, options)})
        return made if cls.hooked is None else cls.hooked(made)

    @classmethod
    def new_connection(cls, context: ServerContext, transport: Transport, base: Environ) -> WSGIRequestHandler:
        """Return the handler of a connection that a loop drives."""
        self = cls.__new__(cls)
        self.open(transport, context, base)
        return self

    def open(self, transport: Transport, context: ServerContext, base: Environ) -> None:
        """Begin to wait for the first request."""
        self.transport = transport
        self.context = context
        self.base = base
        self.exchange = UNSET
        self.partial = UNSET
        self.requests = 0
        self.waits_for_client = False
        self.state = State.IDLE
        transport.expect(READ, context.options.keep_alive_timeout)

    def setup(self) -> None:
        """Begin a connection of one of http.server's servers, which calls this, `handle` and `finish`."""
        own: ServerContext | None = getattr(self.server, "context", None)
        context = own.without_loop() if own is not None else self.shared
        if isinstance(self.client_address, tuple):  # Nagle's algorithm and delayed ACKs would cost 40 ms
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        base = base_environ(self.request.getsockname(), context.error_stream(), multithread=multithreaded(self.server))
        tls = getattr(self.server, "tls", None)
        if tls is None:
            transport = Transport(self.request, self.client_address, context.options, context.clock)
        else:
            transport = tls.transport(self.request, self.client_address, context)
            base = tls.environ(base, transport)
        self.open(transport, context, base)

    def handle(self) -> None:
        """Serve this connection in this thread until it ends."""
        transport = self.transport
        while self.state not in {State.CLOSED, State.DETACHED}:
            if self.state in OWNED:
                self.handle_one_request()
                self.enter(self.finish_turn())
            elif transport.wait(transport.interest, transport.deadline - self.context.clock.now()):
                self.on_ready()
            else:
                self.on_timeout()

    def finish(self) -> None:
        """End this connection."""
        if self.state is not State.DETACHED:
            self.transport.close()

    @property
    def client_address(self) -> tuple[str, int]:  # http.server's is an attribute
        """The client's host and port; ("", 0) on a Unix socket."""
        given: tuple[str, int] | None = self.__dict__.get("client_address")
        if given is None:
            host, port = self.exchange.client if self.exchange is not None else self.transport.client
            given = host, int(port or 0)
        return given

    @client_address.setter
    def client_address(self, address: tuple[str, int]) -> None:
        self.__dict__["client_address"] = address

    @property
    def command(self) -> str:  # type: ignore[override]  # an attribute in http.server
        """The method of the request."""
        return self.exchange.head.method if self.exchange else ""

    @property
    def path(self) -> str:  # type: ignore[override]  # an attribute in http.server
        """The target of the request."""
        return self.exchange.head.target if self.exchange else ""

    @property
    def request_version(self) -> str:  # type: ignore[override]  # an attribute in http.server
        """The version of the request."""
        return self.exchange.head.version if self.exchange else ""

    @property
    def requestline(self) -> str:  # type: ignore[override]  # an attribute in http.server
        """The request line as received, with control characters escaped."""
        return self.exchange.head.line if self.exchange else ""

    @property
    def headers(self) -> HTTPMessage:  # type: ignore[override]  # an attribute in http.server
        """The fields in order."""
        message = HTTPMessage()
        for name, value in self.exchange.head.field_lines() if self.exchange else ():
            message[name] = value
        return message

    def address_string(self) -> str:
        """Return the client's address and port, or "unix"."""
        return self.exchange.address_string() if self.exchange is not None else self.transport.address_string()

    def version_string(self) -> str:
        """Return the value of the Server field. Only called if a subclass overrides it, `server_version` or `sys_version`."""
        return f"{self.server_version} {self.sys_version}".rstrip()

    def log_message(self, format: str, *args: object) -> None:  # http.server's name
        """Write a line to the server's error log."""
        text = escape_controls(format % args)
        self.write_error(f"{self.address_string()} - - [{self.log_date_time_string()}] {text}")

    def write_error(self, text: str) -> None:
        """Write a line to the server's error log."""
        self.context.log_error(text)

    def get_environ(self) -> Environ:
        """Return the environ of the request, as wsgiref's handler does. Only called if a subclass overrides it."""
        environ: Environ | None = self.__dict__.pop("kept_environ", None)
        return self.exchange.environ() if environ is None else environ

    def keep_environ(self, environ: Environ) -> None:
        """Make the next `get_environ` return this environ."""
        self.__dict__["kept_environ"] = environ

    # --- Events -------------------------------------------------------------------------------------------------------

    def on_ready(self) -> None:
        """Handle the event that the state waits for."""
        state = self.state
        try:
            if state is IDLE:  # the common case of `receive_request`
                data = self.transport.recv(RECEIVE)
                raw, end, rest = data.partition(END)
                state = self.handle_head(raw, rest) if end else self.start_request(data)
            else:
                state = self.table[state].on_event(self)
        except BlockingIOError:
            self.retry()
            return
        except ClientError as error:
            state = self.refuse(error)
        except OSError as error:
            state = self.abort(str(error))
        if state is QUEUED:
            self.state = state
        elif state is not self.state:
            self.enter(state)
        else:
            self.retry()

    def retry(self) -> None:
        """Wait for the next event in the same state: with TLS, reading may wait for WRITE, and writing for READ."""
        transport = self.transport
        if transport.interest:
            transport.expect_event(transport.interest_of(self.table[self.state].interest))

    def on_timeout(self) -> None:
        """Handle the deadline of the state."""
        row = self.table[self.state]
        self.enter(row.on_deadline(self) if row.on_deadline is not None else State.CLOSED)

    def on_drain(self) -> None:
        """End the connection if its state allows that: the server is stopping."""
        drain = self.table[self.state].on_drain
        if drain is not None:
            self.enter(drain(self))

    def enter(self, state: State) -> None:
        """Set the state, the event that it waits for, and its deadline."""
        if state is IDLE:
            self.transport.expect(READ, self.context.options.keep_alive_timeout)
            self.state = state  # last: from then on the leader may use this connection
            return
        if state is State.SUSPENDED and self.exchange.resumed:  # see Exchange.resume
            state = State.QUEUED
        if state is State.SUSPENDED:
            self.transport.expect(self.suspended_interest(), self.time_limit(state))
        elif state not in OWNED:
            self.transport.expect(self.table[state].interest, self.time_limit(state))
        self.state = state

    def suspended_interest(self) -> int:
        """Return the event to wait for while the response is suspended; 0 if no more bytes may be received yet."""
        transport, body = self.transport, self.exchange.body
        if body is not None:
            if not body.done:
                return 0  # the application receives the rest of the body itself
            transport.unread(body.take_unused_data())
        return READ if len(transport.read_ahead) < RECEIVE else 0  # enough was received for the next request

    def time_limit(self, state: State) -> float:
        """Return the seconds that a state may last."""
        options = self.context.options
        if state is State.SUSPENDED:
            return self.exchange.resume_in
        if state is State.HEAD:
            return options.header_timeout
        if state is State.FLUSHING:
            return self.transport.flush_time_left()
        if state is State.BODY:  # keep the old deadline: a new one for each piece would never cut off a slow client
            return max(self.transport.deadline - self.context.clock.now(), 0.0)
        if state is State.DISCARDING:
            return options.body_timeout
        return LINGER

    # --- Receiving ----------------------------------------------------------------------------------------------------

    def receive_request(self) -> State:
        """Receive the first bytes of a request, usually all of it."""
        return self.start_request(self.transport.recv(RECEIVE))

    def start_request(self, data: bytes) -> State:
        """Handle the first bytes of a request; b"" is the end of the stream. Raises ClientError."""
        if not data:
            return State.CLOSED
        raw, end, rest = data.partition(END)
        if end:
            return self.handle_head(raw, rest)
        self.partial = PartialHead(self.context.options)
        return self.feed_head(data)

    def receive_head(self) -> State:
        """Receive more of a head."""
        data = self.transport.recv(RECEIVE)
        return self.feed_head(data) if data else State.CLOSED

    def feed_head(self, data: bytes) -> State:
        """Add bytes to a head that is not complete. Raises ClientError."""
        partial = self.partial
        try:
            found = partial.feed(data)
        except ClientError:
            self.begin_exchange(RequestHead(bytes(partial.buffer), "", "", "", {}))
            raise
        if found is None:
            return State.HEAD
        self.partial = UNSET
        return self.handle_head(*found)

    def handle_head(self, raw: bytes, rest: bytes) -> State:
        """Parse a complete head, and return the state that follows from its body. Raises ClientError."""
        context, options = self.context, self.context.options
        if rest:
            self.transport.unread(rest)
        try:
            head = parse_head(raw, options)
        except ClientError:
            self.begin_exchange(RequestHead(raw, "", "", "", {}))
            raise
        fields = head.fields
        exchange = self.exchange = Exchange(context, self.transport, self.base, head, context.clock.now())
        if context.proxies is not None:
            exchange.apply_forwarded(context.proxies)
            head, fields = exchange.head, exchange.head.fields
        # Against DNS rebinding. A browser can't connect to a Unix socket: there the check is made with --allow-host only.
        hosts = context.hosts
        if (
            hosts is not None
            and "HTTP_HOST" in fields
            and fields["HTTP_HOST"] not in hosts.allowed
            and (self.transport.client[0] or options.allow_host)
        ):
            check_host(hosts, fields["HTTP_HOST"])
        if context.sign_in is not None:
            context.sign_in(exchange)
        if ("HTTP_CONNECTION" in fields or head.version == "HTTP/1.0") and not is_persistent(head):
            exchange.end_connection()
        if "CONTENT_LENGTH" in fields or "HTTP_TRANSFER_ENCODING" in fields or "HTTP_EXPECT" in fields:
            return self.handle_body(exchange)
        return QUEUED

    def begin_exchange(self, head: RequestHead) -> None:
        """Create the exchange of a request that will be refused."""
        self.partial = UNSET
        self.exchange = Exchange(self.context, self.transport, self.base, head, self.context.clock.now())

    def handle_body(self, exchange: Exchange) -> State:
        """Choose: the server receives the body in advance, or the application reads it. Raises ClientError, Disconnected.

        If the client expects 100 Continue, its body has a length, and a client-wait permit is free, the application runs first,
        and may refuse the body with 401 or 413. Without a permit the body is received in advance: slow clients must not occupy
        all threads.
        """
        head, context = exchange.head, self.context
        options = context.options
        expects = expects_continue(head)
        length = body_length(head, options.max_body_size)
        if not length:
            return QUEUED
        body = RequestBody(self.transport, length, options, context.bodies, expects=expects)
        exchange.set_body(body)
        body.feed(self.transport.take_read_ahead())
        if body.done:
            self.transport.unread(body.take_unused_data())
            return QUEUED
        streamed = context.stream_chunked if length == CHUNKED else expects or length > options.body_buffer_size
        if streamed and context.permits.acquire():
            self.waits_for_client = True
            self.transport.set_wait_budget(options.body_timeout)
            return QUEUED
        self.transport.expect(READ, options.body_timeout)
        body.tell_to_continue()
        return self.continue_body(body)

    def receive_body(self) -> State:
        """Receive more of a body before the application is called. Raises ClientError."""
        body = self.exchange.body
        if body.file is not None:
            return self.queue_body(body)
        try:
            data = self.transport.recv(BUFFER_SIZE)
        except BlockingIOError:
            raise
        except OSError as error:
            raise Disconnected(CLIENT_LEFT) from error
        if not data:
            raise ClientError(INCOMPLETE)
        body.feed(data)
        self.transport.extend(len(data), self.context.options.min_body_rate, self.context.options.body_timeout)
        return self.continue_body(body)

    def continue_body(self, body: RequestBody) -> State:
        """Return QUEUED for a complete body; otherwise decide whether the rest is received into memory or into a file."""
        if body.done:
            self.transport.unread(body.take_unused_data())
            return QUEUED
        return State.BODY if body.keep_in_memory(self.context.options.body_buffer_size) else self.queue_body(body)

    def queue_body(self, body: RequestBody) -> State:
        """Make a thread of the pool receive into a file. The time in the queue does not count against the client."""
        body.keep_time(self.transport.deadline - self.context.clock.now())
        self.exchange.enter_phase(Phase.RECEIVE)
        return QUEUED

    def receive_into_file(self, exchange: Exchange) -> None:
        """Receive the part of a body that has arrived into a file (by the pool). Raises ClientError, Disconnected."""
        body = exchange.body
        count = body.receive_into_file()
        options = self.context.options
        self.transport.expect(READ, min(body.time_left + count / options.min_body_rate, options.body_timeout))
        if body.done:
            self.transport.unread(body.take_unused_data())
            exchange.enter_phase(CALL)

    # --- The application ----------------------------------------------------------------------------------------------

    def handle_one_request(self) -> None:
        """Call the application, or continue to iterate its result."""
        self.state = RUNNING
        exchange = self.exchange
        try:
            if exchange.phase is CALL:
                self.requests += 1
                iterable = self.context.application(exchange.environ(), exchange.start_response)
                if iterable.__class__ is list and not exchange.head_sent:
                    exchange.send_whole(iterable)  # the whole body is known; a list has no `close`
                    return
                exchange.begin(iterable)
            elif exchange.phase is Phase.RECEIVE:
                self.receive_into_file(exchange)
                return
            elif not exchange.may_iterate():
                return
            for chunk in exchange.iterator:
                if not exchange.write(chunk):
                    return
            exchange.end()
        except BaseException as error:  # SystemExit in a view must not end a thread of the server
            exchange.fail(error)

    # --- After the application ----------------------------------------------------------------------------------------

    def received(self) -> bytes:
        """Return the received bytes of the next request, for the process that takes over the connection."""
        return bytes(self.partial.buffer) if self.partial is not None else self.transport.read_ahead

    def start_with(self, received: bytes) -> None:
        """Begin with the bytes that the previous process of this connection has received."""
        self.transport.unread(received)
        self.enter(self.next_request())

    def finish_turn(self) -> State:
        """Send the response and write the log after `handle_one_request`; return the next state."""
        exchange = self.exchange
        if exchange.response_bytes is not None:
            exchange.send_response()
        phase = exchange.phase
        if exchange.aborted:
            if phase is not DONE:
                return QUEUED  # `close` is application code
            exchange.write_log()
            self.end_body(exchange)
            self.exchange = UNSET
            return State.CLOSED
        if self.transport.out_buffer is not None:
            return FLUSHING
        if phase is not DONE:
            if phase is Phase.RECEIVE:
                return State.BODY
            return State.SUSPENDED if exchange.suspended and phase is Phase.ITERATE else QUEUED
        # The response was sent: write the log, and wait for the next request, or end the connection.
        exchange.write_log()
        if exchange.close_connection or exchange.body is not None:
            return self.finish_body(exchange)
        self.exchange = UNSET
        return self.next_request() if self.transport.read_ahead else IDLE

    def finish_body(self, exchange: Exchange) -> State:
        """Return the next state after a response whose request has a body, or that ends the connection."""
        body, transport = exchange.body, self.transport
        if body is not None and body.file is not None:
            exchange.enter_phase(Phase.CLOSE)  # closing the file may block: for a thread of the pool
            return QUEUED
        self.end_body(exchange)
        if exchange.detached:
            self.exchange = UNSET
            return State.DETACHED
        unread = body is not None and not body.done
        if body is not None and not unread:
            transport.unread(body.take_unused_data())
        if exchange.close_connection:
            self.exchange = UNSET
            # A client that sends more after a close gets a reset. Only a client that sent Connection: close sends nothing
            # more; with TLS even that client may still send its closure alert.
            if unread or exchange.reason or transport.read_ahead or transport.is_secure or is_persistent(exchange.head):
                return self.half_close()
            return State.CLOSED
        if unread:
            if not transport.pending():
                return State.DISCARDING
            try:
                # The poller reports no event for bytes that TLS has decrypted.
                return self.discard(transport.recv(RECEIVE))
            except (ClientError, OSError):
                self.exchange = UNSET
                return self.half_close()
        self.exchange = UNSET
        if transport.pending():  # the poller reports no event for these
            transport.unread(transport.recv(RECEIVE))
        return self.next_request() if transport.read_ahead else State.IDLE

    def end_body(self, exchange: Exchange) -> None:
        """Release the memory of a body that is no longer needed, and the permit to wait for the client."""
        if exchange.body is not None:
            exchange.body.release_memory()
        if self.waits_for_client:
            self.waits_for_client = False
            self.context.release_permit()

    def next_request(self) -> State:
        """Handle a pipelined request, or the part of it that has arrived (RFC 9112 9.3.2)."""
        try:
            return self.start_request(self.transport.take_read_ahead())
        except ClientError as error:
            return self.refuse(error)

    def receive_discarded(self) -> State:
        """Receive more of a body that the application did not read."""
        data = self.transport.recv(RECEIVE)
        return self.discard(data) if data else State.CLOSED

    def discard(self, data: bytes) -> State:
        """Discard bytes of a body. Raises ClientError."""
        body = self.exchange.body
        if not body.discard(data):
            self.exchange = UNSET
            return self.half_close()
        if not body.done:
            return State.DISCARDING
        self.transport.unread(body.take_unused_data())
        self.exchange = UNSET
        return self.next_request() if self.transport.read_ahead else State.IDLE

    def flush(self) -> State:
        """Send more of the output buffer, since the kernel can take more."""
        if self.transport.blocks_on_file():
            return State.QUEUED  # a disk may be slow, and the leader must not block
        self.transport.flush()
        if self.transport.out_buffer is None:
            self.context.date.current_lines()  # for the access log, since the head may be old
            return self.finish_turn()
        self.transport.expect(WRITE, self.time_limit(State.FLUSHING))
        return State.FLUSHING

    def watch_client(self) -> State:
        """Receive while the response is suspended: a pipelined request, or the end of the connection."""
        transport = self.transport
        try:
            data = transport.recv(RECEIVE)
        except (ConnectionError, TimeoutError):  # a reset, as when a tab of a browser is closed
            data = b""
        if not data:
            # An event stream ends when the client closes it; with a Content-Length, the client has closed too early.
            return self.abort("The client disconnected." if self.exchange.promises_more() else "")
        transport.unread(data)
        if len(transport.read_ahead) >= RECEIVE:
            transport.expect_event(0)
        return State.SUSPENDED

    def resume(self) -> State:
        """Continue a suspended response."""
        return State.QUEUED

    # --- The end ------------------------------------------------------------------------------------------------------

    def half_close(self) -> State:
        """Shut down our side, then discard the bytes that still arrive, since a reset would destroy the response."""
        try:
            self.transport.half_close()
        except BlockingIOError:
            return State.CLOSING
        except OSError:
            return State.CLOSED
        return State.LINGERING

    def linger(self) -> State:
        """Discard the bytes that arrive, until the client closes its side."""
        return State.LINGERING if self.transport.recv(RECEIVE) else State.CLOSED

    def refuse(self, error: ClientError) -> State:
        """Refuse an invalid request, and end the connection."""
        if self.state is State.DISCARDING:  # the response was sent, and these bytes belong to no request
            self.exchange = UNSET
            return self.half_close()
        self.send_refusal(error)
        return self.finish_turn()

    def send_refusal(self, error: ClientError) -> None:
        """Send the response for an invalid request."""
        exchange = self.exchange
        if exchange.head.raw.startswith(TLS_RECORD):
            self.context.log_client_error(self.address_string(), SPEAKS_TLS)
            exchange.ignore()
        # Version 2 of the PROXY protocol begins with CRLF CRLF, which was parsed as an empty head.
        elif exchange.head.raw.startswith(BEGINNING) or self.transport.read_ahead.startswith(SIGNATURE[len(END) :]):
            error = ClientError(PROXY_PROTOCOL)
        try:
            exchange.refuse(error)
        except Disconnected as gone:
            exchange.abort(str(gone))

    def abort(self, reason: str) -> State:
        """Abort the connection: the client has disconnected, or the server disconnects it."""
        if self.exchange is None:
            return State.CLOSED
        self.exchange.abort(reason)
        return self.finish_turn()

    def time_out_head(self) -> State:
        """Refuse the request: its head did not arrive in time."""
        seconds = self.context.options.header_timeout
        self.begin_exchange(RequestHead(bytes(self.partial.buffer), "", "", "", {}))
        return self.refuse(RequestTimeout(f"The headers were incomplete after {seconds:g} seconds (header_timeout)."))

    def time_out_body(self) -> State:
        """Refuse the request: its body did not arrive in time."""
        return self.refuse(RequestTimeout("The body arrived more slowly than body_timeout and min_body_rate allow."))

    def time_out_response(self) -> State:
        """Abort the response: the client did not receive it in time."""
        return self.abort("The client read more slowly than send_timeout and min_send_rate allow.")

    def end_suspended(self) -> State:
        """End a suspended response, since the server is stopping. The loop logs the number of these responses."""
        return self.abort("")

    def close(self) -> State:
        """Close the connection."""
        return State.CLOSED

    table: Table = {  # typing.ClassVar would cost its import
        State.IDLE: Row(READ, receive_request, close, close, eviction_rank=2, handoff=True),
        State.HEAD: Row(READ, receive_head, time_out_head, close, eviction_rank=2, handoff=True),
        State.BODY: Row(READ, receive_body, time_out_body),
        State.SUSPENDED: Row(READ, watch_client, resume, end_suspended),
        State.FLUSHING: Row(WRITE, flush, time_out_response),
        State.DISCARDING: Row(READ, receive_discarded, close),
        State.CLOSING: Row(WRITE, half_close, close),
        State.LINGERING: Row(READ, linger, close),
        State.DETACHED: Row(0),
        State.CLOSED: Row(0),
    }
