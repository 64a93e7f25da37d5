"""Serve an application until a signal ends it: listen, load, print the addresses, serve, finish.

    serve_command   `microwsgi serve`
    serve           the function for programs
      run           with a parent process (`microwsgi.serving.supervised.run`), or in this one:
        listening, load_application, make    create the parts (`microwsgi.serving.assembly`)
        check_answers                        send a test request; then the banner is printed
        serve_forever                        until `Stop` receives INT or TERM; its thread handles the other signals

Errors before the first request are UsageErrors.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from importlib import import_module
from types import FrameType

from microwsgi.errors import ServiceError, UsageError
from microwsgi.options import Options
from microwsgi.options.config_file import from_file
from microwsgi.options.environment import merged
from microwsgi.options.keywords import OptionValues, Unpack
from microwsgi.process.after_fork import ForkGuard
from microwsgi.process.exiting import EXIT_TIME, exit_within
from microwsgi.process.interpreter import open_standard_descriptors
from microwsgi.server.context import Application
from microwsgi.server.inflight import slow_requests
from microwsgi.server.server import WSGIServer
from microwsgi.server.sockets import urls
from microwsgi.serving.assembly import (
    address_query,
    check_answers,
    https,
    import_error_page,
    listening,
    load_application,
    make,
    make_absolute,
    open_log,
    release,
)
from microwsgi.serving.console import Console, banner, colored, farewell
from microwsgi.serving.operating import check_certificates, reopen_log, report_running, show_running
from microwsgi.serving.prompt import one_prompt
from microwsgi.support import lazy

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FAREWELL_TIME = 1.0
"""Seconds to wait for the last message about a signal; a stopped terminal (Ctrl-S) accepts none."""
_install, _current, _exit = (
    signal.signal,
    signal.getsignal,
    os._exit,
)  # bound at import, before an application can replace them


def serve(
    application: Application | type[BaseHTTPRequestHandler] | str | None = None,
    *,
    ssl_context: object = None,
    **options: Unpack[OptionValues],
) -> None:
    """Serve until INT or TERM arrives; running requests then have `graceful_timeout` to end.

    `application` is a callable, a handler class of http.server, or the name of one as for `microwsgi serve`; the options are
    those of docs/options.md. `ssl_context`, for https with your own certificate, is an ssl.SSLContext, (certificate file, key
    file) or "adhoc". The environment is not read. Raises UsageError.
    """
    checked = Options.from_mapping(merged(from_file(options) if "config" in options else {}, options))
    if checked.daemon:
        raise UsageError("serve() can't move a running program into the background. Use microwsgi serve --daemon.")
    console = Console()
    try:
        run(application, checked, ssl_context, console)
    finally:
        console.close()


def serve_command(words: list[str], given: dict[str, object]) -> int:
    """`microwsgi serve`. Raises UsageError."""
    if len(words) > 1:
        raise UsageError(f"expected one application, not {len(words)}: {' '.join(words)}.")
    options = Options.from_mapping(given)
    open_standard_descriptors()  # else a socket, or the pipe of `launch`, would get the number of a standard stream
    if options.daemon and "_MICROWSGI_READY_FD" not in os.environ:
        return launch(options)
    console = Console()
    try:
        run(words[0] if words else None, options, None, console, at_end=exit_on_signal)
    except UsageError as error:
        if options.full_traceback and error.__cause__ is not None:
            console.say("".join(lazy.traceback.format_exception(error.__cause__)))
        raise
    for number in SIGNALS:  # a signal now ends the process at once
        _install(number, exit_on_signal)
    if hasattr(
        signal, "setitimer"
    ):  # at its end the interpreter removes signal handlers: an alarm would then kill the process
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    console.replace_closed()
    # Threads, child processes and exit handlers that the application has left must not keep the process alive.
    exit_within(EXIT_TIME, console.say)
    return 0


def launch(options: Options) -> int:
    """Start the background process, for `--daemon`. Raises UsageError."""
    if options.reload:
        raise UsageError(
            "--reload, which microwsgi dev sets, can't be combined with --daemon. Use microwsgi serve --daemon; to load new "
            "code then: microwsgi restart --graceful."
        )
    if not hasattr(os, "fork"):  # Windows
        raise UsageError(
            "--daemon is not available on this system. Start the server in its own window, without --daemon."
        )
    code: int = import_module("microwsgi.daemon.launch").launch(options)
    return code


def exit_on_signal(*_: object) -> None:
    """End the process: a signal handler for the time when no requests are left to finish."""
    _exit(0)


def run(
    application: object,
    options: Options,
    ssl_context: object,
    console: Console,
    *,
    at_end: Callable[..., object] | None = None,
) -> None:
    """Serve with options that are checked already, until INT or TERM.

    When serving ends, `at_end` is installed as the handler of both signals, directly in place of the handlers used until then.
    """
    if needs_parent(application, options):
        if not hasattr(os, "fork"):  # Windows
            raise UsageError(
                "--reload, --workers and --daemon are not available on this system: processes can't inherit sockets here."
            )
        # The modules of a parent take 15 ms to import, and most servers have no parent.
        import_module("microwsgi.serving.supervised").run(application, options, ssl_context, console, at_end=at_end)
        return
    try:
        stop = Stop(console, at_end)
    except OSError as error:
        raise ServiceError(f"the system can't create the sockets of the server: {error.strerror}.") from None
    pid = os.getpid()
    try:
        tls = https(options, ssl_context)
        with (
            stop.on_signals(),
            listening(options) as listeners,
            ForkGuard(lambda: [stop.on_signal, exit_on_signal]) as guard,
        ):
            guard.add(lambda: release(listeners))
            guard.add(stop.release)
            options = make_absolute(options)
            import_error_page(options)
            name, application = load_application(application, options)
            if os.getpid() != pid:
                os._exit(0)  # this is a child that the application has forked at import: only one process serves
            stop.reinstall_signal_handlers()
            with open_log(options, console) as log:
                server = make(application, options, listeners, log, tls, None, console)
                guard.add(server.release_descriptors)
                if problem := check_answers():
                    raise ServiceError(f"{name} can't be served: {problem}")
                stop.act_for(server)
                color = colored(options.color, console.errors)
                console.say(banner(name, listeners, options, tls, color=color, query=address_query(options)))
                start = time.monotonic()
                with one_prompt(server), slow_requests(server, options.log_slow_requests), stop.serving():
                    server.serve_forever()
        seconds = time.monotonic() - start
        last = "Stopped immediately." if stop.signals > 1 else farewell(server.requests, server.failures, seconds)
    except KeyboardInterrupt:  # a signal before there was anything to finish, or afterwards
        last = "Stopped immediately."
    console.never_block()
    console.say(last)
    console.write_rest()


def needs_parent(application: object, options: Options) -> bool:
    """Return whether there must be a parent process: for some options, under systemd, and as process 1 of a container."""
    named = application is None or isinstance(application, str)
    return options.is_service or (named and ("NOTIFY_SOCKET" in os.environ or os.getpid() == 1))


class Stop:
    """Handles signals if there is no parent process: see the table in docs/daemon.md.

    At the first INT or TERM the server finishes running requests, at the second it ends without waiting. The signal handler may
    interrupt the main thread anywhere: it only sets flags, and wakes the main thread and the thread of this object, which does
    all work that may take a lock, or wait for a disk or a terminal. Raises OSError.
    """

    def __init__(self, console: Console, at_end: Callable[..., object] | None = None) -> None:
        self.console = console
        self.at_end = at_end  # the handler for INT and TERM afterwards; if None, the previous handlers
        self.signals = 0  # the number of INT and TERM; the end of the terminal also counts
        self.server: WSGIServer | None = None  # set by `act_for`, None again when it has ended
        self.is_serving = False  # in `serve_forever`, which returns when a stop is requested
        self.is_interrupted = False
        self.numbers: deque[int] = deque()  # signals that have arrived; the handler appends, the thread removes
        self.reader, self.writer = socket.socketpair()
        self.writer.setblocking(False)
        self.thread = threading.Thread(target=self.act_on_signals, name="microwsgi-signals", daemon=True)
        self.is_installed = False
        self.began = time.monotonic()
        self.at_terminal = console.is_terminal
        self.application_handlers: dict[int, Callable[..., object]] = {}  # handlers of the application for INT and TERM
        self.others: dict[int, Callable[[WSGIServer], object]] = {}
        say = console.say
        acts: dict[str, Callable[[WSGIServer], object]] = {
            "SIGHUP": self.on_hangup,
            "SIGQUIT": lambda server: show_running(server, say),
            "SIGUSR1": lambda server: reopen_log(server, say),
            "SIGUSR2": self.write_state,
        }
        for name, act in acts.items():
            if hasattr(signal, name):  # Windows has none of them
                self.others[getattr(signal, name)] = act

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Install the signal handlers; in a thread other than the main thread, none.

        They are needed also as process 1, for which the kernel ignores signals without a handler, and in the background of a
        script, for which the shell has ignored INT.
        """
        try:
            before = [(number, _install(number, self.on_signal)) for number in (*SIGNALS, *self.others)]
        except ValueError:
            before = []
        self.is_installed = bool(before)
        try:
            yield
        finally:
            self.end()
            for number, handler in before:
                _install(number, (number in SIGNALS and self.at_end) or handler or signal.SIG_DFL)

    def reinstall_signal_handlers(self) -> None:
        """Handle INT and TERM also if the import of the application has installed handlers for them: these are called first.

        An application's handlers for other signals are not changed.
        """
        for number in SIGNALS:
            handler = _current(number)
            if handler == self.on_signal:
                continue
            if callable(handler):
                self.application_handlers[number] = handler
            try:
                _install(number, self.on_signal)
            except ValueError:
                return  # not the main thread
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, in the main thread: record it, and wake the thread of this object."""
        if number in self.application_handlers:
            try:
                self.application_handlers[number](number, frame)
            except BaseException:  # many call sys.exit(); the server ends when its requests are finished
                pass
        if number in SIGNALS:
            self.signals += 1
            if self.server is not None and (self.is_serving or self.signals == 1):
                self.stop(self.server)
            elif not self.is_interrupted:
                self.is_interrupted = True  # a further signal must not interrupt the cleanup
                raise KeyboardInterrupt
        self.numbers.append(number)
        try:
            self.writer.send(b"\0")
        except OSError:
            pass  # its buffer is full: the thread will wake anyway

    def stop(self, server: WSGIServer) -> None:
        """Have the server finish running requests, or end at once the second time: set flags, and wake the main thread."""
        if self.signals > 1:
            server.limit_drain(0.0)
        server.request_stop()

    def act_for(self, server: WSGIServer) -> None:
        """Handle signals for this server from now on, in a thread."""
        self.server = server
        if self.is_installed:
            self.thread.start()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Set `is_serving` while `serve_forever` runs."""
        self.is_serving = True
        try:
            yield
        finally:
            self.is_serving = False

    def end(self) -> None:
        """End the thread, after its last message: the farewell comes after messages about signals."""
        self.server = None
        self.writer.close()
        if self.thread.is_alive():
            self.thread.join(FAREWELL_TIME)
        else:
            self.reader.close()

    def release(self) -> None:
        """Close the descriptors, in a process that the application has forked."""
        for each in (self.reader, self.writer):
            if each.fileno() >= 0:
                os.close(each.detach())

    def act_on_signals(self) -> None:
        """Handle signals until `end`: the thread's main function."""
        with self.reader:
            while self.reader.recv(4096):
                while self.numbers:
                    self.act(self.numbers.popleft())

    def act(self, number: int) -> None:
        """Handle a signal, except the stop itself. If that fails, the next signal is still handled."""
        server = self.server
        if server is None:
            return
        try:
            if number in self.others:
                self.others[number](server)
            elif self.signals == 1:
                report_running(server, self.console)
        except Exception as error:  # a disk, or an application's own log
            self.console.say(f"{signal.Signals(number).name}: {type(error).__name__}: {error}")

    def on_hangup(self, server: WSGIServer) -> None:
        """HUP: stop if the terminal was closed, else load new certificates. Only a parent process can load new code."""
        if self.at_terminal and not self.console.is_terminal:
            if not self.signals:  # the kernel and the shell each send HUP when a terminal is closed: it is one event
                self.signals = 1
                self.stop(server)
        else:
            check_certificates(server)
            self.console.say("HUP: a server without a parent process can't load new code. Start it with --workers 1.")

    def write_state(self, server: WSGIServer) -> None:
        """USR2: print the state, as a line of JSON."""
        state = {"pid": os.getpid(), "urls": urls(server.listeners), "uptime": round(time.monotonic() - self.began, 1)}
        self.console.say(lazy.json.dumps({**state, **server.stats()}))
