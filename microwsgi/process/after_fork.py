"""Children that an application forks (os.fork, multiprocessing, a Pool) are no servers: they get none of the server's state.

Such a child inherits the server's signal handlers and descriptors. With the handlers `Process.terminate()` would do nothing,
since the handler of TERM only asks a server to stop that does not run in the child. With the listening socket the child would
keep the port after the server has ended, and with a client's socket it would keep that client waiting for the response's end.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable

from microwsgi.support.typenames import Self

_install, _current = signal.signal, signal.getsignal  # before an application can replace them
_set_mask = getattr(signal, "pthread_sigmask", lambda *_: None)  # which Windows lacks, as fork
_guards: list[ForkGuard] = []
"""The guards in force. `os.register_at_fork` can't be undone, so one function is registered for all of them, once.

It is a list of those that were entered and not left; a fork in another thread finds it before or after such a step.
"""
_registered: list[bool] = []
_masks = threading.local()
"""The signals that were blocked in a thread before it forked: several threads may fork at once."""


class ForkGuard:
    """What a forked child of the application must not keep: signal handlers, and what `release` closes."""

    def __init__(self, handlers: Callable[[], Iterable[object]]) -> None:
        self.handlers = handlers
        """Called in the child: our handlers. A handler that the application has installed itself stays."""
        self.releases: list[Callable[[], object]] = []
        """Called in the child, each: closes descriptors, takes no lock, and tells nobody anything."""

    def add(self, release: Callable[[], object]) -> None:
        """Have this called in a forked child, too."""
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
        """In the child: default handlers, and no descriptors."""
        reset_handlers(self.handlers())
        for each in self.releases:
            try:
                each()
            except Exception:  # one descriptor that can't be closed must not keep the others open
                continue


def _block() -> None:
    """Called in the thread that forks. Signals wait until the child has its own handlers.

    `Process.terminate()` may come before that: the handler of the server would take the signal, and it would be lost.
    """
    if _guards:
        _masks.before = _set_mask(signal.SIG_BLOCK, signal.valid_signals())


def _unblock() -> None:
    """Called in the parent, and in the child at last."""
    before = getattr(_masks, "before", None)
    if before is not None:
        _masks.before = None
        _set_mask(signal.SIG_SETMASK, before)


def _release_all() -> None:
    """Called in each child that is forked."""
    guards = _guards[:]
    _guards.clear()
    for guard in guards:
        guard.release()
    _unblock()


def forget_guards() -> None:
    """In a worker: the guards of its parent are not in force there."""
    _guards.clear()


def reset_handlers(ours: Iterable[object]) -> None:
    """Install Python's default handler for each signal whose handler is one of these."""
    handlers = [*ours]
    try:
        signal.set_wakeup_fd(-1)
    except ValueError:
        return  # it is not the main thread, which has all handlers
    for number in signal.valid_signals():
        if _current(number) in handlers:
            _install(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
