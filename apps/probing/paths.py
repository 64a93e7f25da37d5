"""Ways that are looked at: traced again and again while somebody looks, like mtr, and left alone when nobody does."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from apps.probing.history import percentile
from apps.probing.policy import Target
from apps.probing.trace import HOPS, Hop, path_mtu, probe

PAUSE = 1.0
"""Seconds between two rounds."""
KEPT = 100
"""Round trips of a hop that its figures are made of."""
UNSEEN = 15.0
"""Seconds after the last look at which the tracing ends."""
MTU_EVERY = 60.0
"""Seconds between two looks for the path's MTU."""
STEP = 2
"""Hops that are looked for at the same time where nothing is known yet. Hosts and routers answer only so many a second, so
that what is sent beyond the target would cost answers that count."""
SILENT = 5
"""Hops after each other that say nothing, behind which nothing is looked for."""


class HopFigures:
    """What is known of one hop."""

    def __init__(self) -> None:
        self.sent = self.lost = 0
        self.addresses: Counter[str] = Counter()
        self.seconds: deque[float] = deque(maxlen=KEPT)
        self.trouble = ""

    def add(self, hop: Hop) -> None:
        self.sent += 1
        self.trouble = hop.trouble
        if hop.seconds is None:
            self.lost += 1
        else:
            self.addresses[hop.address] += 1
            self.seconds.append(hop.seconds)

    def percentile(self, share: float) -> float | None:
        return percentile(sorted(self.seconds), share)

    @property
    def jitter(self) -> float | None:
        """The mean difference between two round trips that follow each other."""
        steps = [abs(b - a) for a, b in pairwise(list(self.seconds))]
        return sum(steps) / len(steps) if steps else None


class Way:
    """The way to one target. `tell` is called after each round."""

    def __init__(self, target: Target, tell: Callable[[Way], object]) -> None:
        self.target, self.tell = target, tell
        self.hops: list[HopFigures] = []
        self.mtu: int | None = None
        self.mtu_known_until = 0.0
        self.rounds = 0
        self.trouble = ""
        self.seen = time.monotonic()
        self.guard = threading.Lock()
        self.thread: threading.Thread | None = None

    def look(self) -> None:
        """Somebody looks: see to it that it is traced."""
        with self.guard:
            self.seen = time.monotonic()
            if self.thread is None:
                self.thread = threading.Thread(target=self.run, name=f"path to {self.target}", daemon=True)
                self.thread.start()

    def run(self) -> None:
        """Round after round, until nobody has looked for a while."""
        with ThreadPoolExecutor(HOPS, thread_name_prefix="hop") as pool:
            while True:
                self.round(pool)
                self.tell(self)
                time.sleep(PAUSE)
                with self.guard:
                    if time.monotonic() - self.seen > UNSEEN:
                        self.thread = None
                        return

    def round(self, pool: ThreadPoolExecutor) -> None:
        """One datagram for each hop, as many hops as there are."""
        try:
            if time.monotonic() > self.mtu_known_until:
                self.mtu = path_mtu(self.target)
                self.mtu_known_until = time.monotonic() + MTU_EVERY
            found = self.hops_of(pool)
            self.trouble = ""
        except OSError as error:
            self.trouble = error.strerror or str(error)
            return
        with self.guard:
            while len(self.hops) < len(found):
                self.hops.append(HopFigures())
            for figures, hop in zip(self.hops, found, strict=False):
                figures.add(hop)
            del self.hops[len(found) :]
            self.rounds += 1

    def hops_of(self, pool: ThreadPoolExecutor) -> list[Hop]:
        """The hops up to the target, or up to where nobody says anything any more."""
        hops: list[Hop] = []
        while len(hops) < HOPS:
            ahead = range(len(hops) + 1, min(max(len(self.hops), len(hops) + STEP), HOPS) + 1)
            for hop in pool.map(lambda ttl: probe(self.target, ttl, self.rounds), ahead):
                hops.append(hop)
                if hop.arrived or hop.trouble:
                    return hops
                if len(hops) >= SILENT and not any(each.address for each in hops[-SILENT:]):
                    return hops
        return hops
