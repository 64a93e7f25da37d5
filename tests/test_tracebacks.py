"""microwsgi/support/tracebacks.py: what the terminal shows of an exception."""

from __future__ import annotations

import io
import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from microwsgi import make_server
from microwsgi.support.tracebacks import exception_text
from tests.running import ROOT, Running
from tests.tables import Rows

APPLICATION = """
import json
from microwsgi import App, abort

app = App()


@app.get("/none")
def forgotten(request):
    "<p>Hello"


@app.get("/abort")
def missing(request):
    abort("404")


@app.get("/group")
def several(request):
    try:
        one()
    except ZeroDivisionError as error:
        raise ExceptionGroup("two", [error, KeyError("a")]) from error


def one():
    1 / 0


class Plain:
    def __call__(self, environ, start_response):
        match environ["PATH_INFO"]:
            case "/plain-none":
                return None
            case "/plain-twice":
                start_response("200 OK", [])
                start_response("200 OK", [])
            case "/plain-header":
                start_response("200 OK", [("Content-Length", 5)])
            case "/plain-short":
                start_response("200 OK", [("Content-Length", "5")])
                return [b"four"]
            case "/plain-library":
                json.loads("{")
        return app(environ, start_response)


plain = Plain()
"""
ROWS = {  # the path: the last line of the application that the traceback shows, and a part of the message
    "/none": (
        "def forgotten(request):",
        r"ViewError: the view forgotten \(mistakes\.py:9\) returned None: is a return missing",
    ),
    "/abort": ('abort("404")', "TypeError: .*write abort"),
    "/group": ("1 / 0", "ExceptionGroup: two"),
    "/plain-none": (
        "def __call__(self, environ, start_response):",
        r"The application Plain \(mistakes\.py:31\) returned None",
    ),
    "/plain-twice": ('start_response("200 OK", [])', "start_response was called a second time"),
    "/plain-header": ('start_response("200 OK", [("Content-Length", 5)])', "ApplicationError"),
    "/plain-short": ("def __call__(self, environ, start_response):", "returned 4 bytes, and its Content-Length is 5"),
    "/plain-library": ('json.loads("{")', "JSONDecodeError"),
}


def test_frames_of_microwsgi_are_folded(command: Callable[..., Running], tmp_path: Path) -> None:
    """Each traceback has the line of the application, also where that has returned, and none of ours."""
    (tmp_path / "mistakes.py").write_text(APPLICATION)
    with Rows() as rows:
        for options in ((), ("--debug",)):
            running = command("serve", "mistakes:plain", *options, "-p", "0", cwd=tmp_path)
            url = running.url()
            for path in ROWS:
                with pytest.raises(HTTPError) as caught:
                    urlopen(url + path)  # noqa: S310 - ours
                caught.value.close()
                running.line(f"GET {path}(?: HTTP|  500)")
            running.stop()
            texts = re.split(r"^(?=.*failed)", running.output, flags=re.MULTILINE)
            for path, (line, message) in ROWS.items():
                with rows(*options, path):
                    (text,) = [
                        each
                        for each in texts
                        if f"{path} " in each.partition("\n")[0] or f"{path}'" in each.partition("\n")[0]
                    ]
                    assert re.search(message, text), text
                    shown = [each.strip(" |") for each in text.splitlines()]
                    assert line in shown, text
                    assert re.search(r"^[ |]+\.\.\. \d frames? of microwsgi$", text, re.MULTILINE), text
                    assert "type: ignore" not in text
                    assert not re.search(r'File ".*/microwsgi/', text), text


def test_the_page_shows_what_is_logged(command: Callable[..., Running], tmp_path: Path) -> None:
    """docs/errors.md: README's application without its return."""
    (tmp_path / "hello.py").write_text(
        "from webob import Response\n\n\n\ndef app(environ, start_response):\n    Response()(environ, start_response)\n"
    )
    shown = re.search(r"```\n(127.*?failed.*?)\n```", (ROOT / "docs" / "errors.md").read_text(), re.DOTALL)
    assert shown
    running = command("serve", "hello:app", "-p", "0", cwd=tmp_path)
    with pytest.raises(HTTPError) as caught:
        urlopen(running.url() + "/")  # noqa: S310 - ours
    caught.value.close()
    running.line("GET / ")
    running.line("ApplicationError")
    found = re.search(r"^127.*failed[^$]*?ApplicationError.*$", running.output, re.MULTILINE)
    assert found
    same = [re.sub(r":\d{5} |\([0-9a-f]{8}\)|\"/.*/hello", "", text) for text in (found[0], shown[1])]
    assert same[0] == same[1]


def test_the_servers_own_exceptions_are_whole() -> None:
    """An exception without a frame of an application is a fault of the server: all frames are there."""
    try:
        exception_text(None)  # type: ignore[arg-type]
    except AttributeError as error:
        error.__traceback__ = error.__traceback__.tb_next if error.__traceback__ else None
        text = exception_text(error)
    assert "tracebacks.py" in text
    assert "frames of microwsgi" not in text


def test_a_handler_of_logging_shows_no_remark_for_type_checkers() -> None:
    """It formats the whole traceback, with the line that calls the application."""
    stream = io.StringIO()
    logger, handler = logging.getLogger("microwsgi.error"), logging.StreamHandler(stream)

    def application(environ: object, start_response: object) -> list[bytes]:
        raise ValueError("the bug")

    logger.addHandler(handler)
    try:
        with make_server("127.0.0.1", 0, application) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            with pytest.raises(HTTPError) as caught:
                urlopen(f"http://127.0.0.1:{server.server_port}/")
            caught.value.close()
            server.shutdown()
            thread.join()
    finally:
        logger.removeHandler(handler)
    text = stream.getvalue()
    assert "in handle_one_request" in text
    assert "the bug" in text
    assert "type: ignore" not in text
