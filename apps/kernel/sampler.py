"""One look a second at what the kernel counts, by one thread for all viewers, and a ring of what was seen."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from apps.kernel import counters, elsewhere, interfaces, processes, routes, sockets

KEPT = 180
"""Seconds of history; what is remembered never grows beyond that."""
EVERY = 1.0
SOCKETS_EVERY = 3
"""Looks between two at all the sockets, and only while somebody watches: they may be many."""
OCTET = 8

T = TypeVar("T")


class History:
    """The rates of an interface, a second each, and its counters."""

    def __init__(self, traffic: interfaces.Traffic) -> None:
        self.traffic = traffic
        # Lists that are replaced and never changed: pages draw them meanwhile.
        self.rates: dict[str, list[float]] = {name: [] for name in traffic._fields}

    def add(self, traffic: interfaces.Traffic, seconds: float) -> None:
        """The next look, so many seconds after the last."""
        for name, before, now in zip(traffic._fields, self.traffic, traffic, strict=True):
            # An interface that was made anew counts from 0.
            self.rates[name] = [*self.rates[name][1 - KEPT :], max(now - before, 0) / seconds]
        self.traffic = traffic

    def bits(self, name: str) -> list[float]:
        """A rate of bytes as bits a second."""
        return [value * OCTET for value in self.rates[name]]


class Sampler:
    """What is known of this machine's network; `tell` is called with the name of what has changed."""

    def __init__(self, tell: Callable[[str], object], watched: Callable[[], int]) -> None:
        self.tell, self.watched = tell, watched
        self.histories: dict[str, History] = {}
        self.counters: dict[str, int] = {}
        self.rates: dict[str, float] = {}
        self.tcp: list[sockets.Socket] = []
        self.udp: list[sockets.Socket] = []
        self.states: Counter[str] = Counter()
        self.owners: dict[int, str] = {}
        self.neighbours: list[routes.Neighbour] = []
        self.routes: list[routes.Route] = []
        self.missing: dict[str, str] = {}
        """What can't be seen here, and why."""
        self.seen_at = 0.0
        self.stopping = threading.Event()
        self.thread: threading.Thread | None = None
        self.lock = threading.Lock()

    def start(self) -> None:
        """Begin, if it has not begun: with the first request, since threads don't survive a server's fork."""
        with self.lock:
            if self.thread is None:
                self.look()
                self.look_at_sockets()
                self.thread = threading.Thread(target=self.run, name="netmon", daemon=True)
                self.thread.start()

    def stop(self) -> None:
        """End."""
        self.stopping.set()
        if self.thread is not None:
            self.thread.join()

    def run(self) -> None:
        """Look, until it is stopped."""
        number = 0
        while not self.stopping.wait(EVERY):
            self.look()
            self.tell("interfaces")
            self.tell("counters")
            number += 1
            if number % SOCKETS_EVERY == 0 and self.watched():
                self.look_at_sockets()
                self.tell("sockets")
                self.tell("links")

    def look(self) -> None:
        """Interfaces, and counters."""
        now = monotonic()
        seconds, self.seen_at = now - self.seen_at, now
        try:
            found = interfaces.interfaces()
        except OSError:
            found = elsewhere.interfaces()
        for name in self.histories.keys() - found.keys():
            self.histories.pop(name)
        for name, traffic in found.items():
            if name in self.histories:
                self.histories[name].add(traffic, seconds)
            else:
                self.histories[name] = History(traffic)
        before, self.counters = self.counters, self.asked("counters", counters.counters, {})
        self.rates = {
            name: max(self.counters[name] - before.get(name, self.counters[name]), 0) / seconds
            for name in self.counters
        }

    def look_at_sockets(self) -> None:
        """Sockets and their processes, neighbours, routes."""
        try:
            self.tcp, self.udp = list(sockets.sockets("tcp")), list(sockets.sockets("udp"))
        except (OSError, AttributeError):  # no netlink, or none for us
            self.tcp, self.udp = list(elsewhere.sockets("tcp")), list(elsewhere.sockets("udp"))
            self.missing["round-trip times"] = "they are netlink's sock_diag, which is not there"
        self.states = Counter(each.state for each in self.tcp)
        self.states["time wait"] += self.asked("sockets in time wait", sockets.waiting, 0)
        self.owners = processes.owners()
        self.neighbours = self.asked("neighbours", routes.neighbours, [])
        self.routes = self.asked("routes", routes.routes, [])
        if any(each.inode and each.inode not in self.owners for each in (*self.tcp, *self.udp)):
            self.missing["some processes' names"] = (
                "a user sees those of the own processes; root, or CAP_SYS_PTRACE, all"
            )
        else:
            self.missing.pop("some processes' names", None)

    def asked(self, what: str, function: Callable[[], T], instead: T) -> T:
        """What the kernel says, or what stands for it where it says nothing."""
        try:
            answer = function()
        except (OSError, AttributeError) as error:
            self.missing[what] = str(error)
            return instead
        self.missing.pop(what, None)
        return answer
