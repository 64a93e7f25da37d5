"""The states of a connection. `docs/architecture.md` has the same tables of states and events as the code.

A connection object serves one client and has a transport. The loop calls its methods as follows; there is no base class.

    on_ready()            the event that the state waits for has occurred               by the leader
    on_timeout()          the deadline of the state has passed                          by the leader
    on_drain()            the server accepts nothing more and is to end                 by the leader
    handle_one_request()  the state was QUEUED: run application code, or code that may block    by a thread of the pool
    finish_turn()         do what is left after the run; return the next state             by the same thread
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
    """What a connection does; or, where the text is a noun, what it waits for."""

    SNIFFING = 0
    """On a TLS port, the first bytes, which tell TLS from plain HTTP; of a proxy, the header of the PROXY protocol."""
    HANDSHAKE = 1
    """The client's next part of a TLS handshake."""
    IDLE = 2
    """The first byte of a request."""
    HEAD = 3
    """The rest of a head."""
    BODY = 4
    """The rest of a body that is received before the application is called."""
    QUEUED = 5
    """A thread of the pool."""
    RUNNING = 6
    """A thread of the pool runs `handle_one_request`."""
    SUSPENDED = 7
    """The response has nothing to send yet: it waits for a call of `resume`, its deadline, or the client closing."""
    FLUSHING = 8
    """The client reads more slowly than the response is produced: until there is room in its socket."""
    DISCARDING = 9
    """The rest of a body that the application did not read."""
    CLOSING = 10
    """Until there is room in the send buffer for the close_notify alert of TLS."""
    LINGERING = 11
    """Our side is closed; until the client has closed its side, too, what it sends is discarded."""
    DETACHED = 12
    """The application has taken the socket."""
    REPLACED = 13
    """What comes before HTTP is done: `successor` takes over the socket."""
    CLOSED = 14
    """The end: the loop closes the socket and forgets the connection."""


# For the code that runs for each request: looking a member up in its class costs as much as a method call.
IDLE, QUEUED, RUNNING, FLUSHING = State.IDLE, State.QUEUED, State.RUNNING, State.FLUSHING

OWNED = frozenset((QUEUED, RUNNING))
"""States in which the connection belongs to a thread of the pool, or to its queue: the leader must not touch it."""


Action = Callable[..., State]
"""A method of a connection class, called with the connection; returns the next state."""


class Row:
    """What a state waits for, and the method that is called for each event."""

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
        """None: the server waits for the connection until its grace time is over."""
        self.eviction_rank = eviction_rank
        """Whether the connection may be closed for a new one at the limit: 1 before 2; 0 for never."""
        self.handoff = handoff
        """The connection may be sent to another process instead of being closed."""


Table = Mapping[State, Row]

__all__ = ["FLUSHING", "IDLE", "NEVER", "OWNED", "QUEUED", "READ", "RUNNING", "WRITE", "Row", "State", "Table"]
