"""Run wrk, and measure the server's processor time for its requests."""

from __future__ import annotations

import json
import math
import shutil

from benchmarks.noise import OtherLoad
from benchmarks.processes import CLIENT_CORES, Process, Server, Unavailable, client

Figures = dict[str, float]

LIMIT = 15.0  # seconds that wrk may take in addition to its duration


def command(
    server: Server, path: str, connections: int, seconds: float, *, browser: bool = False, close: bool = False
) -> list[str]:
    """Return the command line of wrk: one thread, the request, and a script that prints the results as JSON."""
    if not shutil.which("wrk"):
        raise Unavailable("wrk is not installed: apt-get install wrk")
    return [
        "wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{math.ceil(seconds)}s", "--timeout", "10s",
        "--script", f"benchmarks/clients/{'browser' if browser else 'wrk'}.lua",
        *(["--header", "Connection: close"] if close else []),
        f"{server.scheme}://127.0.0.1:{server.port}{path}",
    ]  # fmt: skip


def parse(output: str) -> Figures:
    """Return the figures that wrk.lua printed. Raise Unavailable if there are none, or if there was no response."""
    line = next((line for line in output.splitlines() if line.startswith("JSON ")), None)
    if line is None:
        raise Unavailable(f"wrk printed no results: {output.strip()[-200:]!r}")
    figures: Figures = json.loads(line[5:])
    if not figures["requests"]:
        raise Unavailable("wrk received no response")
    figures["rate"] = figures["requests"] / figures["seconds"]
    return figures


def load(
    server: Server, path: str, connections: int, seconds: float, *, browser: bool = False, close: bool = False
) -> Figures:
    """Run wrk, and return requests per second, latencies, and the server's processor time per request in microseconds."""
    arguments = command(server, path, connections, seconds, browser=browser, close=close)
    with OtherLoad(server) as other_load:
        before = server.processor_seconds()
        output = client(arguments, seconds + LIMIT)
        spent = server.processor_seconds() - before
    figures = parse(output)
    figures["foreign"] = other_load.share
    figures["cpu_us"] = spent / figures["requests"] * 1e6
    return figures


def beside(server: Server, path: str, connections: int, seconds: float) -> Process:
    """Start a load that runs while something else is measured. As a context manager, it ends the load."""
    return Process(command(server, path, connections, seconds), CLIENT_CORES)
