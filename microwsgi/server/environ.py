"""The environ of PEP 3333: what is the same for all requests to an address, and what each request adds.

`microwsgi.server.handler` calls `request_environ` with what `microwsgi.wire.head` parsed; the application gets the result.
Nothing of the process's own environment is in it: a page that prints its environ must not print secrets.
"""

from __future__ import annotations

from socket import SocketType
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

from microwsgi.errors import MisdirectedRequest
from microwsgi.wire.head import origin_form
from microwsgi.wire.response import SERVER

Environ = dict[str, object]

PER_REQUEST = (
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
    """The part that does not change while a listening socket lives; `address` is what it is bound to."""
    host, port = address[:2] if isinstance(address, tuple) else ("localhost", 80)
    return {
        "SCRIPT_NAME": "",
        # A wildcard is nobody's name, and to look ours up could wait for a name server for half a minute.
        "SERVER_NAME": "localhost" if host in {"", "0.0.0.0", "::"} else host,  # noqa: S104 - compared, not bound
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
        # Of each request: named here so that its copy has room for them, and need not grow.
        **dict.fromkeys(PER_REQUEST),
    }


def request_environ(base: Environ, fields: dict[str, str], method: str, target: str, version: str) -> Environ:
    """A copy of the base with a parsed head; the handler adds the client, the input and the server's own keys."""
    path, _, query = target.partition("?") if target[0] == "/" else origin_form(target).partition("?")
    if target[0] in "hH" and base["wsgi.url_scheme"] == "http" and target[:6].lower() == "https:":
        raise MisdirectedRequest("An https resource is not served without TLS (RFC 9110 7.4).")
    if "%" in path:  # PEP 3333: bytes as latin-1, whatever encoding the client meant
        path = unquote_to_bytes(path).decode("latin-1")
    environ = base.copy()
    environ["REQUEST_METHOD"] = method
    environ["PATH_INFO"] = path
    environ["QUERY_STRING"] = query
    environ["SERVER_PROTOCOL"] = version
    environ["REQUEST_URI"] = environ["RAW_URI"] = target
    environ.update(fields)
    return environ


class TakenSocket:
    """The connection's socket for who speaks something else than HTTP on it, like the WebSocket libraries.

    With the first use it is the application's: blocking, out of the server's poller, never touched by the server again.
    Bytes that the server had read ahead come first.
    """

    def __init__(self, take: object) -> None:
        self._take = take
        self._socket: SocketType | None = None
        self._ahead = b""

    def __getattr__(self, name: str) -> object:
        """Whatever a socket has."""
        return getattr(self._taken(), name)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As socket.recv."""
        taken = self._taken()
        if not self._ahead:
            return taken.recv(size, flags)
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def _taken(self) -> SocketType:
        if self._socket is None:
            self._socket, self._ahead = self._take()  # type: ignore[operator]
        return self._socket
