"""Calls of the methods of http.server, socketserver and wsgiref that a subclass overrides.

`check_hooks` is called once, when a server is activated. For an overridden method that this server would not call, it
raises a TypeError that names an alternative. Without overridden methods no code of this module runs for a request.

    hooked_class          a handler class whose own log_request, get_environ, ... are called
      HookedContext         the context of one such connection: calls the overridden methods
    UnverifiedConnection  a new connection, until the server's own verify_request has returned
    AcceptThread          accepts by the server's own get_request

An overridden method may block: none is called while a thread holds the leader lock (`microwsgi.server.pool`). Where the
leader would handle another connection itself, a connection with such methods becomes QUEUED.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer, ThreadingMixIn

from microwsgi.errors import ClientError
from microwsgi.server.connections import Connection
from microwsgi.server.context import ServerContext
from microwsgi.server.environ import Environ
from microwsgi.server.exchange import DONE, Exchange
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.log_writer import WARNING
from microwsgi.server.loop import Loop
from microwsgi.server.poller import Wakeup
from microwsgi.server.state import QUEUED, READ, RUNNING, Row, State, Table
from microwsgi.server.transport import Transport

LOG_METHODS = ("log_request", "log_message", "log_error", "address_string", "log_date_time_string")
DATE_METHODS = ("version_string", "date_time_string", "server_version", "sys_version")
ONE_CONNECTION = (
    "a connection has no thread of its own between two requests. Override get_environ of the handler class, or verify_request "
    "of the server; or serve its own of(application) with http.server's ThreadingHTTPServer"
)
RESPONSE = "the application answers by start_response (PEP 3333). Wrap the application to change responses"
REFUSED_HANDLER_METHODS = {
    "setup": ONE_CONNECTION,
    "handle": ONE_CONNECTION,
    "finish": ONE_CONNECTION,
    "parse_request": "microwsgi.wire parses the head. Override get_environ to change the environ of the application",
    "handle_expect_100": "100 Continue is sent when the application reads the body, or before. To refuse it, respond with 413",
    "send_error": f"{RESPONSE}; error_page of WSGIServer makes the page for an exception",
    "send_response": RESPONSE,
    "send_response_only": RESPONSE,
    "send_header": RESPONSE,
    "end_headers": RESPONSE,
    "flush_headers": RESPONSE,
    "error_message_format": "error_page of WSGIServer makes the page for an exception",
    "error_content_type": "error_page of WSGIServer makes the page for an exception",
    "protocol_version": "responses are HTTP/1.1 (RFC 9110 2.5). Options(keep_alive_timeout=...) limits persistent connections",
    "timeout": "Options has the time limits: keep_alive_timeout, header_timeout, body_timeout, send_timeout",
    "rbufsize": "the server reads from the socket itself",
    "wbufsize": "the response is not buffered: a list is sent at once, an iterator chunk by chunk",
    "disable_nagle_algorithm": "TCP_NODELAY is always set",
    "get_stderr": "WSGIServer(errors=...) is the stream of wsgi.errors",
}
"""Methods and attributes of a WSGIRequestHandler that are not called, and what to do instead."""
ONE_REQUEST = (
    "requests of all connections share Options(threads=N) threads. Override verify_request to choose connections, or "
    "get_environ of the handler class to do something before each request"
)
ONE_CLOSE = "the loop closes connections. To do something after each request, override log_request of the handler class"
REFUSED_SERVER_METHODS = {
    "process_request": ONE_REQUEST,
    "finish_request": ONE_REQUEST,
    "shutdown_request": ONE_CLOSE,
    "close_request": ONE_CLOSE,
}
"""Methods of a WSGIServer that are not called."""


class Hooks:
    """Which methods a handler class, and its server, override."""

    def __init__(self, handler: type[WSGIRequestHandler], *, handle_error: bool = False) -> None:
        self.log = any(overrides(handler, WSGIRequestHandler, name) for name in LOG_METHODS)
        self.date = any(overrides(handler, WSGIRequestHandler, name) for name in DATE_METHODS)
        self.environ = overrides(handler, WSGIRequestHandler, "get_environ")
        self.handle_error = handle_error

    def __bool__(self) -> bool:
        return self.log or self.date or self.environ or self.handle_error


def overrides(given: type, base: type, name: str) -> bool:
    """Return whether a class has a method or value of this name that differs from that of its base."""
    return getattr(given, name, None) is not getattr(base, name, None)


def check_hooks(server: object, base: type, handler: object) -> None:
    """Raise TypeError for an overridden method that would not be called."""
    for name, instead in REFUSED_SERVER_METHODS.items():
        if name == "process_request" and not overrides(type(server), ThreadingMixIn, name):
            continue  # the mixin is pointless, but harmless: requests run in threads anyway
        if name in vars(server) or overrides(type(server), base, name):
            raise refusal(type(server), name, instead)
    if isinstance(handler, type) and issubclass(handler, WSGIRequestHandler):
        for name, instead in REFUSED_HANDLER_METHODS.items():
            if overrides(handler, WSGIRequestHandler, name):
                raise refusal(handler, name, instead)
        for name in dir(handler):
            if name.startswith("do_"):
                raise refusal(
                    handler,
                    name,
                    "the application answers each method. Derive a class with do_GET from http.server's BaseHTTPRequestHandler",
                )


def refusal(owner: type, name: str, instead: str) -> TypeError:
    """Return the exception for a method that would not be called."""
    return TypeError(f"{owner.__qualname__}.{name} would never be called: {instead}.")


def hooked_class(
    given: type[WSGIRequestHandler], hooks: Hooks | None = None, **attributes: object
) -> type[WSGIRequestHandler]:
    """Return a handler class that calls the methods that this one overrides; the same class if it overrides none."""
    hooks = hooks or Hooks(given)
    if not hooks:
        return given
    return type(given.__name__, (HookedMethods, given), {"hooks": hooks, **attributes})


class HookedMethods(WSGIRequestHandler):
    """Mixed into a handler class with overridden methods, so that these run in the thread that ran the request."""

    hooks: Hooks
    refused: ClientError | None
    server_context: ServerContext

    def open(self, transport: Transport, context: ServerContext, base: Environ) -> None:
        """Begin to wait for the first request."""
        self.refused = None
        self.server_context = context
        super().open(transport, HookedContext(context, self), base)  # type: ignore[arg-type]  # see `__getattr__`

    def write_error(self, text: str) -> None:
        """Write a line to the server's error log, bypassing the class's own log_error."""
        self.server_context.log_error(text)

    def handle_one_request(self) -> None:
        """Run the request, send the response, and call the methods for the log."""
        exchange = self.exchange
        refused, self.refused = self.refused, None
        if refused is not None:
            self.enter(RUNNING)
            self.send_refusal(refused)
        elif exchange.phase is not DONE or self.transport.out_buffer is not None:
            super().handle_one_request()
        else:
            self.enter(RUNNING)
        if exchange.response_bytes is not None:
            exchange.send_response()
        if self.is_over(exchange):
            exchange.write_log()

    def is_over(self, exchange: Exchange) -> bool:
        """Return whether the response was sent, or was aborted."""
        return exchange.phase is DONE and (exchange.aborted or self.transport.out_buffer is None)

    def finish_turn(self) -> State:
        """Return the next state: QUEUED if the log is still to be written, since a thread of the pool has to do that."""
        exchange = self.exchange
        if exchange is not None and exchange.started and exchange.response_bytes is None and self.is_over(exchange):
            return QUEUED
        return super().finish_turn()

    def refuse(self, error: ClientError) -> State:
        """Make a thread of the pool answer an invalid request."""
        if self.state is State.DISCARDING:
            return super().refuse(error)
        self.refused = error
        return QUEUED


class HookedContext:
    """The context of one connection: a ServerContext, except for the methods that the handler class or its server overrides."""

    def __init__(self, context: ServerContext, handler: HookedMethods) -> None:
        self.context = context
        self.handler = handler
        if handler.hooks.date:
            self.date = HookedDateFields(context, handler)
        if handler.hooks.environ:
            self.application = self.call_with_environ
        if handler.hooks.log:
            self.access_log = self.log_request

    def __getattr__(self, name: str) -> object:
        """Return an attribute of the server's context."""
        return getattr(self.context, name)

    def call_with_environ(self, environ: Environ, start_response: object) -> object:
        """Call the application with the environ that `get_environ` of the class returns."""
        self.handler.keep_environ(environ)
        return self.context.application(self.handler.get_environ(), start_response)

    def log_request(self, exchange: Exchange, seconds: float) -> None:  # http.server's log_request takes no duration
        """Call the class's log_request."""
        try:
            self.handler.log_request(exchange.status or "-", exchange.size)
        except Exception as error:  # an overridden method may raise anything, and the response was sent
            self.context.log_exception("log_request failed:", error)

    def log_error(self, text: str, level: int = WARNING) -> None:
        """Call the class's log_error, if it has one."""
        if not self.handler.hooks.log:
            self.context.log_error(text, level)
            return
        try:
            self.handler.log_error("%s", text)
        except Exception as error:  # an overridden method may raise anything, and the response was sent
            self.context.log_exception("log_error failed:", error)

    def log_exception(self, title: str, error: BaseException) -> None:
        """Call the server's handle_error, within the `except` that caught the exception."""
        if self.handler.hooks.handle_error:
            call_handle_error(self.context, self.handler.server, self.handler.transport, self.handler.client_address)
        else:
            self.context.log_exception(title, error)


def call_handle_error(context: ServerContext, server: BaseServer, transport: Transport, address: object) -> None:
    """Call the server's own handle_error, within the `except`, so that sys.exc_info() returns the exception."""
    try:
        server.handle_error(transport.socket, address)
    except Exception as second:  # an overridden method may raise anything
        context.log_exception("handle_error failed:", second)


class HookedDateFields:
    """The Date and Server fields of a class that makes them itself, for each response."""

    def __init__(self, context: ServerContext, handler: BaseHTTPRequestHandler) -> None:
        self.context = context
        self.handler = handler

    @property
    def until(self) -> float:
        """The end of the second for which the Date field of the server is valid."""
        return self.context.date.until

    @property
    def since(self) -> float:
        """The start of that second."""
        return self.context.date.since

    @property
    def lines(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Field lines to add, indexed by `ResponseHead.given`: the application gave neither, only Date, only Server, both."""
        date = f"Date: {self.handler.date_time_string()}\r\n".encode("latin-1")
        server = f"Server: {self.handler.version_string()}\r\n".encode("latin-1")
        return date + server, server, date, b""

    def current_lines(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Return the lines."""
        self.context.date.current_lines()
        return self.lines


class UnverifiedConnection:
    """A new connection that waits for a thread, which calls the server's own verify_request: that method may block."""

    __slots__ = ("base", "context", "new_connection", "replacement", "server", "state", "transport")

    exchange = None
    requests = 0
    waits_for_client = False
    manages_permit = False

    def __init__(
        self,
        transport: Transport,
        base: Environ,
        new_connection: Callable[[Transport, Environ], Connection],
        context: ServerContext,
        server: BaseServer,
    ) -> None:
        self.transport = transport
        self.base = base
        self.new_connection = new_connection
        self.context = context
        self.server = server
        self.replacement: Connection | None = None
        self.state = QUEUED

    def address_string(self) -> str:
        """Return the client's address and port, or "unix"."""
        return self.transport.address_string()

    def handle_one_request(self) -> None:
        """Call verify_request."""
        self.state = RUNNING
        transport = self.transport
        host, port = transport.client
        address = (host, int(port)) if host else ""
        transport.socket.settimeout(self.context.options.header_timeout)  # verify_request may receive the first bytes
        try:
            if self.server.verify_request(transport.socket, address):
                transport.socket.setblocking(False)
                self.replacement = self.new_connection(transport, self.base)
        except Exception as error:  # an overridden method may raise anything
            self.context.log_exception(f"{self.address_string()}: verify_request failed:", error)

    def finish_turn(self) -> State:
        """Return REPLACED if the connection was accepted, CLOSED otherwise."""
        return State.REPLACED if self.replacement is not None else State.CLOSED

    def enter(self, state: State) -> None:
        """Set the state."""
        self.state = state

    def abort(self, reason: str) -> State:  # there is no request and no response
        """Close the connection."""
        return State.CLOSED

    def received(self) -> bytes:
        """Return the bytes that were received: none."""
        return b""

    def start_with(self, received: bytes) -> None:
        """Do nothing: no bytes were received."""

    def on_ready(self) -> None:
        """Do nothing: the states wait for no event."""

    def on_timeout(self) -> None:
        """Do nothing: the states have no time limit."""

    def on_drain(self) -> None:
        """Do nothing: the connection that replaces this one after verify_request drains."""

    table: Table = {State.CLOSED: Row(0), State.REPLACED: Row(0)}  # typing.ClassVar would cost its import


class AcceptThread(threading.Thread):
    """Accept connections by the server's own get_request, which may block, for instance for a handshake.

    The leader calls `admit` with each connection, its address and the environ of its listener. The next connection is
    accepted only when `admit` has returned: so a flood waits in the kernel's queue.
    """

    def __init__(
        self,
        get_request: Callable[[], tuple[socket.socket, object]],
        select_listener: Callable[[socket.socket], object],
        loop: Loop,
        listeners: list[tuple[socket.socket, Environ]],
        admit: Callable[[socket.socket, object, Environ], object],
    ) -> None:
        super().__init__(name="microwsgi-accept", daemon=True)
        self.get_request = get_request
        self.select_listener = select_listener
        self.loop = loop
        self.listeners = listeners
        self.admit = admit
        self.stopping = False
        self.wakeup = Wakeup()
        self.admitted = threading.Semaphore(0)

    def run(self) -> None:
        """Accept until `stop`."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.wakeup.descriptor, READ)
            for listener, base in self.listeners:
                selector.register(listener, READ, (listener, base))
            while not self.stopping:
                for key, _ in selector.select():
                    if key.data is not None:
                        self.accept(*key.data)
        self.wakeup.close()

    def accept(self, listener: socket.socket, base: Environ) -> None:
        """Call get_request, and pass the connection to the leader."""
        if len(self.listeners) > 1:
            self.select_listener(listener)  # get_request has no argument
        try:
            connection, address = self.get_request()
        except (BlockingIOError, ConnectionError):
            return
        except Exception as error:  # an overridden method may raise anything
            self.loop.context.log_exception("get_request failed:", error)
            return
        self.loop.call_soon(partial(self.admit_one, connection, address, base))
        while not self.admitted.acquire(timeout=1.0) and not self.stopping:
            pass

    def admit_one(self, connection: socket.socket, address: object, base: Environ) -> None:
        """Add a connection to the loop. Leader only."""
        try:
            self.admit(connection, address, base)
        finally:
            self.admitted.release()

    def stop(self) -> None:
        """Accept nothing more."""
        self.stopping = True
        self.wakeup.notify()


__all__ = ["AcceptThread", "Hooks", "UnverifiedConnection", "check_hooks", "hooked_class", "overrides"]
