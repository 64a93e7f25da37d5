"""The same page in four frameworks, for the same server: `benchmarks.subjects.frameworks:NAME`.

Each application is written as in the framework's documentation, takes a value from the path, and returns the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from webob import Request as WebObRequest
from webob import Response as WebObResponse

from microwsgi import App, Request


def by_hand(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with WebOb only, without a framework."""
    request = WebObRequest(environ)
    response = WebObResponse(f"Hello, {request.path_info[1:]}!")
    answer: Iterable[bytes] = response(environ, start_response)
    return answer


def app() -> App:
    """Return an App of microwsgi."""
    application = App()

    @application.get("/{name}")
    def view(request: Request, name: str) -> str:
        return f"Hello, {name}!"

    return application


def flask() -> Any:
    application = import_module("flask").Flask(__name__)

    @application.get("/<name>")  # type: ignore[untyped-decorator]
    def view(name: str) -> str:
        return f"Hello, {name}!"

    return application


def bottle() -> Any:
    application = import_module("bottle").Bottle()

    @application.get("/<name>")  # type: ignore[untyped-decorator]
    def view(name: str) -> str:
        return f"Hello, {name}!"

    return application
