"""End a process that has served its last request, even if the application has left threads or processes running.

At its end the interpreter waits for non-daemon threads and calls the functions of `atexit`; multiprocessing joins its processes
there. Each of these may take forever. `exit_within` gives them some seconds, then reports those that still run, and ends the
process.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from types import FrameType

from microwsgi.support.typenames import Any

EXIT_TIME = 3.0
"""Seconds after the last request for threads, child processes and exit handlers of the application to end."""
MAX_FRAMES = 3
"""The maximum number of frames of a stack that a message shows, from the innermost one."""

_exit, _frames, _event, _thread = os._exit, sys._current_frames, threading.Event, threading.Thread
"""Bound at import, before an application can replace them. `os._exit` and `sys._current_frames` are documented."""


def exit_within(seconds: float, say: Callable[[str], object], code: int = 0) -> Callable[[], None]:
    """End this process after `seconds`, and report why it had not ended. Return a function that cancels this."""
    over = _event()

    def wait() -> None:
        if not over.wait(seconds):
            say(
                f"Process {os.getpid()} has served its last request and is still running after {seconds:g} s:\n{leftovers()}"
            )
            end_children()
            flush()
            _exit(code)

    _thread(target=wait, name="microwsgi-exit", daemon=True).start()
    return over.set


def leftovers() -> str:
    """Return a line for each thread and child process that keeps this process from ending, with its innermost frames."""
    frames = _frames()
    lines = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if not thread.daemon and thread is not threading.main_thread():
            lines.append(f"  the thread {thread.name}, {innermost_frames(frame)}")
        elif thread is threading.main_thread() and (found := innermost_frames(frame)):
            lines.append(f"  the main thread, {found}")
    lines += [f"  the process {name} (pid {pid})" for name, pid, _ in children()]
    return "\n".join([*lines, "  It is ended now."])


def innermost_frames(frame: FrameType | None) -> str:
    """Return the innermost frames of a thread, as "file:line in function < ..."."""
    found: list[str] = []
    while frame is not None and len(found) < MAX_FRAMES:
        code = frame.f_code
        found.append(f"{os.path.basename(code.co_filename)}:{frame.f_lineno} in {code.co_name}")
        frame = frame.f_back
    return " < ".join(found)


def stacks() -> str:
    """Return a line for each thread of this process, with its innermost frames."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(f"  {names.get(ident, ident)}: {innermost_frames(frame)}" for ident, frame in _frames().items())


def children() -> list[tuple[str, int, Callable[[], object]]]:
    """Return the running processes that multiprocessing has started: name, pid, and the method that terminates each."""
    module: Any = sys.modules.get("multiprocessing")
    try:
        return [(each.name, each.pid, each.terminate) for each in module.active_children()]
    except Exception:  # multiprocessing is not imported, or the application has broken it
        return []


def end_children() -> None:
    """Terminate the processes of multiprocessing, which would outlive this process."""
    for _, _, terminate in children():
        try:
            terminate()
        except (OSError, ValueError):
            continue


def flush() -> None:
    """Flush the standard streams, as the interpreter would at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # an application may have replaced or closed it
            continue
