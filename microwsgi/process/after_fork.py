"""Remove the server's state from children that an application forks (os.fork, multiprocessing, a Pool).

Such a child inherits the server's signal handlers and descriptors. With the handlers `Process.terminate()` would do nothing:
the handler of TERM only asks the server to stop, which does not run in the child. With the listening socket the child would
keep the port after the server has ended, and with a client's socket that client would wait for the end of its response.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable

from microwsgi.support.typenames import Self

_install, _current = signal.signal, signal.getsignal  # bound at import, before an application can replace them
_set_mask = getattr(signal, "pthread_sigmask", lambda *_: None)  # Windows has neither this nor fork
_guards: list[ForkGuard] = []
"""The active guards. `os.register_at_fork` can't be undone, so one function is registered once for all guards.

No lock is needed: a fork in another thread sees the list before or after `append` or `remove`.
"""
_registered: list[bool] = []
_masks = threading.local()
"""The signals that were blocked in a thread before it forked: several threads may fork at once."""


class ForkGuard:
    """Resets, in children that the application forks, our signal handlers, and calls functions that close our descriptors."""

    def __init__(self, handlers: Callable[[], Iterable[object]]) -> None:
        self.handlers = handlers
        """Called in the child; returns our handlers. Handlers that the application has installed are not changed."""
        self.releases: list[Callable[[], object]] = []
        """Called in the child. They close descriptors; they must take no lock and send nothing."""

    def add(self, release: Callable[[], object]) -> None:
        """Add a function to call in a forked child."""
        self.releases.append(release)

    def __enter__(self) -> Self:
        if not _registered and hasattr(os, "register_at_fork"):
            _registered.append(True)
            os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_release_all)
        _guards.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self in _guards:
            _guards.remove(self)

    def release(self) -> None:
        """Install the default handlers and close the descriptors, in the child."""
        reset_handlers(self.handlers())
        for each in self.releases:
            try:
                each()
            except Exception:  # one descriptor that can't be closed must not keep the others open
                continue


def _block() -> None:
    """Block signals until the child has its own handlers. Called before the fork, in the thread that forks.

    `Process.terminate()` may be called before that: the server's handler would then receive the signal, and it would be lost.
    """
    if _guards:
        _masks.before = _set_mask(signal.SIG_BLOCK, signal.valid_signals())


def _unblock() -> None:
    """Unblock the signals. Called in the parent, and at last in the child."""
    before = getattr(_masks, "before", None)
    if before is not None:
        _masks.before = None
        _set_mask(signal.SIG_SETMASK, before)


def _release_all() -> None:
    """Call all guards. Called in each forked child."""
    guards = _guards[:]
    _guards.clear()
    for guard in guards:
        guard.release()
    _unblock()


def forget_guards() -> None:
    """Remove all guards, in a worker: they are those of its parent."""
    _guards.clear()


def reset_handlers(ours: Iterable[object]) -> None:
    """Install Python's default handler for each signal whose handler is one of these."""
    handlers = [*ours]
    try:
        signal.set_wakeup_fd(-1)
    except ValueError:
        return  # not the main thread, so no handler runs here
    for number in signal.valid_signals():
        if _current(number) in handlers:
            _install(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
