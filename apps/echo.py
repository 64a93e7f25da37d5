"""The application of the article: GET shows a form, POST shows what was submitted.

`microwsgi serve apps.echo:app`, then a browser, or `wget -qO- localhost:8000 --post-data=test=hello`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from hashlib import file_digest
from html import escape
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIEnvironment

from webob import Request, Response
from webob.compat import cgi_FieldStorage

LONGEST = 1024 * 1024
"""The limit for a body that is shown; files of a form may be longer."""
PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }}
body {{ max-width: 40rem; margin: 2rem auto; padding: 0 1rem }}
input, textarea, pre {{ display: block; box-sizing: border-box; width: 100%; margin: .2rem 0 1rem; padding: .5rem }}
input, textarea, button {{ font: inherit }} button {{ padding: .5rem 1.5rem }}
pre {{ border: 1px solid #8886; background: #8881; white-space: pre-wrap; overflow-wrap: anywhere }}
pre + form, div + form {{ border-top: 1px solid #8886; padding-top: 1rem }}
</style>
<h1>{title}</h1>
{content}
<form method="post" enctype="multipart/form-data">
<label>test <input name="test" value="hello"></label>
<label>text <textarea name="text" rows="3"></textarea></label>
<label>file <input name="file" type="file" multiple></label>
<button>Send</button>
</form>
"""


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a request: the whole application is this function."""
    request, response = Request(environ), Response()
    title, content = "Echo", ""
    if request.method == "POST":
        try:
            title, content = "Received", "".join(received(request))
        except (ValueError, LookupError, RecursionError) as error:
            response.status_int, title, content = 400, "Not understood", block(f"{error}")
    elif request.method not in {"GET", "HEAD"}:
        response.status_int, response.allow, title = 405, ("GET", "HEAD", "POST"), "GET or POST, please"
    response.body = PAGE.format(title=title, content=content).encode("utf-8", "backslashreplace")
    return response(environ, start_response)


def received(request: Request) -> Iterator[str]:
    """Return what was submitted, as HTML. Raises ValueError for an invalid body."""
    kind = request.content_type
    if kind == "multipart/form-data" and request.is_body_readable:
        yield from map(field, multipart(request))
        return
    body = request.body_file.read(LONGEST + 1) if request.is_body_readable else b""
    if not 0 < len(body) <= LONGEST:
        raise ValueError("The body is longer than a megabyte." if body else "The request has no body: send something.")
    if kind == "application/x-www-form-urlencoded":
        charset = request.charset or "utf-8"
        yield from map(field, parse_qsl(body.decode(charset), True, encoding=charset, errors="strict"))
    elif kind == "application/json" or kind.endswith("+json"):
        yield block(json.dumps(json.loads(body), indent=2, ensure_ascii=False))
    else:
        text = body.decode(errors="backslashreplace")  # bytes that are not UTF-8 in hexadecimal
        yield f"{escape(kind or 'no type')}, {len(body)} bytes{block(text)}"


def multipart(request: Request) -> list[tuple[str, str | cgi_FieldStorage]]:
    """Return the fields of a form with files. WebOb writes long ones to a temporary file."""
    file = request.body_file_seekable
    fields = list(request.POST.items())
    file.seek(max(file.seek(0, 2) - 256, 0))
    if not fields or not file.read().rstrip().endswith(b"--"):
        raise ValueError("The form has no fields, or does not end with its boundary.")
    if any(name is None or "\ufffd" in f"{name}{value}" for name, value in fields):
        raise ValueError("A field of the form has no name, or is not UTF-8.")
    return fields


def field(item: tuple[str, str | cgi_FieldStorage]) -> str:
    """Return a field as HTML: its name and value, or the name, size and digest of a file."""
    name, value = item
    if isinstance(value, cgi_FieldStorage):
        size = value.file.seek(0, 2)
        value.file.seek(0)
        digest = file_digest(value.file, "sha256")  # type: ignore[arg-type]  # every file of theirs has readinto
        value = f"{value.filename}, {size} bytes\nsha256 {digest.hexdigest()}"
    return f"<div>{escape(name)}{block(value or '')}</div>"  # b"" is the file of a browser whose user chose none


def block(text: str) -> str:
    """Return text as an escaped block."""
    return f"<pre>{escape(text)}</pre>"
