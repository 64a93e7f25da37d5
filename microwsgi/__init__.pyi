from webob import Response

from microwsgi.framework.app import App
from microwsgi.framework.files import FileResponse
from microwsgi.framework.markup import html
from microwsgi.framework.problems import abort
from microwsgi.framework.request import Request
from microwsgi.framework.views import redirect
from microwsgi.server.compat import wsgi
from microwsgi.serving.assembly import make_server
from microwsgi.serving.embedding import WSGIRequestHandler, WSGIServer
from microwsgi.serving.serve import serve

__all__ = [
    "App",
    "FileResponse",
    "Request",
    "Response",
    "WSGIRequestHandler",
    "WSGIServer",
    "__version__",
    "abort",
    "html",
    "make_server",
    "redirect",
    "serve",
    "wsgi",
]

__version__: str
LAZY_IMPORTS: dict[str, str]
