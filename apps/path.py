"""The way to a host, hop by hop, again and again: `PROBE_CONFIG=probe.toml microwsgi serve apps.path:app`.

Who answers on the way, after how long, how much is lost there, and the largest packet that gets through. It needs no
privileges: apps/probing/trace.py says how. It goes to the targets of the configuration and into the networks that it allows,
and nowhere else; it is traced while somebody looks.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from html import escape
from typing import Any

from apps.look.chart import ceiling
from apps.look.page import FILES, of_this_site, page
from apps.probing.config import load
from apps.probing.paths import HopFigures, Way
from apps.probing.policy import Budget, Refused, Target
from apps.probing.smoke import text_of
from microwsgi import App, Request, Response, abort
from microwsgi.events import Broadcaster

WAYS = 20
"""Ways that are remembered; the one that was looked at least lately is forgotten."""
WIDTH = 200
"""Of the picture of a hop."""

config = load(os.environ.get("PROBE_CONFIG", ""))
watched = {each.name: each for each in config.targets}
told = Broadcaster()
budget = Budget()
ways: OrderedDict[str, Way] = OrderedDict()

app = App()
app.static("/look", FILES)


@app.get("/")
def overview(request: Request) -> Response:
    """The targets, and a form for others."""
    links = "".join(f'<a href="to?target={escape(name)}">{escape(name)}</a> ' for name in watched)
    form = '<form action="to"><label>to <input name="target" placeholder="host" required></label><button>Trace</button></form>'
    return page(request, "Paths", f"<nav>{links}</nav><section>{form}</section>")


@app.get("/to")
def show(request: Request) -> Response | dict[str, Any]:
    """The way to a target: a page that goes on, or JSON."""
    of_this_site(request)
    name = request.query("target")
    way = way_to(name, request.remote_addr or "")
    way.look()
    if request.accept.acceptable_offers(["text/html", "application/json"])[:1] == [("application/json", 1.0)]:
        return as_values(way)
    return page(request, f"To {name}", f'<div id="{escape(name)}">{table(way)}</div>', live=True)


@app.get("/part/{name:path}")
def part(request: Request, name: str) -> str:
    """The table, as it is; who fetches it looks."""
    if name not in ways:
        abort(404)
    ways[name].look()
    return table(ways[name])


@app.get("/events")
def events(request: Request) -> Response:
    """The name of each way that was traced once more."""
    return told.listen(request)


def way_to(name: str, viewer: str) -> Way:
    """The way to a target that may be probed. Raises 403 and 429."""
    if name in ways:
        ways.move_to_end(name)
        return ways[name]
    if not budget.take(viewer):
        abort(429, f"{budget.each_minute} new targets a minute are enough.")
    try:
        target = resolved(name)
    except Refused as error:
        abort(403, str(error))
    way = ways[name] = Way(target, lambda _: told.send(name))
    while len(ways) > WAYS:
        ways.popitem(last=False)
    return way


def resolved(name: str) -> Target:
    """The address of a target of the configuration, or of one that it allows; without a port, as each datagram has its own."""
    if name in watched:
        return watched[name].resolve(config.policy)._replace(port=0)
    return config.policy.resolve(name)


def table(way: Way) -> str:
    """A way as HTML."""
    hops = list(way.hops)
    widest = ceiling(max((hop.percentile(1.0) or 0.0 for hop in hops), default=0.001) or 0.001)
    rows = "".join(row(number, hop, widest) for number, hop in enumerate(hops, 1))
    mtu = f"{way.mtu} bytes" if way.mtu else "not found out"
    trouble = f' <strong class="bad">{escape(way.trouble)}</strong>' if way.trouble else ""
    return (
        f"<p>{escape(way.target.address)}, path MTU {mtu}, {way.rounds} rounds{trouble}</p>"
        '<div class="table"><table><thead><tr><th>hop<th>address<th>lost<th>best<th>median<th>worst<th>jitter'
        f"<th>0 to {text_of(widest)}</thead><tbody>{rows}</tbody></table></div>"
    )


def row(number: int, hop: HopFigures, widest: float) -> str:
    """A hop as HTML."""
    addresses = ", ".join(address for address, _ in hop.addresses.most_common(3)) or "*"
    best, middle, worst = (hop.percentile(share) for share in (0.0, 0.5, 1.0))
    trouble = f" <small>{escape(hop.trouble)}</small>" if hop.trouble else ""
    cells = [
        escape(addresses) + trouble,
        f"{hop.lost / max(hop.sent, 1):.0%}",
        *map(text_of, (best, middle, worst, hop.jitter)),
    ]
    bar = ""
    if best is not None and middle is not None and worst is not None:
        left, tick, right = (round(WIDTH * value / widest, 1) for value in (best, middle, worst))
        bar = (
            f'<svg viewBox="0 0 {WIDTH} 12" role="img" aria-label="from {text_of(best)} to {text_of(worst)}">'
            f'<rect class="smoke" fill-opacity="0.4" x="{left}" y="2" width="{max(right - left, 1):.1f}" height="8"/>'
            f'<rect class="median none" x="{tick - 1}" y="1" width="2" height="10"/></svg>'
        )
    return f"<tr><td>{number}{''.join(f'<td>{cell}' for cell in cells)}<td class='bar'>{bar}"


def as_values(way: Way) -> dict[str, Any]:
    """A way as JSON; times in seconds."""
    return {
        "address": way.target.address,
        "mtu": way.mtu,
        "rounds": way.rounds,
        "hops": [
            {
                "addresses": dict(hop.addresses),
                "sent": hop.sent,
                "lost": hop.lost,
                "best": hop.percentile(0.0),
                "median": hop.percentile(0.5),
                "worst": hop.percentile(1.0),
                "jitter": hop.jitter,
                "trouble": hop.trouble,
            }
            for hop in list(way.hops)
        ],
    }
