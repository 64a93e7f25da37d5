"""The way from the broadcasters of a process to those of the server's other processes (`microwsgi.framework.events`).

`microwsgi.serving.supervised` connects the relay in each child of a parent process. Under other servers nobody does: an event
reaches the clients of its own process.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

Deliver = Callable[[str, str, bytes, bool], object]
"""Takes the arguments of `Relay.deliver` but the name."""


class Relay:
    """The named broadcasters of this process, and the function that sends messages to the parent process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Protects `subscribers`. Reentrant: the garbage collector may call `unsubscribe` in a thread that holds it."""
        self.subscribers: dict[str, list[weakref.WeakMethod[Deliver]]] = {}
        self.locks: weakref.WeakValueDictionary[str, threading.RLock] = weakref.WeakValueDictionary()
        self.send: Callable[..., object] | None = None
        self.names: dict[str, int] = {}  # the number of broadcasters that each module has made

    def connect(self, send: Callable[..., object]) -> None:
        """Send messages with this function, which returns at once."""
        self.send = send

    def disconnect(self) -> None:
        """In a process that the application has forked: the connection is its parent's. Takes no lock."""
        self.send = None

    def lock_of(self, name: str) -> threading.RLock:
        """Return the lock that the subscribers of a name share, since each delivers the events of all."""
        with self.lock:
            return self.locks.setdefault(name, threading.RLock())

    def subscribe(self, name: str, history: int, deliver: Deliver, owner: object) -> None:
        """Have this method of an object called with each event of this name, first with those of the parent's history."""
        with self.lock:
            self.subscribers.setdefault(name, []).append(weakref.WeakMethod(deliver))
        weakref.finalize(owner, self.unsubscribe, name).atexit = False
        if self.send is not None:
            self.send(subscribe=name, history=history)

    def unsubscribe(self, name: str) -> None:
        """A subscriber has been garbage-collected. With the last one of its name the parent sends no more of its events."""
        with self.lock:
            kept = [each for each in self.subscribers.get(name, ()) if each() is not None]
            self.subscribers[name] = kept
            if kept:
                return
            del self.subscribers[name]
        if self.send is not None:
            self.send(unsubscribe=name)

    def publish(self, name: str, unique: str, id: str, chunk: bytes) -> None:  # the standard's word
        """Send an event to all processes of the server, this one included. `unique` is a key that no other event has."""
        send = self.send
        if send is None:
            self.deliver(name, unique, id, chunk, again=False)
        else:
            send(publish=name, unique=unique, id=id, chunk=chunk)

    def deliver(self, name: str, unique: str, id: str, chunk: bytes, again: bool) -> None:  # the standard's word
        """Call the subscribers of this process; `again`: they may know the event already."""
        with self.lock:
            found = [each() for each in self.subscribers.get(name, ())]
        for deliver in found:  # without the lock: a broadcaster has its own, and publishes while it holds that
            if deliver is not None:
                deliver(unique, id, chunk, again)


relay = Relay()
"""That of this process. A Broadcaster is made without a server at hand, so it can't be given one."""
