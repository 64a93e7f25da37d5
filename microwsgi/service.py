"""What a parent process is to those outside: a pid file, a log, a socket to ask it, a service manager to tell.

`microwsgi.supervised.run` has a `Service` around all that it does. What may fail does so in this order, before anything of the
application is imported: whom to become, the log, the folder, the pid file, the sockets, the privileges.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from functools import partial

from microwsgi import __version__
from microwsgi.daemon.background import UMASK, Readiness, address_of, log_path, pid_path, redirect
from microwsgi.daemon.notify import Notifier
from microwsgi.daemon.pidfile import PidFile
from microwsgi.daemon.privileges import Identity
from microwsgi.errors import ListenError, UsageError
from microwsgi.options import Options
from microwsgi.prefork.children import LEAVING, SERVING, Child
from microwsgi.prefork.supervisor import Supervisor
from microwsgi.server.connections import Security
from microwsgi.server.server import WSGIServer
from microwsgi.server.sockets import listen, unlink, url, urls
from microwsgi.serving import is_terminal, reopen_log, say

ASKED = 64
"""Bytes that a question on the socket may have."""
PATIENCE = 1.0
"""Seconds for who asks to say what."""


@contextmanager
def service(options: Options) -> Iterator[Service]:
    """A service that has begun; who waits for it is told why, if it can't serve. Raises UsageError."""
    begun = Service(options)
    try:
        begun.begin()
        yield begun
    except UsageError as error:
        begun.readiness.tell(error=str(error), code=error.exit_code)
        raise
    finally:
        begun.end()


class Service:
    """A parent's outside."""

    supervisor: Supervisor
    at_terminal: bool

    def __init__(self, options: Options) -> None:
        self.options = options
        self.began = time.time()
        self.notifier = Notifier(os.environ)
        self.readiness = Readiness(os.environ)
        self.pid_file: PidFile | None = None
        self.control: socket.socket | None = None
        self.listeners: list[socket.socket] = []
        self.urls: list[str] = []
        self.tls: Security | None = None
        self.identity: Identity | None = None
        self.application = ""
        self.waiting: list[socket.socket] = []  # who asked for a reload, and wants to hear how it went

    # --- Begin and end ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take the files and the folder that the options name. Raises UsageError."""
        options = self.options
        if options.user or options.group:
            self.identity = Identity(options.user, options.group)
        if options.daemon or options.log_file:
            options.log_file = log_path(options)
            try:
                redirect(options.log_file)
            except OSError as error:
                raise UsageError(f"--log-file {options.log_file} can't be written: {error.strerror}.") from None
            if sys.stdout is not None:
                sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what is printed is seen in the log
        self.make_absolute()
        if options.umask or options.daemon:
            os.umask(int(options.umask, 8) if options.umask else UMASK)
        if options.chdir:
            try:
                os.chdir(options.chdir)
            except OSError as error:
                raise UsageError(f"--chdir {options.chdir} is not possible: {error.strerror}.") from None
        self.lock(options.addresses[0])

    def make_absolute(self) -> None:
        """Files are those that were meant where the command was typed."""
        options = self.options
        options.app_dir = os.path.abspath(options.app_dir)
        options.config = options.config and os.path.abspath(options.config)
        options.pid_file = options.pid_file and os.path.abspath(options.pid_file)
        if options.access_log not in {"-", "off"}:
            options.access_log = os.path.abspath(options.access_log)
        for name in ("tls_password_file", "tls_client_ca", "tls_keylog"):
            setattr(options, name, getattr(options, name) and os.path.abspath(getattr(options, name)))
        options.tls_cert = tuple(map(os.path.abspath, options.tls_cert))
        options.tls_key = tuple(map(os.path.abspath, options.tls_key))
        options.bind = tuple(
            f"unix:{os.path.abspath(address[5:])}"
            if address.startswith("unix:") and address[5:6] not in {"@", ""}
            else address
            for address in options.bind
        )

    def lock(self, address: str) -> None:
        """Have the pid file, once its name is known. Raises UsageError."""
        if self.pid_file is None and (self.options.daemon or self.options.pid_file):
            path = pid_path(self.options, address)
            if path:
                self.pid_file = PidFile(path)
                self.pid_file.lock()

    def take_sockets(self, listeners: list[socket.socket], tls: Security | None) -> None:
        """The sockets are there: what root has opened may be given up, and root's privileges, too. Raises UsageError."""
        self.listeners = listeners
        self.tls = tls
        self.urls = urls(listeners, "http" if tls is None else "https")
        self.lock(address(listeners[0]))
        if self.pid_file is not None:
            folder, name = os.path.split(self.pid_file.path)
            try:
                with chdir(folder):  # a socket's path may have 107 bytes, and a folder's more
                    (self.control,) = listen(f"unix:./{name.removesuffix('.pid')}.sock")
            except ListenError as error:
                say(f"microwsgi status will have no figures: {error}")
        if self.identity is not None:
            for path in (self.options.log_file, self.options.access_log, *sockets_of(listeners)):
                if os.path.isabs(path) and os.path.exists(path):
                    self.identity.own(path)
            self.identity.become()

    def end(self) -> None:
        """Remove what is there only while it serves, and tell who waits that it does not."""
        self.readiness.close()
        self.loaded("the server stops")
        if self.control is not None:
            try:
                unlink(self.control)
            except OSError:
                pass  # root has made it, and this is root no longer; the next one replaces it
            self.control.close()
        self.notifier.close()
        if self.pid_file is not None:
            self.pid_file.release()

    def leave(self) -> None:
        """In a child: none of this is its own."""
        self.readiness.close()
        self.notifier.close()
        if self.control is not None:
            self.control.close()
        if self.pid_file is not None:
            os.close(self.pid_file.descriptor)
        for connection in self.waiting:
            connection.close()

    # --- Signals, and who asks ----------------------------------------------------------------------------------------

    def attend(self, supervisor: Supervisor) -> None:
        """Listen to signals and to the socket, and give signs of life."""
        self.supervisor = supervisor
        self.at_terminal = is_terminal(sys.stderr)
        stop = self.stop
        supervisor.on_signal |= {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGHUP: self.reload}
        supervisor.on_signal |= {signal.SIGUSR1: self.reopen, signal.SIGUSR2: self.write_state}
        supervisor.on_signal[signal.SIGQUIT] = partial(self.order, "running")
        if self.control is not None:
            supervisor.attend(self.control, partial(self.hear, self.control))
        if self.notifier.interval:
            supervisor.tick_at = time.monotonic()
            supervisor.on_tick = self.tick

    def stop(self) -> None:
        """INT and TERM."""
        self.notifier.tell("STOPPING=1")
        self.supervisor.stop()

    def reload(self) -> None:
        """HUP: new code; unless the terminal that this was started at is closed, whose shell says so with HUP, too."""
        if self.at_terminal and not is_terminal(sys.stderr):
            self.stop()
        else:
            self.notifier.reloading()
            if self.tls is not None:
                self.tls.look(asked=True)  # here for the children to come, so that they resume each other's sessions
                self.order("certificates")
            self.supervisor.replace()

    def reopen(self) -> None:
        """USR1: the log files have been moved, and new ones are to be written."""
        self.reopen_log()
        self.order("reopen")

    def order(self, word: str) -> None:
        """Tell all children something that they obey."""
        for child in self.supervisor.children:
            if child.state in {SERVING, LEAVING}:
                child.order(word)

    def reopen_in_child(self, server: WSGIServer) -> None:
        """The same in a child, for its own access log, too."""
        self.reopen_log()
        reopen_log(server)

    def reopen_log(self) -> None:
        """Write to a new file; if there can be none, to the old one, and say so."""
        try:
            if self.options.log_file:
                redirect(self.options.log_file)
        except OSError as error:
            self.say(f"{self.options.log_file} can't be opened anew: {error.strerror}; the old file is written on.")

    def say(self, text: str) -> None:
        """Tell the person at the terminal, or the log, and that the time, too."""
        say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}" if self.options.log_file else text)

    def write_state(self) -> None:
        """USR2: the state, as a line of JSON in the log."""
        self.supervisor.ask(lambda _: say(json.dumps(self.state())))

    def tick(self) -> float:
        """The watchdog's: a sign of life, if all children that serve give one."""
        self.supervisor.ask(lambda alive: self.notifier.tell("WATCHDOG=1") if alive else None)
        return time.monotonic() + self.notifier.interval

    def hear(self, control: socket.socket) -> None:
        """Somebody has a question: `state` or `reload`."""
        try:
            connection, _ = control.accept()
        except OSError:
            return
        connection.settimeout(PATIENCE)
        try:
            question = connection.recv(ASKED)
        except OSError:
            question = b""
        if question == b"state\n":
            self.supervisor.ask(lambda _: answer(connection, self.state()))
        elif question == b"reload\n":
            self.waiting.append(connection)
            self.reload()
        else:
            connection.close()

    # --- What becomes of the children -----------------------------------------------------------------------------------

    def serving(self, child: Child) -> None:
        """A generation serves: tell whoever waits for that."""
        self.application = child.name
        where = ", ".join(self.urls)
        self.supervisor.ask(lambda _: self.ready())
        self.notifier.tell("READY=1", f"STATUS=serving {child.name} at {where}")

    def ready(self) -> None:
        """The children answer: so they serve."""
        path = self.pid_file.path if self.pid_file else ""
        target = self.options.pid_file or address_of(os.path.basename(path).removesuffix(".pid"))
        self.readiness.tell(
            pid=os.getpid(),
            urls=self.urls,
            application=self.application,
            stop=f"microwsgi stop {target}",
        )
        self.loaded("")

    def failed(self, text: str) -> None:
        """New code can't be loaded; the old goes on."""
        self.notifier.tell("READY=1", f"STATUS=serving the last version that worked; {text.splitlines()[0]}")
        self.loaded(text)

    def loaded(self, trouble: str) -> None:
        """A reload has ended."""
        for connection in self.waiting:
            answer(connection, {"trouble": trouble})
        self.waiting.clear()

    def state(self) -> dict[str, object]:
        """What `microwsgi status` shows."""
        supervisor = self.supervisor
        workers = [
            {
                "pid": child.pid,
                "state": child.state,
                "uptime": round(time.monotonic() - child.began, 1),
                **child.figures,
            }
            for child in supervisor.children
        ]
        totals = {name: sum(int(worker.get(name, 0)) for worker in workers) for name in FIGURES}  # type: ignore[call-overload]
        totals["requests"] += supervisor.requests
        totals["errors"] += supervisor.errors
        return {
            "pid": os.getpid(),
            "application": self.application,
            "urls": self.urls,
            "began": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.began)),
            "uptime": round(time.time() - self.began, 1),
            **totals,
            "memory": sum(memory(pid) for pid in (os.getpid(), *(child.pid for child in supervisor.children))),
            "workers": workers,
            "tls": [] if self.tls is None else self.tls.notes(),
            "log": self.options.log_file,
            "version": __version__,
        }


FIGURES = ("requests", "errors", "connections", "running")
"""What children tell, and the sums of it."""


def answer(connection: socket.socket, message: dict[str, object]) -> None:
    """Send JSON to who asked, and hang up."""
    try:
        with connection:
            connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        pass  # it has gone


def address(listener: socket.socket) -> str:
    """A listener as a person names it: 127.0.0.1:8000."""
    return url(listener).removeprefix("http://").rstrip("/")


def sockets_of(listeners: list[socket.socket]) -> list[str]:
    """The files of Unix sockets."""
    names = [listener.getsockname() for listener in listeners]
    return [name for name in names if isinstance(name, str) and name.startswith("/")]


def memory(pid: int) -> int:
    """The bytes that a process has for itself, and its part of those that it shares; 0 where the system does not say."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return 1024 * next(int(line.split()[1]) for line in file if line.startswith(b"Pss:"))
    except (OSError, StopIteration):
        return 0
