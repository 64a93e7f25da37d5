"""The route to a host, hop by hop, continuously: `PROBE_CONFIG=probe.toml microwsgi serve apps.path:app`.

The hops, their round-trip times and packet loss, the branches where routers balance their load, the changes of the route, and
the path's MTU. It needs no privileges: apps/probing/trace.py says how. Targets are those of the configuration and the networks
that it allows; a target is traced while a page about it is open.

    tracer      rounds in an event loop, in one process     apps/probing/paths.py
    pages       drawn from the rounds of the last minutes
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any
from urllib.parse import quote, urlencode

from apps.history import HOUR, MERGED
from apps.look import page as look
from apps.look.chart import ceiling, milliseconds
from apps.look.page import clock_time, duration, listed, moment, range_of, table
from apps.probing.config import load
from apps.probing.outcome import Failed, Reason
from apps.probing.paths import COLUMN, INTERVAL, Branch, Hop, Traced, Tracer, as_rounds, as_values, branches, changes
from apps.probing.policy import Budget, Refused
from apps.probing.rounds import State
from apps.probing.smoke import picture
from apps.probing.trace import METHODS
from microwsgi import Request, Response, abort, html
from microwsgi.framework.crosssite import require_same_site

MINUTE = 60
SILENT_ROUNDS = 15
"""Rounds without an answer of the target that show where packets are lost."""
WIDTH = 200
"""Of the chart of a hop."""
BAR = (
    f'<svg class="bar" viewBox="0 0 {WIDTH} 12" role="img" aria-label="{{label}}">'
    '<rect class="smoke" fill-opacity="0.6" x="{left}" y="2" width="{width:.1f}" height="8"/>'
    '<rect class="median" x="{tick}" y="1" width="2" height="10"/></svg>'
)
LINKS = {"Routes": "/"}
STALE = 3 * INTERVAL + 2
"""Seconds without a round after which there is something wrong here."""

config = load(os.environ.get("PROBE_CONFIG", ""))
tracer = Tracer(config)
budget = Budget(config.per_minute)
allowed: dict[str, float] = {}
"""Targets of visitors that the policy permits, and the time until this holds."""
states: Callable[[], Mapping[str, State]] = dict
"""The states of the services of the targets; apps/network.py sets it."""

site = look.Site(LINKS, tracer.background.start)
app = site.app


@app.get("/")
def overview(request: Request) -> Response:
    rows = [(look.link(f"to?{urlencode({'target': name})}", name), target) for name, target in tracer.targets.items()]
    form = look.form("Another target", "to", "host", "Method", METHODS, "Trace")
    content = table("Configured targets", ("target", "address or name"), rows) + form
    return site.page(request, "Routes", content, live=False)


@app.get("/to")
def show(request: Request) -> Response | dict[str, Any]:
    require_same_site(request)
    name, method = wanted(request)
    permit(name, request.remote_addr or "")
    tracer.watch(name, method)
    if look.prefers(request, "application/json", "text/html"):
        return as_values(tracer.rounds(name, method, time.time() - range_of(request), time.time()))
    methods = look.choice(request, "method", {each: f"by {each}" for each in METHODS}, method)
    content = methods + look.range_links(request) + site.section(request, "route", "Route")
    return site.page(request, f"Route to {name}", content)


def wanted(request: Request) -> tuple[str, str]:
    """Target and method of a request. Raises 400."""
    name, method = request.query("target"), request.query("method", default=METHODS[0])
    if method not in METHODS:
        abort(400, f"Unknown method {method}; expected {' or '.join(METHODS)}.")
    return name, method


def permit(name: str, viewer: str) -> None:
    """Raise 403, 404 or 429 if a visitor may not trace this target."""
    now = time.monotonic()
    if name in tracer.targets or allowed.get(name, 0.0) > now:
        return
    if not budget.take(viewer):
        abort(429, f"{budget.per_minute} new targets a minute are enough (per_minute in the configuration).")
    try:
        asyncio.run(tracer.resolve(name))
    except Refused as error:
        abort(403, str(error))
    except Failed as error:
        abort(404, f"{name}: {error.reason}.")
    for other in [other for other, until in allowed.items() if until <= now]:
        allowed.pop(other, None)
    allowed[name] = now + 60


@site.part("route")
def draw(request: Request, _: str) -> str:
    """The part of the page that changes. A page that fetches it is open, so its target is traced."""
    name, method = wanted(request)
    if name not in tracer.targets and name not in allowed:
        abort(404)
    tracer.watch(name, method)
    now, period = time.time(), range_of(request)
    rounds = tracer.rounds(name, method, now - period, now)
    if not rounds:
        return '<p class="summary" role="status">No round in this period yet.</p>'
    last = rounds[-1]
    current = [each for each in rounds if each.address == last.address]
    routes = branches(current)
    mtu = f"{last.mtu} bytes" if last.mtu else "unknown"
    facts = {"address": last.address or "-", "path MTU": mtu, "rounds": len(current), "last round": moment(last.at)}
    parts = [look.summary(*condition(rounds, routes, now, method)), service(request, name), listed(facts)]
    widest = ceiling(max((hop.worst or 0.0 for route in routes for hop in route.hops), default=0.0) or 0.001)
    parts += [branch_table(number, route, widest, len(routes), period) for number, route in enumerate(routes, 1)]
    step = COLUMN if period <= HOUR else MERGED
    parts.append(picture(as_rounds(rounds), now - period, now, step, "Round trips of the target"))
    if latest := changes(rounds)[-5:]:
        rows = [(clock_time(at), text) for at, text in reversed(latest)]
        parts.append(table("Changes, the latest first", ("time", "change"), rows))
    return "".join(parts)


def service(request: Request, name: str) -> str:
    """The state of the service that apps.probe knows under this name: a route may be well while its service fails."""
    probes = request.environ.get(look.SIBLINGS, {}).get("Probes")
    if not (probes and (found := states().get(name))):
        return ""
    link = look.link(f"{probes}target/{quote(name, safe='')}", f"The probe of {name}")
    since = look.since(found.since) if found.since else ""
    return html("<p>{link}: {state}{text}</p>", link=link, state=look.state(found.name), text=f"{since}. {found.text}")


def condition(rounds: Sequence[Traced], routes: Sequence[Branch], now: float, method: str) -> tuple[str, str]:
    """The state of the route, and a sentence: what is wrong, and since when."""
    last = rounds[-1]
    if now - last.at > STALE:
        return "unknown", f"No new round for {duration(now - last.at)}: the tracer does not run."
    silent = list(takewhile(lambda each: not each.reached, reversed(rounds)))
    since = look.since(silent[-1].at) if 0 < len(silent) < len(rounds) else " in this period"
    if last.trouble:
        return "failing", f"Not reached{since}: {last.trouble}."
    if len(silent) > 1 or len(silent) == len(rounds):
        return "failing", f"{last.address} has not answered {method.upper()}{since}. {last_hop(silent[:SILENT_ROUNDS])}"
    lost_at = [each.at for each in rounds if not each.reached]
    lost = sum(now - at <= MINUTE for at in lost_at) / (sum(now - each.at <= MINUTE for each in rounds) or 1)
    began = now
    for at in reversed(lost_at):
        began = at if began - at <= MINUTE else began
    hops = " or ".join(str(count) for count in sorted({len(route.hops) for route in routes}))
    branched = f", {len(routes)} branches" if len(routes) > 1 else ""
    count = "1 hop" if hops == "1" else f"{hops} hops"
    reached = f"{last.address} answers {method.upper()}, {count} away{branched}."
    text = f"{reached} Packet loss in the last minute: {lost:.0%}"
    if lost:
        return "degraded", f"{text}; packets have been lost since {clock_time(began)}."
    return "ok", f"{text}; the last lost packet was at {clock_time(lost_at[-1])}." if lost_at else f"{text}."


def last_hop(silent: Sequence[Traced]) -> str:
    """Where packets are lost. Routers limit their ICMP messages: so the farthest hop that answered in one of several rounds."""
    hops = [(number, hop) for each in silent for number, hop in enumerate(each.hops, 1) if hop]
    if reports := [hop for _, hop in hops if hop.reason]:
        is_own = reports[0].reason == Reason.NO_NEIGHBOUR
        return f"{'This machine' if is_own else reports[0].address} reports: {reports[0].reason}."
    if not hops:
        return "No hop answers."
    number, farthest = max(hops, key=lambda each: each[0])
    return f"The last hop that answers is {number}, {farthest.address}."


def branch_table(number: int, branch: Branch, widest: float, count: int, period: float) -> str:
    """A branch as HTML; silent hops at its end are one row."""
    caption = (f"Hops of branch {number} of {count}" if count > 1 else "Hops") + f", the last {duration(period)}"
    hops = list(branch.hops)
    while len(hops) > 1 and hops[-1].loss == 1 and hops[-2].loss == 1 and not hops[-1].reason:
        hops.pop()
    scale = f"0 to {milliseconds(widest)}"
    names = ("hop", "address", "packet loss", "sent", "best", "median", "worst", "jitter", scale)
    losses = [min(each.loss for each in hops[place:]) for place in range(len(hops))]
    rows = [row(place, hop, widest, loss) for place, (hop, loss) in enumerate(zip(hops, losses, strict=True), 1)]
    return table(caption, names, rows)


def row(number: int, hop: Hop, widest: float, real: float) -> list[object]:
    """A hop in the table. A loss that the hops behind it do not have is no packet loss: routers limit their ICMP messages."""
    addresses = ", ".join(address for address, _ in hop.addresses.most_common(3)) or "no answer"
    reason = f"; {hop.reason}" if hop.reason else ""
    best, middle, worst = hop.best, hop.median, hop.worst
    bar: object = ""
    if best is not None and middle is not None and worst is not None:
        left, tick, right = (round(WIDTH * value / widest, 1) for value in (best, middle, worst))
        label = f"{milliseconds(best)} to {milliseconds(worst)}"
        bar = html(BAR, label=label, left=left, width=max(right - left, 1), tick=tick - 1)
    loss = look.state("failing" if real == 1 else "degraded" if real else "ok", f"{real:.0%}")
    if hop.loss > real:
        note = '{loss} <span class="quiet">({all:.0%} not answered: ICMP rate limit)</span>'
        loss = html(note, loss=loss, all=hop.loss)
    times = map(milliseconds, (best, middle, worst, hop.jitter))
    return [number, addresses + reason, loss, hop.sent, *times, bar]
