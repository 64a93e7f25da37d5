"""The end of a process that has nothing more to serve: what the application has left gets some seconds, then it is named.

The interpreter waits at its end for threads that are no daemons, calls the handlers of `atexit`, and multiprocessing joins its
processes there. Each of them may take for ever. `exit_within` lets them run, then says which of them still does, and ends
the process.
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
SHOWN = 3
"""Frames of a stack that a message shows: the innermost ones."""

_exit, _frames, _event, _thread = os._exit, sys._current_frames, threading.Event, threading.Thread
"""Taken before an application can replace them. There are no public names for `os._exit` and the frames of other threads."""


def exit_within(seconds: float, say: Callable[[str], object], code: int = 0) -> Callable[[], None]:
    """End this process after so many seconds, and say what kept it. The result, a function, calls that off."""
    over = _event()

    def wait() -> None:
        if not over.wait(seconds):
            say(f"Process {os.getpid()} has served its last request and still runs after {seconds:g} s:\n{leftovers()}")
            end_children()
            flush()
            _exit(code)

    _thread(target=wait, name="microwsgi-exit", daemon=True).start()
    return over.set


def leftovers() -> str:
    """A line for each thread and each child process that keeps this process, with where it is."""
    frames = _frames()
    lines = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if not thread.daemon and thread is not threading.main_thread():
            lines.append(f"  the thread {thread.name}, {place(frame)}")
        elif thread is threading.main_thread() and (found := place(frame)):
            lines.append(f"  the main thread, {found}")
    lines += [f"  the process {name} (pid {pid})" for name, pid, _ in children()]
    return "\n".join([*lines, "  It is ended now."])


def place(frame: FrameType | None) -> str:
    """Where a thread is: the innermost frames, as file:line in function."""
    found: list[str] = []
    while frame is not None and len(found) < SHOWN:
        code = frame.f_code
        found.append(f"{os.path.basename(code.co_filename)}:{frame.f_lineno} in {code.co_name}")
        frame = frame.f_back
    return " < ".join(found)


def stacks() -> str:
    """Where each thread of this process is, a line each."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(f"  {names.get(ident, ident)}: {place(frame)}" for ident, frame in _frames().items())


def children() -> list[tuple[str, int, Callable[[], object]]]:
    """The processes that multiprocessing has started here and that still run: name, pid, and what terminates it."""
    module: Any = sys.modules.get("multiprocessing")
    try:
        return [(each.name, each.pid, each.terminate) for each in module.active_children()]
    except Exception:  # multiprocessing is not there, or the application has broken it
        return []


def end_children() -> None:
    """Terminate the processes of multiprocessing: nobody would be left to do it."""
    for _, _, terminate in children():
        try:
            terminate()
        except (OSError, ValueError):
            continue


def flush() -> None:
    """Write what the standard streams hold, as the interpreter would at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # an application may have replaced or closed it
            continue
