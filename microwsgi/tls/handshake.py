"""Connections on a TLS port before HTTP begins: detect TLS or plain HTTP by the first byte, then do the handshake.

A HandshakeConnection waits in the poller like every connection, and holds no thread while its client sends nothing. The work
of a handshake, about a millisecond of processor time, is done by threads of `HandshakePool`, so that many new connections do
not delay the clients that are being served. Then the connection is REPLACED: `replacement` speaks HTTP over the transport. A
*flight* is the messages that one side sends before it waits for an answer (RFC 8446 2).

    SNIFFING    look at the first bytes, and leave them in the kernel      by the leader
    HANDSHAKE   wait for the client's next flight                          by the leader: then RUNNING, in HandshakePool's queue
      handle_one_request   read a flight, and answer it                    by a thread of HandshakePool
      finish_turn          HANDSHAKE again, REPLACED, or the end           by the same thread
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

from microwsgi.server.connections import Connection
from microwsgi.server.context import ServerContext
from microwsgi.server.environ import Environ
from microwsgi.server.handler import LINGER, WSGIRequestHandler
from microwsgi.server.state import READ, Row, State, Table
from microwsgi.server.transport import RECEIVE, Transport
from microwsgi.tls.hello import NO_APPLICATION_PROTOCOL, offered_protocols
from microwsgi.tls.transport import TLSTransport
from microwsgi.wire.request import origin_form

HANDSHAKE = 0x16
"""The first byte of every TLS connection: a record of the handshake protocol (RFC 8446 5.1). No HTTP request begins with it."""
NEITHER_TLS_NOR_HTTP = {*range(0x20), *range(0x7F, 0x100)} - {HANDSHAKE, *b"\r\n"}
"""First bytes that are neither TLS nor HTTP: SSL 2, alerts, guesses of a scanner."""
RECORD_HEAD = 5
"""Bytes before a record's content: type, version, and the length of the content."""
RECORD = RECORD_HEAD + 16 * 1024
"""Bytes of the longest record that can hold a ClientHello."""
JOIN_TIMEOUT = 5.0
"""Seconds to wait for a thread to end, which takes at most the time of one flight."""


class HandshakePool:
    """Threads that do handshakes, and the queue of connections that wait for these threads."""

    def __init__(self) -> None:
        self.queue: deque[HandshakeConnection | None] = deque()
        self.available = threading.Semaphore(0)  # released once for each entry of the queue
        self.threads: list[threading.Thread] = []
        self.starting = threading.Lock()  # protects `threads`; held while a thread is started
        # Use half of the processors; the other half is for clients that are being served.
        self.max_threads = max((os.cpu_count() or 1) // 2, 1)
        self.finish: Callable[..., object] = bool  # set by `start`; `bool` does nothing

    def start(self, finish: Callable[..., object]) -> None:
        """Begin to serve; `finish` is `Loop.finish`. Threads of an earlier run, or of the parent before a fork, are dropped."""
        self.queue = deque()
        self.available = threading.Semaphore(0)
        self.threads = []
        self.starting = threading.Lock()
        self.finish = finish

    def submit(self, connection: HandshakeConnection) -> None:
        """Have a thread work on a connection. Only leaders call this."""
        with self.starting:
            if len(self.threads) < self.max_threads and len(self.queue) >= len(self.threads):
                thread = threading.Thread(target=self.work, name=f"microwsgi-tls-{len(self.threads) + 1}", daemon=True)
                thread.start()
                self.threads.append(thread)
        self.queue.append(connection)
        self.available.release()

    def work(self) -> None:
        """Work on connections until the server ends: a thread's main function."""
        queue, available, finish = self.queue, self.available, self.finish
        while True:
            available.acquire()
            try:
                connection = queue.popleft()
            except IndexError:
                continue  # the server is stopping, and has emptied the queue
            if connection is None:
                return
            connection.handle_one_request()
            finish(connection, False)

    def end(self) -> None:
        """End the threads."""
        self.queue.clear()
        for _ in self.threads:
            self.queue.append(None)
            self.available.release()
        for thread in self.threads:
            thread.join(JOIN_TIMEOUT)


class HandshakeContext:
    """The pool, and the functions of `microwsgi.tls.front.TLS` that handshakes call.

    `wrap` returns a TLS transport that replaces a plain one, or raises OSError. `secure_replacement` and
    `plain_replacement` return the connection that continues with a transport and a base environ. `reason` returns why a
    handshake failed, and what to do. A client that uses ALPN must offer one of `protocols`; this is not checked if `protocols`
    is empty, as it is for the context of a caller.
    """

    def __init__(
        self,
        pool: HandshakePool,
        wrap: Callable[[Transport], TLSTransport],
        secure_replacement: Callable[[TLSTransport, Environ], Connection],
        plain_replacement: Callable[[Transport, Environ], Connection],
        reason: Callable[[OSError], str],
        protocols: frozenset[bytes],
    ) -> None:
        self.pool = pool
        self.protocols = protocols
        self.wrap = wrap
        self.secure_replacement = secure_replacement
        self.plain_replacement = plain_replacement
        self.reason = reason


class HandshakeConnection:
    """A connection before HTTP: it is not yet known whether it uses TLS, or the handshake is not done."""

    __slots__ = ("base", "context", "front", "outcome", "secure", "state", "replacement", "transport", "wanted")

    exchange = None
    requests = 0
    waits_for_client = manages_permit = False

    def __init__(self, transport: Transport, context: ServerContext, base: Environ, front: HandshakeContext) -> None:
        self.transport = transport
        self.context = context
        self.base = base
        self.front = front
        self.wanted = 0  # the low-water mark that was set, in bytes; 0 if none
        self.secure: TLSTransport | None = None
        self.replacement: Connection | None = None
        self.outcome = State.HANDSHAKE  # the state after the last flight
        self.state = State.SNIFFING
        # One time limit for everything up to the end of the handshake.
        transport.expect(READ, context.options.tls_handshake_timeout)

    def address_string(self) -> str:
        """Return the client's address and port, or "unix"."""
        return self.transport.address_string()

    def received(self) -> bytes:
        """Return the bytes that were received: none, they are left in the kernel."""
        return b""

    def start_with(self, received: bytes) -> None:
        """Do nothing. The other process has received no bytes either (see `received`)."""

    # --- By the leader ------------------------------------------------------------------------------------------------------

    def on_ready(self) -> None:
        """Handle the event that the state waits for."""
        try:
            state = self.table[self.state].on_event(self)
        except BlockingIOError:
            return
        except OSError:
            state = State.CLOSED  # the client has disconnected before it sent a request
        if state is not self.state:
            self.enter(state)

    def on_timeout(self) -> None:
        """Close the connection: the client has not sent its part of the handshake, or has not closed its side, in time."""
        if self.state is State.HANDSHAKE:
            self.log_failure(
                f"it did not finish within {self.context.options.tls_handshake_timeout:g} seconds (tls_handshake_timeout)"
            )
        self.enter(State.CLOSED)

    def on_drain(self) -> None:
        """Close the connection: the server is stopping, and the client has not sent a request yet."""
        self.enter(State.CLOSED)

    def enter(self, state: State) -> None:
        """Set the state and, for LINGERING, the event and the time limit. The time limit of the handshake is not extended."""
        self.state = state
        if state is State.LINGERING:
            self.transport.expect(self.table[state].interest, LINGER)

    def abort(self, reason: str) -> State:
        """Close the connection. There is no request to abort."""
        return State.CLOSED

    def sniff(self) -> State:
        """Find out from the first bytes, which stay in the kernel, whether the client speaks TLS."""
        data = self.transport.peek(RECORD)
        if not data:
            return State.CLOSED
        if data[0] in NEITHER_TLS_NOR_HTTP:
            self.log_failure("the bytes that the client sent are neither TLS nor HTTP")
            return self.half_close()
        if data[0] != HANDSHAKE:
            self.replacement = self.front.plain_replacement(self.transport, self.base)
            return State.REPLACED
        if self.wait_for_more(data):
            return State.SNIFFING
        offered = offered_protocols(data)
        if offered and self.front.protocols and self.front.protocols.isdisjoint(offered):
            self.log_failure(f"the client offers {b', '.join(offered)!r}, and not http/1.1 or http/1.0 (RFC 7301 3.2)")
            self.transport.recv(RECORD)
            self.transport.write(NO_APPLICATION_PROTOCOL)
            return self.half_close()
        return self.submit()

    def wait_for_more(self, data: bytes) -> bool:
        """Have the kernel wait for the rest of the ClientHello, so that one that arrives byte by byte causes no more events."""
        wanted = RECORD_HEAD + (int.from_bytes(data[3:5]) if len(data) >= RECORD_HEAD else 0)
        if self.wanted == wanted or not len(data) < wanted <= RECORD:
            wanted = (
                0  # all has arrived, or no more will: the client has disconnected, or the system ignores SO_RCVLOWAT
            )
        if (self.wanted or wanted) and not self.transport.set_low_water_mark(wanted or 1):
            return False
        self.wanted = wanted
        return bool(wanted)

    def submit(self) -> State:
        """Have a thread of HandshakePool read the client's next flight."""
        self.state = State.RUNNING  # before `submit`: from then on the thread may change the state
        self.front.pool.submit(self)
        return State.RUNNING

    def half_close(self) -> State:
        """Send the end of the stream to the client, then discard the data that it still sends."""
        try:
            self.transport.half_close()
        except OSError:
            return State.CLOSED
        return State.LINGERING

    def linger(self) -> State:
        """Discard data until the client has closed its side, too."""
        return State.LINGERING if self.transport.recv(RECEIVE) else State.CLOSED

    # --- By a thread of HandshakePool ---------------------------------------------------------------------------------------

    def handle_one_request(self) -> None:
        """Read the client's next flight, and answer it."""
        try:
            self.outcome = self.work()
        except OSError as error:
            self.log_failure(self.front.reason(error))
            # Linger: data that the client still sends would cause a reset, and the client would not see the alert.
            self.outcome = self.half_close()
        except BaseException as error:  # this thread must continue with the handshakes of other clients
            self.context.log_exception(f"{self.address_string()}: a TLS handshake failed:", error)
            self.outcome = State.CLOSED

    def work(self) -> State:
        """Continue the handshake. Raises OSError."""
        if self.secure is None:
            self.secure = self.front.wrap(self.transport)
            self.transport.replace_socket(self.secure.socket)
        event = self.secure.handshake()
        if event:
            self.transport.expect_event(event)
            return State.HANDSHAKE
        self.replacement = self.front.secure_replacement(self.secure, self.base)
        return State.REPLACED

    def finish_turn(self) -> State:
        """Return the next state."""
        return self.outcome

    def log_failure(self, reason: str) -> None:
        """Log a handshake that failed."""
        self.context.log_client_error(self.address_string(), f"TLS handshake failed: {reason}.")

    def close(self) -> State:
        """Close the connection."""
        return State.CLOSED

    table: Table = {  # typing.ClassVar would cost its import
        State.SNIFFING: Row(READ, sniff, close, close, eviction_rank=1, handoff=True),
        State.HANDSHAKE: Row(READ, submit, close, close, eviction_rank=1),
        State.LINGERING: Row(READ, linger, close),
        State.REPLACED: Row(0),
        State.CLOSED: Row(0),
    }


class Redirector(WSGIRequestHandler):
    """Redirects a client that speaks plain HTTP on a TLS port to https."""

    __slots__ = ()

    def handle_one_request(self) -> None:
        """Redirect a GET or a HEAD that has a Host.

        Other methods get a 400, since a browser must not repeat them without the user's consent.

        With 307: browsers remember 301 and 308, and the next project on this port may not have TLS.
        """
        self.state = State.RUNNING
        exchange = self.exchange
        if exchange is None:
            return
        exchange.end_connection()
        head = exchange.head
        host = head.fields.get("HTTP_HOST")
        fields = [("Content-Type", "text/plain; charset=utf-8")]
        if host and head.method in {"GET", "HEAD"}:
            target = f"https://{host}{head.target if head.target.startswith('/') else origin_form(head.target)}"
            fields.append(("Location", target))
            exchange.start_response("307 Temporary Redirect", fields)
            exchange.send_whole([f"This port speaks TLS: {target}\n".encode("latin-1")])
        else:
            exchange.start_response("400 Bad Request", fields)
            exchange.send_whole(
                [b"400 Bad Request\n\nThis port speaks TLS, and this request came in the clear: use https://\n"]
            )
