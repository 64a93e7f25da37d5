"""Routes that are traced continuously while a page is open, as mtr does, and the statistics of the last minutes.

Tracer.watch    a page asks for the route to a target         any process
Tracer.work     traces the targets, and records the rounds    the process with the lock
branches        the branches with their hops                  any process
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from apps.background import Background
from apps.history import History
from apps.probing.config import Config
from apps.probing.icmp import interface_down
from apps.probing.names import Resolver
from apps.probing.outcome import Failed, Outcome, Reason
from apps.probing.policy import Target, parse
from apps.probing.rounds import Round, jitter, merged, quantile
from apps.probing.trace import Flow, Reply, path_mtu, trace

INTERVAL = 2.0
"""Seconds between two rounds: routers answer once a second, and there may be two viewers with two methods."""
COLUMN = 20.0
"""Seconds of the rounds that are one column of the chart."""
FLOWS = 4
"""Flows that take turns: of two equal routes, both are found in seven of eight cases."""
LAST_ROUNDS = 5
"""Rounds of a flow that tell its length."""
EXPLORE = 10
"""Rounds between two searches beyond the known hops while the target does not answer."""
UNSEEN = 15.0
"""Seconds after the last request of a page at which the tracing ends."""
MOST = 20
"""Targets at the same time; the one that was watched least recently is dropped."""
MTU_EVERY = 60.0
WATCH, WATCH_EVERY = "watch", 3.0
"""The series of the requests of pages, and the seconds between two records for one target."""


class Traced(NamedTuple):
    """One round. `hops` are the answers of hop 1, 2 and so on."""

    at: float
    flow: int
    address: str
    hops: list[Reply | None]
    mtu: int | None
    trouble: str

    @property
    def reached(self) -> Reply | None:
        return next((each for each in self.hops if each and each.reached), None)

    @property
    def route(self) -> tuple[str, ...]:
        """The address of each hop; "" for one that was silent."""
        return tuple(each.address if each and not each.reason else "" for each in self.hops)


class Tracer:
    """Traces the targets of a configuration, and those that visitors may ask for."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.targets = {name: check.target for name, check in config.targets.items()}
        # Beside the history of apps.probe, not in it: both may run, and each has a lock on its own.
        path = config.history and f"{config.history}.path"
        self.history = History(path, lambda data: data[-1])
        self.background = Background("tracer", self.work, path and f"{path}.lock")
        self.resolver = Resolver()
        self.watched: dict[str, float] = {}
        self.lock = threading.Lock()  # protects `watched`

    def watch(self, target: str, method: str) -> None:
        """Trace a target for a while. The history tells the process that traces, which may be another one."""
        key, now = f"{method} {target}", time.time()
        with self.lock:
            self.watched = {other: at for other, at in self.watched.items() if now - at < WATCH_EVERY}
            if key in self.watched:
                return
            self.watched[key] = now
        self.history.add(WATCH, now, {"target": target, "method": method})
        self.history.flush(now)

    async def resolve(self, text: str) -> list[Target]:
        """The addresses of a target that may be probed. Raises Failed."""
        host, _ = parse(self.targets.get(text, text))
        found = await self.resolver.lookup(host, asyncio.get_running_loop().time() + self.config.timeout)
        return self.config.policy.targets(host, 0, found, configured=text in self.targets)

    async def work(self) -> None:
        """Start a trace of each target that is watched, and end the others."""
        newest, wanted = 0, dict[tuple[str, str], float]()
        tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        try:
            while True:
                now = time.time()
                for sample in await asyncio.to_thread(self.history.after, newest, now - UNSEEN):
                    newest = sample.id
                    if sample.series == WATCH:
                        wanted[sample.data["target"], sample.data["method"]] = sample.at
                latest = sorted(wanted.items(), key=lambda item: item[1])[-MOST:]
                wanted = {key: at for key, at in latest if now - at <= UNSEEN}
                for key in tasks.keys() - wanted.keys():
                    tasks.pop(key).cancel()
                for key in wanted:
                    if key not in tasks or tasks[key].done():
                        tasks[key] = asyncio.create_task(self.follow(*key))
                await asyncio.sleep(0.25)
        finally:
            for task in tasks.values():
                task.cancel()

    async def follow(self, text: str, method: str) -> None:
        """Rounds of a target, until it is cancelled; the flows take turns."""
        flows: list[Flow] = []
        mtu, mtu_due, number = None, 0.0, 0
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while True:
                at, trouble, hops, address, turn = time.time(), "", [], "", number % FLOWS
                try:
                    target = (await self.resolve(text))[0]
                    address = target.address
                    if not flows or flows[0].target.address != address:
                        close(flows)
                        flows, number, turn, mtu_due = [Flow(target, method, each) for each in range(FLOWS)], 0, 0, 0.0
                    flows[turn].length = flows[turn].length or flows[0].length
                    hops = await trace(flows[turn], explore=number % (FLOWS * EXPLORE) == 0)
                    if loop.time() > mtu_due and number >= FLOWS:  # not among the first packets, which find the route
                        mtu, mtu_due = await path_mtu(target), loop.time() + MTU_EVERY
                except Failed as error:
                    trouble = f"{error.reason}: {error}"
                except OSError as error:
                    trouble = error.strerror or str(error)
                    close(flows)  # they are opened again
                is_reached = not flows or any(each and each.reached for each in hops)
                if not is_reached and (down := interface_down(flows[0].target)):
                    trouble = f"{Reason.INTERFACE_DOWN}: {down}"
                flow = flows[turn].identifier if flows else 0
                data = {"flow": flow, "address": address, "hops": hops, "mtu": mtu, "trouble": trouble}
                self.history.add(f"{method} {text}", at, data)
                await asyncio.to_thread(self.history.flush, time.time())
                number += 1
                # The first rounds follow each other: a page shows something soon, and routers allow a burst of six.
                due = max(due + (0.3 if number < FLOWS else INTERVAL), loop.time())
                await asyncio.sleep(due - loop.time())
        finally:
            close(flows)

    def rounds(self, text: str, method: str, begin: float, end: float) -> list[Traced]:
        found = []
        for each in self.history.between(f"{method} {text}", begin, end):
            hops = [hop and Reply(*hop) for hop in each.data["hops"]]
            found.append(Traced(each.at, **{**each.data, "hops": hops}))
        return found


def close(flows: Sequence[Flow]) -> None:
    for flow in flows:
        flow.close()


class Hop:
    """One hop of a branch, from the answers of all rounds."""

    def __init__(self, replies: Sequence[Reply | None]) -> None:
        answers = [each for each in replies if each and not each.reason]
        times = [each.seconds for each in answers]
        self.addresses = Counter(each.address for each in answers)
        self.sent, self.lost = len(replies), len(replies) - len(answers)
        self.best, self.median, self.worst = (quantile(times, share) for share in (0.0, 0.5, 1.0))
        self.jitter = jitter(times)
        last = replies[-1] if replies else None
        self.reason = f"{last.reason} (from {last.address})" if last and last.reason else ""
        """The ICMP error in place of an answer to the last packet."""

    @property
    def loss(self) -> float:
        return self.lost / self.sent if self.sent else 0.0


class Branch(NamedTuple):
    """The flows that take one route, and its hops."""

    flows: list[int]
    hops: list[Hop]


def branches(rounds: Sequence[Traced]) -> list[Branch]:
    """The different routes of the flows, each from all of its rounds.

    The route of a flow consists of its most frequent addresses: a lost answer or an outage makes no other branch.
    """
    flows: dict[int, list[Traced]] = {}
    for each in rounds:
        flows.setdefault(each.flow, []).append(each)
    found: list[tuple[tuple[str, ...], list[Traced]]] = []
    for ours in sorted(flows.values(), key=lambda each: not has_reached(each)):
        hops = hops_of(ours, length_of(ours))
        route = tuple(max(hop.addresses, key=hop.addresses.__getitem__, default="") for hop in hops)
        for other, same in found:
            comparable = len(route) == len(other) or not has_reached(ours)
            if comparable and all(a == b or not a or not b for a, b in zip(route, other, strict=False)):
                same.extend(ours)
                break
        else:
            found.append((route, ours))
    return [Branch(sorted({each.flow for each in same}), hops_of(same, length_of(same))) for _, same in found]


def has_reached(rounds: Sequence[Traced]) -> bool:
    return any(each.reached for each in rounds)


def length_of(rounds: Sequence[Traced]) -> int:
    """The number of hops of a flow, from its last rounds with an answer of the target.

    One round does not tell: if the target's own packet was lost, it answers a packet for a hop beyond it.
    """
    reached = sorted((each for each in rounds if each.reached), key=lambda each: each.at)[-LAST_ROUNDS:]
    if reached:
        lengths = Counter(each.hops.index(each.reached) + 1 for each in reached)
        return lengths.most_common(1)[0][0]
    return max(len(each.hops) for each in rounds)


def hops_of(rounds: Sequence[Traced], length: int) -> list[Hop]:
    ordered = sorted(rounds, key=lambda each: each.at)
    return [Hop([each.hops[number] for each in ordered if number < len(each.hops)]) for number in range(length)]


def changes(rounds: Sequence[Traced]) -> list[tuple[float, str]]:
    """The times at which the route of a flow or the address of the name changed; a silent hop is no change."""
    found: list[tuple[float, str]] = []
    known: dict[int, list[str]] = {}
    address = ""
    for each in rounds:
        if address and each.address and each.address != address:
            found.append((each.at, f"the address changed from {address} to {each.address}"))
            known.clear()
        address = each.address or address
        before = known.setdefault(each.flow, [])
        for number, hop in enumerate(each.route):
            if number == len(before):
                before.append(hop)
            elif hop:
                if before[number] not in {"", hop}:
                    found.append((each.at, f"hop {number + 1} changed from {before[number]} to {hop}"))
                before[number] = hop
    return found


def as_rounds(rounds: Sequence[Traced]) -> list[Round]:
    """The answers of the target in columns of the chart: a lost packet is a share of its column."""
    found = []
    for at, group in groupby(rounds, key=lambda each: each.at // COLUMN * COLUMN):
        found.append(merged([as_round(each) for each in group])._replace(at=max(at, rounds[0].at)))
    return found


def as_round(traced: Traced) -> Round:
    if reply := traced.reached:
        return Round.of(traced.at, [Outcome(Reason.OK, reply.seconds, received=True)])
    reported = [traced.trouble, *(hop.reason for hop in traced.hops if hop)]
    reason = next(filter(None, reported), str(Reason.NO_ANSWER))
    return Round.of(traced.at, [Outcome(Reason.NO_ANSWER)])._replace(reasons={reason: 1})


def as_values(rounds: Sequence[Traced]) -> dict[str, Any]:
    """For JSON; times in seconds."""
    last = rounds[-1] if rounds else None
    current = [each for each in rounds if last and each.address == last.address]
    return {
        "address": last.address if last else "",
        "rounds": len(rounds),
        "age": time.time() - last.at if last else None,
        "mtu": last.mtu if last else None,
        "trouble": last.trouble if last else "",
        "changes": changes(rounds),
        "branches": [{"flows": each.flows, "hops": [vars(hop) for hop in each.hops]} for each in branches(current)],
    }
