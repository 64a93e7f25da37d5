"""Events that one child publishes and all children get: the parent's part of `microwsgi.events.Broadcaster`.

The parent decides the order of all events of a topic, so it is the same in each child, and keeps the last ones for children
that begin later. It knows nothing of the events but their ids. No child is waited for: events that a child does not read are
queued up to a bound, then dropped and reported. When the child reads again, it gets the history once more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from microwsgi.prefork.channel import Message, encode
from microwsgi.prefork.children import Child

LONGEST_HISTORY = 100_000
MOST_HISTORY = 1024 * 1024
"""Events of a topic, and their bytes, that the parent keeps at most, whatever a child asks for."""


class History:
    """The last events of a topic."""

    def __init__(self) -> None:
        self.length = 0
        self.events: deque[Message] = deque()
        self.size = 0

    def append(self, event: Message) -> None:
        """Add an event, and forget old ones."""
        self.events.append(event)
        self.size += size(event)
        self.trim()

    def resize(self, length: int) -> None:
        """Keep so many events: new code may want another number."""
        self.length = min(length, LONGEST_HISTORY)
        self.trim()

    def trim(self) -> None:
        """Forget what is too much."""
        while len(self.events) > self.length or self.size > MOST_HISTORY:
            self.size -= size(self.events.popleft())


def size(event: Message) -> int:
    """Return the number of bytes of an event."""
    return len(event["chunk"])  # bytes, as framework/events.py makes it


class Topics:
    """The topics by their names, each with its last events."""

    def __init__(self, children: Callable[[], Iterable[Child]], lagging: Callable[[Child], object]) -> None:
        self.children = children
        self.lagging = lagging
        """Called when the first event for a child is dropped."""
        self.history: dict[str, History] = {}

    def handle_message(self, child: Child, message: Message) -> bool:
        """Act on a child's message; False if it is about something else."""
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
        """Send a child the history of a topic, and from here on its events."""
        self.history.setdefault(name, History()).resize(length)
        child.topics.add(name)
        self.send_history(child, name)

    def unsubscribe(self, child: Child, name: str) -> None:
        """A child wants no more. The history goes with the last child: a topic may be one of thousands, made for a moment."""
        child.topics.discard(name)
        if not any(name in each.topics for each in self.children()):
            self.history.pop(name, None)

    def publish(self, message: Message) -> None:
        """Send an event to all children that have subscribed, the one that published it included."""
        name = str(message.pop("publish"))
        event = {**message, "name": name}
        if name in self.history:
            self.history[name].append(event)
        data = encode({**event, "again": False})
        for child in self.children():
            if name in child.topics:
                self.send(child, data)

    def send_history(self, child: Child, name: str) -> None:
        """Send the events that are kept; the child knows some of them already, perhaps."""
        for event in self.history[name].events:
            self.send(child, encode({**event, "again": True}))

    def send(self, child: Child, data: bytes) -> None:
        """Send a child an event, or drop it. After a dropped one all are dropped until the child has read what is queued."""
        if not child.lost_events and child.channel.send_event(data):
            return
        if not child.lost_events:
            self.lagging(child)
        child.lost_events += 1

    def catch_up(self, child: Child) -> None:
        """Send the history to a child that has read all that was queued, if events for it were dropped."""
        if child.lost_events and not child.channel.queued_events:
            child.lost_events = 0
            for name in sorted(child.topics):
                self.send_history(child, name)
            child.lost_events = 0  # what did not fit this time would not fit the next time
