"""Pollers report the descriptors that are ready: epoll where available, else the default of the selectors module.

Polling is level-triggered: an event that was not handled is reported again. Edge-triggered polling was measured: not faster.

Only the leader (`microwsgi.server.pool`) uses a poller: select() does not notice a descriptor that another thread registers
while it waits. Other threads put work for the leader into a queue and call `Wakeup.notify`.
"""

from __future__ import annotations

import select
import selectors
import socket
import threading
from functools import partial

BATCH = 256
"""The maximum number of events of one epoll_wait: the first request runs only after all events are handled."""
SELECT_LIMIT = 1023
"""The highest descriptor that select() can watch: FD_SETSIZE - 1 on nearly all systems."""


class SelectorPoller:
    """Descriptors, and the event that is waited for on each: selectors.EVENT_READ or EVENT_WRITE."""

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self.selector = selector or selectors.DefaultSelector()
        self.max_descriptor = SELECT_LIMIT if isinstance(self.selector, selectors.SelectSelector) else 0

    def register(self, descriptor: int, event: int) -> None:
        """Watch a descriptor for an event."""
        self.selector.register(descriptor, event)

    def modify(self, descriptor: int, event: int) -> None:
        """Watch a descriptor for another event."""
        self.selector.modify(descriptor, event)

    def unregister(self, descriptor: int) -> None:
        """Stop watching a descriptor."""
        self.selector.unregister(descriptor)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait for events, up to `timeout` seconds, or forever if it is negative; return (descriptor, event) pairs."""
        found = self.selector.select(None if timeout < 0 else timeout)
        return [(key.fd, event) for key, event in found]

    def close(self) -> None:
        """Close the selector's own descriptor."""
        self.selector.close()


class EpollPoller:
    """SelectorPoller's methods with epoll: without the selectors module's key objects, which cost as much as epoll_wait."""

    max_descriptor = 0

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.close = self.epoll.close
        self.unregister = self.epoll.unregister
        self.poll = partial(self.epoll.poll, maxevents=BATCH)

    def register(self, descriptor: int, event: int) -> None:
        """Watch a descriptor for an event."""
        self.epoll.register(descriptor, EPOLL[event])

    def modify(self, descriptor: int, event: int) -> None:
        """Watch a descriptor for another event."""
        self.epoll.modify(descriptor, EPOLL[event])


if hasattr(select, "epoll"):
    EPOLL = {selectors.EVENT_READ: select.EPOLLIN, selectors.EVENT_WRITE: select.EPOLLOUT}

Poller = SelectorPoller | EpollPoller


def new_poller() -> Poller:
    """Return the best poller of this system."""
    return EpollPoller() if hasattr(select, "epoll") else SelectorPoller()


class Wakeup:
    """A socket pair that makes `poll` return."""

    def __init__(self) -> None:
        self.reader, self.writer = socket.socketpair()
        self.reader.setblocking(False)
        self.writer.setblocking(False)
        self.descriptor = self.reader.fileno()
        # Held from the first `notify` to the next `clear`: many calls cost one system call. No wake-up is lost: a thread that
        # finds the lock held has already filled its queue, and the leader empties the queues after it has released the lock.
        self.notified = threading.Lock()

    def notify(self) -> None:
        """Make `poll` return, now or at the next call. Any thread may call this."""
        if self.notified.acquire(False):  # positional: a keyword argument would cost as much as the lock
            try:
                self.writer.send(b"\0")
            except OSError:
                pass  # the socket's buffer is full, and `poll` returns anyway; or the loop has ended

    def clear(self) -> None:
        """Reset the wake-up. Only the leader calls this, before it empties the queues."""
        self.reader.recv(4096)
        self.notified.release()

    def close(self) -> None:
        """Close both sockets."""
        self.reader.close()
        self.writer.close()
