"""The row `framework`: a view of an App compared with plain WebOb, Flask and Bottle, all served by microwsgi."""

from __future__ import annotations

from benchmarks import wrk
from benchmarks.processes import Server
from benchmarks.rows import Bar, RoundFigures, Row, ratio_to
from benchmarks.servers import SERVERS, require
from benchmarks.wrk import Figures

PLAIN_WEBOB = "plain WebOb"
SUBJECTS = {"microwsgi": "app()", PLAIN_WEBOB: "by_hand", "Flask": "flask()", "Bottle": "bottle()"}
CONNECTIONS = 8
MAX_ADDED_US = 20.0  # microseconds of processor time that an App may add to plain WebOb


def measure(name: str, python: str, log: str, seconds: float = 2.0) -> Figures:
    """Measure a framework's application with wrk."""
    if name in {"Flask", "Bottle"}:
        require(name.lower(), python)
    application = f"benchmarks.subjects.frameworks:{SUBJECTS[name]}"
    with Server(SERVERS["microwsgi"].command(python, application, "0", 0, log)) as server:
        wrk.load(server, "/world", CONNECTIONS, 1)
        return wrk.load(server, "/world", CONNECTIONS, seconds)


def added_cpu_us(round_figures: RoundFigures) -> float | None:
    """Return the microseconds of processor time per request that an App adds to plain WebOb."""
    if "microwsgi" not in round_figures or PLAIN_WEBOB not in round_figures:
        return None
    return round_figures["microwsgi"]["cpu_us"] - round_figures[PLAIN_WEBOB]["cpu_us"]


ROWS = [
    Row(
        "framework", "a view that returns str, 8 connections; all on microwsgi's server", measure,
        [
            Bar("µs more than plain WebOb", added_cpu_us, MAX_ADDED_US, at_most=True),
            ratio_to("Flask", "rate", 2.0),
            ratio_to("Bottle", "rate", 1.0),
        ],
        app=None, bare=None, peers=(PLAIN_WEBOB, "Flask", "Bottle"), expected_seconds=3.5,
    ),
]  # fmt: skip
