"""Rounds of probes: their schedule, their results, and the state of each target with the time since which it holds.

Prober.work     a task for each target, at even times            in the event loop
Prober.round    its probes, spread over the interval
Prober.flush    finished rounds go to the history, once a second
Prober.update   new samples become conditions                    any process, also one that does not probe
"""

from __future__ import annotations

import asyncio
import math
import resource
import threading
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from apps.background import Background
from apps.history import HOUR, Data, History
from apps.look.chart import milliseconds
from apps.probing.config import Config
from apps.probing.names import Resolver
from apps.probing.outcome import REJECTIONS, Outcome, Reason
from apps.probing.probes import Check, run

SPREAD, LONGEST_SPREAD = 0.8, 60.0
"""The share of the interval over which the probes of a round are spread, and its limit in seconds: the packets of a burst delay
each other."""
KEPT = 200
"""Times of a period that the history keeps: so many quantiles that the greatest is not the 99th percentile."""
MOST_REASONS = 3
"""Reasons that a text names."""
RECOVERED = 60.0
"""Seconds without a failed probe after which a problem is over: a loss of a few per cent leaves many rounds untouched."""


class State(NamedTuple):
    """The state of a target: `name` is ok, degraded, failing or unknown."""

    name: str
    since: float
    text: str
    """The reason; "" without a problem."""


class Round(NamedTuple):
    """Probes that were due in a period."""

    at: float
    """When it began; of merged rounds the last one's, in the history the beginning of their period."""
    probes: int
    sent: int
    """Probes of which a packet left for the target."""
    received: int
    """Those whose first packet was answered."""
    passed: int
    seconds: list[float]
    """The times of the answers, in the order of the probes."""
    reasons: dict[str, int]
    """How many probes failed for which reason."""
    address: str
    facts: dict[str, Any]
    """Of the last probe."""
    phases: dict[str, float]

    @classmethod
    def of(cls, at: float, outcomes: Sequence[Outcome]) -> Round:
        last = outcomes[-1]
        return cls(
            at,
            len(outcomes),
            sum(each.sent for each in outcomes),
            sum(each.received for each in outcomes),
            sum(each.passed for each in outcomes),
            [round(each.seconds, 6) for each in outcomes if each.seconds is not None],
            dict(Counter(each.why for each in outcomes if not each.passed)),
            last.address,
            last.facts,
            {name: round(value, 6) for name, value in last.phases.items()},
        )

    @property
    def loss(self) -> float | None:
        """Packet loss; None if nothing was sent."""
        return 1 - self.received / self.sent if self.sent else None

    @property
    def failed(self) -> float:
        """The share of probes that did not pass."""
        return 1 - self.passed / self.probes

    @property
    def bad(self) -> float:
        """The share of probes that did not pass or whose first packet was lost."""
        return max(self.failed, self.loss or 0.0)

    @property
    def condition(self) -> str:
        return "ok" if not self.bad else "degraded" if self.passed else "failing"

    @property
    def ordered(self) -> list[str]:
        """The reasons, the most frequent first, but no answer last: it says less than an ICMP message, which routers limit."""
        return sorted(self.reasons, key=lambda each: (each == Reason.NO_ANSWER, -self.reasons[each]))

    @property
    def why(self) -> str:
        """The packet loss of a target that answers, and how many probes failed for which reason if there are several."""
        lost = f"{self.loss:.0%} packet loss" if self.loss and self.passed else ""
        found = [each for each in self.ordered if not lost or each != Reason.NO_ANSWER]
        if self.passed or len(found) > 1:
            found = [f"{self.reasons[each]} of {self.probes} {each}" for each in found]
        others = ["and others"] if len(found) > MOST_REASONS else []
        text = ", ".join([*filter(None, [lost]), *found[:MOST_REASONS], *others])
        return f"{text}; rejections after {milliseconds(self.quantile(0.5))}" if self.rejected else text

    @property
    def rejected(self) -> bool:
        """Whether each answer was a rejection: then the times are those of the rejections."""
        found = {Reason.of(each) for each in self.reasons}
        return bool(self.seconds) and not self.passed and found <= REJECTIONS | {Reason.NO_ANSWER, Reason.NO_NEIGHBOUR}

    def quantile(self, share: float) -> float | None:
        return quantile(self.seconds, share)

    @property
    def jitter(self) -> float | None:
        return jitter(self.seconds)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The percentile of the nearest rank: the smallest value that this share of them does not exceed. None without values."""
    return sorted(values)[max(math.ceil(round(share * len(values), 6)), 1) - 1] if values else None


def jitter(times: Sequence[float]) -> float | None:
    """The mean difference of two consecutive times (as RFC 3550 6.4.1, without its smoothing)."""
    steps = [abs(after - before) for before, after in pairwise(times)]
    return sum(steps) / len(steps) if steps else None


def merged(rounds: Sequence[Round]) -> Round:
    """Several rounds as one, with all times in their order of size."""
    seconds = sorted(value for each in rounds for value in each.seconds)
    reasons: Counter[str] = Counter()
    for each in rounds:
        reasons.update(each.reasons)
    probes, sent, received, passed = (sum(column) for column in zip(*(each[1:5] for each in rounds), strict=True))
    last = rounds[-1]
    return Round(last.at, probes, sent, received, passed, seconds, dict(reasons), last.address, last.facts, {})


def merge_data(data: Sequence[Data]) -> Data:
    """As `merged`, for the history: of many times, quantiles are kept."""
    found = merged([Round(**{"at": 0.0, **each}) for each in data])
    if (count := len(found.seconds)) > KEPT:
        found = found._replace(seconds=[found.seconds[place * (count - 1) // (KEPT - 1)] for place in range(KEPT)])
    return found._replace(facts={})._asdict()


class Condition:
    """The condition of a target, from its rounds one after the other.

    A round without a success is a failing target, at once. A failed probe or a lost packet is a degraded target for a minute: a
    loss of a few per cent leaves many rounds untouched.
    """

    def __init__(self) -> None:
        self.recent: list[Round] = []
        """The rounds of the last minute in which the target was failing, or in which it was not."""
        self.minute: Round | None = None
        """These rounds as one."""
        self.state = State("unknown", 0.0, "not probed yet")

    def add(self, found: Round) -> None:
        """The next round."""
        name = found.condition
        before = self.recent if (self.state.name == "failing") == (name == "failing") else []
        self.recent = [*(each for each in before if found.at - each.at <= RECOVERED), found]
        self.minute = merged(self.recent)
        if name == "ok":
            name = self.minute.condition
        self.state = State(name, self.state.since if name == self.state.name else found.at, self.minute.why)

    def shown(self, stale_after: float) -> State:
        """The state now; unknown if the last round is older than this many seconds."""
        if not self.recent or time.time() - self.recent[-1].at <= stale_after:
            return self.state
        text = f"no new round, the prober is stopped or overloaded; before that {self.state.name}"
        return State("unknown", self.recent[-1].at, f"{text}, {self.state.text}" if self.state.text else text)


class Prober:
    """Probes the targets of a configuration, in the one process that has the lock, and knows their conditions in all."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.stale_after = 2 * config.interval + config.timeout + 2
        """Seconds without a round after which the state of a target is unknown."""
        self.history = History(config.history, merge_data)
        self.resolver = Resolver()
        self.background = Background("prober", self.work, config.history and f"{config.history}.lock")
        self.under_way = 0
        """Probes that have not ended; only the event loop's thread uses it."""
        self.most = max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2, 16)
        self.conditions = {name: Condition() for name in config.targets}
        self.newest = 0
        self.lock = threading.Lock()  # protects `conditions` and `newest`

    async def work(self) -> None:
        """Probe, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.flush())
            for number, (name, check) in enumerate(self.config.targets.items()):
                offset = self.config.interval * number / len(self.config.targets)
                group.create_task(self.watch(group, name, check, offset))

    async def watch(self, group: asyncio.TaskGroup, name: str, check: Check, offset: float) -> None:
        """A round of a target at each even time. Rounds that were due while this process did not run are left out."""
        loop = asyncio.get_running_loop()
        due = loop.time() + offset
        while True:
            await asyncio.sleep(due - loop.time())
            group.create_task(self.round(name, check))
            late = max(loop.time() - due, 0.0)
            due += self.config.interval * (1 + late // self.config.interval)

    async def round(self, name: str, check: Check) -> None:
        """One round of a target: each probe starts at its time, even if an earlier one is not over."""
        at, count = time.time(), self.config.probes
        pause = min(self.config.interval * SPREAD, LONGEST_SPREAD) / count
        probes = [self.probe(check, number * pause) for number in range(count)]
        found = Round.of(at, await asyncio.gather(*probes))
        self.history.add(name, at, found._asdict())

    async def probe(self, check: Check, after: float) -> Outcome:
        await asyncio.sleep(after)
        if self.under_way >= self.most:
            return Outcome(Reason.LOCAL, facts={"error": f"{self.most} probes are under way"})
        self.under_way += 1
        try:
            return await run(check, self.config.policy, self.resolver, self.config.timeout)
        finally:
            self.under_way -= 1

    async def flush(self) -> None:
        """Write finished rounds to the history, in another thread: a disk may be slow."""
        while True:
            await asyncio.sleep(0.5)
            await asyncio.to_thread(self.history.flush, time.time())

    def update(self) -> int:
        """Read new rounds from the history. Returns the id of the newest one."""
        with self.lock:
            for sample in self.history.after(self.newest, time.time() - HOUR):
                self.newest = sample.id
                if sample.series in self.conditions:
                    self.conditions[sample.series].add(Round(**{**sample.data, "at": sample.at}))
            return self.newest

    def rounds(self, name: str, begin: float, end: float) -> list[Round]:
        return [Round(**{**each.data, "at": each.at}) for each in self.history.between(name, begin, end)]
