"""The row about frameworks: what an App's view costs beside WebOb by hand, Flask and Bottle, on the same server of ours."""

from __future__ import annotations

from benchmarks import wrk
from benchmarks.processes import Server
from benchmarks.rows import Bar, By, Row, against
from benchmarks.servers import KINDS, require
from benchmarks.wrk import Figures

HAND = "WebOb by hand"
SUBJECTS = {"microwsgi": "app()", HAND: "by_hand", "Flask": "flask()", "Bottle": "bottle()"}
CONNECTIONS = 8
MOST = 20.0  # microseconds that an App may add


def measure(name: str, python: str, log: str, seconds: float = 2.0) -> Figures:
    if name in {"Flask", "Bottle"}:
        require(name.lower(), python)
    application = f"benchmarks.subjects.frameworks:{SUBJECTS[name]}"
    with Server(KINDS["microwsgi"].command(python, application, "0", 0, log)) as server:
        wrk.load(server, "/world", CONNECTIONS, 1)
        return wrk.load(server, "/world", CONNECTIONS, seconds)


def added(by: By) -> float | None:
    """Microseconds of processor time that an App adds to WebOb by hand."""
    if "microwsgi" not in by or HAND not in by:
        return None
    return by["microwsgi"]["cpu_us"] - by[HAND]["cpu_us"]


ROWS = [
    Row(
        "framework", "a view that returns str, 8 connections; all on microwsgi's server", measure,
        [
            Bar("added to WebOb by hand, µs", added, MOST, at_most=True),
            against("Flask", "rate", 2.0),
            against("Bottle", "rate", 1.0),
        ],
        app=None, bare=None, peers=(HAND, "Flask", "Bottle"), cost=3.5,
    ),
]  # fmt: skip
