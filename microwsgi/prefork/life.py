"""The life of a child process: its states, what moves it from one to the next, and the deadline of each.

`TABLE` is the whole of it. `microwsgi.prefork.supervisor` names the events; what is not in the table changes nothing. Each
state in which a parent waits for its child has a deadline, but for two: an import takes as long as it takes, and so does a
request that old code still runs.
"""

from __future__ import annotations

from collections import namedtuple
from enum import Enum

from microwsgi.process.exiting import EXIT_TIME


class State(Enum):
    """The states of a child."""

    STARTING = "starting"  # it imports the application
    READY = "ready"  # it has imported it, and waits for the order to serve
    CHECKING = "checking"  # it serves, and has not answered yet the test request that it sends to itself
    SERVING = "serving"
    RETIRING = "retiring"  # a successor serves; requests that run are finished, however long they take
    UNRESPONSIVE = "unresponsive"  # it was told to retire and has not confirmed that
    DISMISSED = "dismissed"  # it has served nobody, and is to end
    STOPPING = "stopping"  # requests that run are finished within graceful_timeout
    EXITING = "exiting"  # it has served its last request
    KILLED = "killed"


class Event(Enum):
    """The events of a child."""

    IMPORTED = "imported"  # it says that it has imported the application
    SERVE = "serve"  # it is complete, or nothing else serves
    ANSWERED = "answered"  # it says that it has answered its test request
    UNANSWERED = "unanswered"  # it says that it could not answer its test request
    RETIRE = "retire"  # a successor serves
    CONFIRMED = "confirmed"  # it says that it accepts no more connections
    DISMISS = "dismiss"  # its code is old, or can't be loaded, and it has served nobody
    STOP = "stop"  # INT or TERM to the parent, or its terminal was closed
    STOP_NOW = "stop now"  # a second INT or TERM
    FINISHED = "finished"  # it says that it has served its last request
    DEADLINE = "deadline"  # the time that its state has is over


class Deadline(Enum):
    """How long a state may last, in seconds."""

    NONE = None
    CHECK = 12.0  # the child itself gives up after 10, and knows more
    CONFIRM = 5.0
    UNRESPONSIVE = 60.0
    GRACE = 1.5  # more than --graceful-timeout, after which the child itself cuts requests off
    END = 1.0
    EXIT = EXIT_TIME + 1.0  # after EXIT_TIME the child itself says what keeps it, and ends
    KILL = 10.0  # then the system has not ended a process for so long that it is worth a line


Step = namedtuple("Step", ("state", "order", "deadline"))  # noqa: PYI024 - typing takes 10 ms to import
"""The next state, the order that the child gets (see `microwsgi.prefork.worker`), the deadline of the new state."""

S, E, D = State, Event, Deadline
_end = {
    E.DISMISS: Step(S.DISMISSED, "leave", D.END),
    E.STOP: Step(S.DISMISSED, "leave", D.END),
    E.STOP_NOW: Step(S.DISMISSED, "leave", D.END),
}
_stop = {E.STOP: Step(S.STOPPING, "stop", D.GRACE), E.STOP_NOW: Step(S.STOPPING, "now", D.END)}
_killed = Step(S.KILLED, "", D.KILL)
_exiting = Step(S.EXITING, "", D.EXIT)
_retiring = Step(S.RETIRING, "", D.NONE)

TABLE: dict[State, dict[Event, Step]] = {
    S.STARTING: {E.IMPORTED: Step(S.READY, "", D.NONE), **_end},
    S.READY: {E.SERVE: Step(S.CHECKING, "serve", D.CHECK), E.FINISHED: _exiting, **_end},
    S.CHECKING: {
        E.ANSWERED: Step(S.SERVING, "", D.NONE),
        E.UNANSWERED: _killed,
        E.DEADLINE: _killed,
        E.RETIRE: Step(S.RETIRING, "retire", D.CONFIRM),
        E.FINISHED: _exiting,
        **_stop,
    },
    S.SERVING: {E.RETIRE: Step(S.RETIRING, "retire", D.CONFIRM), E.FINISHED: _exiting, **_stop},
    S.RETIRING: {
        E.CONFIRMED: _retiring,
        E.DEADLINE: Step(S.UNRESPONSIVE, "", D.UNRESPONSIVE),
        E.FINISHED: _exiting,
        **_stop,
    },
    S.UNRESPONSIVE: {E.CONFIRMED: _retiring, E.DEADLINE: _killed, E.FINISHED: _exiting, **_stop},
    S.STOPPING: {
        E.STOP_NOW: Step(S.STOPPING, "now", D.END),
        E.DEADLINE: _killed,
        E.FINISHED: _exiting,
    },
    S.DISMISSED: {E.DEADLINE: _killed},
    S.EXITING: {E.STOP_NOW: Step(S.EXITING, "", D.END), E.DEADLINE: _killed},
    S.KILLED: {E.DEADLINE: _killed},
}

CURRENT = frozenset({S.STARTING, S.READY, S.CHECKING, S.SERVING})
"""States of children that serve or will; the others end."""
LISTENING = frozenset({S.CHECKING, S.SERVING, S.RETIRING, S.UNRESPONSIVE, S.STOPPING})
"""States in which a child obeys orders."""


def next_step(state: State, event: Event) -> Step | None:
    """Return the step for an event in a state; None if the event changes nothing."""
    return TABLE[state].get(event)


def table() -> str:
    """Return the table in docs/daemon.md."""
    lines = ["| state | event | next state | order | seconds |", "|---|---|---|---|---|"]
    for state, events in TABLE.items():
        for event, step in events.items():
            seconds = "" if step.deadline is D.NONE else f"{step.deadline.value:g}"
            seconds = f"`--graceful-timeout` + {seconds}" if step.deadline is D.GRACE else seconds
            lines.append(f"| {state.value} | {event.value} | {step.state.value} | {step.order} | {seconds} |")
    return "\n".join(lines)
