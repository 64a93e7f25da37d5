"""microwsgi/testing.py and pytest_plugin.py: tests of applications, ours and other people's."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import webob
from webob import Request
from webob.exc import HTTPFound, HTTPTemporaryRedirect

from microwsgi.testing import Client, live
from tests.programs import absent
from tests.running import environment, python

Environ = dict[str, Any]


def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
    """Answers what a test asks for by its path."""
    request = Request(environ)
    response: webob.Response
    match request.path:
        case "/login":
            response = HTTPFound(location="/me")
            response.set_cookie("who", "Ada", path="/")
        case "/logout":
            response = webob.Response("bye")
            response.delete_cookie("who", path="/")
        case "/me":
            response = webob.Response(f"{request.method} {request.cookies.get('who')}")
        case "/seen":
            response = HTTPFound(location="/echo")
        case "/moved":
            response = HTTPTemporaryRedirect(location="/echo")
        case "/loop":
            response = HTTPFound(location="/loop")
        case "/json":
            response = webob.Response(json={"sent": request.json, "query": dict(request.GET)})
        case "/form":
            sent = [getattr(value, "filename", value) for value in request.POST.values()]
            response = webob.Response(json=sent)
        case "/stream":
            response = webob.Response(app_iter=Chunks())
        case "/fail":
            raise ZeroDivisionError("of the application")
        case _:
            response = webob.Response(request.method.encode() + b" " + request.body, content_type="text/plain")
    chunks: Iterable[bytes] = response(environ, start_response)
    return chunks


class Chunks:
    """A body that says when it was closed, and how much of it was asked for."""

    asked = closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for number in range(3):
            Chunks.asked += 1
            yield b"%d" % number

    def close(self) -> None:
        Chunks.closed += 1


def test_cookies_are_kept_and_forgotten_as_the_application_says() -> None:
    client = Client(app)
    assert client.get("/me").text == "GET None"
    assert client.get("/login").status_int == 302
    assert client.get("/me").text == "GET Ada"
    client.get("/logout")
    assert client.get("/me").text == "GET None"
    assert Client(app).get("/me").text == "GET None"


def test_redirects_are_followed_when_asked() -> None:
    response = Client(app).post("/login", follow=True)
    assert response.text == "GET Ada"
    assert [earlier.status_int for earlier in response.history] == [302]
    assert Client(app).post("/seen", body=b"dropped", follow=True).text == "GET "
    assert Client(app).post("/moved", body=b"kept", follow=True).text == "POST kept"
    with pytest.raises(AssertionError, match="more than 20 redirects"):
        Client(app).get("/loop", follow=True)


@pytest.mark.parametrize("method", ["get", "head", "post", "put", "patch", "delete", "options"])
def test_each_method_has_its_name(method: str) -> None:
    response = getattr(Client(app), method)("/echo")
    assert response.status_int == 200
    assert response.text == ("" if method == "head" else f"{method.upper()} ")


def test_json_queries_forms_and_files_are_sent() -> None:
    client = Client(app)
    response = client.put("/json?a=1", json={"name": "ä"}, query={"b": "ü&"})
    assert response.json == {"sent": {"name": "ä"}, "query": {"a": "1", "b": "ü&"}}
    assert client.post("/form", form={"a": "x", "f": ("name.txt", b"data")}).json == ["x", "name.txt"]
    assert client.put("/form", form={"a": "x"}).json == ["x"]


def test_headers_and_environ_are_those_given() -> None:
    def show(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [f"{environ['HTTP_A']} {environ['HTTP_B']} {environ['HTTP_HOST']} {environ['REMOTE_ADDR']}".encode()]

    client = Client(show, url="https://shop.example", headers={"A": "1", "B": "1"})
    assert client.get("/", headers={"B": "2"}, environ={"REMOTE_ADDR": "::1"}).body == b"1 2 shop.example:443 ::1"


def test_a_body_is_read_and_closed_but_a_stream_is_the_tests() -> None:
    Chunks.asked = Chunks.closed = 0
    assert Client(app).get("/stream").text == "012"
    assert (Chunks.asked, Chunks.closed) == (3, 1)
    chunks: Any = Client(app).get("/stream", stream=True).app_iter
    assert next(iter(chunks)) == b"0"
    assert (Chunks.asked, Chunks.closed) == (4, 1)
    chunks.close()
    assert Chunks.closed == 2


def test_an_exception_of_the_application_is_the_tests() -> None:
    with pytest.raises(ZeroDivisionError, match="of the application"):
        Client(app).get("/fail")


def test_a_failed_expectation_can_be_read() -> None:
    response = Client(app).post("/echo?x=1", body=b"hello")
    assert response.expect(text="hello") is response
    with pytest.raises(AssertionError) as failed:
        response.expect(404, text="bye", json=[])
    assert str(failed.value).splitlines() == [
        "expected status 404, got 200 OK",
        "expected 'bye' in the body",
        "expected [] as JSON",
        "",
        "> POST http://localhost/echo?x=1",
        "< 200 OK",
        "< Content-Type: text/plain; charset=UTF-8",
        "< Content-Length: 10",
        "",
        "POST hello",
    ]


def test_a_long_or_binary_body_does_not_flood_the_message() -> None:
    long = Client(app).post("/echo", body=b"a" * 10_000)
    binary = Client(app).post("/echo", body=b"\xff\xfe")
    assert len(long.exchange()) < 2200
    assert "xff" in binary.exchange()


def test_a_live_server_answers_and_leaves_nothing_behind() -> None:
    before = threading.active_count()
    with live(app) as server:
        assert urlopen(f"{server.url}/echo").read() == b"GET "  # noqa: S310 - ours
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_a_live_server_ends_when_the_test_fails() -> None:
    with pytest.raises(ZeroDivisionError), live(app) as server:
        raise ZeroDivisionError
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def peer(name: str) -> Any:
    """An installed framework of the benchmarks, or a skip."""
    try:
        return __import__(name, fromlist=["*"])
    except ImportError:
        absent(name, f"{name} is not installed")


def test_flask_is_tested_too() -> None:
    flask = peer("flask")
    application = flask.Flask("tested")
    application.secret_key = "a"
    application.add_url_rule("/in", "in", lambda: flask.session.update(who="Ada") or "in")
    application.add_url_rule("/who", "who", lambda: {"who": flask.session.get("who")})
    client = Client(application)
    client.get("/in").expect(200, text="in")
    client.get("/who").expect(json={"who": "Ada"})
    with live(application) as server:
        assert urlopen(f"{server.url}/in").read() == b"in"  # noqa: S310 - ours


def test_django_is_tested_too() -> None:
    """In a process of its own: Django's settings are the process's."""
    peer("django")
    program = """
from django.conf import settings
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["localhost"], SECRET_KEY="a", DEBUG=True)
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path
urlpatterns = [path("hello/<str:name>", lambda request, name: JsonResponse({"hello": name}))]
from microwsgi.testing import Client
Client(get_wsgi_application()).get("/hello/Ada").expect(json={"hello": "Ada"})
print("good")
"""
    done = subprocess.run(python("-c", program), check=False, capture_output=True, text=True, env=environment())
    assert done.stdout == "good\n", done.stderr


TESTS = """
from urllib.request import urlopen
import pytest

{fixture}

def test_in_process(client):
    client.get("/").expect(200, text="hello")

def test_live(live_server):
    assert urlopen(live_server.url).read() == b"hello"
"""
HELLO = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n"


def run_pytest(folder: Path, fixture: str, ini: str) -> str:
    """What pytest says of tests that use the fixtures."""
    (folder / "hello.py").write_text(HELLO)
    (folder / "test_hello.py").write_text(TESTS.format(fixture=fixture))
    (folder / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
    plugins = ["-p", "microwsgi.pytest_plugin", "-p", "no:cacheprovider"]
    variables = environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    command = python("-m", "pytest", "-q", *plugins)
    return subprocess.run(command, check=False, cwd=folder, env=variables, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("fixture", "ini"),
    [
        ("", "microwsgi_app = hello:app"),
        ("@pytest.fixture\ndef app():\n    from hello import app\n    return app", "pythonpath = ."),
    ],
)
def test_the_plugin_has_the_fixtures(tmp_path: Path, fixture: str, ini: str) -> None:
    assert "2 passed" in run_pytest(tmp_path, fixture, ini)


def test_the_plugin_says_what_it_needs(tmp_path: Path) -> None:
    assert "There is no application: define a fixture `app`" in run_pytest(tmp_path, "", "")


IMPORTS = """import warnings
from microwsgi import App

app = App()
app.get("/")(lambda request: "hello")
"""
OWN = "\n\ndef test_own():\n    warnings.warn(\"'cgi' is deprecated\", DeprecationWarning)\n"


@pytest.mark.parametrize("where", ["-W error", "filterwarnings = error"])
@pytest.mark.parametrize("file", ["conftest.py", "test_mine.py"])
def test_who_has_warnings_as_errors_does_not_suffer_for_webob(tmp_path: Path, where: str, file: str) -> None:
    """On Python 3.11 and 3.12 WebOb's import of cgi is a warning; those of one's own code are errors all the same."""
    (tmp_path / file).write_text(IMPORTS)
    (tmp_path / "test_own.py").write_text("import warnings" + OWN)
    said = run_pytest(tmp_path, "", f"microwsgi_app = hello:app\n{where if '=' in where else f'addopts = {where}'}")
    assert "1 failed, 2 passed" in said, said
    assert "FAILED test_own.py::test_own - DeprecationWarning: 'cgi' is deprecated" in said


def test_the_plugin_leaves_the_names_to_those_who_had_them_first(tmp_path: Path) -> None:
    """pytest-django and pytest-flask have the same fixtures, and one of two plugins would win by chance."""
    (tmp_path / "theirs.py").write_text("import pytest\n\n@pytest.fixture\ndef client():\n    return 'theirs'\n")
    (tmp_path / "test_it.py").write_text("def test_client(client):\n    assert client == 'theirs'\n")
    (tmp_path / "run.py").write_text(
        "import sys, pytest, theirs\n\n\nclass First:\n    def pytest_addoption(self, pluginmanager):\n"
        "        pluginmanager.register(theirs, 'django')\n\n\n"
        "sys.exit(pytest.main(['-q', '-p', 'microwsgi.pytest_plugin'], plugins=[First()]))\n"
    )
    variables = environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    done = subprocess.run(python("run.py"), check=False, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout


def test_the_plugin_costs_nothing_until_it_is_used() -> None:
    code = "import sys, microwsgi.pytest_plugin; print({'webob', 'microwsgi.server.server'} & set(sys.modules))"
    done = subprocess.run(python("-c", code), check=True, capture_output=True, text=True, env=environment())
    assert done.stdout == "set()\n"
