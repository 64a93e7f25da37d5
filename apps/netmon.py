"""The network of one machine, live: `microwsgi serve apps.netmon:app`, by any user.

Interfaces with their rates, every connection with its round-trip time, bytes and segments sent again, who listens, neighbours,
routes, the counters of TCP and UDP; /metrics for Prometheus. The kernel's interfaces are in apps/kernel/, one a module: what
`ip`, `ss` and `nstat` show is a screen of Python each.

    sampler     one thread looks once a second           apps/kernel/sampler.py
    told        and tells all pages what has changed     microwsgi.events
    part        which they then fetch, drawn once for all of them
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from apps.kernel.counters import SHOWN
from apps.kernel.sampler import KEPT, Sampler
from apps.kernel.sockets import LISTEN, UNCONNECTED, Socket
from apps.look.chart import amount, chart
from apps.look.page import FILES, listed, page, table
from microwsgi import App, Request, Response, abort
from microwsgi.events import Broadcaster

TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus's exposition format."""
MOST = 200
"""Connections on the page: those with the most bytes."""

told = Broadcaster()
drawn: dict[str, str] = {}
"""The parts of the page, until something has changed."""


def tell(name: str) -> None:
    """A part has changed: forget how it looked, and let the pages know."""
    drawn.pop(name, None)
    told.send(name)


sampler = Sampler(tell, lambda: len(told))
app = App()
app.static("/look", FILES)


@app.before
def begin(request: Request) -> None:
    """The looking begins with the first request: a server may fork after the import, and threads don't survive that."""
    sampler.start()


@app.get("/")
def overview(request: Request) -> Response:
    """All of it."""
    if not len(told):  # nobody has watched, so nobody has looked at the sockets
        sampler.look_at_sockets()
        drawn.clear()
    content = "".join(f'<section id="{name}">{part(request, name)}</section>' for name in PARTS)
    return page(request, "Network", content, live=True)


@app.get("/part/{name}")
def part(request: Request, name: str) -> str:
    """What changes on the page."""
    if name not in PARTS:
        abort(404)
    if (found := drawn.get(name)) is None:
        found = drawn[name] = PARTS[name]()
    return found


@app.get("/events")
def events(request: Request) -> Response:
    """The name of each part that has changed."""
    return told.listen(request)


@app.get("/metrics")
def metrics(request: Request) -> Response:
    """For Prometheus, which counts for itself."""
    registry = CollectorRegistry()
    registry.register(Counters())
    return Response(generate_latest(registry), headerlist=[("Content-Type", TEXT)])


@app.get("/api")
def api(request: Request) -> dict[str, Any]:
    """All figures: rates a second, with the history of the interfaces; times in seconds."""
    if not len(told):
        sampler.look_at_sockets()
    return {
        "interfaces": {
            name: {
                "traffic": each.traffic._asdict(),
                "rates": {key: list(values) for key, values in each.rates.items()},
            }
            for name, each in list(sampler.histories.items())
        },
        "counters": sampler.counters,
        "rates": sampler.rates,
        "states": sampler.states,
        "sockets": [as_values(each) for each in (*sampler.tcp, *sampler.udp)],
        "neighbours": [each._asdict() for each in sampler.neighbours],
        "routes": [each._asdict() for each in sampler.routes],
        "missing": dict(sampler.missing),
    }


def as_values(each: Socket) -> dict[str, Any]:
    """A socket as JSON."""
    return {**each._asdict(), "info": each.info._asdict() if each.info else None, "process": owner(each)}


# --- The parts --------------------------------------------------------------------------------------------------------


def draw_interfaces() -> str:
    """Two charts each, those without traffic in a line."""
    parts, silent = ["<header><h2>Interfaces</h2><span>the last three minutes</span></header>"], []
    for name, history in list(sampler.histories.items()):
        if not any(history.traffic):
            silent.append(name)
            continue
        traffic, rates = history.traffic, history.rates
        bits = chart([("in", history.bits("bytes_in")), ("out", history.bits("bytes_out"))], KEPT, "bit/s", name)
        lines = [("in", list(rates["packets_in"])), ("out", list(rates["packets_out"]))]
        for kind in ("errors", "drops"):
            both = [sum(pair) for pair in zip(rates[f"{kind}_in"], rates[f"{kind}_out"], strict=True)]
            lines += [(kind, both)] if any(both) else []
        packets = chart(lines, KEPT, "/s", "packets")
        totals = {
            "in": amount(traffic.bytes_in, "B"),
            "out": amount(traffic.bytes_out, "B"),
            "errors": traffic.errors_in + traffic.errors_out,
            "drops": traffic.drops_in + traffic.drops_out,
        }
        parts.append(f'<div class="charts">{bits}{packets}</div>{listed(totals)}')
    return "".join(parts) + (listed({"silent": ", ".join(silent)}) if silent else "")


def draw_counters() -> str:
    """Those that move, a second, and since the machine's start."""
    rows = [
        (text, amount(sampler.rates.get(name, 0), "/s"), amount(sampler.counters[name]))
        for name, text in SHOWN.items()
        if name in sampler.counters
    ]
    return f"<header><h2>TCP and UDP</h2></header>{table(('', 'now', 'in all'), rows)}"


def draw_sockets() -> str:
    """States, connections, listeners."""
    listening = [each for each in sampler.tcp if each.state == LISTEN]
    listening += [each for each in sampler.udp if each.state == UNCONNECTED]
    connections = [each for each in sampler.tcp if each.state != LISTEN]
    connections.sort(key=lambda each: (each.info.sent + each.info.received) if each.info else 0, reverse=True)
    rows = [connection_row(each) for each in connections[:MOST]]
    names = ("state", "here", "there", "rtt", "sent", "received", "sent again", "process")
    shown = f"{min(len(connections), MOST)} of {len(connections)}, those with the most bytes"
    ports = [(each.protocol, end(each.local), each.receive_queue, owner(each)) for each in listening]
    missing = f"<p>Not to be seen here:</p>{listed(dict(sampler.missing))}" if sampler.missing else ""
    return (
        f"<header><h2>Sockets by state</h2></header>{listed(dict(sampler.states.most_common()))}"
        f"<header><h2>Listening</h2></header>{table(('', 'address', 'waiting', 'process'), ports)}"
        f"<header><h2>Connections</h2><span>{shown}</span></header>{table(names, rows)}{missing}"
    )


def connection_row(each: Socket) -> tuple[object, ...]:
    """A connection in the table."""
    info = each.info
    figures = ("-", "-", "-", "-")
    if info:
        figures = (milliseconds(info.rtt), amount(info.sent, "B"), amount(info.received, "B"), str(info.retransmitted))
    return each.state, end(each.local), end(each.remote), *figures, owner(each)


def draw_links() -> str:
    """Neighbours and routes."""
    return (
        f"<header><h2>Neighbours</h2></header>{table(('address', 'link', 'interface', 'state'), sampler.neighbours)}"
        f"<header><h2>Routes</h2></header>{table(('network', 'gateway', 'interface', 'metric'), sampler.routes)}"
    )


PARTS: dict[str, Callable[[], str]] = {
    "interfaces": draw_interfaces,
    "counters": draw_counters,
    "sockets": draw_sockets,
    "links": draw_links,
}


def owner(each: Socket) -> str:
    """The process, where that may be seen."""
    return sampler.owners.get(each.inode) or (f"user {each.user}" if each.user >= 0 else "")


def end(address: tuple[str, int]) -> str:
    """127.0.0.1:80, [::1]:80."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"


class Counters(Collector):
    """What /metrics tells, by the names that node_exporter has for it where it has one."""

    def collect(self) -> Iterator[Metric]:
        kinds = {"bytes": "bytes", "packets": "packets", "errors": "errs", "drops": "drop"}
        for way, word in (("in", "receive"), ("out", "transmit")):
            for field, name in kinds.items():
                family = CounterMetricFamily(f"node_network_{word}_{name}", f"{field} {way}", labels=["device"])
                for device, history in list(sampler.histories.items()):
                    family.add_metric([device], getattr(history.traffic, f"{field}_{way}"))
                yield family
        for name, value in sampler.counters.items():
            group, _, counter = name.partition(".")
            yield CounterMetricFamily(f"node_netstat_{group}_{counter}", SHOWN[name], value=value)
        sampler.look_at_sockets()
        states = GaugeMetricFamily("netmon_tcp_sockets", "TCP sockets by state", labels=["state"])
        for state, count in sampler.states.items():
            states.add_metric([state], count)
        yield states
