"""One page made in four ways, all of them for the same server: `benchmarks.subjects.frameworks:NAME`.

Each has a value of its path and answers with the same text, as its own documentation shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from webob import Request as WebObRequest
from webob import Response as WebObResponse

from microwsgi import App, Request


def by_hand(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """WebOb without a framework: the least that there is to compare with."""
    request = WebObRequest(environ)
    response = WebObResponse(f"Hello, {request.path_info[1:]}!")
    answer: Iterable[bytes] = response(environ, start_response)
    return answer


def app() -> App:
    """Ours."""
    made = App()

    @made.get("/{name}")
    def view(request: Request, name: str) -> str:
        return f"Hello, {name}!"

    return made


def flask() -> Any:
    made = import_module("flask").Flask(__name__)

    @made.get("/<name>")  # type: ignore[untyped-decorator]
    def view(name: str) -> str:
        return f"Hello, {name}!"

    return made


def bottle() -> Any:
    made = import_module("bottle").Bottle()

    @made.get("/<name>")  # type: ignore[untyped-decorator]
    def view(name: str) -> str:
        return f"Hello, {name}!"

    return made
