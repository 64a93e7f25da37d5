"""Serve an application until a signal ends it: listen, load, say where, serve, finish.

    serve_command   `microwsgi serve`
    serve           what programs call
      run           with a parent process (`microwsgi.supervised.run`), or in this one:
        listening, load_application, make    the parts (`microwsgi.assembly`)
        check_answers                        a request of its own; then the banner is printed
        serve_forever                        until `Stop` hears INT or TERM

What goes wrong before the first request is a UsageError.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from importlib import import_module
from types import FrameType

from microwsgi import later
from microwsgi.assembly import (
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
from microwsgi.console import Console, banner, colored, farewell
from microwsgi.errors import ServiceError, UsageError
from microwsgi.operating import look_at_certificates, reopen_log, show_running, still_running
from microwsgi.options import Options
from microwsgi.options.config_file import from_file
from microwsgi.options.environment import merged
from microwsgi.options.keywords import OptionValues, Unpack
from microwsgi.process.after_fork import ForkGuard
from microwsgi.process.exiting import EXIT_TIME, exit_within
from microwsgi.process.interpreter import open_standard_descriptors
from microwsgi.prompt import one_prompt
from microwsgi.server.context import Application
from microwsgi.server.inflight import slow_requests
from microwsgi.server.server import WSGIServer
from microwsgi.server.sockets import urls

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_install, _current = signal.signal, signal.getsignal  # before an application can replace them


def serve(
    application: Application | type[BaseHTTPRequestHandler] | str | None = None,
    *,
    ssl_context: object = None,
    **options: Unpack[OptionValues],
) -> None:
    """Serve until INT or TERM comes; requests that run then have `graceful_timeout` to end.

    `application` is a callable, a handler class of http.server, or where to find one, as `microwsgi serve` takes it; the
    options are those of docs/options.md. `ssl_context`, for https with a certificate of your own, is an ssl.SSLContext,
    (certificate file, key file) or "adhoc". The environment is not read. Raises UsageError.
    """
    checked = Options.from_mapping(merged(from_file(options) if "config" in options else {}, options))
    if checked.daemon:
        raise UsageError(
            "a program can't go into the background in the middle: microwsgi serve --daemon starts another."
        )
    console = Console()
    try:
        run(application, checked, ssl_context, console)
    finally:
        console.close()


def serve_command(words: list[str], given: dict[str, object]) -> int:
    """`microwsgi serve`. Raises UsageError."""
    if len(words) > 1:
        raise UsageError(f"one application at a time can be served, not {len(words)}: {' '.join(words)}.")
    options = Options.from_mapping(given)
    open_standard_descriptors()  # else a socket, or the pipe of `launch`, would get the number of a standard stream
    if options.daemon and "_MICROWSGI_READY_FD" not in os.environ:
        return launch(options)
    console = Console()
    try:
        run(words[0] if words else None, options, None, console, at_end=leave)
    except UsageError as error:
        if options.full_traceback and error.__cause__ is not None:
            console.say("".join(later.traceback.format_exception(error.__cause__)))
        raise
    for number in SIGNALS:  # a signal now ends the process at once
        _install(number, leave)
    if hasattr(signal, "setitimer"):  # the interpreter removes its handlers at its end, and an alarm would then kill it
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    console.replace_closed()
    # Threads, child processes and exit handlers that the application has left must not keep the process.
    exit_within(EXIT_TIME, console.say)
    return 0


def launch(options: Options) -> int:
    """`--daemon`, in the foreground. Raises UsageError."""
    if options.reload:
        raise UsageError("--reload is for a terminal, and --daemon for when there is none: leave one of them out.")
    if not hasattr(os, "fork"):  # Windows
        raise UsageError("--daemon is not possible on this system: start it in a window of its own, without --daemon.")
    code: int = import_module("microwsgi.daemon.launch").launch(options)
    return code


def leave(*_: object) -> None:
    """A signal's handler, when there is nothing left to finish."""
    os._exit(0)


def run(
    application: object,
    options: Options,
    ssl_context: object,
    console: Console,
    *,
    at_end: Callable[..., object] | None = None,
) -> None:
    """The same with options that are checked already; `at_end` handles INT and TERM afterwards, without a moment between."""
    if needs_parent(application, options):
        if not hasattr(os, "fork"):  # Windows
            raise UsageError("--reload, --workers and a service want a system whose processes can inherit sockets.")
        # What a parent needs takes 15 ms to import, and most servers have none.
        import_module("microwsgi.supervised").run(application, options, ssl_context, console)
        return
    stop = Stop(console, at_end)
    pid = os.getpid()
    try:
        tls = https(options, ssl_context)
        with stop.on_signals(), listening(options) as listeners, ForkGuard(lambda: [stop.heard, leave]) as guard:
            guard.add(lambda: release(listeners))
            options = make_absolute(options)
            import_error_page(options)
            name, application = load_application(application, options)
            if os.getpid() != pid:
                os._exit(0)  # the application has forked, and the child came back here: one process serves
            stop.hear_again()
            with open_log(options, console) as log:
                server = make(application, options, listeners, log, tls, None, console)
                guard.add(server.release_descriptors)
                if trouble := check_answers():
                    raise ServiceError(f"{name} can't be served: {trouble}")
                stop.server = server
                console.say(banner(name, listeners, options, tls, color=colored(options.color, console.errors)))
                start = time.monotonic()
                with one_prompt(server), slow_requests(server, options.log_slow_requests):
                    server.serve_forever()
            console.say(farewell(server.requests, server.failures, time.monotonic() - start))
    except KeyboardInterrupt:  # a second signal, or one before there was anything to finish
        console.say("Stopped at once.")


def needs_parent(application: object, options: Options) -> bool:
    """Whether a parent process is asked for; under systemd, and as process 1 of a container, there is always one."""
    named = application is None or isinstance(application, str)
    return options.is_service or (named and ("NOTIFY_SOCKET" in os.environ or os.getpid() == 1))


class Stop:
    """What the signals do where there is no parent process: see the table in docs/daemon.md.

    The first INT or TERM has the server finish what runs, the second raises KeyboardInterrupt in `run`.
    """

    def __init__(self, console: Console, at_end: Callable[..., object] | None = None) -> None:
        self.console = console
        self.at_end = at_end  # for INT and TERM when this is over; else what there was before
        self.signals = 0
        self.server: WSGIServer | None = None
        self.began = time.monotonic()
        self.at_terminal = console.is_terminal
        self.applications: dict[int, Callable[..., object]] = {}  # handlers of the application for INT and TERM
        self.others: dict[int, Callable[[WSGIServer], object]] = {}
        say = console.say
        acts: dict[str, Callable[[WSGIServer], object]] = {
            "SIGHUP": self.hang_up,
            "SIGQUIT": lambda server: show_running(server, say),
            "SIGUSR1": lambda server: reopen_log(server, say),
            "SIGUSR2": self.write_state,
        }
        for name, act in acts.items():
            if hasattr(signal, name):  # Windows has none of them
                self.others[getattr(signal, name)] = act

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to the signals, outside of the main thread to none.

        Also as process 1, where the kernel ignores what nobody listens to, and in a script's background, where the shell
        has had INT ignored.
        """
        try:
            before = [(number, _install(number, self.heard)) for number in (*SIGNALS, *self.others)]
        except ValueError:
            before = []
        try:
            yield
        finally:
            for number, handler in before:
                _install(number, (number in SIGNALS and self.at_end) or handler or signal.SIG_DFL)

    def hear_again(self) -> None:
        """After the import: INT and TERM stop the server, also where the application has handlers of its own for them.

        Those are called first. An application's handlers for other signals stay as they are.
        """
        for number in SIGNALS:
            handler = _current(number)
            if handler == self.heard:
                continue
            if callable(handler):
                self.applications[number] = handler
            try:
                _install(number, self.heard)
            except ValueError:
                return  # not the main thread
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def heard(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between two of its steps."""
        if number in self.others:
            if self.server is not None:
                self.others[number](self.server)
            return
        if number in self.applications:
            try:
                self.applications[number](number, frame)
            except BaseException:  # many end with sys.exit(); the server ends in its own way
                pass
        self.stop()

    def stop(self) -> None:
        """INT and TERM."""
        if self.server is None:
            raise KeyboardInterrupt
        self.signals += 1
        if self.signals > 1:
            self.server.limit_drain(0.0)
            if self.signals == 2:  # a third one must not disturb the end
                raise KeyboardInterrupt
            return
        self.server.request_stop()
        still_running(self.server, self.console)

    def hang_up(self, server: WSGIServer) -> None:
        """HUP: the terminal is closed, or somebody has new certificates, or wants new code, which takes a parent process."""
        if self.at_terminal and not self.console.is_terminal:
            if not self.signals:  # the kernel and the shell each send HUP when a terminal is closed: it is one event
                self.stop()
        else:
            look_at_certificates(server)
            self.console.say(
                "HUP: one process alone can't serve new code without a gap. Start it with --workers 1 for that."
            )

    def write_state(self, server: WSGIServer) -> None:
        """USR2: the state, as a line of JSON."""
        state = {"pid": os.getpid(), "urls": urls(server.listeners), "uptime": round(time.monotonic() - self.began, 1)}
        self.console.say(later.json.dumps({**state, **server.stats()}))
