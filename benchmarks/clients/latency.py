"""The load generator for latency: plain sockets, one thread, one poller.

Closed loop: each connection sends its next request as soon as its response is complete. The latency is from the send (for new
connections from the `connect`) to the last byte. Open loop: requests have intended send times at a fixed rate, even if
earlier requests are not answered yet. The latency is from the intended time, so that a stall of the server lengthens the
latency of every request that was due meanwhile, instead of only one. This avoids coordinated omission.

The program reads jobs from standard input, one JSON object per line, and prints the latencies of each.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterator
from typing import Any, Self

from benchmarks.clients.exchange import RESPONSE_TIMEOUT, Request, Response, connect

SPIN = 1_500_000  # ns before an intended time, without sleep between polls: epoll's timeouts are in ms
SECOND = 1_000_000_000

now = time.perf_counter_ns


class ClientConnection:
    """A connection, which is opened again when it was closed, and its current request."""

    def __init__(self, port: int, request_bytes: bytes, selector: selectors.BaseSelector) -> None:
        self.port, self.request_bytes, self.selector = port, request_bytes, selector
        self.socket: socket.socket | None = None
        self.response = Response()
        self.started = 0

    def send_request(self, started: int) -> None:
        """Send the request, on a new connection if necessary; its latency counts from `started`."""
        self.started, self.response = started, Response()
        if self.socket is None:
            self.socket = connect(self.port)
            self.selector.register(self.socket, selectors.EVENT_READ, self)
        self.socket.sendall(self.request_bytes)

    def on_readable(self, *, keep_alive: bool) -> bool:
        """Receive data, and return whether the response is complete."""
        assert self.socket
        data = self.socket.recv(262144)
        if not data and not self.response.status and not self.response.head:
            # The server had already closed this persistent connection: send the request again, as clients do.
            self.close()
            self.send_request(self.started)
            return False
        if not self.response.feed(data):
            return False
        if not (data and keep_alive and self.response.keep_alive):
            self.close()
        return True

    def close(self) -> None:
        if self.socket:
            self.selector.unregister(self.socket)
            self.socket.close()
            self.socket = None


class Load:
    """A load: one request, sent on a number of connections to one server, in a closed or an open loop."""

    def __init__(self, port: int, request: Request, count: int, *, keep_alive: bool) -> None:
        self.request, self.keep_alive = request, keep_alive
        self.selector = selectors.DefaultSelector()
        request_bytes = request.encode(close=not keep_alive)
        self.connections = [ClientConnection(port, request_bytes, self.selector) for _ in range(count)]

    def completed_requests(self, timeout: float) -> Iterator[tuple[ClientConnection, int]]:
        """Yield the connections whose response becomes complete within the timeout, each with the time."""
        for key, _ in self.selector.select(timeout):
            if key.data.on_readable(keep_alive=self.keep_alive):
                yield key.data, now()

    def warm_up(self) -> None:
        """Send an unmeasured request on each connection in turn, to open persistent connections before the measurement."""
        for connection in self.connections:
            connection.send_request(now())
            while not any(done is connection for done, _ in self.completed_requests(RESPONSE_TIMEOUT)):
                if now() > connection.started + RESPONSE_TIMEOUT * SECOND:
                    raise TimeoutError(f"no response within {RESPONSE_TIMEOUT:.0f} s")

    def closed_loop(self, seconds: float) -> array[int]:
        """Run a closed loop for some seconds, and return the latencies in nanoseconds."""
        latencies, end = array("q"), now() + int(seconds * SECOND)
        for connection in self.connections:
            connection.send_request(now())
        waiting = len(self.connections)
        while waiting:
            if now() > end + RESPONSE_TIMEOUT * SECOND:
                raise TimeoutError(f"no response within {RESPONSE_TIMEOUT:.0f} s")
            for connection, at in self.completed_requests(RESPONSE_TIMEOUT):
                latencies.append(at - connection.started)
                if at < end:
                    connection.send_request(now())
                else:
                    waiting -= 1
        self.connections[0].response.check(self.request)
        return latencies

    def open_loop(self, rate: float, seconds: float) -> array[int]:
        """Send requests at a fixed rate, and return the latencies in nanoseconds, from each request's intended time."""
        latencies, free = array("q"), deque(self.connections)
        interval, start = SECOND / rate, now()
        total, sent = int(rate * seconds), 0
        limit = start + int((seconds + RESPONSE_TIMEOUT) * SECOND)
        while len(latencies) < total:
            at, due = now(), start + int(sent * interval)
            if at > limit:
                raise TimeoutError(f"{total - len(latencies)} of {total} requests were not answered at {rate:.0f}/s")
            if sent < total and at >= due and free:
                free.popleft().send_request(due)
                sent += 1
                continue
            # If a connection is free, wait until the next intended time; if none is, wait for a response.
            wait = (due - at - SPIN) / SECOND if free and sent < total else 0.1
            for connection, at in self.completed_requests(max(0.0, wait)):
                latencies.append(at - connection.started)
                free.append(connection)
        self.connections[0].response.check(self.request)
        return latencies

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self.connections:
            connection.close()
        self.selector.close()


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job: open persistent connections, then measure. Return the latencies and the duration."""
    fields = tuple((name, value) for name, value in job["request"].get("fields", ()))
    request = Request(**{**job["request"], "fields": fields})
    with Load(job["port"], request, job["connections"], keep_alive=job.get("keep", True)) as load:
        if load.keep_alive:
            load.warm_up()
        begun = now()
        rate = job.get("rate")
        latencies = load.open_loop(rate, job["seconds"]) if rate else load.closed_loop(job["seconds"])
        return {"latencies": list(latencies), "seconds": (now() - begun) / SECOND}


if __name__ == "__main__":
    for line in sys.stdin:
        try:
            answer = run(json.loads(line))
        except (OSError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
