"""Start a server that is a library, as its users do: `python peers.py NAME APP PORT [THREADS]`.

Each function returns a callable, which the script calls at module level, as a user's script would: so the stacks of servers
that serve in the main thread get no additional frame.
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
    """Return the paths of the certificate and its key, or None in rows without TLS."""
    file = os.environ.get("BENCHMARK_CERTIFICATE")
    return (file, os.environ["BENCHMARK_KEY"]) if file else None


def wsgiref(app: Any, port: int, threads: int) -> Serve:
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    # Without its access log, as Werkzeug below.
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
    # fastwsgi imports pkg_resources to find its own version; current versions of setuptools no longer contain it.
    module: Any = ModuleType("pkg_resources")
    module.get_distribution = importlib.metadata.distribution
    sys.modules.setdefault("pkg_resources", module)
    import fastwsgi

    fastwsgi.server.port = port  # fastwsgi ignores an argument of 0
    return partial(fastwsgi.run, app, HOST, port)


def microwsgi(app: Any, port: int, threads: int) -> Serve:
    """Start microwsgi without its command line, and therefore without an access log."""
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
