"""Servers that are libraries, each started as its users start it: `python peers.py NAME APP PORT [THREADS]`.

Each function returns what the script then calls at its own level, as a user's script does: no frame of ours is added to
the stacks of servers that serve in the main thread.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

HOST = "127.0.0.1"

Serve = Callable[[], object]


def certificate() -> tuple[str, str] | None:
    """The files of a certificate and its key, for the rows over TLS."""
    file = os.environ.get("BENCHMARK_CERTIFICATE")
    return (file, os.environ["BENCHMARK_KEY"]) if file else None


def wsgiref(app: Any, port: int, threads: int) -> Serve:
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    # Its log off, like Werkzeug's: neither pays for a line that goes nowhere.
    WSGIRequestHandler.log_message = lambda *args: None  # type: ignore[method-assign]  # wsgiref has no switch
    return make_server(HOST, port, app).serve_forever


def werkzeug(app: Any, port: int, threads: int, *, debugger: bool = False) -> Serve:
    from werkzeug.serving import run_simple

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    return partial(run_simple, HOST, port, app, threaded=True, use_debugger=debugger, ssl_context=certificate())


def werkzeug_debugger(app: Any, port: int, threads: int) -> Serve:
    return werkzeug(app, port, threads, debugger=True)


def waitress(app: Any, port: int, threads: int) -> Serve:
    from waitress import serve

    return partial(serve, app, host=HOST, port=port, threads=threads or 4)


def cheroot(app: Any, port: int, threads: int) -> Serve:
    from cheroot.wsgi import Server

    server = Server((HOST, port), app, numthreads=threads or 10)
    if files := certificate():
        from cheroot.ssl.builtin import BuiltinSSLAdapter

        server.ssl_adapter = BuiltinSSLAdapter(*files)
    start: Serve = server.start
    return start


def bjoern(app: Any, port: int, threads: int) -> Serve:
    import bjoern

    return partial(bjoern.run, app, HOST, port)


def freastal(app: Any, port: int, threads: int) -> Serve:
    import freastal

    return partial(freastal.serve, app, host=HOST, port=port)


def fastwsgi(app: Any, port: int, threads: int) -> Serve:
    # It asks setuptools for its own version; newer ones no longer have the module that it imports for that.
    module: Any = ModuleType("pkg_resources")
    module.get_distribution = importlib.metadata.distribution
    sys.modules.setdefault("pkg_resources", module)
    import fastwsgi

    fastwsgi.server.port = port  # an argument of 0 is taken for none
    return partial(fastwsgi.run, app, HOST, port)


def microwsgi(app: Any, port: int, threads: int) -> Serve:
    """Without its command line, and so without its access log."""
    from microwsgi import make_server

    return make_server(HOST, port, app).serve_forever


SERVERS = {
    f.__name__: f
    for f in (wsgiref, werkzeug, werkzeug_debugger, waitress, cheroot, bjoern, fastwsgi, freastal, microwsgi)
}

if __name__ == "__main__":
    name, application, given_port, threads = [*sys.argv[1:], "0"][:4]
    module, _, attribute = application.partition(":")
    serve = SERVERS[name](getattr(import_module(module), attribute), int(given_port), int(threads))
    serve()
