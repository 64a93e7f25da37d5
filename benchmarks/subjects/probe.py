"""The probe: views of all servers and frameworks call `respond`, which reports on the stack.

`/stack` returns the stack frames of the view. `/raise` raises an exception, and `/traceback` then returns the frames of its
traceback. `/arm` starts recording lines, and `/lines?since=NS` returns those from the given time to the view. `/sleep`
sleeps, so that py-spy can inspect the stack.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from types import CodeType, FrameType
from typing import Any

from microwsgi.devtools.stack import OWNERS, capture, owner, traceback_frames

SLEEP_SECONDS = 1.5  # enough for py-spy to inspect the process
TOOL = 0  # sys.monitoring.DEBUGGER_ID


class Failure(Exception):
    """The exception of `/raise`."""


class LineCounter:
    """Record all lines that run in any thread while it is armed, with their times."""

    def __init__(self) -> None:
        self.events: list[tuple[int, CodeType, int, int]] = []  # nanoseconds, code, line or 0 for a call, thread
        self.failure: Failure | None = None
        self.monitoring: Any = getattr(sys, "monitoring", None)
        self.armed = False
        if self.monitoring is None:
            # Python 3.11 can set a trace function for this thread and for new threads, but not for other running threads.
            threading.settrace(self.trace)
            sys.settrace(self.trace)

    def arm(self) -> None:
        now, thread, append = time.monotonic_ns, threading.get_ident, self.events.append
        self.events.clear()
        monitoring = self.monitoring
        if monitoring is None:
            self.armed = True
            frames: list[FrameType | None] = [*sys._current_frames().values()]
            while frames:  # frames that were entered earlier have no trace function yet
                if (frame := frames.pop()) is not None:
                    frame.f_trace = self.trace
                    frames.append(frame.f_back)
            return
        if monitoring.get_tool(TOOL) is None:
            monitoring.use_tool_id(TOOL, "benchmarks")
        events = monitoring.events
        monitoring.register_callback(TOOL, events.LINE, lambda code, line: append((now(), code, line, thread())))
        monitoring.register_callback(TOOL, events.PY_START, lambda code, offset: append((now(), code, 0, thread())))
        monitoring.set_events(TOOL, events.LINE | events.PY_START)

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        """Record a call or a line: the trace function for Pythons without sys.monitoring."""
        if not self.armed:
            return None
        if event in {"call", "line"}:
            line = frame.f_lineno if event == "line" else 0
            self.events.append((time.monotonic_ns(), frame.f_code, line, threading.get_ident()))
        return self.trace

    def summary(self, since: int, view: CodeType) -> dict[str, Any]:
        """Stop recording, and count the lines and calls from `since` to the view's first line."""
        self.armed = False
        if self.monitoring is not None:
            self.monitoring.set_events(TOOL, 0)
        path = [event for event in self.events if event[0] >= since]
        begun = max(
            (index for index, event in enumerate(path) if event[1] is view and event[2] == 0), default=len(path)
        )
        lines = [(code, line) for _, code, line, _ in path[:begun] if line]
        owners, current_owner = dict.fromkeys(OWNERS, 0), OWNERS[0]
        for code, _ in lines:
            if not code.co_filename.startswith(
                "<string>"
            ):  # generated code, such as a namedtuple's, belongs to its caller
                current_owner = owner(module_of(code), code)
            owners[current_owner] += 1
        return {
            "lines": len(lines),
            "calls": sum(not line for _, _, line, _ in path[:begun]),
            "owners": owners,
            "files": sorted({code.co_filename for code, _ in lines if not code.co_filename.startswith("<string>")}),
            "threads": len({thread for *_, thread in path[:begun]}),
        }


def module_of(code: CodeType) -> str:
    """Return the name of the module that was loaded from a code object's file."""
    by_file = {getattr(module, "__file__", None): name for name, module in list(sys.modules.items())}
    return by_file.get(code.co_filename) or ""


line_counter = LineCounter()


def respond(path: str, query: str, view: FrameType) -> str:
    """Return the text of the response; `view` is the frame of the view that calls this function."""
    match path.rstrip("/"):
        case "/stack":
            return json.dumps([frame._asdict() for frame in capture(view)])
        case "/raise":
            line_counter.failure = Failure("as asked")
            raise line_counter.failure
        case "/traceback":
            frames = traceback_frames(line_counter.failure.__traceback__ if line_counter.failure else None)
            return json.dumps([frame._asdict() for frame in frames if frame.module != __name__])
        case "/arm":
            line_counter.arm()
        case "/lines":
            return json.dumps(line_counter.summary(int(query.partition("since=")[2]), view.f_code))
        case "/sleep":
            time.sleep(SLEEP_SECONDS)
    return "{}"
