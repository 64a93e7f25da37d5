"""The application: from an environ to a view, and from what it returned to a response.

A request walks through `App.__call__` in this order; each call returns before the next begins, and the view is called directly:

    before hooks    any of them may answer instead of a view
    find            the route                                          microwsgi.framework.routing
    the view        with a Request and the pattern's values            microwsgi.framework.request
    response_of     what it returned becomes a Response                microwsgi.framework.views
    failed          what it raised, too                                microwsgi.framework.problems
    after hooks     see, and may replace, every response but a mounted application's
"""

from __future__ import annotations

import os
import re
import traceback
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
from microwsgi.framework.problems import answer
from microwsgi.framework.request import Request
from microwsgi.framework.routing import ANY, BELOW, CONVERTERS, PCHAR, Converter, Match, Pattern, Route, Router
from microwsgi.framework.static import Folder
from microwsgi.framework.views import check, name_of, redirect, response_of
from microwsgi.source import source_location

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110 5.6.2: what a method is."""
SERVER_ERROR = 500
THROW = "x-wsgiorg.throw_errors"
"""wsgi.org's convention for who wants to see exceptions: a debugger, a test, our server in its dev mode."""
SERVERS = (ClientError, Disconnected)
"""What a server raises while a body is read: it tells the client, or nobody is there to be told."""

Function = TypeVar("Function", bound=Callable[..., Any])


class App:
    """A WSGI application made of views, for any server.

    An exception for which there is no handler is answered with a 500; its traceback goes to wsgi.errors. Where the environ has
    `x-wsgiorg.throw_errors` it goes on to whoever asked for it.
    """

    request_class = Request

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
                if route.mounted:
                    shift_path_info(environ, route.mounted)
                    mounted: Iterable[bytes] = view(environ, start_response)
                    return mounted
                result = view(request, **values)
            response = response_of(result, view)
        except Exception as error:
            if (handled := self.failed(error, request)) is None:
                raise
            response = handled
        try:
            for hook in self.after_hooks:
                if (result := hook(request, response)) is not None:
                    response = response_of(result, hook)
        except Exception as error:
            if (handled := self.failed(error, request)) is None:
                raise
            response = handled
        return response(environ, start_response)

    # --- Definitions --------------------------------------------------------------------------------------------------

    def route(
        self, pattern: str, *, methods: Iterable[str] = ("GET",), name: str = ""
    ) -> Callable[[Function], Function]:
        """Have the decorated view answer these methods; `name` is for `url_for`, else the function's. Raises RouteError."""

        def define(view: Function) -> Function:
            parsed = Pattern(pattern, self.converters)
            check(view, parsed)
            self.router.add(Route(checked(methods), parsed, name or name_of(view), view, source_location(view)))
            return view

        return define

    def get(self, pattern: str, *, name: str = "") -> Callable[[Function], Function]:
        """A route for GET, and HEAD unless that has a view of its own."""
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
        """Have hook(request) called before anything else; if it returns anything but None, that is the response."""
        self.before_hooks.append(hook)
        return hook

    def after(self, hook: Function) -> Function:
        """Have hook(request, response) called with each response; it may return another."""
        self.after_hooks.append(hook)
        return hook

    def error(self, kind: int | type[Exception]) -> Callable[[Function], Function]:
        """Have the decorated handler(request, error) answer for a status, or for a class of exceptions.

        Of several classes the nearest wins; those of WebOb's HTTPExceptions are asked after the status, and `Exception` is
        none of them.
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
        type: type = str,  # noqa: A002 - what else
        read: Callable[[str], Any] = str,
        write: Callable[[Any], str] = str,
        slashes: bool = False,
    ) -> None:
        """Have {...:name} match a regular expression in patterns that follow; a ValueError of `read` is no match."""
        if re.compile(expression).groups:
            raise RouteError(f"the converter {name} has a group; write (?:...) in {expression!r}.")
        self.converters[name] = Converter(expression, type, read, write, slashes=slashes)

    def mount(self, prefix: str, application: WSGIApplication, *, name: str = "") -> None:
        """Have a WSGI application answer all under a path, where no route does. Raises RouteError."""
        prefix = prefix.rstrip("/")
        if "{" in prefix:
            raise RouteError(f"an application can't be mounted under a pattern, as {prefix} is.")
        for text in [prefix, prefix + "/{path:below}"] if prefix else ["/{path:below}"]:
            pattern = Pattern(text, {"below": BELOW})
            depth = len(prefix.split("/"))
            self.router.add(
                Route((ANY,), pattern, name or name_of(application), application, source_location(application), depth)
            )

    def static(self, prefix: str, folder: str | os.PathLike[str], *, name: str = "static", **options: Any) -> None:  # noqa: ANN401 - Folder has their types
        """Serve a folder's files; the options are those of `microwsgi.framework.static.Folder`."""
        files = Folder(folder, **options)
        for end in ("/", "/{path:path}"):
            pattern = Pattern(prefix.rstrip("/") + end, self.converters)
            self.router.add(Route(("GET",), pattern, name, files, os.path.relpath(folder) + os.sep))

    # --- What is defined ----------------------------------------------------------------------------------------------

    @property
    def routes(self) -> list[Route]:
        """All routes as they were defined, those of mounted Apps among them."""
        return list(flattened(self, ""))

    def url_for(self, name: str, /, **values: object) -> str:
        """A path to a route, quoted; what its pattern has no parameter for becomes the query. Raises RouteError."""
        routes = self.router.names.get(name, [])
        if len({id(route.view) for route in routes}) != 1:
            what = f"is that of {' and '.join(map(str, routes))}" if routes else "is none"
            raise RouteError(f"the route's name {name!r} {what}; names are {', '.join(sorted(self.router.names))}.")
        fitting = [route for route in routes if route.pattern.converters.keys() <= values.keys()]
        if not fitting:
            raise RouteError(
                f"{routes[0]} needs {', '.join(routes[0].pattern.converters)}; it got {', '.join(values) or 'none'}."
            )
        return max(fitting, key=lambda route: len(route.pattern.converters)).pattern.build(values)

    # --- A request ----------------------------------------------------------------------------------------------------

    def find(self, environ: WSGIEnvironment) -> Match:
        """The route for a request. Raises a HTTPException where there is none."""
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        if not path.isascii():
            try:
                path = decoded(path)
            except HTTPBadRequest:
                found = self.router.find(decoded(path, "surrogateescape"), method, set())
                if found is None or not found.route.mounted:
                    raise
                return found  # what is mounted gets the path as it came, and may know what its bytes mean
        allowed: set[str] = set()
        if (found := self.router.find(path, method, allowed)) is not None:
            return found
        if allowed or (method == "OPTIONS" and not path):  # the path of * is empty
            allowed = (
                allowed or {each for route in self.router.routes if not route.mounted for each in route.methods}
            ) | {"OPTIONS"}
            headers = [("Allow", ", ".join(sorted(allowed)))]
            if method == "OPTIONS":
                raise HTTPException("", Response(status=204, headerlist=headers))
            raise HTTPMethodNotAllowed(f"{method} is not possible here, but {headers[0][1]}.", headers=headers)
        other = path.removesuffix("/") if path.endswith("/") else path + "/"
        if other and (found := self.router.find(other, method, set())) is not None:
            if not found.route.mounted:
                raise HTTPException("", moved(environ, other))
            return found  # "" is the path: this App is mounted, and what is mounted in it has all paths
        nothing = HTTPNotFound(f"There is nothing at {path[:200]}.")
        if environ.get(THROW):  # who develops sees what there is instead
            vars(nothing)["routes"] = similar_routes(self, path)
        raise nothing

    def failed(self, error: Exception, request: Request) -> Response | None:
        """The response to what a view, a hook or `find` raised; None where that is for the caller to see."""
        if isinstance(error, SERVERS):
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
            note(error, request)
        return response


def unhandled(error: Exception, request: Request) -> Response | None:
    """The response to an exception that has no handler; None where it goes on to the caller.

    That is what is the server's, and everything where the caller asks for it, as the wsgi.org convention has it, because it
    shows errors itself.
    """
    if isinstance(error, HTTPException):
        return answer(error, request)
    if isinstance(error, SERVERS) or request.environ.get(THROW):
        return None
    number = note(error, request)
    failure = HTTPInternalServerError(f"The application failed; its log has the reason under {number}.")
    vars(failure)["members"] = {"id": number}
    return answer(failure, request)


def note(error: Exception, request: Request) -> str:
    """Write an exception to the server's log; the number by which it is found there."""
    number = token_hex(4)
    path = repr(request.environ.get("PATH_INFO", ""))  # which need not be UTF-8
    lines = traceback.format_exception(error)
    request.environ["wsgi.errors"].write(f"{number}: {request.method} {path:.200} failed:\n{''.join(lines)}")
    return number


def checked(methods: Iterable[str]) -> tuple[str, ...]:
    """Methods, in capitals. Raises RouteError for what is none."""
    names = tuple(dict.fromkeys(method.upper() for method in methods)) if not isinstance(methods, str) else ()
    if not names or not all(map(TOKEN.fullmatch, names)):
        raise RouteError(f"methods={methods!r} is no sequence of methods, as ('GET', 'POST') is one.")
    return names


def decoded(path: str, errors: str = "strict") -> str:
    """The path of an environ, which has a byte as a character (PEP 3333). Raises HTTPBadRequest."""
    try:
        return path.encode("latin-1").decode(errors=errors)
    except UnicodeError:
        raise HTTPBadRequest("The path is not UTF-8.") from None


def shift_path_info(environ: WSGIEnvironment, length: int) -> None:
    """Move so many segments of the path to SCRIPT_NAME, as PEP 3333 has it for an application under a prefix."""
    pieces = environ["PATH_INFO"].split("/", length)
    environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + "/".join(pieces[:length])
    environ["PATH_INFO"] = f"/{pieces[length]}" if len(pieces) > length else ""


def moved(environ: WSGIEnvironment, path: str) -> Response:
    """A redirect to the same with another path: permanent, with the same method and body (RFC 9110 15.4.9)."""
    prefix = quote(environ.get("SCRIPT_NAME", "").encode("latin-1"), safe=PCHAR + "/")
    query = f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else ""
    # Two slashes at the beginning would be another host's address (RFC 3986 4.2).
    return redirect(f"/{(prefix + quote(path, safe=PCHAR + '/')).lstrip('/')}{query}", 308)


def similar_routes(app: App, path: str) -> list[tuple[str, str]]:
    """Return the routes of an App as (methods, pattern), the most similar to the path first."""
    rows = [(" ".join(route.methods), route.pattern.text) for route in app.routes]
    return sorted(rows, key=lambda row: -SequenceMatcher(None, path, row[1]).ratio())


def flattened(app: App, prefix: str) -> Iterator[Route]:
    """The routes of an App, with those of the Apps mounted in it."""
    for route in app.router.routes:
        text = prefix + route.pattern.text
        if not route.mounted:
            yield route._replace(pattern=Pattern(text, app.converters))
        elif BELOW in route.pattern.converters.values():  # the other one of the two is its path without a slash
            if isinstance(route.view, App):
                yield from flattened(route.view, text.removesuffix("/{path:below}"))
            else:
                yield route._replace(pattern=Pattern(text, {"below": BELOW}))
