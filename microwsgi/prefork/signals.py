"""The signals of a parent process: their numbers arrive as bytes on a socket that the loop reads.

No handler interrupts the loop: `signal.set_wakeup_fd` makes the interpreter write the byte.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from microwsgi.prefork.processes import nothing
from microwsgi.process.system import System


class Signals:
    """The socket, and the function to call for each signal; callers may add some before `received`. Raises OSError."""

    def __init__(self, system: System, actions: dict[int, Callable[[], object]]) -> None:
        self.system = system
        self.actions = actions
        self.at_end: Callable[..., object] | None = None  # the handler of INT and TERM after `received`
        self.reader, self.writer = system.socketpair()
        self.reader.setblocking(False)
        self.writer.setblocking(False)

    def fileno(self) -> int:
        """The descriptor, which is readable when a signal has arrived."""
        return self.reader.fileno()

    @contextmanager
    def received(self) -> Iterator[None]:
        """Direct the signals to the socket. In a thread other than the main thread, do nothing."""
        try:
            wakeup = signal.set_wakeup_fd(self.writer.fileno(), warn_on_full_buffer=False)
        except ValueError:  # not the main thread
            yield
            return
        before = {number: signal.signal(number, nothing) for number in self.actions}
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                ends = number in {signal.SIGINT, signal.SIGTERM}
                signal.signal(number, (ends and self.at_end) or handler or signal.SIG_DFL)

    def read(self) -> list[Callable[[], object]]:
        """Return the actions for the signals that have arrived. Raises OSError."""
        return [self.actions.get(number, bool) for number in self.system.receive(self.reader, 4096)]

    def close(self) -> None:
        """Close the descriptors."""
        self.reader.close()
        self.writer.close()
