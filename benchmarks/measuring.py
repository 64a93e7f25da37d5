"""Start and control the load generator `clients/latency.py`, a child process that runs one job after another."""

from __future__ import annotations

import json
import selectors
import sys
from types import TracebackType
from typing import Any, Self

from benchmarks.clients.exchange import Request
from benchmarks.processes import CLIENT_CORES, Process, Server, Unavailable

LIMIT = 20.0  # seconds that a job may take in addition to its duration


class Measurement:
    """The result of a job: sorted latencies in nanoseconds, the duration, and the server's processor time per request."""

    def __init__(self, latencies: list[int], seconds: float, cpu_us: float) -> None:
        self.latencies, self.seconds, self.cpu_us = sorted(latencies), seconds, cpu_us


class Client:
    """The process of the load generator, as a context manager that ends it."""

    def __init__(self) -> None:
        self.process = Process([sys.executable, "-m", "benchmarks.clients.latency"], CLIENT_CORES, piped=True)

    def run(
        self,
        server: Server,
        request: Request,
        connections: int,
        seconds: float,
        *,
        keep_alive: bool = True,
        rate: float = 0.0,
        warm_up: float = 0.0,
    ) -> Measurement:
        """Send a load to a server and return its measurement. Raise Unavailable with the client's error if a request fails."""
        job = {
            "port": server.port, "request": request._asdict(), "connections": connections, "seconds": seconds,
            "keep": keep_alive, "rate": rate,
        }  # fmt: skip
        if warm_up:  # a job of its own, so that its processor time is not counted
            self._run_job({**job, "seconds": warm_up, "rate": 0.0}, warm_up)
        before = server.processor_seconds()
        found = self._run_job(job, seconds)
        spent = server.processor_seconds() - before
        return Measurement(found["latencies"], found["seconds"], spent / max(1, len(found["latencies"])) * 1e6)

    def _run_job(self, job: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a job to the client, and return its result. Raise Unavailable if it fails."""
        stdin, stdout = self.process.popen.stdin, self.process.popen.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(job).encode() + b"\n")
        stdin.flush()
        # The result is one line, which may be longer than a pipe's buffer: wait for the first byte only, then read the line.
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(seconds + LIMIT):
                raise Unavailable(f"the client did not answer within {seconds + LIMIT:.0f} s")
        line = stdout.readline()
        if not line:
            raise Unavailable(f"the client ended: {self.process.error_line()}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise Unavailable(found["error"])
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.stop()
