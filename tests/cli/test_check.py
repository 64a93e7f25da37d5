"""`microwsgi check`: each rule that an application breaks is found, with the place, and a good one breaks none."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from microwsgi.cli.check import checked
from microwsgi.devtools.lint import FAULT, NOTE, Finding
from microwsgi.serving.loader import load
from tests.running import ROOT, environment, microwsgi

PLAIN = [("Content-Type", "text/plain")]
HERE = "tests/cli/test_check.py"
Found = dict[Finding, list[str]]


def found(application: Any, *paths: str) -> Found:
    return checked(application, list(paths) or ["/"])[0]


def line_of(text: str) -> int:
    """The one line of this file that ends in a mark."""
    lines = [
        number for number, line in enumerate(Path(__file__).read_text().splitlines(), 1) if line.endswith(f"# {text}")
    ]
    assert len(lines) == 1
    return lines[0]


def test_a_good_application_breaks_no_rule() -> None:
    findings, count = checked(load("apps.echo:app", str(ROOT)), ["/"])
    assert findings == {}
    assert count > 60


def text_instead_of_bytes(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    return ["text"]


def one_text(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    return b"text"


def nothing(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)


def no_start(environ: Any, start_response: Any) -> Any:
    return [b"x"]


def twice(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    start_response("200 OK", PLAIN)  # twice
    return [b"x"]


def bad_name(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*PLAIN, ("A b", "c")])  # bad name
    return [b"x"]


def line_break(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*PLAIN, ("A", "b\r\nc: d")])  # line break
    return [b"x"]


def no_list(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", tuple(PLAIN))  # no list
    return [b"x"]


def number_status(environ: Any, start_response: Any) -> Any:
    start_response(200, PLAIN)  # number
    return [b"x"]


def empty_status(environ: Any, start_response: Any) -> Any:
    start_response("", PLAIN)  # empty
    return [b"x"]


def hop_by_hop(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*PLAIN, ("Connection", "close")])  # hop
    return [b"x"]


def too_short(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*PLAIN, ("Content-Length", "9")])
    return [b"short"]


def too_long(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*PLAIN, ("Content-Length", "1")])
    return [b"long"]


def too_long_written(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*PLAIN, ("Content-Length", "5")])(b"long")
    return [b"er"]


def no_content(environ: Any, start_response: Any) -> Any:
    start_response("204 No Content", [])
    return [b"x"]


def method_not_allowed(environ: Any, start_response: Any) -> Any:
    start_response("405 Method Not Allowed", PLAIN)
    return [b"x"]


def unauthorized(environ: Any, start_response: Any) -> Any:
    start_response("401 Unauthorized", PLAIN)
    return [b"x"]


def no_head(environ: Any, start_response: Any) -> Any:
    good = environ["REQUEST_METHOD"] == "GET"
    start_response("200 OK" if good else "404 Not Found", PLAIN)
    return [b"x"]


def another_head(environ: Any, start_response: Any) -> Any:
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else b"hello"
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))])
    return [body]


def reads_to_the_end(environ: Any, start_response: Any) -> Any:
    environ["wsgi.input"].read()  # read
    start_response("200 OK", PLAIN)
    return [b"x"]


def reads_more(environ: Any, start_response: Any) -> Any:
    while environ["wsgi.input"].read(4096):  # more
        pass
    start_response("200 OK", PLAIN)
    return [b"x"]


def reads_lines(environ: Any, start_response: Any) -> Any:
    while environ["wsgi.input"].readline():  # lines
        pass
    start_response("200 OK", PLAIN)
    return [b"x"]


def raises(environ: Any, start_response: Any) -> Any:
    raise ValueError("as\nasked")  # raise


def raises_later(environ: Any, start_response: Any) -> Any:
    def body() -> Iterator[bytes]:
        yield b"x"
        raise ValueError("as asked")  # later

    start_response("200 OK", PLAIN)
    return body()


class FailingClose:
    def __iter__(self) -> Iterator[bytes]:
        yield b"x"

    def close(self) -> None:
        raise ValueError("as asked")  # close


def close_fails(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    return FailingClose()


PEP, END = "PEP 3333", "other servers may block there forever (read up to CONTENT_LENGTH)"


@pytest.mark.parametrize(
    ("application", "rule", "text", "mark"),
    [
        (text_instead_of_bytes, PEP, "Iterator yielded non-bytestring ('text')", ""),
        (one_text, PEP, "You should not return a string as your application iterator", ""),
        (nothing, PEP, "The application must return an iterator, if only an empty list", ""),
        (no_start, PEP, "start_response has not yet been called", ""),
        (twice, PEP, "start_response was called a second time, without exc_info", "twice"),
        (bad_name, PEP, "Bad header name: 'A b'", "bad name"),
        (line_break, PEP, "Bad header value", "line break"),
        (no_list, PEP, "must be of type list", "no list"),
        (number_status, PEP, "Status must be of type str (got 200)", "number"),
        (empty_status, PEP, "list index out of range", "empty"),
        (hop_by_hop, PEP, "Connection is a hop-by-hop field", "hop"),
        (too_short, PEP, "Content-Length is 9, and the body has 5 bytes", ""),
        (too_long, PEP, "Content-Length is 1, and the body is longer", ""),
        (too_long_written, PEP, "Content-Length is 5, and the body is longer", ""),
        (no_content, "RFC 9110 6.4.1", "204 has no body, and one was returned", ""),
        (method_not_allowed, "RFC 9110 15.5.6", "a 405 without Allow", ""),
        (unauthorized, "RFC 9110 15.5.2", "a 401 without WWW-Authenticate", ""),
        (no_head, "RFC 9110 9.3.2", "HEAD is answered with 404, GET with 200", ""),
        (another_head, "RFC 9110 9.3.2", "content-length is 0 for HEAD, and 5 for GET", ""),
        (reads_to_the_end, PEP, f"wsgi.input is read to the end; {END}", "read"),
        (reads_more, PEP, f"wsgi.input is asked for 4096 bytes where 0 are left; {END}", "more"),
        (reads_lines, PEP, f"wsgi.input is read by lines after its end; {END}", "lines"),
        (raises, "an exception", "ValueError: as asked", "raise"),
        (raises_later, "an exception", "ValueError: as asked", "later"),
        (close_fails, "an exception", "ValueError: as asked", "close"),
    ],
)
def test_a_broken_rule_is_found_at_its_place(application: Callable[..., Any], rule: str, text: str, mark: str) -> None:
    findings = [each for each in found(application) if text in each.text and each.rule == rule]
    assert {each.level for each in findings} == {FAULT}
    line = line_of(mark) if mark else application.__code__.co_firstlineno
    assert {each.where for each in findings} == {f"{HERE}:{line}"}


def untyped(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return [b"x"]


def typed(environ: Any, start_response: Any) -> Any:
    start_response("304 Not Modified", PLAIN)
    return []


def less_in_head(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*PLAIN, *([] if environ["REQUEST_METHOD"] == "HEAD" else [("ETag", '"a"')])])
    return [b"x"]


@pytest.mark.parametrize(
    ("application", "text"),
    [
        (untyped, "no Content-Type: the browser has to guess"),
        (typed, "Content-Type in a 304, which has no content"),
        (less_in_head, "HEAD lacks etag, which GET has"),
    ],
)
def test_a_note_is_no_fault(application: Callable[..., Any], text: str) -> None:
    assert {(each.level, each.text) for each in found(application)} == {(NOTE, text)}


def careful(environ: Any, start_response: Any) -> Any:
    """Reads what there is, and no more; a body of unknown length to its end."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        body = environ["wsgi.input"].read()
    else:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else iter([body])


def test_what_keeps_the_rules_in_unusual_ways_is_left_alone() -> None:
    assert found(careful) == {}


def test_an_exception_that_a_framework_made_a_500_of_has_its_place(tmp_path: Path) -> None:
    pytest.importorskip("flask")
    (tmp_path / "flask_checked.py").write_text(
        dedent("""
        from flask import Flask
        app = Flask(__name__)
        @app.get("/a")
        def view():
            return "a"
        @app.get("/b")
        def failing():
            return {}["b"]
        """)
    )
    findings = found(load("flask_checked:app", str(tmp_path)), "/a", "/b")
    ((finding, asked),) = findings.items()
    assert finding.where == f"{tmp_path}/flask_checked.py:9"
    assert finding.text.startswith("a 500; ")
    assert len(asked) > 20


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        microwsgi("check", *arguments), cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text(
        dedent("""
        def good(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"x"]
        def bad(environ, start_response):
            if environ["PATH_INFO"] == "/x":
                raise ValueError("a long story " * 20)
            return good(environ, start_response)
        """)
    )
    return tmp_path


def test_the_report_and_the_exit_code(folder: Path) -> None:
    result = run(folder, "hello:good")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[2:] == ["No broken rule was found."]
    result = run(folder, "hello:bad", "/", "/x")
    assert (result.returncode, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert lines[2:4] == [
        "fault  hello.py:7",
        "  an exception: ValueError: a long story a long story a long story a long story",
    ]
    assert lines[-3].startswith("  GET /x, and ")
    assert lines[-1] == "1 fault, 0 notes."
    assert all(len(line) <= 80 for line in lines)


def test_the_values(folder: Path) -> None:
    values = json.loads(run(folder, "hello:bad", "/x", "--json").stdout)
    (finding,) = values["findings"]
    assert (finding["level"], finding["where"]) == ("fault", "hello.py:7")
    assert 1 < len(finding["requests"]) < values["requests"]


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["hello:good", "more"], "expected one application", 2),
        (["nothing:app"], "nothing", 3),
    ],
)
def test_mistakes(folder: Path, arguments: list[str], said: str, code: int) -> None:
    result = run(folder, *arguments)
    assert result.returncode == code
    assert said in result.stderr


# --- docs/check.md ------------------------------------------------------------------------------------------------------


def test_the_page_shows_what_the_command_prints(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "check.md").read_text()
    (application,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (shown,) = re.findall(r"```\n\$ microwsgi check hello:app\n(.*?)```", page, re.DOTALL)
    (tmp_path / "hello.py").write_text(application)
    printed = run(tmp_path, "hello:app").stdout
    # Whether the server has read the request of a client that leaves at once, who knows.
    assert re.sub(r"and \d+ more", "", printed) == re.sub(r"and \d+ more", "", shown)


class SlowLog(io.StringIO):
    """An error log whose text comes later than the response."""

    def getvalue(self) -> str:
        self.asked = getattr(self, "asked", 0) + 1
        return super().getvalue() if self.asked % 3 == 0 else ""


def test_the_exception_of_a_handler_class_may_be_logged_after_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            raise LookupError("as asked")

    monkeypatch.setattr("microwsgi.cli.check.io.StringIO", SlowLog)
    texts = [finding.text for finding in found(Failing)]
    assert any("LookupError: as asked" in text for text in texts)
    assert not any("may say why" in text for text in texts)
