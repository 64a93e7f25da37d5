"""The kernel's figures once a second, for all viewers: rates of the interfaces, counters, and, while a page is open, sockets.

work            once a second: no error ends it; figures that can't be read are in `missing`, with the reason
refresh         for a scrape: reads if the figures are older than a second; of several threads one reads
read            interfaces and counters
read_sockets    sockets, their processes, neighbours, routes
"""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from apps.background import Background
from apps.history import Data, History
from apps.kernel import counters, links, processes, sockets
from apps.kernel.netlink import Netlink

EVERY = 1.0
RECENT = 600
"""Seconds of rates in memory, one a second."""
KEPT_EVERY = 10
"""Seconds that a sample of the history stands for."""
SOCKETS_EVERY, SHARE = 3.0, 20
"""Seconds between two readings of all sockets, or this many times the duration of one reading if that is more: a machine may
have tens of thousands of sockets."""
WATCHED = 10.0
"""Seconds after its last request for which a page counts as open."""
SPEED_EVERY = 30.0
CHANGES = 50
MANY_RETRANSMITTED = 0.01
"""Share of retransmitted segments that is a problem."""
CALM = 60.0
"""Seconds without an error after which a problem is over."""

T = TypeVar("T")
Rates = Sequence[float]
"""A second's change of each counter of links.Traffic."""


class Problem(NamedTuple):
    """A problem that comes and goes: its first and last time, and the figure that goes with its text."""

    since: float
    last: float
    value: float
    unit: str


class Change(NamedTuple):
    """An interface was added, was removed, or changed its state."""

    at: float
    text: str
    bad: bool


class Sampler:
    """The network of this machine. `history` keeps the rates of the interfaces beyond ten minutes."""

    def __init__(self, history: str = "") -> None:
        self.history = History(history, mean)
        self.background = Background("netmon", self.work)
        # Held by the thread that reads; other threads see only whole objects that it has assigned.
        self.lock = threading.RLock()
        self.route, self.diag = Netlink(links.NETLINK_ROUTE), Netlink(sockets.NETLINK_SOCK_DIAG)
        self.counting = counters.Counters()
        self.read_at, self.ticked = 0.0, time.monotonic()
        """The times of the last successful reading of the interfaces, and of the last try."""
        self.interfaces: dict[str, links.Interface] = {}
        self.addresses: dict[int, list[str]] = {}
        self.speeds: dict[str, int | None] = {}
        self.speeds_until = 0.0
        self.recent: dict[str, deque[tuple[float, Rates]]] = {}
        self.changes: deque[Change] = deque(maxlen=CHANGES)
        self.changed: dict[str, float] = {}
        """When an interface changed its state, since the start of this program."""
        self.problems: dict[str, Problem] = {}
        """By their texts."""
        self.minute: deque[tuple[float, dict[str, int]]] = deque([(0.0, {})], maxlen=61)
        """The counters of the last minute."""
        self.rates: dict[str, float] = {}
        self.sockets: list[sockets.Socket] = []
        self.sockets_at = self.sockets_due = self.watched_until = 0.0
        self.states: Counter[str] = Counter()
        self.states_at = 0.0
        self.owners: dict[int, str] = {}
        self.neighbours: list[links.Neighbour] = []
        self.routes: list[links.Route] = []
        self.missing: dict[str, str] = {}
        """Figures that can't be read here, and the reason."""

    def stop(self) -> None:
        self.background.stop()
        for each in (self.route, self.diag, self.counting, self.history):
            each.close()

    async def work(self) -> None:
        """Read each second. The event loop has nothing else to do, so reading may block it."""
        while True:
            self.attempt("this second", self.tick, None)
            await asyncio.sleep(EVERY)

    def tick(self) -> None:
        now = time.monotonic()
        with self.lock:
            self.diag.open()  # at the start: later there may be no free descriptor
            self.read()
            if self.sockets_due <= now < self.watched_until:
                self.read_sockets()
        if int(now) % KEPT_EVERY == 0:
            self.record()

    def watch(self) -> None:
        """Read sockets for a while, and at once if the last reading is old: a page is open."""
        self.watched_until = time.monotonic() + WATCHED
        with self.lock:
            if time.monotonic() - self.sockets_due > SOCKETS_EVERY:
                self.read_sockets()

    def refresh(self) -> None:
        """Make sure that the figures are at most a second old; of several threads that call this, one reads."""
        with self.lock:
            if time.time() - self.read_at > EVERY:
                self.read()
            if time.time() - self.states_at > EVERY:
                self.read_states()

    def read(self) -> None:
        """Read interfaces and counters. Called with the lock."""
        now, ticked = time.time(), time.monotonic()
        seconds, self.ticked = max(ticked - self.ticked, 1e-3), ticked
        found = self.attempt("interfaces", lambda: links.interfaces(self.route), None)
        if found is not None:
            self.addresses = self.attempt("addresses", lambda: links.addresses(self.route), {})
            if ticked > self.speeds_until:
                self.speeds = {each.name: links.speed(each.name) for each in found}
                self.speeds_until = ticked + SPEED_EVERY
            self.compare(found, now, seconds)
            self.read_at = now
        before, after = self.counters, self.attempt("counters", self.counting.read, dict[str, int]())
        self.rates = {name: max(value - before.get(name, value), 0) / seconds for name, value in after.items()}
        self.minute.append((now, after))
        again, sent = self.last_minute("Tcp.RetransSegs"), self.last_minute("Tcp.OutSegs")
        if again > MANY_RETRANSMITTED * (sent + again):
            share = 100 * again / (sent + again)
            self.report("TCP segments retransmitted, a sign of packet loss", now, share, "% in the last minute")
        self.problems = {text: each for text, each in self.problems.items() if now - each.last < CALM}

    def report(self, text: str, now: float, value: float, unit: str = "") -> None:
        """Remember a problem with its last figure."""
        self.problems[text] = Problem(self.problems[text].since if text in self.problems else now, now, value, unit)

    def compare(self, found: list[links.Interface], now: float, seconds: float) -> None:
        before, self.interfaces = self.interfaces, {each.name: each for each in found}
        for name in before.keys() - self.interfaces.keys():
            self.changes.append(Change(now, f"{name} was removed", bad=True))
            self.recent.pop(name, None)
        for each in found:
            ring = self.recent.setdefault(each.name, deque(maxlen=RECENT))
            if each.name not in before:
                if before:
                    self.changes.append(Change(now, f"{each.name} was added, {each.state}", bad=False))
                continue
            old = before[each.name]
            if old.state != each.state:
                self.changes.append(Change(now, f"{each.name}: {old.state} → {each.state}", bad=each.state != "up"))
                self.changed[each.name] = now
            # An interface that was removed and added again counts from 0.
            grown = links.Traffic(*(max(b - a, 0) for a, b in zip(old.traffic, each.traffic, strict=True)))
            ring.append((now, array("f", [count / seconds for count in grown])))
            for word, count in (("errors", grown.errors), ("packets dropped", grown.drops)):
                if count:
                    text = f"{each.name}: {word}"
                    self.report(text, now, count + (self.problems[text].value if text in self.problems else 0))

    def record(self) -> None:
        """Add the means of the last seconds to the history."""
        now = time.time()
        for name, ring in list(self.recent.items()):
            last = [rates for at, rates in list(ring)[-KEPT_EVERY:] if now - at <= KEPT_EVERY]
            if last:
                self.history.add(name, now, mean([{"rates": list(rates)} for rates in last]))
        self.history.flush(now)

    def read_sockets(self) -> None:
        """Called with the lock."""
        began = time.monotonic()
        found: list[sockets.Socket] = []
        for protocol in sockets.PROTOCOLS:  # one by one: a kernel may lack udp_diag
            found += self.attempt(f"{protocol} sockets", partial(sockets.sockets, self.diag, protocol), [])
        self.sockets = found
        self.read_states()
        self.owners = processes.owners()
        self.neighbours = self.attempt("neighbours", lambda: links.neighbours(self.route), [])
        self.routes = self.attempt("routes", lambda: links.routes(self.route), [])
        self.sockets_at, now = time.time(), time.monotonic()
        self.sockets_due = now + max(SOCKETS_EVERY, SHARE * (now - began))

    def read_states(self) -> None:
        """Called with the lock."""
        self.states = self.attempt("sockets by state", lambda: sockets.states(self.diag), Counter())
        self.states_at = time.time()

    def attempt(self, name: str, function: Callable[[], T], default: T) -> T:
        """Return the result of a function, or `default` if it fails; `missing` has the reason, and sockets are reopened."""
        answer, reason = default, {}
        try:
            answer = function()
        except Exception as error:  # of any kind: the next second is another try
            reason = {name: getattr(error, "strerror", None) or str(error) or type(error).__name__}
            if getattr(error, "errno", None) not in {errno.EMFILE, errno.ENFILE}:
                self.route.close()  # they may be broken; without a free descriptor they can't be replaced
                self.diag.close()
        self.missing = {key: value for key, value in self.missing.items() if key != name} | reason
        return answer

    @property
    def counters(self) -> dict[str, int]:
        return self.minute[-1][1]

    def last_minute(self, name: str) -> int:
        """The increase of a counter in the last minute."""
        kept = list(self.minute)
        now, last = kept[-1]
        first = next(values for at, values in kept if now - at <= 60)  # the last one at the latest
        return max(last.get(name, 0) - first.get(name, 0), 0)

    def points(self, name: str, begin: float, end: float) -> list[tuple[float, Rates]]:
        if end - begin <= RECENT:
            return [each for each in list(self.recent.get(name, ())) if begin <= each[0] <= end]
        return [(each.at, each.data["rates"]) for each in self.history.between(name, begin, end)]


def mean(data: Sequence[Data]) -> Data:
    columns = zip(*(each["rates"] for each in data), strict=True)
    return {"rates": [round(sum(column) / len(data), 1) for column in columns]}
