"""The parent of serving processes: it starts them, replaces them, and stops them. It never imports the application.

It holds the listening sockets, which each child inherits: closing one copy loses no connection, where one of several
SO_REUSEPORT listeners would take its queue along. Children send messages on a channel, and get orders there
(`microwsgi.prefork.worker`). All is done by one loop in one thread, so that a fork copies no lock that somebody holds:

    Supervisor.run
      arrange     start what is missing; have those serve that are ready, and older ones retire
      wait        for signals, messages of children, changed files, and deadlines; act on each

Children of one *generation* have the same code. A new generation begins when files have changed, or with HUP. Its first child
proves that the application can be imported, then the others follow; when all have answered a request of their own the older
ones retire. If it fails, the last good generation goes on serving. `microwsgi.prefork.life` has the states of a child.

The loop never blocks but in `System.poll`, and no exception ends it: each system call goes through a `System`, may fail at each
place, and is tried again later, while the children that there are go on serving.
"""

from __future__ import annotations

import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from mmap import mmap

from microwsgi.errors import LoadError
from microwsgi.options import Options
from microwsgi.prefork.channel import Channel, Message
from microwsgi.prefork.children import NEVER, Child, Generation, Observer, Questions
from microwsgi.prefork.life import CURRENT, LISTENING, Deadline, Event, State, next_step
from microwsgi.prefork.processes import Inheritance, Started, describe_exit, reap
from microwsgi.prefork.signals import Signals
from microwsgi.prefork.topics import Topics
from microwsgi.prefork.watch import Watch
from microwsgi.process.system import READ, System
from microwsgi.server.balance import SIZE, Balance
from microwsgi.server.handoff import Handoff

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before another child is started where two in a row have died young, or the system had none; doubled each time."""
YOUNG = 5.0
"""Seconds after its start in which a child's death counts as one at the start."""
TROUBLE_PAUSE = 0.2
"""Seconds that the loop rests after an exception, so that one that comes again and again does not take a processor."""
CLEAN = (0, -signal.SIGTERM)
"""Exit codes of a child that was told to end, by TERM or by its own code: it has not crashed."""


class Supervisor:
    """Serving processes: `options.workers` of them, or one, always of the newest code that works.

    `start` makes a process, which has the second end of a channel, and what it inherits. With a `watch`, code that can't be
    loaded is waited for; without one, `run` raises LoadError if that is so at the start.
    """

    def __init__(
        self,
        options: Options,
        listeners: list[socket.socket],
        start: Callable[[Inheritance, socket.socket, socket.socket], Started],
        *,
        observer: Observer | None = None,
        watch: Watch | None = None,
        system: System | None = None,
    ) -> None:
        self.options = options
        self.wanted = options.workers or 1
        self.listeners = listeners
        self.start_process = start
        self.observer = observer or Observer()
        self.watch = watch
        self.system = system or System()
        self.clock = self.system.monotonic
        self.handoff = Handoff.new()
        # Shared with forked children. Three places for each worker: old ones retire while new ones start.
        self.table = memoryview(mmap(-1, self.wanted * 3 * SIZE) if self.wanted > 1 else b"").cast("Q")
        self.first = self.generation = Generation(self.clock())
        self.children: list[Child] = []
        self.has_served = False
        self.succeeded: tuple[Child, list[Child]] | None = None
        """The first child of the code that is to be all that is served, and the children that still accept connections."""
        self.retry_at = 0.0
        self.young_deaths = 0  # in a row
        self.failed_starts = 0  # in a row
        self.stops = 0
        self.error: LoadError | None = None
        self.prompts: list[Child] = []  # the child that has the terminal, and those that wait for it
        self.chores: deque[Iterator[object]] = deque()
        self.requests = self.errors = 0  # of children that have ended
        self.questions = Questions(self.clock)
        self.topics = Topics(lambda: self.children, self.observer.lagging)
        self.inputs: dict[int, Callable[[], object]] = {}  # descriptors of the edge, and what reads there
        self.timers: list[tuple[Callable[[], float], Callable[[], object]]] = []
        """Of the edge: when something is due, and what is done then."""
        actions: dict[int, Callable[[], object]] = {signal.SIGINT: self.stop, signal.SIGTERM: self.stop}
        if os.name == "posix":
            actions |= {signal.SIGHUP: self.reload, signal.SIGCHLD: self.reap}
        self.signals = Signals(self.system, actions)

    # --- The loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until INT or TERM. Raises LoadError."""
        try:
            with self.signals.received():
                while self.children or not self.stops:
                    self.attempt(self.arrange)
                    self.attempt(self.wait)
        finally:
            for child in self.children:
                self.attempt(child.process.send_signal, signal.SIGKILL)
            self.close()
            if self.handoff is not None:
                self.handoff.close()
        if self.error is not None:
            raise self.error

    def attempt(self, act: Callable[..., object], *arguments: object) -> None:
        """Call something; an exception is told, and the loop goes on."""
        try:
            act(*arguments)
        except Exception as error:  # the parent must not die while its children serve
            with suppress(Exception):
                self.observer.trouble(error)
            self.system.sleep(TROUBLE_PAUSE)

    def wait(self) -> None:
        """Wait for what comes first, and act on it; do a chore when nothing comes."""
        ready = dict(self.system.poll(self.interests(), self.time_left()))
        if self.signals.fileno() in ready:
            self.attempt(self.read_signals)
        for child in self.children[:]:
            if child.channel.fileno() in ready and child.channel.fileno() >= 0:
                self.attempt(child.channel.write_queued)
                self.attempt(self.topics.catch_up, child)
                self.attempt(self.read, child)
        for descriptor, read in list(self.inputs.items()):
            if descriptor in ready:
                self.attempt(read)
        now = self.clock()
        for next_timeout, act in self.timers:
            if now >= next_timeout():
                self.attempt(act)
        for then, all_have in self.questions.take_answered():
            self.attempt(then, all_have)
        watch = self.watch
        if watch is not None and (now >= watch.next_check or watch.fileno() in ready):
            self.attempt(lambda: self.on_change(watch.check()))
        for child in self.children[:]:
            self.attempt(self.handle_event, child, now)
        if self.chores and not ready:
            self.attempt(self.run_chore)

    def interests(self) -> dict[int, int]:
        """The descriptors to wait for, each with its events."""
        found = {child.channel.fileno(): child.channel.interest for child in self.children}
        found |= dict.fromkeys(self.inputs, READ)
        found[self.signals.fileno()] = READ
        if self.watch is not None:
            found[self.watch.fileno()] = READ
        found.pop(-1, None)
        return found

    def time_left(self) -> float | None:
        """Until something is due."""
        if self.chores:
            return 0.0
        now = self.clock()
        due = [child.deadline for child in self.children] + self.questions.deadlines()
        due += [next_timeout() for next_timeout, _ in self.timers]
        due.append(now + self.observer.write_queued())
        if self.retry_at > now:
            due.append(self.retry_at)
        if self.watch is not None:
            due.append(self.watch.next_check)
        soonest = min(due, default=NEVER)
        return None if soonest == NEVER else max(soonest - now, 0.0)

    def read_signals(self) -> None:
        """Act on the signals that have come."""
        for act in self.signals.read():
            self.attempt(act)

    def handle_event(self, child: Child, now: float) -> None:
        """See whether a child has ended, or is late."""
        if child.process.poll() is not None:
            self.ended(child)
        elif now >= child.deadline:
            self.advance(child, Event.DEADLINE)

    def run_chore(self) -> None:
        """One step of what makes the next children quicker."""
        if next(self.chores[0], self) is self:
            self.chores.popleft()

    # --- The life of a child ------------------------------------------------------------------------------------------

    def advance(self, child: Child, event: Event, text: str = "") -> None:
        """Something happened to a child: its next state, an order, a deadline (`microwsgi.prefork.life`)."""
        step = next_step(child.state, event)
        if step is None:
            return
        was, child.state = child.state, step.state
        self.limit(child, step.deadline)
        if step.order:
            child.send_order(step.order)
        child.expected |= event in {Event.RETIRE, Event.DISMISS, Event.STOP, Event.STOP_NOW}
        child.unanswered |= was is State.CHECKING and step.state is State.KILLED
        if step.order == "leave":
            child.process.send_signal(signal.SIGTERM)  # it may be importing, and read no orders
        if event in {Event.DEADLINE, Event.UNANSWERED} and was is not State.DISMISSED and self.stops < 2:
            self.observer.late(child, was, text)
        if step.state is State.UNRESPONSIVE:
            self.accepts_no_more(child)
        if step.state is State.KILLED:
            child.process.send_signal(signal.SIGKILL)

    def limit(self, child: Child, deadline: Deadline) -> None:
        """Set when a child is late; a person at the debugger's prompt is, only for a second signal."""
        seconds = deadline.value
        if seconds is None or (child in self.prompts and self.stops < 2):
            child.deadline = NEVER
            return
        child.deadline = self.clock() + seconds + (self.options.graceful_timeout if deadline is Deadline.GRACE else 0.0)

    def current(self) -> list[Child]:
        """The children of the newest code that serve, or will."""
        return [
            child
            for child in self.children
            if child.generation is self.generation and child.state in CURRENT and not child.leaving
        ]

    def serving(self) -> list[Child]:
        """The children that serve, of whatever code."""
        return [child for child in self.children if child.state in {State.SERVING, State.CHECKING}]

    def useful(self) -> list[Child]:
        """The children that serve the application, and not the page that shows what is wrong with it."""
        return [child for child in self.serving() if not child.broken]

    def shows_page(self) -> bool:
        """Return whether code that can't be loaded is answered with a page that says why, and not by an older generation."""
        return self.watch is not None and (self.options.reload_error_page or not self.useful())

    # --- Generations --------------------------------------------------------------------------------------------------

    def arrange(self) -> None:
        """Start what is missing, and replace older children; but not while a person is at a debugger's prompt."""
        if self.stops or self.prompts:
            return
        current = self.current()
        older = [child for child in self.serving() if child not in current]
        ready = [child for child in current if child.state is State.READY]
        complete = sum(child.state is not State.STARTING for child in current) >= self.wanted
        if ready and (complete or all(child.broken for child in older)):
            for child in ready:
                self.advance(child, Event.SERVE)
        answered = [child for child in current if child.state is State.SERVING]
        if answered and (len(answered) >= self.wanted or all(child.broken for child in older)):
            self.succeed(answered, older)
        if not self.generation.failed and self.clock() >= self.retry_at:
            for _ in range((self.wanted if self.generation.proven else 1) - len(current)):
                if not self.start():
                    break

    def succeed(self, answered: list[Child], older: list[Child]) -> None:
        """These serve: older children retire."""
        for child in older:
            self.advance(child, Event.RETIRE)
        if not self.generation.serves and not answered[0].broken:
            self.has_served = True
            self.generation.serves = True
            self.succeeded = answered[0], older
            self.chores.append(self.observer.chores(answered[0].message))
            self.accepts_no_more(None)

    def accepts_no_more(self, child: Child | None) -> None:
        """A child accepts no connections any more. With the last one of the older code, the new code is all that is served."""
        if self.succeeded is None:
            return
        first, older = self.succeeded
        if child in older:
            older.remove(child)
        if not any(each in self.children for each in older):
            self.succeeded = None
            self.observer.serving(first)

    def start(self) -> bool:
        """Start a child of the newest generation; if the system has none to give, try again later."""
        try:
            ours, theirs = self.system.socketpair()
        except OSError as error:
            self.not_started(error)
            return False
        balance = self.new_balance()
        with theirs:
            given = Inheritance(
                self.system,
                self.listeners,
                self.handoff,
                [*self.signals.actions],
                self.generation.trouble,
                self.generation is not self.first,
                balance,
                self.close,
            )
            try:
                process = self.start_process(given, ours, theirs)
            except (OSError, MemoryError) as error:
                ours.close()
                self.not_started(error)
                return False
        self.failed_starts = 0
        child = Child(process, Channel(ours, self.system), self.generation, self.clock(), balance)
        self.children.append(child)
        return True

    def new_balance(self) -> Balance | None:
        """Return a free place in the table of `microwsgi.server.balance`; None for a single worker, or if there is none."""
        used = {child.balance.slot for child in self.children if child.balance is not None}
        slot = next((slot for slot in range(len(self.table)) if slot not in used), None)
        return None if slot is None else Balance(self.table, slot)

    def not_started(self, error: BaseException) -> None:
        """The system has no process, no descriptor or no memory just now."""
        pause = min(FIRST_PAUSE * 2**self.failed_starts, LONGEST_PAUSE)
        self.failed_starts += 1
        self.retry_at = self.clock() + pause
        self.observer.not_started(error, pause)

    def reload(self) -> None:
        """Load the code anew, for all children: HUP."""
        self.new_generation(Generation(self.clock()))

    def new_generation(self, generation: Generation) -> None:
        """Begin a generation; children that still load an older one are not waited for."""
        self.generation = generation
        self.retry_at = 0.0
        self.young_deaths = 0  # those of other code
        for child in self.children[:]:
            if child.state in {State.STARTING, State.READY}:
                self.attempt(self.advance, child, Event.DISMISS)

    # --- Messages of children -----------------------------------------------------------------------------------------

    def read(self, child: Child) -> None:
        """Read a child's messages. The end of its channel says nothing that its death does not."""
        messages = child.channel.receive()
        if messages is None:
            child.channel.close()
            return
        for message in messages:
            self.attempt(self.handle_message, child, message)

    def handle_message(self, child: Child, message: Message) -> None:
        """Act on one message."""
        if "ready" in message:
            self.imported(child, message)
        elif "failed" in message:
            self.failed(child, message)
        elif "files" in message:
            self.read_files(child, message["files"])
        elif "answered" in message:
            self.advance(child, Event.ANSWERED)
        elif "unanswered" in message:
            self.advance(child, Event.UNANSWERED, str(message["unanswered"]))
        elif "accept_stopped" in message:
            self.advance(child, Event.CONFIRMED)
            self.accepts_no_more(child)
        elif "leaving" in message:
            self.leave(child)
        elif "finished" in message:
            self.advance(child, Event.FINISHED)
        elif "prompt" in message:
            self.prompt(child, wanted=bool(message["prompt"]))
        elif "report" in message:
            child.stats = message["report"]
            child.asked = False
            self.questions.answered(child)
        else:
            self.topics.handle_message(child, message)

    def read_files(self, child: Child, files: dict[str, bytes]) -> None:
        """A child has read files of the application: at its start, or in a request."""
        child.generation.files |= files
        if self.watch is not None and child.generation is self.generation and child.state in CURRENT:
            self.watch.watch_also(files)
            self.on_change(self.watch.differing(files))

    def imported(self, child: Child, message: Message) -> None:
        """A child could serve; it must not with code that is not that of now."""
        child.name = str(message["ready"])
        if child.broken and child.state is State.STARTING:
            # What the children before it serve is no more than what was wrong then.
            self.advance(child, Event.IMPORTED)
            self.advance(child, Event.SERVE)
            for older in self.serving():
                if older is not child:
                    self.advance(older, Event.RETIRE)
        elif self.up_to_date(child, message):
            child.message = message
            child.generation.proven = True
            self.advance(child, Event.IMPORTED)

    def failed(self, child: Child, message: Message) -> None:
        """A child can't load the application."""
        if not self.up_to_date(child, message):
            return
        text = str(message["failed"])
        unusable = bool(message.get("unusable"))  # the application has done something to the interpreter itself
        known = bool(child.generation.trouble)
        if self.shows_page() and not unusable:
            child.broken = True
            child.send_order("show")
        else:
            self.advance(child, Event.DISMISS)
        if not known:
            self.chores.append(self.observer.chores(message))
            if unusable:
                self.generation.trouble = text
            self.give_up(child.generation, text)
            if unusable and self.shows_page():
                self.start()  # another process shows that

    def give_up(self, generation: Generation, text: str) -> None:
        """A generation can't be loaded: wait for better code; or, where it is code that must serve, try again later."""
        if self.watch is None and not self.has_served:
            self.error = LoadError(text)
            self.stop()
            return
        generation.failed = True
        serving = [] if self.shows_page() else [child.pid for child in self.useful()]
        self.observer.failed(generation, text, serving=serving)
        if self.watch is None and len(self.serving()) < self.wanted:
            self.try_again()

    def up_to_date(self, child: Child, message: Message) -> bool:
        """Whether the files are still as the child has read them. If they are not, the next child is on its way."""
        child.generation.files |= message.get("files", {})
        if child.generation is not self.generation or child.state not in CURRENT:
            return False
        if self.watch is None:
            return True
        files = set().union(*(each.generation.files for each in [*self.serving(), child]))
        changed: set[str] = set()
        try:
            if not child.generation.trouble:  # else it has imported nothing
                self.watch.watch_only(files, message.get("folders", ()))
            changed = {*self.watch.check(), *self.watch.differing(child.generation.files)}
        except OSError as error:
            self.observer.trouble(error)  # the child is not to wait for an answer to its message because of that
        self.on_change(sorted(changed))
        return not changed

    def on_change(self, changed: list[str]) -> None:
        """Files have changed; beside those, perhaps, whose new content nobody has tried yet."""
        if not changed or self.stops:
            return
        untried = self.generation.changed if not (self.generation.serves or self.generation.failed) else []
        began = self.generation.began if untried else self.clock()
        self.new_generation(Generation(began, sorted({*changed, *untried})))

    def leave(self, child: Child) -> None:
        """A child was sent TERM: a new worker starts, then it retires."""
        if child.state in CURRENT and not child.leaving and not self.stops:
            child.leaving = True
            self.observer.leaving(child)

    def prompt(self, child: Child, *, wanted: bool) -> None:
        """Give the terminal to one child at a time."""
        before = self.prompts[:1]
        if wanted:
            self.prompts.append(child)
        elif child in self.prompts:
            self.prompts.remove(child)
        if child.state is State.STOPPING:
            self.limit(child, Deadline.END if self.stops > 1 else Deadline.GRACE)
        elif wanted:
            child.deadline = NEVER
        if self.prompts[:1] != before and self.prompts:
            self.observer.prompting()
            self.prompts[0].send_order("prompt")

    # --- Questions ----------------------------------------------------------------------------------------------------

    def ask(self, then: Callable[[bool], object], states: frozenset[State] = LISTENING) -> None:
        """Have the children in these states report their counts; `then` is called with whether all have, and there is one."""
        self.questions.ask([child for child in self.children if child.state in states], then)

    # --- What becomes of them -----------------------------------------------------------------------------------------

    def ended(self, child: Child) -> None:
        """A child is dead: read its last messages, forget it, and start another if that was not meant."""
        while child.channel.fileno() >= 0:
            messages = child.channel.receive()
            if messages is None or child.channel.empty:  # a process that it has forked may still have its end
                child.channel.close()
            for message in messages or ():
                self.attempt(self.handle_message, child, message)
        self.children.remove(child)
        if child.balance is not None:
            child.balance.leave()
        self.accepts_no_more(child)
        self.questions.answered(child)
        self.requests += int(child.stats.get("requests", 0))
        self.errors += int(child.stats.get("errors", 0))
        if self.prompts[:1] == [child]:
            self.observer.prompt_lost()
        while child in self.prompts:
            self.prompt(child, wanted=False)
        if not self.stops:
            self.replace(child, child.process.poll() or 0)

    def replace(self, child: Child, code: int) -> None:
        """A child has ended: see whether it should have, and when another is started."""
        if child.expected or child.leaving:
            return
        how = describe_exit(code)
        young = self.clock() - child.began < YOUNG
        if child.unanswered:
            if self.watch is None and not self.has_served:
                self.give_up(self.generation, f"{child.name} can't be served.")
            else:
                self.try_again(young=young)
        elif child.state is State.STARTING and (self.watch is not None or not child.generation.proven):
            if child.generation is not self.generation:
                return
            if self.generation.trouble:  # which this child was to show
                self.observer.died(child, how, self.try_again())
            else:
                self.generation.trouble = f"the process that imports the application {how}."
                self.give_up(self.generation, self.generation.trouble)
                if self.shows_page():
                    self.start()  # which shows that
        elif self.watch is None and not self.has_served:
            self.give_up(self.generation, f"{child.name} can't be served: the worker {how}.")
        else:
            crashed = code not in CLEAN or (code == 0 and child.state not in {State.SERVING, State.EXITING})
            self.observer.died(child, how, self.try_again(young=young) if crashed else 0.0)

    def try_again(self, *, young: bool = True) -> float:
        """Start another child: at once, or after a pause if the last ones died young; how long that is."""
        pause = min(FIRST_PAUSE * 2 ** (self.young_deaths - 1), LONGEST_PAUSE) if self.young_deaths and young else 0.0
        self.young_deaths = min(self.young_deaths + 1, 10) if young else 0
        self.generation.failed = False
        self.generation.trouble = ""
        self.retry_at = self.clock() + pause
        return pause

    def reap(self) -> None:
        """CHLD: a process has ended. The loop waits for children; as process 1 the parent also reaps their orphans."""
        if os.getpid() == 1:
            reap({child.pid: child.process for child in self.children})

    # --- The end ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Have all finish what they run, and end; the second time, at once."""
        self.stops += 1
        for listener in self.listeners:
            listener.close()  # the system refuses connections as soon as the children have closed theirs, too
        for child in self.children:
            self.attempt(self.advance, child, Event.STOP if self.stops == 1 else Event.STOP_NOW)

    def close(self) -> None:
        """Give back what only a parent has."""
        self.signals.close()
        for child in self.children:
            child.channel.close()
        if self.watch is not None:
            self.watch.close()
