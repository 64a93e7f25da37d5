"""The parent of serving processes: it starts them, replaces them, and stops them. It never imports the application.

It holds the listening sockets, which all children inherit: when a child closes its copy, no connection is lost. If each child
had a socket of its own (SO_REUSEPORT), closing it would lose the connections in its queue. Children send messages on a channel,
and get orders there (`microwsgi.prefork.worker`). Everything runs in one loop of one thread, so that a fork copies
no lock that another thread holds:

    Supervisor.run
      arrange     start missing children, order those that are ready to serve, and order older ones to retire
      wait        wait for signals, messages of children, changed files, and deadlines; handle each of them

Children of one *generation* have the same code. A new generation begins when files have changed, or with HUP. Its first child
proves that the application can be imported, then the others follow; when each of them has answered a test request, which it
sends to itself, the older ones retire. If it fails, the last good generation continues to serve. `microwsgi.prefork.life` has
the states of a child.

The loop blocks only in `System.poll`, and no exception ends it. Each system call is made through a `System` (in tests, one
whose calls fail). What has failed is tried again later, and the existing children continue to serve.
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
from microwsgi.prefork.life import CURRENT, OBEYING, Deadline, Event, State, next_step
from microwsgi.prefork.processes import Inheritance, Started, describe_exit, reap
from microwsgi.prefork.signals import Signals
from microwsgi.prefork.topics import Topics
from microwsgi.prefork.watch import Watch
from microwsgi.process.system import READ, System
from microwsgi.server.balance import SIZE, Balance
from microwsgi.server.handoff import Handoff

FIRST_PAUSE, MAX_PAUSE = 0.5, 30.0
"""Seconds before another child is started, if two in a row have died young or the system could not create a process.

The first pause, and the maximum. Each pause is twice as long as the previous one.
"""
YOUNG = 5.0
"""A child that ends within this many seconds after its start has died young."""
TROUBLE_PAUSE = 0.2
"""Seconds that the loop sleeps after an exception, so that a repeated one does not use a whole processor."""
CLEAN = (0, -signal.SIGTERM)
"""Exit codes of a child that was told to end, by TERM or by its own code: it has not crashed."""


class Supervisor:
    """Keeps `options.workers` processes serving, or one, always with the newest code that works.

    `start` creates a process; its arguments are an Inheritance, and the parent's and the child's end of the channel. If the
    application can't be loaded at the start, a supervisor with a `watch` waits until files change; without one, `run` raises
    LoadError.
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
        self.worker_count = options.workers or 1
        self.listeners = listeners
        self.start_process = start
        self.observer = observer or Observer()
        self.watch = watch
        self.system = system or System()
        self.clock = self.system.monotonic
        self.handoff = Handoff.new()
        # Shared with forked children. It has three slots for each worker, since old ones retire while new ones start.
        self.table = memoryview(mmap(-1, self.worker_count * 3 * SIZE) if self.worker_count > 1 else b"").cast("Q")
        self.first_generation = self.generation = Generation(self.clock())
        self.children: list[Child] = []
        self.has_served = False
        self.replacement: tuple[Child, list[Child]] | None = None
        """A child with the newest code, and the older children that still accept connections; None if no older child does."""
        self.retry_at = 0.0
        self.young_deaths = 0  # in a row
        self.failed_starts = 0  # in a row
        self.stop_count = 0
        self.error: LoadError | None = None
        self.prompts: list[Child] = []  # the child that has the terminal, and those that wait for it
        self.chores: deque[Iterator[object]] = deque()  # work for idle time, so that the next child starts faster
        self.requests = self.errors = 0  # the counts of children that have ended
        self.questions = Questions(self.clock)
        self.topics = Topics(lambda: self.children, self.observer.lagging)
        self.inputs: dict[int, Callable[[], object]] = {}
        """Further descriptors to wait for (of the control socket), each with the function that reads from it."""
        self.timers: list[tuple[Callable[[], float], Callable[[], object]]] = []
        """Further deadlines (of the control socket and systemd): a function that returns the time, and one to call then."""
        actions: dict[int, Callable[[], object]] = {signal.SIGINT: self.stop, signal.SIGTERM: self.stop}
        if os.name == "posix":
            actions |= {signal.SIGHUP: self.reload, signal.SIGCHLD: self.reap}
        self.signals = Signals(self.system, actions)

    # --- The loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until INT or TERM. Raises LoadError."""
        try:
            with self.signals.received():
                while self.children or not self.stop_count:
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
        """Call a function. Report an exception to the observer, so that the loop continues."""
        try:
            act(*arguments)
        except Exception as error:  # the parent must not die while its children serve
            with suppress(Exception):
                self.observer.call_failed(error)
            self.system.sleep(TROUBLE_PAUSE)

    def wait(self) -> None:
        """Wait for the next event or deadline, and handle it. If there is none, do a step of a chore."""
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
        """Return the descriptors to wait for, each with its events."""
        found = {child.channel.fileno(): child.channel.interest for child in self.children}
        found |= dict.fromkeys(self.inputs, READ)
        found[self.signals.fileno()] = READ
        if self.watch is not None:
            found[self.watch.fileno()] = READ
        found.pop(-1, None)
        return found

    def time_left(self) -> float | None:
        """Return the seconds until the next deadline; None if there is none."""
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
        """Handle the signals that have arrived."""
        for act in self.signals.read():
            self.attempt(act)

    def handle_event(self, child: Child, now: float) -> None:
        """Check whether a child has ended, or is late."""
        if child.process.poll() is not None:
            self.on_ended(child)
        elif now >= child.deadline:
            self.advance(child, Event.DEADLINE)

    def run_chore(self) -> None:
        """Do one step of the first chore."""
        if next(self.chores[0], self) is self:
            self.chores.popleft()

    # --- The life of a child ------------------------------------------------------------------------------------------

    def advance(self, child: Child, event: Event, text: str = "") -> None:
        """Apply an event to a child: set its next state and deadline, and send the order (`microwsgi.prefork.life`)."""
        step = next_step(child.state, event)
        if step is None:
            return
        previous, child.state = child.state, step.state
        self.set_deadline(child, step.deadline)
        if step.order:
            child.send_order(step.order)
        child.end_expected |= event in {Event.RETIRE, Event.DISMISS, Event.STOP, Event.STOP_NOW}
        child.unanswered |= previous is State.CHECKING and step.state is State.KILLED
        if step.order == "leave":
            child.process.send_signal(signal.SIGTERM)  # it may be importing, and read no orders
        if event in {Event.DEADLINE, Event.UNANSWERED} and previous is not State.DISMISSED and self.stop_count < 2:
            self.observer.late(child, previous, text)
        if step.state is State.UNRESPONSIVE:  # it is not waited for any longer: the new code is announced
            self.on_accept_stopped(child)
        if step.state is State.KILLED:
            child.process.send_signal(signal.SIGKILL)

    def set_deadline(self, child: Child, deadline: Deadline) -> None:
        """Set the deadline of a child; with the debugger's prompt, or waiting for it, it has none until a second stop."""
        seconds = deadline.value
        if seconds is None or (child in self.prompts and self.stop_count < 2):
            child.deadline = NEVER
            return
        child.deadline = self.clock() + seconds + (self.options.graceful_timeout if deadline is Deadline.GRACE else 0.0)

    def current(self) -> list[Child]:
        """Return the children with the newest code that serve or will serve."""
        return [
            child
            for child in self.children
            if child.generation is self.generation and child.state in CURRENT and not child.leaving
        ]

    def serving(self) -> list[Child]:
        """Return the children that serve, of all generations."""
        return [child for child in self.children if child.state in {State.SERVING, State.CHECKING}]

    def useful(self) -> list[Child]:
        """Return the children that serve the application, not an error page."""
        return [child for child in self.serving() if not child.broken]

    def shows_page(self) -> bool:
        """Return whether code that can't be loaded is answered with a page that says why, and not by an older generation."""
        return self.watch is not None and (self.options.reload_error_page or not self.useful())

    # --- Generations --------------------------------------------------------------------------------------------------

    def arrange(self) -> None:
        """Start missing children, and replace older ones; but not while a person is at a debugger's prompt."""
        if self.stop_count or self.prompts:
            return
        current = self.current()
        older = [child for child in self.serving() if child not in current]
        ready = [child for child in current if child.state is State.READY]
        complete = sum(child.state is not State.STARTING for child in current) >= self.worker_count
        if ready and (complete or all(child.broken for child in older)):
            for child in ready:
                self.advance(child, Event.SERVE)
        answered = [child for child in current if child.state is State.SERVING]
        if answered and (len(answered) >= self.worker_count or all(child.broken for child in older)):
            self.take_over(answered, older)
        if not self.generation.failed and self.clock() >= self.retry_at:
            for _ in range((self.worker_count if self.generation.proven else 1) - len(current)):
                if not self.start():
                    break

    def take_over(self, answered: list[Child], older: list[Child]) -> None:
        """Let the children in `answered` replace the older ones, which retire; announce the first of a generation."""
        for child in older:
            self.advance(child, Event.RETIRE)
        if not self.generation.serves and not answered[0].broken:
            self.has_served = True
            self.generation.serves = True
            self.replacement = answered[0], older
            self.chores.append(self.observer.chores(answered[0].message))
            self.on_accept_stopped(None)

    def on_accept_stopped(self, child: Child | None) -> None:
        """A child accepts no more connections. When none of the older children accepts any, report that the new code serves."""
        if self.replacement is None:
            return
        first, older = self.replacement
        if child in older:
            older.remove(child)
        if not any(each in self.children for each in older):
            self.replacement = None
            self.observer.serving(first)

    def start(self) -> bool:
        """Start a child of the newest generation. If the system can't create a process, plan another attempt; return False."""
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
                self.generation.fatal_error,
                self.generation is not self.first_generation,
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
        """Return a free slot in the table of `microwsgi.server.balance`; None for a single worker, or if no slot is free."""
        used = {child.balance.slot for child in self.children if child.balance is not None}
        slot = next((slot for slot in range(len(self.table)) if slot not in used), None)
        return None if slot is None else Balance(self.table, slot)

    def not_started(self, error: BaseException) -> None:
        """Set the time of the next attempt, since the system has no process, descriptor or memory left."""
        pause = min(FIRST_PAUSE * 2**self.failed_starts, MAX_PAUSE)
        self.failed_starts += 1
        self.retry_at = self.clock() + pause
        self.observer.not_started(error, pause)

    def reload(self) -> None:
        """Begin a new generation: HUP."""
        self.new_generation(Generation(self.clock()))

    def new_generation(self, generation: Generation) -> None:
        """Begin a generation; children that still load an older one are not waited for."""
        self.generation = generation
        self.retry_at = 0.0
        self.young_deaths = 0  # children with older code died
        for child in self.children[:]:
            if child.state in {State.STARTING, State.READY}:
                self.attempt(self.advance, child, Event.DISMISS)

    # --- Messages of children -----------------------------------------------------------------------------------------

    def read(self, child: Child) -> None:
        """Read a child's messages. If its channel has ended, close it; `handle_event` notices that the child has ended."""
        messages = child.channel.receive()
        if messages is None:
            child.channel.close()
            return
        for message in messages:
            self.attempt(self.handle_message, child, message)

    def handle_message(self, child: Child, message: Message) -> None:
        """Handle one message."""
        if "ready" in message:
            self.on_imported(child, message)
        elif "failed" in message:
            self.on_load_failed(child, message)
        elif "files" in message:
            self.on_files_read(child, message["files"])
        elif "answered" in message:
            self.advance(child, Event.ANSWERED)
        elif "unanswered" in message:
            self.advance(child, Event.UNANSWERED, str(message["unanswered"]))
        elif "accept_stopped" in message:
            self.advance(child, Event.CONFIRMED)
            self.on_accept_stopped(child)
        elif "leaving" in message:
            self.on_leaving(child)
        elif "finished" in message:
            self.advance(child, Event.FINISHED)
        elif "prompt" in message:
            self.on_prompt(child, wanted=bool(message["prompt"]))
        elif "report" in message:
            child.stats = message["report"]
            child.asked = False
            self.questions.answered(child)
        else:
            self.topics.handle_message(child, message)

    def on_files_read(self, child: Child, files: dict[str, bytes]) -> None:
        """A child has read files of the application: at its start, or in a request."""
        child.generation.files |= files
        if self.watch is not None and child.generation is self.generation and child.state in CURRENT:
            self.watch.watch_also(files)
            self.on_change(self.watch.differing(files))

    def on_imported(self, child: Child, message: Message) -> None:
        """A child has imported the application, and may serve if its files have not changed since it read them."""
        child.name = str(message["ready"])
        if child.broken and child.state is State.STARTING:
            # It serves an error page, and sends no test request to itself: it replaces the older children at once.
            self.advance(child, Event.IMPORTED)
            self.advance(child, Event.SERVE)
            for older in self.serving():
                if older is not child:
                    self.advance(older, Event.RETIRE)
        elif self.up_to_date(child, message):
            child.message = message
            child.generation.proven = True
            self.advance(child, Event.IMPORTED)

    def on_load_failed(self, child: Child, message: Message) -> None:
        """A child can't load the application."""
        if not self.up_to_date(child, message):
            return
        text = str(message["failed"])
        unusable = bool(message.get("unusable"))  # the application has broken the interpreter of this process
        known = bool(child.generation.fatal_error)  # and reported
        if self.shows_page() and not unusable:
            child.broken = True
            child.send_order("show")
        else:
            self.advance(child, Event.DISMISS)
        if not known:
            self.chores.append(self.observer.chores(message))
            if unusable:
                self.generation.fatal_error = text
            self.give_up(child.generation, text)
            if unusable and self.shows_page():
                self.start()  # a new process, which serves the error page

    def give_up(self, generation: Generation, text: str) -> None:
        """A generation can't be loaded.

        With a watch, wait for a change. Without one, stop with LoadError if nothing was served yet; else try again if there are
        too few workers.
        """
        if self.watch is None and not self.has_served:
            self.error = LoadError(text)
            self.stop()
            return
        generation.failed = True
        serving = [] if self.shows_page() else [child.pid for child in self.useful()]
        self.observer.failed(generation, text, serving=serving)
        if self.watch is None and len(self.serving()) < self.worker_count:
            self.try_again()

    def up_to_date(self, child: Child, message: Message) -> bool:
        """Return whether the files still have the content that the child has read. If not, begin a new generation."""
        child.generation.files |= message.get("files", {})
        if child.generation is not self.generation or child.state not in CURRENT:
            return False
        if self.watch is None:
            return True
        files = set().union(*(each.generation.files for each in [*self.serving(), child]))
        changed: set[str] = set()
        try:
            if not child.generation.fatal_error:  # else it has imported nothing
                self.watch.watch_only(files, message.get("folders", ()))
            changed = {*self.watch.check(), *self.watch.differing(child.generation.files)}
        except OSError as error:
            self.observer.call_failed(error)  # continue: the child waits for an answer to its message
        self.on_change(sorted(changed))
        return not changed

    def on_change(self, changed: list[str]) -> None:
        """Begin a generation because files have changed. If the last one was not tried yet, its changed files are included."""
        if not changed or self.stop_count:
            return
        untried = self.generation.changed if not (self.generation.serves or self.generation.failed) else []
        began = self.generation.began if untried else self.clock()
        self.new_generation(Generation(began, sorted({*changed, *untried})))

    def on_leaving(self, child: Child) -> None:
        """A child received TERM: it retires as soon as a new worker serves."""
        if child.state in CURRENT and not child.leaving and not self.stop_count:
            child.leaving = True
            self.observer.leaving(child)

    def on_prompt(self, child: Child, *, wanted: bool) -> None:
        """A child wants the terminal, or no longer wants it: give it to one child at a time."""
        before = self.prompts[:1]
        if wanted:
            self.prompts.append(child)
        elif child in self.prompts:
            self.prompts.remove(child)
        if child.state is State.STOPPING:
            self.set_deadline(child, Deadline.END if self.stop_count > 1 else Deadline.GRACE)
        elif wanted:
            child.deadline = NEVER
        if self.prompts[:1] != before and self.prompts:
            self.observer.prompting()
            self.prompts[0].send_order("prompt")

    # --- Questions ----------------------------------------------------------------------------------------------------

    def ask(self, then: Callable[[bool], object], states: frozenset[State] = OBEYING) -> None:
        """Ask the children in these states for their counts.

        `then` is called with True if there is at least one such child and all have reported in time, else with False.
        """
        self.questions.ask([child for child in self.children if child.state in states], then)

    # --- Children that have ended -------------------------------------------------------------------------------------

    def on_ended(self, child: Child) -> None:
        """A child is dead: read its last messages, forget it, and start another if its end was not expected."""
        while child.channel.fileno() >= 0:
            messages = child.channel.receive()
            # Stop reading when nothing more is queued: a process that the child has forked may keep the other end open.
            if messages is None or child.channel.drained:
                child.channel.close()
            for message in messages or ():
                self.attempt(self.handle_message, child, message)
        self.children.remove(child)
        if child.balance is not None:
            child.balance.leave()
        self.on_accept_stopped(child)
        self.questions.answered(child)
        self.requests += int(child.stats.get("requests", 0))
        self.errors += int(child.stats.get("errors", 0))
        if self.prompts[:1] == [child]:
            self.observer.prompt_lost()
        while child in self.prompts:
            self.on_prompt(child, wanted=False)
        if not self.stop_count:
            self.replace(child, child.process.poll() or 0)

    def replace(self, child: Child, code: int) -> None:
        """A child has ended: if that was not expected, decide whether and when to start another."""
        if child.end_expected or child.leaving:
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
            if self.generation.fatal_error:  # this child had to serve the page that shows it
                self.observer.died(child, how, self.try_again())
            else:
                self.generation.fatal_error = f"the process that imports the application {how}."
                self.give_up(self.generation, self.generation.fatal_error)
                if self.shows_page():
                    self.start()  # a new process, which serves the error page
        elif self.watch is None and not self.has_served:
            self.give_up(self.generation, f"{child.name} can't be served: the worker {how}.")
        else:
            # An exit with code 0 before the child serves counts as a crash: the next child would probably do the same.
            crashed = code not in CLEAN or (code == 0 and child.state not in {State.SERVING, State.EXITING})
            self.observer.died(child, how, self.try_again(young=young) if crashed else 0.0)

    def try_again(self, *, young: bool = True) -> float:
        """Let `arrange` start another child: at once, or after a pause if the last ones died young. Return the pause."""
        pause = min(FIRST_PAUSE * 2 ** (self.young_deaths - 1), MAX_PAUSE) if self.young_deaths and young else 0.0
        self.young_deaths = min(self.young_deaths + 1, 10) if young else 0
        self.generation.failed = False
        self.generation.fatal_error = ""
        self.retry_at = self.clock() + pause
        return pause

    def reap(self) -> None:
        """CHLD: a process has ended. The loop waits for children; as process 1 the parent also reaps their orphans."""
        if os.getpid() == 1:
            reap({child.pid: child.process for child in self.children})

    # --- The end ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Order all children to finish their requests and end; at the second call, to end at once."""
        self.stop_count += 1
        for listener in self.listeners:
            listener.close()  # the system refuses connections as soon as the children have closed theirs, too
        for child in self.children:
            self.attempt(self.advance, child, Event.STOP if self.stop_count == 1 else Event.STOP_NOW)

    def close(self) -> None:
        """Close the descriptors that only the parent uses: in the parent at its end, in a child after the fork."""
        self.signals.close()
        for child in self.children:
            child.channel.close()
        if self.watch is not None:
            self.watch.close()
