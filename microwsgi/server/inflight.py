"""Descriptions of running requests, with age and stack: for SIGQUIT and --log-slow-requests."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from microwsgi.server.compat import HandlerConnection
from microwsgi.server.exchange import Exchange
from microwsgi.server.log import bytes_text, escaped, time_text
from microwsgi.server.server import WSGIServer
from microwsgi.support import lazy

SERVER_MODULES = ("threading", "microwsgi.server.")
"""Modules whose frames are between the thread's start and the application."""


CHECKS = 4
"""The number of checks for slow requests in the time after which a request counts as slow."""


def running(server: WSGIServer) -> str:
    """Return a paragraph for each request that runs, the oldest first."""
    requests = sorted(server.running(), key=lambda each: each.started)
    what = f"{len(requests)} request{'' if len(requests) == 1 else 's'} in flight"
    return "\n".join([f"{what}{':' if requests else '.'}", *(paragraph(server, each) for each in requests)])


def paragraph(server: WSGIServer, request: Exchange | HandlerConnection) -> str:
    """Return the request line, the age, the bytes sent, and the stack."""
    threads = [(thread.task, thread.ident) for thread in server.threads]
    thread = next((ident for task, ident in threads if task is request or (task and task.exchange is request)), None)
    frame = sys._current_frames().get(thread or 0)  # there is no other way to see another thread's stack
    line, age = escaped(request.requestline.rpartition(" ")[0]), time_text(server.context.clock.now() - request.started)
    place = "".join(lazy.traceback.format_list(stack(frame))) if frame else "  waits for a thread, or for its client\n"
    sent = bytes_text(request.bytes_sent()) if isinstance(request, Exchange) else "an unknown number of bytes"
    return f"{line}, for {age}, {sent} sent\n{place}".rstrip()


@contextmanager
def slow_requests(server: WSGIServer, seconds: float) -> Iterator[None]:
    """Within the block, log the stack of each request that takes longer than `seconds`, once; of none if this is 0."""
    if not seconds:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(
        target=log_slow_requests, args=(server, seconds, over), name="microwsgi-slow", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def log_slow_requests(server: WSGIServer, seconds: float, over: threading.Event) -> None:
    """Check at intervals until `over` is set."""
    logged: set[Exchange | HandlerConnection] = set()
    while not over.wait(seconds / CHECKS):
        slow = {each for each in server.running() if server.context.clock.now() - each.started > seconds}
        for request in slow - logged:
            server.context.log_error(f"Slow: {paragraph(server, request)}")
        logged = slow


def stack(frame: FrameType) -> list[lazy.traceback.FrameSummary]:
    """Return the frames from the first frame of the application on; all frames if there is none."""
    found = list(lazy.traceback.walk_stack(frame))[::-1]
    names = [str(each.f_globals.get("__name__")) for each, _ in found]
    first = next((index for index, name in enumerate(names) if not name.startswith(SERVER_MODULES)), 0)
    return list(lazy.traceback.StackSummary.extract(iter(found[first:])))
