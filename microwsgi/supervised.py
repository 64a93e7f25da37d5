"""Serving by children of a parent that never imports the application: `--reload` and `--workers`.

`microwsgi.serving.run` comes here with the one or the other. `microwsgi.prefork.supervisor` is the parent; here is what its
children do, what is said on the terminal, and what is shown when the application can't be loaded.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module

from microwsgi.devtools.beacon import Beacon
from microwsgi.diagnosis import shown
from microwsgi.errors import LoadError, UsageError
from microwsgi.imports import Codes, Imports
from microwsgi.loader import load_named
from microwsgi.options import Options
from microwsgi.prefork.channel import Message
from microwsgi.prefork.children import Child, Generation, Notices
from microwsgi.prefork.processes import fork, fork_is_safe, spawn
from microwsgi.prefork.supervisor import Supervisor
from microwsgi.prefork.watch import Watch
from microwsgi.prefork.worker import Worker
from microwsgi.prompt import one_prompt, set_terminal_attributes, terminal_attributes
from microwsgi.server.connections import Security
from microwsgi.server.context import Application
from microwsgi.server.environ import Environ
from microwsgi.server.hosts import Hosts, is_local
from microwsgi.server.inflight import slow_requests
from microwsgi.server.server import WSGIServer
from microwsgi.server.sockets import urls
from microwsgi.service import Service, service
from microwsgi.serving import (
    banner,
    farewell,
    https,
    listening,
    look_at_certificates,
    make,
    open_log,
    say,
    show_running,
    still_running,
    waited_for,
)

ELSEWHERE = b"The application can't be loaded; the server's terminal says why.\n"
NAMED = 3
"""Changed files that a message names; the others are counted."""


def run(application: object, options: Options, ssl_context: object = None) -> None:
    """Serve until INT or TERM. Raises UsageError."""
    if application is not None and not isinstance(application, str):
        raise UsageError("for a server with a parent process, serve() wants the application's name, as a text.")
    with service(options) as outside, listening(options) as listeners:
        tls = https(options, ssl_context)  # made before the fork: a session of one child can be resumed with another
        outside.take_sockets(listeners, tls)
        terminal = Terminal(options, listeners, tls, outside)
        watch = None
        if options.reload:
            include, exclude, polling = options.reload_include, options.reload_exclude, options.reload_poll
            watch = Watch(options.app_dir, include, exclude, polling=polling, tell=terminal.looks)
        begin = partial(fork, live=partial(live, application, options, listeners, terminal))
        if not fork_is_safe():
            if ssl_context is not None:
                raise UsageError("a spawned process can't be given an ssl_context; give serve() tls_cert and tls_key.")
            begin = partial(spawn, call="microwsgi.supervised:live_spawned", what=[application, vars(options)])
        supervisor = Supervisor(options, listeners, begin, notices=terminal, watch=watch)
        outside.attend(supervisor)
        start = time.monotonic()
        supervisor.run()
        if supervisor.stops > 1:
            outside.say("Stopped at once.")
        else:
            outside.say(farewell(supervisor.requests, supervisor.errors, time.monotonic() - start))


# --- A child ------------------------------------------------------------------------------------------------------------


def live(
    spec: str | None, options: Options, listeners: list[socket.socket], terminal: Terminal, worker: Worker
) -> None:
    """A child's life: import the application, say so, serve when the parent says so."""
    terminal.service.leave()
    imports = Imports(terminal.codes)
    beacon = Beacon()
    if options.reload:
        imports.install(lambda files: worker.tell(files=files))
    try:
        if worker.trouble:
            raise LoadError(worker.trouble)
        name, application = load_named(spec, options.app_dir, options.config)
    except UsageError as error:
        if options.traceback and error.__cause__ is not None:
            say("".join(traceback.format_exception(error.__cause__)))
        worker.tell(failed=str(error), **imports.report())
        if worker.wait_for_word() != "show":
            return
        name, application = "", unloaded(error.__cause__ or error, str(error), options, beacon)
    with open_log(options) as log:
        server = make(application, options, listeners, log, terminal.tls, beacon if options.reload else None)
        signal.signal(signal.SIGTERM, lambda *_: server.request_stop())
        worker.tell(ready=name, **imports.report())
        if worker.wait_for_word() != "serve":
            return
        worker.on_stop = still_running
        worker.on_reminder = still_retiring
        worker.on_shut_out = beacon.light
        worker.orders["running"] = show_running
        worker.orders["certificates"] = look_at_certificates
        worker.orders["reopen"] = terminal.service.reopen_in_child
        worker.attend(server)
        signal.signal(signal.SIGTERM, lambda *_: worker.finish(server))
        prompt = one_prompt(server, worker.take_terminal, worker.leave_terminal)
        with prompt, slow_requests(server, options.slow):
            server.serve_forever()
        worker.tell(report=server.stats())


def still_retiring(server: WSGIServer) -> None:
    """Say what a child with old code waits for."""
    if what := waited_for(server):
        say(f"Process {os.getpid()}, with the old code, still waits for {what}; `kill {os.getpid()}` ends it.")


def live_spawned(worker: Worker, listeners: list[socket.socket], what: list[object]) -> None:
    """The same in a process that has nothing of its parent but the sockets."""
    spec, values = what
    options = Options()
    vars(options).update(values)  # type: ignore[call-overload]  # of `run`, by way of JSON
    terminal = Terminal(options, listeners, https(options, None), Service(options))
    live(spec, options, listeners, terminal, worker)  # type: ignore[arg-type]  # of `run`, too


def unloaded(error: BaseException, text: str, options: Options, beacon: Beacon) -> Application:
    """What is served instead of an application that can't be loaded, until it is mended: here what the terminal says."""
    page = import_module("microwsgi.devtools.errorpage").ErrorPage(options.editor, beacon)
    hosts = Hosts(options.allow_host)

    def application(environ: Environ, start_response: Callable[..., object]) -> list[bytes]:
        if is_local(str(environ["REMOTE_ADDR"]), environ, hosts):
            headers, body = page.at_start(error, text, environ)
        else:
            headers, body = [("Content-Type", "text/plain"), ("Cache-Control", "no-store"), ("Refresh", "1")], ELSEWHERE
        start_response("500 Internal Server Error", headers)
        return [body]

    return application


# --- The parent ---------------------------------------------------------------------------------------------------------


class Terminal(Notices):
    """Tells the person at the terminal what is served, and what is wrong; prepares the next children."""

    def __init__(
        self, options: Options, listeners: list[socket.socket], tls: Security | None, service: Service
    ) -> None:
        self.options = options
        self.tls = tls
        self.service = service
        self.listeners = listeners
        self.codes = Codes()
        self.greeted = False
        self.trouble = ""  # what was wrong with the last generation
        self.terminal: list[object] | None = None

    def serving(self, child: Child) -> None:
        """Say what is served, and why it is other code."""
        if child.generation.changed or self.greeted:
            took = (time.monotonic() - child.generation.began) * 1000
            why = f"{'fixed' if self.trouble else 'changed'}: {named(child.generation.changed)}"
            self.service.say(
                f"{why if child.generation.changed else 'loaded anew'}; serving {child.name} after {took:.0f} ms"
            )
        if not self.greeted:
            self.greeted = True
            banner(child.name, self.listeners, self.options, self.tls)
        self.trouble = ""
        self.service.serving(child)

    def failed(self, generation: Generation, text: str, *, serving: bool) -> None:
        """Say what is wrong; what has been said is not repeated."""
        if serving:
            self.service.failed(text)
        if text == self.trouble:
            return
        self.trouble = text
        lines = [f"changed: {named(generation.changed)}"] if generation.changed else []
        lines.append(f"microwsgi: {text}")
        scheme = "http" if self.tls is None else "https"
        if serving:
            lines.append("  The last version that worked goes on serving.")
        elif self.options.reload:
            lines += [
                f"  {url} shows this until it is mended. Ctrl-C stops." for url in urls(self.listeners, scheme)[:1]
            ]
        self.service.say("\n".join(lines))

    def died(self, child: Child, how: str, pause: float) -> None:
        """Say who is dead, and when there is another."""
        self.service.say(f"Worker {child.pid} {how}; another takes its place{f' in {pause:g} s' if pause else ''}.")

    def looks(self, why: str) -> None:
        """Say that the system does not tell of changes."""
        self.service.say(f"Changes are looked for a few times a second, as with --reload-poll: {why}.")

    def prompting(self) -> None:
        """Remember how the terminal was set before the line editor sets it for itself."""
        self.terminal = terminal_attributes()

    def prompt_lost(self) -> None:
        """Set it as it was."""
        if self.terminal is not None:
            set_terminal_attributes(self.terminal)

    def chores(self, message: Message) -> Iterator[object]:
        """Import and compile here what a child has, but for the application itself: the next one finds it done."""
        for name in message.get("modules", ()):  # type: ignore[attr-defined]  # as `live` makes it
            if name not in sys.modules:
                try:
                    yield import_module(name)
                except Exception:  # noqa: BLE001, S112 - a child that needs it will say so
                    continue
        if self.options.reload:
            for path, content in message.get("files", {}).items():  # type: ignore[attr-defined]
                self.codes.prepare(path, content)
                yield path


def named(paths: list[str]) -> str:
    """Files as a person would type them."""
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(shown(path) for path in paths[:NAMED]) + more
