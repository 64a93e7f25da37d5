"""wrk, and what the server paid for its requests."""

from __future__ import annotations

import json
import math
import shutil

from benchmarks.noise import OtherLoad
from benchmarks.processes import CLIENT_CORES, Process, Server, Unavailable, client

Figures = dict[str, float]

LIMIT = 15.0  # seconds beyond its duration that wrk may take


def command(
    server: Server, path: str, connections: int, seconds: float, *, browser: bool = False, close: bool = False
) -> list[str]:
    """The command line: one thread, our script for what it prints, and the request that is asked for."""
    if not shutil.which("wrk"):
        raise Unavailable("wrk is not installed: apt-get install wrk")
    return [
        "wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{math.ceil(seconds)}s", "--timeout", "10s",
        "--script", f"benchmarks/clients/{'browser' if browser else 'wrk'}.lua",
        *(["--header", "Connection: close"] if close else []),
        f"{server.scheme}://127.0.0.1:{server.port}{path}",
    ]  # fmt: skip


def parse(output: str) -> Figures:
    """What wrk.lua printed."""
    line = next((line for line in output.splitlines() if line.startswith("JSON ")), None)
    if line is None:
        raise Unavailable(f"wrk said {output.strip()[-200:]!r}")
    figures: Figures = json.loads(line[5:])
    if not figures["requests"]:
        raise Unavailable("wrk got no response")
    figures["rate"] = figures["requests"] / figures["seconds"]
    return figures


def load(
    server: Server, path: str, connections: int, seconds: float, *, browser: bool = False, close: bool = False
) -> Figures:
    """One run: requests per second, latencies, and processor microseconds per request of the server's processes."""
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
    """Load that runs while something else is measured; leaving the `with` ends it."""
    return Process(command(server, path, connections, seconds), CLIENT_CORES)
