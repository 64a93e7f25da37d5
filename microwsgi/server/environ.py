"""The part of the environ of PEP 3333 that all requests to an address share; `Exchange.environ` adds the part of a request.

It does not contain the environment variables of the process: a page that prints its environ must not print secrets.
"""

from __future__ import annotations

from wsgiref.util import FileWrapper

from microwsgi.wire.response import SERVER

Environ = dict[str, object]

REQUEST_KEYS = (
    "REQUEST_METHOD",
    "PATH_INFO",
    "QUERY_STRING",
    "SERVER_PROTOCOL",
    "REQUEST_URI",
    "RAW_URI",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "wsgi.input",
    "wsgi.early_hints",
    "microwsgi.socket",
)


def base_environ(address: object, errors: object, *, multithread: bool) -> Environ:
    """Return the keys that all requests to one listening socket share; `address` is the address of that socket."""
    host, port = address[:2] if isinstance(address, tuple) else ("localhost", 80)
    return {
        "SCRIPT_NAME": "",
        # A wildcard address is not a name, and looking up our own name could block on DNS for half a minute.
        "SERVER_NAME": "localhost" if host in {"", "0.0.0.0", "::"} else host,
        "SERVER_PORT": str(port),
        "SERVER_SOFTWARE": SERVER,
        "GATEWAY_INTERFACE": "CGI/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": errors,
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.input_terminated": True,
        # The keys of each request are present, so that copies of this dict do not have to grow.
        **dict.fromkeys(REQUEST_KEYS),
    }
