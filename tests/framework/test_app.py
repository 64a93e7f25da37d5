"""microwsgi/framework/app.py: a request's way to a view and back, and what is defined on the way."""

from __future__ import annotations

import io
import re
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from webob import Response
from webob.exc import HTTPConflict, HTTPFound, HTTPNotFound

from microwsgi import App, Request, abort, redirect
from microwsgi.cli.routes import as_lines
from microwsgi.devtools.stack import capture, traceback_frames
from microwsgi.errors import ClientError, RouteError, ViewError
from microwsgi.framework.app import THROW
from microwsgi.testing import Client, live

Environ = dict[str, Any]


def answer(app: App, path: str = "/", method: str = "GET", **environ: Any) -> Any:
    return Client(app).request(method, path, environ=environ)


# --- Routes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
def test_each_method_has_its_decorator(method: str) -> None:
    app = App()

    @getattr(app, method)("/{name}")  # type: ignore[untyped-decorator]
    def view(request: Request, name: str) -> str:
        return f"{request.method} {name}"

    assert answer(app, "/x", method.upper()).text == f"{method.upper()} x"
    other = "POST" if method == "get" else "GET"
    response = answer(app, "/x", other)
    assert response.status_int == 405
    assert response.allow == ("GET", "HEAD", "OPTIONS") if method == "get" else (method.upper(), "OPTIONS")


def test_one_view_may_have_several_routes_and_methods() -> None:
    app = App()

    @app.route("/a", methods=["GET", "report"])
    @app.post("/b/{number:int}")
    def view(request: Request, number: int = 0) -> str:
        return f"{request.method} {number}"

    assert [answer(app, path, method).text for path, method in (("/a", "GET"), ("/a", "REPORT"), ("/b/7", "POST"))] == [
        "GET 0",
        "REPORT 0",
        "POST 7",
    ]


@pytest.mark.parametrize("methods", ["GET", [], ["A B"], [""]])
def test_what_is_no_sequence_of_methods_is_refused(methods: Any) -> None:
    with pytest.raises(RouteError, match="not a sequence of methods"):
        App().route("/", methods=methods)(lambda request: "")


def test_head_is_get_without_its_body_and_options_says_what_there_is() -> None:
    app = App()
    app.get("/a")(lambda request: "hello")
    app.put("/a")(lambda request: "hello")
    head = answer(app, "/a", "HEAD")
    assert (head.status_int, head.content_length, head.body) == (200, 5, b"")
    options = answer(app, "/a", "OPTIONS")
    assert (options.status_int, options.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, PUT")
    assert answer(app, "/b", "OPTIONS").status_int == 404
    everything = answer(app, "", "OPTIONS", PATH_INFO="")
    assert everything.headers["Allow"] == "GET, OPTIONS, PUT"


@pytest.mark.parametrize(
    ("pattern", "asked", "where"),
    [
        ("/a", "/a/", "/a"),
        ("/a/", "/a", "/a/"),
        ("/a/", "/a?x=1&y=%20", "/a/?x=1&y=%20"),
        ("/{a}/", "/x%20%3F", "/x%20%3F/"),
        ("/{a:int}", "/7/", "/7"),
    ],
)
def test_a_slash_too_many_or_too_few_is_a_redirect(pattern: str, asked: str, where: str) -> None:
    """With the same method and body: RFC 9110 15.4.9."""
    app = App()
    app.post(pattern)(lambda request, **values: "")
    response = answer(app, asked, "POST")
    assert (response.status_int, response.headers["Location"]) == (308, where)


def test_a_redirect_never_leads_to_another_host() -> None:
    app = App()
    app.get("/{a:path}/")(lambda request, a: "")
    assert answer(app, "/x", PATH_INFO="//evil.example").status_int == 404
    app = App()
    app.get("/{a}/{b}/")(lambda request, a, b: "")
    assert answer(app, "/x", PATH_INFO="/evil.example/x").headers["Location"] == "/evil.example/x/"


def test_a_path_that_is_no_utf_8_is_a_400() -> None:
    app = App()
    app.get("/{a}")(lambda request, a: a)
    assert answer(app, "/x", PATH_INFO="/\xff").status_int == 400
    assert answer(app, "/x", PATH_INFO="/ü".encode().decode("latin-1")).text == "ü"
    assert answer(app, "/x", PATH_INFO="x").status_int == 404


def test_a_path_that_is_no_utf_8_is_for_what_is_mounted_to_understand() -> None:
    app, inner = App(), App()
    app.mount("/ä", shows)
    app.mount("/inner", inner)
    app.get("/view/{a}")(lambda request, a: a)
    prefix = "/ä".encode().decode("latin-1")
    assert answer(app, "/x", PATH_INFO=f"{prefix}/\xff").text == f"{prefix}|/\xff"
    assert answer(app, "/x", PATH_INFO="/\xff").status_int == 400
    assert answer(app, "/x", PATH_INFO="/view/\xff").status_int == 400
    assert answer(app, "/x", PATH_INFO="/inner/\xff").status_int == 400
    assert answer(app, "/x", PATH_INFO="/\u20ac").status_int == 400
    app.mount("/", shows)
    assert answer(app, "/x", PATH_INFO="/\xff").text == "|/\xff"
    assert answer(app, "/x", PATH_INFO="/view/\xff").status_int == 400


def test_ones_own_converter() -> None:
    app = App()
    app.converter("day", "[0-9]{4}-[0-9]{2}", read=lambda text: tuple(map(int, text.split("-"))), type=tuple)

    @app.get("/{when:day}")
    def view(request: Request, when: tuple[int, int]) -> list[Any]:
        return list(when)

    assert answer(app, "/2026-11").json == [2026, 11]
    with pytest.raises(RouteError, match="has a capturing group"):
        app.converter("bad", "(a)")


# --- What views get and give ------------------------------------------------------------------------------------------


def test_url_for_builds_what_matches() -> None:
    app = App()

    @app.get("/users/{number:int}")
    @app.get("/users")
    def users(request: Request, number: int = 0) -> str:
        return request.url_for("users", number=number, page=2)

    assert app.url_for("users") == "/users"
    assert app.url_for("users", number=7, q="a b") == "/users/7?q=a+b"
    assert answer(app, "/users/3", SCRIPT_NAME="/pre fix").text == "/pre%20fix/users/3?page=2"
    with pytest.raises(RouteError, match=r"no route has the name 'user'; the names are users"):
        app.url_for("user")
    app.get("/x/{a}")(lambda request, a: a)
    with pytest.raises(RouteError, match=r"needs a; it got b"):
        app.url_for("<lambda>", b=1)
    app.get("/y")(lambda request: "")
    with pytest.raises(RouteError, match="is ambiguous"):
        app.url_for("<lambda>")


def test_hooks_see_and_may_replace() -> None:
    app, seen = App(), list[str]()

    @app.before
    def gate(request: Request) -> Any:
        seen.append(request.path)
        return ("closed", 503) if request.path == "/closed" else None

    @app.after
    def mark(request: Request, response: Response) -> Any:
        response.headers["X-Seen"] = str(len(seen))
        return "replaced" if request.path == "/replace" else None

    for path in ("/a", "/closed", "/replace"):
        app.get(path)(lambda request: "hello")
    assert [(each.status_int, each.text) for each in map(Client(app).get, ("/a", "/closed", "/replace"))] == [
        (200, "hello"),
        (503, "closed"),
        (200, "replaced"),
    ]
    missing = Client(app).get("/b")
    assert (missing.status_int, missing.headers["X-Seen"]) == (404, "4"), "errors are responses too"
    assert seen == ["/a", "/closed", "/replace", "/b"]


class Late(Exception):
    pass


class Later(Late):
    pass


def test_the_nearest_class_handles_an_exception() -> None:
    app = App()

    @app.get("/{what}")
    def view(request: Request, what: str) -> None:
        raise {"late": Late, "later": Later, "value": ValueError, "key": KeyError}[what]

    app.error(Late)(lambda request, error: ("late", 504))
    app.error(LookupError)(lambda request, error: "lookup")
    app.error(500)(lambda request, error: f"any {type(error).__name__}")
    client, errors = Client(app), io.StringIO()
    found = [client.get(path, environ={"wsgi.errors": errors}) for path in ("/late", "/later", "/value", "/key")]
    assert [(each.status_int, each.text) for each in found] == [
        (504, "late"),
        (504, "late"),
        (500, "any ValueError"),
        (500, "lookup"),
    ]
    assert errors.getvalue().count("Traceback") == 4, "what is answered is logged all the same"
    with pytest.raises(RouteError, match="is handled twice"):
        app.error(Late)(lambda request, error: "")


def test_a_status_has_its_handler_whoever_raises_it() -> None:
    app = App()
    app.get("/abort")(lambda request: abort(404, "gone"))
    app.error(404)(lambda request, error: f"404: {error.detail}")
    assert answer(app, "/abort").text == "404: gone"
    assert answer(app, "/nowhere").status_int == 404
    assert answer(app, "/nowhere").text.startswith("404: ")


def raising(error: Exception) -> App:
    app = App()

    @app.get("/")
    def view(request: Request) -> None:
        raise error

    return app


@pytest.mark.parametrize("accept", ["text/html", "application/json", "*/*"])
def test_an_exception_is_a_500_with_an_id_that_the_log_has(accept: str) -> None:
    errors = io.StringIO()
    environ: Environ = {THROW: False, "wsgi.errors": errors, "HTTP_ACCEPT": accept}
    response = answer(raising(ValueError("the <secret>")), **environ)
    assert response.status_int == 500
    assert "secret" not in response.text
    number = re.search(r"\(id ([0-9a-f]{8})\)", response.text)
    assert number
    assert errors.getvalue().startswith(f"{number[1]}: GET '/' failed:\nTraceback")
    assert "ValueError: the <secret>" in errors.getvalue()


@pytest.mark.parametrize("environ", [{THROW: True}, {}])
def test_who_asks_for_exceptions_gets_them(environ: Environ) -> None:
    """The test Client does."""
    with pytest.raises(ValueError, match="the bug"):
        answer(raising(ValueError("the bug")), **environ)


def test_what_is_the_servers_goes_to_the_server() -> None:
    with pytest.raises(ClientError):
        Client(raising(ClientError("a broken body"))).get("/", environ={THROW: False})


def test_a_failing_views_traceback_has_two_frames_of_ours_at_most() -> None:
    try:
        answer(raising(ValueError("the bug")))
    except ValueError as error:
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    ours = [file for file in files if "/microwsgi/framework/" in file]
    assert len(ours) == 1
    assert files[-1] == __file__


def test_six_frames_to_a_view_over_a_socket() -> None:
    app, seen = App(), list[str]()

    @app.get("/{name}")
    def view(request: Request, name: str) -> str:
        seen.extend(frame.function for frame in capture())
        return name

    with live(app) as server, urlopen(f"{server.url}/x") as response:  # noqa: S310 - ours
        assert response.read() == b"x"
    assert len(seen) == 6
    assert seen[-2:] == ["App.__call__", "test_six_frames_to_a_view_over_a_socket.<locals>.view"]


# --- Composition ------------------------------------------------------------------------------------------------------


def shows(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}".encode()]


@pytest.mark.parametrize(
    ("path", "seen"),
    [("/admin", "/admin|"), ("/admin/", "/admin|/"), ("/admin/a/b", "/admin|/a/b"), ("/admin/own", "view")],
)
def test_a_mounted_application_has_all_below_its_path(path: str, seen: str) -> None:
    app = App()
    app.mount("/admin", shows)
    app.get("/admin/own")(lambda request: "view")
    assert answer(app, path).text == seen
    assert answer(app, "/administrator").status_int == 404


def test_apps_nest_and_know_where_they_are() -> None:
    inner, outer = App(), App()

    @inner.get("/{number:int}")
    def show(request: Request, number: int) -> str:
        return request.url_for("show", number=number + 1)

    outer.mount("/in/side", inner)
    assert answer(outer, "/in/side/4").text == "/in/side/5"
    assert answer(outer, "/in/side/x").status_int == 404
    assert [route.pattern.text for route in outer.routes] == ["/in/side/{number:int}"]
    assert re.search(r"^GET +/in/side/\{number:int\} +show +.*test_app.py:\d+$", as_lines(outer), re.MULTILINE)
    with pytest.raises(RouteError, match="it has parameters"):
        outer.mount("/{a}", inner)
    with pytest.raises(RouteError, match="neither is more specific"):
        outer.mount("/in/side/", shows)


def test_middleware_wraps_an_app() -> None:
    app = App()
    app.get("/")(lambda request: "hello")

    def shout(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        return [b"".join(app(environ, start_response)).upper()]

    assert Client(shout).get("/").text == "HELLO"


def test_webobs_exceptions_are_responses() -> None:
    app = App()

    @app.get("/raised")
    def raised(request: Request) -> None:
        raise HTTPFound(location="/there")

    @app.get("/returned")
    def returned(request: Request) -> Response:
        return HTTPNotFound("not here")

    app.get("/redirect")(lambda request: redirect("/ä b?c=d"))
    assert answer(app, "/raised").status_int == 302
    assert "not here" in answer(app, "/returned").text
    away = answer(app, "/redirect")
    assert (away.status_int, away.headers["Location"]) == (303, "/%C3%A4%20b?c=d")


def test_signed_cookies_are_webobs() -> None:
    from webob.cookies import SignedCookieProfile

    profile = SignedCookieProfile("secret", "salt", "session")
    app = App()

    @app.get("/{name}")
    def view(request: Request, name: str) -> Any:
        before = profile.bind(request).get_value()
        response = Response(f"{before}")
        profile.set_cookies(response, name)
        return response

    client = Client(app)
    assert [client.get(path).text for path in ("/a", "/b")] == ["None", "a"]


# --- Where one thing meets another ------------------------------------------------------------------------------------


def environ_of(application: App, path: str = "/", **more: object) -> tuple[str, str, str]:
    """Status, body and what was noted, as a server that shows no errors itself has them."""
    log = io.StringIO()
    response = Client(application).get(path, environ={THROW: False, "wsgi.errors": log, **more})
    return response.status, response.text, log.getvalue()


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def client(app: App) -> Client:
    return Client(app)


def test_options(app: App, client: Client) -> None:
    app.get("/x/{id:int}")(lambda request, id: "")
    app.post("/y")(lambda request: "")
    app.mount("/z", Response("z"))
    response = client.options("/x/1").expect(204)
    assert response.headers["Allow"] == "GET, HEAD, OPTIONS"
    client.options("/nothing").expect(404)
    whole = client.options("/", environ={"PATH_INFO": ""}).expect(204)
    assert whole.headers["Allow"] == "GET, OPTIONS, POST"


def test_a_redirect_stays_under_the_prefix_and_on_the_host(app: App, client: Client) -> None:
    app.get("/{name:path}/")(lambda request, name: "")
    assert client.get("/a", environ={"SCRIPT_NAME": "/p%"}).headers["Location"] == "/p%25/a/"
    outside = App()
    outside.get("/{a}/{b}/")(lambda request, a, b: "")
    assert client.get("//evil.example").status_int == 404
    assert Client(outside).get("/", environ={"PATH_INFO": "//evil.example"}).status_int in {308, 404}
    odd = App()
    odd.get("/x/")(lambda request: "")
    location = Client(odd).get("/x", environ={"SCRIPT_NAME": "//evil.example"}).headers["Location"]
    assert location == "/evil.example/x/"


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}".encode("latin-1")]


def test_views_are_asked_before_what_is_mounted(app: App, client: Client) -> None:
    app.mount("/", echo)
    app.mount("/a/b", Response("deeper"))
    app.get("/")(lambda request: "index")
    app.get("/a/{name}")(lambda request, name: "view")
    client.get("/").expect(text="index")
    client.get("/a/x").expect(text="view")
    client.get("/a/b").expect(text="deeper")
    client.get("/a/b/c").expect(text="deeper")
    client.post("/a/x").expect(text="|/a/x")
    client.get("/else").expect(text="|/else")
    client.get("/adminx").expect(text="|/adminx")


def test_an_app_in_an_app_in_an_app(app: App, client: Client) -> None:
    middle, inner = App(), App()
    app.mount("/m", middle, name="middle")
    middle.mount("/", inner)
    middle.mount("/raw", echo)
    inner.get("/x")(lambda request: request.url_for("x"))
    inner.get("/u", name="x")(lambda request: "")
    client.get("/m/x").expect(text="/m/u")
    client.get("/m").expect(404, text="There is nothing at ")
    assert [(route.pattern.text, route.methods) for route in app.routes] == [
        ("/m/x", ("GET",)), ("/m/u", ("GET",)), ("/m/raw/{path:below}", ("*",)),
    ]  # fmt: skip


def test_what_is_mounted_answers_for_itself(app: App, client: Client) -> None:
    app.after(lambda request, response: abort(500))
    app.mount("/a", echo)
    client.get("/a").expect(200)


def test_hooks_that_fail(app: App, client: Client) -> None:
    @app.after
    def hook(request: Request, response: Response) -> None:
        raise KeyError("x")

    app.get("/")(lambda request: "")
    status, _, noted = environ_of(app)
    assert status.startswith("500")
    assert "KeyError: 'x'" in noted
    with pytest.raises(KeyError):
        client.get("/")
    app.before(lambda request: abort(401, "who?"))
    app.after_hooks.clear()
    client.get("/").expect(401, text="who?")


def test_a_handler_of_500_has_no_redirects(app: App, client: Client) -> None:
    app.error(500)(lambda request, error: "sorry")
    app.get("/x/")(lambda request: "")
    client.get("/x").expect(308)
    client.options("/x/").expect(204)


@pytest.mark.parametrize("raised", [ZeroDivisionError, HTTPConflict])
def test_a_handler_that_fails(app: App, raised: type[Exception]) -> None:
    def handler(request: Request, error: Exception) -> None:
        raise raised("in the handler")

    app.error(404)(handler)
    status, _, noted = environ_of(app)
    assert status == ("409 Conflict" if raised is HTTPConflict else "500 Internal Server Error")
    assert ("in the handler" in noted) == (raised is ZeroDivisionError)
    if raised is ZeroDivisionError:
        with pytest.raises(ZeroDivisionError):
            Client(app).get("/")


def test_two_frames_of_ours_where_a_result_is_wrong(app: App) -> None:
    app.get("/")(lambda request: 1.5)
    with pytest.raises(ViewError) as caught:
        Client(app).get("/")
    frames = [frame.module for frame in traceback_frames(caught.value.__traceback__)]
    assert len([module for module in frames if module.startswith("microwsgi.framework")]) <= 2


def test_a_static_folder_is_served_under_its_prefix(app: App, client: Client, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    app.static("/files", tmp_path)
    client.get("/files/a.txt").expect(text="hello")
    client.get("/files/b.txt").expect(404)
    assert app.url_for("static", path="a.txt") == "/files/a.txt"


def test_all_paths_of_an_app_that_is_mounted_may_be_anothers(app: App, client: Client) -> None:
    middle = App()
    middle.mount("/", echo)
    app.mount("/m", middle)
    client.get("/m").expect(text="/m|")
    client.get("/m/x").expect(text="/m|/x")
