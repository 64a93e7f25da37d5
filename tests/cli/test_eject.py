"""`microwsgi eject`: the script serves where there is nothing but Python and WebOb, and keeps to PEP 3333."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from textwrap import dedent

import pytest

from tests.running import ROOT, Running, environment, microwsgi

BARE = [sys.executable, "-S"]
"""Python without what is installed."""
VALIDATED = """
    from wsgiref.validate import validator

    from apps.echo import app as echo

    def odd(environ, start_response):
        kind = environ["PATH_INFO"][1:]
        if kind == "fails":
            raise ValueError("as asked")
        if kind == "fails/late":
            start_response("200 OK", [("Content-Type", "text/plain")])(b"a part")
            raise ValueError("as asked")
        if kind == "splits":
            start_response("200 OK", [("Content-Type", "text/plain"), ("X", "a\\r\\nSet-Cookie: b")])
            return [b""]
        if kind == "empty":
            start_response("204 No Content", [])
            return [b""]
        if kind == "mended":
            import sys
            start_response("200 OK", [("Content-Type", "text/plain")])
            try:
                raise ValueError
            except ValueError:
                start_response("503 Later", [("Content-Type", "text/plain")], sys.exc_info())
            return [b"later"]
        if kind.startswith("environ"):
            lines = [f"{name}={value}" for name, value in sorted(environ.items()) if isinstance(value, str)]
            start_response("200 OK", [("Content-Type", "text/plain"), ("Date", "now")])
            return ["\\n".join(lines).encode("latin-1")]
        return echo(environ, start_response)

    app = validator(odd)
    """


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with WebOb and what WebOb needs, for an interpreter that has nothing but the standard library."""
    folder = tmp_path_factory.mktemp("library")
    for name in ("webob", "cgi"):
        spec = importlib.util.find_spec(name)
        assert spec
        assert spec.origin
        source = Path(spec.origin)
        if name == "webob":
            shutil.copytree(source.parent, folder / name)
        else:
            shutil.copy(source, folder)
    without = subprocess.run(
        [*BARE, "-c", "import webob, microwsgi"],
        cwd=folder, env=environment(PYTHONPATH=str(folder)), check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert "No module named 'microwsgi'" in without.stderr
    return folder


def eject(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        microwsgi("eject", *arguments), cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project: the echo application, and one around it with the validator."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "apps", project / "apps")
    (project / "validated.py").write_text(dedent(VALIDATED))
    return project


@pytest.fixture
def server(folder: Path, library: Path) -> Iterator[Running]:
    """The ejected script, where microwsgi can't be imported."""
    assert eject(folder, "validated:app", "-o", "httpsrv.py").returncode == 0
    running = Running([*BARE, "httpsrv.py", "0"], cwd=folder, PYTHONPATH=str(library))
    yield running
    running.end()


class Asked:
    """One request, on a connection of its own."""

    def __init__(self, url: str, method: str, path: str, body: bytes | None = None, **fields: str) -> None:
        client = HTTPConnection(url.partition("//")[2], timeout=10)
        client.request(method, path, body, {name.replace("_", "-"): value for name, value in fields.items()})
        self.response: HTTPResponse = client.getresponse()
        self.status = self.response.status
        self.body = self.response.read()
        client.close()


def raw(url: str, data: bytes) -> bytes:
    """What comes back for some bytes, up to the end of the connection."""
    host, _, port = url.partition("//")[2].partition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_form_and_what_was_submitted(server: Running) -> None:
    url = server.url()
    form = Asked(url, "GET", "/")
    assert form.status == 200
    assert b"<form" in form.body
    assert int(form.response.headers["Content-Length"]) == len(form.body)
    posted = Asked(url, "POST", "/", b"test=h%C3%A9llo", Content_Type="application/x-www-form-urlencoded")
    assert "héllo" in posted.body.decode()
    head = Asked(url, "HEAD", "/")
    assert (head.status, head.body) == (200, b"")
    assert head.response.headers["Content-Length"] == form.response.headers["Content-Length"]
    assert Asked(url, "DELETE", "/").status == 405
    assert "AssertionError" not in server.output


def test_the_environ(server: Running) -> None:
    asked = Asked(
        server.url(), "PUT", "/environ", b"x", Cookie="a=b", X_Two="1", X_Under_score="2", Content_Type="text/plain"
    )
    lines = asked.body.decode("latin-1").splitlines()
    assert {"PATH_INFO=/environ", "SCRIPT_NAME=", "REQUEST_METHOD=PUT", "CONTENT_LENGTH=1", "HTTP_COOKIE=a=b",
            "CONTENT_TYPE=text/plain", "HTTP_X_TWO=1", "QUERY_STRING="} <= set(lines)  # fmt: skip
    assert asked.response.headers.get_all("Date") == ["now"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/environ?a=b%20c", b"QUERY_STRING=a=b%20c"),
        (b"http://a.b/environ?q", b"QUERY_STRING=q"),
        (b"/%65nviron", b"PATH_INFO=/environ"),
    ],
)
def test_targets(server: Running, target: bytes, expected: bytes) -> None:
    fields = b"Host: a\r\nX-Same: 1\r\nX-Same: 2\r\nCookie: a=b\r\nCookie: c=d\r\nX_Under: 1\r\n\r\n"
    answer = raw(server.url(), b"GET " + target + b" HTTP/1.1\r\n" + fields)
    assert expected in answer
    assert b"HTTP_X_SAME=1,2" in answer
    assert b"HTTP_COOKIE=a=b; c=d" in answer
    assert b"X_UNDER" not in answer


def test_a_target_that_is_no_path_and_one_that_is_not_ascii(server: Running) -> None:
    url = server.url()
    assert b"\nPATH_INFO=/environ/caf\xc3\xa9\n" in raw(url, b"GET /environ/caf%C3%A9 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert raw(url, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").split()[1] == b"405"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"GET /fails HTTP/1.1\r\nHost: a\r\n\r\n", b"500"),
        (b"GET /splits HTTP/1.1\r\nHost: a\r\n\r\n", b"500"),
        (b"GET /empty HTTP/1.1\r\nHost: a\r\n\r\n", b"204"),
        (b"GET /mended HTTP/1.1\r\nHost: a\r\n\r\n", b"503"),
        (b"GET /fails/late HTTP/1.1\r\nHost: a\r\n\r\n", b"200"),
    ],
)
def test_what_is_answered(server: Running, request_: bytes, status: bytes) -> None:
    answer = raw(server.url(), request_)
    assert answer.split()[1] == status
    assert b"Set-Cookie" not in answer
    assert status != b"204" or answer.endswith(b"\r\n\r\n")


def test_a_body_that_was_cut_off_is_not_taken_for_a_whole_one(server: Running) -> None:
    assert raw(server.url(), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx=") == b""


def test_it_can_be_read_in_a_sitting(folder: Path) -> None:
    script = eject(folder, "apps.echo:app", "-o", "-").stdout
    assert len(script.splitlines()) <= 120
    assert "import microwsgi" not in script
    assert "from apps.echo import app as application\n" in script
    compile(script, "httpsrv.py", "exec")
    lint = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "128", "--select", "E,F,I,B", "-"],
        input=script, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "No module named ruff" in lint.stderr or (lint.returncode, lint.stdout.strip()) == (0, "All checks passed!")


def test_an_existing_file_is_not_written_over(folder: Path) -> None:
    (folder / "httpsrv.py").write_text("mine")
    result = eject(folder, "apps.echo:app")
    assert result.returncode == 2
    assert result.stderr == "microwsgi: httpsrv.py exists already; --force overwrites it.\n"
    assert (folder / "httpsrv.py").read_text() == "mine"
    result = eject(folder, "apps.echo:app", "--force")
    assert (result.returncode, result.stderr) == (
        0,
        "httpsrv.py serves apps.echo:app without microwsgi:  python httpsrv.py\n",
    )


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("made:make()", "application = make()"),
        ("made:kept.app", "application = kept.app"),
        ("made:application", "from made import application\n"),
    ],
)
def test_factories_and_attributes(folder: Path, spec: str, line: str) -> None:
    (folder / "made.py").write_text(
        "from types import SimpleNamespace\nfrom apps.echo import app as application\n"
        "def make():\n    return application\nkept = SimpleNamespace(app=application)\n"
    )
    script = eject(folder, spec, "-o", "-").stdout
    assert line in script
    checked = subprocess.run(
        [sys.executable, "-c", f"{script.partition('if __name__')[0]}\nprint(application.__name__)"],
        cwd=folder, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.stdout == "app\n"


def test_in_another_folder_it_finds_the_application(folder: Path) -> None:
    (folder / "scripts").mkdir()
    assert eject(folder, "apps.echo:app", "-o", "scripts/httpsrv.py").returncode == 0
    running = Running([sys.executable, "scripts/httpsrv.py", "0"], cwd=folder, PYTHONPATH="")
    try:
        assert Asked(running.url(), "GET", "/").status == 200
    finally:
        running.end()


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["made:Handler"], "needs no adapter", 2),
        (["apps.echo:app", "-o", "nowhere/x.py"], "nowhere/x.py can't be written", 2),
        (["apps.echo:app", "more"], "expected one application", 2),
        (["nothing:app"], "nothing", 3),
    ],
)
def test_mistakes(folder: Path, arguments: list[str], said: str, code: int) -> None:
    (folder / "made.py").write_text("from http.server import BaseHTTPRequestHandler as Handler\n")
    result = eject(folder, *arguments)
    assert result.returncode == code
    assert said in result.stderr
    assert not (folder / "httpsrv.py").exists()


def test_an_application_that_needs_us_is_told_so(folder: Path) -> None:
    (folder / "made.py").write_text("from microwsgi import App\napp = App()\n")
    assert "made itself imports microwsgi" in eject(folder, "made:app").stderr
