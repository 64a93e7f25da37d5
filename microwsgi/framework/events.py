"""Server-sent events (HTML standard 9.2), without a thread for each client if the server supports this.

A view returns `Broadcaster.listen(request)`, or the `response` of its own Stream. `send` may be called from any thread. On our
server a stream without events is suspended (docs/environ.md, `microwsgi.resume`); on another server it blocks the thread that
iterates over it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from importlib import import_module
from time import monotonic
from types import FrameType
from typing import Any

from webob import Request, Response

from microwsgi.support.relay import relay

REDIS_VARIABLE = "EVENTS_REDIS_URL"
"""The environment variable with the address of a Redis, through which the servers of several hosts share their events."""
HEARTBEAT = 15.0
"""Seconds without events after which a comment is sent, to detect a client that has disconnected."""
PENDING = 1000
"""The number of events that may wait for a slow client. Beyond it the stream ends; the client reconnects with its last id."""
KNOWN = 2000
"""The number of delivered events that a broadcaster remembers, so that it ignores them if they arrive again."""
HISTORY_TIME = 0.5
"""The maximum time in seconds that the first client waits for the history from Redis."""
COMMENT = b":\n\n"
LINE_END = re.compile("\r\n|\r|\n")
HEADERS = (
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-store"),
    ("X-Accel-Buffering", "no"),  # nginx would buffer events
)


def event_bytes(data: object, *, event: str = "", id: str = "", retry: float | None = None) -> bytes:
    """Return an event as bytes; data other than a str as JSON. `retry` is in seconds. Raises ValueError for line ends."""
    for name in (event, id):
        if LINE_END.search(name) or "\0" in name:
            raise ValueError(f"{name!r} can't be an event's name or id: it has a line end or a NUL.")
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, allow_nan=False)
    lines = [f"event: {event}"] if event else []
    lines += [f"id: {id}"] if id else []
    lines += [f"retry: {retry * 1000:.0f}"] if retry is not None else []
    lines += [f"data: {line}" for line in LINE_END.split(text)]
    return "\n".join([*lines, "\n"]).encode()


class Stream:
    """The events of one client: the iterable of its response.

    With `poll`, that function is called every `every` seconds, and its return value is sent unless it is None. `heartbeat` and
    `retry`, the time that the client waits before it reconnects, are in seconds.
    """

    __slots__ = (
        "poll", "poll_at", "beat_at", "closed", "ended", "every", "heartbeat", "on_close", "pending", "resume", "ready",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        *,
        poll: Callable[[], object] | None = None,
        every: float = 1.0,
        heartbeat: float = HEARTBEAT,
        retry: float | None = None,
        on_close: Callable[[Stream], object] | None = None,
    ) -> None:
        resume = request.environ.get("microwsgi.resume")
        ready = threading.Event()
        self.ready = None if resume else ready
        self.resume: Callable[..., object] = resume or ready.set
        """Makes the server call `__next__` again."""
        self.poll, self.every = poll, every
        self.poll_at = monotonic()
        self.heartbeat = heartbeat
        self.beat_at = self.poll_at + heartbeat
        self.on_close = on_close
        """Called with this stream when its client has disconnected, or everything has been sent."""
        self.ended = self.closed = False
        # Send something at once: the response's head is sent with it, and the browser knows that it is connected.
        self.pending = deque([COMMENT if retry is None else f"retry: {retry * 1000:.0f}\n\n".encode()])

    @property
    def response(self) -> Response:
        """The response for the view to return."""
        return Response(headerlist=list(HEADERS), app_iter=self)

    def send(self, data: object, *, event: str = "", id: str = "") -> None:
        """Send an event. May be called from any thread."""
        self.put(event_bytes(data, event=event, id=id))

    def put(self, chunk: bytes) -> None:
        """Queue the bytes of an event; if PENDING events wait already, end the stream."""
        if self.closed or self.ended:
            return
        if len(self.pending) >= PENDING:
            self.end()
            return
        self.pending.append(chunk)
        self.resume()

    def end(self) -> None:
        """End the response after all pending events. Browsers reconnect, unless they are answered with 204."""
        self.ended = True
        self.resume()

    # --- Called by the server -----------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """Return the pending events; b"" if there are none: the server then waits for `resume`."""
        while not self.ended or self.pending:
            now = monotonic()
            if self.poll is not None and now >= self.poll_at:
                self.poll_at = max(self.poll_at + self.every, now)
                if (data := self.poll()) is not None:
                    self.send(data)
            wait = min(self.beat_at, self.poll_at if self.poll is not None else self.beat_at) - now
            # First ask to be resumed, then look for events: an event or the end that arrives in between is not missed.
            if self.ready is None:
                self.resume(after=max(wait, 0.001))
            else:
                self.ready.clear()
            ended = self.ended
            if self.pending:
                self.beat_at = now + self.heartbeat
                return self.take()
            if ended:
                break
            if now >= self.beat_at:
                self.beat_at = now + self.heartbeat
                return COMMENT
            if self.ready is None:
                return b""
            self.ready.wait(max(wait, 0))
        raise StopIteration

    def take(self) -> bytes:
        """Return all pending events. Only `__next__` calls this, so they can't be taken by another thread."""
        chunks = []
        while self.pending:
            chunks.append(self.pending.popleft())
        return b"".join(chunks)

    def close(self) -> None:
        """End the stream. The server calls this when the client has disconnected, or everything has been sent."""
        if not self.closed:
            self.closed = True
            self.pending.clear()
            if self.on_close is not None:
                self.on_close(self)


class Broadcaster:
    """Sends each event to any number of clients: of this process, of the server's other workers, and of other hosts.

    The last `history` events are kept with ids, for clients that reconnect with their Last-Event-ID.

    Broadcasters with the same `name` get each other's events: in the workers of one server, through its parent process, and,
    if EVENTS_REDIS_URL is set, in all processes that use that Redis. A broadcaster that is created while a module is imported
    gets a name automatically. Events that one process publishes are received in their order.

        send -> the parent process, or Redis, if there is one -> deliver, in each process -> Stream.put
    """

    def __init__(
        self,
        *,
        history: int = 0,
        heartbeat: float = HEARTBEAT,
        retry: float | None = None,
        name: str = "",
        redis_url: str | None = None,  # instead of EVENTS_REDIS_URL
    ) -> None:
        self.streams: set[Stream] = set()
        self.name = name or name_in_module(sys._getframe(1))
        self.lock = relay.lock_of(self.name) if self.name else threading.RLock()
        """Protects `streams`, `history`, `known` and `number`, and keeps events in the order of their numbers."""
        self.history: deque[tuple[str, bytes]] = deque(maxlen=history)
        self.known: dict[str, None] = {}  # unique ids of the last delivered events, oldest first
        self.max_known = max(history, KNOWN)
        self.heartbeat = heartbeat
        self.retry = retry
        self.start_series()
        url = os.environ.get(REDIS_VARIABLE, "") if redis_url is None else redis_url
        if self.name:
            relay.subscribe(self.name, history, self.deliver, self)
        elif url or relay.send is not None:
            warnings.warn(
                "A Broadcaster that is created in a function needs a name to reach other processes.", stacklevel=2
            )
        self.redis = import_module(REDIS).of_process(url) if url and self.name else None
        if self.redis is not None:
            self.redis.subscribe(self.name, history)

    def start_series(self) -> None:
        """Begin a series of ids that no other process uses. Also called after a fork."""
        self.pid = os.getpid()
        self.number = 0
        self.series = secrets.token_hex(4)

    def __len__(self) -> int:
        """Return the number of clients of this process."""
        return len(self.streams)

    def listen(self, request: Request) -> Response:
        """Return the response to a client: the events after its Last-Event-ID, then all new ones."""
        stream = Stream(request, heartbeat=self.heartbeat, retry=self.retry, on_close=self.leave)
        last = request.headers.get("Last-Event-ID")
        if self.redis is not None:
            self.redis.begin().wait(HISTORY_TIME)
        with self.lock:
            if last is not None:
                stream.pending.extend(self.since(last))
            self.streams.add(stream)
        return stream.response

    def since(self, last: str) -> list[bytes]:
        """Return the events after the one with this id; all of them if the id is unknown."""
        ids = [id for id, _ in self.history]
        begin = ids.index(last) + 1 if last in ids else 0
        return [chunk for _, chunk in self.history][begin:]

    def leave(self, stream: Stream) -> None:
        """Remove a stream that has ended."""
        with self.lock:
            self.streams.discard(stream)

    def send(self, data: Any, *, event: str = "", id: str = "") -> None:
        """Send an event to all clients, from any thread. Clients of one server get the events in the same order."""
        with self.lock:
            if self.pid != os.getpid():
                self.start_series()
            self.number += 1
            unique = f"{self.series}-{self.number}"
            id = id or (unique if self.history.maxlen else "")
            chunk = event_bytes(data, event=event, id=id)
            if not self.name:
                self.deliver(unique, id, chunk)
            elif self.redis is None:
                relay.publish(self.name, unique, id, chunk)
            else:
                self.redis.publish(self.name, unique, id, chunk)

    def deliver(self, unique: str, id: str, chunk: bytes, again: bool = False) -> None:
        """Send the bytes of an event to the clients of this process. `again`: ignore an event that was delivered before."""
        with self.lock:
            if again and unique in self.known:
                return
            self.known[unique] = None
            if len(self.known) > self.max_known:
                del self.known[next(iter(self.known))]
            self.history.append((id, chunk))
            for stream in self.streams:
                stream.put(chunk)

    def end(self) -> None:
        """End all streams of this process."""
        with self.lock:
            for stream in self.streams:
                stream.end()


REDIS = "microwsgi.framework.redis_events"
"""Imported only if Redis is used: it needs the extra `redis`."""


def name_in_module(frame: FrameType | None) -> str:
    """Return a name for a broadcaster that is the same in each process that imports the module, or "".

    It is "" for a broadcaster that is created in a function: the order of such calls may differ between processes.
    """
    while frame is not None and frame.f_code.co_name in {"<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"}:
        frame = frame.f_back  # before Python 3.12 these have their own frames
    if frame is None or frame.f_code.co_name != "<module>":
        return ""
    module = frame.f_globals.get("__name__", "")
    relay.names[module] = number = relay.names.get(module, 0) + 1
    return f"{module}.{number}"
