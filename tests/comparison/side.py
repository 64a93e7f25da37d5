"""The process of one side: serve the application in several ways until standard input ends, then report what was recorded.

    python -P -m tests.comparison.side SPECIFICATION    with PYTHONPATH=CHECKOUT:ROOT; CHECKOUT's microwsgi is served

The specification is JSON: {"servers": {name: {"kind": ..., "options": {...}}}, "certificate": file}. The first line written is
JSON with the package's folder and the port of each server; the last one has the events, the error log and the figures.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from http.server import ThreadingHTTPServer
from typing import Any

import microwsgi
from microwsgi import make_server
from microwsgi import options as options_module
from tests.comparison.application import EVENTS, Plain, application

WAIT = 20
"""Seconds for a server to stop."""


OLD_NAMES = {
    "max_line_size": "line_length",
    "max_header_size": "head_size",
    "max_header_count": "field_count",
    "max_body_size": "body_size",
    "header_timeout": "head_time",
    "keep_alive_timeout": "idle_time",
    "body_timeout": "body_time",
    "send_timeout": "write_time",
}
"""Names of options in version 0.1."""


def make_options(given: dict[str, Any]) -> Any:
    """The options in this version, or in 0.1."""
    if hasattr(options_module, "OPTIONS"):  # 0.1
        given = {OLD_NAMES.get(name, name): value for name, value in given.items()}
    return options_module.Options(**given)


class Log(io.TextIOBase):
    """The error log: each entry is written in one call, by any thread."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def write(self, text: str) -> int:
        self.entries.append(text)
        return len(text)


class QuietServer(ThreadingHTTPServer):
    """http.server's, for the adapter."""

    daemon_threads = True
    request_queue_size = 100


def make(kind: str, options: dict[str, Any], certificate: str, log: Log) -> Any:
    """A server of this kind, on a free port."""
    address = ("127.0.0.1", 0)
    if kind == "tls":
        return make_server(*address, application, ssl_context=(certificate, certificate))
    if kind == "plain":
        return microwsgi.WSGIServer(address, Plain, options=make_options(options), errors=log)
    if kind == "adapter":
        return QuietServer(address, microwsgi.WSGIRequestHandler.of(application))
    return microwsgi.WSGIServer(address, application=application, options=make_options(options), errors=log)


def main() -> None:
    """Serve, report, and end without waiting for threads that are left."""
    specification = json.loads(sys.argv[1])
    output, log = sys.stdout, Log()
    sys.stderr = log  # the adapter's, and the one with TLS
    servers = {
        name: make(entry["kind"], entry["options"], specification["certificate"], log)
        for name, entry in specification["servers"].items()
    }
    threads = {name: threading.Thread(target=server.serve_forever, daemon=True) for name, server in servers.items()}
    for thread in threads.values():
        thread.start()
    ports = {name: server.server_address[1] for name, server in servers.items()}
    output.write(json.dumps({"package": os.path.dirname(microwsgi.__file__), "ports": ports}) + "\n")
    output.flush()
    sys.stdin.read()
    figures: dict[str, object] = {}
    for name, server in servers.items():
        stats = getattr(server, "stats", getattr(server, "figures", dict))  # the name in this version, and in 0.1
        figures[name] = stats()
        threading.Thread(target=server.shutdown, daemon=True).start()
    for name, thread in threads.items():
        thread.join(WAIT)
        figures[f"{name} has stopped"] = not thread.is_alive()
    output.write(json.dumps({"events": EVENTS, "log": log.entries, "figures": figures}) + "\n")
    output.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
