"""Rows for free-threaded builds of Python: one process on all cores, compared with the same process on one core."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import wrk
from benchmarks.interpreter import FREE_THREADED
from benchmarks.processes import CORES, SERVER_CORE, Server
from benchmarks.rows import Row, ratio_to, value_of
from benchmarks.servers import HELLO, SERVERS
from benchmarks.wrk import Figures

WAITING = "benchmarks.subjects.waiting:app"
THREADS = 16
CONNECTIONS = 16
SECONDS = 2.0  # of each measurement
PEERS = ("granian", "gunicorn gthread")


def scaling(app: str, path: str) -> Callable[[str, str, str], Figures]:
    """Return a function that measures the request rate on all cores, and its ratio to the rate on one core.

    On all cores, the client shares them with the server.
    """

    def measure(name: str, python: str, log: str) -> Figures:
        rates = []
        for cores in (SERVER_CORE, set(CORES)):
            with Server(SERVERS[name].command(python, app, "0", THREADS, log), cores=cores) as server:
                wrk.load(server, path, CONNECTIONS, 1)
                rates.append(wrk.load(server, path, CONNECTIONS, SECONDS)["rate"])
        return {"rate": rates[1], "scaling": rates[1] / rates[0]}

    return measure


def row(name: str, title: str, app: str, path: str, bar: float, aim: float | None = None) -> Row:
    bars = [
        value_of("scaling", "times one core", bar, aim, at_most=False),
        *(ratio_to(peer, "rate", None) for peer in PEERS),
    ]
    return Row(
        name, f"without the interpreter lock, {len(CORES)} cores: {title}", scaling(app, path), bars,
        app=None, peers=PEERS, expected_seconds=9.0, required_build=FREE_THREADED,
    )  # fmt: skip


ROWS = [
    row("cores-compute", "an application that computes 5 ms", WAITING, "/spin/5", 1.8, 1.95),
    row("cores-hello", "hello world", HELLO, "/", 1.3),
]
