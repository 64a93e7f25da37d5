"""The harness's end of the measuring client: one process that stays, and a job at a time."""

from __future__ import annotations

import json
import selectors
import sys
from types import TracebackType
from typing import Any, Self

from benchmarks.clients.exchange import Request
from benchmarks.processes import CLIENT_CORES, Process, Server, Unavailable

LIMIT = 20.0  # seconds beyond its durations that a job may take


class Measurement:
    """What a job gave: sorted latencies in nanoseconds, its seconds, and the server's processor time for each."""

    def __init__(self, latencies: list[int], seconds: float, cpu_us: float) -> None:
        self.latencies, self.seconds, self.cpu_us = sorted(latencies), seconds, cpu_us


class Client:
    """The client's process; leaving the `with` ends it."""

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
        """One measurement. Raises Unavailable with what the client saw."""
        job = {
            "port": server.port, "request": request._asdict(), "connections": connections, "seconds": seconds,
            "keep": keep_alive, "rate": rate,
        }  # fmt: skip
        if warm_up:  # on its own, so that the processor time is that of the measured requests
            self._ask({**job, "seconds": warm_up, "rate": 0.0}, warm_up)
        before = server.processor_seconds()
        found = self._ask(job, seconds)
        spent = server.processor_seconds() - before
        return Measurement(found["latencies"], found["seconds"], spent / max(1, len(found["latencies"])) * 1e6)

    def _ask(self, job: dict[str, Any], seconds: float) -> dict[str, Any]:
        stdin, stdout = self.process.popen.stdin, self.process.popen.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(job).encode() + b"\n")
        stdin.flush()
        # The answer is one line, but may be longer than a pipe holds; the first byte is what there is to wait for.
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
