"""Errors as responses: text, a small page, or a problem document (RFC 9457), by the Accept field of the request."""

from __future__ import annotations

from html import escape
from typing import NoReturn
from urllib.parse import quote

from webob import Request, Response, exc

from microwsgi.framework.values import dump_json

PLAIN, HTML, PROBLEM, JSON = "text/plain", "text/html", "application/problem+json", "application/json"
DROPPED = {"content-type", "content-length"}
PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }}
body {{ max-width: 40rem; margin: 20vh auto 0; padding: 0 1rem; overflow-wrap: anywhere }}
</style>
<h1>{title}</h1>
<p>{detail}
"""


def abort(status: int, detail: str = "", **members: object) -> NoReturn:
    """Raise the WebOb HTTPException for a status; `members` become extension members of the problem (RFC 9457 3.2)."""
    if not isinstance(status, int):
        number = str(status)[:3]
        advice = f"write abort({number})" if number.isdecimal() else "write a number like 404"
        raise TypeError(f"abort({status!r}): the status must be an int; {advice}.")
    if status not in exc.status_map or status < 400:  # where errors begin
        raise ValueError(f"abort({status}): {status} is not the status of an error, 400 to 599.")
    dump_json(members)  # a member that JSON can't represent raises here, in the traceback of the caller
    error = exc.status_map[status](detail)
    vars(error)["members"] = members
    raise error


def link(request: Request, methods: str, pattern: str) -> str:
    """Return a route as HTML, as a link if a browser can follow it: it answers GET and has no parameters."""
    if "{" in pattern or not {"GET", "*"}.intersection(methods.split()):
        return escape(pattern)
    return f'<a href="{escape(quote(request.script_name + pattern))}">{escape(pattern)}</a>'


def error_response(error: exc.HTTPException, request: Request) -> Response:
    """Return the response to an error in the type that the client prefers. An error that has its own body is unchanged."""
    if not isinstance(error, exc.HTTPError) or error.has_body:
        return error.wsgi_response
    detail = error.detail or " ".join(error.explanation.split())
    offers = [PLAIN, HTML, PROBLEM, JSON]
    if request.content_type.endswith("json"):  # a client that sends JSON also accepts it, unless Accept excludes it
        offers = [PROBLEM, *offers]
    acceptable = request.accept.acceptable_offers(offers)
    kind = acceptable[0][0] if acceptable else PLAIN
    routes = vars(error).get("routes", [])  # set for a 404 during development
    if kind == HTML:
        rows = "".join(f"<li>{escape(methods)} {link(request, methods, text)}" for methods, text in routes)
        body = PAGE.format(title=escape(error.status), detail=escape(detail)) + (
            rows and f"<p>The routes of this application:\n<ul>{rows}</ul>\n"
        )
    elif kind == PLAIN:
        body = "\n".join(
            [
                f"{error.status}\n\n{detail}",
                *(["The routes of this application:"] if routes else []),
                *(f"  {methods} {text}" for methods, text in routes),
                "",
            ]
        )
    else:
        problem = {"title": error.title, "status": error.code, "detail": detail, **vars(error).get("members", {})}
        return complete(dump_json(problem), PROBLEM, error)
    return complete(body.encode(errors="backslashreplace"), f"{kind}; charset=UTF-8", error)


def complete(body: bytes, content_type: str, error: exc.HTTPError) -> Response:
    """Return a response with this body, and the status and header fields of an error."""
    headers = [("Content-Type", content_type)]
    headers += [pair for pair in error.headerlist if pair[0].lower() not in DROPPED]
    response = Response(body, status=error.status, headerlist=headers)
    response.vary = (*(error.vary or ()), "Accept")
    return response
