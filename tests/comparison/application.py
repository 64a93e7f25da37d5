"""The application of both sides. Each path shows one behaviour; any other path answers with the environ and the body's hash.

What the application sees and the client does not (exceptions from reading, calls of `close`) is recorded under the client's
address, which is different for each conversation.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
TEXT = ("Content-Type", "text/plain")
BIG = 6 * 1024 * 1024
"""Octets of the real file: more than the kernel keeps for a client that does not read."""
UPLOAD = 1 << 16

EVENTS: dict[str, list[str]] = {}
FILE = tempfile.NamedTemporaryFile(prefix="compare-")
FILE.write(bytes(index * 7 % 251 for index in range(1 << 18)) * (BIG >> 18))
FILE.flush()


RENAMED = {"microwsgi.wake": "microwsgi.resume", "wsgi.trailers": "microwsgi.trailers"}
"""Environ keys of version 0.1, and their names now."""


def record(environ: Environ, event: str) -> None:
    """Keep what the application sees. Each conversation has a list of its own, and its requests follow each other."""
    EVENTS.setdefault(environ["REMOTE_ADDR"], []).append(event)


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Call the behaviour that the path names."""
    record(environ, f"call {environ['REQUEST_METHOD']} {environ['REQUEST_URI']}")
    behaviour = BEHAVIOURS.get(environ["PATH_INFO"], report)
    answer: Iterable[bytes] = behaviour(environ, start_response, dict(parse_qsl(environ["QUERY_STRING"])))
    return answer


def described(key: str, value: object) -> object:
    """A value of the environ as JSON, the same on both sides if it means the same."""
    if key in {"REMOTE_PORT", "SERVER_PORT"}:
        return "PORT" if isinstance(value, str) and value.isdigit() else value
    if key == "SERVER_SOFTWARE":
        return str(value).partition("/")[0]
    if isinstance(value, (str, int, float, tuple, list, type(None))):
        return value
    return f"{'' if callable(value) else 'not '}callable"


def report(environ: Environ, start_response: StartResponse, _: dict[str, str]) -> Iterable[bytes]:
    """Answer with the environ, and with the body's length and hash."""
    body = read(environ, lambda stream: stream.read())
    found = {key: described(key, value) for key, value in environ.items()}
    found["body"] = [len(body), hashlib.sha256(body).hexdigest()[:16], body[:40].decode("latin-1")]
    found = {RENAMED.get(key, key): value for key, value in found.items()}
    record(environ, json.dumps(found, sort_keys=True))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(found, sort_keys=True).encode()]


def read(environ: Environ, how: Callable[[Any], bytes]) -> bytes:
    """Read from the body; record how that ended."""
    try:
        data = how(environ["wsgi.input"])
    except BaseException as error:
        record(environ, f"read raises {type(error).__name__}: {error}")
        raise
    record(environ, f"read {len(data)}")
    return data


# --- Bodies of requests -----------------------------------------------------------------------------------------------


def ignore(environ: Environ, start_response: StartResponse, _: dict[str, str]) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    return [b"not read"]


def part(environ: Environ, start_response: StartResponse, query: dict[str, str]) -> Iterable[bytes]:
    data = read(environ, lambda stream: stream.read(int(query.get("n", "3"))))
    start_response("200 OK", [TEXT])
    return [data]


def lines(environ: Environ, start_response: StartResponse, _: dict[str, str]) -> Iterable[bytes]:
    data = read(environ, lambda stream: b"|".join([stream.readline(), stream.readline(4), *stream.readlines()]))
    start_response("200 OK", [TEXT])
    return [data]


def blocks(environ: Environ, start_response: StartResponse, _: dict[str, str]) -> Iterable[bytes]:
    """Copy the body back while it is read."""
    start_response("200 OK", [TEXT])
    return iter(lambda: read(environ, lambda stream: stream.read(UPLOAD)), b"")


def swallow(environ: Environ, start_response: StartResponse, _: dict[str, str]) -> Iterable[bytes]:
    """Catch what reading raises, and answer all the same."""
    try:
        data = read(environ, lambda stream: stream.read())
    except Exception as error:  # whatever it is, this application goes on
        data = type(error).__name__.encode()
    start_response("200 OK", [TEXT])
    return [data[:40]]


def trailers(environ: Environ, start_response: StartResponse, _: dict[str, str]) -> Iterable[bytes]:
    key = "microwsgi.trailers" if "microwsgi.trailers" in environ else "wsgi.trailers"  # the name in 0.1
    before = list(environ.get(key, []))
    read(environ, lambda stream: stream.read())
    start_response("200 OK", [TEXT])
    return [json.dumps([before, environ.get(key)]).encode()]


# --- Bodies of responses ----------------------------------------------------------------------------------------------


class Closing:
    """An iterable whose `close` is recorded, and may raise."""

    def __init__(self, environ: Environ, chunks: Iterable[bytes], fails: bool = False) -> None:
        self.environ, self.chunks, self.fails = environ, iter(chunks), fails

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.chunks)

    def close(self) -> None:
        record(self.environ, "close")
        if self.fails:
            raise RuntimeError("close fails")


def body(kind: str, environ: Environ, chunks: list[Any], write: Callable[[bytes], object]) -> Any:
    """The chunks in one of the ways in which an application may send them."""
    if kind == "write":
        for chunk in chunks:
            write(chunk)
        return []
    if kind == "both":
        write(chunks[0])
        return Closing(environ, chunks[1:])
    if kind == "file":
        return environ["wsgi.file_wrapper"](io.BytesIO(b"".join(chunks)), 1000)
    ways: dict[str, Callable[[list[Any]], Any]] = {
        "list": list,
        "tuple": tuple,
        "generator": iter,
        "closing": lambda c: Closing(environ, c),
    }
    return ways[kind](chunks)


def respond(environ: Environ, start_response: StartResponse, query: dict[str, str]) -> Iterable[bytes]:
    """`status`, `kind` of the body, `chunks` as words separated by commas, and `length` for a Content-Length."""
    headers = [TEXT] if query.get("type", "1") == "1" else []
    if "length" in query:
        headers.append(("Content-Length", query["length"]))
    if "connection" in query:
        headers.append(("Connection", query["connection"]))
    chunks = [word.encode() for word in query.get("chunks", "one,two,three").split(",")]
    if "times" in query:
        chunks = [b"x" * int(query["size"])] * int(query["times"])
    if query.get("read") == "1":
        read(environ, lambda stream: stream.read())
    write = start_response(f"{query.get('status', '200')} Said So", headers)
    answer: Iterable[bytes] = body(query.get("kind", "list"), environ, chunks, write)
    return answer


def real_file(environ: Environ, start_response: StartResponse, query: dict[str, str]) -> Iterable[bytes]:
    """A real file from `at`; `length` is the Content-Length, if there is to be one."""
    file = open(FILE.name, "rb")
    file.seek(int(query.get("at", "0")))
    start_response("200 OK", [TEXT, *([("Content-Length", query["length"])] if "length" in query else [])])
    wrapper = environ["wsgi.file_wrapper"](file)
    if query.get("closing"):
        return Closing(environ, wrapper)
    made: Iterable[bytes] = wrapper
    return made


HEADERS: list[list[Any]] = [
    [],
    [("Content-Type", "text/plain"), ("X-A", "1"), ("X-A", "2"), ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")],
    [("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Server", "mine")],
    [("X-Latin", "caf\xe9")],
    [("X-Wide", "\u20ac")],
    [("X-Line", "a\r\nInjected: yes")],
    [("X-Nul", "a\0b")],
    [("Bad Name", "x")],
    [("", "x")],
    [("X:", "x")],
    [("Connection", "close")],
    [("Connection", "keep-alive")],
    [("Keep-Alive", "timeout=5")],
    [("Transfer-Encoding", "chunked")],
    [("Upgrade", "h2c")],
    [("Content-Length", "4")],
    [("Content-Length", "4"), ("Content-Length", "4")],
    [("Content-Length", "4"), ("Content-Length", "5")],
    [("Content-Length", "-1")],
    [("Content-Length", "four")],
    [("Content-Length", "+4")],
    [("Content-Length", "")],
    [("X-Space", "  a  ")],
    [("X-Bytes", b"x")],
    [("X-Number", 3)],
    [["X-List", "x"]],
    [("X-One",)],
    ["X-Str: x"],
    [("Status", "200 OK")],
    [("x-lower", "a"), ("TRAILER", "b"), ("Trailer", "c")],
    [("Content-Encoding", "gzip"), ("Vary", "*"), ("ETag", '"a"')],
]
STATUSES: list[Any] = [
    "200 OK",
    "200",
    "200 ",
    "2000 OK",
    "20 OK",
    "abc OK",
    "200 O\r\nK",
    "200 caf\xe9",
    "200 \u20ac",
    "100 Continue",
    "103 Early Hints",
    "199 What",
    "600 Far",
    "999 Farther",
    " 200 OK",
    "",
    200,
    b"200 OK",
    None,
]


def headers(environ: Environ, start_response: StartResponse, query: dict[str, str]) -> Iterable[bytes]:
    start_response("200 OK", HEADERS[int(query["n"])])
    return [b"body"]


def status(environ: Environ, start_response: StartResponse, query: dict[str, str]) -> Iterable[bytes]:
    start_response(STATUSES[int(query["n"])], [TEXT])
    return [b"body"]


# --- Faults -----------------------------------------------------------------------------------------------------------


class Failure(Exception):
    """An exception of the application's."""


def failing(count: int, error: BaseException) -> Iterator[bytes]:
    for _ in range(count):
        yield b"before "
    raise error


def fail(environ: Environ, start_response: StartResponse, query: dict[str, str]) -> Iterable[bytes]:
    """Raise, at a point that `when` names."""
    when = query["when"]
    error: BaseException = {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}.get(
        query.get("what", ""), Failure("on purpose")
    )
    if when == "call":
        raise error
    sized = [TEXT, ("Content-Length", "100")] if query.get("length") else [TEXT]
    write = start_response("200 OK", sized)
    if when == "start":
        raise error
    if when == "write":
        write(b"written ")
        raise error
    if when == "close":
        return Closing(environ, [b"whole"], fails=True)
    if when == "failed and close":
        return Closing(environ, failing(1, error), fails=True)
    return Closing(environ, failing(int(query.get("after", "0")), error))


def exc_info(environ: Environ, start_response: StartResponse, query: dict[str, str]) -> Iterable[bytes]:
    """Call start_response again with exc_info, before or after the head has left."""
    write = start_response("200 OK", [TEXT])
    if query.get("sent"):
        write(b"sent ")
    try:
        next(failing(0, Failure("handled")))
    except Failure:
        start_response("503 Replaced", [TEXT, ("X-Replaced", "yes")], sys.exc_info())
    return [b"replaced"]


def start_twice(environ: Environ, start_response: StartResponse, _: dict[str, str]) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    start_response("404 No", [TEXT])
    return [b"twice"]


def start_never(environ: Environ, start_response: StartResponse, query: dict[str, str]) -> Iterable[bytes]:
    return [b"body"] if query.get("kind", "list") == "list" else iter([b"body"])


def start_late(environ: Environ, start_response: StartResponse, _: dict[str, str]) -> Iterator[bytes]:
    """A generator: start_response is called by the first next()."""
    start_response("201 Late", [TEXT])
    yield b""
    yield b"late"


class Response:
    """Looks like a response of WebOb that was not called."""

    app_iter: Iterable[bytes] = ()


RETURNED: list[Callable[[], Any]] = [
    lambda: None,
    lambda: "text",
    lambda: b"bytes",
    lambda: 5,
    lambda: ["text"],
    lambda: [b"a", "text"],
    lambda: iter(["text"]),
    lambda: iter([b"a", "text"]),
    lambda: [bytearray(b"array")],
    lambda: iter([bytearray(b"array")]),
    lambda: iter([memoryview(b"view")]),
    lambda: [None],
    lambda: (b"tuple", b"of two"),
    lambda: ("text",),
    lambda: {b"set"},
    lambda: {b"key": 1},
    Response,
    list,
    lambda: iter([]),
    lambda: [b"", b""],
    lambda: iter([b"", b"", b"late", b""]),
]


def returned(environ: Environ, start_response: StartResponse, query: dict[str, str]) -> Any:
    start_response("200 OK", [TEXT])
    return RETURNED[int(query["n"])]()


# --- What this server offers beyond PEP 3333 --------------------------------------------------------------------------


def hints(environ: Environ, start_response: StartResponse, query: dict[str, str]) -> Iterable[bytes]:
    link = [("Link", "</style.css>; rel=preload")]
    environ["wsgi.early_hints"](link)
    write = start_response("200 OK", [TEXT])
    if query.get("late"):
        write(b"begun ")
        environ["wsgi.early_hints"](link)
    return [b"hinted"]


def suspend(environ: Environ, start_response: StartResponse, query: dict[str, str]) -> Iterable[bytes]:
    """Suspend `n` times, until a thread wakes the response or the time is over; with `ever`, until the client leaves."""
    wake = environ.get("microwsgi.resume") or environ["microwsgi.wake"]  # the name in 0.1
    headers = [TEXT, *([("Content-Length", query["length"])] if "length" in query else [])]
    start_response("200 OK", headers)

    def chunks() -> Iterator[bytes]:
        yield b"begin "
        for number in range(int(query.get("n", "3"))):
            word: list[bytes] = []

            def say(word: list[bytes] = word, number: int = number) -> None:
                word.append(b"word %d " % number)
                wake()

            if query.get("by") == "time":
                wake(after=0.001)
                yield b""
                yield b"later %d " % number
                continue
            wake(after=60)
            threading.Thread(target=say).start()
            while not word:
                yield b""
                wake(after=60)
            yield word[0]
        while "ever" in query:
            wake(after=60)
            yield b""
        if "fail" in query:
            raise Failure("after a suspension")
        yield b"end"

    return Closing(environ, chunks())


def upgrade(environ: Environ, start_response: StartResponse, _: dict[str, str]) -> Iterable[bytes]:
    """Take the socket; answer 101, then each line reversed, until an empty one."""
    connection = environ["microwsgi.socket"]
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: reverse\r\nConnection: Upgrade\r\n\r\n")
    line = b""
    while byte := connection.recv(1):
        line += byte
        if byte == b"\n":
            if line == b"\n":
                break
            connection.sendall(line.strip()[::-1] + b"\n")
            line = b""
    connection.close()
    return []


BEHAVIOURS: dict[str, Callable[[Environ, StartResponse, dict[str, str]], Any]] = {
    f"/{name}": function
    for name, function in {
        "ignore": ignore,
        "part": part,
        "lines": lines,
        "blocks": blocks,
        "swallow": swallow,
        "trailers": trailers,
        "respond": respond,
        "file": real_file,
        "headers": headers,
        "status": status,
        "fail": fail,
        "exc_info": exc_info,
        "twice": start_twice,
        "never": start_never,
        "late": start_late,
        "returned": returned,
        "hints": hints,
        "suspend": suspend,
        "upgrade": upgrade,
    }.items()
}


class Plain(BaseHTTPRequestHandler):
    """A handler class without WSGI."""

    protocol_version = "HTTP/1.1"

    def version_string(self) -> str:
        return "plain"

    def do_GET(self) -> None:
        self.answer(b"path " + self.path.encode("latin-1"))

    def do_HEAD(self) -> None:
        self.answer(b"path " + self.path.encode("latin-1"))

    def do_POST(self) -> None:
        self.answer(b"body " + self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def do_FAIL(self) -> None:
        raise Failure("on purpose")

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing: http.server's lines have the time in them."""
