"""Connections before HTTP begins, where TLS is served: the first byte tells what the client speaks, then hands are shaken.

A `Handshake` waits in the poller like every connection, and holds no thread while its client says nothing. Its own work, about
a millisecond of processor, is done by a thread of `Handshakes`, so that a crowd that arrives does not stop those who are
served; then its connection is another handler's, which knows HTTP and need not know TLS. The part that knows OpenSSL is
`microwsgi.tls.front`, which is imported where TLS is asked for.

    greet     the first bytes are looked at, and not taken       by the leader
    shake     the client's next flight has come                  by the leader: puts it in line
      handle_one_request   a flight is read, and answered        by a thread of Handshakes
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque

from microwsgi.errors import ClientError
from microwsgi.server.connection import READ, Connection
from microwsgi.server.environ import Environ
from microwsgi.server.gateway import Gateway
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.lead import LAST
from microwsgi.wire.head import origin_form

HANDSHAKE = 0x16
"""The first byte of every TLS connection: a record of the handshake protocol (RFC 8446 5.1). No HTTP request begins so."""
NO_TEXT = {*range(0x20), *range(0x7F, 0x100)} - {HANDSHAKE, *b"\r\n"}
"""First bytes that are neither: of hellos as SSL 2 had them, of alerts, of a scanner's guesses."""
RECORD_HEAD = 5
"""Bytes before a record's content: type, version, and the content's length."""
RECORD = RECORD_HEAD + 16 * 1024
"""Bytes of the longest record that a ClientHello may be in."""


class Handshakes:
    """The handshakes whose next step is to be worked on, and the threads that do that; `microwsgi.tls.front` has the work."""

    http_too = False  # plain requests are served as they are
    gateway: Gateway | None = None

    def __init__(self) -> None:
        self.line: deque[Handshake | None] = deque()
        self.calls = threading.Semaphore(0)  # as often as there is something in line
        self.threads: list[threading.Thread] = []
        # Half of the processors: the other half is for those who are served.
        self.most_threads = max((os.cpu_count() or 1) // 2, 1)

    def meet(self, gateway: Gateway, handler_class: type[Connection]) -> type[Connection]:
        """What the server makes of each connection, in place of the handler's class."""
        self.gateway = gateway
        return type("Handshake", (Handshake,), {"__slots__": (), "tls": self, "handler_class": handler_class})

    def line_up(self, handshake: Connection) -> None:
        """Have a thread do what is to be done for this one."""
        self.line.append(handshake)  # type: ignore[arg-type]  # nothing else has the step `shake`
        if len(self.threads) < self.most_threads and len(self.line) > len(self.threads):
            thread = threading.Thread(target=self.work, name=f"microwsgi-tls-{len(self.threads) + 1}", daemon=True)
            self.threads.append(thread)
            thread.start()
        self.calls.release()

    def work(self) -> None:
        """A thread's whole life."""
        while True:
            self.calls.acquire()
            handshake = self.line.popleft()
            if handshake is None:
                return
            try:
                handshake.handle_one_request()
            except BaseException as error:  # noqa: BLE001 - whatever it is, the others' handshakes must go on
                handshake.gateway.log_exception(f"{handshake.address_string()} can't shake hands:", error)
                handshake.close()
            handshake.gateway.settle(handshake, False)  # type: ignore[attr-defined]  # the gateway is a server

    def end(self) -> None:
        """The server has ended; a later `line_up` begins anew."""
        self.line.clear()
        for _ in self.threads:
            self.line.append(None)
            self.calls.release()
        for thread in self.threads:
            thread.join(LAST)
        self.forget_threads()

    def forget_threads(self) -> None:
        """There are none, or, after a fork, they are the parent's."""
        self.line.clear()
        self.calls = threading.Semaphore(0)
        self.threads = []

    # --- What knows TLS, in microwsgi.tls.front --------------------------------------------------------------------------

    def wrap(self, connection: socket.socket) -> socket.socket:
        """A TLS socket in the place of a plain one, with `shake` for a method. Raises OSError."""
        raise NotImplementedError

    def environ(self, base: Environ, connection: socket.socket) -> Environ:
        """The part of the environ that does not change on this connection."""
        raise NotImplementedError

    def reason(self, error: OSError) -> str:
        """Why a handshake failed, and what to do."""
        raise NotImplementedError

    def look(self, *, asked: bool = False) -> None:
        """Take certificates that have changed; `asked`, by a person, also tell at once of what can't be used."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        """What is worth telling at the start."""
        raise NotImplementedError


class Handshake(Connection):
    """A connection of which only one thing is known: that somebody made it."""

    __slots__ = ("asked",)  # how many bytes the system was asked to wait for

    tls: Handshakes
    handler_class: type[Connection]

    def open(self, connection: socket.socket, address: object, gateway: Gateway, base: Environ) -> None:
        """Begin: from here until hands are shaken everything has to happen within `handshake_time`."""
        Connection.open(self, connection, address, gateway, base)
        self.step = "greet"
        self.deadline = gateway.clock() + gateway.options.handshake_time
        self.asked = 0

    def address_string(self) -> str:
        """The client's address and port, or "unix"."""
        return (
            f"{self.client_address[0]}:{self.client_address[1]}" if isinstance(self.client_address, tuple) else "unix"
        )

    # --- By the leader ------------------------------------------------------------------------------------------------

    def greet(self) -> None:
        """The client speaks: look what it is, and leave it where it is."""
        data = self.connection.recv(RECORD, socket.MSG_PEEK)
        if not data:
            self.close()
        elif data[0] in NO_TEXT:
            self.complain("what the client sent is neither TLS nor HTTP")
            self.shut()
        elif data[0] != HANDSHAKE:
            self.become(self.handler_class if self.tls.http_too else Redirector, self.base)
        elif not self.wait_for_more(data):
            self.step = "shake"
            self.shake()

    def wait_for_more(self, data: bytes) -> bool:
        """Have the system wait for the rest of the ClientHello: one that comes byte by byte costs nobody anything."""
        wanted = RECORD_HEAD + (int.from_bytes(data[3:5]) if len(data) >= RECORD_HEAD else 0)
        if self.asked == wanted or not len(data) < wanted <= RECORD:
            wanted = 0  # it is here, or it will never be: the client may have gone, or the system may not wait
        if self.asked or wanted:
            try:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted or 1)
            except OSError:
                return False
        self.asked = wanted
        return bool(wanted)

    def shake(self) -> None:
        """The client goes on: `line_up` takes it from here."""
        self.ready = self.long_body = True

    def timed_out(self) -> None:
        """The client has not done its part within `handshake_time`, or lingers."""
        if self.step == "shake":
            self.complain(f"it was not done within {self.gateway.options.handshake_time:g} seconds (handshake_time)")
        self.close()

    def vanish(self, reason: str) -> None:  # noqa: ARG002 - nothing was asked, and nothing is missing
        """The client has left."""
        self.close()

    def refuse(self, error: ClientError) -> None:
        """Not before there is a request."""
        raise NotImplementedError

    def settle(self) -> None:
        """`handle_one_request` has left it as it is to be."""

    # --- By a thread of Handshakes --------------------------------------------------------------------------------------

    def handle_one_request(self) -> None:
        """Read a flight of the client's, and answer it."""
        self.ready = self.long_body = False
        try:
            if not hasattr(self.connection, "shake"):
                self.connection = self.tls.wrap(self.connection)
            self.wants = self.connection.shake()  # type: ignore[attr-defined]  # asked for above
            if not self.wants:
                self.wants = READ
                self.become(self.handler_class, self.tls.environ(self.base, self.connection))
        except OSError as error:
            self.complain(self.tls.reason(error))
            # What the client still sends would reset the connection, and it would not see the alert that tells it why.
            self.connection = socket.socket(fileno=self.connection.detach())
            self.shut()

    def become(self, handler_class: type[Connection], base: Environ) -> None:
        """The connection is another handler's from here on."""
        self.gateway.replace(self, handler_class.connected(self.connection, self.client_address, self.gateway, base))

    def complain(self, reason: str) -> None:
        """Write a line on a handshake that failed."""
        self.gateway.complain(self.address_string(), f"TLS handshake failed: {reason}.")


class Redirector(WSGIRequestHandler):
    """Tells who speaks plain HTTP on a port of TLS where to go."""

    __slots__ = ()

    def handle_one_request(self) -> None:
        """Redirect a GET or a HEAD; anything else may have sent in the clear what must not be repeated unasked.

        With 307: browsers remember 301 and 308, and the next project on this port may not have TLS.
        """
        self.ready = False
        self.close_connection = True
        host = self.fields.get("HTTP_HOST")
        fields = [("Content-Type", "text/plain; charset=utf-8")]
        if host and self.command in {"GET", "HEAD"}:
            target = f"https://{host}{self.path if self.path.startswith('/') else origin_form(self.path)}"
            fields.append(("Location", target))
            self.start_response("307 Temporary Redirect", fields)
            self.send_list([f"This port speaks TLS: {target}\n".encode("latin-1")])
        else:
            self.start_response("400 Bad Request", fields)
            self.send_list(
                [b"400 Bad Request\n\nThis port speaks TLS, and this request came in the clear: use https://\n"]
            )
