"""Servers that are libraries, each started as its users start it: `python -m benchmarks.subjects.peers NAME APP PORT [THREADS]`."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Any

HOST = "127.0.0.1"


def wsgiref(app: Any, port: int, threads: int) -> None:
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Its log off, like Werkzeug's: neither pays for a line that goes nowhere."""

    make_server(HOST, port, app, handler_class=Silent).serve_forever()


def werkzeug(app: Any, port: int, threads: int) -> None:
    from werkzeug.serving import run_simple

    logging.getLogger("werkzeug").disabled = True
    run_simple(HOST, port, app, threaded=True)


def waitress(app: Any, port: int, threads: int) -> None:
    from waitress import serve

    serve(app, host=HOST, port=port, threads=threads or 4)


def cheroot(app: Any, port: int, threads: int) -> None:
    from cheroot.wsgi import Server

    Server((HOST, port), app, numthreads=threads or 10).start()


def bjoern(app: Any, port: int, threads: int) -> None:
    import bjoern

    bjoern.run(app, HOST, port)


def microwsgi(app: Any, port: int, threads: int) -> None:
    """Without its command line: no access log, so not what the table is about."""
    from microwsgi.server.server import make_server

    make_server(HOST, port, app).serve_forever()


SERVERS = {f.__name__: f for f in (wsgiref, werkzeug, waitress, cheroot, bjoern, microwsgi)}

if __name__ == "__main__":
    name, application, port, threads = sys.argv[1:5]
    module, _, attribute = application.partition(":")
    SERVERS[name](getattr(import_module(module), attribute), int(port), int(threads))
