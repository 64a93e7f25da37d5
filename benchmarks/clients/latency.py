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
        self.began = 0

    def begin(self, began: int) -> None:
        """Send the request; its latency counts from `began`."""
        self.began, self.response = began, Response()
        if self.socket is None:
            self.socket = connect(self.port)
            self.selector.register(self.socket, selectors.EVENT_READ, self)
        self.socket.sendall(self.octets)

    def readable(self, *, keep: bool) -> bool:
        """Read what is there; whether the response is complete."""
        assert self.socket
        data = self.socket.recv(262144)
        if not data and not self.response.status and not self.response.head:
            # A kept connection that the server had closed already: what a client does is to try again.
            self.close()
            self.begin(self.began)
            return False
        if not self.response.feed(data):
            return False
        if not (data and keep and self.response.keep):
            self.close()
        return True

    def close(self) -> None:
        if self.socket:
            self.selector.unregister(self.socket)
            self.socket.close()
            self.socket = None


class Load:
    """Some connections to one server, with one request: run it as a closed loop or at a rate."""

    def __init__(self, port: int, request: Request, connections: int, *, keep: bool) -> None:
        self.request, self.keep = request, keep
        self.selector = selectors.DefaultSelector()
        octets = request.octets(close=not keep)
        self.lanes = [ClientConnection(port, octets, self.selector) for _ in range(connections)]

    def ready(self, timeout: float) -> Iterator[tuple[ClientConnection, int]]:
        """The lanes whose response becomes complete within so many seconds, each with the time."""
        for key, _ in self.selector.select(timeout):
            if key.data.readable(keep=self.keep):
                yield key.data, now()

    def each_once(self) -> None:
        """One request on each connection in turn, unmeasured: kept connections are open when the clock starts."""
        for lane in self.lanes:
            lane.begin(now())
            while not any(done is lane for done, _ in self.ready(RESPONSE_TIMEOUT)):
                if now() > lane.began + RESPONSE_TIMEOUT * SECOND:
                    raise TimeoutError(f"no response within {RESPONSE_TIMEOUT:.0f} s")

    def closed(self, seconds: float) -> array[int]:
        """Latencies in nanoseconds, as they came."""
        latencies, end = array("q"), now() + int(seconds * SECOND)
        for lane in self.lanes:
            lane.begin(now())
        waiting = len(self.lanes)
        while waiting:
            if now() > end + RESPONSE_TIMEOUT * SECOND:
                raise TimeoutError(f"no response within {RESPONSE_TIMEOUT:.0f} s")
            for lane, at in self.ready(RESPONSE_TIMEOUT):
                latencies.append(at - lane.began)
                if at < end:
                    lane.begin(now())
                else:
                    waiting -= 1
        self.lanes[0].response.check(self.request)
        return latencies

    def at_rate(self, rate: float, seconds: float) -> array[int]:
        """Latencies in nanoseconds from each request's intended time."""
        latencies, free = array("q"), deque(self.lanes)
        interval, start = SECOND / rate, now()
        total, sent = int(rate * seconds), 0
        limit = start + int((seconds + RESPONSE_TIMEOUT) * SECOND)
        while len(latencies) < total:
            at, due = now(), start + int(sent * interval)
            if at > limit:
                raise TimeoutError(f"{total - len(latencies)} of {total} requests were not answered at {rate:.0f}/s")
            if sent < total and at >= due and free:
                free.popleft().begin(due)
                sent += 1
                continue
            # A lane that is free waits for the next intended time, else only a response can help.
            wait = (due - at - SPIN) / SECOND if free and sent < total else 0.1
            for lane, at in self.ready(max(0.0, wait)):
                latencies.append(at - lane.began)
                free.append(lane)
        self.lanes[0].response.check(self.request)
        return latencies

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for lane in self.lanes:
            lane.close()
        self.selector.close()


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Open the connections that are to be kept, then measure."""
    fields = tuple((name, value) for name, value in job["request"].get("fields", ()))
    request = Request(**{**job["request"], "fields": fields})
    with Load(job["port"], request, job["connections"], keep=job.get("keep", True)) as load:
        if load.keep:
            load.each_once()
        begun = now()
        rate = job.get("rate")
        latencies = load.at_rate(rate, job["seconds"]) if rate else load.closed(job["seconds"])
        return {"latencies": list(latencies), "seconds": (now() - begun) / SECOND}


if __name__ == "__main__":
    for line in sys.stdin:
        try:
            answer = run(json.loads(line))
        except (OSError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
