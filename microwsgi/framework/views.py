"""Check a view when it is defined, and convert its return value to a Response."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_type_hints
from urllib.parse import quote, urlsplit

from webob import Response

from microwsgi.errors import RouteError, ViewError
from microwsgi.framework.routing import Pattern
from microwsgi.framework.values import dump_json
from microwsgi.support.source import code_of, source_location

HTML, OCTETS, JSON = "text/html; charset=UTF-8", "application/octet-stream", "application/json"
POSSIBLE = "a Response, str, bytes, dict, list, an iterator, or (one of these, status) or (..., status, headers)"
URL = ":/?#[]@!$&'()*+,;=%"
"""RFC 3986 2: characters of a URL besides letters, digits and -._~. All others are percent-encoded."""
LENGTHS = {2, 3}
"""The lengths of tuples that a view may return."""
NO_CONTENT, BODILESS = 204, {204, 304}


def name_of(view: Callable[..., Any]) -> str:
    """Return the name of a function, or of an object's class."""
    return getattr(view, "__name__", type(view).__name__)


def describe(view: Callable[..., Any]) -> str:
    """Return the name and the location of a view, for messages."""
    return f"the view {name_of(view)} ({source_location(view)})"


def check_signature(view: Callable[..., Any], pattern: Pattern) -> None:
    """Raise RouteError for a view that can't be called with a request and the parameters of the pattern."""
    if inspect.iscoroutinefunction(view):
        raise RouteError(f"{describe(view)} is async, and WSGI needs a plain function.")
    parameters = list(inspect.signature(view).parameters.values())
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise RouteError(f"{describe(view)} has no parameter for the request.")
    takes_all = parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    by_name = {
        each.name: each for each in parameters[1:] if each.kind in {each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY}
    }
    for name in pattern.converters:
        if name not in by_name and not takes_all:
            raise RouteError(f"{describe(view)} does not take {name}, which {pattern.text} has.")
    for name, parameter in by_name.items():
        if name not in pattern.converters and parameter.default is parameter.empty:
            raise RouteError(f"{describe(view)} has the parameter {name}, which {pattern.text} does not have.")
    try:
        hints = get_type_hints(view)
    except (NameError, TypeError, AttributeError):  # for example, names that are imported only for type checkers
        return
    for name, converter in pattern.converters.items():
        hint = hints.get(name, object)
        if isinstance(hint, type) and not issubclass(converter.type, hint):
            raise RouteError(
                f"{describe(view)} declares {name} as {hint.__name__}; in {pattern.text} it is {converter.type.__name__}."
            )


def response_of(result: object, view: Callable[..., Any], status: str | int | None = None) -> Response:
    """Convert a view's return value to a Response. `status` is used unless the view returns one. Raises ViewError."""
    headers: Any = ()
    if type(result) is tuple and len(result) in LENGTHS:
        result, status, *more = result
        headers = more[0] if more else ()
    if isinstance(result, Response):
        response = result
    elif isinstance(result, str):
        response = complete(encoded(result, view), HTML)
    elif isinstance(result, (dict, list)):
        response = complete(json_bytes(result, view), JSON)
    elif isinstance(result, bytes):
        response = complete(result, OCTETS)
    elif isinstance(result, Iterator):
        stream = StreamedBody(result, view)
        response = Response(headerlist=[("Content-Type", stream.type)], app_iter=stream)
    elif result is None and (status is not None or returns_none(view)):
        response = complete(b"", HTML)
        status = status or NO_CONTENT
    else:
        raise ViewError(wrong_result(result, view), code_of(view))
    if status is not None:
        set_status(response, status, view)
    if headers:
        pairs = [(name, str(value)) for name, value in (headers.items() if isinstance(headers, Mapping) else headers)]
        names = {name.lower() for name, _ in pairs}
        response.headerlist = [pair for pair in response.headerlist if pair[0].lower() not in names] + pairs
    return response


def complete(body: bytes, kind: str) -> Response:
    """Return a Response with a complete body. WebOb's own constructor takes twice as long."""
    return Response(headerlist=[("Content-Type", kind), ("Content-Length", str(len(body)))], app_iter=[body])


def set_status(response: Response, status: str | int, view: Callable[..., Any]) -> None:
    """Set the status. Raises ViewError for an invalid one."""
    try:
        response.status = status
    except (TypeError, ValueError, KeyError):
        raise ViewError(
            f"{describe(view)} returned the status {status!r:.60}; a status must be an int, or a str like '200 OK'.",
            code_of(view),
        ) from None
    if response.status_int in BODILESS:
        response.headers.pop("Content-Type", None)
        response.headers.pop("Content-Length", None)


def json_bytes(value: object, view: Callable[..., Any]) -> bytes:
    """Serialize to JSON. Raises ViewError for values that JSON does not have."""
    try:
        return dump_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ViewError(
            f"{describe(view)} returned a {type(value).__name__} that JSON can't represent: {error}.", code_of(view)
        ) from None


def encoded(text: str, view: Callable[..., Any]) -> bytes:
    """Encode a text as UTF-8. Raises ViewError for lone surrogates, which occur in file names that are not UTF-8."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        wrong = f"{text[error.start]!r} at character {error.start}"
        raise ViewError(f"{describe(view)} returned text with a lone surrogate, {wrong}.", code_of(view)) from None


class StreamedBody:
    """A view's iterator as the body of a response."""

    def __init__(self, chunks: Iterator[object], view: Callable[..., Any]) -> None:
        self.chunks = chunks
        self.view = view
        # This runs the view up to its first chunk: an exception until then still results in an ordinary error response.
        first = next(chunks, "")
        self.type = HTML if isinstance(first, str) else OCTETS
        self.first: bytes | None = self.encoded(first)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.first is None:
            return self.encoded(next(self.chunks))
        first, self.first = self.first, None
        return first

    def encoded(self, chunk: object) -> bytes:
        """Return a chunk as bytes. Raises ViewError."""
        if isinstance(chunk, bytes):
            return chunk
        if isinstance(chunk, str):
            return encoded(chunk, self.view)
        raise ViewError(
            f"{describe(self.view)} yielded {type(chunk).__name__} {chunk!r:.60}; a stream must yield str or bytes.",
            code_of(self.view),
        )

    def close(self) -> None:
        """Close the view's generator, so that its `finally` runs (PEP 3333)."""
        if hasattr(self.chunks, "close"):
            self.chunks.close()


class Redirect(Response):
    """A redirect whose Location is not changed (RFC 9110 10.2.2). WebOb would make it absolute with the client's Host."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(self.status, self.headerlist)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else self.app_iter


def redirect(location: str, status: int = 303, *, external: bool = False) -> Response:
    """Return a redirect to a path of this site, or with `external` to any http or https URL.

    303 See Other makes the client use GET, as after the POST of a form. Raises ViewError for a location that leads to another
    site without `external`, like "//evil.example" and "javascript:...": it may come from the request (an open redirect).
    """
    location = quote(location, safe=URL, errors="surrogateescape")
    url = urlsplit(location)
    if not external and (url.scheme or location.startswith("//")):
        raise ViewError(f"redirect({location!r:.100}) leads to another site; pass external=True if that is intended.")
    if external and url.scheme not in {"http", "https", ""}:
        raise ViewError(f"redirect({location!r:.100}): the scheme must be http or https.")
    response = Redirect(f"See {location}\n", status=status, content_type="text/plain")
    response.headers["Location"] = location
    return response


def returns_none(view: Callable[..., Any]) -> bool:
    """Return whether a view is annotated with `-> None`."""
    return getattr(inspect.unwrap(view), "__annotations__", {}).get("return", ...) in {None, "None"}


def wrong_result(result: object, view: Callable[..., Any]) -> str:
    """Describe a return value that can't be converted to a response."""
    if result is None:
        return f"{describe(view)} returned None: is a return missing? If you mean 204 No Content, annotate it with -> None."
    return f"{describe(view)} returned {type(result).__name__} {result!r:.60}; it may return {POSSIBLE}."
