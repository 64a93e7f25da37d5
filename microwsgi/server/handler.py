"""Request after request on one connection: what comes in becomes an environ, what the application returns goes out.

A request walks through `WSGIRequestHandler` in this order; each call returns before the next begins:

    advance                 what can be done without waiting (microwsgi.server.connection)
      read_head, read_body    until the head, and a small body, are here
    handle_one_request      the application is called, and its iterable asked for chunk after chunk
      begin_response, write   status, fields and framing leave with the first bytes
    settle                  the log; then the next request, which is here already or to be waited for
"""

from __future__ import annotations

import io
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler
from wsgiref.util import FileWrapper

from microwsgi.errors import (
    Abandoned,
    ApplicationError,
    ClientError,
    Disconnected,
    ExpectationFailed,
    MisdirectedRequest,
    RequestTimeout,
)
from microwsgi.server.connection import NEVER, READ, RECEIVE, WRITE, Connection, FileSlice
from microwsgi.server.environ import Environ, TakenSocket, base_environ, request_environ
from microwsgi.server.gateway import Application, Gateway, multithreaded
from microwsgi.server.hosts import Hosts, host_name
from microwsgi.wire import head as wire
from microwsgi.wire.body import Body, Decoder, decoder
from microwsgi.wire.response import CONTINUE, LAST_CHUNK, ResponseHead, early_hints, refusal, response_head

SMALL_BODY = 16 * 1024
"""Bytes of a body up to which it is collected before the application is called, so that no thread waits for it."""
ONE_SEND = 64 * 1024
"""Bytes of a body that are worth copying behind the head, so that both leave in one call."""
DRAIN = 256 * 1024
"""Bytes of an unread body that are received for the next request's sake; a longer one ends the connection."""
NO_FIELDS: dict[str, str] = {}
NOTHING: Iterator[bytes] = iter(())
FAILURE = b"500 Internal Server Error\n\nThe application failed; the server's log says why.\n"


class WSGIRequestHandler(Connection, BaseHTTPRequestHandler):  # type: ignore[misc]  # its client_address is a tuple
    """A connection whose requests are translated for a WSGI application (PEP 3333).

    Give it to `microwsgi.WSGIServer`, or `WSGIRequestHandler.of(application)` to http.server's own servers.
    """

    __slots__ = (
        "bodiless",  # the response has no body, whatever the application returns
        "body",  # as much of the request's as was collected
        "chunked",  # the response's body leaves in chunks
        "chunks",  # what is still to be asked for the response's body
        "command",
        "decoder",  # of a request's body, if there is one
        "expects",  # the client waits for 100 Continue
        "fields",
        "head",  # status and fields, from start_response on
        "head_sent",
        "iterable",
        "path",
        "raw_head",
        "reason",  # why the request was refused or broken off
        "remaining",  # bytes that the response's Content-Length still promises
        "remote",  # the client, as the environ has it
        "request_version",
        "size",  # bytes of the response's body that were sent
        "status",
    )

    protocol_version = "HTTP/1.1"
    remote: tuple[str, str]
    fields: dict[str, str]
    decoder: Decoder | None
    head: ResponseHead | None
    remaining: int | None
    iterable: Iterable[bytes] | None
    chunks: Iterator[bytes] | None

    # --- From a connection to a request -----------------------------------------------------------------------------

    @classmethod
    def of(cls, application: Application) -> type[WSGIRequestHandler]:
        """A handler class for http.server's servers: `ThreadingHTTPServer(("", 8000), WSGIRequestHandler.of(app))`."""
        return type(cls.__name__, (cls,), {"gateway": Gateway(application)})

    def open(self, connection: socket.socket, address: object, gateway: Gateway, base: Environ) -> None:
        """Begin with a socket that does not block."""
        Connection.open(self, connection, address, gateway, base)
        self.remote = (address[0], str(address[1])) if isinstance(address, tuple) else ("", "")
        self.command = self.path = self.request_version = self.reason = ""
        self.raw_head = self.body = b""
        self.fields = NO_FIELDS
        self.decoder = self.head = self.remaining = self.iterable = self.chunks = None
        self.expects = self.head_sent = self.chunked = self.bodiless = False
        self.status = self.size = 0

    def setup(self) -> None:
        """Under http.server's servers: begin as `connected` does."""
        gateway = self.server.alone() if isinstance(self.server, Gateway) else self.gateway
        self.request.setblocking(False)
        if isinstance(self.client_address, tuple):  # five sends with Nagle's algorithm cost http.server 40 ms a request
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        address = self.request.getsockname()
        base = base_environ(address, gateway.error_stream(), multithread=multithreaded(self.server))
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

    def read_head(self) -> None:
        """Bytes have come while no request is under way."""
        data = self.connection.recv(RECEIVE)
        if not data:
            self.close()
        elif self.received:
            self.take_head(self.received + data, len(self.received))
        else:
            self.take_head(data, 0)

    def take_head(self, data: bytes, start: int) -> None:
        """Parse the head if its end is in `data`; the bytes before `start` have been looked at."""
        end = data.find(wire.END, start - 3 if start > 3 else 0)  # noqa: PLR2004 - all of END but its last byte
        if end < 0:
            self.raw_head = data
            wire.check_partial(data, start, self.gateway.options)
            if not self.received:
                self.wait_in("read_head", READ, self.gateway.options.head_time)
            self.received = data
            return
        self.raw_head = head = data[:end]
        self.received = data[end + 4 :]
        self.began = self.gateway.clock()
        self.command, self.path, self.request_version, fields = wire.parse_head(head, self.gateway.options)
        self.fields = fields
        if self.gateway.hosts is not None:
            self.check_host(self.gateway.hosts)
        if "HTTP_CONNECTION" in fields or self.request_version == "HTTP/1.0":
            self.close_connection = not self.client_persists()
        if "CONTENT_LENGTH" in fields or "HTTP_TRANSFER_ENCODING" in fields or "HTTP_EXPECT" in fields:
            self.take_body()
        else:
            self.ready = True

    def check_host(self, hosts: Hosts) -> None:
        """Refuse a request for a name that may have come to mean this machine only lately."""
        host = self.fields.get("HTTP_HOST")
        if host is not None and self.remote[0] and not hosts.allows(host):
            name = host_name(host)
            raise MisdirectedRequest(f"This server does not answer for {name!r}; with --allow-host {name} it would.")

    def client_persists(self) -> bool:
        """Whether the client means to send more requests on this connection."""
        return wire.persistent(self.request_version, self.fields.get("HTTP_CONNECTION"))

    def take_body(self) -> None:
        """Begin with a body: collect a small one, leave a long one to the application."""
        options = self.gateway.options
        expects = wire.expects_continue(self.request_version, self.fields.get("HTTP_EXPECT"))
        length = wire.framing(self.request_version, self.fields, options.body_size)
        if not length:
            self.ready = True
            return
        self.decoder = decoder(length, options)
        data, self.received = self.received, b""
        self.collect(data)
        self.expects = expects and not self.ready  # RFC 9110 10.1.1: no need to ask for what is here
        self.allowance = options.body_time
        if not self.ready:
            if not expects and length <= SMALL_BODY and self.gateway.may_collect(self):
                self.wait_in("read_body", READ, options.body_time)
            else:
                self.ready = self.long_body = True

    def read_body(self) -> None:
        """More of a small body has come."""
        data = self.connection.recv(RECEIVE)
        if not data:
            raise ClientError("The body ended before the length that its head promised (RFC 9112 8).")
        self.collect(data)
        self.extend(len(data), self.gateway.options.body_rate, self.gateway.options.body_time)

    def collect(self, data: bytes) -> None:
        """Take what is the body's; what is behind it is the next request's."""
        decoder = self.decoder
        if decoder is None:
            return
        self.body += decoder.feed(data)
        if decoder.done:
            self.received = decoder.rest
        self.long_body = not decoder.done and len(self.body) > SMALL_BODY  # of chunks: their number was not known
        self.ready = decoder.done or self.long_body

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

    def input(self) -> io.BytesIO | io.BufferedReader:
        """What the application reads the body from; it ends where the body ends."""
        if self.decoder is None or self.decoder.done:
            return io.BytesIO(self.body)
        return io.BufferedReader(Body(self.decoder, self.receive_body, self.body), ONE_SEND)

    def receive_body(self, view: memoryview) -> int:
        """Receive for an application that reads; the first time, tell a client that waits for it to go on."""
        if self.expects:
            self.expects = False
            if not self.head_sent:
                self.send(CONTINUE)
        return self.receive_into(view)

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: tuple[object, ...] | None = None, /
    ) -> Callable[[bytes], object]:
        """PEP 3333's: check and keep status and headers, which leave with the first bytes of the body."""
        if exc_info is not None:
            if self.head_sent and isinstance(exc_info[1], BaseException):
                raise exc_info[1].with_traceback(exc_info[2])  # type: ignore[arg-type]
        elif self.head is not None:
            raise ApplicationError("start_response was called a second time, without exc_info (PEP 3333).")
        self.head = response_head(status, headers)
        return self.write_now

    def send_early_hints(self, headers: list[tuple[str, str]]) -> None:
        """Send a 103 with these fields at once, to a client that can understand it (RFC 8297 2, RFC 9110 15.2)."""
        hints = early_hints(headers)
        if self.request_version == "HTTP/1.1" and not self.head_sent:
            self.send(hints)

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

    # --- The response -----------------------------------------------------------------------------------------------

    def begin_response(self, iterable: Iterable[bytes]) -> None:
        """Keep what has to be asked for, and closed; a file is sent here."""
        self.iterable = iterable
        self.chunks = NOTHING
        if self.closed or (isinstance(iterable, FileWrapper) and self.send_file(iterable.filelike)):
            return
        if isinstance(iterable, (str, bytes)) or not hasattr(iterable, "__iter__"):
            raise ApplicationError(body_fault(iterable))
        if isinstance(iterable, tuple) and not self.head_sent:
            self.send_list(list(iterable))
        else:
            self.chunks = iter(iterable)

    def send_list(self, chunks: list[bytes]) -> None:
        """Make the whole response of a body of which all is known; `settle` sends it."""
        try:
            body = b"".join(chunks)
        except TypeError as error:
            raise ApplicationError(body_fault(chunks)) from error
        data = self.begin(len(body))
        if self.bodiless:
            self.answer = data
        elif len(body) != self.remaining:
            self.head_sent = False
            raise ApplicationError(
                f"Content-Length is {self.remaining}, and the body has {len(body)} bytes (PEP 3333)."
            )
        else:
            self.size = len(body)
            if len(body) <= ONE_SEND:
                self.answer = data + body
            else:
                self.send(data + body[:ONE_SEND])
                self.send(memoryview(body)[ONE_SEND:])

    def send_file(self, file: object) -> bool:
        """Have the kernel send a real file from where it stands, up to Content-Length; False if that can't be done."""
        if self.head is None or self.head_sent or isinstance(file, io.TextIOBase) or not hasattr(os, "sendfile"):
            return False
        try:
            descriptor, offset = file.fileno(), file.tell()  # type: ignore[attr-defined]
            available = os.fstat(descriptor).st_size - offset
        except (AttributeError, OSError):
            return False
        promised = self.head[4]
        count = available if promised is None else min(promised, available)
        if count <= 0 or not isinstance(self.connection, socket.socket):
            return False
        data = self.begin(count)
        if not self.bodiless:
            self.size, self.remaining = count, (self.remaining or count) - count
            if count <= ONE_SEND:
                data, count = data + os.pread(descriptor, count, offset), 0
        self.send(data)
        if count and not self.bodiless:
            self.unsent = self.unsent or deque()
            self.unsent.append(FileSlice(descriptor, offset, count))
            self.send_unsent()
        return True

    def begin(self, length: int | None) -> bytes:
        """The head's bytes, with the framing that fits a body of `length`, None where it isn't known (RFC 9112 6)."""
        if self.head is None:
            raise ApplicationError(
                "The application returned, or sent a body, before it called start_response (PEP 3333)."
            )
        status_line, lines, self.status, bodiless, promised, own = self.head
        self.head_sent = True
        self.bodiless = bodiless or self.command == "HEAD"
        if promised is not None:
            self.remaining = promised
            framed = ""
        elif length is not None:
            self.remaining = length
            # RFC 9110 8.6: HEAD's length is what GET's would be, or is not given; 204 and 304 have none
            framed = f"Content-Length: {length}\r\n" if not self.bodiless or (length and not bodiless) else ""
        elif self.bodiless:
            framed = ""
        elif self.request_version == "HTTP/1.1":
            self.chunked = True
            framed = "Transfer-Encoding: chunked\r\n"
        else:
            self.close_connection = True
            framed = ""
        if self.gateway.stopping or (self.decoder is not None and not self.decoder.done and self.left_unread()):
            self.close_connection = True
        if self.close_connection:
            framed += "Connection: close\r\n"
        elif self.request_version == "HTTP/1.0":
            framed += "Connection: keep-alive\r\n"
        return f"{status_line}{lines}{self.gateway.date.tick()[own]}{framed}\r\n".encode("latin-1")

    def left_unread(self) -> bool:
        """Whether more of the body is still to come than is worth receiving for the next request's sake."""
        return self.expects or self.decoder is None or self.decoder.failed or self.decoder.remaining > DRAIN

    def write(self, chunk: bytes) -> bool:
        """Send a chunk in the coding that the head announced. False: the poller says when to ask the iterable on."""
        if not isinstance(chunk, bytes):
            raise ApplicationError(body_fault([chunk]))
        if not chunk:
            return not self.asleep
        self.asleep = False
        data = b"" if self.head_sent else self.begin(None)
        if self.bodiless:
            self.send(data)
        elif self.chunked:
            self.size += len(chunk)
            self.send(b"%b%x\r\n%b\r\n" % (data, len(chunk), chunk))
        elif self.remaining is None or len(chunk) <= self.remaining:
            self.size += len(chunk)
            if self.remaining is not None:
                self.remaining -= len(chunk)
            self.send(data + chunk)
        else:
            self.send(data + chunk[: self.remaining])
            raise ApplicationError(
                f"The body is longer than its Content-Length, {self.size + self.remaining} (PEP 3333)."
            )
        if self.unsent is None:
            return True
        if not self.gateway.hold_for_client():
            return False
        try:
            self.wait_until_sent()
        finally:
            self.gateway.release()
        return True

    def write_now(self, chunk: bytes, /) -> None:
        """The `write` of PEP 3333, for applications that can't return an iterable; waits for a slow reader, always."""
        if not self.write(chunk):
            self.wait_until_sent()

    def end_response(self) -> None:
        """The iterable has ended."""
        if not self.closed:
            if not self.head_sent:
                self.send_list([])
            elif self.chunked:
                self.send(LAST_CHUNK)
            elif self.remaining and not self.bodiless:
                raise ApplicationError(
                    f"The body is {self.remaining} bytes shorter than its Content-Length (PEP 3333)."
                )
        if self.unsent is None:
            self.close_iterable()
        else:
            self.chunks = None  # a file is closed when it has been sent

    def close_iterable(self) -> None:
        """Call the iterable's close, as PEP 3333 promises: once, whatever happened."""
        iterable, self.iterable, self.chunks = self.iterable, None, None
        if iterable.__class__ is list or iterable is None:
            return
        try:
            iterable.close()  # type: ignore[attr-defined]
        except AttributeError:
            if hasattr(iterable, "close"):
                raise

    def close_sent(self) -> None:
        """Close what could not be closed before all of it was sent."""
        try:
            self.close_iterable()
        except Exception as error:  # noqa: BLE001 - the application's code
            self.gateway.log_exception(f'{self.address_string()} "{self.requestline}" failed in close:', error)

    # --- After a request --------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """See what the request left: bytes to send, an iterable to ask on, or a connection for the next request."""
        if self.closed or self.ready:
            return
        if self.answer is not None:
            answer, self.answer = self.answer, None
            try:
                self.send(answer)
            except Disconnected as gone:
                self.vanish(str(gone))
                return
        if self.unsent is not None:
            self.wait_in("flush", WRITE, self.gateway.options.write_time)
        elif self.chunks is None:
            self.end_request()
        elif self.asleep:
            self.wait_in("watch_client", READ, NEVER)
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
            if unread or self.reason or self.received or self.client_persists():
                self.shut()
            else:
                self.close()
        elif unread:
            self.size = 0
            self.wait_in("drain", READ, self.gateway.options.body_time)
        else:
            self.received = self.received or self.decoder.rest  # type: ignore[union-attr]  # else this is not called
            self.decoder = None
            self.long_body = False
            self.body = b""
            self.end_request()

    def take_next(self) -> None:
        """The next request, or its beginning, came behind the last one."""
        data, self.received = self.received, b""
        self.step, self.wants = "read_head", READ
        self.take_head(data, 0)

    def drain(self) -> None:
        """More of a body has come that the application did not read."""
        data = self.connection.recv(RECEIVE)
        decoder = self.decoder
        if not data or decoder is None:
            self.close()
            return
        decoder.feed(data)
        self.size += len(data)
        if decoder.done:
            self.received = decoder.rest
            self.end_request()
        elif self.size > DRAIN:
            self.shut()

    def watch_client(self) -> None:
        """Something has come from a client whose response has nothing to send yet: its next request, or its end."""
        data = self.connection.recv(RECEIVE)
        if not data:
            self.vanish("The client left.")
        self.received += data
        if len(self.received) > RECEIVE:
            self.wants = 0

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
                self.gateway.log_exception(f'{self.address_string()} "{self.requestline}" failed:', error)
                self.answer_failure()
        except Disconnected as gone:
            self.vanish(str(gone))
        except BaseException as second:  # noqa: BLE001 - `close` of what the application returned is its code too
            self.gateway.log_exception(f'{self.address_string()} "{self.requestline}" failed again:', second)
            self.break_off()

    def answer_failure(self) -> None:
        """A 500 where nothing has been sent yet; else the connection breaks off, for all to see."""
        if self.head_sent or self.closed:
            self.break_off()
            return
        self.head = response_head("500 Internal Server Error", [("Content-Type", "text/plain; charset=utf-8")])
        self.remaining = None
        self.send_list([FAILURE])
        self.close_iterable()

    def break_off(self) -> None:
        """End a response that can't be completed so that the client sees it: without the end that was promised."""
        self.vanish("broken off: the application failed")

    def vanish(self, reason: str) -> None:
        """The client has left, or is to be left: close what the application returned, and the connection."""
        if self.began and not self.closed:
            self.reason = reason
            self.log()
            self.log_reason()
        self.close_sent()
        self.close()

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

    # --- The log, and what else http.server's handlers have -----------------------------------------------------------

    def log(self) -> None:
        """Tell the log of a request that was not ended by a response; once."""
        if self.began and self.gateway.access_log is not None:
            self.gateway.access_log(self, self.gateway.clock() - self.began)
        self.began = 0.0

    def log_reason(self) -> None:
        """Say why a request was refused or broken off."""
        self.gateway.log_error(f'{self.address_string()} "{self.requestline}" {self.status or "-"}: {self.reason}')

    def address_string(self) -> str:
        """The client's address and port, or "unix"."""
        return ":".join(self.remote) if self.remote[0] else "unix"

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


def body_fault(iterable: object) -> str:
    """What is wrong with what an application returned or yielded."""
    if hasattr(iterable, "app_iter"):
        return "The application returned a response instead of calling it: return response(environ, start_response)."
    if isinstance(iterable, (str, bytes)):
        return f"The application returned {type(iterable).__name__}; PEP 3333 asks for an iterable of bytes: a list of one."
    if not hasattr(iterable, "__iter__"):
        return f"The application returned {iterable!r}; PEP 3333 asks for an iterable of bytes."
    for chunk in iterable:
        if not isinstance(chunk, bytes):
            hint = '; write .encode("utf-8")' if isinstance(chunk, str) else ""
            return f"The application's body has {type(chunk).__name__} {chunk!r:.60}; PEP 3333 asks for bytes{hint}."
    return "The application's body is no iterable of bytes (PEP 3333)."
