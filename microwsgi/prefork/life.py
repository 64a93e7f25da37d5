"""The life of a child process: its states, what moves it from one to the next, and the deadline of each.

`TABLE` has all of this. `microwsgi.prefork.supervisor` reports the events; an event that a state has no row for changes
nothing. Each state in which the parent waits for its child has a deadline, except in two cases: the time of an import is not
limited, nor is that of a request that old code still runs.
"""

from __future__ import annotations

from collections import namedtuple
from enum import Enum

from microwsgi.process.exiting import EXIT_TIME


class State(Enum):
    """The states of a child."""

    STARTING = "starting"  # it imports the application
    READY = "ready"  # it has imported the application, and waits for the order to serve
    CHECKING = "checking"  # it serves, and has not yet answered the test request that it sends to itself
    SERVING = "serving"
    RETIRING = "retiring"  # newer children serve; running requests are finished, however long they take
    UNRESPONSIVE = "unresponsive"  # it was ordered to retire, and has not confirmed that
    DISMISSED = "dismissed"  # it has served no request, and was ordered to end
    STOPPING = "stopping"  # running requests are finished within graceful_timeout
    EXITING = "exiting"  # it has served its last request
    KILLED = "killed"


class Event(Enum):
    """The events of a child."""

    IMPORTED = "imported"  # it reports that it has imported the application
    SERVE = "serve"  # all children of its generation are ready, or no older child serves the application
    ANSWERED = "answered"  # it reports that it has answered its test request
    UNANSWERED = "unanswered"  # it reports that it could not answer its test request
    RETIRE = "retire"  # newer children serve
    CONFIRMED = "confirmed"  # it reports that it accepts no more connections
    DISMISS = "dismiss"  # its code is old or can't be loaded, and it has served no request
    STOP = "stop"  # INT or TERM to the parent, or its terminal was closed
    STOP_NOW = "stop now"  # a second INT or TERM
    FINISHED = "finished"  # it reports that it has served its last request
    DEADLINE = "deadline"  # the time limit of its state is over


class Deadline(Enum):
    """How long a state may last, in seconds."""

    NONE = None
    CHECK = 12.0  # the child itself gives up after 10, and can report the reason
    CONFIRM = 5.0
    UNRESPONSIVE = 60.0
    GRACE = 1.5  # in addition to --graceful-timeout, after which the child itself aborts its requests
    END = 1.0
    EXIT = EXIT_TIME + 1.0  # after EXIT_TIME the child itself logs why it has not ended, and ends
    KILL = 10.0  # SIGKILL has had no effect for this long: log that


Step = namedtuple("Step", ("state", "order", "deadline"))  # noqa: PYI024 - typing takes 10 ms to import
"""The next state, the order that is sent to the child (see `microwsgi.prefork.worker`), and the deadline of the new state."""

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
"""States of children that serve or will serve; the others are ending."""
OBEYING = frozenset({S.CHECKING, S.SERVING, S.RETIRING, S.UNRESPONSIVE, S.STOPPING})
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
