"""The echo application with WebOb: a form on GET, its fields on POST; JSON, a large body, an upload and a failure beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from webob import Request, Response

LARGE = b"x" * 100 * 1024
FORM = (
    "<!doctype html><title>echo</title><form method=post><input name=name><input name=text><button>Send</button></form>"
)


def view(request: Request) -> Response:
    match request.path_info:
        case "/json":
            return Response(json_body={"message": "Hello, world!", "items": list(range(20))}, content_type="application/json")
        case "/large":
            return Response(LARGE, content_type="application/octet-stream")
        case "/upload":
            return Response(str(len(request.body_file.read())), content_type="text/plain")
        case "/boom":
            raise RuntimeError("a view that fails")
    if request.method == "POST":
        rows = "".join(f"<dt>{escape(name)}<dd>{escape(value)}" for name, value in request.POST.items())
        return Response(f"<!doctype html><title>echo</title><dl>{rows}</dl>")
    return Response(FORM)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    answer: Iterable[bytes] = view(Request(environ))(environ, start_response)
    return answer
