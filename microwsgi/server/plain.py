"""Plain http.server handlers on our server, and WSGI in plain http.server handlers.

`microwsgi.server.server` serves a class with `do_GET` through `PlainConnection`; `wsgi` makes a `do_GET` of an application.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from microwsgi.server.connection import READ, Connection
from microwsgi.server.environ import base_environ
from microwsgi.server.gateway import Application, Gateway, multithreaded
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.wire.body import LengthDecoder


class Polled:
    """Mixed into a handler class, so that making one reads nothing: its requests are read one by one, when they come."""

    def handle(self) -> None:
        """Not before bytes have arrived."""

    def finish(self) -> None:
        """Not before the connection ends."""


class PlainConnection(Connection):
    """A connection of a handler class that reads its socket itself: it waits in the poller between requests.

    While it reads and runs one it has a thread, of those that may wait for clients.
    """

    handler: BaseHTTPRequestHandler | None = None
    handler_class: Callable[..., BaseHTTPRequestHandler]
    finish: Callable[[BaseHTTPRequestHandler], object]
    whole = False  # the class has its own `handle`, which nobody else can divide into requests

    @property
    def requestline(self) -> str:  # type: ignore[override]
        """The request line, as far as it is known."""
        return getattr(self.handler, "requestline", "")

    def read_head(self) -> None:
        """Bytes have come: the class reads them itself, and may have to wait for the rest."""
        self.ready = self.long_body = True

    def handle_one_request(self) -> None:
        """Let the class read and answer one request, or all if it wants to."""
        self.ready = False
        self.began = self.gateway.clock()
        self.connection.settimeout(self.gateway.options.idle_time)
        try:
            if self.handler is None:
                self.handler = self.handler_class(self.connection, self.client_address, self.gateway)
            if self.whole:
                self.close_connection = True
            else:
                self.handler.close_connection = True
                self.handler.handle_one_request()
                self.close_connection = self.handler.close_connection
        except Exception as error:  # noqa: BLE001 - the class is anybody's code
            self.close_connection = True
            if not isinstance(error, ConnectionError):
                self.gateway.log_exception("A handler failed:", error)

    def settle(self) -> None:
        """After a request: the next one is in the class's own buffer already, or may be waited for, or none comes."""
        self.began = 0.0
        if self.close_connection:
            self.end()
            return
        self.connection.setblocking(False)
        if self.handler is not None and self.handler.rfile.peek(1):  # type: ignore[attr-defined]  # socketserver's is buffered
            self.ready = True
        else:
            self.wait_in("read_head", READ, self.gateway.options.idle_time)

    def timed_out(self) -> None:
        """The client has sent nothing for too long."""
        self.end()

    def vanish(self, reason: str) -> None:  # noqa: ARG002 - the class has its own log
        """The client has left."""
        self.end()

    def end(self) -> None:
        """Let the class finish, as socketserver would, then close."""
        try:
            if self.handler is not None and not self.whole:
                self.finish(self.handler)
            self.connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.close()


def handler_class(given: Callable[..., BaseHTTPRequestHandler]) -> type[Connection]:
    """What the server makes of each connection, for the RequestHandlerClass that it was given: a class, or a partial of one."""
    base: type[BaseHTTPRequestHandler] = given.func if isinstance(given, functools.partial) else given  # type: ignore[assignment]
    if issubclass(base, Connection):
        return base
    if base.handle is not BaseHTTPRequestHandler.handle:
        attributes: dict[str, object] = {"whole": True, "handler_class": staticmethod(given)}
    else:
        polled: Callable[..., object] = type(base.__name__, (Polled, base), {})
        if isinstance(given, functools.partial):
            polled = functools.partial(polled, *given.args, **given.keywords)
        attributes = {"handler_class": staticmethod(polled), "finish": staticmethod(base.finish)}
    return type("PlainConnection", (PlainConnection,), attributes)


class FileConnection:
    """The files of an http.server handler with the methods of a socket; the head, which was read, comes first."""

    adapter: WSGIRequestHandler

    def __init__(self, handler: BaseHTTPRequestHandler, head: bytes) -> None:
        self.handler = handler
        self.head = head

    def recv(self, size: int) -> bytes:
        """Some bytes; of the body no more than belongs to it, so that the next request stays where it is."""
        data, self.head = self.head[:size], self.head[size:]
        if data:
            return data
        if isinstance(self.adapter.decoder, LengthDecoder):
            size = min(size, self.adapter.decoder.remaining)
        return self.handler.rfile.read1(size)

    def recv_into(self, view: memoryview) -> int:
        """As socket.recv_into."""
        data = self.recv(len(view))
        view[: len(data)] = data
        return len(data)

    def send(self, data: bytes) -> int:
        """All of it."""
        self.handler.wfile.write(data)
        return len(data)

    def shutdown(self, how: int) -> None:
        """The handler's server does this."""

    def close(self) -> None:
        """The handler's server does this."""


def wsgi(application: Application) -> Callable[[BaseHTTPRequestHandler], None]:
    """Make an application a method of a plain handler class.

    Use it as `do_GET = do_POST = wsgi(application)`.
    The request that the class has parsed is written down again and parsed strictly, so the application meets the same
    environ, and the client the same refusals, as on our own server.
    """

    def do_method(self: BaseHTTPRequestHandler) -> None:
        gateway = Gateway(application, access_log=lambda request, _: self.log_request(request.status, request.size))
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = f"{self.command} {self.path} {self.request_version}\r\n{fields}\r\n".encode("latin-1")
        base = base_environ(
            self.connection.getsockname(), gateway.error_stream(), multithread=multithreaded(self.server)
        )
        connection = FileConnection(self, head)
        handler = WSGIRequestHandler.__new__(WSGIRequestHandler)
        handler.open(connection, self.client_address, gateway, base)  # type: ignore[arg-type]  # it has what is called
        connection.adapter = handler
        handler.advance()
        while handler.ready or not (handler.closed or handler.step in {"read_head", "linger"}):
            if handler.ready:
                handler.handle_one_request()
                handler.settle()
            else:
                handler.advance()
        # Behind chunks more may have been received than was theirs: that can't be given back.
        self.close_connection = handler.close_connection or bool(handler.received)

    return do_method
