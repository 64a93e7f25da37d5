"""A child of `microwsgi.prefork.supervisor`: its messages to the parent, and the orders that it obeys.

The parent sends orders on a channel and no signals, since applications replace signal handlers.

    serve, show, leave    the answer to "ready" or "failed": serve; serve the error page; end
    retire                newer children serve: accept nothing more, finish the running requests however long they take, then
                          end; meanwhile log which still run
    stop                  the same, within graceful_timeout
    now                   end without waiting for requests
    prompt                use the terminal
    report                send the counts so far

Events of other children (`microwsgi.prefork.topics`) arrive on the same channel, and are passed to `on_event`.

When the channel ends, the parent is dead, and the child stops. A child that receives TERM reports it to the parent, which
starts another child and then orders this one to retire within graceful_timeout: there is always a process that serves.
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
"""Seconds after which a retired child logs what it still runs, and the factor by which each further pause is longer."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_install, _current = signal.signal, signal.getsignal  # bound at import, before an application can replace them


class Worker:
    """A child: its end of the channel, and `orders`, the method for each order while it serves; callers may add some."""

    guard: ForkGuard

    def __init__(
        self,
        channel: WorkerChannel,
        handoff: Handoff | None,
        fatal_error: str = "",
        *,
        is_reload: bool = False,
        balance: Balance | None = None,
    ) -> None:
        self.fatal_error = fatal_error  # why the application can't be imported, if a process has ended in the attempt
        self.is_reload = is_reload  # older code was loaded before, and there may be compiled files of it
        self.channel = channel
        self.send = channel.send
        self.words: deque[str] = deque()
        self.handoff = handoff
        self.balance = balance
        self.say: Callable[[str], object] = lambda text: print(text, file=sys.stderr, flush=True)
        # These are set by callers. `bool` stands for a function that does nothing.
        self.on_event: Callable[[Message], object] = bool
        self.on_stop: Callable[[WSGIServer], object] = bool
        self.on_reminder: Callable[[WSGIServer], object] = bool  # logs what a retired child still runs
        self.on_accept_stopped: Callable[[], object] = bool  # called when this process accepts no more connections
        self.terminal = threading.Semaphore(0)  # released when the parent lets this process use the terminal
        self.application_handlers: dict[int, Callable[..., object]] = {}  # handlers of the application for INT and TERM
        self.leaving = False  # TERM was reported to the parent
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
        """After the import: report TERM to the parent, and also call the application's own handlers for TERM and INT."""
        for number in SIGNALS:
            handler = _current(number)
            if callable(handler) and handler not in self.handlers() and handler is not signal.default_int_handler:
                self.application_handlers[number] = handler
            _install(number, self.on_signal)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, in the main thread."""
        if number in self.application_handlers:
            try:
                self.application_handlers[number](number, frame)
            except BaseException:  # many call sys.exit(); this process ends when its requests are finished
                pass
        if number == signal.SIGTERM and not self.stopping:
            self.channel.wake()

    def handlers(self) -> list[object]:
        """Return the handlers that processes forked by the application must not inherit."""
        return [self.on_signal, ignored]

    def release(self) -> None:
        """Close the descriptors, in a process that the application has forked."""
        self.channel.release()
        if self.handoff is not None:
            for each in (self.handoff.receiver, self.handoff.sender):
                os.close(each.detach())

    # --- Orders -------------------------------------------------------------------------------------------------------

    def wait_for_message(self) -> str:
        """Wait for the parent's next order, and return it; "leave" if the parent is dead, or after TERM."""
        while not self.words:
            woken, messages = self.channel.receive()
            if woken:
                self.send(leaving=True)
            if woken or messages is None:
                return "leave"
            self.handle_messages(messages)
        return self.words.popleft()

    def obey_parent(self, server: WSGIServer, check: Callable[[], str]) -> None:
        """Start a thread that obeys the parent, and one that reports when the server answers requests."""
        self.graceful_timeout = server.options.graceful_timeout
        server.handoff = self.handoff
        server.balance = self.balance
        threading.Thread(target=self.obey, args=(server,), name="microwsgi-parent", daemon=True).start()
        threading.Thread(target=self.check, args=(check,), name="microwsgi-check", daemon=True).start()

    def check(self, check: Callable[[], str]) -> None:
        """Report to the parent whether this process answers requests."""
        try:
            problem = check()
        except Exception as error:  # the parent reports it, whatever it is
            problem = repr(error)
        if problem:
            self.send(unanswered=f"{problem}\n{stacks()}")
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
                self.on_terminate(server)
            if messages is None:
                break
            self.handle_messages(messages)
        self.stop(server)

    def handle_messages(self, messages: list[Message]) -> None:
        """Queue the orders, and pass on the events."""
        for message in messages:
            if "do" in message:
                self.words.append(str(message["do"]))
                continue
            try:
                self.on_event(message)
            except Exception as error:  # this thread obeys the parent: it must not end
                self.say(f"An event could not be delivered: {error!r}")

    def on_terminate(self, server: WSGIServer) -> None:
        """Handle TERM to this process alone: ask to be replaced. If that was done before, or it retires: limit the time."""
        if self.leaving or self.retiring:
            self.finish(server)
        else:
            self.leaving = True
            self.send(leaving=True)

    def retire(self, server: WSGIServer) -> None:
        """Hand idle connections to newer children, and end after the running requests."""
        self.retiring = True
        server.retire(self.accept_stopped)
        if self.leaving:
            server.limit_drain(self.graceful_timeout)
        self.call_handler()
        threading.Thread(target=self.remind, args=(server,), name="microwsgi-retired", daemon=True).start()

    def remind(self, server: WSGIServer) -> None:
        """Log the requests that still run, less and less often, but not while a person is at the debugger's prompt."""
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
        """Stop, by order of the parent or because it is dead."""
        self.finish(server)
        self.call_handler()
        self.on_stop(server)

    def finish(self, server: WSGIServer) -> None:
        """Finish the running requests within `graceful_timeout` from now; this also applies to a process that retires."""
        server.limit_drain(self.graceful_timeout)
        server.request_stop()

    def end(self, server: WSGIServer) -> None:
        """End without waiting."""
        server.limit_drain(0.0)
        server.request_stop()

    def call_handler(self) -> None:
        """Have the main thread call the application's handler for TERM, as a server without a parent does."""
        if signal.SIGTERM in self.application_handlers and not self.stopping and not self.leaving:
            self.stopping = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    # --- The terminal, which all children share -----------------------------------------------------------------------

    def take_terminal(self) -> None:
        """Wait until this process may use the terminal."""
        self.send(prompt=True)
        self.terminal.acquire()

    def leave_terminal(self) -> None:
        """Release the terminal."""
        self.send(prompt=False)


def ignored(*_: object) -> None:
    """A signal handler that does nothing: a terminal sends signals to all its processes, and the parent handles them."""
