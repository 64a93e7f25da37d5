"""Detect or repair changes that an application makes to its interpreter when it is imported.

Under patches for green threads the server's threads would never run: such an application is refused. Standard descriptors that
were closed are opened again: otherwise the next socket would get their numbers, and a client would receive the application's
output.
"""

from __future__ import annotations

import _thread
import os
import select
import sys
import threading

GREEN = {"gevent": "`gunicorn -k gevent`", "eventlet": "a server for eventlet, like its own wsgi.server"}
"""Packages whose monkey patch runs all threads in one, and servers for applications that need this patch."""
_originals = [
    (module, name, getattr(module, name, None))
    for module, names in ((_thread, ("start_new_thread", "allocate_lock")), (select, ("epoll", "poll", "select")))
    for name in names
]
"""The functions that start threads and wait for sockets, as they were before the application was imported."""


def green_threads() -> str:
    """Return the error message for a monkey patch under which the server's threads can't run; "" if there is none."""
    for module, name, original in _originals:
        found = getattr(module, name, None)
        if found is original:
            continue
        package = str(getattr(found, "__module__", None) or type(found).__module__).partition(".")[0]
        if found is None:  # gevent and eventlet remove what they have no replacement for
            package = next((each for each in GREEN if each in sys.modules), "")
        if package in GREEN:
            what = "threads" if module is _thread else "waiting for sockets"
            return (
                f"the monkey patch of {package} has replaced Python's {what} ({module.__name__}.{name}), but microwsgi serves "
                f"with threads.\n  Leave out the patch, or serve with {GREEN[package]}."
            )
    return ""


def repair_hooks() -> None:
    """Restore Python's hooks that the application has removed: without `threading.excepthook` no thread can start."""
    for module, name in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        if not callable(getattr(module, name, None)):
            setattr(module, name, getattr(module, f"__{name}__"))


def open_standard_descriptors() -> None:
    """Open /dev/null for each of the descriptors 0, 1 and 2 that is closed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # open(2) takes the lowest free number, and the lower ones are in use now.
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)
