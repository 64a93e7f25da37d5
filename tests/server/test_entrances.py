"""The same HTTP by every entrance: our server, its workers with TLS, our handler on http.server's servers, and `wsgi(app)`.

Every wire case goes through each. `docs/conformance.md` has the table.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from microwsgi import WSGIRequestHandler, wsgi
from microwsgi.options import Options
from tests.running import ROOT, microwsgi
from tests.running import Running as Command
from tests.server.exchange import GET, LAST_GET, TIME, Recorder, parse, receive
from tests.server.test_wire_cases import ALL, NEXT, check
from tests.tables import Rows
from tests.tls.authority import Authority
from tests.wire.cases import Case

METHODS = {request["method"] for case in ALL for request in case.requests} | {"GET", "POST", "PUT", "HEAD", "OPTIONS"}


class Plain(BaseHTTPRequestHandler):
    """A handler class that somebody has already."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # http.server's name
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


@pytest.mark.parametrize(
    "entrance", [pytest.param(each, marks=[pytest.mark.slow] * ("Threading" not in each)) for each in ENTRANCES]
)
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


def recorded(environ: Any, start_response: Any) -> Any:
    """For a process of its own: what was received is in the response."""
    return Recorder()(environ, start_response)


@pytest.mark.slow
def test_every_wire_case_has_the_same_outcome_with_workers_and_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.client()
    for number, options in enumerate({str(case.options): case.options for case in ALL}.values()):
        variables = {f"MICROWSGI_{name.upper()}": str(value) for name, value in options.items()}
        arguments = [
            "--allow-host=*",
            "-p",
            "0",
            "--workers",
            "2",
            "--tls-cert",
            authority.leaf("localhost", "127.0.0.1", name=str(number)),
        ]
        command = Command(microwsgi("serve", "tests.server.test_entrances:recorded", *arguments), ROOT, **variables)
        try:
            port = int(command.url().rpartition(":")[2])
            with Rows() as rows:
                for case in ALL:
                    if case.options == options:
                        for data, follow in ((case.data, None), (case.data + NEXT, "/next")):
                            with rows(case.name, follow):
                                responses = send_secure(("127.0.0.1", port), context, case, data)
                                methods = [response for response in responses if response.status == 200]
                                requests = [json.loads(each.body) if each.body else {} for each in methods]
                                if not any(request["method"] == "HEAD" for request in case.requests):
                                    check(case, responses, requests, follow=follow)
        finally:
            command.process.terminate()
            command.process.wait(TIME)


def send_secure(address: Any, context: ssl.SSLContext, case: Case, data: bytes) -> list[Any]:
    """The responses to some bytes over TLS."""
    with (
        socket.create_connection(address, TIME) as plain,
        context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=True) as connection,
    ):
        with contextlib.suppress(OSError):
            connection.sendall(data)
            socket.socket.shutdown(connection, socket.SHUT_WR)
        received = b""
        with contextlib.suppress(
            OSError
        ):  # an alert, since the end came without close_notify; all responses came before
            while piece := connection.recv(65536):
                received += piece
        return parse(received, [request["method"] for request in case.requests])


# --- What the wire cases do not show ------------------------------------------------------------------------------------------


def faulty(environ: Any, start_response: Any) -> Any:
    path = environ["PATH_INFO"]
    if path == "/short":
        start_response("200 OK", [("Content-Length", "10")])
        return [b"some"]
    start_response("200 OK", [("Content-Length", "10")] if path == "/middle-of-length" else [])

    def body() -> Iterator[bytes]:
        yield b"some"
        raise LookupError("in the middle")

    return body() if path.startswith("/middle") else [b"next"]


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_nothing_follows_a_response_that_broke_off(entrance: str) -> None:
    with serving(entrance, faulty, Options()) as address, Rows() as rows:
        for path in (b"/middle", b"/middle-of-length", b"/short"):
            for version in (b"HTTP/1.1", b"HTTP/1.0"):
                request = GET.replace(b" / ", b" %s " % path).replace(b"HTTP/1.1", version)
                with rows(path, version), socket.create_connection(address, TIME) as connection:
                    connection.sendall(request + LAST_GET)
                    ended = True
                    data = b""
                    try:
                        while piece := connection.recv(65536):
                            data += piece
                    except ConnectionResetError:
                        ended = False
                    if path == b"/short":  # nothing had left yet
                        assert data.startswith(b"HTTP/1.1 500 ")
                    else:
                        assert b"next" not in data
                        assert b"some" in data
                        assert not data.endswith(b"0\r\n\r\n")
                        assert ended is (path != b"/middle" or version == b"HTTP/1.1")  # else it would seem whole


def test_a_method_of_the_class_gets_what_is_pipelined_behind_chunks_for_the_application() -> None:
    class Mixed(Plain):
        do_POST = wsgi(recorded)  # noqa: N815 - http.server's name

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"own")

    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mixed)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with socket.create_connection(server.server_address[:2], TIME) as connection:  # type: ignore[arg-type]
            connection.sendall((chunked + GET) * 3 + LAST_GET)
            bodies = [response.body for response in parse(receive(connection))]
    finally:
        server.shutdown()
        thread.join(TIME)
        server.server_close()
    assert [body if body == b"own" else json.loads(body)["body"] for body in bodies] == ["abc", b"own"] * 3 + [b"own"]


@pytest.mark.parametrize("size", [16, -1, 1 << 17])
def test_pipelined_chunked_bodies_keep_their_order_with_any_buffer_of_the_handlers_file(size: int) -> None:
    """Bytes that are read out of order would be another request. Python 3.14 has raised the default size to 128 KiB."""

    def application(environ: Any, start_response: Any) -> list[bytes]:
        data = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [b"%s %d" % (environ["PATH_INFO"].encode(), len(data))]

    class Posting(Plain):
        rbufsize = size
        do_POST = wsgi(application)  # noqa: N815 - http.server's name

    count, content = 400, b"POST /x HTTP/1.1\r\nHost: a\r\n\r\n" * 20
    head = b"POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n%s\r\n%x\r\n%b\r\n0\r\n\r\n"
    requests = [
        head % (number, b"Connection: close\r\n" if number == count - 1 else b"", len(content), content)
        for number in range(count)
    ]
    server = HTTPServer(("127.0.0.1", 0), Posting)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with socket.create_connection(server.server_address[:2], TIME) as connection:  # type: ignore[arg-type]
            connection.sendall(b"".join(requests))
            bodies = [response.body for response in parse(receive(connection))]
    finally:
        server.shutdown()
        thread.join(TIME)
        server.server_close()
    assert bodies == [b"/%d %d" % (number, len(content)) for number in range(count)]


def test_a_method_that_was_not_set_in_the_class_body_says_so() -> None:
    seen: list[str] = []

    class Late(Plain):
        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except TypeError as error:
                seen.append(str(error))
                self.close_connection = True

    Late.do_GET = wsgi(recorded)  # type: ignore[attr-defined]
    server = HTTPServer(("127.0.0.1", 0), Late)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with socket.create_connection(server.server_address[:2], TIME) as connection:  # type: ignore[arg-type]
        connection.sendall(GET)
        assert receive(connection) == b""
    thread.join(TIME)
    server.server_close()
    assert "in the class body" in seen[0]
