"""Request after request on one connection: what comes in becomes an environ, what the application returns goes out.

A request walks through `WSGIRequestHandler` in this order; each call returns before the next begins:

    advance                 what can be done without waiting             microwsgi.server.connection
      read_head, read_body    until the head, and a small body, are here    microwsgi.server.recipient
    handle_one_request      the application is called, and its iterable asked for chunk after chunk
      start_response, write   status, fields and framing leave first        microwsgi.server.sender
    settle                  the log; then the next request, which is here already or to be waited for
"""

from __future__ import annotations

import io
import os
import socket
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler

from microwsgi.errors import (
    Abandoned,
    ClientError,
    Disconnected,
    ExpectationFailed,
    RequestTimeout,
)
from microwsgi.server.connection import NEVER, READ, RECEIVE, WRITE
from microwsgi.server.environ import Environ, TakenSocket, base_environ, request_environ
from microwsgi.server.gateway import Application, Gateway, multithreaded
from microwsgi.server.hosts import is_here
from microwsgi.server.recipient import NO_FIELDS
from microwsgi.server.sender import Sender
from microwsgi.wire import head as wire
from microwsgi.wire.response import refusal, response_head

TLS_RECORD = b"\x16\x03"
"""What a client that speaks TLS sends first (RFC 8446 5.1)."""
SPEAKS_TLS = "speaks TLS, and this port does not: use http://, or serve with --tls."
FAILED = 500
"""The first status of those that say it is not the client's fault (RFC 9110 15.6)."""
FAILURE = "500 Internal Server Error\n\nThe application failed; the server's log says why{under}.\n"


class WSGIRequestHandler(Sender, BaseHTTPRequestHandler):  # type: ignore[misc]  # its client_address is a tuple
    """A connection whose requests are translated for a WSGI application (PEP 3333).

    Give it to `microwsgi.WSGIServer`, or `WSGIRequestHandler.of(application)` to http.server's own servers.
    """

    __slots__ = ("reason",)  # why the request was refused or broken off

    protocol_version = "HTTP/1.1"

    # --- http.server's interface --------------------------------------------------------------------------------------

    @classmethod
    def of(cls, application: Application) -> type[WSGIRequestHandler]:
        """A handler class for http.server's servers: `ThreadingHTTPServer(("", 8000), WSGIRequestHandler.of(app))`."""
        return type(cls.__name__, (cls,), {"gateway": Gateway(application)})

    def open(self, connection: socket.socket, address: object, gateway: Gateway, base: Environ) -> None:
        """Begin with a socket that does not block."""
        Sender.open(self, connection, address, gateway, base)
        self.reason = ""

    def setup(self) -> None:
        """Under http.server's servers: begin as `connected` does."""
        gateway = self.server.alone() if isinstance(self.server, Gateway) else self.gateway
        self.request.setblocking(False)
        if isinstance(self.client_address, tuple):  # five sends with Nagle's algorithm cost http.server 40 ms a request
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        address = self.request.getsockname()
        base = base_environ(address, gateway.error_stream(), multithread=multithreaded(self.server))
        if (tls := getattr(self.server, "tls", None)) is not None:
            base = tls.environ(base, self.request)
        self.open(self.request, self.client_address, gateway, base)

    def handle(self) -> None:
        """Under http.server's servers: serve this connection in this thread until it ends."""
        while not self.closed:
            if self.ready:
                self.handle_one_request()
                self.settle()
            elif self.wait_for(self.wants, self.deadline):
                self.advance()
            else:
                self.timed_out()

    def finish(self) -> None:
        """Under http.server's servers: the end of the connection."""
        self.close()

    @property
    def requestline(self) -> str:  # type: ignore[override]
        """The request line as it came, control characters escaped."""
        if self.command:
            return f"{self.command} {self.path} {self.request_version}"
        return ascii(self.raw_head[:200].partition(b"\r\n")[0].decode("latin-1"))[1:-1]

    @property
    def headers(self) -> HTTPMessage:  # type: ignore[override]
        """The fields in order, as http.server's handlers have them."""
        message = HTTPMessage()
        for name, value in wire.field_lines(self.raw_head):
            message[name] = value
        return message

    def address_string(self) -> str:
        """The client's address and port, or "unix"."""
        return ":".join(self.remote) if self.remote[0] else "unix"

    # --- The application --------------------------------------------------------------------------------------------

    def handle_one_request(self) -> None:
        """Call the application for the request that is ready, or go on with what it returned."""
        self.ready = False
        try:
            if self.chunks is None:
                iterable = self.gateway.application(self.environ(), self.start_response)  # type: ignore[misc]
                if iterable.__class__ is list and not self.head_sent:  # all is known, and there is nothing to close
                    self.send_list(iterable)
                    return
                self.begin_response(iterable)
            for chunk in self.chunks:  # type: ignore[union-attr]  # begin_response has set it
                if not self.write(chunk):
                    return
            self.end_response()
        except BaseException as error:  # noqa: BLE001 - SystemExit in a view must not end a thread of the server
            self.fail(error)

    def environ(self) -> Environ:
        """The environ of PEP 3333, with the keys beyond it that docs/environ.md describes."""
        environ = request_environ(self.base, self.fields, self.command, self.path, self.request_version)
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self.remote
        environ["wsgi.early_hints"] = self.send_early_hints
        environ["microwsgi.socket"] = self.connection
        if self.gateway.parks:
            environ["microwsgi.wake"] = self.wake
        if self.decoder is None:
            environ["wsgi.input"] = io.BytesIO()
        else:
            environ["wsgi.input"] = self.input()
            environ["wsgi.trailers"] = self.decoder.trailers
        if "HTTP_UPGRADE" in self.fields and self.request_version == "HTTP/1.1":  # RFC 9110 7.8: ignored in HTTP/1.0
            taken = TakenSocket(self.take_socket)
            environ["microwsgi.socket"] = environ["werkzeug.socket"] = environ["gunicorn.socket"] = taken
        return environ

    def wake(self, after: float = 0.0) -> None:
        """Ask the iterable on: now, or, called before it yields b"" for "nothing yet", within so many seconds.

        Between the two the response holds no thread. Without such a call b"" is a chunk like any other.
        """
        self.gateway.wake(self, after)

    def take_socket(self) -> tuple[socket.socket, bytes]:
        """Give the connection away: blocking, with what was read ahead; the server does not touch it again."""
        self.gateway.forget(self)
        self.closed = self.head_sent = True
        self.connection.setblocking(True)
        self.status = 101
        self.log()
        return self.connection, self.received

    # --- After a request --------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """See what the request left: bytes to send, an iterable to ask on, or a connection for the next request."""
        if self.closed or self.ready:
            return
        if self.answer is not None:
            self.send_answer()
            if self.closed:
                return
        if self.unsent is not None:
            self.wait_in("flush", WRITE, self.gateway.options.write_time)
        elif self.chunks is None:
            self.end_request()
        elif self.asleep:
            self.wait_in("watch_client", READ if len(self.received) < RECEIVE else 0, NEVER)
        else:
            self.ready = True

    def end_request(self) -> None:
        """The response has left: write the log, and go on to the next request, or to the end."""
        now = self.gateway.clock()
        if self.iterable is not None:
            self.close_sent()
        if self.began:
            if self.gateway.access_log is not None:
                self.gateway.access_log(self, now - self.began)
            if self.reason:
                self.log_reason()
            elif self.status >= FAILED:
                self.gateway.failures += 1
            self.began = 0.0
        if self.close_connection or self.decoder is not None:
            self.end_body()
            return
        # Let go of what each request sets: an idle connection is one of thousands.
        self.command = self.path = ""
        self.raw_head = b""
        self.fields = NO_FIELDS
        self.head = self.remaining = None
        self.head_sent = self.chunked = False
        self.size = 0
        self.step, self.wants = "read_head", READ
        self.deadline = now + self.gateway.options.idle_time
        if self.received:
            self.step = "take_next"
            self.advance()

    def end_body(self) -> None:
        """Something of the request's body may not have come, or no other request is to follow."""
        unread = self.decoder is not None and not self.decoder.done
        if self.close_connection:
            # What the client still sends would reset the connection; only who announced the end sends nothing more.
            # Under TLS that one may, too: its closure alert.
            secure = self.base["wsgi.url_scheme"] == "https"
            if unread or self.reason or self.received or secure or self.client_persists():
                self.shut()
            else:
                self.close()
        elif unread:
            self.size = 0
            self.wait_in("drain", READ, self.gateway.options.body_time)
        else:
            # The decoder is there, or this is not called.
            self.received = self.received or self.decoder.rest or self.decrypted()  # type: ignore[union-attr]
            self.decoder = None
            self.long_body = False
            self.body = b""
            self.end_request()

    def close_sent(self) -> None:
        """Close what could not be closed before all of it was sent."""
        try:
            self.close_iterable()
        except Exception as error:  # noqa: BLE001 - the application's code
            self.gateway.log_exception(f'{self.address_string()} "{self.requestline}" failed in close:', error)

    def watch_client(self) -> None:
        """Something has come from a client whose response has nothing to send yet: its next request, or its end."""
        try:
            data = self.connection.recv(RECEIVE)
        except (ConnectionError, TimeoutError):  # a reset, as from a browser's tab that is closed
            data = b""
        if not data:
            # Who closes an event stream ends what has no other end; a length that was promised is a response cut off.
            self.vanish("The client left." if self.remaining else "")
        self.received += data
        if len(self.received) >= RECEIVE:
            self.wants = 0

    def log(self) -> None:
        """Tell the log of a request that was not ended by a response; once."""
        if self.began and self.gateway.access_log is not None:
            self.gateway.access_log(self, self.gateway.clock() - self.began)
        self.began = 0.0

    def log_reason(self) -> None:
        """Say why a request was refused or broken off."""
        self.gateway.log_error(f'{self.address_string()} "{self.requestline}" {self.status or "-"}: {self.reason}')

    # --- What goes wrong --------------------------------------------------------------------------------------------

    def refuse(self, error: ClientError) -> None:
        """Answer a request that breaks a rule, and end the connection: what follows may be anything (RFC 9112 6.3)."""
        if self.step == "drain":  # the response is out, and whatever comes is part of no request
            self.shut()
            return
        self.began = self.began or self.gateway.clock()
        self.reason = str(error)
        self.status = int(error.status[:3])
        self.close_connection = True
        self.ready = False
        if self.raw_head.startswith(TLS_RECORD):
            self.began = 0.0  # it is no request, and none for the log
            self.gateway.complain(self.address_string(), SPEAKS_TLS)
        if isinstance(error, ExpectationFailed):
            self.expects = True
        try:
            self.close_iterable()
            self.send(
                refusal(error, self.gateway.date.tick()[0], bodiless=self.raw_head.lstrip(b"\r\n").startswith(b"HEAD "))
            )
        except Disconnected as gone:
            self.vanish(str(gone))
        else:
            self.settle()

    def fail(self, error: BaseException) -> None:
        """The application, or the client within it, broke a rule or raised."""
        try:
            if isinstance(error, Disconnected):
                self.vanish(str(error))
            elif isinstance(error, ClientError) and not self.head_sent:
                self.refuse(error)
            elif isinstance(error, Abandoned):
                self.reason = str(error)
                self.answer_failure()
            else:
                number = os.urandom(4).hex()
                self.gateway.log_exception(f'{self.address_string()} "{self.requestline}" failed ({number}):', error)
                self.answer_failure(error, number)
        except Disconnected as gone:
            self.vanish(str(gone))
        except BaseException as second:  # noqa: BLE001 - `close` of what the application returned is its code too
            self.gateway.log_exception(f'{self.address_string()} "{self.requestline}" failed again:', second)
            self.break_off()

    def answer_failure(self, error: BaseException | None = None, number: str = "") -> None:
        """A 500 where nothing has been sent yet; else the connection breaks off, for all to see."""
        if self.head_sent or self.closed:
            self.break_off()
            return
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        body = FAILURE.format(under=f" under {number}" if number else "").encode()
        page = self.gateway.error_page
        if error is not None and page is not None and is_here(self.remote[0], self.fields, self.gateway.hosts):
            try:
                headers, body = page(error, self.environ(), number)
            except Exception as second:  # noqa: BLE001 - what is to be drawn is somebody else's, and may do anything
                self.gateway.log_exception("The page that tells of it failed:", second)
        self.head = response_head("500 Internal Server Error", headers)
        self.remaining = None
        self.asleep = False
        self.send_list([body])
        self.close_iterable()

    def break_off(self) -> None:
        """End a response that can't be completed so that the client sees it: without the end that was promised."""
        self.gateway.failures += 1
        self.vanish("broken off: the application failed")

    def vanish(self, reason: str) -> None:
        """The client has left, or is to be left: close what the application returned, and the connection.

        Without a reason nothing has failed, and the access log alone is told.
        """
        cut = self.began and not self.closed
        if cut:
            self.reason = reason
            self.log()
            if reason:
                self.log_reason()
        self.close_sent()
        if cut and (self.unsent is not None or self.ends_by_close()):
            self.reset()
        else:
            self.close()

    def ends_by_close(self) -> bool:
        """Whether only the connection's end tells the client that the response is whole; a reset tells that it is not."""
        return self.head_sent and not self.bodiless and self.remaining is None and not self.chunked

    def timed_out(self) -> None:
        """A time limit is over while the poller waited."""
        options = self.gateway.options
        if self.step == "read_head" and self.received:
            self.refuse(RequestTimeout(f"The head did not come within {options.head_time:g} seconds (head_time)."))
        elif self.step == "read_body":
            self.refuse(RequestTimeout("The body came more slowly than body_time and body_rate allow."))
        elif self.step == "flush":
            self.vanish("The client read more slowly than write_time and write_rate allow.")
        else:
            self.close()
