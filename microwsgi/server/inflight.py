"""The requests that run, each with its age and where in the code it is: what QUIT and --slow have a server say."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from microwsgi import later
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.log import bytes_text, escaped, time_text
from microwsgi.server.server import WSGIServer

OURS = ("threading", "microwsgi.server.")
"""Modules whose frames stand between the thread's start and the application."""


LOOKS = 4
"""Looks for slow requests in the time after which they count as such."""


def running(server: WSGIServer) -> str:
    """A paragraph for each request, the oldest first."""
    requests = sorted(at_work(server), key=lambda each: each.began)
    what = f"{len(requests)} request{'' if len(requests) == 1 else 's'} in flight"
    return "\n".join([f"{what}{':' if requests else '.'}", *(paragraph(server, each) for each in requests)])


def at_work(server: WSGIServer) -> list[WSGIRequestHandler]:
    """The requests that have begun, and are not resting."""
    found = [each for each in list(server.connections.values()) if each.owned and each.began]
    return [each for each in found if isinstance(each, WSGIRequestHandler)]


def paragraph(server: WSGIServer, request: WSGIRequestHandler) -> str:
    """A request: its line, its age, what it has sent, and where in the code it is."""
    thread = next((each.ident for each in list(server.threads) if each.handler is request), None)
    frame = sys._current_frames().get(thread or 0)  # noqa: SLF001 - the one way to see another thread's stack
    line, age = escaped(request.requestline.rpartition(" ")[0]), time_text(server.clock() - request.began)
    place = "".join(later.traceback.format_list(stack(frame))) if frame else "  waits for a thread, or for its client\n"
    return f"{line}, for {age}, {bytes_text(request.size)} sent\n{place}".rstrip()


@contextmanager
def slow_requests(server: WSGIServer, seconds: float) -> Iterator[None]:
    """Meanwhile say of each request that takes longer, once, where it is; with 0 seconds of none. Costs a request nothing."""
    if not seconds:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=look_for_slow, args=(server, seconds, over), name="microwsgi-slow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def look_for_slow(server: WSGIServer, seconds: float, over: threading.Event) -> None:
    """Look again and again, until it is over."""
    told: dict[WSGIRequestHandler, float] = {}
    while not over.wait(seconds / LOOKS):
        requests = [each for each in at_work(server) if not each.parked and server.clock() - each.began > seconds]
        for request in requests:
            if told.get(request) != request.began:
                server.log_error(f"Slow: {paragraph(server, request)}")
        told = {request: request.began for request in requests}


def stack(frame: FrameType) -> list[later.traceback.FrameSummary]:
    """The frames from the application's first on; all, where it has none."""
    found = list(later.traceback.walk_stack(frame))[::-1]
    names = [str(each.f_globals.get("__name__")) for each, _ in found]
    first = next((index for index, name in enumerate(names) if not name.startswith(OURS)), 0)
    return list(later.traceback.StackSummary.extract(iter(found[first:])))
