"""WSGIServer and WSGIRequestHandler for programs that embed them, connected to modules of higher layers.

The layer of the server is below that of TLS (docs/architecture.md). TLS is imported when a program passes a socket with TLS.
"""

from __future__ import annotations

from importlib import import_module

from microwsgi.options import Options
from microwsgi.server.connections import Security
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.hooks import hooked_class
from microwsgi.server.server import WSGIServer


def tls_of_context(context: object, options: Options) -> Security:
    """Return the TLS of an ssl.SSLContext."""
    made: Security = import_module("microwsgi.tls.front").make_tls(options, context)
    return made


WSGIServer.tls_of_context = staticmethod(tls_of_context)
WSGIRequestHandler.hooked = staticmethod(hooked_class)

__all__ = ["WSGIRequestHandler", "WSGIServer"]
