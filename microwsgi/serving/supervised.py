"""Serving by children of a parent that never imports the application: `--reload` and `--workers`.

`microwsgi.serving.serve.run` calls `run` for these options. `microwsgi.prefork.supervisor` is the parent; this module has the
code of its children (`live`), the messages on the terminal (`Terminal`), and the page that is served when the application
can't be loaded.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from socket import socket

from microwsgi.devtools.livereload import LiveReload
from microwsgi.errors import LoadError, ServiceError, UsageError
from microwsgi.options import Options
from microwsgi.prefork.channel import Message
from microwsgi.prefork.children import NEVER, Child, Generation, Observer
from microwsgi.prefork.life import State
from microwsgi.prefork.processes import fork, fork_is_safe, spawn
from microwsgi.prefork.publisher import Publisher
from microwsgi.prefork.supervisor import Supervisor
from microwsgi.prefork.watch import Watch
from microwsgi.prefork.worker import Worker
from microwsgi.process.exiting import EXIT_TIME
from microwsgi.process.system import System
from microwsgi.server.connections import Security
from microwsgi.server.context import Application
from microwsgi.server.environ import Environ
from microwsgi.server.inflight import slow_requests
from microwsgi.server.server import WSGIServer
from microwsgi.server.sockets import urls
from microwsgi.serving.assembly import (
    ERROR_PAGE,
    GreenThreadsError,
    address_query,
    check_answers,
    dev_token,
    https,
    import_error_page,
    listening,
    load_application,
    make,
    open_log,
    release,
)
from microwsgi.serving.console import RETRY, STILL_SERVED, Console, banner, colored, farewell
from microwsgi.serving.imports import CodeCache, Imports
from microwsgi.serving.operating import check_certificates, describe_running, report_running, show_running
from microwsgi.serving.prompt import one_prompt, set_terminal_attributes, terminal_attributes
from microwsgi.serving.service import Service, open_service
from microwsgi.support.relay import relay
from microwsgi.support.source import relative
from microwsgi.support.typenames import Any

SEE_TERMINAL = b"The application can't be loaded; the server's terminal says why.\n"
MAX_NAMED_FILES = 3
"""The maximum number of changed files that a message names; the others are counted."""


def run(
    application: object,
    options: Options,
    ssl_context: object = None,
    console: Console | None = None,
    system: System | None = None,
    *,
    at_end: Callable[..., object] | None = None,
) -> None:
    """Serve until INT or TERM. Raises UsageError.

    When serving ends, `at_end` is installed as the handler of both signals, directly in place of the handlers used until then.
    """
    if application is not None and not isinstance(application, str):
        raise UsageError("with reload or workers, serve() takes the name of the application, like 'main:app'.")
    console = console or Console()
    system = system or System()
    with open_service(options, console, system) as service, listening(service.options) as listeners:
        options = service.options
        tls = https(
            options, ssl_context
        )  # created before the fork: a TLS session with one child can be resumed with another
        service.adopt_sockets(listeners, tls)
        console.never_block()
        terminal = Terminal(options, listeners, tls, service)
        watch = None
        if options.reload:
            include, exclude, polling = options.reload_include, options.reload_exclude, options.reload_poll
            watch = Watch(options.app_dir, include, exclude, polling=polling, on_fallback=terminal.polls)
        begin = partial(fork, live=partial(live, application, options, listeners, terminal))
        if not fork_is_safe():
            if ssl_context is not None:
                raise UsageError("a spawned process can't inherit an ssl_context. Use tls_cert and tls_key.")
            begin = partial(
                spawn, call="microwsgi.serving.supervised:live_spawned", values=[application, vars(options)]
            )
        try:
            supervisor = Supervisor(options, listeners, begin, observer=terminal, watch=watch, system=system)
        except OSError as error:
            raise ServiceError(f"the system has no sockets for a parent process: {error.strerror}.") from None
        service.attach(supervisor)
        supervisor.signals.at_end = at_end
        start = time.monotonic()
        supervisor.run()
        if supervisor.stop_count > 1:
            service.say("Stopped immediately.")
        else:
            service.say(farewell(supervisor.requests, supervisor.errors, time.monotonic() - start))
        console.write_rest()


# --- A child ------------------------------------------------------------------------------------------------------------


def live(spec: str | None, options: Options, listeners: list[socket], terminal: Terminal, worker: Worker) -> None:
    """Run a child: import the application, report that it is ready, and serve when the parent orders it."""
    console = terminal.service.console
    console.block_again()
    worker.say = terminal.service.say
    worker.guard.add(lambda: release(listeners))
    terminal.service.close_inherited()
    publisher = Publisher(worker.send, worker.say)
    relay.connect(publisher.send)
    worker.on_event = lambda event: relay.deliver(**event)  # the keys are those of an event that `Topics` sends
    worker.guard.add(relay.disconnect)
    imports = Imports(terminal.codes)
    livereload = LiveReload()
    pid = os.getpid()
    if options.reload or worker.is_reload:
        # A compiled file counts as fresh for a second after its source was changed: see microwsgi.serving.imports.
        imports.install(lambda files: worker.send(files=files))
    try:
        if worker.fatal_error:
            raise LoadError(worker.fatal_error)
        import_error_page(options)
        name, application = load_application(spec, options)
    except UsageError as error:
        exit_if_forked(pid)
        if options.full_traceback and error.__cause__ is not None:
            console.say("".join(traceback.format_exception(error.__cause__)))
        worker.send(failed=str(error), unusable=isinstance(error, GreenThreadsError), **imports.report())
        if worker.wait_for_message() != "show":
            return
        name, application = "", unloaded(error.__cause__ or error, str(error), options, livereload)
    exit_if_forked(pid)
    worker.install_signal_handlers()
    with open_log(options, console) as log:
        server = make(
            application, options, listeners, log, terminal.tls, livereload if options.reload else None, console
        )
        worker.guard.add(server.release_descriptors)
        worker.send(ready=name, **imports.report())
        if worker.wait_for_message() != "serve":
            return
        worker.on_stop = partial(report_running, console=console)
        worker.on_reminder = lambda server: still_retiring(server, worker.say)
        worker.on_accept_stopped = livereload.notify
        worker.orders["running"] = partial(show_running, say=console.say)
        worker.orders["certificates"] = check_certificates
        worker.orders["reopen"] = terminal.service.reopen_in_child
        worker.obey_parent(server, check_answers)
        prompt = one_prompt(server, worker.take_terminal, worker.leave_terminal)
        with prompt, slow_requests(server, options.log_slow_requests):
            server.serve_forever()
        publisher.close()
        worker.send(report=server.stats())


def exit_if_forked(pid: int) -> None:
    """End this process if the application has forked it during the import: only one process is the worker."""
    if os.getpid() != pid:
        os._exit(0)


def still_retiring(server: WSGIServer, say: Callable[[str], object]) -> None:
    """Print which requests a child with old code waits for."""
    if requests := describe_running(server):
        say(f"Process {os.getpid()}, with the old code, still waits for {requests}; `kill {os.getpid()}` ends it.")


def live_spawned(worker: Worker, listeners: list[socket], values: list[Any]) -> None:
    """Run `live` in a process that was spawned: it has inherited only the sockets."""
    spec, given = values
    options = Options()
    vars(options).update(given)
    service = Service(options, Console(), System())
    terminal = Terminal(options, listeners, https(options, None), service)
    live(spec, options, listeners, terminal, worker)


def unloaded(error: BaseException, text: str, options: Options, livereload: LiveReload) -> Application:
    """Return the application that is served instead of one that can't be loaded: its page has the text of the terminal."""
    page = None
    try:
        if options.debug:
            token = dev_token(options)
            page = import_module(ERROR_PAGE).ErrorPage(options.editor, livereload, allows=token.allows, hint=token.hint)
    except Exception:  # WebOb can't be imported, which may be why the application can't be loaded
        pass

    def application(environ: Environ, start_response: Callable[..., object]) -> list[bytes]:
        if page is not None:
            headers, body = page.at_start(error, text, environ)
        else:
            headers, body = (
                [("Content-Type", "text/plain"), ("Cache-Control", "no-store"), ("Refresh", "1")],
                SEE_TERMINAL,
            )
        start_response("500 Internal Server Error", headers)
        return [body]

    return application


# --- The parent ---------------------------------------------------------------------------------------------------------


class Terminal(Observer):
    """Prints which code is served, and errors; prepares the parent for the next children."""

    def __init__(self, options: Options, listeners: list[socket], tls: Security | None, service: Service) -> None:
        self.options = options
        self.tls = tls
        self.service = service
        self.listeners = listeners
        self.codes = CodeCache()
        self.greeted = False
        self.text = ""  # why the last generation could not be loaded
        self.terminal: list[object] | None = None
        self.last_failure = ("", 0)  # the last exception of the parent, and how often it was repeated without a message

    def serving(self, child: Child) -> None:
        """Print which application is now served, and which change caused it."""
        console = self.service.console
        if child.generation.changed or self.greeted:
            took = (time.monotonic() - child.generation.began) * 1000
            why = f"{'fixed' if self.text else 'changed'}: {named(child.generation.changed)}"
            self.service.say(
                f"{why if child.generation.changed else 'reloaded'}; serving {child.name} after {took:.0f} ms"
            )
        if not self.greeted:
            self.greeted = True
            color = colored(self.options.color, console.errors)
            console.say(
                banner(
                    child.name, self.listeners, self.options, self.tls, color=color, query=address_query(self.options)
                )
            )
        self.text = ""
        self.service.serving(child)

    def failed(self, generation: Generation, text: str, *, serving: list[int]) -> None:
        """Print why a generation can't be loaded, and which code is still served, unless the last message was the same."""
        self.service.failed(text, serving=bool(serving), served=self.greeted)
        if text == self.text:
            return
        self.text = text
        lines = [f"microwsgi: {text}"]
        changed = f"Changed: {named(generation.changed)}. " if generation.changed else ""
        scheme = "http" if self.tls is None else "https"
        if serving:
            pids = ", ".join(map(str, serving))
            lines.append(f"  {changed}{STILL_SERVED} (PID {pids}).")
            if self.options.reload:
                lines.append("  Save again to retry.")
        elif self.options.reload and self.options.debug:
            where = urls(self.listeners, scheme)[0] + address_query(self.options)
            lines.append(f"  {changed}Until a saved file fixes this, the error is also shown at {where}")
        elif self.options.reload:
            lines.append(f"  {changed}Until a saved file fixes this, every request is answered with status 500.")
        if not (serving or self.greeted):
            lines.append("  Ctrl-C stops the server.")
        self.service.say("\n".join(lines))

    def died(self, child: Child, how: str, pause: float) -> None:
        """Print which child has ended, and when another starts."""
        self.service.say(f"Worker {child.pid} {how}; a new worker starts{f' in {pause:g} s' if pause else ''}.")

    def leaving(self, child: Child) -> None:
        """Print that a child is replaced."""
        self.service.say(f"Worker {child.pid} received TERM; a new worker starts.")

    def late(self, child: Child, previous: State, text: str) -> None:
        """Print which step a child has not done in time, and the consequence."""
        grace = f"{self.options.graceful_timeout:g} s of --graceful-timeout"
        messages = {
            State.CHECKING: f"Worker {child.pid} accepts connections but does not answer: it is killed and replaced.",
            State.RETIRING: f"Process {child.pid}, with the old code, does not respond. Its clients are waiting.",
            State.UNRESPONSIVE: f"Process {child.pid}, with the old code, still does not respond, and is killed.",
            State.STOPPING: f"Process {child.pid} has not ended after {grace}, and is killed.",
            State.EXITING: f"Process {child.pid} served its last request {EXIT_TIME:g} s ago, and is killed: "
            "something that the application left running kept it alive.",
            State.KILLED: f"Process {child.pid} was killed, but the system has not ended it yet.",
        }
        if previous in messages:
            self.service.say("\n".join(filter(None, [messages[previous], text])))
        if previous is State.CHECKING:
            self.service.answer_reloads(
                "\n".join(filter(None, ["a new worker does not answer.", text, f"  {STILL_SERVED}."]))
            )

    def lagging(self, child: Child) -> None:
        """Print that events are lost."""
        self.service.say(f"Worker {child.pid} is not reading its events: new ones are dropped until it does.")

    def not_started(self, error: BaseException, pause: float) -> None:
        """Print why no worker could be started."""
        why = getattr(error, "strerror", None) or repr(error)
        self.service.say(f"No worker could be started: {why}. The next attempt is in {pause:g} s.")
        if self.greeted:
            self.service.failed(f"no worker could be started: {why}", serving=True, served=True)

    def call_failed(self, error: BaseException) -> None:
        """Print an exception of the parent; if it is repeated, print only how often."""
        text = f"{type(error).__name__}: {error}"
        last, count = self.last_failure
        if text == last:
            self.last_failure = text, count + 1
            return
        if count:
            self.service.say(f"({last}: repeated {count} times)")
        self.last_failure = text, 0
        place = traceback.extract_tb(error.__traceback__)[-1:]
        where = "".join(f" ({os.path.basename(frame.filename)}:{frame.lineno})" for frame in place)
        self.service.say(f"The parent process continues after {text}{where}.")

    def polls(self, why: str) -> None:
        """Print that files are polled, and why."""
        self.service.say(f"Files are checked for changes a few times a second, as with --reload-poll: {why}.")

    def prompting(self) -> None:
        """Store the settings of the terminal before the line editor changes them."""
        self.terminal = terminal_attributes()

    def prompt_lost(self) -> None:
        """Restore the settings of the terminal."""
        if self.terminal is not None:
            set_terminal_attributes(self.terminal)

    def write_queued(self) -> float:
        """Write messages that wait for the terminal."""
        console = self.service.console
        if console.queue:
            console.write_queued()
        return RETRY if console.queue else NEVER

    def chores(self, message: Message) -> Iterator[object]:
        """Import in the parent the modules that a child has, except the application; compile its files for the next child."""
        for name in message.get("modules", ()):
            if name not in sys.modules:
                try:
                    yield import_module(name)
                except Exception:  # a child that needs the module will report the error
                    continue
        if self.options.reload:
            for path, content in message.get("files", {}).items():
                self.codes.prepare(path, content)
                yield path


def named(paths: list[str]) -> str:
    """Return the names of the first files, relative to the folder, and how many others there are."""
    more = f" and {len(paths) - MAX_NAMED_FILES} more" if len(paths) > MAX_NAMED_FILES else ""
    return ", ".join(relative(path) for path in paths[:MAX_NAMED_FILES]) + more
