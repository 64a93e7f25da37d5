"""The measuring client for latency: plain sockets, one thread, one poller.

Closed loop: each connection sends its next request when its response is complete; the latency is from the send (from the
`connect`, for new connections) to the last byte. Fixed rate: requests have intended times, whether or not the earlier
ones are answered; the latency is from the intended time, so that a server that stalls is charged for every request that
it made wait, and not only for one (coordinated omission).

As a process it takes jobs, one JSON object a line, and answers each with its latencies: it is warm after the first.
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

SPIN = 1_500_000  # nanoseconds before an intended time from when the client polls without sleeping: epoll counts in ms
SECOND = 1_000_000_000

now = time.perf_counter_ns


class ClientConnection:
    """One connection at a time, and the request that is under way on it."""

    def __init__(self, port: int, octets: bytes, selector: selectors.BaseSelector) -> None:
        self.port, self.octets, self.selector = port, octets, selector
        self.socket: socket.socket | None = None
        self.response = Response()
        self.started = 0

    def send_request(self, started: int) -> None:
        """Send the request; its latency counts from `began`."""
        self.started, self.response = started, Response()
        if self.socket is None:
            self.socket = connect(self.port)
            self.selector.register(self.socket, selectors.EVENT_READ, self)
        self.socket.sendall(self.octets)

    def on_readable(self, *, keep_alive: bool) -> bool:
        """Read what is there; whether the response is complete."""
        assert self.socket
        data = self.socket.recv(262144)
        if not data and not self.response.status and not self.response.head:
            # A kept connection that the server had closed already: what a client does is to try again.
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
    """Some connections to one server, with one request: run it as a closed loop or at a rate."""

    def __init__(self, port: int, request: Request, count: int, *, keep_alive: bool) -> None:
        self.request, self.keep_alive = request, keep_alive
        self.selector = selectors.DefaultSelector()
        octets = request.octets(close=not keep_alive)
        self.connections = [ClientConnection(port, octets, self.selector) for _ in range(count)]

    def completed_requests(self, timeout: float) -> Iterator[tuple[ClientConnection, int]]:
        """The lanes whose response becomes complete within so many seconds, each with the time."""
        for key, _ in self.selector.select(timeout):
            if key.data.on_readable(keep_alive=self.keep_alive):
                yield key.data, now()

    def warm_up(self) -> None:
        """One request on each connection in turn, unmeasured: kept connections are open when the clock starts."""
        for connection in self.connections:
            connection.send_request(now())
            while not any(done is connection for done, _ in self.completed_requests(RESPONSE_TIMEOUT)):
                if now() > connection.started + RESPONSE_TIMEOUT * SECOND:
                    raise TimeoutError(f"no response within {RESPONSE_TIMEOUT:.0f} s")

    def closed_loop(self, seconds: float) -> array[int]:
        """Latencies in nanoseconds, as they came."""
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
        """Latencies in nanoseconds from each request's intended time."""
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
            # A lane that is free waits for the next intended time, else only a response can help.
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
    """Open the connections that are to be kept, then measure."""
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
