"""Which descriptors are ready: select.epoll itself where there is it, else the best that the selectors module has.

`microwsgi.server.server` asks. Level-triggered, so nothing is lost by not being read at once: edge-triggered polling was
measured, is not faster, and loses clients that close one side and requests that are pipelined.
"""

from __future__ import annotations

import select
import selectors
import socket

BATCH = 256
"""Events of one look: all that are ready, mostly; more would make the first wait long for the last."""


class PortablePoller:
    """Descriptors and what is waited for on each: selectors.EVENT_READ or EVENT_WRITE."""

    def __init__(self) -> None:
        self.selector = self.new_selector()
        self.reader, self.writer = socket.socketpair()
        self.reader.setblocking(False)
        self.writer.setblocking(False)
        self.register(self.reader.fileno(), selectors.EVENT_READ)

    @staticmethod
    def new_selector() -> selectors.BaseSelector | select.epoll:
        return selectors.DefaultSelector()

    def register(self, descriptor: int, event: int) -> None:
        self.selector.register(descriptor, event)

    def modify(self, descriptor: int, event: int) -> None:
        self.selector.modify(descriptor, event)

    def unregister(self, descriptor: int) -> None:
        self.selector.unregister(descriptor)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait for events, for so many seconds, for ever if negative; the descriptors that have one come first in each pair."""
        found = self.selector.select(None if timeout < 0 else timeout)  # type: ignore[union-attr]  # epoll's is below
        return [(key.fd, event) for key, event in found]

    def wake(self) -> None:
        """Make `poll` return, from any thread or a signal's handler; many calls are as one."""
        try:
            self.writer.send(b"\0")
        except BlockingIOError:
            pass

    def woken(self, descriptor: int) -> bool:
        """Whether the event is that of `wake`, which this call ends."""
        if descriptor != self.reader.fileno():
            return False
        self.reader.recv(4096)
        return True

    def close(self) -> None:
        """Give the descriptors back."""
        self.selector.close()
        self.reader.close()
        self.writer.close()


class EpollPoller(PortablePoller):
    """Without the selectors module's key objects, whose making costs as much as the system call."""

    selector: select.epoll

    @staticmethod
    def new_selector() -> select.epoll:
        return select.epoll()

    def register(self, descriptor: int, event: int) -> None:
        self.selector.register(descriptor, EPOLL[event])

    def modify(self, descriptor: int, event: int) -> None:
        self.selector.modify(descriptor, EPOLL[event])

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        return self.selector.poll(timeout, BATCH)


Poller: type[PortablePoller] = PortablePoller
if hasattr(select, "epoll"):
    EPOLL = {selectors.EVENT_READ: select.EPOLLIN, selectors.EVENT_WRITE: select.EPOLLOUT}
    Poller = EpollPoller
