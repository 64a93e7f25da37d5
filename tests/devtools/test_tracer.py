"""Where a request enters your code: which of your functions made the response, whatever the framework."""

from __future__ import annotations

import io
import threading
from http.client import HTTPConnection
from pathlib import Path
from textwrap import dedent

import pytest

from microwsgi.devtools.tracer import Tracer
from microwsgi.serving.loader import load
from microwsgi.testing import live

BARE = """
    from microwsgi import App
    from webob import Request, Response
    from webob.dec import wsgify

    def plain(environ, start_response):
        def helper():
            return Response("x")
        return helper()(Request(environ).environ, start_response)

    def generator(environ, start_response):
        start_response("200 OK", [])
        yield b"a"

    class Body:
        def __iter__(self):
            self.left = [b"x"]
            return self
        def __next__(self):
            if self.left:
                return self.left.pop()
            raise StopIteration

    def iterable(environ, start_response):
        start_response("200 OK", [])
        return Body()

    class Class:
        def __init__(self, environ, start_response):
            self.start_response = start_response
        def __iter__(self):
            self.start_response("200 OK", [])
            yield b"x"

    def failing(environ, start_response):
        raise ValueError

    def middleware(application):
        def passing(environ, start_response):
            def begin(status, headers, exc_info=None):
                return start_response(status, headers, exc_info)
            return application(environ, begin)
        return passing

    @wsgify
    def decorated(request):
        return "x"

    wrapped = middleware(decorated)
    framework = App()

    @framework.get("/")
    def view(request):
        return "x"
    """
FLASK = """
    from functools import wraps
    from flask import Flask, g, render_template_string

    app = Flask(__name__)

    class Thing:
        def __str__(self):
            return "thing"

    @app.before_request
    def load_user():
        g.user = "somebody"

    @app.after_request
    def stamp(response):
        response.headers["X-Stamp"] = "stamped"
        return response

    @app.template_filter()
    def shout(text):
        return text.upper()

    def only_for_users(view):
        @wraps(view)
        def check(*given, **named):
            return view(*given, **named)
        return check

    def page(text):
        return f"<p>{text}"

    @app.get("/")
    def index():
        return page("x")

    @app.get("/users")
    @only_for_users
    def users():
        return page("x")

    @app.get("/template")
    def template():
        return render_template_string("{{ x|shout }} {{ y }}", x="a", y=Thing())

    @app.get("/failing")
    def failing():
        raise ValueError

    @app.get("/handled")
    def handled():
        raise KeyError

    @app.errorhandler(KeyError)
    def on_key_error(error):
        return "key", 404

    class Middleware:
        def __call__(self, environ, start_response):
            return app(environ, start_response)

    wrapped = Middleware()
    """
DJANGO = """
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.shortcuts import render
    from django.urls import path

    settings.configure(
        SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"],
        MIDDLEWARE=[__name__ + ".Stamp", __name__ + ".passing", "django.middleware.common.CommonMiddleware"],
        TEMPLATES=[{
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "context_processors": [__name__ + ".processor"],
                "loaders": [("django.template.loaders.locmem.Loader", {"a.html": "{{ x }} {{ y }}"})],
            },
        }],
    )

    class Thing:
        def __str__(self):
            return "thing"

    class Stamp:
        def __init__(self, get_response):
            self.get_response = get_response
        def __call__(self, request):
            response = self.get_response(request)
            response["X-Stamp"] = "stamped"
            return response

    def passing(get_response):
        def inner(request):
            return get_response(request)
        return inner

    def processor(request):
        return {"y": 1}

    def view(request):
        return HttpResponse("x")

    def template(request):
        return render(request, "a.html", {"x": Thing()})

    urlpatterns = [path("", view), path("template", template)]
    app = get_wsgi_application()
    """
BOTTLE = """
    from bottle import Bottle

    app = Bottle()

    @app.hook("before_request")
    def before():
        pass

    @app.hook("after_request")
    def after():
        pass

    @app.get("/")
    def index():
        return "x"
    """


def called(application: object, path: str = "/") -> Tracer:
    """The calls of one request on a real socket."""
    with Tracer() as tracer, live(application, errors=io.StringIO()) as running:  # type: ignore[arg-type]
        client = HTTPConnection("127.0.0.1", running.port, timeout=10)
        client.request("GET", path)
        client.getresponse().read()
        client.close()
    return tracer


def maker(tmp_path: Path, name: str, source: str, attribute: str, path: str) -> str:
    (tmp_path / f"{name}.py").write_text(dedent(source))
    found = called(load(f"{name}:{attribute}", str(tmp_path)), path).maker()
    return found.function.function if found else ""


@pytest.mark.parametrize(
    ("attribute", "function"),
    [
        ("plain", "plain"),
        ("generator", "generator"),
        ("iterable", "iterable"),
        ("Class", "Class.__iter__"),
        ("failing", "failing"),
        ("decorated", "decorated"),
        ("wrapped", "decorated"),
        ("framework", "view"),
    ],
)
def test_any_wsgi_application(tmp_path: Path, attribute: str, function: str) -> None:
    assert maker(tmp_path, "bare_called", BARE, attribute, "/") == function


@pytest.mark.parametrize(
    ("attribute", "path", "function"),
    [
        ("app", "/", "index"),
        ("wrapped", "/", "index"),
        ("app", "/users", "users"),
        ("app", "/template", "template"),
        ("wrapped", "/template", "template"),
        ("app", "/failing", "failing"),
        ("app", "/handled", "on_key_error"),
        ("app", "/nothing", ""),
    ],
)
def test_flask(tmp_path: Path, attribute: str, path: str, function: str) -> None:
    pytest.importorskip("flask")
    assert maker(tmp_path, "flask_called", FLASK, attribute, path) == function


def test_django(tmp_path: Path) -> None:
    pytest.importorskip("django")
    (tmp_path / "django_called.py").write_text(dedent(DJANGO))
    application = load("django_called:app", str(tmp_path))
    for path, function in {"/": "view", "/template": "template"}.items():
        found = called(application, path).maker()
        assert found
        assert found.function.function == function


def test_bottle(tmp_path: Path) -> None:
    pytest.importorskip("bottle")
    assert maker(tmp_path, "bottle_called", BOTTLE, "app", "/") == "index"


def test_the_frames_end_with_the_function_and_a_name_picks_another(tmp_path: Path) -> None:
    pytest.importorskip("flask")
    (tmp_path / "flask_named.py").write_text(dedent(FLASK))
    tracer = called(load("flask_named:app", str(tmp_path)), "/users")
    assert [frame.function for frame in tracer.frames()][-2:] == ["only_for_users.<locals>.check", "users"]
    assert tracer.frames("load_user")[-1].function == "load_user"
    assert tracer.frames("check")[-1].function == "only_for_users.<locals>.check"
    assert tracer.frames()[0].function == "Thread._bootstrap"
    with pytest.raises(LookupError):
        tracer.frames("page")  # called by a function of yours, and not seen from outside


def test_where_nothing_of_yours_ran_the_frames_lead_to_who_called_start_response() -> None:
    from wsgiref.simple_server import demo_app

    tracer = called(demo_app)
    assert tracer.maker() is None
    assert tracer.frames()[-1].function == "demo_app"
    assert Tracer().frames() == []


def test_threads_from_before_and_after_are_not_watched() -> None:
    before = threading.getprofile()
    with Tracer() as tracer:
        assert threading.getprofile() == tracer.note
    assert threading.getprofile() == before
    thread = threading.Thread(target=dedent, args=("x",))
    thread.start()
    thread.join()
    assert tracer.all() == []
