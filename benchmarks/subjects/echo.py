"""The application of the latency part. With WebOb, `/` returns a form for GET and the submitted values for POST.

`/hello` and `/sleep` are plain WSGI; `/json`, `/large`, `/upload` and `/boom` use WebOb.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from webob import Request, Response

from benchmarks.subjects import hello

SLEEP_SECONDS = 0.005
LARGE = b"x" * 100 * 1024
FORM = (
    "<!doctype html><title>echo</title><form method=post><input name=name><input name=text><button>Send</button></form>"
)


def view(request: Request) -> Response:
    match request.path_info:
        case "/json":
            return Response(
                json_body={"message": "Hello, world!", "items": list(range(20))}, content_type="application/json"
            )
        case "/large":
            return Response(LARGE, content_type="application/octet-stream")
        case "/upload":
            return Response(str(len(request.body_file.read())), content_type="text/plain")
        case "/boom":
            raise RuntimeError("a view that fails")
    if request.method == "POST":
        rows = "".join(f"<dt>{escape(name)}<dd>{escape(str(value))}" for name, value in request.POST.items())
        return Response(f"<!doctype html><title>echo</title><dl>{rows}</dl>")
    return Response(FORM)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    match environ["PATH_INFO"]:
        case "/hello":
            return hello.app(environ, start_response)
        case "/sleep":
            time.sleep(SLEEP_SECONDS)
            return hello.app(environ, start_response)
    answer: Iterable[bytes] = view(Request(environ))(environ, start_response)
    return answer
