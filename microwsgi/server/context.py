"""The objects that all connections of a server share: the application, the options, the logs, and counters.

`microwsgi.server.server.WSGIServer` creates one. A connection of one of http.server's servers has one without a loop.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType

from microwsgi.options import Options
from microwsgi.server.body_storage import BodyStorage
from microwsgi.server.forwarded import trusted_proxies
from microwsgi.server.hosts import Hosts
from microwsgi.server.log_writer import ERROR, LEVELS, WARNING, Destination, ErrorStream, LogWriter, printable
from microwsgi.server.permits import ClientPermits
from microwsgi.server.transport import Clock
from microwsgi.support.tracebacks import exception_text
from microwsgi.support.typenames import UNSET
from microwsgi.wire.response import DateFields

Application = Callable[..., Iterable[bytes]]
"""PEP 3333: called with environ and start_response. More exact types would reject applications typed with wsgiref.types."""
ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
"""The result of sys.exc_info()."""
MAX_REPORTED = 1024
"""The maximum number of messages about clients that are remembered, so that they are not repeated."""
CONTROLS = {number: f"\\x{number:02x}" for number in (*range(0x20), *range(0x7F, 0xA0))} | {ord("\\"): "\\\\"}
REPEAT = 60.0
"""Seconds for which a message about an address is not repeated."""
RequestLog = Callable[..., object]
"""Called with each finished Exchange, and the seconds that it took."""
ErrorPage = Callable[[BaseException, dict[str, object], str], tuple[list[tuple[str, str]], bytes]]
"""Called in the frame that caught an exception, with the environ and the number in the log; returns headers and a body."""


def escape_controls(text: str) -> str:
    """Escape control characters, as http.server's log_message does: a client must not control the terminal."""
    return text.translate(CONTROLS)


def multithreaded(server: object) -> bool:
    """Return whether a server, one of http.server's or ours, may call the application in two threads at once."""
    context = getattr(server, "context", None)
    if isinstance(context, ServerContext):
        return context.options.threads > 1
    return hasattr(server, "process_request_thread")  # socketserver.ThreadingMixIn's


class ServerContext:
    """An application, the options under which it is served, and the destinations of log records.

    `access_log` is called with each finished exchange. `errors` is a text stream or a logger of the module logging; None is
    standard error.

    `hosts` are the allowed host names, None for all. `error_page` makes the response for an exception, and decides which
    clients may see its details. `sign_in` is called with each Exchange whose head was parsed. `timing` returns a field line
    with the times of the parts of a request.
    """

    def __init__(
        self,
        application: Application | None = None,
        options: Options | None = None,
        access_log: RequestLog | None = None,
        errors: object = None,
        *,
        hosts: Hosts | None = None,
        error_page: ErrorPage | None = None,
        timing: Callable[..., str] | None = None,
        sign_in: Callable[..., object] | None = None,
    ) -> None:
        self.options = options or Options()
        self.set_application(application)
        self.access_log = access_log
        self.errors = errors
        self.hosts = hosts
        self.proxies = trusted_proxies(self.options)
        self.error_page = error_page
        self.timing = timing
        self.sign_in = sign_in
        self.date = DateFields()
        self.clock = Clock()
        self.can_suspend = False  # True with a loop, which resumes suspended responses
        self.draining = False  # connections end with their current response
        self.bodies = BodyStorage(self.options.max_temp_files_size)
        self.permits = ClientPermits(max(self.options.threads // 2, 1))
        # `bool` ignores its argument: until `attach_loop` there is no function to call.
        self.on_permit: Callable[..., object] = bool  # called with a connection that has waited for a permit
        self.resume: Callable[..., object] = bool  # called by any thread with an Exchange that was suspended
        # A logger gets records; what the application writes to `wsgi.errors` is text.
        self.error_log = Destination(errors)
        self.error_text = Destination() if hasattr(errors, "makeRecord") else self.error_log
        self.log_writer = LogWriter(self.error_log, self.error_text)
        self.log_level = LEVELS[self.options.log_level]
        self.errors_counted = 0
        self.reported: dict[tuple[str, str], float] = {}
        self.lock = threading.Lock()  # protects `errors_counted` and `reported`

    def set_application(self, application: Application | None) -> None:
        """Set the application. With its attribute `stream_chunked` it is called before a chunked body has arrived."""
        # UNSET (None) until wsgiref's `set_app`, and for handler classes of http.server.
        self.application: Application = UNSET if application is None else application
        self.stream_chunked = self.options.stream_chunked or getattr(application, "stream_chunked", False) is True

    def without_loop(self) -> ServerContext:
        """Return a context for one request without a loop: the connection is closed after the response."""
        context = ServerContext(
            self.application,
            self.options,
            self.access_log,
            self.errors,
            hosts=self.hosts,
            error_page=self.error_page,
            timing=self.timing,
            sign_in=self.sign_in,
        )
        context.draining = True
        context.bodies = self.bodies
        return context

    def attach_loop(self, resume: Callable[..., object], on_permit: Callable[..., object]) -> None:
        """Begin to serve with a loop, perhaps in another process than before."""
        self.can_suspend = True
        self.resume = resume
        self.draining = False
        self.on_permit = on_permit
        self.bodies = BodyStorage(self.options.max_temp_files_size)
        self.permits = ClientPermits(max(self.options.threads // 2, 1))
        self.lock = threading.Lock()
        self.start_log()

    def drain(self) -> None:
        """Let connections end with their current response."""
        self.draining = True

    def release_permit(self) -> None:
        """Give back a client-wait permit. The connection that has waited longest for one, if any, may run."""
        connection = self.permits.release()
        if connection is not None:
            self.on_permit(connection)

    # --- Counters and the error log -----------------------------------------------------------------------------------

    def count_error(self) -> None:
        """Count a request that failed because of an error of the server or the application."""
        with self.lock:
            self.errors_counted += 1

    def log_errors_to(self, logger: object) -> None:
        """Log errors to a logger of the module logging; to standard error if it is None."""
        self.error_log = Destination(logger) if logger is not None else self.error_text
        self.log_writer.add(self.error_log)

    def log_access_to(self, log: RequestLog | None) -> None:
        """Log requests by calling `log`."""
        self.access_log = log

    def start_log(self) -> None:
        """Start the thread that writes the log."""
        attach = getattr(self.access_log, "attach", None)
        if attach is not None:
            attach(self.log_writer, self.error_text)
        self.log_writer.start()

    def stop_log(self) -> None:
        """Write the remaining records. After that each thread writes its own records."""
        self.log_writer.stop()

    def error_stream(self) -> io.TextIOBase:
        """Return `wsgi.errors`."""
        return ErrorStream(self.log_writer, self.error_text)

    def log_error(self, text: str, level: int = WARNING, error: BaseException | None = None) -> None:
        """Queue a record for the error log, with control characters escaped, except line feeds and tabs."""
        if level >= self.log_level:
            self.error_log.add(f"{printable(text)}\n", level, error)
            if self.log_writer.idle:
                self.log_writer.wake()

    def log_client_error(self, client: str, text: str) -> None:
        """Log a failure before the first request of a client; the same message about an address at most once a minute."""
        now = time.monotonic()
        known = client.rpartition(":")[0], text
        with self.lock:
            if self.reported.get(known, 0.0) >= now:
                return
            if len(self.reported) >= MAX_REPORTED:
                self.reported.clear()
            self.reported[known] = now + REPEAT
        self.log_error(f"{client} {text}")

    def log_exception(self, title: str, error: BaseException) -> None:
        """Log the traceback of an exception, after the line `title`."""
        self.log_error(f"{title}\n{exception_text(error).rstrip()}", ERROR, error)
