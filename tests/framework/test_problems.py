"""microwsgi/framework/problems.py: an error as the client likes to read it."""

from __future__ import annotations

import re
from typing import Any, NoReturn

import pytest
from webob.exc import HTTPFound, HTTPNotFound, HTTPUnauthorized

from microwsgi import App, Request, abort
from microwsgi.testing import Client


def aborting(*arguments: Any, **members: Any) -> Client:
    app = App()
    app.get("/")(lambda request: abort(*arguments, **members))
    app.post("/")(lambda request: abort(*arguments, **members))
    return Client(app)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("text/plain", "text/plain"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("application/json", "application/problem+json"),
        ("application/problem+json", "application/problem+json"),
        ("application/json;q=0.5, text/html", "text/html"),
        ("image/png", "text/plain"),
    ],
)
def test_the_type_is_the_clients(accept: str, kind: str) -> None:
    response = aborting(404, "no <tea>").get("/", headers={"Accept": accept} if accept else {})
    assert (response.status_int, response.content_type) == (404, kind)
    assert "no &lt;tea&gt;" in response.text if kind == "text/html" else "no <tea>" in response.text
    assert "Accept" in response.headers["Vary"]


def test_a_problem_has_its_members() -> None:
    """RFC 9457 3."""
    response = aborting(409, "taken", name="ann").get("/", headers={"Accept": "application/json"})
    assert response.json == {"title": "Conflict", "status": 409, "detail": "taken", "name": "ann"}


def test_who_sends_json_reads_it() -> None:
    assert aborting(400).post("/", json={}).content_type == "application/problem+json"


def test_without_a_detail_it_explains_the_status() -> None:
    assert "404 Not Found\n\nThe resource could not be found." in aborting(404).get("/").text


@pytest.mark.parametrize("status", [200, 302, 999, 0])
def test_what_is_no_error_is_none(status: int) -> None:
    with pytest.raises(ValueError, match="not the status of an error"):
        abort(status)


@pytest.mark.parametrize(
    ("status", "hint"), [("404", "write abort(404)"), ("404 Not Found", "abort(404)"), (None, "404")]
)
def test_a_status_that_is_no_int_is_told_how_to_write_it(status: Any, hint: str) -> None:
    with pytest.raises(TypeError, match=re.escape(hint)):
        abort(status)


def test_a_problem_is_valid_json_or_an_error() -> None:
    """RFC 8259 has no NaN: the extension members are not written as Python would."""
    app = App()

    @app.get("/{value}")
    def view(request: Request, value: str) -> NoReturn:
        abort(409, "No.", value=float(value))

    client = Client(app)
    assert client.get("/1.5", headers={"Accept": "application/problem+json"}).json["value"] == 1.5
    with pytest.raises(ValueError, match="JSON"):
        client.get("/nan", headers={"Accept": "application/problem+json"})


def test_all_routes_are_listed_beside_a_404() -> None:
    app = App()
    for number in range(30):
        app.get(f"/route{number}")(lambda request: "")
    text = Client(app).get("/nothing", environ={"x-wsgiorg.throw_errors": True}).text
    assert [f"GET /route{number}\n" in text for number in range(30)] == [True] * 30


def test_headers_of_an_error_are_kept() -> None:
    app = App()

    @app.get("/")
    def view(request: object) -> None:
        raise HTTPUnauthorized("who?", headers=[("WWW-Authenticate", "Basic")])

    response = Client(app).get("/")
    assert response.headers["WWW-Authenticate"] == "Basic"
    assert response.headers.getall("Content-Type") == ["text/plain; charset=UTF-8"]


@pytest.mark.parametrize("error", [HTTPFound(location="/a"), HTTPNotFound(body=b"its own")])
def test_what_has_a_body_of_its_own_or_is_no_error_is_as_it_is(error: Any) -> None:
    app = App()

    @app.get("/")
    def view(request: object) -> None:
        raise error

    response = Client(app).get("/", headers={"Accept": "application/json"})
    assert response.status_int == error.code
    assert response.content_type != "application/problem+json"


@pytest.mark.parametrize(("throws", "shown"), [(True, True), (False, False)])
def test_who_develops_sees_beside_a_404_what_there_is_the_nearest_first(throws: bool, shown: bool) -> None:
    inner, outer = App(), App()
    inner.get("/users")(lambda request: "")
    inner.get("/users/{name}")(lambda request, name: name)
    inner.post("/about<")(lambda request: "")
    outer.mount("/in side", inner)
    environ = {"x-wsgiorg.throw_errors": throws}
    page = Client(outer).get("/in%20side/user", headers={"Accept": "text/html"}, environ=environ)
    text = Client(outer).get("/in%20side/user", environ=environ).text
    assert page.status_int == 404
    assert ('<a href="/in%20side/users">/users</a>' in page.text) == shown
    assert ("<li>POST /about&lt;" in page.text) == shown, "only routes that answer GET are links"
    assert text.endswith("  GET /users\n  GET /users/{name}\n  POST /about<\n" if shown else "/user.\n")
