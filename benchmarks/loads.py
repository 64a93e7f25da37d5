"""Rows under load: small requests from wrk, alone and beside neighbours that wait or compute."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import wrk
from benchmarks.clients.exchange import Request
from benchmarks.confidence import percentile
from benchmarks.measuring import Client
from benchmarks.processes import Server
from benchmarks.rows import Bar, By, Row, against, own
from benchmarks.wrk import Figures

WAITING = "benchmarks.subjects.waiting:app"

COMPILED = ("bare", "bjoern", "granian")
INTERPRETED = ("gunicorn gthread", "waitress", "werkzeug")
REST = ("cheroot", "wsgiref")


def loaded(path: str, connections: int, **how: bool) -> Callable[[Server, float], Figures]:
    return lambda server, seconds: wrk.load(server, path, connections, seconds, **how)


def hello(connections: int, ease: float = 1.0, more: tuple[Bar, ...] = ()) -> Row:
    bars = [
        against("bare", "cpu_us", 0.45 * ease, 0.60 * ease),
        against("bjoern", "cpu_us", 0.60 * ease, 0.85 * ease),
        against("granian", "rate", 1.2 * ease, 1.5 * ease),
        against("gunicorn gthread", "rate", 8 * ease),
        against("waitress", "rate", 8 * ease),
        against("werkzeug", "rate", 20 * ease, 30 * ease),
        *more,
    ]
    title = f"hello world, {connections} connection{'s' * (connections > 1)}, keep-alive"
    return Row(
        f"hello{connections}",
        title,
        loaded("/", connections),
        bars,
        peers=(*COMPILED, *INTERPRETED),
        others=REST,
        warm="/",
    )


def browser(connections: int) -> Row:
    bars = [
        against("bare", "cpu_us", 0.30, 0.40),
        against("bjoern", "cpu_us", 0.45, 0.60),
        against("werkzeug", "rate", 20),
    ]
    title = f"a browser's twelve fields, {connections} connections"
    measure = loaded("/", connections, browser=True)
    return Row(
        f"browser{connections}",
        title,
        measure,
        bars,
        peers=("bare", "bjoern", "werkzeug"),
        others=("granian", *REST),
        warm="/",
    )


def close() -> Row:
    bars = [
        against("bjoern", "cpu_us", 0.8, 1.0),
        against("bjoern", "rate", 0.8, 1.0),
        against("werkzeug", "rate", 15),
    ]
    others = ("granian", *INTERPRETED[:2], *REST)
    measure = loaded("/", 8, close=True)
    return Row(
        "close", "a new connection for each request, 8 at once", measure, bars,
        bare="close", peers=("bare", "bjoern", "werkzeug"), others=others, warm="/",
    )  # fmt: skip


def sleeping(milliseconds: int) -> Row:
    bars = [against("waitress", "rate", 1.0), against("granian", "rate", None, 1.0)]
    if milliseconds == 50:
        bars = [own("rate", "of the possible rate (64 threads / 0.05 s)", 0.95, 0.98, at_most=False, scale=0.05 / 64)]
    title = f"sleeps {milliseconds} ms, 64 connections; peers with 64 threads"
    peers = ("waitress",) if milliseconds == 50 else ("waitress", "granian")
    return Row(
        f"sleep{milliseconds}", title, loaded(f"/sleep/{milliseconds}", 64), bars,
        app=WAITING, bare=None, threads=64, warm="/quick", peers=peers, others=("gunicorn gthread", "cheroot", "granian"),
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
    """The project's own client: every latency, where wrk corrects what it finds unlikely."""
    with Client() as client:
        found = client.run(server, Request(path), connections, seconds)
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    latencies = found.latencies
    return {
        "requests": len(latencies),
        "rate": len(latencies) / found.seconds,
        **{name: percentile(latencies, share) / 1e9 for name, share in shares.items()},
    }


def best_worst(by: By) -> float | None:
    """The smallest worst latency of the others, over ours."""
    others = [figures["max"] for name, figures in by.items() if name != "microwsgi" and "max" in figures]
    ours = by.get("microwsgi", {}).get("max")
    return min(others) / ours if others and ours else None


ROWS = [
    hello(8),
    hello(64),
    browser(8),
    browser(64),
    hello(1, 0.8),
    hello(256, 0.8, (against("granian", "p99", 1.0),)),
    close(),
    *map(sleeping, (1, 2, 3, 5, 50)),
    Row(
        "beside-sleeping", "quick requests on 4 connections while 16 other connections sleep 50 ms", measure_beside_sleeping,
        [own("of_alone", "p50, of alone", 2.0), own("p99", "p99, ms", 3.0, scale=1e3)],
        app=WAITING, bare=None, threads=64, warm="/quick",
        others=("waitress", "granian", "gunicorn gthread", "cheroot", "werkzeug"),
    ),
    Row(
        "beside-spinning", "quick requests on 4 connections while 4 other connections compute 20 ms", measure_beside_spinning,
        [Bar("of the best of the others, worst", best_worst, 1.0), own("max", "worst, ms", None, 60.0, scale=1e3)],
        app=WAITING, bare=None, threads=64, warm="/quick",
        peers=("waitress", "granian", "gunicorn gthread", "cheroot", "werkzeug"),
    ),
]  # fmt: skip
