from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.plain import wsgi
from microwsgi.server.server import WSGIServer, make_server
from microwsgi.serving import serve

__all__ = [
    "WSGIRequestHandler",
    "WSGIServer",
    "__version__",
    "make_server",
    "serve",
    "wsgi",
]

__version__: str
HOMES: dict[str, str]
