"""Events that one child publishes and all children get: the parent's part of `microwsgi.events.Broadcaster`.

The parent decides the order of all events of a topic, so that it is the same in each child, and keeps the last events for
children that start later. Of an event it knows only the id. It waits for no child: events that a child does not read are queued
up to a limit, then dropped, which is reported. When the child reads again, it gets the history once more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from microwsgi.prefork.channel import Message, encode
from microwsgi.prefork.children import Child

MAX_HISTORY_LENGTH = 100_000
MAX_HISTORY_SIZE = 1024 * 1024
"""The maximum number of events of a topic, and of their bytes, that the parent keeps, whatever a child asks for."""


class History:
    """The last events of a topic."""

    def __init__(self) -> None:
        self.length = 0
        self.events: deque[Message] = deque()
        self.size = 0

    def append(self, event: Message) -> None:
        """Add an event, and drop old ones."""
        self.events.append(event)
        self.size += size(event)
        self.trim()

    def resize(self, length: int) -> None:
        """Set the number of events to keep, which may differ in new code."""
        self.length = min(length, MAX_HISTORY_LENGTH)
        self.trim()

    def trim(self) -> None:
        """Drop the oldest events that exceed a limit."""
        while len(self.events) > self.length or self.size > MAX_HISTORY_SIZE:
            self.size -= size(self.events.popleft())


def size(event: Message) -> int:
    """Return the size of an event in bytes."""
    return len(event["chunk"])  # bytes, created by framework/events.py


class Topics:
    """The topics by their names, each with its last events."""

    def __init__(self, children: Callable[[], Iterable[Child]], lagging: Callable[[Child], object]) -> None:
        self.children = children
        self.lagging = lagging
        """Called when the first event for a child is dropped."""
        self.history: dict[str, History] = {}

    def handle_message(self, child: Child, message: Message) -> bool:
        """Handle a child's message. Return False if it is not about topics."""
        if "publish" in message:
            self.publish(message)
        elif "subscribe" in message:
            self.subscribe(child, str(message["subscribe"]), int(message["history"]))
        elif "unsubscribe" in message:
            self.unsubscribe(child, str(message["unsubscribe"]))
        else:
            return False
        return True

    def subscribe(self, child: Child, name: str, length: int) -> None:
        """Send a child the history of a topic, and from now on its events."""
        self.history.setdefault(name, History()).resize(length)
        child.topics.add(name)
        self.send_history(child, name)

    def unsubscribe(self, child: Child, name: str) -> None:
        """Stop sending events to a child. With the last child drop the history: there may be thousands of topics."""
        child.topics.discard(name)
        if not any(name in each.topics for each in self.children()):
            self.history.pop(name, None)

    def publish(self, message: Message) -> None:
        """Send an event to all children that have subscribed, including the one that published it."""
        name = str(message.pop("publish"))
        event = {**message, "name": name}
        if name in self.history:
            self.history[name].append(event)
        data = encode({**event, "again": False})
        for child in self.children():
            if name in child.topics:
                self.send(child, data)

    def send_history(self, child: Child, name: str) -> None:
        """Send the events of the history; the child may already have some of them."""
        for event in self.history[name].events:
            self.send(child, encode({**event, "again": True}))

    def send(self, child: Child, data: bytes) -> None:
        """Send an event to a child, or drop it. After a dropped event all are dropped until the child has read its queue."""
        if not child.lost_events and child.channel.send_event(data):
            return
        if not child.lost_events:
            self.lagging(child)
        child.lost_events += 1

    def catch_up(self, child: Child) -> None:
        """Send the history to a child that has read its queue, if events for it were dropped."""
        if child.lost_events and not child.channel.queued_events:
            child.lost_events = 0
            for name in sorted(child.topics):
                self.send_history(child, name)
            child.lost_events = 0  # events that did not fit into the queue would not fit the next time either
