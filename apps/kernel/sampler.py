"""The kernel's figures once a second, for all viewers: rates of the interfaces, counters, and, while somebody looks, sockets.

run                 the thread: never ended by an error; what can't be seen is in `missing`, with the reason
fresh               for a scrape: looks itself if the figures are old, one thread for all that ask
look                interfaces and counters
look_at_sockets     sockets, their processes, neighbours, routes
"""

from __future__ import annotations

import errno
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from apps.history import Data, History
from apps.kernel import counters, links, processes, sockets
from apps.kernel.netlink import Netlink

EVERY = 1.0
RECENT = 600
"""Seconds of rates in memory, one a second."""
KEPT_EVERY = 10
"""Seconds that a sample of the history stands for."""
SOCKETS_EVERY, SHARE = 3.0, 20
"""Seconds between two looks at all sockets, and at least so many times what one look takes: there may be ten thousands."""
WATCHED = 10.0
"""Seconds for which a viewer counts."""
SPEED_EVERY = 30.0
CHANGES = 50
MANY_RETRANSMITTED = 0.01
"""Share of retransmitted segments that is a problem."""
CALM = 60.0
"""Seconds without an error after which a problem is over."""
RETRANSMITTED = "{:.1%} of the TCP segments of the last minute were retransmitted"

T = TypeVar("T")
Rates = Sequence[float]
"""A second's change of each counter of links.Traffic."""
NOTHING = array("f", [0.0] * 8)


class Problem(NamedTuple):
    """Something that is wrong now and then: when it began, when it was last seen, and a figure for its text."""

    since: float
    last: float
    value: float


class Change(NamedTuple):
    """Something that an interface did."""

    at: float
    text: str
    bad: bool


class Sampler:
    """The network of this machine. `history` keeps the rates of the interfaces beyond ten minutes."""

    def __init__(self, history: str = "") -> None:
        self.history = History(history, mean)
        self.lock = threading.RLock()  # held by the one thread that looks; others read what it has assigned as a whole
        self.thread: threading.Thread | None = None
        self.stopping = threading.Event()
        self.route: Netlink | None = None
        self.diag: Netlink | None = None
        self.counting: counters.Counters | None = None
        self.seen_at = 0.0
        """time.time() of the last look that found the interfaces."""
        self.ticked = time.monotonic()
        self.interfaces: dict[str, links.Interface] = {}
        self.addresses: dict[int, list[str]] = {}
        self.speeds: dict[str, int | None] = {}
        self.speeds_until = 0.0
        self.recent: dict[str, deque[tuple[float, Rates]]] = {}
        self.changes: deque[Change] = deque(maxlen=CHANGES)
        self.problems: dict[str, Problem] = {}
        """By their texts."""
        self.counters: dict[str, int] = {}
        self.rates: dict[str, float] = {}
        self.minute: deque[tuple[float, dict[str, int]]] = deque(maxlen=61)
        """The counters of the last minute."""
        self.sockets: list[sockets.Socket] = []
        self.sockets_at = 0.0
        self.sockets_due = 0.0
        self.watched_until = 0.0
        self.states: Counter[str] = Counter()
        self.states_at = 0.0
        self.owners: dict[int, str] = {}
        self.neighbours: list[links.Neighbour] = []
        self.routes: list[links.Route] = []
        self.missing: dict[str, str] = {}
        """What can't be seen here, and why."""

    def start(self) -> None:
        """Start the thread, unless it runs."""
        with self.lock:
            if self.thread is None or not self.thread.is_alive():
                self.thread = threading.Thread(target=self.run, name="netmon", daemon=True)
                self.thread.start()

    def stop(self) -> None:
        """End the thread and close all files."""
        self.stopping.set()
        if self.thread is not None:
            self.thread.join()
        self.forget_sockets()
        if self.counting is not None:
            self.counting.close()
        self.history.close()

    def run(self) -> None:
        number = 0
        while not self.stopping.wait(EVERY if number else 0.0):
            number += 1
            self.asked("this second", self.tick, None)

    def tick(self) -> None:
        """All that is due."""
        now = time.monotonic()
        with self.lock:
            self.diag_socket()  # open from the beginning on: later there may be no descriptor left
            self.look()
            if now < self.watched_until and now >= self.sockets_due:
                self.look_at_sockets()
        if int(now) % KEPT_EVERY == 0:
            self.keep()

    def watch(self) -> None:
        """Somebody looks: sockets are needed, too, and at once if there are none yet."""
        self.watched_until = time.monotonic() + WATCHED
        if time.monotonic() - self.sockets_due > SOCKETS_EVERY:
            with self.lock:
                if time.monotonic() - self.sockets_due > SOCKETS_EVERY:
                    self.look_at_sockets()

    def fresh(self) -> None:
        """Have figures that are at most a second old; of several threads that want them, one looks."""
        with self.lock:
            if time.time() - self.seen_at > EVERY:
                self.look()
            if time.time() - self.states_at > EVERY:
                self.states = self.asked("sockets by state", lambda: sockets.states(self.diag_socket()), Counter())
                self.states_at = time.time()

    def look(self) -> None:
        """Interfaces and counters. Called with the lock."""
        now, ticked = time.time(), time.monotonic()
        seconds, self.ticked = max(ticked - self.ticked, 1e-3), ticked
        found = self.asked("interfaces", lambda: links.interfaces(self.route_socket()), None)
        if found is not None:
            self.addresses = self.asked("addresses", lambda: links.addresses(self.route_socket()), {})
            if ticked > self.speeds_until:
                self.speeds = {each.name: links.speed(each.name) for each in found}
                self.speeds_until = ticked + SPEED_EVERY
            self.compare(found, now, seconds)
            self.seen_at = now
        before, self.counters = self.counters, self.asked("counters", self.count, {})
        self.rates = {name: max(value - before.get(name, value), 0) / seconds for name, value in self.counters.items()}
        self.minute.append((now, self.counters))
        again, sent = self.last_minute("Tcp.RetransSegs"), self.last_minute("Tcp.OutSegs")
        if again > MANY_RETRANSMITTED * (sent + again):
            self.report(RETRANSMITTED, now, again / (sent + again), total=False)
        self.problems = {text: each for text, each in self.problems.items() if now - each.last < CALM}

    def report(self, text: str, now: float, value: float, *, total: bool = True) -> None:
        """Remember a problem. Its figure is the sum since it began, or the last one."""
        before = self.problems.get(text, Problem(now, now, 0.0))
        self.problems[text] = Problem(before.since, now, value + before.value if total else value)

    def compare(self, found: list[links.Interface], now: float, seconds: float) -> None:
        """Rates and changes since the look before."""
        fresh = {each.name: each for each in found}
        first = not self.interfaces
        for name in self.interfaces.keys() - fresh.keys():
            self.changes.append(Change(now, f"{name} was removed", bad=True))
            self.recent.pop(name, None)
        for name, each in fresh.items():
            before = self.interfaces.get(name)
            ring = self.recent.setdefault(name, deque(maxlen=RECENT))
            if before is None:
                if not first:
                    self.changes.append(Change(now, f"{name} was added, {each.state}", bad=False))
                continue
            if before.state != each.state:
                self.changes.append(Change(now, f"{name}: {before.state} → {each.state}", bad=each.state != "up"))
            # An interface that was removed and added again counts from 0.
            grown = [max(b - a, 0) for a, b in zip(before.traffic, each.traffic, strict=True)]
            ring.append((now, array("f", [count / seconds for count in grown]) if any(grown) else NOTHING))
            for word, count in (("errors", grown[2] + grown[6]), ("drops", grown[3] + grown[7])):
                if count:
                    self.report(f"{name.replace('{', '{{').replace('}', '}}')}: {{:.0f}} {word}", now, count)
        self.interfaces = fresh

    def keep(self) -> None:
        """The means of the last seconds, for the history."""
        now = time.time()
        for name, ring in list(self.recent.items()):
            last = [rates for at, rates in list(ring)[-KEPT_EVERY:] if now - at <= KEPT_EVERY]
            if last:
                self.history.add(name, now, mean([{"rates": list(rates)} for rates in last]))
        self.history.flush(now)

    def look_at_sockets(self) -> None:
        """Called with the lock."""
        began = time.monotonic()
        found: list[sockets.Socket] = []
        for protocol in sockets.PROTOCOLS:
            listing = partial(sockets.sockets, protocol=protocol)
            found += self.asked(f"{protocol} sockets", lambda: list(listing(self.diag_socket())), [])  # noqa: B023 - called now
        self.sockets = found
        self.states = self.asked("sockets by state", lambda: sockets.states(self.diag_socket()), Counter())
        self.owners = processes.owners()
        self.neighbours = self.asked("neighbours", lambda: links.neighbours(self.route_socket()), [])
        self.routes = self.asked("routes", lambda: links.routes(self.route_socket()), [])
        self.sockets_at, now = time.time(), time.monotonic()
        self.sockets_due = now + max(SOCKETS_EVERY, SHARE * (now - began))

    def asked(self, name: str, function: Callable[[], T], instead: T) -> T:
        """What a function finds, or what stands for it; `missing` says why. A socket that failed is opened anew next time."""
        try:
            answer = function()
        except Exception as error:  # whatever it is, the next second is another try
            self.missing = self.missing | {name: getattr(error, "strerror", None) or str(error) or type(error).__name__}
            if getattr(error, "errno", None) not in {errno.EMFILE, errno.ENFILE}:
                self.forget_sockets()  # they may be broken; without descriptors there would be no others
            return instead
        if name in self.missing:
            self.missing = {key: value for key, value in self.missing.items() if key != name}
        return answer

    def forget_sockets(self) -> None:
        for each in (self.route, self.diag):
            if each is not None:
                each.socket.close()
        self.route = self.diag = None

    def route_socket(self) -> Netlink:
        self.route = self.route or Netlink(links.NETLINK_ROUTE)
        return self.route

    def diag_socket(self) -> Netlink:
        self.diag = self.diag or Netlink(sockets.NETLINK_SOCK_DIAG)
        return self.diag

    def count(self) -> dict[str, int]:
        self.counting = self.counting or counters.Counters()
        return self.counting.read()

    def last_minute(self, name: str) -> int:
        """By how much a counter has grown in the last minute."""
        if not self.minute:
            return 0
        now, last = self.minute[-1]
        first = next((values for at, values in self.minute if now - at <= 60), last)
        return max(last.get(name, 0) - first.get(name, 0), 0)

    def points(self, name: str, begin: float, end: float) -> list[tuple[float, Rates]]:
        """The rates of an interface in a period."""
        if end - begin <= RECENT:
            return [each for each in list(self.recent.get(name, ())) if begin <= each[0] <= end]
        return [(each.at, each.data["rates"]) for each in self.history.between(name, begin, end)]


def mean(data: Sequence[Data]) -> Data:
    """Of several samples."""
    columns = zip(*(each["rates"] for each in data), strict=True)
    return {"rates": [round(sum(column) / len(data), 1) for column in columns]}
