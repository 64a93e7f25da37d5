"""microwsgi/framework/problems.py: an error as the client likes to read it."""

from __future__ import annotations

from typing import Any

import pytest
from webob.exc import HTTPFound, HTTPNotFound, HTTPUnauthorized

from microwsgi import App, abort
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
    with pytest.raises(ValueError, match="no status of an error"):
        abort(status)


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
    assert ("<li>POST <a href=" in page.text and "about&lt;" in page.text) == shown
    assert text.endswith("  GET /users\n  GET /users/{name}\n  POST /about<\n" if shown else "/user.\n")
