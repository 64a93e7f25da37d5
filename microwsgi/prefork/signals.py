"""The signals that a parent handles: their numbers come as bytes on a socket, which its loop reads between two other events.

No handler runs that could interrupt the loop: `signal.set_wakeup_fd` has the interpreter write the byte.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from microwsgi.prefork.processes import nothing
from microwsgi.process.system import System


class Signals:
    """The socket, and what is done for each signal; may be added to before `received`. Raises OSError."""

    def __init__(self, system: System, actions: dict[int, Callable[[], object]]) -> None:
        self.system = system
        self.actions = actions
        self.at_end: Callable[..., object] | None = None  # handles INT and TERM afterwards, without a moment between
        self.reader, self.writer = system.socketpair()
        self.reader.setblocking(False)
        self.writer.setblocking(False)

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self.reader.fileno()

    @contextmanager
    def received(self) -> Iterator[None]:
        """Have the signals come to the socket; in the main thread only, as Python has it."""
        try:
            wakeup = signal.set_wakeup_fd(self.writer.fileno(), warn_on_full_buffer=False)
        except ValueError:
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
        """What is to be done for the signals that have come. Raises OSError."""
        return [self.actions.get(number, bool) for number in self.system.receive(self.reader, 4096)]

    def close(self) -> None:
        """Give the descriptors back."""
        self.reader.close()
        self.writer.close()
