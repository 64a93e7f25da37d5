"""The states of a connection. `docs/architecture.md` has the same tables of states and events as the code.

A connection object serves one client and has a transport. The loop calls its methods as follows; there is no base class.

    on_ready()            the event that the state waits for has occurred               by the leader
    on_timeout()          the deadline of the state has passed                          by the leader
    on_drain()            the server is stopping                                        by the leader
    handle_one_request()  the state was QUEUED: run application code, or code that may block    by a thread of the pool
    finish_turn()         send the response, write the log; return the next state          by the same thread
    enter(state)          set the state, its interest and its deadline                  by the leader, or see `Loop.finish`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from selectors import EVENT_READ as READ
from selectors import EVENT_WRITE as WRITE

from microwsgi.support.typenames import UNSET

NEVER = float("inf")


class State(IntEnum):
    """The state of a connection: the event that it waits for, or the thread that owns it.

    The order matters: from DETACHED on the loop removes the connection, and states before BODY hold no complete head.
    """

    SNIFFING = 0
    """Waits for the first bytes. On a TLS port they distinguish TLS from HTTP; from a proxy they are the PROXY header."""
    HANDSHAKE = 1
    """Waits for the client's next message of the TLS handshake."""
    IDLE = 2
    """Waits for the first byte of a request."""
    HEAD = 3
    """Waits for the rest of a request head."""
    BODY = 4
    """Waits for the rest of a body that is received before the application is called."""
    QUEUED = 5
    """Waits for a thread of the pool."""
    RUNNING = 6
    """A thread runs `handle_one_request`; a TLS handshake may still wait for a thread of HandshakePool."""
    SUSPENDED = 7
    """The response has nothing to send yet. Waits for a call of `resume`, for the deadline, or for the client to close."""
    FLUSHING = 8
    """Output is left in the buffer. Waits until the kernel can take more, since the client reads slowly."""
    DISCARDING = 9
    """Waits for the rest of a body that the application did not read, and discards that rest."""
    CLOSING = 10
    """Waits for room in the kernel's send buffer for the close_notify alert of TLS."""
    LINGERING = 11
    """Our side is shut down (SHUT_WR). Waits until the client closes its side, and discards the bytes that still arrive."""
    DETACHED = 12
    """The application has taken the socket."""
    REPLACED = 13
    """The handshake or the PROXY protocol header is done: the connection object `replacement` takes over the socket."""
    CLOSED = 14
    """The connection has ended: the loop closes the socket and removes the connection."""


# For the code that runs for each request: looking a member up in its class costs as much as a method call.
IDLE, QUEUED, RUNNING, FLUSHING = State.IDLE, State.QUEUED, State.RUNNING, State.FLUSHING

OWNED = frozenset((QUEUED, RUNNING))
"""States in which the connection belongs to a thread of the pool, or is in its queue: the leader must not touch it."""


Action = Callable[..., State]
"""A method of a connection class, called with the connection; returns the next state."""


class Row:
    """One row of a state table: the event that the state waits for, and the method for each event."""

    __slots__ = ("eviction_rank", "handoff", "interest", "on_deadline", "on_drain", "on_event")

    def __init__(
        self,
        interest: int,
        on_event: Action = UNSET,
        on_deadline: Action | None = None,
        on_drain: Action | None = None,
        *,
        eviction_rank: int = 0,
        handoff: bool = False,
    ) -> None:
        self.interest = interest
        self.on_event = on_event
        """UNSET if the state waits for no event."""
        self.on_deadline = on_deadline
        self.on_drain = on_drain
        """None: while the server drains, the connection continues until `graceful_timeout` is over."""
        self.eviction_rank = eviction_rank
        """The order in which connections are closed for new ones at the limit: 1 before 2; 0: never."""
        self.handoff = handoff
        """The connection may be sent to another process instead of being closed."""


Table = Mapping[State, Row]

__all__ = ["FLUSHING", "IDLE", "NEVER", "OWNED", "QUEUED", "READ", "RUNNING", "WRITE", "Row", "State", "Table"]
