"""The network of one Linux machine, live: `microwsgi serve apps.netmon:app`, as any user.

Interfaces with state, addresses and rates, every connection with its round-trip time and retransmitted segments, listening
sockets, neighbours, routes, the counters of TCP, UDP and ICMP; /metrics for Prometheus, with the names of node_exporter. The
kernel's interfaces are in apps/kernel/, one a module: a screen of Python does the work of `ip`, `ss` or `nstat`.

    sampler     one thread reads the kernel's figures once a second     apps/kernel/sampler.py
    site        the pages and their sections, which follow the figures  apps/look/page.py
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from html import escape
from typing import Any
from urllib.parse import quote

from apps.history import HOUR, MERGED
from apps.kernel.counters import SHOWN
from apps.kernel.links import Interface, Traffic
from apps.kernel.sampler import EVERY, KEPT_EVERY, RECENT, Sampler
from apps.kernel.sockets import LISTEN, UNCONNECTED, Socket
from apps.look import page as look
from apps.look.chart import Line, amount, lines, milliseconds
from apps.look.metrics import Metric, exposition
from apps.look.page import Column
from microwsgi import Request, Response, abort

LINKS = {"Overview": "/", "Sockets": "/sockets", "Routes and neighbours": "/routes", "Metrics": "/metrics"}
MOST_INTERFACES, MOST_SOCKETS, CHARTS, MOST_SENTENCES = 50, 200, 2, 5
"""Rows of a table, sentences of the summary, and interfaces with a chart on the first page."""
STALE = 5.0
"""Seconds after which figures are old."""
MINUTE, OCTET = 60.0, 8
HOST = socket.gethostname()

sampler = Sampler(os.environ.get("NETMON_HISTORY", ""))
site = look.Site(LINKS, sampler.background.start)
app = site.app


# --- Pages ------------------------------------------------------------------------------------------------------------


@app.get("/")
def overview(request: Request) -> Response:
    interfaces, counters = (site.section(request, name) for name in ("interfaces", "counters"))
    content = interfaces + look.filter_form(request, "Interfaces that contain") + counters
    return site.page(request, f"Network of {HOST}", content)


@app.get("/interface/{name:path}")
def interface(request: Request, name: str) -> Response:
    content = look.range_links(request) + site.section(request, f"interface/{name}")
    return site.page(request, f"{name} of {HOST}", content)


@app.get("/sockets")
def all_sockets(request: Request) -> Response:
    content = look.filter_form(request, "Sockets that contain") + site.section(request, "sockets")
    return site.page(request, f"Sockets of {HOST}", content)


@app.get("/routes")
def all_routes(request: Request) -> Response:
    return site.page(request, f"Routes of {HOST}", site.section(request, "routes"))


def versions() -> dict[str, float]:
    """The version of each part; "*" stands for all others. Without new figures they change, too: they get old."""
    sampler.watch()  # a page is open
    latest = sampler.ticked if time.time() - sampler.read_at <= STALE else time.time() // 1
    return {"*": latest, "sockets": sampler.sockets_at, "routes": sampler.sockets_at}


site.versions = versions


# --- Parts ------------------------------------------------------------------------------------------------------------


def summary() -> str:
    """What is wrong and since when, the worst first."""
    now, state = time.time(), "ok"
    texts = [
        f"{each.name} ({sampler.addresses[each.number][0]}) is down: {each.state}{since(each.name)}."
        for each in sampler.interfaces.values()
        if is_down(each)
    ]
    if now - sampler.read_at > STALE:
        state = "unknown"
        texts = [f"No figures for {look.duration(now - sampler.read_at)}." if sampler.read_at else "No figures yet."]
    elif texts:
        state = "failing"
    else:
        changes = [each for each in sampler.changes if each.bad and now - each.at < HOUR][-1:]
        texts = [f"{each.text} at {look.clock_time(each.at)} ({look.duration(now - each.at)} ago)." for each in changes]
    for text, problem in sampler.problems.items():
        if now - problem.last < MINUTE:
            state = "degraded" if state == "ok" else state
            texts.append(f"{text}: {amount(problem.value, problem.unit)},{look.since(problem.since)}.")
    if (more := len(texts) - MOST_SENTENCES) > 0:
        texts[MOST_SENTENCES:] = [f"And {look.counted(more, 'other')}."]
    if state == "ok":
        up = sum(each.state == "up" for each in sampler.interfaces.values())
        texts.append(f"Interfaces up: {up} of {len(sampler.interfaces)}. No errors and no drops in the last minute.")
    missing = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in sampler.missing.items())
    return f'{look.summary(state, *texts)}<p class="quiet">Interfaces read {look.moment(sampler.read_at)}</p>' + (
        f"<p>Not available here:</p><ul>{missing}</ul>" if missing else ""
    )


def since(name: str) -> str:
    """Since when an interface has its state; "" if that began before this program."""
    return look.since(sampler.changed[name]) if name in sampler.changed else ""


def rates(each: Interface) -> Traffic:
    """What passed in the last second; nothing if that is long ago."""
    ring = sampler.recent.get(each.name)
    is_fresh = ring and time.time() - ring[-1][0] <= STALE
    return Traffic(*map(round, ring[-1][1])) if ring and is_fresh else Traffic(*[0] * len(Traffic._fields))


def bits(value: float) -> str:
    return amount(value, "bit/s")


INTERFACES = (
    Column("interface", lambda each: each.name, lambda name: look.link(f"interface/{quote(name, safe='')}", name)),
    Column("state", lambda each: each.state, lambda text: look.state("ok" if text == "up" else "failing", text)),
    Column("received", lambda each: rates(each).receive_bytes * OCTET, bits),
    Column("sent", lambda each: rates(each).transmit_bytes * OCTET, bits),
    Column("addresses", lambda each: ", ".join(sampler.addresses.get(each.number, ()))),
    Column("MTU", lambda each: each.mtu),
    Column("speed", lambda each: sampler.speeds.get(each.name) or 0, lambda value: bits(value) if value else "-"),
    Column("errors in total", lambda each: each.traffic.errors),
    Column("drops in total", lambda each: each.traffic.drops),
    Column("link address", lambda each: each.link_address),
)


@site.part("interface")
def draw_interface(request: Request, name: str) -> str:
    """Its state, chart, addresses, counters and changes."""
    if name not in sampler.interfaces:
        abort(404, f"There is no interface {name}.")
    each = sampler.interfaces[name]
    facts = {column.name: column.text(column.value(each)) for column in INTERFACES[2:]}
    counters = {field.replace("_", " "): value for field, value in each.traffic._asdict().items()}
    changes = [(look.clock_time(at), text) for at, text, _ in reversed(sampler.changes) if name in text]
    shown = look.table("Changes, the latest first", ("time", "change"), changes) if changes else ""
    began = look.summary("ok" if each.state == "up" else "failing", each.state + since(name))
    return f"{began}{chart(request, name)}{look.listed(facts)}<h2>Counters</h2>{look.listed(counters)}{shown}"


@site.part("interfaces")
def draw_interfaces(request: Request, _: str) -> str:
    """The summary, a table, and charts of interfaces with a problem, then of the busiest: all of one reading."""
    with sampler.lock:
        total = {each: each.traffic.receive_bytes + each.traffic.transmit_bytes for each in sampler.interfaces.values()}
        found = sorted(total, key=lambda each: (is_down(each), has_problem(each), total[each]), reverse=True)
        table = look.listing(request, "Interfaces", INTERFACES, found, MOST_INTERFACES)
        charts = "".join(chart(request, each.name) for each in found[:CHARTS])
        return summary() + look.range_links(request) + table + charts


def has_problem(each: Interface) -> bool:
    return any(text.startswith(f"{each.name}: ") for text in sampler.problems)


def is_down(each: Interface) -> bool:
    """Whether an interface that should be up is not: it has an address."""
    return each.state != "up" and each.number in sampler.addresses


def chart(request: Request, name: str) -> str:
    now, period = time.time(), look.range_of(request)
    seen = [(at, Traffic(*map(round, each))) for at, each in sampler.points(name, now - period, now)]
    step = EVERY if period <= RECENT else KEPT_EVERY if period <= HOUR else MERGED

    def line(text: str, field: str, factor: int = 1) -> Line:
        return text, [(at, getattr(each, field) * factor) for at, each in seen]

    octets = [line("receive", "receive_bytes", OCTET), line("transmit", "transmit_bytes", OCTET)]
    packets = [line("receive", "receive_packets"), line("transmit", "transmit_packets")]
    packets += [line(field, field) for field in ("errors", "drops") if any(getattr(each, field) for _, each in seen)]
    bit_chart = lines(now - period, now, step, octets, "bit/s", f"{name}, bits")
    packet_chart = lines(now - period, now, step, packets, "/s", f"{name}, packets")
    return f'<div class="charts">{bit_chart}{packet_chart}</div>'


@site.part("counters")
def draw_counters(request: Request, _: str) -> str:
    rows = [
        (text, amount(sampler.rates.get(name, 0), "/s"), amount(sampler.last_minute(name)), amount(value))
        for name, text in SHOWN.items()
        if (value := sampler.counters.get(name)) is not None
    ]
    return look.table("TCP, UDP and ICMP", ("counter", "now", "last minute", "since the start"), rows)


def owner(each: Socket) -> str:
    """The process if this user may see it, or the number of its user."""
    return sampler.owners.get(each.inode) or (f"user {each.user}" if each.user or os.geteuid() else "-")


def endpoint(address: tuple[str, int]) -> str:
    """127.0.0.1:80, [::1]:80."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


SOCKETS = (
    Column("state", lambda each: each.state),
    Column("local address", lambda each: endpoint(each.local)),
    Column("remote address", lambda each: endpoint(each.remote)),
    Column("rtt", lambda each: each.info.rtt if each.info else 0.0, lambda rtt: milliseconds(rtt or None)),
    Column("sent", lambda each: each.info.sent if each.info else 0, lambda value: amount(value, "B")),
    Column("received", lambda each: each.info.received if each.info else 0, lambda value: amount(value, "B")),
    Column("retransmitted", lambda each: each.info.retransmitted if each.info else 0),
    Column("process", owner),
)
LISTENING = (
    Column("protocol", lambda each: each.protocol),
    SOCKETS[1],
    Column("queue", lambda each: each.receive_queue),
    SOCKETS[-1],
)


@site.part("sockets")
def draw_sockets(request: Request, _: str) -> str:
    listening = [each for each in sampler.sockets if each.state == (LISTEN if each.protocol == "tcp" else UNCONNECTED)]
    connections = [each for each in sampler.sockets if each.protocol == "tcp" and each.state != LISTEN]
    connections.sort(key=lambda each: (each.info.sent + each.info.received) if each.info else 0, reverse=True)
    hint = "" if os.geteuid() == 0 else '<p class="quiet">Only root sees the processes of other users.</p>'
    return (
        f'<p class="quiet">Sockets read {look.moment(sampler.sockets_at)}</p>'
        f"{look.listed(dict(sampler.states.most_common()))}"
        f"{look.listing(request, 'Connections', SOCKETS, connections, MOST_SOCKETS)}"
        f"{look.listing(request, 'Listening', LISTENING, listening, MOST_SOCKETS)}{hint}"
    )


@site.part("routes")
def draw_routes(request: Request, _: str) -> str:
    rows = [(each.network, each.kind or "unicast", each.hops, each.metric) for each in sampler.routes]
    return (
        f'<p class="quiet">Read {look.moment(sampler.sockets_at)}</p>'
        + look.table("Routes", ("network", "type", "next hop", "metric"), rows)
        + look.table("Neighbours", ("address", "link address", "interface", "state"), sampler.neighbours)
    )


# --- Figures for programs ---------------------------------------------------------------------------------------------


@app.get("/api")
def api(request: Request) -> dict[str, Any]:
    """All figures: times in seconds, rates a second. `sockets=N` is the greatest number of sockets, 1,000 by default."""
    sampler.watch()
    most = request.query("sockets", int, default=1000)
    return {
        "host": HOST,
        "age": time.time() - sampler.read_at,
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
    sampler.refresh()
    return exposition(collect())


def collect() -> Iterator[Metric]:
    """All metrics, except for figures that are not available now: an old value must not look new."""
    found = list(sampler.interfaces.values()) if "interfaces" not in sampler.missing else []
    for each in found:
        labels = {"device": each.name}
        for field, value in each.traffic._asdict().items():
            text = f"Network device statistic {field.replace('_', ' ', 1)}."
            yield Metric(f"node_network_{field}_total", value, labels, "counter", text)
        yield Metric("node_network_up", float(each.state == "up"), labels, help="Whether the interface is up")
        yield Metric("node_network_mtu_bytes", each.mtu, labels, help="MTU of the interface")
        if speed := sampler.speeds.get(each.name):
            yield Metric("node_network_speed_bytes", speed / OCTET, labels, help="Speed of the interface")
    for name, value in sampler.counters.items():
        group, _, counter = name.partition(".")
        yield Metric(f"node_netstat_{group}_{counter}", value, {}, "untyped", f"Statistic {group}{counter}.")
    for state, count in sampler.states.items():
        yield Metric("netmon_tcp_sockets", count, {"state": state}, help="TCP sockets by state")
    yield Metric("netmon_age_seconds", time.time() - sampler.read_at, help="Seconds since the interfaces were read")
    for name in ("interfaces", "counters", "sockets by state"):
        available, labels = float(name not in sampler.missing), {"figures": name}
        yield Metric("netmon_available", available, labels, help="Whether these figures are available")
