"""The requests that run, each with its age and where in the code it is: what QUIT has a server say."""

from __future__ import annotations

import sys
import traceback
from types import FrameType

from microwsgi.server.log import bytes_text, escaped, time_text
from microwsgi.server.server import WSGIServer

OURS = ("threading", "microwsgi.server.")
"""Modules whose frames stand between the thread's start and the application."""


def running(server: WSGIServer) -> str:
    """A paragraph for each request, the oldest first."""
    now = server.clock()
    at_work = {thread.handler: thread.ident for thread in server.threads if thread.handler is not None}
    frames = sys._current_frames()  # noqa: SLF001 - the one way to see another thread's stack
    requests = [each for each in list(server.connections.values()) if each.owned and each.began]
    parts = []
    for request in sorted(requests, key=lambda each: each.began):
        line = escaped(request.requestline.rpartition(" ")[0])
        parts.append(f"{line}, for {time_text(now - request.began)}, {bytes_text(getattr(request, 'size', 0))} sent\n")
        frame = frames.get(at_work.get(request) or 0)
        parts.append(
            "".join(traceback.format_list(stack(frame))) if frame else "  waits for a thread, or for its client\n"
        )
    what = f"{len(requests)} request{'' if len(requests) == 1 else 's'} in flight"
    return f"{what}{':' if parts else '.'}\n{''.join(parts)}".rstrip()


def stack(frame: FrameType) -> list[traceback.FrameSummary]:
    """The frames from the application's first on; all, where it has none."""
    found = list(traceback.walk_stack(frame))[::-1]
    names = [str(each.f_globals.get("__name__")) for each, _ in found]
    first = next((index for index, name in enumerate(names) if not name.startswith(OURS)), 0)
    return list(traceback.StackSummary.extract(iter(found[first:])))
