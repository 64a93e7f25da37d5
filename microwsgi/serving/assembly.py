"""Create the parts of a server from the options: listening sockets, TLS, the application, the access log, the server."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from importlib import import_module

from microwsgi.daemon.systemd import passed_sockets
from microwsgi.errors import ListenError, LoadError, UsageError
from microwsgi.options import Options
from microwsgi.process.interpreter import green_threads, open_standard_descriptors, repair_hooks
from microwsgi.server.connections import Security
from microwsgi.server.context import Application
from microwsgi.server.environ import Environ
from microwsgi.server.forwarded import trusted_proxies
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.hosts import Hosts
from microwsgi.server.log import AccessLog
from microwsgi.server.sockets import listen, loopback_only, unlink
from microwsgi.serving.console import Console, colored, is_terminal
from microwsgi.serving.devtoken import DevToken
from microwsgi.serving.embedding import WSGIServer
from microwsgi.serving.loader import load_named
from microwsgi.serving.retyped import with_suggestions

PATHS = ("app_dir", "config", "pid_file", "tls_password_file", "tls_client_ca", "tls_keylog")
"""Options that are paths, or empty."""
ERROR_PAGE, TIMING = "microwsgi.devtools.errorpage", "microwsgi.devtools.timing"
"""Modules that are imported only with --debug: they need WebOb and the renderer of stacks."""
CHECK_TIME = 10.0
"""Seconds within which a new process must answer its own test request."""
CHECK = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@contextmanager
def listening(options: Options) -> Iterator[list[socket.socket]]:
    """Yield the listening sockets of all addresses. This comes first: a port in use should be reported before a long import."""
    trusted_proxies(options)  # raises UsageError before anything is imported
    listeners: list[socket.socket] = []
    try:
        for address in addresses(options):
            try:
                listeners += listen(address, options.backlog, mode=options.socket_mode, group=options.socket_group)
            except ListenError as error:
                raise with_suggestions(error) from None
        yield listeners
    finally:
        for listener in listeners:
            unlink(listener)
            listener.close()


def addresses(options: Options) -> list[str]:
    """Return the addresses to listen on: those of the options, or sockets passed by systemd (--bind fd://NAME selects some)."""
    passed = passed_sockets(os.environ) if "LISTEN_FDS" in os.environ else []
    if passed and not any(address.startswith("fd://") for address in options.addresses):
        return [f"fd://{descriptor}" for _, descriptor in passed]
    found: list[str] = []
    for address in options.addresses:
        by_name = [f"fd://{descriptor}" for name, descriptor in passed if address == f"fd://{name}"]
        found += by_name or [address]
    return found


def load_application(application: object, options: Options) -> tuple[str, object]:
    """Return the name and the application. Raises LoadError, also for an application that replaces threads."""
    if application is None or isinstance(application, str):
        try:
            found = load_named(application, options.app_dir, options.config)
        except LoadError as error:
            if text := green_threads():  # this is the cause
                raise GreenThreadsError(f"the application can't be served: {text}") from error
            raise
    elif not callable(application):
        raise UsageError(f"serve() takes an application or its name, not {type(application).__name__}.")
    else:
        owner = application if hasattr(application, "__qualname__") else type(application)
        module = os.path.basename(sys.argv[0]) if owner.__module__ == "__main__" else owner.__module__
        found = f"{module}:{owner.__qualname__}", application
    if text := green_threads():
        raise GreenThreadsError(f"{found[0]} can't be served: {text}")
    open_standard_descriptors()
    repair_hooks()
    return found


def make_absolute(options: Options) -> Options:
    """Return options with absolute paths: the application may change the working folder."""

    def absolute(path: str) -> str:
        return os.path.abspath(path) if path else path

    def absolute_address(address: str) -> str:
        path = address.removeprefix("unix:")
        return f"unix:{absolute(path)}" if address.startswith("unix:") and not path.startswith("@") else address

    changes: dict[str, object] = {name: absolute(getattr(options, name)) for name in PATHS}
    changes |= {name: tuple(map(absolute, getattr(options, name))) for name in ("tls_cert", "tls_key")}
    if options.access_log not in {"-", "off"}:
        changes["access_log"] = absolute(options.access_log)
    changes["bind"] = tuple(map(absolute_address, options.bind))
    return options.replaced(**changes)


def import_error_page(options: Options) -> None:
    """Import the modules that show exceptions, before the application can change sys.path, for example. Raises LoadError."""
    if options.debug:
        try:
            import_module(ERROR_PAGE)
            import_module(TIMING)
        except Exception as error:
            raise LoadError(f"--debug needs WebOb, which can't be imported: {type(error).__name__}: {error}") from error


def dev_token(options: Options) -> DevToken:
    """Return the token of the project, with which clients see the details of exceptions."""
    return DevToken(options.app_dir)


def address_query(options: Options) -> str:
    """Return the query of the addresses that the terminal prints: in development, the token of the project."""
    return dev_token(options).query if options.debug else ""


class GreenThreadsError(LoadError):
    """The application has patched this interpreter (with gevent, for example), so that it can't run threads."""


def https(options: Options, ssl_context: object = None) -> Security | None:
    """Return the TLS of the options, or None. TLS is imported only if needed: that takes 5 ms. Raises CertificateError."""
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
    livereload: object = None,
    console: Console | None = None,
) -> WSGIServer:
    """Return the server for an application, or for a handler class. Error pages use `livereload` to reload."""
    handler: type = WSGIRequestHandler
    if isinstance(application, type) and issubclass(application, BaseHTTPRequestHandler):
        handler, application = application, None
    error_page = timing = sign_in = None
    if options.debug and ERROR_PAGE in sys.modules:
        token = dev_token(options)
        sign_in = token.sign_in
        error_page = import_module(ERROR_PAGE).ErrorPage(
            options.editor, livereload, allows=token.allows, hint=token.hint
        )
        timing = import_module(TIMING).server_timing
    # The framework's protection against DNS rebinding (framework/crosssite.py) reads these names.
    environ: dict[str, object] = {"microwsgi.allow_host": options.allow_host}
    if options.debug:
        environ["x-wsgiorg.throw_errors"] = True
    some_hosts = "*" not in options.allow_host and (options.allow_host or loopback_only(listeners))
    errors = console.errors if console is not None else None
    if errors is None and sys.stderr is None:
        # Standard error is closed. Without a stream the server would use the application's logging.
        errors = open(os.devnull, "w", encoding="utf-8")  # open as long as the server
    return WSGIServer(
        options.addresses[0],
        handler,
        application=application,  # type: ignore[arg-type]  # the loader has checked it
        options=options,
        sockets=listeners,
        access_log=log,
        errors=errors,
        tls=tls,
        hosts=Hosts([*options.allow_host, *(tls.names() if tls is not None else ())]) if some_hosts else None,
        error_page=error_page,
        timing=timing,
        sign_in=sign_in,
        more_environ=environ,
    )


@contextmanager
def open_log(options: Options, console: Console) -> Iterator[AccessLog | None]:
    """Yield the access log of the options; at the end, write its queued lines and close it."""
    to_console = options.access_log == "-"
    if options.access_log == "off" or (to_console and (console.output is None or options.log_level != "info")):
        yield None
        return
    target = console.output if to_console else options.access_log
    log_format = options.log_format
    if log_format == "auto":
        log_format = "line" if to_console and is_terminal(target) else "combined"
    try:
        log = AccessLog(target, log_format, color=to_console and colored(options.color, target))
    except OSError as error:
        raise UsageError(f"--access-log {options.access_log} can't be written: {error.strerror}.") from None
    try:
        yield log
    finally:
        try:
            log.close()
        except OSError as error:
            console.say(f"The last lines of the access log are lost: {error.strerror}.")


# --- The test request ---------------------------------------------------------------------------------------------------


def check_answers(seconds: float = CHECK_TIME) -> str:
    """Check that this process can answer a request. Return "" if it can, else the reason.

    The request is sent to another server, which has its own socket and application: it is not logged or counted, and does not
    call the user's application. A fault of the interpreter because of which connections are accepted but not answered (threads
    that don't run, a closed poller) also affects this server. The check takes 1.3 ms.
    """
    errors = RecordedStream()
    try:
        listener, client = pair()
    except OSError as error:
        return f"no socket could be created for the test request: {error.strerror}"
    with client:
        server = WSGIServer(sockets=[listener], application=ok_application, options=Options(threads=1), errors=errors)
        thread = threading.Thread(target=server.serve_forever, name="microwsgi-check", daemon=True)
        try:
            thread.start()
            client.settimeout(seconds)
            client.sendall(CHECK)
            answer = client.recv(4096)
        except (OSError, RuntimeError) as error:
            return f"its test request was not answered: {error}{errors.text()}"
        finally:
            server.request_stop()
            thread.join(1.0 if thread.ident else 0.0)
            server.server_close()
    return "" if answer.startswith(b"HTTP/1.1 200") else f"its test request got {answer[:40]!r}{errors.text()}"


class RecordedStream:
    """A stream that records what is written to it."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, text: str) -> None:
        """Record a text."""
        self.written.append(text)

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def text(self) -> str:
        """Return all recorded text, after a line break."""
        return "".join(["\n", *self.written]).rstrip()


def pair() -> tuple[socket.socket, socket.socket]:
    """Return a listening socket, and a socket that is connected to it. Raises OSError."""
    # There may be no loopback interface; on Linux an abstract Unix socket is always available.
    if sys.platform == "linux" and hasattr(socket, "AF_UNIX"):
        listener, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        listener.bind("")
        listener.listen()
    else:
        listener, client = socket.create_server(("127.0.0.1", 0)), socket.socket()
    try:
        client.connect(listener.getsockname())
    except OSError:
        listener.close()
        client.close()
        raise
    return listener, client


def release(listeners: list[socket.socket]) -> None:
    """Close these sockets in a forked child. Detach them, so that their objects don't close a later file of the same number."""
    for listener in listeners:
        if listener.fileno() >= 0:
            os.close(listener.detach())


def ok_application(environ: Environ, start_response: Callable[..., object]) -> list[bytes]:
    """Answer every request with 200, as a WSGI application."""
    start_response("200 OK", [("Content-Length", "0")])
    return []


def make_server(
    host: str,
    port: int,
    app: Application,
    server_class: type[WSGIServer] = WSGIServer,
    handler_class: type[WSGIRequestHandler] = WSGIRequestHandler,
    *,
    ssl_context: object = None,
) -> WSGIServer:
    """Return a server for an application, as wsgiref.simple_server.make_server does. Raises ListenError.

    `ssl_context`, for https, is an ssl.SSLContext, (certificate file, key file) or "adhoc". Raises CertificateError, too.
    """
    if ssl_context is None:
        server = server_class((host, port), handler_class)
    else:
        options = Options()
        tls = https(options, ssl_context)
        server = server_class((host, port), handler_class, options=options, tls=tls)
    server.set_app(app)
    return server
