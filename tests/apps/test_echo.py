"""The echo application: in process with every kind of body, and from a socket with the clients that people have."""

from __future__ import annotations

import hashlib
import re
import socket
import subprocess
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from webob import Request, Response

from apps.echo import LONGEST, app
from tests.apps.browsers import chromium
from tests.programs import absent, need
from tests.running import Running, microwsgi

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def send(body: bytes | str = b"", kind: str = "", method: str = "POST", **more: Any) -> Response:
    """The response to a request with this body."""
    data = body.encode() if isinstance(body, str) else body
    request = Request.blank("/", method=method, body=data, **more)
    request.content_type = kind
    return request.get_response(app)


def shown(response: Response) -> list[str]:
    """What the page shows of the request: each block."""
    return [unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", response.text, re.DOTALL)]


def multipart(*parts: str, end: str = "--X--\r\n") -> Response:
    """A form with these parts: the fields of each, an empty line, and its content."""
    body = "".join(f"--X\r\n{part}\r\n" for part in parts) + end
    return send(body.encode("latin-1"), "multipart/form-data; boundary=X")


def test_get_shows_a_form() -> None:
    response = send(method="GET")
    assert response.status_int == 200
    assert '<form method="post"' in response.text
    assert response.content_type == "text/html"


def test_head_is_get_without_the_page() -> None:
    response = send(method="HEAD")
    assert (response.status_int, response.body) == (200, b"")
    assert response.headers["Content-Length"] == send(method="GET").headers["Content-Length"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_are_told_which_there_are(method: str) -> None:
    response = send(method=method)
    assert response.status_int == 405
    assert set(response.allow or ()) == {"GET", "HEAD", "POST"}


def test_a_form_is_shown_escaped_in_its_order_with_empty_and_repeated_fields() -> None:
    response = send("test=hello&b=%3Cscript%3E&%3Ci%3E=1&b=&c", "application/x-www-form-urlencoded")
    assert response.status_int == 200
    assert shown(response) == ["hello", "<script>", "1", "", ""]
    assert "<script>" not in response.text
    assert "&lt;i&gt;" in response.text


@pytest.mark.parametrize(
    ("charset", "text"), [("", "%C3%A4"), ("; charset=iso-8859-1", "%E4"), ("", "ä"), ("; charset=UTF-8", "ä")]
)
def test_a_form_may_be_in_another_charset(charset: str, text: str) -> None:
    assert shown(send(f"a={text}", f"application/x-www-form-urlencoded{charset}")) == ["ä"]


def test_fields_and_files_of_a_form() -> None:
    response = multipart(
        'Content-Disposition: form-data; name="test"\r\n\r\nhel\r\nlo',
        'Content-Disposition: form-data; name="file"; filename="<b>.bin"\r\n\r\n\0\1\2',
        'Content-Disposition: form-data; name="file"; filename="two"\r\nContent-Type: image/png\r\n\r\n'
        + "x" * 100_000,
        'Content-Disposition: form-data; name="none"; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n',
    )
    assert response.status_int == 200
    test, file, two, none = shown(response)
    assert test == "hel\r\nlo"
    assert file == f"<b>.bin, 3 bytes\nsha256 {hashlib.sha256(bytes(range(3))).hexdigest()}"
    assert two == f"two, 100000 bytes\nsha256 {hashlib.sha256(b'x' * 100_000).hexdigest()}"
    assert none == ""


def test_a_file_longer_than_what_is_shown_is_counted() -> None:
    part = 'Content-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + "x" * (LONGEST + 1)
    assert shown(multipart(part))[0].startswith(f"f, {LONGEST + 1} bytes")


def test_json_is_shown_in_lines_of_its_own_and_unescaped() -> None:
    response = send('{"a":[1,"<ä>"],"b":"\\ud800"}', "application/json")
    assert shown(response) == ['{\n  "a": [\n    1,\n    "<ä>"\n  ],\n  "b": "\\ud800"\n}']
    assert shown(send("[]", "application/problem+json")) == ["[]"]


def test_other_bodies_are_shown_as_text_or_as_bytes() -> None:
    assert shown(send("<ä>", "text/plain")) == ["<ä>"]
    assert shown(send(b"\x89PNG\r\n", "image/png")) == ["\\x89PNG\r\n"]
    assert shown(send(b"no type")) == ["no type"]


WRONG = {
    "none": (b"", "application/x-www-form-urlencoded", "no body"),
    "none of a multipart": (b"", "multipart/form-data; boundary=X", "no body"),
    "too long": (b"a" * (LONGEST + 1), "text/plain", "megabyte"),
    "json": (b'{"a": 1,}', "application/json", "line 1 column"),
    "json, not a word": (b"hello", "application/json", "line 1 column 1"),
    "json, not utf-8": (b'"\xff"', "application/json", "position 1"),
    "json, too deep": (b"[" * 100_000, "application/json", "while decoding a JSON array"),
    "json, too long a number": (b"1" * 5000, "application/json", "limit"),
    "form, not utf-8": (b"a=%ff", "application/x-www-form-urlencoded", "0xff"),
    "form, not utf-8 and not escaped": (b"a=\xff", "application/x-www-form-urlencoded", "0xff"),
    "form, no such charset": (b"a=1", "application/x-www-form-urlencoded; charset=x-none", "x-none"),
    "multipart, no boundary": (b"--X--", "multipart/form-data", "boundary"),
    "multipart, wrong boundary": (b"--Y\r\n\r\n--Y--\r\n", "multipart/form-data; boundary=X", "no fields"),
    "multipart, no end": (
        b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\n1',
        "multipart/form-data; boundary=X",
        "does not end",
    ),
    "multipart, no name": (
        b"--X\r\nContent-Disposition: form-data\r\n\r\n1\r\n--X--\r\n",
        "multipart/form-data; boundary=X",
        "no name",
    ),
    "multipart, not utf-8": (
        b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--X--\r\n',
        "multipart/form-data; boundary=X",
        "not UTF-8",
    ),
    "multipart, bad base64": (
        b'--X\r\nContent-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64\r\n\r\n1\r\n--X--\r\n',
        "multipart/form-data; boundary=X",
        "base64",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_what_it_says_is_a_400_that_says_why(case: str) -> None:
    body, kind, reason = WRONG[case]
    response = send(body, kind)
    assert response.status_int == 400
    assert reason in "".join(shown(response))


# --- From a socket --------------------------------------------------------------------------------------------------------


class Site:
    """A running server, and the addresses that it said."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "echo.sock")
        self.running = Running(
            microwsgi("serve", "apps.echo:app", "-b", "127.0.0.1:0", "-b", "[::1]:0", "-b", f"unix:{self.path}")
        )
        self.running.line("Ctrl-C")
        self.urls = dict(zip(("v4", "v6"), re.findall(r"http://\S+(?=/ )", self.running.output), strict=True))

    def curl(self, family: str) -> list[str]:
        """The command for an address, all but the options and the path's rest."""
        where = ["--unix-socket", self.path, "http://localhost/"] if family == "unix" else [f"{self.urls[family]}/"]
        return [need("curl"), "--silent", "--show-error", "--max-time", "10", "--globoff", *where]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        absent("ipv6", "this machine has no IPv6")
    site = Site(tmp_path_factory.mktemp("echo"))
    yield site
    site.running.end()


def output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout


@pytest.mark.parametrize("family", ["v4", "v6", "unix"])
class TestCurl:
    def test_gets_the_form(self, site: Site, family: str) -> None:
        assert '<form method="post"' in output(site.curl(family))

    def test_posts_a_form(self, site: Site, family: str) -> None:
        assert "<pre>hello</pre>" in output([*site.curl(family), "--data", "test=hello"])

    def test_posts_a_file_chunked_and_after_100_continue(self, site: Site, family: str, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x" * 2_000_000)
        form = ["--form", f"file=@{tmp_path}/file", "--header"]
        for field in ("Expect: 100-continue", "Transfer-Encoding: chunked"):
            assert "file, 2000000 bytes" in output([*site.curl(family), *form, field])

    def test_learns_what_is_wrong(self, site: Site, family: str) -> None:
        wrong = ["--data", "{", "--header", "Content-Type: application/json", "--write-out", "%{http_code}"]
        assert output([*site.curl(family), *wrong]).endswith("400")


@pytest.mark.parametrize("family", ["v4", "v6"])
class TestWget:
    def test_gets_the_form(self, site: Site, family: str) -> None:
        assert '<form method="post"' in output([need("wget"), "-qO-", "--tries=1", site.urls[family]])

    def test_posts_as_the_article_did(self, site: Site, family: str) -> None:
        assert "<pre>hello</pre>" in output(
            [need("wget"), "-qO-", "--tries=1", site.urls[family], "--post-data=test=hello"]
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.mark.slow
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_a_browser_fills_in_the_form_and_sends_it(site: Site, browser: Browser, tmp_path: Path, family: str) -> None:
    (tmp_path / "<é>.txt").write_text("content")
    page = browser.new_page()
    page.goto(f"{site.urls[family]}/")
    page.fill("[name=test]", "<b>é</b>")
    page.fill("[name=text]", "two\nlines")
    page.set_input_files("[name=file]", tmp_path / "<é>.txt")
    page.click("button")
    assert page.locator("h1").inner_text() == "Received"
    digest = hashlib.sha256(b"content").hexdigest()
    assert page.locator("pre").all_inner_texts() == ["<b>é</b>", "two\nlines", f"<é>.txt, 7 bytes\nsha256 {digest}"]
    page.fill("[name=test]", "again, and no file")
    page.click("button")
    assert page.locator("pre").all_inner_texts() == ["again, and no file", "", ""]
    page.close()
