"""Test any WSGI application: `Client` calls it in this process, `live` serves it on a free port.

    response = Client(app).post("/users", json={"name": "Ada"})
    assert response.expect(201).json["id"] == 1
    assert_stack_depth(app, "/users", max=6)

The fixtures for pytest are in `microwsgi.pytest_plugin`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPConnection
from http.cookiejar import CookieJar
from typing import TypedDict, Unpack
from urllib.parse import urlencode, urljoin
from urllib.request import Request as CookieRequest
from wsgiref.types import WSGIApplication

import webob

from microwsgi.devtools import render
from microwsgi.devtools.tracer import Tracer
from microwsgi.options import Options
from microwsgi.options.keywords import OptionValues
from microwsgi.server.server import WSGIServer

MAX_BODY_TEXT = 2000
"""The maximum number of characters of a body that a failed expectation shows."""
REDIRECTS = {301, 302, 303, 307, 308}
KEEP_METHOD = {307, 308}
MAX_REDIRECTS = 20


class Response(webob.Response):
    """WebOb's Response with its request and URL, and the responses that led there by redirects."""

    request: webob.Request
    url: str
    history: tuple[Response, ...] = ()

    def expect(self, status: int = 200, *, text: str | None = None, json: object = ...) -> Response:
        """Return the response. Raises AssertionError unless it has this status, this text in its body, and this JSON value."""
        __tracebackhide__ = True  # pytest shows the line of the test
        faults = []
        if self.status_int != status:
            faults.append(f"expected status {status}, got {self.status}")
        if text is not None and text not in self.text:
            faults.append(f"expected {text!r} in the body")
        if json is not ... and (not (self.content_type or "").endswith("json") or self.json != json):
            faults.append(f"expected {json!r} as JSON")
        if faults:
            raise AssertionError("\n".join([*faults, "", self.exchange()]))
        return self

    def exchange(self) -> str:
        """Return the request line and the response, for people to read."""
        lines = [f"> {each.request.method} {each.url}" for each in (*self.history, self)]
        lines += [f"< {self.status}", *(f"< {name}: {value}" for name, value in self.headerlist)]
        try:
            body = self.text
        except (AttributeError, UnicodeDecodeError):  # no charset, or not in it
            body = repr(self.body)
        return "\n".join([*lines, "", body[:MAX_BODY_TEXT] + (" ..." if len(body) > MAX_BODY_TEXT else "")])


class RequestArguments(TypedDict, total=False):
    """The keyword arguments of a request."""

    query: Mapping[str, object] | None
    """Parameters of the query string."""
    json: object
    """A body, as JSON."""
    form: Mapping[str, object] | None
    """A body, as a form. A file in it is a (name, bytes)."""
    body: bytes | None
    headers: Mapping[str, str] | None
    environ: Mapping[str, object] | None
    """Keys to add to the environ."""
    follow: bool
    """Whether to follow redirects."""
    stream: bool
    """Whether to leave the body for `response.app_iter`, which the caller closes."""


class Client:
    """Calls a WSGI application without a socket. Cookies are kept; exceptions of the application are raised in the test."""

    def __init__(
        self, application: WSGIApplication, *, url: str = "http://localhost", headers: Mapping[str, str] | None = None
    ) -> None:
        self.application = application
        self.url = url
        self.headers = dict(headers or {})
        self.cookies = CookieJar()

    def request(
        self,
        method: str,
        path: str,
        **arguments: Unpack[RequestArguments],
    ) -> Response:
        """Send a request and return the response. `get`, `post` and so on do this with their method of HTTP."""
        if query := arguments.get("query"):
            path += ("&" if "?" in path else "?") + urlencode(query, doseq=True)
        url = path if path.startswith(("http://", "https://")) else self.url + path
        request = webob.Request.blank(url, method=method, POST=arguments.get("form"))
        request.environ["REQUEST_METHOD"] = method  # `blank` sets POST if there is a form
        if "json" in arguments:
            request.json, request.content_type = arguments["json"], "application/json"
        body = arguments.get("body")
        if body is not None:
            request.body = body
        request.headers.update({**self.headers, **(arguments.get("headers") or {})})
        # Exceptions are raised in the test, not converted to an error page (wsgi.org's convention).
        request.environ.update({"x-wsgiorg.throw_errors": True, **(arguments.get("environ") or {})})
        response = self.send(request, url)
        if arguments.get("follow"):
            return self.follow(response)
        return response if arguments.get("stream") else read(response)

    def send(self, request: webob.Request, url: str) -> Response:
        """Return the application's response, before its body is read."""
        carrier = CookieRequest(url)  # noqa: S310 - it is never opened: http.cookiejar needs urllib's requests
        self.cookies.add_cookie_header(carrier)
        if cookie := carrier.get_header("Cookie"):
            own = request.headers.get("Cookie")
            request.headers["Cookie"] = f"{own}; {cookie}" if own else cookie
        environ = request.environ.copy()  # a copy, because applications change it
        status, headers, chunks = webob.Request(environ).call_application(self.application)
        response = Response(status=status, headerlist=list(headers), app_iter=chunks)
        response.request, response.url = request, url
        self.cookies.extract_cookies(Received(headers), carrier)  # type: ignore[arg-type]  # it calls only info()
        return response

    def follow(self, response: Response) -> Response:
        """Follow redirects, as a browser does."""
        history: list[Response] = []
        while response.status_int in REDIRECTS and "Location" in response.headers:
            history.append(read(response))
            if len(history) > MAX_REDIRECTS:
                raise AssertionError(f"more than {MAX_REDIRECTS} redirects\n\n{response.exchange()}")
            before, url = response.request, urljoin(response.url, response.headers["Location"])
            keep = response.status_int in KEEP_METHOD or before.method == "HEAD"
            request = webob.Request.blank(url, method=before.method if keep else "GET", headers=self.headers)
            if keep:
                request.body, request.environ["CONTENT_TYPE"] = before.body, before.environ.get("CONTENT_TYPE", "")
            response = self.send(request, url)
        response.history = tuple(history)
        return read(response)

    def get(self, path: str, **arguments: Unpack[RequestArguments]) -> Response:
        return self.request("GET", path, **arguments)

    def head(self, path: str, **arguments: Unpack[RequestArguments]) -> Response:
        return self.request("HEAD", path, **arguments)

    def post(self, path: str, **arguments: Unpack[RequestArguments]) -> Response:
        return self.request("POST", path, **arguments)

    def put(self, path: str, **arguments: Unpack[RequestArguments]) -> Response:
        return self.request("PUT", path, **arguments)

    def patch(self, path: str, **arguments: Unpack[RequestArguments]) -> Response:
        return self.request("PATCH", path, **arguments)

    def delete(self, path: str, **arguments: Unpack[RequestArguments]) -> Response:
        return self.request("DELETE", path, **arguments)

    def options(self, path: str, **arguments: Unpack[RequestArguments]) -> Response:
        return self.request("OPTIONS", path, **arguments)


class Received:
    """The part of a response's interface that http.cookiejar uses."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        self.message = Message()
        for name, value in headers:
            self.message[name] = value

    def info(self) -> Message:
        """Return the header fields."""
        return self.message


def read(response: Response) -> Response:
    """Return the response with its complete body, and close the application's iterable."""
    chunks = response.app_iter
    try:
        body = b"".join(chunks)
    finally:
        if hasattr(chunks, "close"):
            chunks.close()
    fields = list(response.headerlist)
    response.app_iter = [body]
    response.headerlist = fields  # as the application sent them: WebOb has removed Content-Length
    return response


class Live:
    """A running server: `url`, without a slash at its end, `port`, and `server`."""

    def __init__(self, server: WSGIServer) -> None:
        self.server = server
        self.port = int(server.server_port)
        self.url = f"http://127.0.0.1:{self.port}"


@contextmanager
def live(
    application: WSGIApplication, *, errors: Callable[..., object] | None = None, **options: Unpack[OptionValues]
) -> Iterator[Live]:
    """Serve an application on a free port of this machine, in a thread; the options are those of docs/options.md."""
    server = WSGIServer(("127.0.0.1", 0), application=application, options=Options(**options), errors=errors)
    thread = threading.Thread(target=server.serve_forever, name="microwsgi live")
    thread.start()
    try:
        yield Live(server)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def assert_stack_depth(
    application: WSGIApplication,
    path: str = "/",
    *,
    max: int,  # it reads well in a test: assert_stack_depth(app, max=6)
    method: str = "GET",
    to: str = "",
) -> None:
    """Raise AssertionError, with a picture, if the stack of the thread, down to your function, has more than `max` frames.

    The application is served, and gets one request. Your function is the one that made the response (see
    `microwsgi.devtools.tracer`), or the last called function with the name `to`. Frames of C functions are not counted.
    """
    with Tracer() as tracer, live(application) as running:
        connection = HTTPConnection("127.0.0.1", running.port)
        connection.request(method, path)
        connection.getresponse().read()
        connection.close()
    try:
        frames = tracer.frames(to)
    except LookupError:
        frames = []
    if not frames or (tracer.maker() is None and not to):
        found = f"{to} was not called for" if to else "none of your functions made the response to"
        raise AssertionError(f"{found} {method} {path}")
    if len(frames) > max:
        raise AssertionError(
            f"at most {max} frames were expected; there are {render.summary(frames)}\n\n{render.text(frames)}"
        )
