"""`microwsgi check`: send requests of many kinds to an application over real sockets, and report the rules that it breaks.

check_command
  requests     the list of requests
  Checker      sends them to a server whose application is wrapped by microwsgi.devtools.lint
  report       a few lines for each finding
"""

from __future__ import annotations

import io
import json
import socket
import struct
import textwrap
import time
import warnings
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from itertools import chain
from typing import Any, NamedTuple
from wsgiref.validate import WSGIWarning

from microwsgi.cli.stack import LIMIT, ours, running, say
from microwsgi.devtools.lint import FAULT, NOTE, Finding, Lint
from microwsgi.devtools.tracer import Tracer
from microwsgi.errors import UsageError
from microwsgi.options import Options
from microwsgi.options.declaration import BY_NAME
from microwsgi.serving.console import counted
from microwsgi.serving.loader import load_named
from microwsgi.support.source import source_location

WIDTH = 80
"""The width of the report, in columns."""
PREFIX = 24
"""Findings whose texts agree in this number of characters at the beginning are reported as one."""
LOG_TIME = 2.0
"""Seconds to wait for the record of an exception of a handler class: a thread of the server writes it."""
LARGE = 40_000
"""The length of a body that is not buffered before the application is called."""
ALIKE = ("content-type", "content-length", "content-encoding", "etag", "last-modified", "location", "allow")
"""Fields that should be the same in the response to HEAD and GET (RFC 9110 9.3.2)."""
NO_FAILURES = {HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.SERVICE_UNAVAILABLE}
FORM, JSON, MULTIPART = "application/x-www-form-urlencoded", "application/json", "multipart/form-data"
PART = b'--b\r\nContent-Disposition: form-data; name="test"; filename="a.txt"\r\n\r\nhello\r\n--b--\r\n'
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW")
PATHS = (
    "//", "/./../", "/%2e%2e/%2e%2e/x", "/%2F", "/%00", "/%", "/%ff", "/caf%C3%A9", "/%F0%9F%98%80", "/a;b=c", "/:a@b",
    "/'\"<>", "/" + "long/" * 400, "/?", "/?%", "/?a=%ff", "/?a=%00&a=b&=&&;", "/?a[b]=c",
    "/?" + "&".join(f"f{n}={n}" for n in range(500)),
)  # fmt: skip
FIELDS = {
    "Accept": "text/html;q=a, */*;q=, ;", "Accept-Language": "xx-YY;q=2, *", "Accept-Encoding": "gzip;q=0, identity;q=0, *;q=0",
    "Authorization": "Basic !!!", "Cookie": 'a="b; ;=;c; d==;\u00e9=\u00fc', "Content-Type": ";;;", "Date": "yesterday",
    "If-Match": '"', "If-Modified-Since": "Mon, 99 Foo 2026 25:00:00 GMT", "If-None-Match": 'W/, "', "Range": "bytes=9-1,-,x",
    "Forwarded": 'for="[::1', "Origin": "null", "Referer": "::", "User-Agent": "", "X-Forwarded-For": ",,",
    "X-Forwarded-Host": "a b", "X-Requested-With": "caf\u00e9", "X-Large": "x" * 7000,
}  # fmt: skip
BODIES = {
    "a form": (FORM, b"test=hello&text=caf%C3%A9"),
    "an empty form": (FORM, b""),
    "a broken form": (FORM, b"%ff=%&=&&%00&caf\xe9"),
    "JSON": (JSON, b'{"test": "hello"}'),
    "broken JSON": (JSON, b'{"test": \xff'),
    "an empty JSON body": (JSON, b""),
    "JSON of another shape": (JSON, b"[[[1e999]]]"),
    "a file in a form": (f"{MULTIPART}; boundary=b", PART),
    "a form that ends early": (f"{MULTIPART}; boundary=b", PART[:-9]),
    "a form without a boundary": (MULTIPART, PART),
    "text": ("text/plain; charset=utf-8", "h\u00e9llo".encode()),
    "bytes": ("application/octet-stream", bytes(range(256))),
    "an unknown charset": (f"{FORM}; charset=nonsense", b"a=b"),
    "a body without a type": ("", b"hello"),
    "a long form": (FORM, b"test=" + b"x" * LARGE),
}


class SentRequest(NamedTuple):
    """A request: its name in the report, its bytes, and the number of response bytes after which the client disconnects."""

    name: str
    data: bytes
    leave: int | None = None


def request(name: str, method: str, path: str, fields: dict[str, str], body: bytes = b"", **more: Any) -> SentRequest:
    """Return a request with the fields that all requests have."""
    lines = [f"{method} {path} {more.pop('version', 'HTTP/1.1')}", "Host: localhost", "Connection: close"]
    lines += [f"{field}: {value}" for field, value in fields.items()]
    return SentRequest(name, "\r\n".join([*lines, "", ""]).encode("latin-1") + body, **more)


def odd_targets() -> Iterator[SentRequest]:
    """Return the requests that are sent once."""
    yield request("GET http://localhost/", "GET", "http://localhost/", {})
    yield request("OPTIONS *", "OPTIONS", "*", {})
    for path in PATHS:
        yield request(f"GET {path[:40]}", "GET", path, {})
    yield request("GET with bytes that are not ASCII", "GET", "/caf\u00e9?\u00e9", {})


def requests(path: str) -> Iterator[SentRequest]:
    """Return the requests that are sent for each path."""
    for method in METHODS:
        yield request(f"{method} {path}", method, path, {})
    yield request(f"GET {path} in HTTP/1.0", "GET", path, {}, version="HTTP/1.0")
    for field, value in FIELDS.items():
        yield request(f"GET {path} with {field}: {value[:30]}", "GET", path, {field: value})
    yield request(f"GET {path} with 80 fields", "GET", path, {f"X-{n}": str(n) for n in range(80)})
    for name, (kind, body) in BODIES.items():
        fields = {"Content-Type": kind} if kind else {}
        yield request(f"POST {path}, {name}", "POST", path, {**fields, "Content-Length": str(len(body))}, body)
    form, chunks = {"Content-Type": FORM}, b"5\r\ntest=\r\n5\r\nhello\r\n0\r\n\r\n"
    yield request(f"POST {path}, a form in chunks", "POST", path, {**form, "Transfer-Encoding": "chunked"}, chunks)
    expecting = {**form, "Content-Length": "10", "Expect": "100-continue"}
    yield request(f"POST {path}, after 100-continue", "POST", path, expecting, b"test=hello")
    yield request(f"GET {path} with a body", "GET", path, {**form, "Content-Length": "10"}, b"test=hello")
    cut = {**form, "Content-Length": str(2 * LARGE)}
    yield request(f"POST {path}, the client leaves in the body", "POST", path, cut, b"test=" + b"x" * LARGE, leave=0)
    yield request(f"GET {path}, the client leaves at once", "GET", path, {}, leave=0)
    yield request(f"GET {path}, the client leaves in the answer", "GET", path, {}, leave=1)


class ResponseHead(NamedTuple):
    """The head of a response; status 0 if there was none."""

    status: int
    fields: dict[str, str]


class Checker:
    """Sends requests to a server, and records findings."""

    def __init__(self, port: int, lint: Lint, errors: io.StringIO, log_time: float = 0.0) -> None:
        self.port = port
        self.lint = lint
        self.errors = errors
        self.log_time = log_time
        self.sent: list[SentRequest] = []

    def send(self, asked: SentRequest) -> ResponseHead:
        """Send a request, and check the response."""
        number = str(len(self.sent))
        self.sent.append(asked)
        self.errors.seek(0)
        self.errors.truncate()
        line, _, rest = asked.data.partition(b"\r\n")
        data = exchange(self.port, line + f"\r\nX-Check: {number}\r\n".encode() + rest, asked.leave)
        answer = parsed(data)
        if asked.leave is None:
            for finding in self.check_fields(answer, self.lint.makers.get(number, "")):
                self.lint.note(number, finding)
            if number not in self.lint.findings and is_failure(answer):
                self.lint.note(number, self.failure(answer, number))
        return answer

    def check_fields(self, answer: ResponseHead, where: str) -> Iterator[Finding]:
        """Return the faults of a single response."""
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED and "allow" not in answer.fields:
            yield Finding(FAULT, "RFC 9110 15.5.6", "a 405 without Allow", where)
        if answer.status == HTTPStatus.UNAUTHORIZED and "www-authenticate" not in answer.fields:
            yield Finding(FAULT, "RFC 9110 15.5.2", "a 401 without WWW-Authenticate", where)

    def failure(self, answer: ResponseHead, number: str) -> Finding:
        """Return the finding for a 500 without an exception: a framework has caught it."""
        end = time.monotonic() + self.log_time
        while not (lines := self.logged()) and time.monotonic() < end:
            time.sleep(0.005)
        said = lines[-1:] or ["the framework's log may say why"]
        what = f"a {answer.status}" if answer.status else "no complete response"
        where = self.lint.raisers.get(number) or self.lint.makers.get(number, "")
        return Finding(FAULT, "an exception", f"{what}; {said[0]}", where)

    def logged(self) -> list[str]:
        """Return the lines of the error log, without the server's own about clients that disconnected, which may come late."""
        return [line for line in self.errors.getvalue().strip().splitlines() if not line.startswith("127.0.0.1:")]

    def compare_head(self, path: str) -> None:
        """Compare HEAD with GET (RFC 9110 9.3.2), except where two responses to GET differ."""
        get, head, again = (self.send(request(f"{m} {path}", m, path, {})) for m in ("GET", "HEAD", "GET"))
        number = str(len(self.sent) - 2)
        rule, where = "RFC 9110 9.3.2", self.lint.makers.get(number, "")
        if head.status != get.status == again.status:
            text = f"HEAD is answered with {head.status}, GET with {get.status}"
            self.lint.note(number, Finding(FAULT, rule, text, where))
            return
        for field in ALIKE:
            if field in get.fields and get.fields[field] == again.fields.get(field) and field in head.fields:
                if head.fields[field] != get.fields[field]:
                    text = f"{field} is {head.fields[field]} for HEAD, and {get.fields[field]} for GET"
                    self.lint.note(number, Finding(FAULT, rule, text, where))
            elif field in get.fields and field not in head.fields and field != "content-length":
                self.lint.note(number, Finding(NOTE, rule, f"HEAD lacks {field}, which GET has", where))


def is_failure(answer: ResponseHead) -> bool:
    """Return whether the application failed: a 500, or no response at all."""
    return answer.status not in NO_FAILURES and not 0 < answer.status < HTTPStatus.INTERNAL_SERVER_ERROR


def exchange(port: int, data: bytes, leave: int | None) -> bytes:
    """Return the response. After `leave` bytes the client resets the connection."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), LIMIT) as connection:
        try:
            connection.sendall(data)
            while leave is None or len(received) < leave:
                piece = connection.recv(65536 if leave is None else leave)
                if not piece:
                    break
                received += piece
        except OSError:
            pass  # what was received before is the response
        if leave is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return received


def parsed(data: bytes) -> ResponseHead:
    """Return the head of the final response."""
    while data.startswith(b"HTTP/1.1 1"):
        data = data.partition(b"\r\n\r\n")[2]
    lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    if not lines[0].startswith("HTTP/"):
        return ResponseHead(0, {})
    fields = dict(line.split(": ", 1) for line in lines[1:])
    return ResponseHead(int(lines[0][9:12]), {name.lower(): value for name, value in fields.items()})


# --- The command --------------------------------------------------------------------------------------------------------


def check_command(words: list[str], given: dict[str, Any]) -> int:
    """Run `microwsgi check`. Return 1 if there are faults. Raises UsageError."""
    options = Options.from_mapping({name: value for name, value in given.items() if name in BY_NAME})
    paths = [word for word in words if word.startswith("/")] or ["/"]
    specs = [word for word in words if not word.startswith("/")]
    if len(specs) > 1:
        raise UsageError(f"expected one application, and paths that begin with a slash, not {' '.join(specs)}.")
    name, application = load_named(specs[0] if specs else None, options.app_dir)
    found, count = checked(application, paths)
    if given["json"]:
        rows = [{**finding._asdict(), "requests": asked} for finding, asked in found.items()]
        say(json.dumps({"application": name, "requests": count, "findings": rows}, indent=2))
    else:
        say(report(name, found, count))
    return 1 if any(finding.level == FAULT for finding in found) else 0


def checked(application: Any, paths: list[str]) -> tuple[dict[Finding, list[str]], int]:
    """Return the findings with their requests, and the number of requests."""
    tracer, errors = Tracer(), io.StringIO()
    lint = Lint(application, tracer)
    is_class = isinstance(application, type) and issubclass(application, BaseHTTPRequestHandler)
    served = application if is_class else lint  # PEP 3333 has no rules for a handler class; its responses are checked
    with tracer, running(lambda each: ours(each, errors), served) as port, warnings.catch_warnings():
        warnings.simplefilter("ignore", WSGIWarning)  # about methods that the validator does not know
        checker = Checker(port, lint, errors, LOG_TIME if is_class else 0.0)
        for path in paths:
            checker.compare_head(path)
        for asked in chain(*map(requests, paths), odd_targets()):
            checker.send(asked)
    found: dict[Finding, list[str]] = {}
    for number, findings in sorted(lint.findings.items(), key=lambda each: int(each[0] or 0)):
        for finding in findings:
            method = checker.sent[int(number or 0)].data.partition(b" ")[0].decode()
            placed = finding._replace(where=finding.where or location(application, method))
            first = next((each for each in found if same_finding(each, placed)), placed)
            found.setdefault(first, []).append(checker.sent[int(number or 0)].name)
    return found, len(checker.sent)


def location(application: object, method: str) -> str:
    """Return the location of an application; for a handler class, that of the request's method, or else of another method."""
    if not isinstance(application, type) or not issubclass(application, BaseHTTPRequestHandler):
        return source_location(application)
    names = [f"do_{method}", "do_GET", *(name for name in dir(application) if name.startswith("do_"))]
    return next(
        source_location(getattr(application, name)) for name in [*names, "handle"] if hasattr(application, name)
    )


def same_finding(one: Finding, other: Finding) -> bool:
    """Return whether two findings are reported as one: same location, and texts with the same beginning."""
    return one._replace(text=one.text[:PREFIX]) == other._replace(text=other.text[:PREFIX])


def report(name: str, found: dict[Finding, list[str]], count: int) -> str:
    """Return the report, faults first."""
    lines = [f"{name}: {count} requests"]
    for finding, asked in sorted(found.items(), key=lambda each: each[0].level):
        more = f", and {len(asked) - 1} more" if len(asked) > 1 else ""
        lines += ["", f"{finding.level}  {finding.where or name}"]
        for text in (f"{finding.rule}: {finding.text}", f"{asked[0]}{more}"):
            lines.append(textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    "))
    faults = sum(finding.level == FAULT for finding in found)
    counts = f"{counted(faults, 'fault')}, {counted(len(found) - faults, 'note')}."
    return "\n".join([*lines, "", counts if found else "No broken rule was found."])
