"""The parent of serving processes: it starts them, replaces them, and stops them. It never imports the application.

It holds the listening sockets, which each child inherits: closing one copy loses no connection, where one of several
SO_REUSEPORT listeners would take its queue along. Children say what they have to say on a channel, and do what they are told
there (`microwsgi.prefork.worker`). All is done by one loop in one thread, so that a fork copies no lock that somebody holds:

    Supervisor.run
      arrange     start what is missing; let serve who is ready, and older ones retire
      look        wait for signals, for what children say, for changed files, for what is due; act on it

Children of one *generation* have the same code. A new generation begins when files have changed, or with HUP. Its first child
proves that the application can be imported, then the others follow; when all are ready they serve, and the older ones retire.
If it fails, the last good generation goes on serving.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from microwsgi.errors import LoadError
from microwsgi.options import Options
from microwsgi.prefork.channel import Channel, Message
from microwsgi.prefork.children import (
    LEAVING,
    NEVER,
    READY,
    SERVING,
    STARTING,
    Child,
    Generation,
    Notices,
    Question,
)
from microwsgi.prefork.processes import Parent, Started, manner, nothing, reap
from microwsgi.prefork.watch import Watch
from microwsgi.server.handoff import Handoff

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before another child is started where two in a row have died young; doubled each time."""
YOUNG = 5.0
"""Seconds after its start in which a child's death counts as one at the start."""
END = 1.0
"""Seconds that a child may take to end when it has nothing to wait for; then it is killed."""


class Supervisor(Parent):
    """Serving processes: `options.workers` of them, or one, always of the newest code that works.

    `start` makes a process, which has the second end of a channel, and the listeners. With a `watch`, code that can't be loaded
    is waited for; without one, `run` raises LoadError if that is so at the start.
    """

    def __init__(
        self,
        options: Options,
        listeners: list[socket.socket],
        start: Callable[[Supervisor, socket.socket, socket.socket], Started],
        *,
        notices: Notices | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.options = options
        self.wanted = options.workers or 1
        self.listeners = listeners
        self.start_process = start
        self.notices = notices or Notices()
        self.watch = watch
        self.handoff = Handoff.new()
        self.generation = Generation()
        self.children: list[Child] = []
        self.has_served = False
        self.succeeded: tuple[Child, list[Child]] | None = (
            None  # whose code is to be all that is served; who hinders that
        )
        self.retry_at = 0.0
        self.young_deaths = 0  # in a row
        self.stops = 0
        self.error: LoadError | None = None
        self.prompts: list[Child] = []  # who has the terminal, and who waits for it
        self.chores: deque[Iterator[object]] = deque()
        self.requests = self.errors = 0  # of children that have ended
        self.questions: list[Question] = []
        self.tick_at = NEVER  # when to call `on_tick`, which says when to call it next
        self.on_tick: Callable[[], float] = lambda: NEVER
        self.selector = selectors.DefaultSelector()
        self.signals, self.signal_writer = socket.socketpair()
        self.on_signal: dict[int, Callable[[], object]] = {signal.SIGINT: self.stop, signal.SIGTERM: self.stop}
        """What is done for each signal; may be added to before `run`."""
        if os.name == "posix":
            self.on_signal |= {signal.SIGHUP: self.replace, signal.SIGCHLD: self.reap}

    # --- The loop ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until INT or TERM. Raises LoadError."""
        try:
            with self.listening_to_signals():
                if self.watch is not None and self.watch.fileno() >= 0:
                    self.selector.register(self.watch, selectors.EVENT_READ)
                while self.children or not self.stops:
                    self.arrange()
                    self.look()
        finally:
            for child in self.children:
                child.process.kill()
            self.close()
            if self.handoff is not None:
                self.handoff.close()
        if self.error is not None:
            raise self.error

    @contextmanager
    def listening_to_signals(self) -> Iterator[None]:
        """Have signals end the wait of `look`; in the main thread only, as Python has it."""
        self.signals.setblocking(False)
        self.signal_writer.setblocking(False)
        self.selector.register(self.signals, selectors.EVENT_READ)
        try:
            wakeup = signal.set_wakeup_fd(self.signal_writer.fileno(), warn_on_full_buffer=False)
        except ValueError:
            yield
            return
        before = {number: signal.signal(number, nothing) for number in self.on_signal}
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def look(self) -> None:
        """Wait for whatever comes first, and act on it; do a chore when nothing comes."""
        events = self.selector.select(self.time_left())
        for key, _ in events:
            if key.fileobj is self.signals:
                for number in self.signals.recv(4096):
                    self.on_signal.get(number, bool)()
            elif isinstance(key.data, Child):
                self.listen(key.data)
            elif callable(key.data):
                key.data()
        now = time.monotonic()
        if now >= self.tick_at:
            self.tick_at = self.on_tick()
        self.answer(now)
        if self.watch is not None and (
            now >= self.watch.next_look or any(key.fileobj is self.watch for key, _ in events)
        ):
            self.see(self.watch.look())
        for child in self.children[:]:
            if child.process.poll() is not None:
                self.ended(child)
            elif now >= child.kill_at:
                child.process.kill()
        if self.chores and not events and next(self.chores[0], self) is self:
            self.chores.popleft()

    def time_left(self) -> float | None:
        """Until something is due."""
        if self.chores:
            return 0.0
        due = [child.kill_at for child in self.children] + [question.until for question in self.questions]
        due.append(self.tick_at)
        if self.retry_at > time.monotonic():
            due.append(self.retry_at)
        if self.watch is not None:
            due.append(self.watch.next_look)
        soonest = min(due, default=NEVER)
        return None if soonest == NEVER else max(soonest - time.monotonic(), 0.0)

    # --- Generations ------------------------------------------------------------------------------------------------

    def arrange(self) -> None:
        """Start what is missing, and let serve who is ready; but not while somebody is at a debugger's prompt."""
        if self.stops or self.prompts:
            return
        fresh = [child for child in self.children if child.generation is self.generation and child.state != LEAVING]
        older = [child for child in self.serving() if child not in fresh]
        ready = [child for child in fresh if child.state == READY]
        complete = sum(child.state != STARTING for child in fresh) >= self.wanted
        if ready and (complete or all(child.broken for child in older)):
            self.promote(ready, older)
        if not self.generation.failed and time.monotonic() >= self.retry_at:
            for _ in range((self.wanted if self.generation.proven else 1) - len(fresh)):
                self.start()

    def promote(self, ready: list[Child], older: list[Child]) -> None:
        """Have these serve, and those retire."""
        self.hand_on(older, to=ready)
        self.has_served = True
        if not self.generation.serves:
            self.generation.serves = True
            self.succeeded = ready[0], older
            self.left(None)
        self.chores.append(self.notices.chores(ready[0].message))

    def hand_on(self, older: list[Child], to: list[Child]) -> None:
        """Change who serves."""
        for child in to:
            child.state = SERVING
            child.order("serve")
        for child in older:
            child.state = LEAVING
            child.order("retire")

    def left(self, child: Child | None) -> None:
        """A child lets nobody in any more. With the last one of the older code, the new code is all that is served."""
        if self.succeeded is None:
            return
        first, older = self.succeeded
        if child in older:
            older.remove(child)
        if not any(each in self.children for each in older):
            self.succeeded = None
            self.notices.serving(first)

    @property
    def trouble(self) -> str:
        """Why the newest code can't be imported, if a process has ended in the attempt."""
        return self.generation.trouble

    def serving(self) -> list[Child]:
        """Those that serve."""
        return [child for child in self.children if child.state == SERVING]

    def useful(self) -> list[Child]:
        """Those of them that serve the application, and not what is wrong with it."""
        return [child for child in self.serving() if not child.broken]

    def start(self) -> None:
        """Start a child of the newest generation."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = self.start_process(self, ours, theirs)
        child = Child(process, Channel(ours), self.generation)
        self.children.append(child)
        self.selector.register(child.channel, selectors.EVENT_READ, child)

    def replace(self) -> None:
        """Load the code anew, for all children: HUP."""
        self.renew(Generation())

    def renew(self, generation: Generation) -> None:
        """Begin a generation; who still loads an older one is not waited for."""
        self.generation = generation
        self.retry_at = 0.0
        self.young_deaths = 0  # those of other code
        for child in self.children:
            if child.state in {STARTING, READY}:
                self.dismiss(child)

    def dismiss(self, child: Child) -> None:
        """End a child that has served nobody."""
        child.state = LEAVING
        child.order("leave")
        child.process.terminate()  # it may be importing, and hear nothing
        child.kill_at = time.monotonic() + END

    # --- What children say ------------------------------------------------------------------------------------------

    def listen(self, child: Child) -> None:
        """Hear what a child has to say. The end of its channel says nothing that its death does not."""
        messages = child.channel.receive()
        if messages is None:
            self.selector.unregister(child.channel)
            child.channel.close()
            return
        for message in messages:
            if "ready" in message:
                self.ready(child, message)
            elif "failed" in message:
                self.failed(child, message)
            elif "files" in message:
                self.imported(child, message["files"])  # type: ignore[arg-type]  # as the edge makes it
            elif "shut" in message:
                self.left(child)
            elif "prompt" in message:
                self.prompt(child, wanted=bool(message["prompt"]))
            elif "report" in message:
                child.figures = message["report"]  # type: ignore[assignment]  # as worker.py makes it
                self.answered(child)

    def imported(self, child: Child, files: dict[str, bytes]) -> None:
        """A child has read files of the application: at its start, or in a request."""
        child.generation.files |= files
        if self.watch is not None and child.generation is self.generation and child.state != LEAVING:
            self.watch.also(files)
            self.see(self.watch.differing(files))

    def ready(self, child: Child, message: Message) -> None:
        """A child could serve; it must not with code that is not that of now."""
        child.name = str(message["ready"])
        if child.broken and child.state == STARTING:
            self.hand_on(self.serving(), to=[child])  # of which none serves anything but what was wrong before
        elif self.up_to_date(child, message):
            child.message = message
            child.state = READY
            child.generation.proven = True

    def failed(self, child: Child, message: Message) -> None:
        """A child can't load the application."""
        if not self.up_to_date(child, message):
            return
        if self.watch is not None and not self.useful():
            child.broken = True
            child.order("show")
        else:
            self.dismiss(child)
        if not child.generation.trouble:
            self.chores.append(self.notices.chores(message))
            self.give_up(child.generation, str(message["failed"]))

    def give_up(self, generation: Generation, text: str) -> None:
        """A generation can't be loaded: wait for better code; or, where it is code that must serve, try again later."""
        if self.watch is None and not self.has_served:
            self.error = LoadError(text)
            self.stop()
            return
        generation.failed = True
        self.notices.failed(generation, text, serving=bool(self.useful()))
        if self.watch is None and len(self.serving()) < self.wanted:
            self.try_again()

    def up_to_date(self, child: Child, message: Message) -> bool:
        """Whether the files are still as the child has read them. If they are not, the next one is on its way."""
        child.generation.files |= message.get("files", {})  # type: ignore[call-overload]  # as the edge makes it
        if child.generation is not self.generation or child.state == LEAVING:
            return False
        if self.watch is None:
            return True
        files = set().union(*(each.generation.files for each in [*self.serving(), child]))
        if not child.generation.trouble:  # else it has imported nothing
            self.watch.want(files, message.get("folders", ()))  # type: ignore[arg-type]
        changed = {*self.watch.look(), *self.watch.differing(child.generation.files)}
        self.see(sorted(changed))
        return not changed

    def see(self, changed: list[str]) -> None:
        """Files have changed; beside those, perhaps, whose new content nobody has tried yet."""
        if not changed or self.stops:
            return
        untried = self.generation.changed if not (self.generation.serves or self.generation.failed) else []
        new = Generation(sorted({*changed, *untried}))
        if untried:
            new.began = self.generation.began
        self.renew(new)

    def prompt(self, child: Child, *, wanted: bool) -> None:
        """Give the terminal to one child at a time."""
        before = self.prompts[:1]
        if wanted:
            self.prompts.append(child)
        elif child in self.prompts:
            self.prompts.remove(child)
        if self.stops:
            self.limit(child)
        if self.prompts[:1] != before and self.prompts:
            self.notices.prompting()
            self.prompts[0].order("prompt")

    def attend(self, descriptor: socket.socket, act: Callable[[], object]) -> None:
        """Call something of the edge's whenever there is something to read."""
        self.selector.register(descriptor, selectors.EVENT_READ, act)

    def ask(self, then: Callable[[bool], object]) -> None:
        """Have all children tell their figures; `then` is called with whether they have."""
        asked = [child for child in self.children if child.state in {SERVING, LEAVING}]
        self.questions.append(Question(asked, then))
        for child in asked:
            child.order("report")

    def answered(self, child: Child) -> None:
        """A child has told its figures, or never will."""
        for question in self.questions:
            if child in question.children:
                question.children.remove(child)

    def answer(self, now: float) -> None:
        """Go on where nobody is waited for any more."""
        for question in self.questions[:]:
            if not question.children or now >= question.until:
                self.questions.remove(question)
                question.then(not question.children)

    # --- What becomes of them ---------------------------------------------------------------------------------------

    def ended(self, child: Child) -> None:
        """A child is dead: hear its last words, forget it, and start another if that was not meant."""
        if child.channel.fileno() >= 0:
            child.channel.socket.setblocking(False)  # a process that it has forked may still have its end
        while child.channel.fileno() >= 0:
            self.listen(child)
        self.children.remove(child)
        self.left(child)
        self.answered(child)
        self.requests += int(child.figures.get("requests", 0))  # type: ignore[call-overload]  # as worker.py makes it
        self.errors += int(child.figures.get("errors", 0))  # type: ignore[call-overload]
        if self.prompts[:1] == [child]:
            self.notices.prompt_lost()
        while child in self.prompts:
            self.prompt(child, wanted=False)
        if child.state == LEAVING or self.stops:
            return
        how = manner(child.process.poll() or 0)
        if child.state == STARTING and (self.watch is not None or not child.generation.proven):
            if child.generation is self.generation:
                self.generation.trouble = f"the process that imports the application {how}."
                self.give_up(self.generation, self.generation.trouble)
                if self.watch is not None and not self.useful():
                    self.start()  # which shows that
        else:
            self.notices.died(child, how, self.try_again(young=time.monotonic() - child.began < YOUNG))

    def try_again(self, *, young: bool = True) -> float:
        """Start another child: at once, or after a pause if the last ones died young; how long that is."""
        pause = min(FIRST_PAUSE * 2 ** (self.young_deaths - 1), LONGEST_PAUSE) if self.young_deaths and young else 0.0
        self.young_deaths = min(self.young_deaths + 1, 10) if young else 0
        self.generation.failed = False
        self.generation.trouble = ""
        self.retry_at = time.monotonic() + pause
        return pause

    def reap(self) -> None:
        """A process has ended. The loop looks after children; as process 1 there are orphans of theirs, too (CHLD)."""
        if os.getpid() == 1:
            reap({child.pid: child.process for child in self.children})

    # --- The end ----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Have all finish what they run, and end; the second time, at once."""
        self.stops += 1
        for child in self.children:
            if child.state in {STARTING, READY}:
                self.dismiss(child)
            else:
                child.order("stop" if self.stops == 1 else "now")
                self.limit(child)

    def limit(self, child: Child) -> None:
        """Say when a child must have ended; of a person at the debugger's prompt only a second signal is impatient."""
        if self.stops > 1:
            child.kill_at = time.monotonic() + END
        elif child in self.prompts:
            child.kill_at = NEVER
        else:
            child.kill_at = time.monotonic() + self.options.grace_time + END

    def close(self) -> None:
        """Give back what only a parent has."""
        self.selector.close()
        self.signals.close()
        self.signal_writer.close()
        for child in self.children:
            child.channel.close()
        if self.watch is not None:
            self.watch.close()
