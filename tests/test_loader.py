"""What people type after `serve`, and what they are told when there is no application there."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from types import FunctionType

import pytest

from microwsgi.errors import LoadError
from microwsgi.serving import loader
from microwsgi.serving.loader import load, load_named
from microwsgi.testing import Client
from tests.tables import Rows

HELLO = "def app(environ, start_response): ...\n"
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a file in an empty current folder; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(name: str, source: str = HELLO) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source))

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def failure(spec: str | None, app_dir: str = ".") -> list[str]:
    """The lines that a person sees."""
    with pytest.raises(LoadError) as caught:
        load(spec, app_dir)
    return str(caught.value).split("\n")


# --- The forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        "hello:app",
        "hello",
        "hello.py",
        "hello.py:app",
        "./hello.py",
        "pkg.deep:app",
        "pkg/deep.py",
        "pkg/deep.py:app",
        "pkg:app",
    ],
)
def test_each_form_of_address_finds_the_application(write: Write, spec: str) -> None:
    write("hello.py")
    write("pkg/__init__.py")
    write("pkg/deep.py")
    assert isinstance(load(spec), FunctionType)


def test_a_module_may_call_it_application(write: Write) -> None:
    write("hello.py", HELLO.replace("app(", "application("))
    assert load_named("hello")[0] == "hello:application"


def test_a_factory_is_called_and_dots_lead_to_attributes(write: Write) -> None:
    write(
        "hello.py",
        """
        class Site:
            def app(self, environ, start_response): ...
            def make(self):
                return self.app
        site = Site()
        """,
    )
    assert load("hello:site.app") == load("hello:site.make()")


@pytest.mark.parametrize("file", ["app.py", "wsgi.py", "main.py"])
def test_nothing_said_means_the_usual_files(write: Write, file: str) -> None:
    write(file)
    assert load_named(None)[0] == f"{file.removesuffix('.py')}:app"


def test_app_py_comes_first(write: Write) -> None:
    write("main.py", "1 / 0")
    write("app.py")
    assert load_named("")[0] == "app:app"


def test_pyproject_says_which_it_is(write: Write) -> None:
    write("app.py", "1 / 0")
    write("hello.py")
    write("pyproject.toml", '[tool.microwsgi]\napp = "hello:app"\n')
    assert load_named("")[0] == "hello:app"
    write("pyproject.toml", "[tool.microwsgi]\nother = 1\n[tool.microwsgi]\n")
    assert failure("")[0].startswith("pyproject.toml can't be read: ")


@pytest.mark.parametrize("text", ["# [tool.microwsgi]\n", '[project]\nname = "microwsgi"\n', "[tool.microwsgi]\n"])
def test_a_pyproject_that_says_nothing_is_none(write: Write, text: str) -> None:
    write("app.py")
    write("pyproject.toml", text)
    assert load_named("")[0] == "app:app"


def test_what_is_wrong_with_a_pyproject_is_said_with_its_name(write: Write, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b"[tool.microwsgi]\n# \xff\n")
    assert failure("") == ["pyproject.toml can't be read: it is not UTF-8 (byte 19)."]
    write("pyproject.toml", "tool.microwsgi = 1\n")
    assert failure("") == ["pyproject.toml can't be read: microwsgi is not a table."]
    write("pyproject.toml", "[tool.microwsgi]\napp = 1\n")
    assert failure("") == ['invalid app in pyproject.toml: expected a string, like app =  "module:attribute".']
    write("pyproject.toml", '[tool.microwsgi]\napp = "nothing:app"\n')
    assert failure("")[-1] == '  The name comes from app = "nothing:app" in pyproject.toml.'


def test_another_pyproject_is_not_even_parsed(write: Write) -> None:
    write("app.py")
    write("pyproject.toml", "[not toml")
    assert load_named("")[0] == "app:app"


def test_a_file_in_a_package_is_imported_as_part_of_it(write: Write) -> None:
    write("pkg/__init__.py", "")
    write("pkg/other.py", "value = 1")
    write("pkg/site.py", "from .other import value\n" + HELLO)
    assert load_named("pkg/site.py")[0] == "pkg.site:app"


def test_app_dir_is_where_modules_and_files_are_looked_for(write: Write) -> None:
    write("src/hello.py", "import beside\n" + HELLO)
    write("src/beside.py", "")
    assert load("hello:app", "src") is load("hello.py", "src")
    assert failure("hello:app", "nowhere") == [
        "there is no directory nowhere to import the application from (--app-dir)."
    ]


def test_a_handler_class_of_http_server_is_taken_as_it_is(write: Write) -> None:
    write(
        "httpsrv.py",
        """
        from http.server import BaseHTTPRequestHandler
        class RequestHandler(BaseHTTPRequestHandler):
            def do_GET(self): ...
        """,
    )
    assert isinstance(load("httpsrv:RequestHandler"), type)


def test_the_one_handler_class_of_a_module_needs_no_name(write: Write) -> None:
    imports = "from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler\n"
    method = "    def do_GET(self): ...\n"
    derived = "class Base(BaseHTTPRequestHandler):\n    def respond(self): ...\n"
    rows = {
        "one": (f"class One(BaseHTTPRequestHandler):\n{method}", "one:One"),
        "files": ("class Files(SimpleHTTPRequestHandler):\n    server_version = 'x'\n", "files:Files"),
        "derived": (derived + f"class Derived(Base):\n{method}", "derived:Derived"),
        "app": (f"class One(BaseHTTPRequestHandler):\n{method}" + HELLO, "app:app"),
        "two": (f"class One(BaseHTTPRequestHandler):\n{method}class Two(BaseHTTPRequestHandler):\n{method}", ""),
        "part": (derived, ""),
        "none": ("", ""),
    }
    with Rows() as found:
        for name, (source, expected) in rows.items():
            write(f"{name}.py", imports + source)
            with found(name):
                if expected:
                    assert load_named(f"{name}.py")[0] == expected
                else:
                    assert failure(f"{name}.py")[0] == f"'{name}' has neither 'app' nor 'application'."


@pytest.mark.parametrize(
    "source",
    [
        "class app:\n    def __init__(self, environ, start_response): ...\n",
        "class App:\n    def __call__(self, environ, start_response): ...\napp = App()\n",
        "class App:\n    @staticmethod\n    def __call__(environ, start_response): ...\napp = App()\n",
        "class App:\n    @classmethod\n    def app(cls, environ, start_response): ...\napp = App.app\n",
        "def app(*args): ...\n",
        "def app(environ, start_response, more=1): ...\n",
        "from functools import partial\napp = partial(print, 1)\n",
        "app = print\n",
    ],
)
def test_whatever_may_be_called_with_two_arguments_is_an_application(write: Write, source: str) -> None:
    write("hello.py", source)
    assert callable(load("hello"))


# --- The messages ---------------------------------------------------------------------------------------------------------


def test_a_misspelt_module(write: Write, tmp_path: Path) -> None:
    write("hello.py")
    assert failure("helo:app") == [
        f"there is no module 'helo' (looked in {tmp_path} and the installed packages).",
        "  Try:  microwsgi serve hello:app",
    ]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("apps.ecko:app", "apps.echo:app"),
        ("aps.echo", "apps.echo"),
        ("hello.app", "hello:app"),
        ("apps.echo.app", "apps.echo:app"),
    ],
)
def test_a_misspelt_part_of_a_dotted_name(write: Write, typed: str, meant: str) -> None:
    write("apps/__init__.py", "")
    write("apps/echo.py")
    write("hello.py")
    assert failure(typed)[-1] == f"  Try:  microwsgi serve {meant}"


def test_a_module_like_none_that_is_here(write: Write) -> None:
    write("hello.py")
    assert failure("zzz")[1] == "  (in . there are: hello)"


@pytest.mark.parametrize("spec", ["", ":app", ".hello:app", "hello-world:app", "1:2:3", "a b"])
def test_what_is_no_name_at_all_is_still_one_message(write: Write, spec: str) -> None:
    write("other.py")
    assert failure(spec)[0].startswith(("there is no ", "'other'"))


def test_a_misspelt_file(write: Write) -> None:
    write("hello.py")
    assert failure("helo.py:app") == ["there is no file helo.py.", "  Try:  microwsgi serve hello.py:app"]
    assert failure("nowhere/at/all.py") == ["there is no file nowhere/at/all.py."]
    write("imp.py", HELLO)
    assert failure("app.py") == ["there is no file app.py."], "that both end in .py is no likeness"


def test_a_path_without_py(write: Write) -> None:
    assert failure("./pkg/hello:app")[-1] == "  Try:  microwsgi serve pkg.hello:app"


def test_nothing_said_and_nothing_there(write: Write, tmp_path: Path) -> None:
    assert failure(None) == [
        f"there is no app.py or wsgi.py or main.py in {tmp_path}.",
        "  Try:  microwsgi serve module:attribute",
        "        microwsgi serve .   (the files of this directory)",
    ]


def test_a_misspelt_attribute(write: Write) -> None:
    write("hello.py", "from os.path import join\nVERSION = 1\n" + HELLO)
    assert failure("hello:ap") == [
        "'hello' has no 'ap'.",
        "  (hello.py defines: app)",
        "  Try:  microwsgi serve hello:app",
    ]


def test_a_misspelt_attribute_of_an_attribute_and_a_misspelt_factory(write: Write) -> None:
    write("hello.py", "class site:\n    def app(environ, start_response): ...\ndef create_app(): ...\n")
    assert failure("hello:site.ap")[-1] == "  Try:  microwsgi serve hello:site.app"
    assert failure("hello:creat_app()")[-1] == "  Try:  microwsgi serve 'hello:create_app()'"


def test_a_module_without_app(write: Write) -> None:
    write("hello.py", HELLO.replace("app(", "site("))
    assert failure("hello") == [
        "'hello' has neither 'app' nor 'application'.",
        "  (hello.py defines: site)",
        "  Try:  microwsgi serve hello:site",
    ]
    write("empty.py", "")
    assert failure("empty")[1] == "  (empty.py defines nothing that can be called)"


def test_a_syntax_error_shows_the_place(write: Write) -> None:
    write("bad_syntax.py", "def app(environ, start_response)\n    pass\n")
    assert failure("bad_syntax:app") == [
        "bad_syntax.py:1: SyntaxError: expected ':'",
        "     1 | def app(environ, start_response)",
        "       |                                 ^",
    ]


def test_a_syntax_error_within_an_indented_line(write: Write) -> None:
    write("bad_syntax.py", "def app(environ, start_response):\n    return [1 2]\n")
    lines = failure("bad_syntax")
    assert lines[1:] == ["     2 | return [1 2]", "       |         ^^^"]


@pytest.mark.parametrize("content", [b"x = '\xff'\n", b"x = 1\0\n", b"if 1:\n\tx = 1\n        y = 2\n", b"if 1:\nx"])
def test_every_other_kind_of_file_that_python_cannot_read(write: Write, content: bytes) -> None:
    Path("bad.py").write_bytes(content)
    first = failure("bad")[0]
    assert re.match(r"bad\.py:[123]: (Syntax|Indentation|Tab)Error: |'bad' failed while it was imported:$", first)


def test_a_missing_import_names_the_line_and_the_interpreter(write: Write) -> None:
    write("bad_import.py", "import nonexistent_lib\n")
    lines = failure("bad_import:app")
    assert lines[:2] == [
        "'bad_import' needs 'nonexistent_lib', which is not installed.",
        "  bad_import.py:1: import nonexistent_lib",
    ]
    assert sys.executable in lines[2]
    assert "pip install" not in "".join(lines), "import names are not names of packages"


def test_a_missing_import_deeper_in_is_not_the_module_itself(write: Write) -> None:
    write("hello.py", "import beside\n")
    write("beside.py", "import hello.nothing\n")
    assert failure("hello:app")[1] == "  beside.py:1: import hello.nothing"


def test_another_exception_shows_the_users_frames_and_counts_the_rest(write: Write, tmp_path: Path) -> None:
    write("hello.py", "import beside\n")
    write("beside.py", "import json\njson.loads('{')\n")
    lines = failure("hello:app")
    assert lines[0] == "beside.py:2: 'hello' failed while it was imported:"
    assert [line for line in lines if line.startswith("  File")] == [
        f'  File "{tmp_path}/hello.py", line 1, in <module>',
        f'  File "{tmp_path}/beside.py", line 2, in <module>',
    ]
    assert "  ... 3 frames of libraries" in lines
    assert lines[-1].startswith("json.decoder.JSONDecodeError: ")


def test_the_whole_story_is_the_cause(write: Write) -> None:
    write("hello.py", "1 / 0\n")
    with pytest.raises(LoadError) as caught:
        load("hello")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("source", ["raise SystemExit(3)\n", "import sys\nsys.exit('no')\n", "raise BaseException\n"])
def test_a_module_cannot_end_the_server_by_being_imported(write: Write, source: str) -> None:
    write("hello.py", source)
    line = len(source.splitlines())
    assert failure("hello")[0] == f"hello.py:{line}: 'hello' failed while it was imported:"


def test_control_c_during_the_import_is_control_c(write: Write) -> None:
    write("hello.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load("hello")


def test_what_cannot_be_called(write: Write) -> None:
    write("notcallable.py", f"app = 42\nlong = {'x' * 100!r}\n")
    assert failure("notcallable:app") == [
        "notcallable:app is int 42, not a WSGI app.",
        "  A WSGI app is a callable: def app(environ, start_response): ...",
    ]
    assert len(failure("notcallable:long")[0]) < 120
    assert failure("notcallable:app()") == ["notcallable:app is int 42, which can't be called."]


@pytest.mark.parametrize(
    "source",
    ["async def app(scope, receive, send): ...\n", "class A:\n    async def __call__(self, s, r, n): ...\napp = A()\n"],
)
def test_an_asgi_application(write: Write, source: str) -> None:
    write("asgiapp.py", source)
    assert failure("asgiapp:app") == [
        "asgiapp:app is an ASGI app (async); microwsgi serves WSGI apps.",
        "  Try:  uvicorn asgiapp:app",
    ]


def test_a_factory_without_its_parentheses_and_a_view(write: Write) -> None:
    write("hello.py", "def create(): ...\ndef view(request): ...\n")
    assert failure("hello:create")[-1] == "  Try:  microwsgi serve 'hello:create()'"
    assert failure("hello:view")[0] == "hello:view takes 1 argument, and a WSGI app takes two."


def test_a_factory_that_fails_or_would_want_arguments(write: Write) -> None:
    write("hello.py", "def create():\n    raise ValueError('no database')\n")
    lines = failure("hello:create()")
    assert lines[0] == "hello.py:2: hello:create() failed:"
    assert lines[-1] == "ValueError: no database"
    write("hi.py", "def app(environ, start_response): ...\n")
    assert failure("hi:app()")[-1] == "  Is it the application itself?  Try:  microwsgi serve hi:app"


def test_a_factory_is_called_with_literals(write: Write) -> None:
    write(
        "hello.py",
        """
        class Site:
            def make(self, *arguments, **keywords):
                def app(environ, start_response): ...
                app.called = arguments, keywords
                return app
        site, create_app = Site(), Site().make
        """,
    )
    for call, called in {
        "create_app()": ((), {}),
        "create_app('prod')": (("prod",), {}),
        'create_app("a:b(c)", debug=True, sizes=[1, -2.5])': (("a:b(c)",), {"debug": True, "sizes": [1, -2.5]}),
        "site.make({'x': None},)": (({"x": None},), {}),
    }.items():
        assert getattr(load(f"hello:{call}"), "called", None) == called, call
    for call in (
        "create_app(os)",
        "create_app(open('x'))",
        "create_app(*[1])",
        "create_app(**{'a': 1})",
        "create_app(",
        "create_app(1)(2",
    ):
        assert "must be literals" in failure(f"hello:{call}")[0], call
    write("hi.py", "def create_app(name): ...\n")
    assert failure("hi:create_app()")[-1] == """  Try:  microwsgi serve 'hi:create_app("...")'"""
    assert failure("hi:create_app(1, 2)")[-1].startswith("TypeError: create_app() takes 1 positional")


def test_a_factory_with_defaults_leads_to_its_call(write: Write) -> None:
    write(
        "hello.py",
        """
        def create_app(config=None, debug=False): ...
        def make_app(config): ...
        def setup(config=None): ...
        """,
    )
    assert failure("hello:create_app")[-1] == "  Try:  microwsgi serve 'hello:create_app()'"
    assert failure("hello:setup")[-1] == "  Try:  microwsgi serve 'hello:setup()'"
    assert failure("hello:make_app")[-1] == """  Try:  microwsgi serve 'hello:make_app("...")'"""


@pytest.mark.parametrize("spec", [".", "./", "sub/folder", "sub", "sub/"])
def test_a_folder_is_served_as_files(write: Write, spec: str) -> None:
    write("sub/folder/hello.txt", "hello")
    name, app = load_named(spec, ".")
    assert name == f"{spec.rstrip('/')}/"
    path = "hello.txt" if "folder" in spec else "folder/hello.txt" if "sub" in spec else "sub/folder/hello.txt"
    assert Client(app).get(f"/{path}", headers={"Range": "bytes=1-2"}).body == b"el"  # type: ignore[arg-type]
    folder = path.rpartition("/")[0]
    assert "hello.txt</a>" in Client(app).get(f"/{folder}/".replace("//", "/")).text  # type: ignore[arg-type]


def test_a_package_and_a_module_are_no_folders_of_files(write: Write) -> None:
    write("pkg/__init__.py")
    write("web/index.html", "")
    write("web.py")
    assert load_named("pkg", ".")[0] == "pkg:app"
    assert load_named("web", ".")[0] == "web:app"
    assert load_named("pkg/", ".")[0] == "pkg/"


def test_a_folder_with_an_application_says_how_that_is_run(write: Write, tmp_path: Path) -> None:
    write("site/wsgi.py")
    assert load_named("site", ".")[0] == "site/ (serves files; to run wsgi.py: microwsgi serve --app-dir site)"
    assert load_named(".", "site")[0] == "./ (serves files; to run wsgi.py: microwsgi serve --app-dir .)"


def test_a_module_that_lies_beside_the_application(write: Write) -> None:
    write("sub/helper.py", "")
    write("sub/web.py", "import helper\n" + HELLO)
    write("sub/deep/inner.py", "import helper\n" + HELLO)
    write("pkg/__init__.py", "import web2\n")
    write("pkg/web2.py", "import helper\n" + HELLO)
    assert failure("sub.web:app") == [
        "'sub.web' needs 'helper', which is sub/helper.py: its directory is not on sys.path.",
        "  sub/web.py:1: import helper",
        "  Try:  microwsgi serve --app-dir sub web:app",
    ]
    assert failure("sub.deep.inner:app")[0] == "'sub.deep.inner' needs 'helper', which is not installed."
    assert load("web:app", "sub")


def test_an_import_that_takes_long_tells_where_it_is(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    timers = []

    class Timer(threading.Thread):
        """A timer whose time is over when the imported module starts it."""

        def __init__(self, seconds: float, function: Callable[[], None]) -> None:
            super().__init__(target=function)
            timers.append(self)
            assert seconds == loader.SLOW

        def start(self) -> None:
            """Wait for the module."""

        def cancel(self) -> None:
            """Do nothing: it has run."""

    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(threading, "Timer", Timer)
    monkeypatch.setattr(sys, "timers", timers, raising=False)
    start = "import sys, threading\ntimer = sys.timers.pop()\n"
    wait = "threading.Thread.start(timer); timer.join()\n"
    write("slow.py", start + wait + HELLO)
    load("slow:app")
    assert said.getvalue() == f"'slow' is still being imported after {loader.SLOW:g} s.\n  slow.py:3: {wait}"
    said.truncate(0)
    server = "class Server:\n    def serve_forever(self):\n        " + wait + "Server().serve_forever()\n"
    write("httpsrv.py", start + server + HELLO)
    load("httpsrv:app")
    assert "It starts its own server." in said.getvalue()


def test_a_file_whose_name_is_taken_by_another_module(write: Write) -> None:
    write("json.py")
    assert failure("json.py")[0].endswith("Rename it.")


def test_loading_a_bare_application_does_not_import_webob_nor_what_is_slow(write: Write) -> None:
    write("hello.py")
    code = "import sys; from microwsgi.serving.loader import load; load('hello:app'); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert {"webob", "inspect", "dataclasses", "typing", "logging"}.isdisjoint(output.split())


@pytest.mark.parametrize("spec", ["hello:app", "hello:create_app()"])
def test_a_usage_error_of_an_application_is_its_sentence_without_a_traceback(write: Write, spec: str) -> None:
    """An application raises it for its own configuration: in its import, or in its factory. Others have a traceback."""
    source = """
        from microwsgi.errors import UsageError
        def create_app():
            raise {0}("probe.toml: there is no intervall.")
        {1}
    """
    call = "create_app()" if spec == "hello:app" else ""
    write("hello.py", source.format("UsageError", call))
    assert failure(spec) == ["probe.toml: there is no intervall."]
    sys.modules.pop("hello", None)
    write("hello.py", source.format("ValueError", call))
    assert len(failure(spec)) > 3
