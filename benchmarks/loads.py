"""Rows under load: small requests from wrk, alone and while other requests sleep or compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from benchmarks import wrk
from benchmarks.clients.exchange import Request
from benchmarks.confidence import percentile
from benchmarks.measuring import Client
from benchmarks.processes import Server
from benchmarks.rows import Bar, RoundFigures, Row, ratio_to, value_of
from benchmarks.wrk import Figures

WAITING = "benchmarks.subjects.waiting:app"

COMPILED = ("bare", "bjoern", "granian")
FASTEST = ("freastal", "fastwsgi")
"""Servers in C, on libuv. They do less than PEP 3333 requires: neither decodes PATH_INFO; freastal does not close iterables."""
INTERPRETED = ("gunicorn gthread", "waitress", "werkzeug")
OPTIONAL_PEERS = ("cheroot", "wsgiref")


def wrk_measurement(path: str, connections: int, **options: bool) -> Callable[[Server, float], Figures]:
    return lambda server, seconds: wrk.load(server, path, connections, seconds, **options)


class Limits(NamedTuple):
    """Bar and aim of the ratios to the bare loop, bjoern, granian and Werkzeug; the bar of those to gunicorn and waitress."""

    bare: tuple[float, float]
    bjoern: tuple[float, float]
    granian: tuple[float, float] = (1.0, 1.2)
    werkzeug: tuple[float, float | None] = (20.0, 30.0)
    threaded: float = 8.0


HELLO_LIMITS = {
    1: Limits((0.36, 0.48), (0.48, 0.68), (0.96, 1.2), (16.0, 24.0), 6.4),
    8: Limits((0.38, 0.50), (0.50, 0.65)),
    64: Limits((0.45, 0.55), (0.65, 0.80), (1.1, 1.3)),
    256: Limits((0.36, 0.48), (0.48, 0.68), (0.96, 1.2), (16.0, 24.0), 6.4),
}
BROWSER_LIMITS = {
    8: Limits((0.30, 0.40), (0.45, 0.60), werkzeug=(20.0, None)),
    64: Limits((0.32, 0.45), (0.60, 0.75), werkzeug=(20.0, None)),
}


def hello(connections: int, more: tuple[Bar, ...] = ()) -> Row:
    limits = HELLO_LIMITS[connections]
    bars = [
        ratio_to("bare", "cpu_us", *limits.bare),
        ratio_to("bjoern", "cpu_us", *limits.bjoern),
        *(ratio_to(peer, "cpu_us", None) for peer in FASTEST),
        ratio_to("granian", "rate", *limits.granian),
        ratio_to("gunicorn gthread", "rate", limits.threaded),
        ratio_to("waitress", "rate", limits.threaded),
        ratio_to("werkzeug", "rate", *limits.werkzeug),
        *more,
    ]
    title = f"hello world, {connections} connection{'s' * (connections > 1)}, keep-alive"
    return Row(
        f"hello{connections}",
        title,
        wrk_measurement("/", connections),
        bars,
        peers=(*COMPILED, *FASTEST, *INTERPRETED),
        optional_peers=OPTIONAL_PEERS,
        warm_up="/",
    )


def browser(connections: int) -> Row:
    limits = BROWSER_LIMITS[connections]
    bars = [
        ratio_to("bare", "cpu_us", *limits.bare),
        ratio_to("bjoern", "cpu_us", *limits.bjoern),
        ratio_to("werkzeug", "rate", *limits.werkzeug),
    ]
    title = f"a browser's request with twelve fields and varying path and cookie, {connections} connections"
    measure = wrk_measurement("/", connections, browser=True)
    return Row(
        f"browser{connections}",
        title,
        measure,
        bars,
        peers=("bare", "bjoern", "werkzeug"),
        optional_peers=("granian", *FASTEST, *OPTIONAL_PEERS),
        warm_up="/",
    )


def close() -> Row:
    bars = [
        ratio_to("bjoern", "cpu_us", 0.8, 1.0),
        ratio_to("bjoern", "rate", 0.75, 0.90),
        ratio_to("werkzeug", "rate", 15),
    ]
    optional_peers = ("granian", *INTERPRETED[:2], *OPTIONAL_PEERS)
    measure = wrk_measurement("/", 8, close=True)
    return Row(
        "close", "a new connection for each request, 8 at once", measure, bars,
        bare="close", peers=("bare", "bjoern", "werkzeug"), optional_peers=optional_peers, warm_up="/",
    )  # fmt: skip


def sleeping(milliseconds: int) -> Row:
    bars = [ratio_to("waitress", "rate", 1.0), ratio_to("granian", "rate", None, 1.0)]
    if milliseconds == 50:
        bars = [
            value_of(
                "rate", "of the highest possible rate (64 threads / 0.05 s)", 0.95, 0.98, at_most=False, scale=0.05 / 64
            )
        ]
    title = f"an application that sleeps {milliseconds} ms, 64 connections; servers with 64 threads"
    peers = ("waitress",) if milliseconds == 50 else ("waitress", "granian")
    return Row(
        f"sleep{milliseconds}", title, wrk_measurement(f"/sleep/{milliseconds}", 64), bars,
        app=WAITING, bare=None, threads=64, warm_up="/quick",
        peers=peers, optional_peers=("gunicorn gthread", "cheroot", "granian"),
    )  # fmt: skip


def measure_beside_sleeping(server: Server, seconds: float) -> Figures:
    alone = wrk.load(server, "/quick", 4, seconds)
    with wrk.beside(server, "/sleep/50", 16, seconds + 10):
        figures = wrk.load(server, "/quick", 4, seconds)
    return {**figures, "alone_p50": alone["p50"], "of_alone": figures["p50"] / alone["p50"]}


def measure_beside_spinning(server: Server, seconds: float) -> Figures:
    with wrk.beside(server, "/spin/20", 4, seconds + 10):
        return closed_loop(server, "/quick", 4, seconds)


def closed_loop(server: Server, path: str, connections: int, seconds: float) -> Figures:
    """Measure with this project's client: wrk would adjust its latencies to correct for coordinated omission."""
    with Client() as client:
        found = client.run(server, Request(path), connections, seconds)
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    latencies = found.latencies
    return {
        "requests": len(latencies),
        "rate": len(latencies) / found.seconds,
        **{name: percentile(latencies, share) / 1e9 for name, share in shares.items()},
    }


def ratio_to_best_maximum(round_figures: RoundFigures) -> float | None:
    """Return the ratio of the smallest maximum latency of the peers to microwsgi's maximum latency."""
    peers = [figures["max"] for name, figures in round_figures.items() if name != "microwsgi" and "max" in figures]
    ours = round_figures.get("microwsgi", {}).get("max")
    return min(peers) / ours if peers and ours else None


ROWS = [
    hello(8),
    hello(64),
    browser(8),
    browser(64),
    hello(1),
    hello(256, (ratio_to("granian", "p99", 1.0),)),
    close(),
    *map(sleeping, (1, 2, 3, 5, 50)),
    Row(
        "beside-sleeping",
        "short requests on 4 connections while requests on 16 other connections sleep 50 ms",
        measure_beside_sleeping,
        [value_of("of_alone", "p50, ratio to p50 alone", 2.0), value_of("p99", "p99, ms", 3.0, scale=1e3)],
        app=WAITING, bare=None, threads=64, warm_up="/quick",
        optional_peers=("waitress", "granian", "gunicorn gthread", "cheroot", "werkzeug"),
    ),
    Row(
        "beside-spinning",
        "short requests on 4 connections while requests on 4 other connections compute 20 ms",
        measure_beside_spinning,
        [
            Bar("of the best peer, longest latency", ratio_to_best_maximum, 1.0),
            value_of("max", "longest latency, ms", None, 60.0, scale=1e3),
        ],
        app=WAITING, bare=None, threads=64, warm_up="/quick",
        peers=("waitress", "granian", "gunicorn gthread", "cheroot", "werkzeug"),
    ),
]  # fmt: skip
