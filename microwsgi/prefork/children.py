"""The state that `microwsgi.prefork.supervisor` keeps for each child, and the observer of its events."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from microwsgi.prefork.channel import Channel, Message
from microwsgi.prefork.life import State
from microwsgi.prefork.processes import Started
from microwsgi.server.balance import Balance

REPORT_TIME = 1.0
"""Seconds within which children report their counts."""
NEVER = float("inf")


class Generation:
    """A generation of children that have the same code, and the files whose change began it."""

    def __init__(self, began: float, changed: list[str] | None = None) -> None:
        self.changed = changed or []
        self.began = began
        self.proven = False  # the application can be imported
        self.failed = False  # it can't be imported; there is no further attempt before a change, HUP or `try_again`
        self.serves = False
        self.fatal_error = ""  # why it can't be imported, if the attempt has ended the process
        self.files: dict[str, bytes] = {}  # the files that its children have read, with their digests


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
        self.broken = False  # it serves the error page, since the application can't be loaded
        self.leaving = False  # it has received TERM; another child will replace it
        self.end_expected = False  # it was ordered to end
        self.unanswered = False  # it has not answered its test request in time
        self.name = ""  # of the application
        self.message: Message = {}  # its report that it has imported the application
        self.stats: Message = {}  # its last report of counts
        self.asked = False  # a report was requested, and has not arrived yet
        self.deadline = NEVER
        self.topics: set[str] = set()  # the topics that it has subscribed to
        self.lost_events = 0  # dropped since it last read all queued events

    def send_order(self, word: str) -> None:
        """Send an order: see `microwsgi.prefork.worker`."""
        self.channel.send(do=word)


class Question:
    """A question about the counts: the children whose reports are missing, the function for the result, and the deadline."""

    def __init__(self, children: list[Child], then: Callable[[bool], object], until: float) -> None:
        self.children = children
        self.had_children = bool(children)
        self.then = then
        self.until = until


class Questions:
    """The questions about counts that children have not answered yet."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.waiting: list[Question] = []

    def ask(self, children: list[Child], then: Callable[[bool], object]) -> None:
        """Order these children to report. `then` is called with True if there is one, and each has reported or ended.

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
        """Remove the questions that are answered or overdue. Return the function to call for each, and its argument."""
        now = self.clock()
        done = [question for question in self.waiting if not question.children or now >= question.until]
        self.waiting = [question for question in self.waiting if question not in done]
        return [(question.then, question.had_children and not question.children) for question in done]


class Observer:
    """Methods that a supervisor calls at its events. They do nothing here; `microwsgi.serving.supervised` prints or logs."""

    def serving(self, child: Child) -> None:
        """All serving children now have the code of this child's generation."""

    def failed(self, generation: Generation, text: str, *, serving: list[int]) -> None:
        """A generation can't be loaded; `serving`: the process IDs of older children that still serve."""

    def died(self, child: Child, how: str, pause: float) -> None:
        """A child ended unexpectedly; another is started after a pause."""

    def leaving(self, child: Child) -> None:
        """A child has received TERM: another child is started, and then this one retires."""

    def late(self, child: Child, previous: State, text: str) -> None:
        """A child has exceeded the time limit of the state `previous`, or has itself reported a failed check with a text."""

    def lagging(self, child: Child) -> None:
        """A child does not read its events; they are dropped until it does."""

    def not_started(self, error: BaseException, pause: float) -> None:
        """A child could not be started; the next attempt follows after a pause."""

    def call_failed(self, error: BaseException) -> None:
        """A call in the parent has raised an exception; the parent continues."""

    def prompting(self) -> None:
        """A child has taken the terminal for its debugger."""

    def prompt_lost(self) -> None:
        """The child that had the terminal has died."""

    def write_queued(self) -> float:
        """Write messages that wait for a terminal. Return the seconds until the next attempt; NEVER if none waits."""
        return NEVER

    def chores(self, message: Message) -> Iterator[object]:
        """Return work for idle time, done step by step, that makes the next children start faster."""
        return iter(())
