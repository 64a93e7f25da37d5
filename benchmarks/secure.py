"""Rows over TLS: requests on persistent connections, and handshakes. "microwsgi, plain" is the same server without TLS.

All servers use one certificate, made for the run, and TLS 1.3; the client of the handshakes checks the version.
"""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from benchmarks import wrk
from benchmarks.confidence import percentile
from benchmarks.noise import OtherLoad
from benchmarks.processes import Server, Unavailable, python_client
from benchmarks.rows import Bar, RoundFigures, Row, ratio_to
from benchmarks.servers import HELLO, SERVERS
from benchmarks.wrk import Figures

PLAIN = "microwsgi, plain"
PEERS = ("gunicorn gthread", "cheroot", "werkzeug")
SECONDS = 1.5  # of each measurement
LIMIT = 15.0  # seconds that the client may take in all
FLAGS = {
    "microwsgi": ("--tls-cert", "--tls-key"),
    "gunicorn gthread": ("--certfile", "--keyfile"),
    "granian": ("--ssl-certificate", "--ssl-keyfile"),
}
"""Options for the certificate and its key. Other servers read the paths from the environment (`subjects/peers.py`)."""


@cache
def certificate() -> tuple[str, str]:
    """Make a P-256 certificate, and return the paths of it and its key. Both are deleted at exit."""
    folder = Path(tempfile.mkdtemp(prefix="microwsgi-benchmark-"))
    atexit.register(shutil.rmtree, folder)
    files = str(folder / "certificate.pem"), str(folder / "key.pem")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command = ["openssl", "req", "-x509", *curve, "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*command, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    except FileNotFoundError:
        raise Unavailable("openssl is not installed: apt-get install openssl") from None
    return files


def serving(name: str, python: str, log: str = "off") -> Server:
    """Start a subject with the certificate, or PLAIN without it."""
    kind, files = "microwsgi" if name == PLAIN else name, certificate()
    command = SERVERS[kind].command(python, HELLO, "0", 0, log)
    if name == PLAIN:
        return Server(command)
    options = [word for flag, file in zip(FLAGS.get(name, ()), files, strict=False) for word in (flag, file)]
    return Server([*command, *options], scheme="https", BENCHMARK_CERTIFICATE=files[0], BENCHMARK_KEY=files[1])


def wrk_measurement(connections: int) -> Callable[[str, str, str], Figures]:
    def measure(name: str, python: str, log: str) -> Figures:
        with serving(name, python, log) as server:
            wrk.load(server, "/", connections, 1)
            return wrk.load(server, "/", connections, SECONDS)

    return measure


def handshakes(mode: str) -> Callable[[str, str, str], Figures]:
    """Return a function that measures new connections, one after another.

    The client is slower than most servers, so processor time is the meaningful figure, not the rate.
    """

    def measure(name: str, python: str, log: str) -> Figures:
        with serving(name, python, log) as server:
            connecting = "plain" if name == PLAIN else mode
            python_client("handshakes", server.port, 0.3, connecting, limit=LIMIT)
            with OtherLoad(server) as other_load:
                before = server.processor_seconds()
                found = json.loads(python_client("handshakes", server.port, SECONDS, connecting, limit=LIMIT))
                spent = server.processor_seconds() - before
        latencies, count = sorted(found["latencies"]), len(found["latencies"])
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
        return {
            "cpu_us": spent / count * 1e6, "of_core": count / spent, "foreign": other_load.share,
            **{each: percentile(latencies, share) / 1e9 for each, share in shares.items()},
            "resumed_percent": found["resumed"] / count * 100,
        }  # fmt: skip

    return measure


def ratio_to_best(figure: str, word: str, bar: float | None) -> Bar:
    """Return the ratio of microwsgi's figure to that of the best peer, so that more than 1 is better."""

    def ratio(round_figures: RoundFigures) -> float | None:
        ours = round_figures.get("microwsgi", {}).get(figure)
        theirs = [round_figures[name][figure] for name in PEERS if name in round_figures]
        if not ours or not theirs:
            return None
        return ours / max(theirs) if figure == "rate" else min(theirs) / ours

    return Bar(f"of the best of {len(PEERS)} peers in Python, {word}", ratio, bar)


def keep_alive_row(connections: int) -> Row:
    bars = [
        ratio_to_best("rate", "requests/s", 3.0),
        ratio_to("granian", "rate", None),
        ratio_to(PLAIN, "rate", None),
        ratio_to(PLAIN, "cpu_us", None),
    ]
    title = f"hello world over TLS 1.3, {connections} connections, keep-alive"
    peers = (PLAIN, *PEERS, "granian")
    return Row(
        f"tls{connections}", title, wrk_measurement(connections), bars, app=None, peers=peers, expected_seconds=4.0
    )


def handshake_row(name: str, mode: str, title: str) -> Row:
    bars = [ratio_to_best("cpu_us", "processor time", None), ratio_to(PLAIN, "cpu_us", None)]
    return Row(name, title, handshakes(mode), bars, app=None, peers=(PLAIN, *PEERS, "granian"), expected_seconds=2.5)


ROWS = [
    keep_alive_row(8),
    keep_alive_row(64),
    handshake_row("tls-new", "full", "a new TLS connection for each request, a full handshake"),
    handshake_row("tls-resumed", "resumed", "a new TLS connection for each request, with session resumption"),
]
