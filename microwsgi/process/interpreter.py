"""What an application may change in its interpreter when it is imported, and what a server does about it.

Patches for green threads make each thread of the server one that never runs: they are found here, and refused. Closed standard
descriptors are opened again: the next socket would get their numbers, and what the application prints would go to a client.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading

GREEN = {"gevent": "`gunicorn -k gevent`", "eventlet": "a server for eventlet, like its own wsgi.server"}
"""Packages whose patch runs all threads in one, and servers for applications that want that."""
_originals = {"start_new_thread": _thread.start_new_thread, "allocate_lock": _thread.allocate_lock}
"""Functions of `_thread` without which there are no threads, as they were before the application was imported."""


def green_threads() -> str:
    """A sentence on a patch of the interpreter under which nothing can be served by threads; "" if there is none."""
    for name, original in _originals.items():
        found = getattr(_thread, name, None)
        if found is original:
            continue
        package = str(getattr(found, "__module__", None) or type(found).__module__).partition(".")[0]
        if package in GREEN:
            return (
                f"the application has its threads replaced by {package} (_thread.{name}, by a monkey patch), and microwsgi "
                f"serves with threads.\n  Leave out the patch of threads, or serve with {GREEN[package]}."
            )
    return ""


def repair_hooks() -> None:
    """Install Python's own hooks where the application has removed them: without `threading.excepthook` no thread starts."""
    for module, name in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        if not callable(getattr(module, name, None)):
            setattr(module, name, getattr(module, f"__{name}__"))


def open_standard_descriptors() -> None:
    """Open /dev/null for each of the descriptors 0, 1 and 2 that is closed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # open(2) takes the lowest free number, and those below are in use by now.
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)
