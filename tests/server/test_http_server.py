"""The contract of http.server, socketserver and wsgiref: what their documentation lets a subclass do works, or is refused.

`docs/http-server.md` has the list. A plain handler class is logged, counted and answered as an application is.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ForkingMixIn, StreamRequestHandler, ThreadingMixIn
from time import monotonic
from typing import Any
from wsgiref.simple_server import demo_app, make_server
from wsgiref.validate import validator

import pytest

from microwsgi import WSGIRequestHandler, WSGIServer
from microwsgi.options import Options
from microwsgi.server.hooks import REFUSED_HANDLER_METHODS, REFUSED_SERVER_METHODS
from microwsgi.server.hosts import Hosts
from tests.server.exchange import GET, LAST_GET, TIME, Environ, Log, StartResponse, hello, parse, receive, receive_until
from tests.tables import Rows
from tests.tls.authority import Authority


@contextlib.contextmanager
def serve(server: Any) -> Iterator[tuple[str, int]]:
    """Run a server that was made already, and stop it."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[:2]
    finally:
        server.shutdown()
        thread.join(TIME)
        server.server_close()
    assert not thread.is_alive()


def talk(address: Any, data: bytes = LAST_GET) -> bytes:
    """What comes back until the server closes."""
    with socket.create_connection(address, TIME) as connection:
        connection.sendall(data)
        return receive(connection)


def get(address: Any, data: bytes = LAST_GET) -> Any:
    """The one response."""
    (response,) = parse(talk(address, data))
    return response


def make(handler: Any = WSGIRequestHandler, server: Any = WSGIServer, application: Any = hello, **more: Any) -> Any:
    """A server of one of these classes, whose error log is `errors`."""
    return server(("127.0.0.1", 0), handler, application=application, errors=Log(), **more)


# --- The handler class ------------------------------------------------------------------------------------------------------


class Recorder(WSGIRequestHandler):
    """Overrides the methods that http.server and wsgiref document for that; `calls` has what they were given."""

    calls: list[tuple[Any, ...]]
    server_version = "Recorder/1"

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        self.calls.append(("log_request", self.requestline, code, size, threading.current_thread().name))
        super().log_request(code, size)

    def log_message(self, format: str, *args: Any) -> None:  # http.server's name
        self.calls.append(("log_message", format % args))

    def log_error(self, format: str, *args: Any) -> None:  # http.server's name
        self.calls.append(("log_error", format % args, threading.current_thread().name))

    def date_time_string(self, timestamp: float | None = None) -> str:
        assert timestamp is None
        return "Sun, 06 Nov 1994 08:49:37 GMT"

    def get_environ(self) -> Environ:
        return {**super().get_environ(), "mine": f"{self.command} {self.path} {self.client_address[0]}"}


def recorder() -> type[Recorder]:
    """The class with a list of its own."""
    return type("Recorder", (Recorder,), {"calls": []})


def mine(environ: Environ, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [])
    return [str(environ.get("mine")).encode()]


@pytest.mark.parametrize("kind", ["ours", "of an application", "handle_request"])
def test_the_overridden_methods_of_a_handler_class_are_called(kind: str) -> None:
    handler = recorder()
    if kind == "of an application":
        server: Any = ThreadingHTTPServer(("127.0.0.1", 0), handler.of(mine))
        with serve(server) as address:
            data = talk(address)
    elif kind == "handle_request":
        server = make(handler, application=mine)
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        data = talk(server.server_address)
        thread.join(TIME)
        server.server_close()
    else:
        with serve(make(handler, application=mine)) as address:
            data = talk(address)
    (response,) = parse(data)
    assert response.body == b"GET / 127.0.0.1"
    assert response.field("Server") == "Recorder/1"
    assert response.field("Date") == "Sun, 06 Nov 1994 08:49:37 GMT"
    (request, message) = handler.calls
    assert request[:4] == ("log_request", "GET / HTTP/1.1", 200, 15)
    assert message == ("log_message", '"GET / HTTP/1.1" 200 15')
    if kind == "ours":
        assert request[4].startswith("microwsgi-")


def test_a_refusal_is_logged_by_the_overridden_methods_in_a_thread_of_the_pool() -> None:
    handler = recorder()
    with serve(make(handler)) as address:
        response = get(address, b"GET / HTTP/1.1\r\n\r\n")
    assert response.status == 400
    assert response.field("Server") == "Recorder/1"
    assert [call[0] for call in handler.calls] == ["log_request", "log_message", "log_error"]
    assert handler.calls[0][2] == 400
    assert "(RFC 9112 3.2)" in handler.calls[2][1]
    assert all(handler.calls[index][-1].startswith("microwsgi-") for index in (0, 2))


def test_the_log_is_written_when_a_long_response_has_left_and_once_for_each_of_several() -> None:
    handler = recorder()

    def application(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return [b"x" * 3_000_000] if environ["PATH_INFO"] == "/list" else iter([b"y" * 1_500_000, b"z"])

    one, two = GET.replace(b" / ", b" /list "), GET.replace(b" / ", b" /generator ")
    with serve(make(handler, application=application)) as address:
        responses = parse(talk(address, one + two + one + LAST_GET))
    assert [len(response.body) for response in responses] == [3_000_000, 1_500_001] * 2
    assert [call[3] for call in handler.calls if call[0] == "log_request"] == [3_000_000, 1_500_001] * 2


def test_an_overridden_method_that_blocks_or_raises_stops_nobody_else() -> None:
    inside, go_on = threading.Event(), threading.Event()

    class Handler(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # http.server's name
            if "/wait" in format % args:
                inside.set()
                assert go_on.wait(TIME)
            raise ValueError("no log")

    server = make(Handler)
    with serve(server) as address, socket.create_connection(address, TIME) as waiting:
        waiting.sendall(GET.replace(b" / ", b" /wait "))
        assert inside.wait(TIME)
        assert receive_until(waiting)  # the response was sent before
        assert [get(address).status for _ in range(3)] == [200] * 3
        go_on.set()
        waiting.sendall(LAST_GET)
        assert receive(waiting)
    assert server.context.errors.text.getvalue().count("ValueError: no log") == 5


@pytest.mark.parametrize("method", ["log_request", "log_error", "version_string", "date_time_string"])
def test_a_method_that_blocks_for_a_refused_request_stops_nobody_else(method: str) -> None:
    """However the request is refused: the thread that polls never calls the methods of the class."""
    blocks, inside, go_on = threading.Event(), threading.Semaphore(0), threading.Event()

    def block(self: Any, *_: Any) -> str:
        if blocks.is_set():
            blocks.clear()
            inside.release()
            assert go_on.wait(TIME)
        return "own"

    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    refused = {
        "no Host": (400, b"GET / HTTP/1.1\r\n\r\n"),
        "no HTTP": (400, b"hello\r\n\r\n"),
        "an unknown expectation": (417, chunked + b"Expect: more\r\n\r\n"),
        "a body that is too long": (413, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n"),
        "an invalid chunk": (400, chunked + b"\r\nzz\r\n"),
        "a long field": (431, b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 10_000),
        "a head that stops": (408, b"GET / HTTP/1.1\r\nHos"),
        "a body that stops": (408, chunked + b"\r\n5\r\nhel"),
    }
    options = Options(
        threads=2 * len(refused) + 2, max_body_size=100, max_header_size=8192, header_timeout=0.1, body_timeout=0.1
    )
    handler = type("Handler", (WSGIRequestHandler,), {method: block})
    with serve(make(handler, options=options)) as address, contextlib.ExitStack() as stack, Rows() as rows:
        clients = {name: stack.enter_context(socket.create_connection(address, TIME)) for name in refused}
        for name, (_, data) in refused.items():
            blocks.set()
            clients[name].sendall(data)
            with rows(name, "the method is called"):
                assert inside.acquire(timeout=TIME)
            with rows(name, "others are served"):
                assert [get(address).status for _ in range(3)] == [200] * 3
        go_on.set()
        for name, (status, _) in refused.items():
            with rows(name, "the answer"):
                assert [response.status for response in parse(receive(clients[name]))] == [status]


def test_a_method_that_would_not_be_called_is_refused_with_its_name_and_what_to_do() -> None:
    def method(*_: Any) -> None: ...

    cases: list[tuple[str, Any, Any]] = [
        *((name, type("Own", (WSGIRequestHandler,), {name: method}), WSGIServer) for name in REFUSED_HANDLER_METHODS),
        ("do_GET", type("Own", (WSGIRequestHandler,), {"do_GET": method}), WSGIServer),
        *((name, WSGIRequestHandler, type("Own", (WSGIServer,), {name: method})) for name in REFUSED_SERVER_METHODS),
    ]
    with Rows() as rows:
        for name, handler, server in cases:
            with rows(name), pytest.raises(TypeError, match=rf"Own\.{name} would never be called: .+\.$"):
                make(handler, server)


def test_a_class_that_forks_for_each_request_is_refused() -> None:
    with pytest.raises(TypeError, match="process_request would never be called"):
        make(server=type("Forking", (ForkingMixIn, WSGIServer), {}))


def test_the_check_is_at_activation() -> None:
    server = make(server=type("Own", (WSGIServer,), {"finish_request": hello}), bind_and_activate=False)
    server.server_bind()
    with pytest.raises(TypeError, match="finish_request"):
        server.server_activate()
    server.server_close()


# --- The server class -------------------------------------------------------------------------------------------------------


def test_a_connection_that_verify_request_does_not_want_is_closed() -> None:
    seen = []

    class Server(WSGIServer):
        def verify_request(self, request: Any, client_address: Any) -> bool:
            seen.append((client_address[0], request.getpeername() == client_address, threading.current_thread().name))
            if len(seen) == 3:
                raise ValueError("who knows")
            return len(seen) != 1

    class Plain(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None: ...  # http.server's name

    for handler, status in ((WSGIRequestHandler, 200), (Plain, 404)):
        seen.clear()
        server = make(handler, Server)
        with serve(server) as address:
            assert talk(address) == b""
            assert f" {status} ".encode() in talk(address).split(b"\r\n")[0]
            assert talk(address) == b""
            assert f" {status} ".encode() in talk(address).split(b"\r\n")[0]
        assert all(each[:2] == ("127.0.0.1", True) and each[2].startswith("microwsgi-") for each in seen)
        assert "verify_request failed" in server.context.errors.text.getvalue()


def test_handle_error_is_called_for_an_exception_of_an_application_and_of_a_handler_class() -> None:
    import sys  # here for exc_info alone

    seen = []

    class Server(WSGIServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            seen.append((sys.exc_info()[0], client_address[0]))

    def application(environ: Environ, start_response: StartResponse) -> Any:
        raise LookupError

    class Plain(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            raise LookupError

    for handler in (WSGIRequestHandler, Plain):
        server = make(handler, Server, application)
        with serve(server) as address:
            assert get(address).status == 500
        assert server.context.errors.text.getvalue() == ""
    assert seen == [(LookupError, "127.0.0.1")] * 2


def test_service_actions_is_called_again_and_again_while_the_server_serves() -> None:
    called = threading.Semaphore(0)
    server = make(server=type("Server", (WSGIServer,), {"service_actions": lambda _: called.release()}))
    with serve(server) as address:
        for _ in range(3):
            assert called.acquire(timeout=TIME)
        assert get(address).body == b"hello"


def test_connections_are_accepted_by_an_overridden_get_request(tmp_path: Path) -> None:
    """Also one that does the handshake of TLS, which may block: other clients notice nothing."""
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.leaf("localhost"))
    names = []

    class Server(WSGIServer):
        def get_request(self) -> Any:
            connection, address = super().get_request()
            names.append(threading.current_thread().name)
            return context.wrap_socket(connection, server_side=True), (address[0], 7)

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [f"{environ['wsgi.url_scheme']} {environ['REMOTE_PORT']}".encode()]

    server = make(server=Server, application=application)
    with serve(server) as address:
        for _ in range(2):
            with (
                socket.create_connection(address, TIME) as plain,
                authority.client().wrap_socket(plain, server_hostname="localhost") as client,
            ):
                client.sendall(GET)
                assert receive_until(client, b"7").endswith(b"https 7")
        with socket.create_connection(address, TIME) as plain:
            plain.sendall(b"not TLS\r\n\r\n")
            receive(plain)
    assert names == ["microwsgi-accept"] * 3
    assert "get_request failed" in server.context.errors.text.getvalue()


def test_a_server_is_bound_and_activated_by_hand() -> None:
    server = make(bind_and_activate=False)
    server.allow_reuse_address = True
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    server.server_bind()
    server.server_activate()
    assert server.server_address == ("127.0.0.1", server.server_port)
    assert server.server_port == server.socket.getsockname()[1]
    assert (server.server_name, server.fileno()) == ("127.0.0.1", server.socket.fileno())
    assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    with serve(server) as address:
        assert get(address).body == b"hello"


def test_a_server_serves_on_a_socket_that_somebody_else_has_bound() -> None:
    """As with systemd's sockets: `socket` is set instead of calling server_bind."""
    server = make(bind_and_activate=False)
    server.socket.close()
    server.socket = socket.create_server(("127.0.0.1", 0))
    server.server_activate()
    with serve(server) as address:
        assert get(address).body == b"hello"


def test_server_bind_may_set_options_of_the_socket_and_class_attributes_decide_about_it() -> None:
    class Server(WSGIServer):
        address_family = socket.AF_INET6
        request_queue_size = 7

        def server_bind(self) -> None:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            super().server_bind()

    server = Server(("::", 0), WSGIRequestHandler, application=hello)
    with serve(server):
        assert get(("127.0.0.1", server.server_port)).body == b"hello"
        assert get(("::1", server.server_port)).body == b"hello"


@pytest.mark.parametrize("how", ["serve_forever", "handle_request"])
def test_a_listening_socket_that_was_wrapped_gives_its_context(how: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.leaf("localhost"))
    server = make()
    address = server.server_address
    server.socket = context.wrap_socket(server.socket, server_side=True)
    assert server.fileno() > 0

    def request() -> bytes:
        with (
            socket.create_connection(address, TIME) as plain,
            authority.client().wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(LAST_GET)
            return receive(client)

    if how == "serve_forever":
        with serve(server), socket.create_connection(address, TIME):  # whoever sends nothing holds up nobody
            assert [request()[-5:] for _ in range(3)] == [b"hello"] * 3
    else:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert request().endswith(b"hello")
        thread.join(TIME)
        server.server_close()


def test_two_contexts_are_one_too_many(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Authority(tmp_path).leaf("localhost"))
    server = make(tls=WSGIServer.tls_of_context(context, Options()))  # type: ignore[misc]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with pytest.raises(TypeError, match="TLS already"):
        server.serve_forever()
    server.server_close()


def test_handle_request_returns_after_its_timeout() -> None:
    called = []
    server = make(server=type("Server", (WSGIServer,), {"handle_timeout": lambda _: called.append(1), "timeout": 0.01}))
    server.handle_request()
    assert called == [1]
    server.server_close()


def test_a_mixin_for_threads_changes_nothing_since_requests_have_threads() -> None:
    barrier = threading.Barrier(2, timeout=TIME)

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        barrier.wait()
        start_response("200 OK", [])
        return [b"hello"]

    server = make(server=type("Server", (ThreadingMixIn, WSGIServer), {}), application=application)
    with serve(server) as address, socket.create_connection(address, TIME) as other:
        other.sendall(LAST_GET)
        assert get(address).body == b"hello"
        assert receive(other).endswith(b"hello")


# --- A plain handler class --------------------------------------------------------------------------------------------------


class Article(BaseHTTPRequestHandler):
    """As a beginner writes it."""

    def do_GET(self) -> None:
        if self.path == "/fail":
            raise LookupError("no such thing")
        if self.path == "/late":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"some")
            raise LookupError("too late")
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(f"You asked for {self.path}".encode())


def test_a_handler_class_is_logged_counted_and_answered_as_an_application() -> None:
    records: list[tuple[Any, ...]] = []
    pages: list[Any] = []

    def page(error: BaseException, environ: Environ, number: str) -> tuple[list[tuple[str, str]], bytes]:
        pages.append((type(error), environ["PATH_INFO"], environ["HTTP_HOST"]))
        return [("Content-Type", "text/html")], b"<h1>500</h1>"

    def log(exchange: Any, seconds: float) -> None:
        records.append((exchange.head.line, exchange.status, exchange.size, bool(exchange.reason)))
        assert seconds > 0

    server = make(Article, application=None, access_log=log, error_page=page)
    with serve(server) as address:
        ok = talk(address, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        failed = get(address, b"GET /fail HTTP/1.1\r\nHost: localhost\r\n\r\n")
        late = talk(address, b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        missing = talk(address, b"POST / HTTP/1.1\r\nHost: a\r\n\r\n")
        figures = server.stats()
    assert ok.startswith(b"HTTP/1.0 200 OK")
    assert ok.endswith(b"You asked for /a")
    assert (failed.status, failed.body) == (500, b"<h1>500</h1>")
    assert late.endswith(b"some")
    assert missing.startswith(b"HTTP/1.0 501 ")
    assert pages == [(LookupError, "/fail", "localhost")]
    assert records[0] == ("GET /a HTTP/1.1", 200, 16, False)
    assert records[1][:3] == ("GET /fail HTTP/1.1", 500, 12)
    assert records[2] == ("GET /late HTTP/1.1", 200, 4, True)
    assert records[3][:2] == ("POST / HTTP/1.1", 501)
    assert len(records) == 4
    assert (figures["requests"], figures["errors"]) == (4, 3)
    log_text = server.context.errors.text.getvalue()
    assert log_text.count("LookupError: no such thing") == log_text.count("LookupError: too late") == 1


def test_a_response_that_a_handler_class_breaks_off_ends_with_a_reset() -> None:
    with serve(make(Article)) as address, socket.create_connection(address, TIME) as connection:
        connection.sendall(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            list(iter(lambda: connection.recv(65536), b""))


def test_a_handler_class_with_a_log_of_its_own_keeps_it() -> None:
    records: list[Any] = []
    own: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # http.server's name
            own.append(format % args)

    server = make(Handler, access_log=lambda *_: records.append(1))
    with serve(server) as address:
        client = HTTPConnection(*address, timeout=TIME)
        for path in ("/missing", "/missing/too"):  # on one connection
            client.request("GET", path)
            client.getresponse().read()
        client.close()
        figures = server.stats()
    assert records == []
    assert [line for line in own if "GET" in line] == [
        '"GET /missing HTTP/1.1" 404 -',
        '"GET /missing/too HTTP/1.1" 404 -',
    ]
    assert figures["requests"] == 2


def test_the_server_of_a_handler_is_the_server() -> None:
    seen: list[Callable[..., Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.server)  # type: ignore[arg-type]
            self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None: ...  # http.server's name

    server = make(Handler)
    with serve(server) as address:
        talk(address)
    assert seen == [server]


class Loop(Article):
    """Has a `handle` of its own."""

    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        self.handle_one_request()


def test_the_limits_of_a_head_and_the_list_of_hosts_are_those_of_applications() -> None:
    good = b"GET /%b HTTP/1.1\r\nHost: %b\r\nA: %b\r\nConnection: close\r\n\r\n"
    size = len(good % (b"", b"localhost", b""))
    rows = {
        "a host": (200, good % (b"", b"a.example", b"")),
        "another host": (421, good % (b"", b"evil.example", b"")),
        "a head of the size": (200, good % (b"", b"localhost", b"a" * (1002 - size))),
        "a head that is too long": (431, good % (b"", b"localhost", b"a" * (1003 - size))),
        "a line that is too long": (431, good % (b"a" * 1000, b"localhost", b"")),
        "no host": (200, b"GET / HTTP/1.0\r\n\r\n"),
    }
    with Rows() as found:
        for handler in (Article, Loop):
            server = make(
                handler, options=Options(max_header_size=1000, header_timeout=TIME), hosts=Hosts(["a.example"])
            )
            with serve(server) as address:
                for name, (status, data) in rows.items():
                    with found(handler.__name__, name):
                        assert int(talk(address, data).split(b" ", 2)[1]) == status


@pytest.mark.parametrize("handler", [Article, Loop])
@pytest.mark.parametrize("begun", [b"G", b"GET / HTTP/1.1\r\nHost: a\r\nA: "])
def test_a_head_that_trickles_is_ended_by_head_time(handler: Any, begun: bytes) -> None:
    """And a body is not: it has the time that the class gives each receive."""
    server = make(handler, options=Options(header_timeout=0.2, keep_alive_timeout=TIME))
    with serve(server) as address, socket.create_connection(address, TIME) as client:
        client.sendall(begun)
        client.settimeout(0.01)
        end = monotonic() + TIME
        data: bytes | None = None
        while data is None and monotonic() < end:
            with contextlib.suppress(TimeoutError):
                data = client.recv(1000)
            with contextlib.suppress(ConnectionError):
                client.sendall(b"x")
        assert data == b""


def test_a_pipelined_head_that_is_complete_has_a_new_time_limit() -> None:
    go_on = threading.Event()

    class Slow(Article):
        protocol_version = "HTTP/1.1"
        timeout = TIME

        def do_POST(self) -> None:
            go_on.set()
            data = self.rfile.read(5)
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(data)

    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
    with (
        serve(make(Slow, options=Options(header_timeout=0.05))) as address,
        socket.create_connection(address, TIME) as client,
    ):
        for start in (post[:5], b""):
            client.sendall(start)
            client.sendall(post[len(start) :])
            assert go_on.wait(TIME)
            go_on.clear()
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):  # longer than header_timeout
                client.recv(1)
            client.settimeout(TIME)
            client.sendall(b"hello")
            receive_until(client)


@pytest.mark.parametrize("tls", [False, True])
def test_the_socket_of_a_handler_class_is_closed_with_its_connection(tls: bool, tmp_path: Path) -> None:
    """Also if nobody closes the files of the class: one that is idle when the server ends, one whose constructor fails."""
    instances: list[Any] = []

    class Idle(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            instances.append(self)
            if len(instances) == 2:
                raise LookupError

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

    authority = Authority(tmp_path)
    server = make(Idle)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.leaf("localhost"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with contextlib.ExitStack() as stack, serve(server) as address:
        for number in range(2):
            client = stack.enter_context(socket.create_connection(address, TIME))
            if tls:
                client = stack.enter_context(authority.client().wrap_socket(client, server_hostname="localhost"))
            client.sendall(GET)
            assert (receive(client) if number else receive_until(client)).endswith(b"" if number else b"hello")
    assert [each.connection.fileno() for each in instances] == [-1, -1]


# --- Examples of the standard library's documentation -----------------------------------------------------------------------


def test_the_examples_of_wsgiref_socketserver_and_http_server_work_with_our_server_class(tmp_path: Path) -> None:
    """Each is written as its page has it, with WSGIServer in place of the class there."""
    (tmp_path / "page.txt").write_text("a page")

    class MyTCPHandler(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline().strip().upper())

    class Threaded(ThreadingMixIn, WSGIServer):
        pass

    def ours() -> Any:
        classes: Any = {"server_class": WSGIServer, "handler_class": WSGIRequestHandler}
        return make_server("127.0.0.1", 0, demo_app, **classes)

    def validated() -> Any:
        server: Any = WSGIServer
        return make_server("127.0.0.1", 0, validator(demo_app), server_class=server)

    files = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    page = LAST_GET.replace(b" / ", b" /page.txt ")
    rows: dict[str, tuple[Callable[[], Any], bytes, bytes]] = {
        "wsgiref.simple_server.make_server": (ours, LAST_GET, b"Hello world!"),
        "its handler class, wsgiref.validate": (validated, LAST_GET, b"Hello world!"),
        "SimpleHTTPRequestHandler with a directory": (lambda: WSGIServer(("127.0.0.1", 0), files), page, b"a page"),
        "a StreamRequestHandler": (lambda: make(MyTCPHandler), b"hello\n", b"HELLO"),
        "ThreadingMixIn": (lambda: Threaded(("127.0.0.1", 0), files), page, b"a page"),
    }
    with Rows() as found:
        for name, (create, data, expected) in rows.items():
            with found(name, "serve_forever in a thread, shutdown"), create() as server:
                thread = threading.Thread(target=server.serve_forever, daemon=True)
                thread.start()
                try:
                    assert expected in talk(server.server_address, data)
                finally:
                    server.shutdown()
                    thread.join(TIME)
            with found(name, "handle_request"), create() as server:
                thread = threading.Thread(target=server.handle_request)
                thread.start()
                assert expected in talk(server.server_address, data)
                thread.join(TIME)
