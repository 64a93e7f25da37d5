"""A development server for WSGI applications, with few stack frames between the socket and the function.

The public names load when they are first used, so that `microwsgi --help` and a bare WSGI application never import WebOb.
Type checkers read `__init__.pyi`, which declares the same names; a test compares the two.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.2.0.dev0"

LAZY_IMPORTS = {
    "App": "microwsgi.framework.app",
    "FileResponse": "microwsgi.framework.files",
    "Request": "microwsgi.framework.request",
    "Response": "webob",
    "WSGIRequestHandler": "microwsgi.serving.embedding",
    "WSGIServer": "microwsgi.serving.embedding",
    "html": "microwsgi.framework.markup",
    "abort": "microwsgi.framework.problems",
    "make_server": "microwsgi.serving.assembly",
    "redirect": "microwsgi.framework.views",
    "serve": "microwsgi.serving.serve",
    "wsgi": "microwsgi.server.compat",
}
"""Each public name, and the module that defines it."""

__all__ = [*LAZY_IMPORTS, "__version__"]  # noqa: PLE0604 - the keys of LAZY_IMPORTS are strings


def __getattr__(name: str) -> object:
    """Import a public name (PEP 562), and store it, so that this is called only once for each name."""
    if name not in LAZY_IMPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(LAZY_IMPORTS[name]), name)
    return value


def __dir__() -> list[str]:
    """Return the names that exist already, and the public names that were not imported yet."""
    return sorted({*globals(), *LAZY_IMPORTS})
