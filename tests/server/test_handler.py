"""The contract with the application, on our server, on http.server's, and within any handler class."""

from __future__ import annotations

import contextlib
import errno
import gc
import random
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any, ClassVar
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

from microwsgi import WSGIRequestHandler, WSGIServer, make_server, wsgi
from microwsgi.errors import Abandoned, Disconnected
from microwsgi.options import Options
from tests.server.exchange import (
    GET,
    TIME,
    Environ,
    Listener,
    Log,
    Running,
    StartResponse,
    hello,
    parse,
    receive,
    receive_until,
    wait_until,
)

RECEIVE = 16 * 1024
"""Octets that are received ahead of a suspended response, at a time."""


# --- Three servers, one environ -----------------------------------------------------------------------------------------

REQUEST = (
    b"POST /a/%C3%A9%2Fb?x=1&y=%20 HTTP/1.1\r\nHost: example.com:8000\r\nContent-Type: text/plain\r\nX-A: 1\r\nX-A: 2\r\n"
    b"Cookie: a=1\r\nCookie: b=2\r\nX_B: smuggled\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
)


class Plain(BaseHTTPRequestHandler):
    """A handler class that somebody has already."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def serving(kind: str, application: Any) -> Iterator[tuple[str, int]]:
    """The application behind one of the servers that the adapter works on."""
    handler: Any = type("Quiet", (WSGIRequestHandler.of(application),), {"log_request": lambda *_: None})
    server: Any
    if kind == "ours":
        server = WSGIServer(("127.0.0.1", 0), application=application)
    elif kind == "ThreadingHTTPServer":
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    elif kind == "HTTPServer":
        server = HTTPServer(("127.0.0.1", 0), handler)
    elif kind == "do_GET of any handler class":
        plain = type("WithDo", (Plain,), {"do_GET": wsgi(application), "do_POST": wsgi(application)})
        server = ThreadingHTTPServer(("127.0.0.1", 0), plain)
    else:
        server = WSGIServer(
            ("127.0.0.1", 0), type("WithDo", (Plain,), {"do_POST": wsgi(application), "do_GET": wsgi(application)})
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[:2]
    finally:
        server.shutdown()
        thread.join(TIME)
        server.server_close()


SERVERS = ["ours", "ThreadingHTTPServer", "HTTPServer", "do_GET of any handler class", "do_GET on ours"]


def seen_by(kind: str) -> tuple[Environ, bytes]:
    """What an application on this server sees of REQUEST."""
    seen: list[tuple[Environ, bytes]] = []

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.append((environ, environ["wsgi.input"].read()))
        return hello(environ, start_response)

    with serving(kind, application) as address, socket.create_connection(address, TIME) as connection:
        connection.sendall(REQUEST)
        (response,) = parse(receive(connection))
    assert (response.status, response.body) == (200, b"hello")
    return seen[0]


@pytest.mark.parametrize(
    "kind",
    SERVERS,
)
def test_the_environ_is_the_same_on_every_server(kind: str) -> None:
    ours, body = seen_by("ours")
    theirs, their_body = seen_by(kind)
    assert body == their_body == b"hello"
    # What differs because it must: the port, the objects of this very request, and what only our server can do.
    varies = {"SERVER_PORT", "REMOTE_PORT", "wsgi.input", "wsgi.early_hints", "wsgi.errors", "microwsgi.socket"}
    varies.add("wsgi.multithread")
    only_ours = {"microwsgi.resume"}
    assert ours.keys() - only_ours == theirs.keys() - only_ours
    skip = varies | only_ours | ({"microwsgi.trailers"} if "microwsgi.trailers" not in theirs else set())
    assert {k: v for k, v in ours.items() if k not in skip} == {k: v for k, v in theirs.items() if k not in skip}
    assert theirs["wsgi.multithread"] is (kind != "HTTPServer")


def test_the_environ_is_what_pep_3333_and_the_request_say() -> None:
    environ, _ = seen_by("ours")
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/\xc3\xa9/b",
        "QUERY_STRING": "x=1&y=%20",
        "REQUEST_URI": "/a/%C3%A9%2Fb?x=1&y=%20",
        "RAW_URI": "/a/%C3%A9%2Fb?x=1&y=%20",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
        "HTTP_HOST": "example.com:8000",
        "HTTP_X_A": "1, 2",
        "HTTP_COOKIE": "a=1; b=2",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
    }
    assert {key: environ[key] for key in expected} == expected
    assert not [key for key in environ if "X_B" in key], "a name with an underscore could be another's"
    assert "PATH" not in environ, "nothing of the process's environment"
    assert all(isinstance(value, str) for key, value in environ.items() if "." not in key)


def test_a_time_limit_holds_where_one_thread_serves_one_connection_too() -> None:
    """As under http.server's servers: `handle_request` waits for the client in its own thread."""
    log = Log()
    server = WSGIServer(("127.0.0.1", 0), application=hello, options=Options(header_timeout=0.05), errors=log)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with socket.create_connection(server.server_address[:2], TIME) as connection:  # type: ignore[arg-type]
        connection.sendall(GET[:-2])
        (response,) = parse(receive(connection))
    thread.join(TIME)
    server.server_close()
    assert response.status == 408
    log.wait_for("(header_timeout)")


def test_a_unix_server_of_the_standard_library_has_clients_without_an_address(tmp_path: Path) -> None:
    seen: list[Environ] = []

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.append(environ)
        return hello(environ, start_response)

    handler: Any = WSGIRequestHandler.of(application)
    with UnixStreamServer(str(tmp_path / "socket"), handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIME)
            connection.connect(str(tmp_path / "socket"))
            connection.sendall(GET)
            connection.shutdown(socket.SHUT_WR)
            (response,) = parse(receive(connection))
        thread.join(TIME)
    assert response.body == b"hello"
    assert (seen[0]["REMOTE_ADDR"], seen[0]["REMOTE_PORT"]) == ("", "")


def test_a_handler_has_the_fields_as_they_came() -> None:
    """For those who override http.server's methods: `headers`, in order, and what is there twice, twice."""
    seen: list[tuple[list[tuple[str, str]], list[str] | None]] = []

    class Handler(WSGIRequestHandler):
        def handle_one_request(self) -> None:
            seen.append((self.headers.items(), self.headers.get_all("X-A")))
            super().handle_one_request()

    with Running(hello, Handler) as running:
        (response,) = running.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-b:  2\r\nX-A: 3\r\n\r\n")
    assert response.body == b"hello"
    assert seen == [([("Host", "a"), ("X-A", "1"), ("x-b", "2"), ("X-A", "3")], ["1", "3"])]


@pytest.mark.parametrize("kind", SERVERS)
def test_requests_that_are_pipelined_behind_a_body_are_answered(kind: str) -> None:
    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode(), environ["wsgi.input"].read()]

    one = b"POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    two = b"POST /two HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
    with serving(kind, application) as address, socket.create_connection(address, TIME) as connection:
        connection.sendall(one + two)
        assert [response.body for response in parse(receive(connection))] == [b"/onehello", b"/twoabc"]


KINDS = {
    "GET": b"GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD": b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
    "long": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000,
    "unread": b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000,
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "HTTP/1.0 keep-alive": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "absolute form": b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk form": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a generator": b"GET /generator HTTP/1.1\r\nHost: a\r\n\r\n",
    "write": b"GET /write HTTP/1.1\r\nHost: a\r\n\r\n",
    "204": b"GET /204 HTTP/1.1\r\nHost: a\r\n\r\n",
    "304": b"GET /304 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a failure": b"GET /exc_info HTTP/1.1\r\nHost: a\r\n\r\n",
}


def many_things(environ: Environ, start_response: StartResponse) -> Any:
    path = environ["PATH_INFO"]
    headers = [("Content-Type", "text/plain")]
    if path in {"/204", "/304"}:
        start_response(f"{path[1:]} Status", [])
        return [b""]
    if path == "/exc_info":
        import sys  # here for exc_info alone

        start_response("200 OK", headers)
        try:
            1 / 0  # noqa: B018 - something raises
        except ZeroDivisionError:
            start_response("500 Oops", headers, sys.exc_info())
        return [b"oops"]
    if path != "/unread":
        environ["wsgi.input"].read(10)
    write = start_response("200 OK", headers)
    if path == "/write":
        write(b"one ")
        write(b"two")
        return [b""]
    if path == "/generator":
        return (chunk for chunk in (b"one ", b"two"))
    return [b"fine"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_validator_passes_on_real_traffic(kind: str) -> None:
    """wsgiref.validate finds nothing wrong with what the server does, whatever is asked."""
    running = Running(validator(many_things))
    with running, running.connect() as connection:
        connection.sendall(KINDS[kind])
        connection.shutdown(socket.SHUT_WR)
        (response,) = parse(receive(connection), ["HEAD"] if kind == "HEAD" else [])
    assert response.status in {200, 204, 304, 500}, running.errors.text.getvalue()
    assert not running.errors.text.getvalue()


# --- Plain handler classes ----------------------------------------------------------------------------------------------


class Echo(BaseHTTPRequestHandler):
    """The original article's kind of script, but with connections that last."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say where."""
        self.answer(self.path.encode())

    def do_POST(self) -> None:
        """Say it again."""
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing."""


def test_a_plain_handler_class_serves_request_after_request() -> None:
    with Running(None, Echo) as running, running.connect() as connection:
        connection.sendall(b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n")
        receive_until(connection, b"/one")
        running.wait_for_requests(0)
        connection.sendall(b"GET /two HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nthree")
        assert b"/two" in receive_until(connection, b"three")


def test_idle_connections_of_a_plain_class_hold_no_thread() -> None:
    with Running(None, Echo, threads=2) as running, contextlib.ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(running.connect())
            connection.sendall(b"GET /one HTTP/1.1\r\n\r\n")
            receive_until(connection, b"/one")
        running.wait_for_requests(0)


def test_a_partial_of_a_plain_class_works(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("here")
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None, "protocol_version": "HTTP/1.1"})
    with Running(None, partial(quiet, directory=str(tmp_path))) as running:
        assert running.get("/a.txt").body == b"here"


def test_handle_request_serves_one_and_returns() -> None:
    server = make_server("127.0.0.1", 0, hello)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with socket.create_connection(server.server_address[:2], TIME) as connection:  # type: ignore[arg-type]
        connection.sendall(GET)
        (response,) = parse(receive(connection))
    assert (response.body, response.field("Connection")) == (b"hello", "close")
    thread.join(TIME)
    assert not thread.is_alive()
    server.server_close()


# --- A response that has nothing to send yet ----------------------------------------------------------------------------


class Stream:
    """An application whose responses wait for what `say` is told."""

    def __init__(self, after: float = 60.0) -> None:
        self.after = after
        self.wakes: list[Callable[..., None]] = []
        self.words: list[bytes] = []
        self.closed = 0

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return self.chunks(environ["microwsgi.resume"])

    def chunks(self, wake: Callable[..., None]) -> Iterator[bytes]:
        said = 0
        try:
            yield b"begin"
            self.wakes.append(wake)
            while True:
                wake(after=self.after)
                words = self.words[said:]
                said += len(words)
                if b"end" in words:
                    return
                yield b"".join(words)
        finally:
            self.closed += 1

    def say(self, word: bytes) -> None:
        """To all that listen."""
        self.words.append(word)
        for wake in list(self.wakes):
            wake()


def test_resting_responses_hold_no_thread_and_miss_nothing() -> None:
    stream = Stream()
    with Running(stream) as running, contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(running.connect()) for _ in range(100)]
        for connection in listeners:
            connection.sendall(GET)
            receive_until(connection, b"begin\r\n")
        wait_until(lambda: len(stream.wakes) == 100 and not running.server.in_flight())
        for word in (b"one", b"two"):
            stream.say(word)
        for connection in listeners:
            data = b""
            while b"two" not in data:
                data += connection.recv(4096)
        stream.say(b"end")
        for connection in listeners:
            receive_until(connection, b"0\r\n\r\n")
        wait_until(lambda: stream.closed == 100)


def test_a_resting_response_is_asked_on_when_its_time_is_over() -> None:
    stream = Stream(after=0.01)
    with Running(stream) as running, running.connect() as connection:
        connection.sendall(GET)
        receive_until(connection, b"begin\r\n")
        stream.words.append(b"later")  # nobody calls wake
        receive_until(connection, b"later\r\n")


def test_a_client_that_leaves_a_resting_response_is_noticed_at_once() -> None:
    stream = Stream()
    with Running(stream) as running:
        with running.connect() as connection:
            connection.sendall(GET)
            receive_until(connection, b"begin\r\n")
        wait_until(lambda: stream.closed == 1)
        running.wait_for_connections(0)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("fields", "told"), [([], ""), ([("Content-Length", "9")], "200: The client disconnected.")])
def test_to_leave_a_resting_response_is_a_failure_only_where_its_end_was_announced(
    fields: list[tuple[str, str]], told: str, reset: bool
) -> None:
    """A browser that closes an EventSource is in the access log, and nowhere else."""
    logged: list[int] = []

    def application(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", fields)
        yield b"begin"
        while True:
            environ["microwsgi.resume"](60)
            yield b""

    with Running(
        application, arguments={"access_log": lambda request, seconds: logged.append(request.status)}
    ) as running:
        with running.connect() as connection:
            connection.sendall(GET)
            receive_until(connection, b"begin" if fields else b"begin\r\n")
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        running.wait_for_connections(0)
    assert logged == [200]
    errors = running.errors.text.getvalue()
    assert told in errors
    assert bool(told) == bool(errors)


def test_a_wake_between_the_look_and_the_rest_is_not_lost() -> None:
    calls = [0]

    def application(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        wake = environ["microwsgi.resume"]
        start_response("200 OK", [])
        for _ in range(100):
            wake(after=60)
            wake()  # as another thread might, just now
            calls[0] += 1
            yield b""
        yield b"hello"

    with Running(application) as running:
        assert running.get().body == b"hello"
    assert calls == [100]


def test_an_empty_chunk_without_a_wake_is_a_chunk_like_any_other() -> None:
    def application(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b""
        yield b"hello"
        yield b""

    with Running(application) as running:
        assert running.get().body == b"hello"


def fill(connection: socket.socket) -> int:
    """How many octets can be sent until the kernel takes no more."""
    connection.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            count += connection.send(b"x" * 4096)
    connection.settimeout(TIME)
    return count


def test_a_request_behind_a_resting_response_waits_and_more_than_that_is_not_received() -> None:
    """Whatever a client sends ahead stays with the kernel, however often the response is asked on."""
    stream = Stream()
    listener = Listener()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE)
    with Running(stream, arguments={"sockets": [listener]}) as running, running.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, RECEIVE)
        connection.sendall(GET)
        receive_until(connection, b"begin\r\n")
        connection.sendall(GET)
        while fill(connection):
            with running.connect() as other:  # when it is refused, what was sent before has been looked at
                other.sendall(b"\r\n\r\n")
                receive(other)
        more = 0
        for number in range(20):
            stream.say(b"word %d" % number)
            receive_until(connection, b"word %d\r\n" % number)
            wait_until(lambda: not running.server.in_flight())
            more += fill(connection)
        assert more < 3 * RECEIVE
        stream.say(b"end")
        data = receive(connection)
        assert data.count(b"HTTP/1.1 200 ") == 1, "the second request is answered when the first is"
        assert b"HTTP/1.1 414 " in data


@pytest.mark.parametrize("path", ["/ends", "/fails", "/fails-early"])
def test_a_rest_that_a_response_announced_before_its_end_does_not_come(path: str) -> None:
    """Its timer would call the application without a request, and send what nobody has asked for."""
    stream = Stream(after=0.1)

    def application(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/clock":
            return stream(environ, start_response)
        start_response("200 OK", [])
        return chunks(environ)

    def chunks(environ: Environ) -> Iterator[bytes]:
        if environ["PATH_INFO"] != "/fails-early":
            yield b"hello"
        environ["microwsgi.resume"](after=0.05)
        if environ["PATH_INFO"] != "/ends":
            raise ValueError("on purpose")

    with Running(application) as running, running.connect() as connection, running.connect() as clock:
        connection.sendall(GET.replace(b"/", path.encode(), 1))
        if path == "/fails":  # the response breaks off
            assert receive(connection).count(b"HTTP/1.1") == 1
            return
        data = receive_until(connection, b"0\r\n\r\n" if path == "/ends" else b".\n")
        clock.sendall(GET.replace(b"/", b"/clock", 1))
        receive_until(clock, b"begin\r\n")
        wait_until(lambda: stream.wakes and not running.server.in_flight())
        stream.words.append(b"later")
        receive_until(clock, b"later\r\n")  # by its timer: before it the other would have gone off
        connection.sendall(b"GET /ends HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        data += receive(connection)
        assert data.count(b"HTTP/1.1 ") == 2


def test_a_stop_ends_resting_responses() -> None:
    stream = Stream()
    with Running(stream, graceful_timeout=TIME) as running, running.connect() as connection:
        connection.sendall(GET)
        receive_until(connection, b"begin\r\n")
        wait_until(lambda: stream.wakes and not running.server.in_flight())
        running.server.shutdown()
        assert stream.closed == 1


# --- The socket, taken over ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["microwsgi.socket", "werkzeug.socket", "gunicorn.socket"])
def test_an_upgrade_takes_the_socket_over(key: str) -> None:
    """What was read ahead comes first; the server does not touch the connection again."""
    done = threading.Event()

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        taken = environ[key]
        taken.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        while data := taken.recv(4):
            taken.sendall(data)
        taken.close()
        done.set()
        return []

    with Running(application) as running, running.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nahead of time")
        receive_until(connection, b"ahead of time")
        connection.sendall(b"hello")
        receive_until(connection)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
        assert done.wait(TIME)
        assert not running.errors.text.getvalue()


def test_an_upgrade_that_nobody_takes_is_a_request_like_any_other() -> None:
    with Running(hello) as running:
        assert running.get("/", "Upgrade: h2c").body == b"hello"


# --- Bodies -------------------------------------------------------------------------------------------------------------


def test_100_continue_is_sent_at_the_first_read() -> None:
    begun, go = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        begun.set()
        assert go.wait(TIME)
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    with Running(application) as running, running.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert begun.wait(TIME)
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
        connection.settimeout(TIME)
        go.set()
        assert receive_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        receive_until(connection)


@pytest.mark.parametrize("buffer", ["1M", "16K"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_long_body_can_be_read_in_every_way(framing: str, buffer: str) -> None:
    lines = [b"%d %s\n" % (number, b"x" * (number % 97)) for number in range(5000)]
    content = b"".join(lines)

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        body = environ["wsgi.input"]
        first = body.readline()
        some = body.read(1000)
        few = body.readline(7)
        rest = body.readlines() if environ["PATH_INFO"] == "/lines" else [body.read()]
        start_response("200 OK", [])
        return [first, some, few, *rest, body.read(), b"|", str(len(body.read(1))).encode()]

    with Running(application, body_buffer_size=buffer, stream_chunked=buffer == "16K") as running:
        for path in ("/lines", "/all"):
            if framing == "length":
                response = running.get(path, f"Content-Length: {len(content)}", method="POST", body=content)
            else:
                body = b"".join(b"%x;a=b\r\n%b\r\n" % (len(line), line) for line in lines) + b"0\r\nX-T: v\r\n\r\n"
                response = running.get(path, "Transfer-Encoding: chunked", method="POST", body=body)
            assert response.body == content + b"|0"


def test_trailers_reach_the_application_apart_from_the_fields() -> None:
    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        environ["wsgi.input"].read()
        assert "HTTP_X_T" not in environ
        start_response("200 OK", [])
        return [repr(environ["microwsgi.trailers"]).encode()]

    with Running(application) as running:
        body = b"5\r\nhello\r\n0\r\nX-T: v\r\n\r\n"
        assert running.get("/", "Transfer-Encoding: chunked", method="POST", body=body).body == b"[('X-T', 'v')]"


@pytest.mark.parametrize("size", [10_000, 200_000])
def test_an_unread_body_is_drained_for_the_next_request(size: int) -> None:
    with Running(hello) as running, running.connect() as connection:
        head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()
        connection.sendall(head + b"x" * size + GET)
        data = b""
        while data.count(b"hello") < 2:
            data += connection.recv(65536)
        assert data.count(b"HTTP/1.1 200") == 2


def test_a_body_that_is_too_long_to_drain_ends_the_connection_and_the_response_arrives() -> None:
    """RFC 9112 9.6: closed at once, the connection would be reset, and the client might never see the response."""
    with Running(hello) as running, running.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(b"x" * 65536)
        (response,) = parse(receive(connection))
        assert (response.body, response.field("Connection")) == (b"hello", "close")


# --- Files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, 70_000, 8_000_000])
@pytest.mark.parametrize("length", [None, "whole", "part"])
def test_a_file_is_sent_from_where_it_stands(tmp_path: Path, size: int, length: str | None) -> None:
    content = random.Random(size).randbytes(size)
    path = tmp_path / "file"
    path.write_bytes(b"skip" + content)
    promised = {None: None, "whole": size, "part": size // 2}[length]
    files: list[Any] = []

    def application(environ: Environ, start_response: StartResponse) -> Any:
        file = path.open("rb")
        files.append(file)
        file.seek(4)
        start_response("200 OK", [] if promised is None else [("Content-Length", str(promised))])
        return environ["wsgi.file_wrapper"](file)

    with Running(application) as running, running.connect() as connection:
        connection.sendall(GET + b"GET / HTTP/1.0\r\n\r\n")
        first, second = parse(receive(connection))
        expected = content if promised is None else content[:promised]
        assert first.body == second.body == expected
        wait_until(lambda: all(file.closed for file in files))


def test_a_file_that_becomes_shorter_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(30_000_000))

    def application(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    with Running(application) as running, running.connect() as connection:
        connection.sendall(GET)
        assert connection.recv(10)
        path.write_bytes(b"")
        (response,) = parse(b"HTTP/1.1 200"[:12] + receive(connection)[2:])
        assert not response.whole


# --- Hostile clients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "options", "status"),
    [
        (GET[:-2], {"header_timeout": 0.05}, b"408"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe", {"body_timeout": 0.05}, b"408"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\nhe", {"body_timeout": 0.05}, b"408"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\nhe",
            {"body_timeout": 0.05, "body_buffer_size": "16K"},
            b"408",
        ),
        (b"", {"keep_alive_timeout": 0.05}, b""),
    ],
)
def test_each_time_limit_ends_the_wait_and_is_in_the_log(sent: bytes, options: dict[str, Any], status: bytes) -> None:
    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        environ["wsgi.input"].read()
        return hello(environ, start_response)

    with Running(application, **options) as running, running.connect() as connection:
        connection.sendall(sent)
        answer = connection.recv(65536)
        assert answer[9:12] == status
        if status:
            text = running.errors.wait_for("408")
            assert text.count('" 408: ') == 1
            assert f"127.0.0.1:{connection.getsockname()[1]}" in text


def test_a_trickle_is_ended_by_the_total_limit() -> None:
    """A byte now and then does not keep a head alive: the time counts from its first byte."""
    with Running(hello, header_timeout=0.2) as running, running.connect() as connection:
        connection.settimeout(0.01)
        start = time.monotonic()
        for byte in GET[:20] * 100:
            with contextlib.suppress(TimeoutError):
                connection.sendall(bytes([byte]))
                assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
                break
        else:
            pytest.fail("it trickles still")
        assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize("path", ["/list", "/generator"])
def test_a_reader_that_reads_nothing_is_ended(path: str) -> None:
    closed = threading.Event()

    class Chunks:
        def __iter__(self) -> Iterator[bytes]:
            return (bytes(65536) for _ in range(1000))

        def close(self) -> None:
            closed.set()

    def application(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return [bytes(50_000_000)] if environ["PATH_INFO"] == "/list" else Chunks()

    with Running(application, send_timeout=0.1) as running, running.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        running.errors.wait_for("send_timeout")
        running.wait_for_connections(0)
        # By a reset: after a mere close, the kernel would keep what it has for this reader.
        wait_until(lambda: connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET)
        if path == "/generator":
            assert closed.wait(TIME)


def test_a_client_that_leaves_after_a_fault_is_told_to_the_logs_alone() -> None:
    lines: list[int] = []
    arguments = {"access_log": lambda request, _: lines.append(request.status)}
    with Running(hello, arguments=arguments) as running:
        with running.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nno field\r\n\r\n")
        running.errors.wait_for("no field")
        running.wait_for_connections(0)
    assert running.errors.text.getvalue().count("\n") == 1
    assert lines == [400]


def test_who_ends_a_request_at_the_debugger_gets_no_traceback() -> None:
    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        raise Abandoned("ended at the debugger's prompt")

    with Running(application) as running:
        assert running.get().status == 500
        assert running.errors.wait_for("prompt").count("\n") == 1


def test_a_close_that_finds_the_client_gone_after_a_failure_ends_the_connection() -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            raise ValueError("the failure")

        def close(self) -> None:
            raise Disconnected("within close")

    def application(environ: Environ, start_response: StartResponse) -> Body:
        start_response("200 OK", [])
        return Body()

    with Running(application) as running, running.connect() as client:
        client.sendall(GET)
        receive(client)
    log = running.errors.text.getvalue()
    assert "the failure" in log
    assert log.endswith(": within close\n")


class Counted:
    """An iterable that knows how often it was closed."""

    closes: ClassVar[dict[int, int]] = {}
    alive: ClassVar[weakref.WeakSet[Counted]] = weakref.WeakSet()

    def __init__(self, chunks: int) -> None:
        self.left = chunks
        self.alive.add(self)
        self.closes[id(self)] = 0
        self.number = id(self)

    def __iter__(self) -> Counted:
        return self

    def __next__(self) -> bytes:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return bytes(1000)

    def close(self) -> None:
        self.closes[self.number] += 1


def vanish(running: Running, luck: random.Random) -> None:
    """A client that leaves in some phase, by FIN or by RST."""
    request = luck.choice(
        [
            GET,
            b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n123456789",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n" + bytes(30000),
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ]
    )
    connection = socket.create_connection(running.address, TIME)
    try:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request[: luck.randrange(len(request) + 1)] if luck.random() < 0.7 else request)
            if luck.random() < 0.3:
                connection.settimeout(0.002)
                with contextlib.suppress(TimeoutError):
                    connection.recv(luck.choice([1, 100, 100000]))
        if luck.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        connection.close()


def test_clients_that_vanish_leave_nothing_behind() -> None:
    """Ten thousand in `make soak`; here so many that each phase is met."""
    leave_nothing_behind(600)


def leave_nothing_behind(clients: int) -> None:
    """Neither thread, descriptor nor connection is left of clients that vanish; each iterable is closed once."""
    reading: list[int] = []

    def application(environ: Environ, start_response: StartResponse) -> Counted:
        reading.append(1)
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return Counted(2000 if environ["PATH_INFO"] == "/big" else 2)

    Counted.closes = {}
    luck = random.Random(7)
    with Running(application, loops=1, threads=8, send_timeout=1, body_buffer_size="16K") as running:
        assert running.get().status == 200
        running.wait_for_connections(0)
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(clients):
            vanish(running, luck)
        running.wait_for_connections(0)
        assert running.get().status == 200
        running.wait_for_connections(0)
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
        assert len(running.pool) <= 9
        reading.clear()
        with contextlib.ExitStack() as stack:  # half of the threads may wait for clients, as before
            for _ in range(4):
                upload = stack.enter_context(running.connect())
                upload.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n")
            wait_until(lambda: len(reading) == 4)
    gc.collect()
    assert not len(Counted.alive), "something still knows an iterable"
    assert set(Counted.closes.values()) == {1}
