"""Rows that move bytes: a file, an upload, a stream of small chunks, each beside a bare loop doing only that."""

from __future__ import annotations

import json
from collections.abc import Callable

from benchmarks.processes import Server, python_client
from benchmarks.rows import Row, against, own
from benchmarks.wrk import Figures

TRANSFER = "benchmarks.subjects.transfer:app"
SLOWEST = 20e6  # bytes a second: a transfer slower than this is given up
FLAT = 4096  # KiB that memory may grow while a transfer of any size runs


def transfer(how: str, path: str) -> Callable[[Server, float, int], Figures]:
    """Move the bytes once: seconds, processor seconds of the server, and how far its memory rose."""

    def measure(server: Server, seconds: float, size: int) -> Figures:
        resident, before = server.resident_kib(), server.processor_seconds()
        arguments = [how, path, *([size] if how != "download" else [])]
        moved = json.loads(python_client("transfer", server.port, *arguments, limit=30 + size / SLOWEST))
        spent = server.processor_seconds() - before
        grown = max(0, server.peak_kib() - resident)
        return {**moved, "cpu_s": spent, "rate": moved["bytes"] / moved["seconds"], "grown_kib": grown}

    return measure


def row(name: str, title: str, how: str, path: str, bare: str, bar: float) -> Row:
    bars = [against("bare", "seconds", bar), own("grown_kib", "memory grown, KiB", FLAT)]
    return Row(
        name, title, transfer(how, path), bars, app=TRANSFER, bare=bare, sized=True,
        peers=("bare",), others=("granian", "waitress", "gunicorn gthread", "cheroot", "werkzeug"),
    )  # fmt: skip


ROWS = [
    row("file", "a file by wsgi.file_wrapper", "download", "/file", "sendfile", 0.90),
    row("upload", "an upload by length, read in 64 KiB pieces", "length", "/upload", "recv_into", 0.75),
    row("chunked", "the same upload in chunks of 64 KiB", "chunked", "/upload", "recv_into", 0.50),
    row("stream", "a response of 100,000 chunks of 10 bytes", "download", "/chunks", "chunks", 0.80),
]
