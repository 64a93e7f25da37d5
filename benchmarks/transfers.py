"""Rows that transfer data: a file, uploads, a response of many small chunks. The bare loops do only the transfer."""

from __future__ import annotations

import json
from collections.abc import Callable

from benchmarks.processes import Server, python_client
from benchmarks.rows import Row, ratio_to, value_of
from benchmarks.wrk import Figures

TRANSFER = "benchmarks.subjects.transfer:app"
SLOWEST = 20e6  # bytes per second: slower transfers are aborted
MAX_GROWN = 4096  # KiB by which memory may grow during a transfer of any size


def transfer(mode: str, path: str, times: int) -> Callable[[Server, float, int], Figures]:
    """Return a function that measures a transfer: time, processor time and memory growth of the server.

    The result is the transfer with the median time.
    """

    def measure(server: Server, seconds: float, size: int) -> Figures:
        resident = server.resident_kib()
        arguments = [mode, path, *([size] if mode != "download" else [])]
        tries = []
        for _ in range(times):
            before = server.processor_seconds()
            moved = json.loads(python_client("transfer", server.port, *arguments, limit=30 + size / SLOWEST))
            tries.append({**moved, "cpu_s": server.processor_seconds() - before})
        figures: Figures = sorted(tries, key=lambda each: each["seconds"])[times // 2]
        grown = max(0, server.peak_kib() - resident)
        return {**figures, "rate": figures["bytes"] / figures["seconds"], "grown_kib": grown}

    return measure


def row(name: str, title: str, mode: str, path: str, bare: str, bar: float, *, times: int = 1) -> Row:
    bars = [ratio_to("bare", "seconds", bar), value_of("grown_kib", "memory growth, KiB", MAX_GROWN)]
    return Row(
        name, title, transfer(mode, path, times), bars, app=TRANSFER, bare=bare, takes_size=True,
        peers=("bare",), optional_peers=("granian", "waitress", "gunicorn gthread", "cheroot", "werkzeug"),
    )  # fmt: skip


ROWS = [
    row("file", "a file sent with wsgi.file_wrapper", "download", "/file", "sendfile", 0.90),
    row("upload", "an upload with Content-Length, read in pieces of 64 KiB", "length", "/upload", "recv_into", 0.75),
    row("chunked", "an upload in chunks of 64 KiB", "chunked", "/upload", "recv_into", 0.50),
    row("stream", "a response of 100,000 chunks of 10 bytes", "download", "/chunks", "chunks", 0.80, times=5),
]
