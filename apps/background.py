"""Work that runs beside the requests: an event loop in a thread, in one of the processes that serve an application.

The work starts with the server, not with the first visitor. With `--workers 2` both processes import the application; the one
that has the lock on a file does the work, and the other takes over when that one ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from time import monotonic

PAUSE = 0.25
"""Seconds between two tries to get the lock."""


class Background:
    """`work` is a coroutine function that never returns; an exception of it is printed, and it is started again."""

    def __init__(self, name: str, work: Callable[[], Coroutine[object, object, None]], lock: str = "") -> None:
        self.name, self.work = name, work
        self.lock_file = lock
        """A file for the lock; "" if each process does the work itself."""
        self.guard = threading.Lock()  # protects `thread` and `pid`
        self.thread: threading.Thread | None = None
        self.pid = 0
        self.stopping = threading.Event()
        self.stopper: Callable[[], object] | None = None
        self.working = False
        """Whether this process does the work; written by the thread only."""
        self.trouble = ""
        """The reason why the lock can't be used; written by the thread only."""

    def start(self) -> None:
        """Start the thread, unless this process has it: a thread does not survive a fork."""
        with self.guard:
            if self.pid != os.getpid():
                self.pid = os.getpid()
                self.thread = threading.Thread(target=self.run, name=self.name, daemon=True)
                self.thread.start()

    def stop(self) -> None:
        """End the work and wait for the thread."""
        self.stopping.set()
        if self.stopper is not None:
            self.stopper()
        if self.thread is not None and self.pid == os.getpid():
            self.thread.join()

    def run(self) -> None:
        try:
            file = open(self.lock_file or os.devnull, "ab")  # closed below
        except OSError as error:  # then the history is not in its file either, and no other process sees it
            self.trouble = f"{self.lock_file}: {error.strerror}"
            file = open(os.devnull, "ab")
        with file:
            while not self.stopping.is_set():
                if not self.trouble and self.lock_file and not locked(file.fileno()):
                    self.stopping.wait(PAUSE)
                    continue
                self.working = True
                began = monotonic()
                try:
                    asyncio.run(self.session())
                except Exception:  # a fault of the work must not end it for good
                    traceback.print_exc(file=sys.stderr)
                if monotonic() - began < 1.0:  # not again and again without a pause
                    self.stopping.wait(1.0)
            self.working = False

    async def session(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(self.work())
        self.stopper = lambda: loop.is_closed() or loop.call_soon_threadsafe(task.cancel)
        if self.stopping.is_set():  # `stop` was called before there was a stopper
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass


def locked(descriptor: int) -> bool:
    """Whether this process has the lock now. The kernel releases it when the process ends, however that ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
