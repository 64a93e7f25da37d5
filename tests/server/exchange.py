"""A running server and a client that sends bytes, for tests over real sockets. Nothing of the server's inside is used."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Self

from microwsgi import WSGIServer
from microwsgi.options import Options

TIME = 10
"""Seconds within which anything has to happen; a test that needs them has failed."""
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
Environ = dict[str, Any]
StartResponse = Callable[..., Any]


def hello(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """The smallest application."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def wait_until(condition: Callable[[], Any]) -> None:
    """Look until something holds; for what nobody tells of."""
    end = time.monotonic() + TIME
    while not condition():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.001)


def receive_until(connection: socket.socket, ending: bytes = b"hello") -> bytes:
    """All that comes until it ends with these bytes."""
    data = b""
    while not data.endswith(ending):
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return data


class Response(NamedTuple):
    """A response as it came over the socket."""

    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes
    interim: list[int]
    """Status codes of the 1xx responses before it."""
    whole: bool
    """Whether its framing says that nothing is missing."""

    def field(self, name: str) -> str | None:
        """A field's value; None if it is missing, an error if it is there twice."""
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} is there twice"
        return values[0] if values else None


class Log(io.TextIOBase):
    """What a server wrote where errors go."""

    def __init__(self) -> None:
        self.kept = io.StringIO()
        self.written = threading.Condition()
        self.complete: Callable[[], object] = bool  # waits until the server's thread has written what was logged

    @property
    def text(self) -> io.StringIO:
        """All that was logged so far."""
        self.complete()
        return self.kept

    def write(self, text: str) -> int:
        """As a text file."""
        with self.written:
            self.written.notify_all()
            return self.kept.write(text)

    def wait_for(self, words: str, times: int = 1) -> str:
        """All of the log, when these words are in it so many times."""
        with self.written:
            found = self.written.wait_for(lambda: self.kept.getvalue().count(words) >= times, TIME)
            assert found, self.kept.getvalue()
            return self.kept.getvalue()


class Listener(socket.socket):
    """A listening socket for the argument `sockets`, that counts, whose accept fails a few times, or names another client."""

    def __init__(self, client: tuple[str, int] | None = None, error: OSError | None = None, failures: int = 0) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self.client, self.error, self.failures = client, error, failures
        self.accepted = 0
        self.bind(("127.0.0.1", 0))
        self.listen(64)

    def accept(self) -> Any:
        """As socket.accept."""
        if self.error is not None and self.failures:
            self.failures -= 1
            raise self.error
        connection, address = super().accept()
        self.accepted += 1
        return connection, self.client or address


class Running:
    """A WSGIServer that runs in a thread of this process; `arguments` are its own, `options` those of docs/options.md."""

    loops = 0
    """How many loops a server has that is given no number, and no poller; 0 for as many as on this interpreter."""

    def __init__(
        self,
        application: Any,
        handler: Any = None,
        tls: Any = None,
        *,
        arguments: dict[str, Any] | None = None,
        loops: int = 0,
        **options: Any,
    ) -> None:
        self.errors = Log()
        self.server = WSGIServer(
            ("127.0.0.1", 0),
            *([handler] if handler else []),
            application=application,
            options=Options(**options),
            errors=self.errors,
            tls=tls,
            **(arguments or {}),
        )
        self.server.loop_count = loops or (1 if "poller" in (arguments or {}) else self.loops)
        self.errors.complete = self.server.context.log_writer.flush
        self.address = ("127.0.0.1", int(self.server.server_port))
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.before = set(threading.enumerate())

    def __enter__(self) -> Self:
        """Serve."""
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop."""
        self.server.shutdown()
        self.thread.join(TIME)
        self.server.server_close()
        assert not self.thread.is_alive()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        count: Any = self.server.stats()["connections"]
        return int(count)

    @property
    def pool(self) -> set[threading.Thread]:
        """The threads that the server has started, but for the log's."""
        found = set(threading.enumerate()) - self.before - {self.thread}
        return {thread for thread in found if thread.name != "microwsgi-log"}

    def wait_for_connections(self, count: int) -> None:
        """Wait until so many connections are open."""
        wait_until(lambda: self.connections == count)

    def wait_for_requests(self, count: int) -> None:
        """Wait until so many requests run, or wait for a thread."""
        wait_until(lambda: len(self.server.in_flight()) == count)

    @contextlib.contextmanager
    def connect(self, window: int = 0) -> Iterator[socket.socket]:
        """A client's connection; with a window, the kernel keeps about so many bytes for it that it does not read."""
        with socket.socket() as connection:
            connection.settimeout(TIME)
            if window:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            connection.connect(self.address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield connection

    def send(self, *pieces: bytes, methods: Iterable[str] = (), half_close: bool = True) -> list[Response]:
        """Send the pieces one by one on a connection of their own, and receive until the server closes."""
        with self.connect() as connection:
            return parse(self.talk(connection, *pieces, half_close=half_close), methods)

    def talk(self, connection: socket.socket, *pieces: bytes, half_close: bool = True) -> bytes:
        """Send the pieces one by one, and receive until the server closes."""
        with contextlib.suppress(ConnectionError):  # it may have refused already
            for piece in pieces:
                connection.sendall(piece)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        return receive(connection)

    def get(
        self, target: str = "/", *lines: str, method: str = "GET", version: str = "HTTP/1.1", body: bytes = b""
    ) -> Response:
        """The one response to one request, on a connection of its own."""
        head = "\r\n".join([f"{method} {target} {version}", "Host: a", "Connection: close", *lines])
        (response,) = self.send(head.encode("latin-1") + b"\r\n\r\n" + body, methods=[method])
        return response


def serve_pieces(pieces: Iterable[bytes], application: Any, **options: Any) -> tuple[bytes, str]:
    """What a server of its own answers to these pieces, each in a packet, and what it logs."""
    with Running(application, **options) as running, running.connect() as connection:
        data = running.talk(connection, *pieces)
    return data, running.errors.text.getvalue()


def receive(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            data += piece
    return data


def parse(data: bytes, methods: Iterable[str] = ()) -> list[Response]:
    """The responses in what a server sent; `methods` are the requests', where one of them is HEAD."""
    responses = []
    waiting = list(methods)
    while data:
        interim = []
        while True:
            head, separator, data = data.partition(b"\r\n\r\n")
            assert separator, f"a head that does not end: {head!r}"
            line, *lines = head.decode("latin-1").split("\r\n")
            version, code, reason = line.split(" ", 2)
            assert version == "HTTP/1.1"
            assert len(code) == 3
            if not code.startswith("1"):
                break
            interim.append(int(code))
        fields = []
        for text in lines:
            name, _, value = text.partition(":")
            fields.append((name, value.strip(" \t")))
        method = waiting.pop(0) if waiting else "GET"
        framing = {name.lower(): value for name, value in fields}
        whole = True
        if method == "HEAD" or code in {"204", "304"}:
            body = b""
        elif framing.get("transfer-encoding") == "chunked":
            body, data, whole = unchunk(data)
        elif "content-length" in framing:
            size = int(framing["content-length"])
            body, data, whole = data[:size], data[size:], len(data) >= size
        else:
            body, data = data, b""
        responses.append(Response(int(code), reason, fields, body, interim, whole))
    return responses


def unchunk(data: bytes) -> tuple[bytes, bytes, bool]:
    """The content of chunks, what follows them, and whether the last chunk is there."""
    body = b""
    while True:
        size, separator, data = data.partition(b"\r\n")
        if not separator:
            return body, b"", False
        count = int(size, 16)
        body += data[:count]
        if len(data) < count + 2:
            return body, b"", False
        assert data[count : count + 2] == b"\r\n"
        data = data[count + 2 :]
        if not count:
            return body, data, True


class Recorder:
    """An application that notes each request that it could read to its end, by the client's port."""

    def __init__(self) -> None:
        self.requests: dict[str, list[dict[str, Any]]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        """Answer with what was read."""
        body = environ["wsgi.input"].read()
        request = {
            "method": environ["REQUEST_METHOD"],
            "target": environ["REQUEST_URI"],
            "version": environ["SERVER_PROTOCOL"],
            "fields": {key: value for key, value in environ.items() if key.startswith(("HTTP_", "CONTENT_"))},
            "body": body.decode("latin-1"),
            "trailers": [list(pair) for pair in environ.get("microwsgi.trailers", [])],
        }
        self.requests.setdefault(environ["REMOTE_PORT"], []).append(request)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(request).encode()]
