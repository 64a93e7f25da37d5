"""What a connection's handler must know of the server behind it; enough on its own under http.server's servers.

`microwsgi.server.server.WSGIServer` is a Gateway that knows more: its poller, its threads, its stop.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterable

from microwsgi import later
from microwsgi.options import Options
from microwsgi.server.hosts import Hosts
from microwsgi.wire.response import Clock

Application = Callable[..., Iterable[bytes]]
"""PEP 3333's: called with environ and start_response. More exact types would refuse wsgiref.types', which users have."""
COMPLAINTS = 1024
"""Complaints that are remembered."""
REMIND = 60.0
"""Seconds in which the same complaint about the same address is not repeated."""
RequestLog = Callable[..., object]
"""Called with each WSGIRequestHandler whose request is done with, and the seconds that it took."""

ErrorPage = Callable[[BaseException, dict[str, object], str], tuple[list[tuple[str, str]], bytes]]
"""Called where an exception was caught, with the environ and what the log has it under; headers, and a body."""


class Gateway:
    """An application, the options under which it is served, and where to write what happens."""

    def __init__(
        self,
        application: Application | None = None,
        options: Options | None = None,
        access_log: RequestLog | None = None,
        errors: io.TextIOBase | None = None,
    ) -> None:
        self.stopping = False  # connections are to end with the response that they are at
        self.parks = False  # a response that has nothing to send yet can rest without a thread: `wake` asks it on
        self.timing: Callable[..., str] | None = None  # makes a field line that says where a request's time went
        self.error_page: ErrorPage | None = None  # what a client on this machine is shown of an exception
        self.hosts: Hosts | None = None  # those that are answered for, None for all: the command line has a list
        self.application = application
        self.options = options or Options()
        self.access_log = access_log
        self.errors = errors
        self.date = Clock()
        self.failures = 0
        self.complaints: dict[tuple[str, str], float] = {}

    def set_app(self, application: Application | None) -> None:
        """As wsgiref's server has it."""
        self.application = application

    def get_app(self) -> Application | None:
        """As wsgiref's server has it."""
        return self.application

    def alone(self) -> Gateway:
        """What `handle_request` serves one request with: nobody polls, and the connection ends with the response."""
        gateway = Gateway(self.application, self.options, self.access_log, self.errors)
        gateway.stopping = True
        return gateway

    def clock(self) -> float:
        """The seconds that time limits are measured in."""
        return time.monotonic()

    def watch(self, deadline: float) -> None:
        """A connection's `timed_out` is to be called at this time; here its own thread does that."""

    def may_collect(self, handler: object) -> bool:
        """Whether the poller may wait for the rest of this one's small body."""
        return handler is not None

    def hold_for_client(self) -> bool:
        """Whether a thread may wait until a slow reader takes more; `release` when it has."""
        return True

    def release(self) -> None:
        """The end of what `hold_for_client` allowed."""

    def forget(self, handler: object) -> None:
        """A connection is about to be closed, or is the application's from here on."""

    def replace(self, handler: object, successor: object) -> None:
        """A connection is another handler's from here on: hands have been shaken on it."""

    def wake(self, handler: object, after: float) -> None:
        """Ask an iterable on, at once or after so many seconds."""

    def error_stream(self) -> object:
        """Where errors go: `wsgi.errors`."""
        return self.errors or sys.stderr

    def log_error(self, text: str) -> None:
        """Write a line, or some, where errors go; where that can't be, as on a full disk, they are lost."""
        stream = self.errors or sys.stderr
        try:
            stream.write(f"{text}\n")  # at once: print ends a line by a second write, and threads would mix them
            stream.flush()
        except (OSError, ValueError):
            pass

    def complain(self, client: str, about: str) -> None:
        """Write a line on a client that did not get as far as a request; the same of the same address once a minute."""
        now = time.monotonic()
        known = client.rpartition(":")[0], about
        if self.complaints.get(known, 0.0) < now:
            if len(self.complaints) >= COMPLAINTS:
                self.complaints.clear()
            self.complaints[known] = now + REMIND
            self.log_error(f"{client} {about}")

    def log_exception(self, what: str, error: BaseException) -> None:
        """Write the traceback of an application's failure, under a line that says which request it was."""
        self.log_error(f"{what}\n{''.join(later.traceback.format_exception(error)).rstrip()}")


def multithreaded(server: object) -> bool:
    """Whether a server, one of http.server's or ours, may call an application twice at a time."""
    if isinstance(server, Gateway):
        return server.options.threads > 1
    return hasattr(server, "process_request_thread")  # socketserver.ThreadingMixIn's
