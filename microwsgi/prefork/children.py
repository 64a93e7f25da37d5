"""What `microwsgi.prefork.supervisor` knows of its children, and whom it tells what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from microwsgi.prefork.channel import Channel, Message
from microwsgi.prefork.processes import Started

STARTING, READY, SERVING, LEAVING = "starting", "ready", "serving", "leaving"
"""What a child is at: it imports the application; it waits for the word to serve; it serves; it ends."""

ANSWER = 1.0
"""Seconds that children may take to tell their figures."""
NEVER = float("inf")


class Generation:
    """What its children have in common: the code, and why there is other code than before."""

    def __init__(self, changed: list[str] | None = None) -> None:
        self.changed = changed or []
        self.began = time.monotonic()
        self.proven = False  # the application can be imported
        self.failed = False  # it can't; nobody tries again before there is a reason
        self.serves = False
        self.trouble = ""  # what is wrong with it, when even the attempt to import it ends the process
        self.files: dict[str, bytes] = {}  # what has been read of it, and the digests of that


class Child:
    """A process, its channel, and what is known of it."""

    def __init__(self, process: Started, channel: Channel, generation: Generation) -> None:
        self.process = process
        self.pid = process.pid
        self.channel = channel
        self.generation = generation
        self.state = STARTING
        self.began = time.monotonic()
        self.broken = False  # it serves what went wrong
        self.name = ""  # of the application
        self.message: Message = {}  # with which it was ready, or failed
        self.figures: Message = {}  # of its last report
        self.kill_at = NEVER

    def order(self, word: str) -> None:
        """Tell it to do something: see `microwsgi.prefork.worker`."""
        self.channel.tell(do=word)


class Question:
    """Figures that were asked for: of whom they are missing, until when they are waited for, and what is done then."""

    def __init__(self, children: list[Child], then: Callable[[bool], object]) -> None:
        self.children = children
        self.then = then
        self.until = time.monotonic() + ANSWER


class Notices:
    """What a supervisor has to tell, and to whom: to nobody. The edge tells it to a terminal, or to a log."""

    def serving(self, child: Child) -> None:
        """The code of this child's generation is served, and no other."""

    def failed(self, generation: Generation, text: str, *, serving: bool) -> None:
        """A generation can't be loaded; `serving`: an older one goes on."""

    def died(self, child: Child, how: str, pause: float) -> None:
        """A child ended that should not have; another is started in its place after so many seconds."""

    def prompting(self) -> None:
        """A child has the terminal from here on, for its debugger."""

    def prompt_lost(self) -> None:
        """It has died with it."""

    def chores(self, message: Message) -> Iterator[object]:  # noqa: ARG002 - for those who have some
        """What makes the next children quicker, after one has imported the application; done step by step in idle time."""
        return iter(())
