"""The state that `microwsgi.prefork.supervisor` keeps for each child, and the observer of its events."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from microwsgi.prefork.channel import Channel, Message
from microwsgi.prefork.life import State
from microwsgi.prefork.processes import Started
from microwsgi.server.balance import Balance

REPORT_TIME = 1.0
"""Seconds for children to report their counts."""
NEVER = float("inf")


class Generation:
    """A generation of children, which have the same code; and the files whose change began it."""

    def __init__(self, began: float, changed: list[str] | None = None) -> None:
        self.changed = changed or []
        self.began = began
        self.proven = False  # the application can be imported
        self.failed = False  # it can't; nobody tries again before there is a reason
        self.serves = False
        self.fatal_error = ""  # why it can't be imported, if the attempt has ended the process
        self.files: dict[str, bytes] = {}  # what has been read of it, and the digests of that


class Child:
    """A child process, its channel and its state."""

    def __init__(
        self, process: Started, channel: Channel, generation: Generation, began: float, balance: Balance | None
    ) -> None:
        self.process = process
        self.pid = process.pid
        self.channel = channel
        self.generation = generation
        self.state = State.STARTING
        self.began = began
        self.balance = balance
        self.broken = False  # it serves the page that shows what is wrong
        self.leaving = False  # it was sent TERM; a successor is to take its place
        self.expected = False  # to end: it was told so
        self.unanswered = False  # it has not answered its test request in time
        self.name = ""  # of the application
        self.message: Message = {}  # with which it was ready, or failed
        self.stats: Message = {}  # of its last report
        self.asked = False  # for a report that has not come yet
        self.deadline = NEVER
        self.topics: set[str] = set()  # whose events it gets
        self.lost_events = 0  # since it last read all that was queued

    def send_order(self, word: str) -> None:
        """Send an order: see `microwsgi.prefork.worker`."""
        self.channel.send(do=word)


class Question:
    """A question about the counts: the children whose reports are missing, how long to wait, and what is done then."""

    def __init__(self, children: list[Child], then: Callable[[bool], object], until: float) -> None:
        self.children = children
        self.asked = bool(children)
        self.then = then
        self.until = until


class Questions:
    """The questions about the counts of children that wait for answers."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.waiting: list[Question] = []

    def ask(self, children: list[Child], then: Callable[[bool], object]) -> None:
        """Have these children report; `then` is to be called with whether all have, and there is one.

        A child that has not answered the last question is not asked again: its channel would fill up.
        """
        self.waiting.append(Question(children, then, self.clock() + REPORT_TIME))
        for child in children:
            if not child.asked:
                child.asked = True
                child.send_order("report")

    def answered(self, child: Child) -> None:
        """Record that a child has reported, or never will."""
        for question in self.waiting:
            question.children = [each for each in question.children if each is not child]

    def deadlines(self) -> list[float]:
        """Return the deadlines of the questions."""
        return [question.until for question in self.waiting]

    def take_answered(self) -> list[tuple[Callable[[bool], object], bool]]:
        """What to call for the questions that need not wait any more, and with what."""
        now = self.clock()
        done = [question for question in self.waiting if not question.children or now >= question.until]
        self.waiting = [question for question in self.waiting if question not in done]
        return [(question.then, question.asked and not question.children) for question in done]


class Observer:
    """The events of a supervisor. `microwsgi.serving.supervised` prints or logs them; here nobody listens."""

    def serving(self, child: Child) -> None:
        """The code of this child's generation is served, and no other."""

    def failed(self, generation: Generation, text: str, *, serving: list[int]) -> None:
        """A generation can't be loaded; `serving`: the process ids of the older one that still serves."""

    def died(self, child: Child, how: str, pause: float) -> None:
        """A child ended unexpectedly; another is started after a pause."""

    def leaving(self, child: Child) -> None:
        """A child was sent TERM: a new worker starts, and then it retires."""

    def late(self, child: Child, previous: State, text: str) -> None:
        """A child has exceeded the deadline of its state, or has reported that itself, with a text."""

    def lagging(self, child: Child) -> None:
        """A child does not read its events; they are dropped until it does."""

    def not_started(self, error: BaseException, pause: float) -> None:
        """A child could not be started; the next attempt follows after a pause."""

    def trouble(self, error: BaseException) -> None:
        """A call failed in the parent, which continues."""

    def prompting(self) -> None:
        """A child has taken the terminal for its debugger."""

    def prompt_lost(self) -> None:
        """The child that had the terminal has died."""

    def write_queued(self) -> float:
        """Write messages that wait for a terminal; the seconds until the next attempt, NEVER if none waits."""
        return NEVER

    def chores(self, message: Message) -> Iterator[object]:  # subclasses may add some
        """What makes the next children start faster, once one has imported the application; done step by step in idle time."""
        return iter(())
