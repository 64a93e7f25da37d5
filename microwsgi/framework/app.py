"""The application: from an environ to a view, and from the view's return value to a response.

`App.__call__` calls these steps in order, and handle_exception only if one of them has raised an exception:

    before hooks    a return value other than None is the response, and no view is called
    find            find the route                                    microwsgi.framework.routing
    view            call the view with a Request and path parameters  microwsgi.framework.request
    response_of     convert the return value to a Response            microwsgi.framework.views
    handle_exception  convert an exception to a Response                microwsgi.framework.problems
    after hooks     called with each response, except those of mounted applications; may replace it
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from difflib import SequenceMatcher
from secrets import token_hex
from typing import Any, TypeVar
from urllib.parse import quote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from webob import Response
from webob.exc import (
    HTTPBadRequest,
    HTTPException,
    HTTPInternalServerError,
    HTTPMethodNotAllowed,
    HTTPNotFound,
)

from microwsgi.errors import ClientError, Disconnected, RouteError
from microwsgi.framework.problems import error_response
from microwsgi.framework.request import Request
from microwsgi.framework.routing import ANY, CONVERTERS, MOUNT_REST, PCHAR, Converter, Match, Pattern, Route, Router
from microwsgi.framework.static import Folder
from microwsgi.framework.views import check_signature, name_of, redirect, response_of
from microwsgi.support.source import source_location
from microwsgi.support.tracebacks import exception_text

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The syntax of a method (RFC 9110 5.6.2)."""
SERVER_ERROR = 500
THROW = "x-wsgiorg.throw_errors"
"""The environ key by which a debugger, a test or our server with --debug requests that exceptions are raised (wsgi.org)."""
SERVER_EXCEPTIONS = (ClientError, Disconnected)
"""Exceptions of the server, raised while a body is read. The server answers the client, or the client has disconnected."""

Function = TypeVar("Function", bound=Callable[..., Any])


class App:
    """A WSGI application made of views, for any server.

    An exception without a handler is answered with a 500, and its traceback is written to wsgi.errors. If the environ has
    `x-wsgiorg.throw_errors` it is raised instead.
    """

    request_class = Request
    stream_chunked = True
    """Tells our server to pass on chunked bodies while they arrive, so that a view can save them without another copy."""

    def __init__(self) -> None:
        self.router = Router()
        self.converters = dict(CONVERTERS)
        self.before_hooks: list[Callable[..., Any]] = []
        self.after_hooks: list[Callable[..., Any]] = []
        self.handlers: dict[int | type[Exception], Callable[..., Any]] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = self.request_class(environ, self)
        try:
            for view in self.before_hooks:
                if (result := view(request)) is not None:
                    break
            else:
                route, values = self.find(environ)
                view = route.view
                if route.prefix_length:
                    shift_path_info(environ, route.prefix_length)
                    mounted: Iterable[bytes] = view(environ, start_response)
                    return mounted
                result = view(request, **values)
            response = response_of(result, view)
        except Exception as error:
            if (handled := self.handle_exception(error, request)) is None:
                raise
            response = handled
        try:
            for hook in self.after_hooks:
                if (result := hook(request, response)) is not None:
                    response = response_of(result, hook)
        except Exception as error:
            if (handled := self.handle_exception(error, request)) is None:
                raise
            response = handled
        return response(environ, start_response)

    # --- Definitions --------------------------------------------------------------------------------------------------

    def route(
        self, pattern: str, *, methods: Iterable[str] = ("GET",), name: str = ""
    ) -> Callable[[Function], Function]:
        """Register the decorated view for these methods. `url_for` uses `name`, or the function's name. Raises RouteError."""

        def define(view: Function) -> Function:
            parsed = Pattern(pattern, self.converters)
            check_signature(view, parsed)
            self.router.add(Route(checked_methods(methods), parsed, name or name_of(view), view, source_location(view)))
            return view

        return define

    def get(self, pattern: str, *, name: str = "") -> Callable[[Function], Function]:
        """Register the decorated view for GET, and for HEAD unless HEAD has its own view."""
        return self.route(pattern, methods=("GET",), name=name)

    def post(self, pattern: str, *, name: str = "") -> Callable[[Function], Function]:
        return self.route(pattern, methods=("POST",), name=name)

    def put(self, pattern: str, *, name: str = "") -> Callable[[Function], Function]:
        return self.route(pattern, methods=("PUT",), name=name)

    def patch(self, pattern: str, *, name: str = "") -> Callable[[Function], Function]:
        return self.route(pattern, methods=("PATCH",), name=name)

    def delete(self, pattern: str, *, name: str = "") -> Callable[[Function], Function]:
        return self.route(pattern, methods=("DELETE",), name=name)

    def before(self, hook: Function) -> Function:
        """Register hook(request), called before the route is found. A return value other than None is the response."""
        self.before_hooks.append(hook)
        return hook

    def after(self, hook: Function) -> Function:
        """Register hook(request, response), called with each response. A return value other than None replaces it."""
        self.after_hooks.append(hook)
        return hook

    def error(self, kind: int | type[Exception]) -> Callable[[Function], Function]:
        """Register the decorated handler(request, error) for a status or for a class of exceptions.

        If several classes match, the most derived one is used. For a WebOb HTTPException the status is looked up first, then
        its classes below `Exception`.
        """

        def define(handler: Function) -> Function:
            if kind in self.handlers:
                raise RouteError(
                    f"{kind} is handled twice, at {source_location(self.handlers[kind])} and {source_location(handler)}."
                )
            self.handlers[kind] = handler
            return handler

        return define

    def converter(
        self,
        name: str,
        expression: str,
        *,
        type: type = str,
        read: Callable[[str], Any] = str,
        write: Callable[[Any], str] = str,
        slashes: bool = False,
    ) -> None:
        """Define {...:name} for later patterns by a regular expression. If `read` raises ValueError there is no match."""
        if re.compile(expression).groups:
            raise RouteError(
                f"the expression of the converter {name} has a capturing group; write (?:...) in {expression!r}."
            )
        self.converters[name] = Converter(expression, type, read, write, slashes=slashes)

    def mount(self, prefix: str, application: WSGIApplication, *, name: str = "") -> None:
        """Pass requests for a path, and all below it, to a WSGI application, unless a route matches. Raises RouteError."""
        prefix = prefix.rstrip("/")
        if "{" in prefix:
            raise RouteError(f"an application can't be mounted under {prefix}: it has parameters.")
        for text in [prefix, prefix + "/{path:below}"] if prefix else ["/{path:below}"]:
            pattern = Pattern(text, {"below": MOUNT_REST})
            depth = len(prefix.split("/"))
            self.router.add(
                Route((ANY,), pattern, name or name_of(application), application, source_location(application), depth)
            )

    def static(self, prefix: str, folder: str | os.PathLike[str], *, name: str = "static", **options: Any) -> None:
        """Serve the files of a folder. The options are those of `microwsgi.framework.static.Folder`."""
        files = Folder(folder, **options)
        for end in ("/", "/{path:path}"):
            pattern = Pattern(prefix.rstrip("/") + end, self.converters)
            self.router.add(Route(("GET",), pattern, name, files, os.path.relpath(folder) + os.sep))

    # --- Routes -------------------------------------------------------------------------------------------------------

    @property
    def routes(self) -> list[Route]:
        """All routes in the order of their definition, including those of mounted Apps."""
        return list(all_routes(self, ""))

    def url_for(self, name: str, /, **values: object) -> str:
        """Return the quoted path of a route. Values without a parameter in the pattern become the query. Raises RouteError."""
        routes = self.router.names.get(name, [])
        if len({id(route.view) for route in routes}) != 1:
            raise RouteError(
                f"url_for({name!r}) is ambiguous: {' and '.join(map(str, routes))} have this name."
                if routes
                else f"no route has the name {name!r}; the names are {', '.join(sorted(self.router.names))}."
            )
        fitting = [route for route in routes if route.pattern.converters.keys() <= values.keys()]
        if not fitting:
            raise RouteError(
                f"{routes[0]} needs {', '.join(routes[0].pattern.converters)}; it got {', '.join(values) or 'none'}."
            )
        return max(fitting, key=lambda route: len(route.pattern.converters)).pattern.build(values)

    # --- A request ----------------------------------------------------------------------------------------------------

    def find(self, environ: WSGIEnvironment) -> Match:
        """Return the route for a request. Raises an HTTPException if there is none."""
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        if not path.isascii():
            try:
                path = decode_path(path)
            except HTTPBadRequest:
                found = self.router.find(decode_path(path, "surrogateescape"), method, set())
                if found is None or not found.route.prefix_length:
                    raise
                return found  # a mounted application gets the bytes of the path, and may know their encoding
        allowed: set[str] = set()
        if (found := self.router.find(path, method, allowed)) is not None:
            return found
        if allowed or (method == "OPTIONS" and not path):  # the path of `OPTIONS *` is empty
            allowed = (
                allowed or {each for route in self.router.routes if not route.prefix_length for each in route.methods}
            ) | {"OPTIONS"}
            headers = [("Allow", ", ".join(sorted(allowed)))]
            if method == "OPTIONS":
                raise HTTPException("", Response(status=204, headerlist=headers))
            raise HTTPMethodNotAllowed(f"{method} is not allowed here. Allowed: {headers[0][1]}.", headers=headers)
        other = path.removesuffix("/") if path.endswith("/") else path + "/"
        if other and (found := self.router.find(other, method, set())) is not None:
            if not found.route.prefix_length:
                raise HTTPException("", redirect_to(environ, other))
            return found  # `path` is "" in a mounted App, and an application mounted at that App's root answers "/"
        nothing = HTTPNotFound(f"There is nothing at {path[:200]}.")
        if environ.get(THROW):  # for developers
            vars(nothing)["routes"] = similar_routes(self, path)
        raise nothing

    def handle_exception(self, error: Exception, request: Request) -> Response | None:
        """Return the response to an exception of a view, a hook or `find`; None if it is to be raised."""
        if isinstance(error, SERVER_EXCEPTIONS):
            return None
        is_http = isinstance(error, HTTPException)
        status = error.wsgi_response.status_int if isinstance(error, HTTPException) else SERVER_ERROR
        classes = type(error).__mro__
        kinds = [status, *classes[: classes.index(Exception)]] if is_http else [*classes, status]
        handler = next((self.handlers[kind] for kind in kinds if kind in self.handlers), None)
        if handler is None:
            return unhandled(error, request)
        try:
            response = response_of(handler(request, error), handler, status)
        except Exception as other:
            if (answered := unhandled(other, request)) is None:
                raise
            return answered
        if response.status_int >= SERVER_ERROR and not is_http:
            log_exception(error, request)
        return response


def unhandled(error: Exception, request: Request) -> Response | None:
    """Return the response to an exception without a handler; None if it is to be raised.

    The server's own exceptions are raised. If the environ has `x-wsgiorg.throw_errors`, so are all except HTTPExceptions.
    """
    if isinstance(error, HTTPException):
        return error_response(error, request)
    if isinstance(error, SERVER_EXCEPTIONS) or request.environ.get(THROW):
        return None
    number = log_exception(error, request)
    failure = HTTPInternalServerError(f"The application failed; the traceback is in the server's log (id {number}).")
    vars(failure)["members"] = {"id": number}
    return error_response(failure, request)


def log_exception(error: Exception, request: Request) -> str:
    """Write an exception to the server's log. Return the id that the record begins with."""
    number = token_hex(4)
    path = repr(request.environ.get("PATH_INFO", ""))  # it may not be UTF-8
    text = exception_text(error)
    request.environ["wsgi.errors"].write(f"{number}: {request.method} {path:.200} failed:\n{text}")
    return number


def checked_methods(methods: Iterable[str]) -> tuple[str, ...]:
    """Return the methods in upper case. Raises RouteError for an invalid one."""
    names = tuple(dict.fromkeys(method.upper() for method in methods)) if not isinstance(methods, str) else ()
    if not names or not all(map(TOKEN.fullmatch, names)):
        raise RouteError(f"methods={methods!r} is not a sequence of methods, like ('GET', 'POST').")
    return names


def decode_path(path: str, errors: str = "strict") -> str:
    """Decode the path of an environ, in which each character is a byte (PEP 3333). Raises HTTPBadRequest."""
    try:
        return path.encode("latin-1").decode(errors=errors)
    except UnicodeError:
        raise HTTPBadRequest("The path is not UTF-8.") from None


def shift_path_info(environ: WSGIEnvironment, length: int) -> None:
    """Move the first segments of the path to SCRIPT_NAME, as PEP 3333 requires for an application under a prefix."""
    pieces = environ["PATH_INFO"].split("/", length)
    environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + "/".join(pieces[:length])
    environ["PATH_INFO"] = f"/{pieces[length]}" if len(pieces) > length else ""


def redirect_to(environ: WSGIEnvironment, path: str) -> Response:
    """Return a permanent redirect to another path, with the same query, method and body (RFC 9110 15.4.9)."""
    prefix = quote(environ.get("SCRIPT_NAME", "").encode("latin-1"), safe=PCHAR + "/")
    query = f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else ""
    # Two slashes at the beginning would start the name of another host (RFC 3986 4.2).
    return redirect(f"/{(prefix + quote(path, safe=PCHAR + '/')).lstrip('/')}{query}", 308)


def similar_routes(app: App, path: str) -> list[tuple[str, str]]:
    """Return the routes of an App as (methods, pattern), the most similar to the path first."""
    rows = [(" ".join(route.methods), route.pattern.text) for route in app.routes]
    return sorted(rows, key=lambda row: -SequenceMatcher(None, path, row[1]).ratio())


def all_routes(app: App, prefix: str) -> Iterator[Route]:
    """Return the routes of an App, including those of Apps mounted in it."""
    for route in app.router.routes:
        text = prefix + route.pattern.text
        if not route.prefix_length:
            yield route._replace(pattern=Pattern(text, app.converters))
        elif MOUNT_REST in route.pattern.converters.values():  # `mount` adds another route, for the prefix alone
            if isinstance(route.view, App):
                yield from all_routes(route.view, text.removesuffix("/{path:below}"))
            else:
                yield route._replace(pattern=Pattern(text, {"below": MOUNT_REST}))
