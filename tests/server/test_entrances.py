"""The same HTTP by every entrance: our server, its workers with TLS, our handler on http.server's servers, and `wsgi(app)`.

Every wire case goes through each. `docs/conformance.md` has the table.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any

import pytest

from microwsgi import WSGIRequestHandler, wsgi
from microwsgi.options import Options
from tests.server.exchange import TIME, Recorder, parse, receive
from tests.server.test_wire_cases import ALL, NEXT, check
from tests.tables import Rows
from tests.wire.cases import Case

METHODS = {request["method"] for case in ALL for request in case.requests} | {"GET", "POST", "PUT", "HEAD", "OPTIONS"}


class Plain(BaseHTTPRequestHandler):
    """A handler class that somebody has already."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Nothing."""


def adapted(application: Any, options: Options) -> type:
    """That class with the application for each method that a case has."""
    method = wsgi(application, options)
    return type("WithDo", (Plain,), {f"do_{name}": method for name in METHODS})


ENTRANCES: dict[str, tuple[type[HTTPServer], Callable[[Any, Options], type]]] = {
    "of(app) on ThreadingHTTPServer": (ThreadingHTTPServer, WSGIRequestHandler.of),
    "of(app) on HTTPServer": (HTTPServer, WSGIRequestHandler.of),
    "wsgi(app) on ThreadingHTTPServer": (ThreadingHTTPServer, adapted),
    "wsgi(app) on HTTPServer": (HTTPServer, adapted),
}
ANSWERED_BY_HTTP_SERVER = {
    "limit-request-line-http-server": "",
}


@contextlib.contextmanager
def serving(entrance: str, application: Any, options: Options) -> Iterator[Any]:
    """The address of a server of http.server with the application."""
    server_class, handler_class = ENTRANCES[entrance]

    class Server(server_class):  # type: ignore[misc, valid-type]
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that has left, as some cases do."""

    server = Server(("127.0.0.1", 0), handler_class(application, options))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[:2]
    finally:
        server.shutdown()
        thread.join(TIME)
        server.server_close()


def send(address: Any, case: Case, data: bytes) -> list[Any]:
    """The responses to some bytes, on a connection of their own."""
    with socket.create_connection(address, TIME) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        return parse(receive(connection), [request["method"] for request in case.requests])


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_wire_case_has_the_same_outcome(entrance: str) -> None:
    with Rows() as rows:
        for options in {str(case.options): case.options for case in ALL}.values():
            seen = Recorder()
            with serving(entrance, seen, Options(**options)) as address:
                for case in ALL:
                    if case.options == options:
                        for data, follow in ((case.data, None), (case.data + NEXT, "/next")):
                            with rows(case.name, follow):
                                seen.requests.clear()
                                responses = send(address, case, data)
                                (requests,) = [*seen.requests.values()] or [[]]
                                check(case, responses, requests, follow=follow)
