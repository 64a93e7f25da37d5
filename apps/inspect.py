"""A request inspector: `microwsgi serve apps.inspect:app`; then send requests to any path, by any method, and look at /-/.

Every request is kept as the server saw it, with what the kernel knows of its connection, and the answer is that. The last ones
are listed live. Some paths answer on demand:

    /status/418  /delay/2  /bytes/1048576

What clients can make it do is bounded: see the constants.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from html import escape
from http import HTTPStatus
from wsgiref.types import StartResponse, WSGIEnvironment

from apps.inspecting import Seen, seen_of
from apps.look import page as look
from apps.look.page import link, listed, table
from microwsgi import App, Request, Response, abort

MOST_SECONDS, MOST_BYTES = 10.0, 1 << 27
BLOCK = bytes(1 << 16)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OWN = "/-"
"""The path of our own pages; all other paths are inspected."""
MARK = "inspect.seen"
KEPT = 100
"""Requests that are kept."""
CONNECTION = "The connection, as the kernel sees it (TCP_INFO)"

seen: dict[int, Seen] = {}
"""The last requests by number, the newest last."""
app, site = App(), look.Site({"Requests": "/"})


@app.before
def see(request: Request) -> None:
    """Keep the request, unless it is for our own pages."""
    if not request.environ.get("PATH_INFO", "").startswith(f"{OWN}/"):
        found = request.environ[MARK] = seen_of(request)
        seen[found.number] = found
        while len(seen) > KEPT:
            seen.pop(min(list(seen)), None)  # a copy: other threads add to it meanwhile


# --- Answers on demand ------------------------------------------------------------------------------------------------


@app.route("/status/{code:int}", methods=METHODS)
def status(request: Request, code: int) -> tuple[str, int]:
    if not HTTPStatus.OK <= code < 600:  # RFC 9110 15
        abort(400, "A final status is between 200 and 599.")
    return "", code


@app.route("/delay/{seconds:float}", methods=METHODS)
def delay(request: Request, seconds: float) -> Response:
    """The usual answer after a delay, which holds no thread."""
    body = answer(request)
    chunks = later(request, min(max(seconds, 0.0), MOST_SECONDS), body.body)
    return Response(headerlist=[("Content-Type", body.headers["Content-Type"])], app_iter=chunks)


@app.route("/bytes/{count:int}", methods=METHODS)
def octets(request: Request, count: int) -> Response:
    """As many zero bytes, which are never all in memory."""
    if not 0 <= count <= MOST_BYTES:
        abort(400, f"There are {MOST_BYTES} bytes at most.")
    blocks = (BLOCK[: count - at] for at in range(0, count, len(BLOCK)))
    fields = [("Content-Type", "application/octet-stream"), ("Content-Length", str(count))]
    return Response(headerlist=fields, app_iter=blocks)


def answer(request: Request) -> Response:
    """The request as it was received: a page for a browser, JSON for other clients."""
    found: Seen = request.environ[MARK]
    if look.prefers(request, "text/html", "application/json"):
        return site.page(request, found.line, shown(found), live=False, base=OWN)
    return Response(json=found.as_values())


def anything(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """All other paths and methods: an application that is mounted at the root gets requests without a route."""
    chunks: Iterable[bytes] = answer(Request(environ))(environ, start_response)
    return chunks


def later(request: Request, seconds: float, body: bytes) -> Iterator[bytes]:
    """A body that comes after some time: on our server it is suspended (docs/environ.md), on others a thread waits."""
    end, resume = time.monotonic() + seconds, request.environ.get("microwsgi.resume")
    while (left := end - time.monotonic()) > 0:
        if resume is None:
            time.sleep(left)
        else:
            resume(after=left)
            yield b""
    yield body


app.mount(OWN, site.app)
app.mount("/", anything, name="anything")

# --- Our own pages ----------------------------------------------------------------------------------------------------

site.versions = lambda: {"*": max(seen, default=0)}


@site.app.get("/")
def overview(request: Request) -> Response:
    return site.page(request, "Requests", site.section(request, "list", "Requests"))


@site.part("list")
def draw_list(request: Request, _: str) -> str:
    rows = [
        [
            link(f"{request.script_name}/requests/{each.number}", str(each.number)),
            f"{each.time:%H:%M:%S}", each.line[:200], each.client, each.agent[:100], each.body_length,
        ]
        for each in reversed(list(seen.values()))
    ]  # fmt: skip
    return table("The last requests, the latest first", ("number", "UTC", "request", "from", "by", "body"), rows)


@site.app.get("/requests/{number:int}")
def one(request: Request, number: int) -> Response:
    if number not in seen:
        abort(404, f"There is no request {number} among the last {KEPT}.")
    found = seen[number]
    if look.prefers(request, "application/json", "text/html"):
        return Response(json=found.as_values())
    return site.page(request, found.line, shown(found), live=False)


def readable(connection: dict[str, float]) -> dict[str, object]:
    """The kernel's figures of a connection; floats are times in seconds, shown in milliseconds."""
    return {name: f"{value * 1000:.3g} ms" if isinstance(value, float) else value for name, value in connection.items()}


def shown(found: Seen) -> str:
    """A request as HTML, without the parts that it has not."""
    received = {"received": f"{found.time:%F %T} UTC", "from": found.client, "version": found.version}
    body = f"<pre>{escape(found.body_text)}</pre>{listed({'bytes': found.body_length})}"
    parts = {
        "The request": listed(received),
        "Fields, in the order of the request": table("Fields", ("field", "value"), found.fields),
        "Query and form": found.values and table("Query and form", ("where", "name", "value"), found.values),
        "Body": found.body_length and body,
        "TLS": found.tls and listed(found.tls),
        CONNECTION: found.connection and listed(readable(found.connection)),
        "The environ": table("The environ", ("key", "value"), found.environ),
    }
    return "".join(f'<section class="wrap"><h2>{name}</h2>{part}</section>' for name, part in parts.items() if part)
