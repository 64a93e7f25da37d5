"""Connect the broadcasters of a process with those of the server's other processes (`microwsgi.framework.events`).

`microwsgi.serving.supervised` connects the relay in each child of a parent process. Under other servers it is not connected: an
event then reaches only the clients of its own process.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

Deliver = Callable[[str, str, bytes, bool], object]
"""A function with the arguments of `Relay.deliver`, except the name."""


class Relay:
    """The named broadcasters of this process, and the function that sends messages to the parent process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Protects `subscribers`. Reentrant: the garbage collector may call `unsubscribe` in a thread that holds it."""
        self.subscribers: dict[str, list[weakref.WeakMethod[Deliver]]] = {}
        self.locks: weakref.WeakValueDictionary[str, threading.RLock] = weakref.WeakValueDictionary()
        self.send: Callable[..., object] | None = None
        self.names: dict[str, int] = {}  # module -> number of broadcasters that it has created

    def connect(self, send: Callable[..., object]) -> None:
        """Send messages with this function, which returns at once."""
        self.send = send

    def disconnect(self) -> None:
        """Disconnect, in a process that the application has forked: the connection is its parent's. Takes no lock."""
        self.send = None

    def lock_of(self, name: str) -> threading.RLock:
        """Return the lock that all subscribers of a name share, since each of them delivers the events of the others, too."""
        with self.lock:
            return self.locks.setdefault(name, threading.RLock())

    def subscribe(self, name: str, history: int, deliver: Deliver, owner: object) -> None:
        """Register a method of `owner` to be called with each event of this name, first those of the parent's history."""
        with self.lock:
            self.subscribers.setdefault(name, []).append(weakref.WeakMethod(deliver))
        weakref.finalize(owner, self.unsubscribe, name).atexit = False
        if self.send is not None:
            self.send(subscribe=name, history=history)

    def unsubscribe(self, name: str) -> None:
        """Remove a subscriber that was garbage-collected. With the last one of a name the parent stops sending its events."""
        with self.lock:
            kept = [each for each in self.subscribers.get(name, ()) if each() is not None]
            self.subscribers[name] = kept
            if kept:
                return
            del self.subscribers[name]
        if self.send is not None:
            self.send(unsubscribe=name)

    def publish(self, name: str, unique: str, id: str, chunk: bytes) -> None:
        """Send an event to all processes of the server, including this one. `unique` is a key that no other event has."""
        send = self.send
        if send is None:
            self.deliver(name, unique, id, chunk, again=False)
        else:
            send(publish=name, unique=unique, id=id, chunk=chunk)

    def deliver(self, name: str, unique: str, id: str, chunk: bytes, again: bool) -> None:
        """Call the subscribers of this process. `again`: they may already have the event."""
        with self.lock:
            found = [each() for each in self.subscribers.get(name, ())]
        for deliver in found:  # without the lock: a broadcaster calls `publish` while it holds its own lock
            if deliver is not None:
                deliver(unique, id, chunk, again)


relay = Relay()
"""The relay of this process. It is global because a Broadcaster may be created before there is a server."""
