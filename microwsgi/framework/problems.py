"""Errors as the client likes to read them: a line of text, a small page, or a problem (RFC 9457)."""

from __future__ import annotations

import json
from html import escape
from typing import NoReturn
from urllib.parse import quote

from webob import Request, Response, exc

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
    """End the request with an error: a WebOb HTTPException; `members` go into the problem (RFC 9457 3.2)."""
    if status not in exc.status_map or status < 400:  # noqa: PLR2004 - where errors begin
        raise ValueError(f"{status} is no status of an error.")
    error = exc.status_map[status](detail)
    vars(error)["members"] = members
    raise error


def link(request: Request, pattern: str) -> str:
    """A route as HTML: a link if there is nothing to fill in."""
    if "{" in pattern:
        return escape(pattern)
    return f'<a href="{escape(quote(request.script_name + pattern))}">{escape(pattern)}</a>'


def answer(error: exc.HTTPException, request: Request) -> Response:
    """An error as a response of the type that the request asks for; one with a body of its own, as it is."""
    if not isinstance(error, exc.HTTPError) or error.has_body:
        return error.wsgi_response
    detail = error.detail or " ".join(error.explanation.split())
    offers = [PLAIN, HTML, PROBLEM, JSON]
    if request.content_type.endswith("json"):  # what sends JSON reads it, too, if it does not say otherwise
        offers = [PROBLEM, *offers]
    acceptable = request.accept.acceptable_offers(offers)
    kind = acceptable[0][0] if acceptable else PLAIN
    routes = vars(error).get("routes", [])  # of a 404 where somebody develops
    if kind == HTML:
        rows = "".join(f"<li>{escape(methods)} {link(request, text)}" for methods, text in routes)
        body = PAGE.format(title=escape(error.status), detail=escape(detail)) + (rows and f"<ul>{rows}</ul>\n")
    elif kind == PLAIN:
        body = "\n".join([f"{error.status}\n\n{detail}", *(f"  {methods} {text}" for methods, text in routes), ""])
    else:
        kind = PROBLEM
        body = json.dumps(
            {"title": error.title, "status": error.code, "detail": detail, **vars(error).get("members", {})}
        )
    headers = [("Content-Type", kind if kind == PROBLEM else f"{kind}; charset=UTF-8")]
    headers += [pair for pair in error.headerlist if pair[0].lower() not in DROPPED]
    response = Response(body.encode(), status=error.status, headerlist=headers)
    response.vary = (*(error.vary or ()), "Accept")
    return response
