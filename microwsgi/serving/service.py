"""The interfaces of a parent process to the system: the pid file, the log, the control socket, the service manager.

`microwsgi.serving.supervised.run` does all its work within a `Service`. Errors are found in this order, before any module of
the application is imported: an unknown --user, a log that can't be written, a --chdir that does not exist, a pid file in use, a
port in use, privileges that can't be dropped.
"""

from __future__ import annotations

import io
import json
import os
import pwd
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from functools import partial

from microwsgi import __version__
from microwsgi.daemon.background import UMASK, Readiness, address_of, log_path, pid_path, redirect
from microwsgi.daemon.control_socket import Client, ControlSocket
from microwsgi.daemon.pidfile import PidFile
from microwsgi.daemon.privileges import Identity
from microwsgi.daemon.systemd import SystemdNotifier, unit_name
from microwsgi.errors import ListenError, UsageError
from microwsgi.options import Options
from microwsgi.options.declaration import OPTIONS
from microwsgi.options.kinds import Switch
from microwsgi.prefork.children import Child
from microwsgi.prefork.life import OBEYING, State
from microwsgi.prefork.supervisor import Supervisor
from microwsgi.process.system import System
from microwsgi.server.connections import Security
from microwsgi.server.server import WSGIServer
from microwsgi.server.sockets import listen, unlink, url, urls
from microwsgi.serving.assembly import make_absolute
from microwsgi.serving.console import STILL_SERVED, Console
from microwsgi.serving.operating import reopen_log

MEMORY_TIME = 0.05
"""Seconds for which a measured size is reused: measuring all processes takes milliseconds."""
HEALTHY = frozenset({State.SERVING})
"""States of the children that must report for the service to be healthy.

Those that retire, or still load the application, need not."""


@contextmanager
def open_service(options: Options, console: Console, system: System) -> Iterator[Service]:
    """Yield a service that has begun. If it can't serve, report the reason to the waiting launcher. Raises UsageError."""
    begun = Service(options, console, system)
    try:
        begun.begin()
        yield begun
    except UsageError as error:
        begun.readiness.send(error=str(error), code=error.exit_code)
        raise
    finally:
        begun.end()


class Service:
    """The files, sockets and signals by which a parent communicates with users, systemd and the microwsgi command."""

    supervisor: Supervisor
    at_terminal: bool

    def __init__(self, options: Options, console: Console, system: System) -> None:
        self.options = options
        self.console = console
        self.system = system
        self.began = time.time()
        self.changed_options = changed_options(options)
        self.notifier = SystemdNotifier(os.environ)
        self.readiness = Readiness(os.environ)
        self.runtime_folder = ""
        """The folder that systemd has created for this service (RuntimeDirectory=)."""
        if self.notifier.socket is not None:
            self.runtime_folder = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        self.pid_file: PidFile | None = None
        self.control: socket.socket | None = None
        self.clients: ControlSocket | None = None
        self.listeners: list[socket.socket] = []
        self.urls: list[str] = []
        self.tls: Security | None = None
        self.identity: Identity | None = None
        self.application = ""
        self.folder = ""
        self.started_in = working_folder()
        self.last_memory = 0
        self.measure_at = 0.0  # the time from which the memory is measured again
        self.next_tick = 0.0  # the time of the next notification of systemd's watchdog
        self.waiting_for_reload: list[Client] = []

    # --- Begin and end ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Open the log, set the umask and the working folder, and lock the pid file, by the options. Raises UsageError."""
        options = self.options
        if options.user or options.group:
            self.identity = Identity(options.user, options.group)
        if options.daemon or options.log_file:
            options = self.options = options.replaced(log_file=log_path(options))
            try:
                self.redirect()
            except OSError as error:
                raise UsageError(f"--log-file {options.log_file} can't be written: {error.strerror}.") from None
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(line_buffering=True)  # printed text appears in the log at once
        options = self.options = make_absolute(options)
        if options.umask or options.daemon:
            os.umask(int(options.umask, 8) if options.umask else UMASK)
        if options.chdir:
            try:
                os.chdir(options.chdir)
            except OSError as error:
                raise UsageError(f"can't change to --chdir {options.chdir}: {error.strerror}.") from None
        self.folder = working_folder()
        self.lock(options.addresses[0])

    def lock(self, address: str) -> None:
        """Write and lock the pid file, if its name is known. Raises UsageError."""
        if self.pid_file is None and (self.options.daemon or self.options.pid_file or self.runtime_folder):
            path = pid_path(self.options, address, self.runtime_folder)
            if path:
                self.pid_file = PidFile(path, self.system)
                self.pid_file.lock()

    def adopt_sockets(self, listeners: list[socket.socket], tls: Security | None) -> None:
        """Use these bound sockets; then change the owner of files, and drop root's privileges. Raises UsageError."""
        self.listeners = listeners
        self.tls = tls
        self.urls = urls(listeners, "http" if tls is None else "https")
        self.lock(address(listeners[0]))
        if self.pid_file is not None:
            folder, name = os.path.split(self.pid_file.path)
            try:
                with chdir(folder):  # the path of a socket has at most 107 bytes; that of a folder may be longer
                    (self.control,) = listen(f"unix:./{name.removesuffix('.pid')}.sock")
            except (ListenError, OSError) as error:
                self.say(f"microwsgi status can't show counts: {error}")
        if self.identity is not None:
            for path in (self.options.log_file, self.options.access_log, *sockets_of(listeners)):
                if os.path.isabs(path) and os.path.exists(path):
                    self.identity.chown(
                        path, keep_group=bool(self.options.socket_group) and path in sockets_of(listeners)
                    )
            self.identity.drop_privileges()

    def end(self) -> None:
        """Remove the pid file and the control socket. The launcher and waiting clients learn that the server has stopped."""
        self.readiness.close()
        self.answer_reloads("the server stops")
        if self.control is not None:
            unlink(self.control)
            self.control.close()
        self.notifier.close()
        if self.pid_file is not None:
            self.pid_file.release()

    def close_inherited(self) -> None:
        """Close the inherited descriptors in a child: they belong to the parent."""
        self.readiness.close()
        self.notifier.close()
        if self.clients is not None:
            self.clients.close()
        if self.pid_file is not None:
            os.close(self.pid_file.descriptor)

    # --- Signals, and clients of the control socket -------------------------------------------------------------------

    def attach(self, supervisor: Supervisor) -> None:
        """Handle signals, answer on the control socket, and tell the watchdog of systemd that the service is healthy."""
        self.supervisor = supervisor
        self.at_terminal = self.console.is_terminal
        stop = self.stop
        actions = supervisor.signals.actions
        actions |= {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGHUP: self.reload}
        actions |= {signal.SIGUSR1: self.reopen, signal.SIGUSR2: self.write_state}
        actions[signal.SIGQUIT] = partial(self.send_order, "running")
        if self.control is not None:
            self.clients = ControlSocket(self.control, supervisor.inputs, self.handle_query, self.system)
            supervisor.timers.append((self.clients.next_timeout, self.clients.expire))
        supervisor.timers.append((self.notifier.next_timeout, self.notifier.write_queued))
        if self.notifier.interval:
            supervisor.timers.append((lambda: self.next_tick, self.notify_watchdog))

    def stop(self) -> None:
        """INT and TERM: stop."""
        self.notifier.notify("STOPPING=1")
        self.supervisor.stop()

    def reload(self) -> None:
        """HUP: reload.

        If the terminal was closed, stop instead: the kernel sends HUP then, and the shell may send it once more.
        """
        if self.at_terminal and not self.console.is_terminal:
            if not self.supervisor.stop_count:
                self.stop()
        elif not self.supervisor.stop_count:
            self.notifier.reloading()
            if self.tls is not None:
                # In the parent: children that are forked from now on share its context, and can resume each other's sessions.
                self.tls.check_files(asked=True)
                self.send_order("certificates")
            self.supervisor.reload()

    def reopen(self) -> None:
        """USR1: reopen the log files, which have been moved."""
        self.reopen_log()
        self.send_order("reopen")

    def send_order(self, word: str) -> None:
        """Send an order to all children that serve or finish their requests."""
        for child in self.supervisor.children:
            if child.state in OBEYING:
                child.send_order(word)

    def reopen_in_child(self, server: WSGIServer) -> None:
        """Reopen the log files in a child; its access log is one of them."""
        self.reopen_log()
        reopen_log(server, self.say)

    def redirect(self) -> None:
        """Redirect the standard streams to the log file. Raises OSError."""
        redirect(self.options.log_file, self.system, self.console.descriptors)

    def reopen_log(self) -> None:
        """Reopen the log file. If that fails, continue with the old file, and print a message."""
        try:
            if self.options.log_file:
                self.redirect()
        except OSError as error:
            self.say(
                f"{self.options.log_file} can't be reopened: {error.strerror}. The server continues with the old file."
            )

    def say(self, text: str) -> None:
        """Print a message; if it goes to a log file, with the time."""
        self.console.say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}" if self.options.log_file else text)

    def write_state(self) -> None:
        """USR2: print the state and the watched files, as a line of JSON."""
        watch = self.supervisor.watch
        watched = {"watched": watch.describe()} if watch is not None else {}
        self.supervisor.ask(lambda _: self.console.say(json.dumps({**self.state(), **watched})))

    def notify_watchdog(self) -> None:
        """Notify systemd's watchdog that the service is healthy, if all serving children report."""
        self.next_tick = self.system.monotonic() + self.notifier.interval
        self.supervisor.ask(lambda healthy: self.notifier.notify("WATCHDOG=1") if healthy else None, HEALTHY)

    def handle_query(self, query: bytes, client: Client) -> None:
        """Answer a client's query: `state` or `reload`."""
        if query == b"state\n":
            self.supervisor.ask(lambda _: client.answer(self.state()))
        elif query == b"reload\n":
            self.waiting_for_reload.append(client)
            self.reload()
        else:
            client.close()

    # --- Events of children, and the state ----------------------------------------------------------------------------

    def serving(self, child: Child) -> None:
        """Report to systemd, the launcher, and clients that wait for a reload that a generation serves."""
        self.application = child.name
        where = ", ".join(self.urls)
        self.notifier.notify("READY=1", f"STATUS=serving {child.name} at {where}")
        path = self.pid_file.path if self.pid_file else ""
        target = self.options.pid_file or address_of(os.path.basename(path).removesuffix(".pid"))
        self.readiness.send(
            pid=os.getpid(),
            urls=self.urls,
            application=self.application,
            stop=f"microwsgi stop {target}",
        )
        self.answer_reloads("")

    def failed(self, text: str, *, serving: bool, served: bool) -> None:
        """Report that new code can't be loaded, or no worker can be started: to systemd, and to clients that wait for a reload.

        `serving`: older workers continue. `served`: the application has been served before; until then systemd gets no report
        that the service is ready.
        """
        now = STILL_SERVED if serving else "Requests are answered with an error page"
        if served:
            self.notifier.notify("READY=1", f"STATUS={now}; {text.splitlines()[0]}")
        self.answer_reloads(f"{text}\n  {now}.")

    def answer_reloads(self, error: str) -> None:
        """Answer the clients that wait for a reload; `error` is "" if it succeeded."""
        for client in self.waiting_for_reload:
            client.answer({"error": error})
        self.waiting_for_reload.clear()

    def memory(self) -> int:
        """Return the memory of the service's processes in bytes, measured at most once in MEMORY_TIME seconds."""
        if self.system.monotonic() >= self.measure_at:
            self.last_memory = sum(
                memory(pid) for pid in (os.getpid(), *(child.pid for child in self.supervisor.children))
            )
            self.measure_at = self.system.monotonic() + MEMORY_TIME
        return self.last_memory

    def state(self) -> dict[str, object]:
        """Return the state, as `microwsgi status` shows it."""
        supervisor = self.supervisor
        now = self.system.monotonic()
        workers = [
            {
                "pid": child.pid,
                "state": child.state.value,
                "uptime": round(now - child.began, 1),
                **child.stats,
            }
            for child in supervisor.children
        ]
        totals = {name: sum(int(worker.get(name, 0)) for worker in workers) for name in COUNTS}
        totals["requests"] += supervisor.requests
        totals["errors"] += supervisor.errors
        return {
            "pid": os.getpid(),
            "application": self.application,
            "urls": self.urls,
            "began": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.began)),
            "uptime": round(time.time() - self.began, 1),
            **totals,
            "memory": self.memory(),
            "workers": workers,
            "tls": [] if self.tls is None else self.tls.notes(),
            "log": self.options.log_file,
            "folder": self.folder,
            "started_in": self.started_in,
            "options": self.changed_options,
            "user": effective_user(),
            "python": f"{sys.version.split()[0]} ({sys.executable})",
            "command": [sys.executable, *sys.orig_argv[1:]] if self.options.daemon else [],
            "unit": unit_name() if self.runtime_folder else "",
            "version": __version__,
        }


COUNTS = ("requests", "errors", "connections", "running")
"""Keys of the children's reports that are added up."""


def working_folder() -> str:
    """Return the working folder of this process; "" if it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def changed_options(options: Options) -> dict[str, str]:
    """Return the options that differ from their defaults, each with its value as on a command line; "" for a switch."""
    found = {}
    for option in OPTIONS:
        value = getattr(options, option.name)
        if value != option.default:
            if isinstance(option, Switch):
                found[option.label if value else option.off_flag] = ""
            else:
                found[option.label] = option.format(value)
    return found


def effective_user() -> str:
    """Return the name of this process's user, or its number if it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def address(listener: socket.socket) -> str:
    """Return the address of a listener, without a scheme: 127.0.0.1:8000."""
    return url(listener).removeprefix("http://").rstrip("/")


def sockets_of(listeners: list[socket.socket]) -> list[str]:
    """Return the paths of Unix sockets."""
    names = [listener.getsockname() for listener in listeners]
    return [name for name in names if isinstance(name, str) and name.startswith("/")]


def memory(pid: int) -> int:
    """Return the proportional set size (PSS) of a process in bytes; 0 if it is unknown."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return 1024 * next(int(line.split()[1]) for line in file if line.startswith(b"Pss:"))
    except (OSError, StopIteration):
        return 0
