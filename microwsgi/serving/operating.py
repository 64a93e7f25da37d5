"""The actions of a running server for signals that do not stop it: show requests, reopen logs, check certificates."""

from __future__ import annotations

from collections.abc import Callable

from microwsgi.server.inflight import running
from microwsgi.server.log import AccessLog, escaped
from microwsgi.server.server import WSGIServer
from microwsgi.serving.console import Console, counted


def show_running(server: WSGIServer, say: Callable[[str], object]) -> None:
    """QUIT: show the requests in flight, with their stacks."""
    say(running(server))


def reopen_log(server: WSGIServer, say: Callable[[str], object]) -> None:
    """USR1: reopen the access log. If that fails, keep the old file."""
    if isinstance(server.access_log, AccessLog):
        try:
            server.access_log.reopen()
        except OSError as error:
            say(
                f"{server.access_log.path} can't be reopened: {error.strerror}. The server continues with the old file."
            )


def check_certificates(server: WSGIServer) -> None:
    """HUP: load replaced certificates immediately."""
    if server.tls is not None:
        server.tls.check_files(asked=True)


def report_running(server: WSGIServer, console: Console) -> None:
    """Report which requests a stopping server waits for."""
    if requests := describe_running(server):
        start = "\r" if console.is_terminal else ""  # overwrites the ^C that the terminal shows
        console.say(f"{start}Stopping; waiting for {requests}. Ctrl-C again to stop now.")


def describe_running(server: WSGIServer) -> str:
    """Describe how many requests are running, and which one has run longest; "" for none."""
    found = server.in_flight()
    if not found:
        return ""
    line, seconds = max(found, key=lambda request: request[1])
    return f"{counted(len(found), 'request')} ({escaped(line.rpartition(' ')[0])}, {seconds:.1f} s)"
