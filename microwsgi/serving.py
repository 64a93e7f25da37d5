"""Serve an application until somebody says stop: listen, load, say where, serve, finish.

`serve` is what programs call, and `serve_command` is `microwsgi serve`. What goes wrong before the first request is a
UsageError.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from importlib import import_module
from types import FrameType

from microwsgi import __version__, later
from microwsgi.config import from_file
from microwsgi.daemon.notify import passed_sockets
from microwsgi.errors import UsageError
from microwsgi.loader import load_named
from microwsgi.options import Options, merged
from microwsgi.prompt import one_prompt
from microwsgi.server.connections import Security
from microwsgi.server.context import Application
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.hosts import Hosts
from microwsgi.server.inflight import running, slow_requests
from microwsgi.server.log import AccessLog, escaped
from microwsgi.server.server import WSGIServer
from microwsgi.server.sockets import listen, loopback_only, unlink, urls

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ONLY_HERE = "(only this machine)"
EVERYONE = "(every machine on your network can reach this)"
DIM, BOLD = "2", "1"


def serve(
    application: Application | type[BaseHTTPRequestHandler] | str | None = None,
    *,
    ssl_context: object = None,
    **options: object,
) -> None:
    """Serve until INT or TERM comes; requests that run then have `grace_time` to end.

    `application` is a callable, a handler class of http.server, or where to find one, as `microwsgi serve` takes it; the
    options are those of docs/options.md. `ssl_context`, for https with a certificate of your own, is an ssl.SSLContext,
    (certificate file, key file) or "adhoc". The environment is not read. Raises UsageError.
    """
    checked = Options(**merged(from_file(options) if "config" in options else {}, options))
    if checked.daemon:
        raise UsageError(
            "a program can't go into the background in the middle: microwsgi serve --daemon starts another."
        )
    run(application, checked, ssl_context)


def serve_command(words: list[str], given: dict[str, object]) -> int:
    """`microwsgi serve`. Raises UsageError."""
    if len(words) > 1:
        raise UsageError(f"one application at a time can be served, not {len(words)}: {' '.join(words)}.")
    options = Options(**given)
    if options.daemon and "_MICROWSGI_READY_FD" not in os.environ:
        return launch(options)
    try:
        run(words[0] if words else None, options, at_end=leave)
    except UsageError as error:
        if options.traceback and error.__cause__ is not None:
            say("".join(later.traceback.format_exception(error.__cause__)))
        raise
    for number in SIGNALS:  # threads that the application has started, and not ended, must not keep the process
        signal.signal(number, leave)
    return 0


def launch(options: Options) -> int:
    """`--daemon`, in the foreground. Raises UsageError."""
    if options.reload:
        raise UsageError("--reload is for a terminal, and --daemon for when there is none: leave one of them out.")
    if os.name != "posix":
        raise UsageError("--daemon is not possible on this system: start it in a window of its own, without --daemon.")
    code: int = import_module("microwsgi.daemon.launch").launch(options)
    return code


def leave(*_: object) -> None:
    """A signal's handler, when there is nothing left to finish."""
    os._exit(0)


def run(
    application: object, options: Options, ssl_context: object = None, *, at_end: Callable[..., object] | None = None
) -> None:
    """The same with options that are checked already; `at_end` handles INT and TERM afterwards, without a moment between."""
    if needs_parent(application, options):
        if os.name != "posix":
            raise UsageError("--reload, --workers and a service want a system whose processes can inherit sockets.")
        # What a parent needs takes 15 ms to import, and most servers have none.
        import_module("microwsgi.supervised").run(application, options, ssl_context)
        return
    stop = Stop(at_end)
    try:
        tls = https(options, ssl_context)
        with stop.on_signals(), listening(options) as listeners:
            name, application = named(application, options)
            with open_log(options) as log:
                server = stop.server = make(application, options, listeners, log, tls)
                banner(name, listeners, options, tls)
                start = time.monotonic()
                with one_prompt(server), slow_requests(server, options.slow):
                    server.serve_forever()
            say(farewell(server.requests, server.failures, time.monotonic() - start))
    except KeyboardInterrupt:  # a second signal, or one before there was anything to finish
        say("Stopped at once.")


def needs_parent(application: object, options: Options) -> bool:
    """Whether a parent process is asked for; under systemd, and as process 1 of a container, there is always one."""
    named = application is None or isinstance(application, str)
    return options.is_service or (named and ("NOTIFY_SOCKET" in os.environ or os.getpid() == 1))


@contextmanager
def listening(options: Options) -> Iterator[list[socket.socket]]:
    """The sockets for all addresses, or none: first of all, so that a port in use is not learnt after a long import."""
    listeners: list[socket.socket] = []
    try:
        for address in addresses(options):
            listeners += listen(address, options.backlog)
        yield listeners
    finally:
        for listener in listeners:
            unlink(listener)
            listener.close()


def addresses(options: Options) -> list[str]:
    """Where to listen. Sockets that systemd has passed are served instead, or, with --bind fd://NAME, those of that name."""
    passed = passed_sockets(os.environ) if "LISTEN_FDS" in os.environ else []
    if passed and not any(address.startswith("fd://") for address in options.addresses):
        return [f"fd://{descriptor}" for _, descriptor in passed]
    found: list[str] = []
    for address in options.addresses:
        by_name = [f"fd://{descriptor}" for name, descriptor in passed if address == f"fd://{name}"]
        found += by_name or [address]
    return found


def named(application: object, options: Options) -> tuple[str, object]:
    """The application with the name that it goes by."""
    if application is None or isinstance(application, str):
        return load_named(application, options.app_dir, options.config)
    if not callable(application):
        raise UsageError(f"serve() wants an application, or where to find one, not {type(application).__name__}.")
    owner = application if hasattr(application, "__qualname__") else type(application)
    module = os.path.basename(sys.argv[0]) if owner.__module__ == "__main__" else owner.__module__
    return f"{module}:{owner.__qualname__}", application


def https(options: Options, ssl_context: object = None) -> Security | None:
    """TLS, if it is asked for; what it takes, 5 ms, is loaded only then. Raises CertificateError."""
    if ssl_context is None and not (options.tls or options.tls_cert or options.tls_key):
        return None
    made: Security = import_module("microwsgi.tls.front").make_tls(options, ssl_context)
    return made


def make(
    application: object,
    options: Options,
    listeners: list[socket.socket],
    log: AccessLog | None,
    tls: Security | None = None,
    beacon: object = None,
) -> WSGIServer:
    """The server for an application, or for a handler class; a page for an exception listens to the beacon."""
    handler: type = WSGIRequestHandler
    if isinstance(application, type) and issubclass(application, BaseHTTPRequestHandler):
        handler, application = application, None
    error_page = timing = None
    if options.debug:
        # Imported here: WebOb and the drawing code are only for those who ask for them.
        error_page = import_module("microwsgi.devtools.errorpage").ErrorPage(options.editor, beacon)
        timing = import_module("microwsgi.devtools.timing").server_timing
    some_hosts = "*" not in options.allow_host and (options.allow_host or loopback_only(listeners))
    return WSGIServer(
        options.addresses[0],
        handler,
        application=application,  # type: ignore[arg-type]  # the loader has checked it
        options=options,
        sockets=listeners,
        access_log=log,
        tls=tls,
        hosts=Hosts(options.allow_host) if some_hosts else None,
        error_page=error_page,
        timing=timing,
        more_environ={"x-wsgiorg.throw_errors": True} if options.debug else None,
    )


@contextmanager
def open_log(options: Options) -> Iterator[AccessLog | None]:
    """The access log that the options ask for; at the end what is left of it is written."""
    if options.access_log == "off" or (options.access_log == "-" and sys.stdout is None):
        yield None
        return
    color = options.access_log == "-" and colored(options.color, sys.stdout)
    target = sys.stdout if options.access_log == "-" else options.access_log
    try:
        log = AccessLog(target, options.log_format, color=color)  # type: ignore[arg-type]  # TextIO is TextIOBase, in fact
    except OSError as error:
        raise UsageError(f"--access-log {options.access_log} can't be written: {error.strerror}.") from None
    try:
        yield log
    finally:
        try:
            log.close()
        except OSError as error:
            say(f"The end of the access log is lost: {error.strerror}.")


# --- What is said on the terminal ---------------------------------------------------------------------------------------


def banner(name: str, listeners: list[socket.socket], options: Options, tls: Security | None = None) -> None:
    """Where it serves, what, and how to stop it."""
    color = colored(options.color, sys.stderr)
    dim, bold = (DIM, BOLD) if color else ("", "")
    lines = [f"microwsgi {__version__} serving {paint(escaped(name), bold)}"]
    scheme = "http" if tls is None else "https"
    lines += [f"  {address:<30}{paint(note, dim)}".rstrip() for address, note in places(listeners, scheme)]
    if tls is not None:
        lines += [f"  {note}" for note in tls.notes()]
    if not loopback_only(listeners):
        lines.append(f"  {paint('A development server: put a proxy in front of it before strangers come.', dim)}")
    more = "Reloads on save. " if options.reload else ""
    more += f"{options.workers} workers. " if options.workers > 1 else ""
    end = f"Process {os.getpid()}, in the background." if options.daemon else "Ctrl-C stops."
    lines.append(f"  {paint(more + end, dim)}")
    say("\n".join(lines))


def places(listeners: list[socket.socket], scheme: str = "http") -> Iterator[tuple[str, str]]:
    """Each address to click on, and who else can."""
    alone = loopback_only(listeners)
    for address in urls(listeners, scheme):
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            option = f"--abstract-unix-socket {path[1:]}" if path.startswith("@") else f"--unix-socket {path}"
            yield address, f"(curl {option} {scheme}://localhost/)"
        elif "//127." in address or "//[::1]" in address or "//localhost" in address:
            yield address, ONLY_HERE if alone else ""
        else:
            yield address, EVERYONE


def farewell(requests: int, errors: int, seconds: float) -> str:
    """What there was."""
    return f"Stopped. {counted(requests, 'request')}, {counted(errors, 'error')}, up {duration(seconds)}."


def counted(number: int, noun: str) -> str:
    """1 request, 2 requests."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """12 s, 4 min, 3 h 5 min, 2 days."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return counted(days, "day")
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def colored(when: str, stream: object, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to write in colour: what the option says, then NO_COLOR, then FORCE_COLOR, then a terminal that can."""
    if when != "auto":
        return when == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and environ.get("TERM") != "dumb"


def is_terminal(stream: object) -> bool:
    """Whether people read it; without a standard stream Python has None for it."""
    return stream is not None and stream.isatty()  # type: ignore[attr-defined]


def paint(text: str, style: str) -> str:
    """In a style of ANSI terminals; in none for ""."""
    return f"\033[{style}m{text}\033[0m" if style and text else text


def say(text: str) -> None:
    """Write for the person at the terminal, at once, also into a pipe."""
    try:
        # With its end in one write: several processes may say something at once.
        print(f"{text}\n", end="", file=sys.stderr, flush=True)  # noqa: T201 - this is where it is said
    except (OSError, ValueError, RuntimeError):
        pass  # nobody listens any more; or a signal came while this was being written


# --- Stopping -----------------------------------------------------------------------------------------------------------


class Stop:
    """What the signals do where there is no parent process: see the table in docs/daemon.md.

    The first INT or TERM has the server finish what runs, the second raises KeyboardInterrupt in `run`.
    """

    def __init__(self, at_end: Callable[..., object] | None = None) -> None:
        self.at_end = at_end  # for INT and TERM when this is over; else what there was before
        self.signals = 0
        self.server: WSGIServer | None = None
        self.began = time.monotonic()
        self.at_terminal = is_terminal(sys.stderr)
        self.others: dict[int, Callable[[WSGIServer], object]] = {}
        acts = {"SIGHUP": self.hang_up, "SIGQUIT": show_running, "SIGUSR1": reopen_log, "SIGUSR2": self.write_state}
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
            before = [(number, signal.signal(number, self.heard)) for number in (*SIGNALS, *self.others)]
        except ValueError:
            before = []
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, (number in SIGNALS and self.at_end) or handler or signal.SIG_DFL)

    def heard(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's signature
        """In the main thread, between two of its steps."""
        if number in self.others:
            if self.server is not None:
                self.others[number](self.server)
            return
        self.stop()

    def stop(self) -> None:
        """INT and TERM."""
        if self.server is None:
            raise KeyboardInterrupt
        self.signals += 1
        if self.signals > 1:
            self.server.limit_drain(0.0)
            if self.signals == 2:  # noqa: PLR2004 - a third one must not disturb the end
                raise KeyboardInterrupt
            return
        self.server.request_stop()
        still_running(self.server)

    def hang_up(self, server: WSGIServer) -> None:
        """HUP: the terminal is closed, or somebody has new certificates, or wants new code, which takes a parent process."""
        if self.at_terminal and not is_terminal(sys.stderr):
            self.stop()
        else:
            look_at_certificates(server)
            say("HUP: one process alone can't serve new code without a gap. Start it with --workers 1 for that.")

    def write_state(self, server: WSGIServer) -> None:
        """USR2: the state, as a line of JSON."""
        state = {"pid": os.getpid(), "urls": urls(server.listeners), "uptime": round(time.monotonic() - self.began, 1)}
        say(later.json.dumps({**state, **server.stats()}))


def show_running(server: WSGIServer) -> None:
    """QUIT: the requests in flight, with their stacks."""
    say(running(server))


def reopen_log(server: WSGIServer) -> None:
    """USR1: the access log has been moved, and a new one is to be written; if there can be none, the old one."""
    if isinstance(server.access_log, AccessLog):
        try:
            server.access_log.reopen()
        except OSError as error:
            say(f"{server.access_log.target} can't be opened anew: {error.strerror}; the old file is written on.")


def look_at_certificates(server: WSGIServer) -> None:
    """HUP: use those that have been replaced, at once."""
    if server.tls is not None:
        server.tls.look(asked=True)


def still_running(server: WSGIServer) -> None:
    """Say what a server that stops waits for."""
    if what := waited_for(server):
        start = "\r" if is_terminal(sys.stderr) else ""  # over the ^C
        say(f"{start}Stopping; waiting for {what}. Ctrl-C again to stop now.")


def waited_for(server: WSGIServer) -> str:
    """How many requests run, and which of them runs longest; "" for none."""
    running = server.in_flight()
    if not running:
        return ""
    line, seconds = max(running, key=lambda request: request[1])
    return f"{counted(len(running), 'request')} ({escaped(line.rpartition(' ')[0])}, {seconds:.1f} s)"
