"""microwsgi/framework/views.py: what a view may be, and what it may return."""

from __future__ import annotations

import decimal
import io
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any

import pytest
from webob import Response

from microwsgi import App, Request, redirect
from microwsgi.errors import RouteError, ViewError
from microwsgi.testing import Client


def returning(result: object) -> Any:
    app = App()
    app.get("/")(lambda request: result)
    return Client(app).get("/")


@pytest.mark.parametrize(
    ("result", "status", "kind", "body"),
    [
        ("ä", 200, "text/html; charset=UTF-8", "ä".encode()),
        (b"\0", 200, "application/octet-stream", b"\0"),
        ({"a": [1, None]}, 200, "application/json", b'{"a":[1,null]}'),
        (["ä"], 200, "application/json", '["ä"]'.encode()),
        (("gone", 410), 410, "text/html; charset=UTF-8", b"gone"),
        (("tea", "418 I'm a teapot"), 418, "text/html; charset=UTF-8", b"tea"),
        (({"a": 1}, 201, {"Location": "/1"}), 201, "application/json", b'{"a":1}'),
        (("x", 200, [("Content-Type", "text/plain"), ("X-A", "1"), ("X-A", "2")]), 200, "text/plain", b"x"),
        ((None, 204), 204, None, b""),
        (("", 304), 304, None, b""),
        ((Response("x"), 202), 202, "text/html; charset=UTF-8", b"x"),
        (iter(["a", "ä"]), 200, "text/html; charset=UTF-8", "aä".encode()),
        (iter([b"a", b"b"]), 200, "application/octet-stream", b"ab"),
        (iter([]), 200, "text/html; charset=UTF-8", b""),
    ],
)
def test_what_a_view_returns_is_a_response(result: object, status: int, kind: str | None, body: bytes) -> None:
    response = returning(result)
    assert (response.status_int, response.headers.get("Content-Type"), response.body) == (status, kind, body)


def test_headers_of_a_tuple_are_all_there() -> None:
    assert returning(("x", 200, [("X-A", "1"), ("X-A", "2")])).headers.getall("X-A") == ["1", "2"]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, "returned None: is a return missing"),
        (5, "returned int 5; it may return"),
        ((1, 2, 3, 4), "returned tuple"),
        ({"a": decimal.Decimal(1)}, "JSON can't represent: Object of type Decimal"),
        ({"a": float("nan")}, "JSON can't represent"),
        ({"a": "\ud800"}, "JSON can't represent"),
        ("\ud800", "lone surrogate"),
        (("a", "b"), "returned the status 'b'"),
        (("a", None, {}), None),
        (iter([5]), "yielded int 5"),
        (("a", 99999), "returned the status 99999"),
    ],
)
def test_a_wrong_result_is_told_with_the_view_and_its_place(result: object, said: str | None) -> None:
    if said is None:
        assert returning(result).status_int == 200
        return
    with pytest.raises(ViewError, match=said) as caught:
        returning(result)
    assert "the view <lambda> (" in str(caught.value)
    assert "test_views.py:" in str(caught.value)


def test_nothing_is_204_where_the_view_says_so() -> None:
    app = App()

    @app.delete("/")
    def remove(request: Request) -> None:
        """Nothing to say."""

    response = Client(app).delete("/")
    assert (response.status_int, response.body, response.content_type) == (204, b"", None)


def test_a_generator_is_streamed_and_closed() -> None:
    app, steps = App(), list[str]()

    @app.get("/")
    def stream(request: Request) -> Iterator[str]:
        try:
            steps.append("begun")
            yield "a"
            yield "b"
        finally:
            steps.append("closed")

    response = Client(app).get("/", stream=True)
    assert steps == ["begun"], "up to the first chunk, it may still abort"
    assert next(iter(response.app_iter)) == b"a"
    response.app_iter.close()  # type: ignore[attr-defined]  # a stream has it
    assert steps == ["begun", "closed"]


def test_a_stream_may_abort_before_its_first_chunk() -> None:
    app = App()

    @app.get("/")
    def stream(request: Request) -> Iterator[str]:
        if request.query("ok", bool, True):
            raise LookupError("nothing")
        yield ""

    app.error(LookupError)(lambda request, error: ("none", 404))
    assert Client(app).get("/", environ={"wsgi.errors": io.StringIO()}).status_int == 404


# --- Definitions ------------------------------------------------------------------------------------------------------


async def coroutine(request: Request) -> str:
    return ""


def of_nothing() -> str:
    return ""


def of_a_keyword(*, request: Request) -> str:
    return ""


def of_more(request: Request, name: str, other: str) -> str:
    return ""


def of_less(request: Request) -> str:
    return ""


def of_another_type(request: Request, name: int) -> str:
    return ""


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (coroutine, "is async"),
        (of_nothing, "has no parameter for the request"),
        (of_a_keyword, "has no parameter for the request"),
        (of_more, "has the parameter other, which /{name} does not have"),
        (of_less, "does not take name"),
        (of_another_type, "declares name as int; in /{name} it is str"),
    ],
)
def test_a_view_that_does_not_fit_is_refused_where_it_is_defined(view: Callable[..., Any], said: str) -> None:
    with pytest.raises(RouteError, match=said) as caught:
        App().get("/{name}")(view)
    assert f"the view {view.__name__} (" in str(caught.value)


class View:
    def __call__(self, request: Request, name: str = "", *others: str, **more: object) -> str:
        return f"{name}{more}"

    def method(self, request: Request, name: object) -> str:
        return f"method {name}"


def decorated(function: Callable[..., str]) -> Callable[..., str]:
    @wraps(function)
    def wrapper(*values: object, **named: object) -> str:
        return function(*values, **named)

    return wrapper


@decorated
def behind(request: Request, name: str) -> str:
    return f"behind {name}"


def unresolved(request: "NoSuchType", name: "NoSuchType") -> str:  # type: ignore[name-defined]  # noqa: F821, UP037
    return str(name)


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (View(), "x{}"),
        (View().method, "method x"),
        (behind, "behind x"),
        (partial(lambda prefix, request, name: prefix + name, "partial "), "partial x"),
        (unresolved, "x"),
        (lambda request, **values: values["name"], "x"),
    ],
)
def test_whatever_can_be_called_is_a_view(view: Callable[..., Any], text: str) -> None:
    app = App()
    app.get("/{name}")(view)
    assert Client(app).get("/x").text == text


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/a", "/a"),
        ("?page=2", "?page=2"),
        ("/\\host", "/%5Chost"),
        ("/\t/host", "/%09/host"),
        ("/file/\udcff", "/file/%FF"),
        ("/a\r\nX: y", "/a%0D%0AX:%20y"),
    ],
)
def test_a_redirect_is_quoted_and_stays_relative(location: str, expected: str) -> None:
    response = returning(redirect(location))
    assert (response.status_int, response.headers["Location"]) == (303, expected)
    assert returning(redirect("/", 307)).status_int == 307


def test_a_redirect_leads_to_another_site_only_if_that_is_said() -> None:
    """RFC 3986 4.2: two slashes begin a host. Browsers take three for two."""
    others = ("//evil.example", "///evil.example", "https://evil.example/", "https:evil.example", "HTTP:/evil.example")
    refused = (*others, "javascript:alert(1)", "data:text/html,x", "mailto:a@b.example")
    answered, messages = [], []
    for location in refused:
        try:
            answered.append((location, redirect(location)))
        except ViewError as error:
            messages.append(str(error))
    assert answered == []
    assert [message for message in messages if "external=True" not in message] == []
    for location in others:
        assert redirect(location, external=True).headers["Location"] == location
    with pytest.raises(ViewError, match="http or https"):
        redirect("javascript:alert(1)", external=True)
    found = redirect("https://example.test/ä?b=c d#e", external=True)
    assert found.headers["Location"] == "https://example.test/%C3%A4?b=c%20d#e"
