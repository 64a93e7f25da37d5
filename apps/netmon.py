"""The network of one Linux machine, live: `microwsgi serve apps.netmon:app`, by any user.

Interfaces with state, addresses and rates, every connection with its round-trip time and retransmitted segments, listening
sockets, neighbours, routes, the counters of TCP, UDP and ICMP; /metrics for Prometheus, with the names of node_exporter. The
kernel's interfaces are in apps/kernel/, one a module: what `ip`, `ss` and `nstat` show is a screen of Python each.

    sampler     one thread looks once a second           apps/kernel/sampler.py
    ticks       tell all pages which parts are new       apps/look/page.py
    part        is fetched then, and drawn once for all viewers
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from html import escape
from typing import Any
from urllib.parse import quote

from apps.history import HOUR, MERGED
from apps.kernel.counters import SHOWN
from apps.kernel.links import Interface, Traffic
from apps.kernel.sampler import EVERY, KEPT_EVERY, RECENT, Sampler
from apps.kernel.sockets import LISTEN, UNCONNECTED, Socket
from apps.look.chart import amount, lines, milliseconds
from apps.look.metrics import Metric, exposition
from apps.look.page import (
    FILES,
    Cell,
    Drawn,
    clock_time,
    duration,
    filter_form,
    listed,
    moment,
    page,
    range_links,
    range_of,
    section,
    sort_links,
    table,
    ticks,
)
from microwsgi import App, Request, Response, abort

LINKS = {"Overview": "/", "Sockets": "/sockets", "Routes and neighbours": "/routes", "Metrics": "/metrics"}
MOST_INTERFACES, MOST_SOCKETS, CHARTS = 50, 200, 2
"""Rows of a table, and interfaces with a chart on the first page: the busiest."""
MANY_RETRANSMITTED = 0.01
"""Share of retransmitted segments that is worth a word."""
STALE = 5.0
"""Seconds after which figures are old."""
OCTET = 8
HOST = socket.gethostname()

sampler = Sampler(os.environ.get("NETMON_HISTORY", ""))
drawn = Drawn()
app = App()
app.static("/look", FILES)
sampler.start()


@app.before
def begin(request: Request) -> None:
    """A server may fork after the import, and threads do not survive that."""
    sampler.start()


# --- Pages ------------------------------------------------------------------------------------------------------------


@app.get("/")
def overview(request: Request) -> Response:
    """Summary, interfaces, counters."""
    parts = [section(request, name, part(request, name), name) for name in ("summary", "interfaces")]
    content = f"{parts[0]}{range_links(request)}{parts[1]}{filter_form(request, 'Interfaces with the text')}"
    content += section(request, "counters", part(request, "counters"), "counters")
    return page(request, f"Network of {HOST}", content, links=LINKS, live=True)


@app.get("/interface/{name:path}")
def interface(request: Request, name: str) -> Response:
    """One interface."""
    content = section(request, f"interface/{quote(name, safe='')}", part(request, f"interface/{name}"), name)
    return page(request, f"{name} of {HOST}", range_links(request) + content, links=LINKS, live=True)


@app.get("/sockets")
def all_sockets(request: Request) -> Response:
    """Connections and listening sockets."""
    content = filter_form(request, "Sockets with the text") + section(
        request, "sockets", part(request, "sockets"), "sockets"
    )
    return page(request, f"Sockets of {HOST}", content, links=LINKS, live=True)


@app.get("/routes")
def all_routes(request: Request) -> Response:
    """Routes and neighbours."""
    content = section(request, "routes", part(request, "routes"), "Routes and neighbours")
    return page(request, f"Routes of {HOST}", content, links=LINKS, live=True)


@app.get("/part/{name:path}")
def part(request: Request, name: str) -> str:
    """A section of a page."""
    range_of(request)
    if name.startswith("interface/"):
        one = sampler.interfaces.get(name.removeprefix("interface/"))
        if one is None:
            abort(404, f"There is no {name}.")
        return drawn.get(request, name, versions()["interfaces"], lambda: draw_interface(request, one))
    if name not in PARTS:
        abort(404)
    if name in {"sockets", "routes"}:
        sampler.watch()
    return drawn.get(request, name, versions()[name], lambda: PARTS[name](request))


@app.get("/events")
def events(request: Request) -> Response:
    """A tick a second, with the version of each part."""
    return ticks(request, watched_versions)


def watched_versions() -> dict[str, float]:
    sampler.watch()
    return versions()


def versions() -> dict[str, float]:
    """What is new since when; "*" is for the interfaces' own pages."""
    by_second = dict.fromkeys(("summary", "interfaces", "counters", "*"), sampler.ticked)
    return by_second | dict.fromkeys(("sockets", "routes"), sampler.sockets_at)


# --- Parts ------------------------------------------------------------------------------------------------------------


def draw_summary(request: Request) -> str:
    """What is wrong, and what changed last."""
    now, texts, state = time.time(), [], "ok"
    recent = [change for change in sampler.changes if change.bad and now - change.at < HOUR]
    down = [each for each in sampler.interfaces.values() if each.state != "up" and sampler.addresses.get(each.number)]
    if now - sampler.seen_at > STALE:
        state, texts = (
            "unknown",
            [f"No figures for {duration(now - sampler.seen_at)}." if sampler.seen_at else "No figures yet."],
        )
    if down:
        state = "failing"
        texts += [f"{each.name} has an address but is {each.state}{since(each.name)}." for each in down[:3]]
    elif recent:
        texts.append(f"{recent[-1].text} at {clock_time(recent[-1].at)} ({duration(now - recent[-1].at)} ago).")
    again, sent = sampler.last_minute("Tcp.RetransSegs"), sampler.last_minute("Tcp.OutSegs")
    if again > MANY_RETRANSMITTED * (sent + again):
        state = "degraded" if state == "ok" else state
        texts.append(f"{again / (sent + again):.1%} of the TCP segments of the last minute were retransmitted.")
    for name in sampler.interfaces:
        points = sampler.points(name, now - 60, now)
        for word, fields in (("errors", (2, 6)), ("drops", (3, 7))):
            if count := sum(rates[field] for _, rates in points for field in fields):
                state = "degraded" if state == "ok" else state
                texts.append(f"{name}: {count:.0f} {word} in the last minute.")
    if state == "ok":
        up = sum(each.state == "up" for each in sampler.interfaces.values())
        texts.append(f"{up} of {len(sampler.interfaces)} interfaces are up. No errors and no drops in the last minute.")
    missing = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in sampler.missing.items())
    return (
        f'<p class="summary {state}" role="status">{escape(" ".join(texts))}</p><p class="quiet">Interfaces seen '
        f"{moment(sampler.seen_at)}</p>" + (f"<p>Not to be seen here:</p><ul>{missing}</ul>" if missing else "")
    )


def since(name: str) -> str:
    """Since when an interface is in its state, if this was seen."""
    at = next((change.at for change in reversed(sampler.changes) if change.text.startswith(f"{name}: ")), None)
    return f" since {clock_time(at)} (for {duration(time.time() - at)})" if at else ""


def last_rates(name: str) -> Traffic:
    """The rates of the last second, if it is not long ago."""
    ring = sampler.recent.get(name)
    if not ring or time.time() - ring[-1][0] > STALE:
        return Traffic(*[0] * 8)
    return Traffic(*ring[-1][1])  # type: ignore[arg-type]  # rates are fractions


KEYS: dict[str, Callable[[Interface], Any]] = {
    "interface": lambda each: each.name,
    "state": lambda each: (each.state == "up", each.state),
    "received": lambda each: -last_rates(each.name).receive_bytes,
    "sent": lambda each: -last_rates(each.name).transmit_bytes,
    "errors": lambda each: -(each.traffic.receive_errs + each.traffic.transmit_errs),
    "drops": lambda each: -(each.traffic.receive_drop + each.traffic.transmit_drop),
}
"""Columns by which the interfaces can be sorted."""


def draw_interfaces(request: Request) -> str:
    """A table, and charts of the busiest."""
    found = list(sampler.interfaces.values())
    wanted, sort = request.GET.get("filter", "").lower(), request.GET.get("sort", "")
    found = [
        each for each in found if wanted in f"{each.name} {each.state} {sampler.addresses.get(each.number, '')}".lower()
    ]
    found.sort(key=lambda each: each.traffic.receive_bytes + each.traffic.transmit_bytes, reverse=True)
    busiest = found[:CHARTS]
    if (column := sort.lstrip("-")) in KEYS:
        found.sort(key=KEYS[column], reverse=sort.startswith("-"))
    names = ("interface", "state", "received", "sent", "addresses", "MTU", "speed", "errors", "drops", "link address")
    caption = f"Interfaces, {min(len(found), MOST_INTERFACES)} of {len(found)}"
    rows = [interface_row(each) for each in found[:MOST_INTERFACES]]
    charts = "".join(chart(request, each.name) for each in busiest)
    return table(caption, names, rows, sort_links(request, KEYS)) + charts


def interface_row(each: Interface) -> list[object]:
    rates, traffic = last_rates(each.name), each.traffic
    speed = sampler.speeds.get(each.name)
    return [
        Cell(f'<a href="interface/{escape(quote(each.name, safe=""))}">{escape(each.name)}</a>'),
        Cell(f'<span class="state {"ok" if each.state == "up" else "failing"}">{escape(each.state)}</span>'),
        amount(rates.receive_bytes * OCTET, "bit/s"),
        amount(rates.transmit_bytes * OCTET, "bit/s"),
        ", ".join(sampler.addresses.get(each.number, ())),
        each.mtu,
        amount(speed, "bit/s") if speed else "-",
        traffic.receive_errs + traffic.transmit_errs,
        traffic.receive_drop + traffic.transmit_drop,
        each.link_address,
    ]


def chart(request: Request, name: str) -> str:
    """Bits and packets a second."""
    _, period = range_of(request)
    now = time.time()
    points = sampler.points(name, now - period, now)
    step = EVERY if period <= RECENT else KEPT_EVERY if period <= HOUR else MERGED
    bits = [
        (way, [(at, rates[field] * OCTET) for at, rates in points]) for way, field in (("receive", 0), ("transmit", 4))
    ]
    packets = [(way, [(at, rates[field]) for at, rates in points]) for way, field in (("receive", 1), ("transmit", 5))]
    for kind, first, second in (("errors", 2, 6), ("drops", 3, 7)):
        both = [(at, rates[first] + rates[second]) for at, rates in points]
        packets += [(kind, both)] if any(value for _, value in both) else []
    drawings = [lines(now - period, now, step, bits, "bit/s", f"{name}, bits")]
    drawings.append(lines(now - period, now, step, packets, "/s", f"{name}, packets"))
    return f'<div class="charts">{"".join(drawings)}</div>'


def draw_interface(request: Request, each: Interface) -> str:
    """An interface with its charts and counters."""
    speed = sampler.speeds.get(each.name)
    facts = {
        "state": each.state + since(each.name), "addresses": ", ".join(sampler.addresses.get(each.number, ())) or "none",
        "MTU": each.mtu, "speed": amount(speed, "bit/s") if speed else "-", "link address": each.link_address,
    }  # fmt: skip
    counts = {name.replace("_", " "): value for name, value in each.traffic._asdict().items()}
    changes = [(clock_time(change.at), change.text) for change in reversed(sampler.changes) if each.name in change.text]
    shown = table("Changes, the latest first", ("time", "change"), changes) if changes else ""
    return f"{listed(facts)}{chart(request, each.name)}<h2>Since the interface was made</h2>{listed(counts)}{shown}"


def draw_counters(request: Request) -> str:
    """Per second, per minute, and since the machine's start."""
    rows = [
        (
            text,
            amount(sampler.rates.get(name, 0), "/s"),
            amount(sampler.last_minute(name)),
            amount(sampler.counters[name]),
        )
        for name, text in SHOWN.items()
        if name in sampler.counters
    ]
    return table("TCP, UDP and ICMP", ("counter", "now", "last minute", "since the start"), rows)


SOCKET_KEYS: dict[str, Callable[[Socket], Any]] = {
    "state": lambda each: each.state,
    "local address": lambda each: each.local,
    "remote address": lambda each: each.remote,
    "rtt": lambda each: -(each.info.rtt if each.info else 0),
    "sent": lambda each: -(each.info.sent if each.info else 0),
    "received": lambda each: -(each.info.received if each.info else 0),
    "retransmitted": lambda each: -(each.info.retransmitted if each.info else 0),
}


def draw_sockets(request: Request) -> str:
    """States, connections, listening sockets."""
    wanted, sort = request.GET.get("filter", "").lower(), request.GET.get("sort", "")
    found = [each for each in sampler.sockets if wanted in text_of(each)] if wanted else sampler.sockets
    listening = [each for each in found if each.state == (LISTEN if each.protocol == "tcp" else UNCONNECTED)]
    connections = [each for each in found if each.protocol == "tcp" and each.state != LISTEN]
    connections.sort(key=lambda each: (each.info.sent + each.info.received) if each.info else 0, reverse=True)
    if (column := sort.lstrip("-")) in SOCKET_KEYS:
        connections.sort(key=SOCKET_KEYS[column], reverse=sort.startswith("-"))
    caption = f"Connections, {min(len(connections), MOST_SOCKETS)} of {len(connections)}"
    rows = [connection_row(each) for each in connections[:MOST_SOCKETS]]
    ports = [(each.protocol, end(each.local), each.receive_queue, owner(each)) for each in listening[:MOST_SOCKETS]]
    hint = (
        "" if os.geteuid() == 0 else '<p class="quiet">A user sees the names of the own processes; root sees all.</p>'
    )
    return (
        f'<p class="quiet">Sockets seen {moment(sampler.sockets_at)}</p>{listed(dict(sampler.states.most_common()))}'
        f"{table(caption, (*SOCKET_KEYS, 'process'), rows, sort_links(request, SOCKET_KEYS))}"
        f"{table('Listening', ('protocol', 'address', 'queue', 'process'), ports)}{hint}"
    )


def text_of(each: Socket) -> str:
    return f"{each.protocol} {each.state} {end(each.local)} {end(each.remote)} {owner(each)}".lower()


def connection_row(each: Socket) -> list[object]:
    info = each.info
    figures = ["-"] * 4
    if info:
        rtt = milliseconds(info.rtt) if info.rtt else "-"  # none before the first measurement
        figures = [rtt, amount(info.sent, "B"), amount(info.received, "B"), str(info.retransmitted)]
    return [each.state, end(each.local), end(each.remote), *figures, owner(each)]


def draw_routes(request: Request) -> str:
    """Routes and neighbours."""
    rows = [(each.network, each.kind or "unicast", each.hops, each.metric) for each in sampler.routes]
    return (
        f'<p class="quiet">Seen {moment(sampler.sockets_at)}</p>'
        + table("Routes", ("network", "type", "next hop", "metric"), rows)
        + table("Neighbours", ("address", "link address", "interface", "state"), sampler.neighbours)
    )


PARTS: dict[str, Callable[[Request], str]] = {
    "summary": draw_summary,
    "interfaces": draw_interfaces,
    "counters": draw_counters,
    "sockets": draw_sockets,
    "routes": draw_routes,
}


def owner(each: Socket) -> str:
    """The process, where that may be seen, or the user's number."""
    return sampler.owners.get(each.inode) or (f"user {each.user}" if each.user or os.geteuid() else "-")


def end(address: tuple[str, int]) -> str:
    """127.0.0.1:80, [::1]:80."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- Figures for programs ---------------------------------------------------------------------------------------------


@app.get("/api")
def api(request: Request) -> dict[str, Any]:
    """All figures: times in seconds, rates a second. `sockets=N` is how many sockets, 1,000 without it."""
    sampler.watch()
    most = request.query("sockets", int, default=1000)
    return {
        "host": HOST,
        "age": time.time() - sampler.seen_at,
        "interfaces": {
            name: {
                **each._asdict(),
                "traffic": each.traffic._asdict(),
                "addresses": sampler.addresses.get(each.number, []),
                "speed": sampler.speeds.get(name),
                "rates": [(at, list(rates)) for at, rates in list(sampler.recent.get(name, ()))[-60:]],
            }
            for name, each in list(sampler.interfaces.items())
        },
        "changes": [change._asdict() for change in list(sampler.changes)],
        "counters": sampler.counters,
        "rates": sampler.rates,
        "states": sampler.states,
        "sockets_age": time.time() - sampler.sockets_at,
        "sockets": [
            {**each._asdict(), "info": each.info and each.info._asdict(), "process": owner(each)}
            for each in sampler.sockets[:most]
        ],
        "neighbours": [each._asdict() for each in sampler.neighbours],
        "routes": [each._asdict() for each in sampler.routes],
        "missing": sampler.missing,
    }


@app.get("/metrics")
def metrics(request: Request) -> Response:
    """For Prometheus. All names with `node_` are node_exporter's and mean the same."""
    sampler.fresh()
    return exposition(collect())


def collect() -> Iterator[Metric]:
    """What can't be seen now is left out: an old value must not look new."""
    found = list(sampler.interfaces.values()) if "interfaces" not in sampler.missing else []
    for field in Traffic._fields:
        way, _, kind = field.partition("_")
        for each in found:
            name, value = f"node_network_{field}_total", getattr(each.traffic, field)
            yield Metric(name, value, {"device": each.name}, "counter", f"Network device statistic {way}_{kind}.")
    for each in found:
        yield Metric(
            "node_network_up",
            float(each.state == "up"),
            {"device": each.name},
            help="Value is 1 if operstate is 'up', 0 otherwise.",
        )
    for each in found:
        yield Metric(
            "node_network_mtu_bytes", each.mtu, {"device": each.name}, help="Network device property: mtu_bytes"
        )
    for each in found:
        if speed := sampler.speeds.get(each.name):
            yield Metric(
                "node_network_speed_bytes",
                speed / OCTET,
                {"device": each.name},
                help="Network device property: speed_bytes",
            )
    for name, value in sampler.counters.items():
        group, _, counter = name.partition(".")
        yield Metric(f"node_netstat_{group}_{counter}", value, {}, "untyped", f"Statistic {group}{counter}.")
    for state, count in sampler.states.items():
        yield Metric("netmon_tcp_sockets", count, {"state": state}, help="TCP sockets by state")
    yield Metric("netmon_age_seconds", time.time() - sampler.seen_at, help="Seconds since the interfaces were seen")
    for name in ("interfaces", "counters", "sockets by state"):
        yield Metric(
            "netmon_available", float(name not in sampler.missing), {"figures": name}, help="Whether these can be seen"
        )
