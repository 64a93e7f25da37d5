"""Events of broadcasters through Redis, between the servers of several hosts; it needs the extra `redis`.

Each broadcaster has a Redis stream of its last events (XADD, XREAD). PUBLISH has no history, and loses the events that are sent
while a subscriber reconnects. Two threads of the process communicate with Redis, and no other thread waits for them. While one
of them fails, events are delivered to this server's clients at once, and are sent to other hosts later, up to a limit.

    publish -> waiting -> write, a thread: XADD
    read, a thread: XREAD -> relay.deliver
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque, namedtuple
from functools import cache, partial
from importlib import import_module
from time import monotonic, sleep
from typing import Any

from microwsgi.support.relay import relay

WRITE_TIME = 0.5
"""The timeout of an XADD or a connection, in seconds."""
BLOCK_TIME = 1.0
"""Seconds that an XREAD waits for events."""
READ_TIME = 2.0
"""The timeout of an XREAD, in seconds."""
PAUSE = 0.5
"""Seconds before another attempt."""
END_TIME = 1.0
"""The maximum time in seconds that the process waits at its end for events to be sent."""
KEPT = 1000
"""The maximum number of events that are queued while Redis fails.

A Redis stream keeps as many in addition to the history, for processes that reconnect."""
KEY = "microwsgi:events:"
log = logging.getLogger("microwsgi.events")


Waiting = namedtuple("Waiting", ("name", "unique", "id", "chunk", "since"))  # noqa: PYI024 - a class takes ten lines
"""An event that Redis has not taken yet, and when it was published."""


class RedisEvents:
    """The connections of this process with one Redis."""

    def __init__(self, url: str) -> None:
        redis, retry, backoff = map(import_module, ("redis", "redis.retry", "redis.backoff"))
        self.connect = partial(redis.Redis.from_url, url, retry=retry.Retry(backoff.NoBackoff(), 0))
        self.histories: dict[str, int] = {}  # name of a broadcaster -> number of events to keep
        self.begin_lock = threading.Lock()
        self.pid = 0  # the process that has the threads: they do not survive a fork
        atexit.register(self.finish)

    def subscribe(self, name: str, history: int) -> None:
        """Deliver the events of a broadcaster with this name, beginning with the history."""
        self.histories[name] = max(history, self.histories.get(name, 0))

    def begin(self) -> threading.Event:
        """Start the threads, once in each process. Return an event that is set when the history has arrived or can't."""
        with self.begin_lock:
            if self.pid != os.getpid():
                self.reset()
                self.pid = os.getpid()
                for task, limit in (("read", READ_TIME), ("write", WRITE_TIME)):
                    threading.Thread(target=self.run, args=(task, limit), name=f"redis-{task}", daemon=True).start()
        return self.begun

    def reset(self) -> None:
        """Initialize the state of the threads: in a new process, and again after a fork."""
        self.positions: dict[str, str] = {}  # the last entry that was read of each Redis stream
        self.position_lock = threading.Lock()
        self.lock = threading.Lock()
        """Protects the following attributes. Its holder delivers no events, because that takes locks of broadcasters."""
        self.waiting: deque[Waiting] = deque()
        self.undelivered = 0  # the number of events at the end of `waiting` that were not delivered in this server yet
        self.failing: set[str] = set()
        self.lost = 0
        self.arrived, self.begun = threading.Event(), threading.Event()

    def run(self, task: str, limit: float) -> None:
        """Connect, and do the task until that fails, repeatedly: the main function of a thread."""
        while True:
            try:
                with self.connect(socket_timeout=limit, socket_connect_timeout=WRITE_TIME) as client:
                    while True:
                        getattr(self, task)(client)
                        self.succeeded(task)
            except Exception as error:  # the thread continues, whatever Redis answers
                self.failed(task, error)
                sleep(PAUSE)

    def failed(self, task: str, error: Exception) -> None:
        """Deliver the waiting events to this server's clients, in order. From then on `publish` delivers new ones itself."""
        if not self.failing:
            log.warning("Redis does not answer (%s): events reach the clients of this server only.", error)
        self.begun.set()
        while True:
            with self.lock:
                late = [*self.waiting][len(self.waiting) - self.undelivered :]
                self.undelivered = 0
                if not late:
                    self.failing.add(task)
                    return
            for event in late:
                relay.publish(*event[:4])

    def succeeded(self, task: str) -> None:
        """Deliver events through Redis only, as before the failure, once all waiting events were sent."""
        with self.lock:
            if task not in self.failing or (task == "write" and self.waiting):
                return
            self.failing.discard(task)
            lost, self.lost = self.lost, 0
        log.warning("Redis answers again (%s). Events that did not reach other hosts: %s.", task, lost)

    def publish(self, name: str, unique: str, id: str, chunk: bytes) -> None:
        """Queue an event for all processes. While Redis fails, also send it to those of this server at once."""
        self.begin()
        with self.lock:
            failing = bool(self.failing)
            if failing and len(self.waiting) >= KEPT:
                self.waiting.popleft()
                self.lost += 1
            self.waiting.append(Waiting(name, unique, id, chunk, monotonic()))
            self.undelivered += not failing
        self.arrived.set()
        if failing:
            relay.publish(name, unique, id, chunk)

    def write(self, client: Any) -> None:
        """Send the queued events to Redis."""
        self.arrived.wait(BLOCK_TIME)
        self.arrived.clear()
        client.ping()
        while self.waiting:
            event = self.waiting[0]
            self.find_positions(client)
            client.xadd(KEY + event.name, event._asdict(), maxlen=KEPT + self.histories[event.name])
            with self.lock:
                if self.waiting[0] is event:  # else `publish` has dropped it
                    self.waiting.popleft()
                self.undelivered = min(self.undelivered, len(self.waiting))
                late = self.undelivered and monotonic() - self.waiting[0].since > BLOCK_TIME
            if late:
                raise TimeoutError("Redis is too slow")

    def read(self, client: Any) -> None:
        """Wait for events from Redis, and deliver them."""
        self.find_positions(client)
        self.begun.set()
        streams = {KEY + name: at for name, at in self.positions.items()}
        for key, entries in client.xread(streams, block=int(BLOCK_TIME * 1000)):
            name = key.decode().removeprefix(KEY)
            for self.positions[name], fields in entries:
                deliver(name, fields)

    def find_positions(self, client: Any) -> None:
        """Deliver the history of new streams. Called before events are added to them or read from them."""
        with self.position_lock:
            for name in self.histories.keys() - self.positions.keys():
                entries = client.xrevrange(KEY + name, count=max(self.histories[name], 1))
                for _, fields in reversed(entries[: self.histories[name]]):
                    deliver(name, fields)
                self.positions[name] = entries[0][0] if entries else "0-0"

    def finish(self) -> None:
        """Wait until all events are sent, at the end of the process."""
        end = monotonic() + END_TIME
        while self.pid == os.getpid() and self.waiting and not self.failing and monotonic() < end:
            sleep(0.01)


def deliver(name: str, fields: dict[bytes, bytes]) -> None:
    """Deliver an entry of a Redis stream in this process."""
    relay.deliver(name, fields[b"unique"].decode(), fields[b"id"].decode(), fields[b"chunk"], again=True)


of_process = cache(RedisEvents)
"""Return the connections of this process to the Redis with a URL: all broadcasters share them."""
