"""Work that runs beside the requests: an event loop in a thread, in one of the processes that serve an application.

The work starts with the server, not with the first visitor. With `--workers 2` both processes import the application; the one
that has the lock on a file does the work, and the other takes over when that one ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine

PAUSE = 0.25
"""Seconds between two tries to get the lock, and between two looks whether to stop."""


class Background:
    """`work` is a coroutine function that never returns; an exception of it is printed, and it is started again."""

    def __init__(self, name: str, work: Callable[[], Coroutine[object, object, None]], lock: str = "") -> None:
        self.name, self.work = name, work
        self.lock_file = lock
        """A file for the lock; "" if each process does the work itself."""
        self.guard = threading.Lock()  # protects `thread`
        self.thread: threading.Thread | None = None
        self.stopping = threading.Event()
        self.wake: Callable[[], object] = bool
        """Wakes the event loop, so that it sees `stopping` at once. `bool` does nothing."""

    def start(self) -> None:
        """Start the thread, unless there is one: a thread does not survive a fork."""
        with self.guard:
            if not self.stopping.is_set() and (self.thread is None or not self.thread.is_alive()):
                self.thread = threading.Thread(target=self.run, name=self.name, daemon=True)
                self.thread.start()

    def stop(self) -> None:
        """End the work and wait for the thread."""
        self.stopping.set()
        with contextlib.suppress(RuntimeError):  # the loop is closed: the work has ended
            self.wake()
        if self.thread is not None:
            self.thread.join()

    def run(self) -> None:
        try:
            file = open(self.lock_file or os.devnull, "ab")  # closed below
        except OSError:  # then the history is not in its file either, and no other process sees it
            self.lock_file, file = "", open(os.devnull, "ab")
        with file:
            while not self.stopping.is_set():
                if self.lock_file and not locked(file.fileno()):
                    self.stopping.wait(PAUSE)
                    continue
                try:
                    asyncio.run(self.session())
                except Exception:  # a fault of the work must not end it for good
                    traceback.print_exc(file=sys.stderr)
                    self.stopping.wait(1.0)  # not again and again without a pause

    async def session(self) -> None:
        """The work, until `stop` is called. Raises its exception."""
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(self.work())
        self.wake = lambda: loop.call_soon_threadsafe(task.cancel)
        while not task.done():
            if self.stopping.is_set():  # also if `stop` was called before there was a task
                task.cancel()
            await asyncio.wait([task], timeout=PAUSE)
        if not task.cancelled():
            task.result()


def locked(descriptor: int) -> bool:
    """Whether this process has the lock now. The kernel releases it when the process ends, however that ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
