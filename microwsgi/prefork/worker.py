"""A child of `microwsgi.prefork.supervisor`: its messages to the parent, and the orders that it obeys.

The parent sends orders on a channel and no signals, since applications replace signal handlers.

    serve, show, leave    the answer to "ready" or "failed": serve; serve the page that shows what went wrong; end
    retire                a successor serves: accept nothing more, finish what runs however long it takes, end; send of what
                          takes long
    stop                  the same within graceful_timeout
    now                   wait for nothing
    prompt                the terminal is yours
    report                send the counts so far

Events of other children (`microwsgi.prefork.topics`) come on the same channel, and are given to `on_event`.

When the channel ends, the parent is dead, and the child stops. TERM to a child is told to the parent, which starts a successor
and then has this one retire, within graceful_timeout: there is always a process that serves.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType

from microwsgi.prefork.channel import Message, WorkerChannel
from microwsgi.process.after_fork import ForkGuard
from microwsgi.process.exiting import stacks
from microwsgi.server.balance import Balance
from microwsgi.server.handoff import Handoff
from microwsgi.server.server import WSGIServer

FIRST_REMINDER, FACTOR = 5.0, 12
"""Seconds after which a retired child tells what it still runs; and how many times as long until the next time."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_install, _current = signal.signal, signal.getsignal  # before an application can replace them


class Worker:
    """The child's end of the channel; `orders` has what is done for each word while it serves, and may be added to."""

    guard: ForkGuard

    def __init__(
        self,
        channel: WorkerChannel,
        handoff: Handoff | None,
        trouble: str = "",
        *,
        is_reload: bool = False,
        balance: Balance | None = None,
    ) -> None:
        self.trouble = trouble  # why the application can't be imported, if a process has ended in the attempt
        self.is_reload = is_reload  # there was other code before, of which there may be compiled files
        self.channel = channel
        self.send = channel.send
        self.words: deque[str] = deque()
        self.handoff = handoff
        self.balance = balance
        self.say: Callable[[str], object] = lambda text: print(text, file=sys.stderr, flush=True)
        self.on_event: Callable[[Message], object] = bool
        self.on_stop: Callable[[WSGIServer], object] = bool
        self.on_reminder: Callable[[WSGIServer], object] = bool  # how a retired child reminds people of itself
        self.on_accept_stopped: Callable[[], object] = bool  # called when a successor gets all new connections
        self.terminal = threading.Semaphore(0)  # released when the parent has given the terminal to this process
        self.applications: dict[int, Callable[..., object]] = {}  # handlers of the application for INT and TERM
        self.leaving = False  # TERM was told to the parent
        self.retiring = False
        self.stopping = False
        self.orders: dict[str, Callable[[WSGIServer], object]] = {
            "retire": self.retire,
            "stop": self.stop,
            "now": self.end,
            "prompt": lambda _: self.terminal.release(),
            "report": lambda server: self.send(report=server.stats()),
        }

    # --- Signals, and forks of the application ------------------------------------------------------------------------

    def install_signal_handlers(self) -> None:
        """After the import: TERM is told to the parent; handlers of the application for TERM and INT are called, too."""
        for number in SIGNALS:
            handler = _current(number)
            if callable(handler) and handler not in self.handlers() and handler is not signal.default_int_handler:
                self.applications[number] = handler
            _install(number, self.on_signal)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, in the main thread."""
        if number in self.applications:
            try:
                self.applications[number](number, frame)
            except BaseException:  # many end with sys.exit(); this process ends in its own way
                pass
        if number == signal.SIGTERM and not self.stopping:
            self.channel.wake()

    def handlers(self) -> list[object]:
        """Return the handlers that processes forked by the application must not inherit."""
        return [self.on_signal, ignored]

    def release(self) -> None:
        """In a process that the application has forked: close the descriptors."""
        self.channel.release()
        if self.handoff is not None:
            for each in (self.handoff.receiver, self.handoff.sender):
                os.close(each.detach())

    # --- Orders -------------------------------------------------------------------------------------------------------

    def wait_for_message(self) -> str:
        """Return the parent's next order, before there is a server; "leave" if the parent is dead, or after TERM."""
        while not self.words:
            woken, messages = self.channel.receive()
            if woken:
                self.send(leaving=True)
            if woken or messages is None:
                return "leave"
            self.take(messages)
        return self.words.popleft()

    def obey_parent(self, server: WSGIServer, check: Callable[[], str]) -> None:
        """Obey the parent in a thread, and report when the server answers."""
        self.graceful_timeout = server.options.graceful_timeout
        server.handoff = self.handoff
        server.balance = self.balance
        threading.Thread(target=self.obey, args=(server,), name="microwsgi-parent", daemon=True).start()
        threading.Thread(target=self.check, args=(check,), name="microwsgi-check", daemon=True).start()

    def check(self, check: Callable[[], str]) -> None:
        """Tell the parent whether this process answers requests."""
        try:
            trouble = check()
        except Exception as error:  # whatever it is, the parent tells it
            trouble = repr(error)
        if trouble:
            self.send(unanswered=f"{trouble}\n{stacks()}")
        else:
            self.send(answered=True)

    def obey(self, server: WSGIServer) -> None:
        """Receive orders: the thread's main function."""
        while True:
            for word in self.words:
                self.orders[word](server)
            self.words.clear()
            woken, messages = self.channel.receive()
            if woken:
                self.terminated(server)
            if messages is None:
                break
            self.take(messages)
        self.stop(server)

    def take(self, messages: list[Message]) -> None:
        """Queue the orders, and pass on the events."""
        for message in messages:
            if "do" in message:
                self.words.append(str(message["do"]))
                continue
            try:
                self.on_event(message)
            except Exception as error:  # this thread obeys the parent: it must not end
                self.say(f"An event could not be delivered: {error!r}")

    def terminated(self, server: WSGIServer) -> None:
        """TERM to this process alone: be replaced; a second one, or one to a process that retires, limits the time."""
        if self.leaving or self.retiring:
            self.finish(server)
        else:
            self.leaving = True
            self.send(leaving=True)

    def retire(self, server: WSGIServer) -> None:
        """Leave to the successor all that is not running."""
        self.retiring = True
        server.retire(self.accept_stopped)
        if self.leaving:
            server.limit_drain(self.graceful_timeout)
        self.call_handler()
        threading.Thread(target=self.remind, args=(server,), name="microwsgi-retired", daemon=True).start()

    def remind(self, server: WSGIServer) -> None:
        """Tell less and less often what is still waited for; but don't disturb a person at the debugger's prompt."""
        pause = FIRST_REMINDER
        while not server.ended.wait(pause):
            if not server.pauses:
                self.on_reminder(server)
                pause *= FACTOR

    def accept_stopped(self) -> None:
        """Report that this process accepts no more connections."""
        self.send(accept_stopped=True)
        self.on_accept_stopped()

    def stop(self, server: WSGIServer) -> None:
        """Stop: the parent has ordered it."""
        self.finish(server)
        self.call_handler()
        self.on_stop(server)

    def finish(self, server: WSGIServer) -> None:
        """Finish what runs; a retired one, too, has its `graceful_timeout` from now on."""
        server.limit_drain(self.graceful_timeout)
        server.request_stop()

    def end(self, server: WSGIServer) -> None:
        """End without waiting."""
        server.limit_drain(0.0)
        server.request_stop()

    def call_handler(self) -> None:
        """Have the main thread call the application's handler for TERM: servers without a parent get that signal themselves."""
        if signal.SIGTERM in self.applications and not self.stopping and not self.leaving:
            self.stopping = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    # --- The terminal, of which all children have one -----------------------------------------------------------------

    def take_terminal(self) -> None:
        """Wait until this process may use the terminal."""
        self.send(prompt=True)
        self.terminal.acquire()

    def leave_terminal(self) -> None:
        """Release the terminal."""
        self.send(prompt=False)


def ignored(*_: object) -> None:
    """A handler that does nothing: a terminal sends these signals to all its processes, and the parent handles them."""
