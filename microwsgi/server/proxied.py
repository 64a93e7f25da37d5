"""Connections of a proxy that speaks the PROXY protocol: its header is read first, then the connection is REPLACED.

Then `replacement` uses the same transport, which by then has the client's address, for HTTP or for the TLS handshake. No byte
after the header is received here, since the TLS handshake reads from the socket.
"""

from __future__ import annotations

from collections.abc import Callable

from microwsgi.errors import ClientError
from microwsgi.server.connections import Connection
from microwsgi.server.context import ServerContext
from microwsgi.server.environ import Environ
from microwsgi.server.handler import LINGER
from microwsgi.server.state import READ, Row, State, Table
from microwsgi.server.transport import RECEIVE, Transport
from microwsgi.wire.proxy_protocol import MAX_HEADER_SIZE, parse_proxy_header
from microwsgi.wire.response import refusal


class ProxiedConnection:
    """A connection from a trusted proxy whose PROXY protocol header has not arrived yet."""

    __slots__ = ("base", "context", "header", "new_connection", "replacement", "state", "transport")

    exchange = None
    requests = 0
    waits_for_client = manages_permit = False

    def __init__(
        self,
        transport: Transport,
        base: Environ,
        context: ServerContext,
        new_connection: Callable[[Transport, Environ], Connection],
    ) -> None:
        self.transport = transport
        self.base = base
        self.context = context
        self.new_connection = new_connection
        self.header = b""  # the part of the header that has arrived
        self.replacement: Connection | None = None
        self.state = State.SNIFFING
        transport.expect(READ, context.options.header_timeout)  # for the whole header

    def address_string(self) -> str:
        """Return the proxy's address and port, or "unix"."""
        return self.transport.address_string()

    def received(self) -> bytes:
        """Return the bytes that were received."""
        return self.header

    def start_with(self, received: bytes) -> None:
        """Do nothing: such a connection is not handed off."""

    def on_ready(self) -> None:
        """Handle the event that the state waits for."""
        try:
            state = self.table[self.state].on_event(self)
        except BlockingIOError:
            return
        except OSError:
            state = State.CLOSED
        if state is not self.state:
            self.enter(state)

    def on_timeout(self) -> None:
        """Close the connection: the header did not arrive in time, or the proxy did not close its side."""
        self.enter(State.CLOSED)

    def on_drain(self) -> None:
        """Close the connection: the server is stopping, and no request has arrived."""
        self.enter(State.CLOSED)

    def enter(self, state: State) -> None:
        """Set the state, and the deadline of LINGERING; the deadline of the header stays."""
        self.state = state
        if state is State.LINGERING:
            self.transport.expect(READ, LINGER)

    def receive_header(self) -> State:
        """Receive the part of the header that has arrived, and no byte after the header."""
        data = self.transport.peek(MAX_HEADER_SIZE)
        if not data:
            return State.CLOSED
        try:
            found = parse_proxy_header(self.header + data)
        except ClientError as error:
            return self.refuse(error)
        if found is None:
            self.header += self.transport.recv(len(data))
            return State.SNIFFING
        length, client = found
        self.transport.recv(length - len(self.header))
        if client is not None:
            self.transport.set_client(client)
        self.replacement = self.new_connection(self.transport, self.base)
        return State.REPLACED

    def refuse(self, error: ClientError) -> State:
        """Refuse a connection without a valid header."""
        self.context.log_client_error(self.address_string(), str(error))
        self.transport.write(refusal(error, self.context.date.current_lines()[0]))
        self.transport.half_close()
        return State.LINGERING

    def linger(self) -> State:
        """Discard the bytes that arrive until the proxy closes its side, since a reset would destroy the response."""
        return State.LINGERING if self.transport.recv(RECEIVE) else State.CLOSED

    def handle_one_request(self) -> None:
        """Do nothing: such a connection is never QUEUED."""

    def finish_turn(self) -> State:
        """Return the state."""
        return self.state

    def abort(self, reason: str) -> State:  # there is no request and no response
        """Close the connection."""
        return State.CLOSED

    def close(self) -> State:
        """Close the connection."""
        return State.CLOSED

    table: Table = {  # typing.ClassVar would cost its import
        State.SNIFFING: Row(READ, receive_header, close, close, eviction_rank=1),
        State.LINGERING: Row(READ, linger, close),
        State.REPLACED: Row(0),
        State.CLOSED: Row(0),
    }
