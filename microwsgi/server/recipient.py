"""Requests as they come in: from the bytes on a connection to a head and a body that an application can have.

`microwsgi.server.handler` is a Recipient, and goes on when a request is `ready`.
"""

from __future__ import annotations

import io
import socket

from microwsgi.errors import ClientError, MisdirectedRequest
from microwsgi.server.connection import READ, RECEIVE, Connection
from microwsgi.server.environ import Environ
from microwsgi.server.gateway import Gateway
from microwsgi.server.hosts import Hosts, host_name
from microwsgi.wire import head as wire
from microwsgi.wire.body import Body, Decoder, decoder
from microwsgi.wire.response import CONTINUE

SMALL_BODY = 16 * 1024
"""Bytes of a body up to which it is collected before the application is called, so that no thread waits for it."""
BUFFER = 64 * 1024
"""Bytes of a long body that are received at once, when the application reads so many."""
DRAIN = 256 * 1024
"""Bytes of an unread body that are received for the next request's sake; a longer one ends the connection."""

NO_FIELDS: dict[str, str] = {}


class Recipient(Connection):
    """A connection with the request that comes on it."""

    __slots__ = (
        "body",  # as much of it as was collected
        "command",  # http.server's name for the method
        "decoder",  # of the body, if there is one
        "expects",  # the client waits for 100 Continue
        "fields",
        "head_sent",  # the response has begun
        "path",  # http.server's name for the target
        "raw_head",
        "remote",  # the client, as the environ has it
        "request_version",
        "size",  # bytes of the response's body that were sent, or of the request's that were drained
    )

    remote: tuple[str, str]
    fields: dict[str, str]
    decoder: Decoder | None

    def open(self, connection: socket.socket, address: object, gateway: Gateway, base: Environ) -> None:
        """Begin with a socket that does not block."""
        Connection.open(self, connection, address, gateway, base)
        self.remote = (address[0], str(address[1])) if isinstance(address, tuple) else ("", "")
        self.command = self.path = self.request_version = ""
        self.raw_head = self.body = b""
        self.fields = NO_FIELDS
        self.decoder = None
        self.expects = self.head_sent = False
        self.size = 0

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
        decoder: Decoder = self.decoder  # type: ignore[assignment]  # there is one while a body is collected
        self.body += decoder.feed(data)
        if decoder.done:
            self.received = decoder.rest
        self.long_body = not decoder.done and len(self.body) > SMALL_BODY  # of chunks: their number was not known
        self.ready = decoder.done or self.long_body

    def take_next(self) -> None:
        """The next request, or its beginning, came behind the last one."""
        data, self.received = self.received, b""
        self.step, self.wants = "read_head", READ
        self.take_head(data, 0)

    def input(self) -> io.BytesIO | io.BufferedReader:
        """What the application reads the body from; it ends where the body ends."""
        if self.decoder is None or self.decoder.done:
            return io.BytesIO(self.body)
        return io.BufferedReader(Body(self.decoder, self.receive_body, self.body), BUFFER)

    def receive_body(self, view: memoryview) -> int:
        """Receive for an application that reads; the first time, tell a client that waits for it to go on."""
        if self.expects:
            self.expects = False
            if not self.head_sent:
                self.send(CONTINUE)
        return self.receive_into(view)

    def left_unread(self) -> bool:
        """Whether more of the body is still to come than is worth receiving for the next request's sake."""
        return self.expects or self.decoder is None or self.decoder.failed or self.decoder.remaining > DRAIN

    def drain(self) -> None:
        """More of a body has come that the application did not read."""
        data = self.connection.recv(RECEIVE)
        if not data:
            self.close()
            return
        decoder: Decoder = self.decoder  # type: ignore[assignment]  # there is one while a body is drained
        decoder.feed(data)
        self.size += len(data)
        if decoder.done:
            self.received = decoder.rest
            self.settle()
        elif self.size > DRAIN:
            self.shut()
