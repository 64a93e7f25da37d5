"""A script with a plain handler class, as an article about http.server shows it, served by the commands as it is."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.programs import need, need_package
from tests.running import Running
from tests.tls.authority import Authority

Command = Callable[..., Running]

SCRIPT = '''\
"""Show a form, and echo what is typed into it."""

from html import escape
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

FORM = """<!doctype html>
<title>Echo</title>
<form method="post">
  <input name="text" autofocus>
  <button>Send</button>
</form>
"""


class RequestHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.respond(FORM)

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        fields = parse_qs(self.rfile.read(length).decode())
        self.respond(f"<!doctype html>\\n<p>You typed: {escape(fields['text'][0])}\\n" + FORM)

    def respond(self, page):
        body = page.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    HTTPServer(("", 8000), RequestHandler).serve_forever()
'''
FAILING = SCRIPT.replace("self.respond(FORM)\n", 'self.respond(FORM.replace("Echo", TITLE))\n', 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "httpsrv.py").write_text(SCRIPT)
    return tmp_path


def test_a_script_is_served_checked_and_reloaded_as_it_is(folder: Path, command: Command) -> None:
    """Its class is found without a name; the access log is that of the server; each saved version is served."""
    running = command("dev", "httpsrv.py", "-p", "0", "--log-format", "common", cwd=folder)
    url = running.url() + "/"
    body = urlencode({"text": "a<b"}).encode()
    with urlopen(url, body) as response:  # noqa: S310 - ours
        assert b"You typed: a&lt;b" in response.read()
    running.line(r'^127\.0\.0\.1 - - \[.*\] "POST / HTTP/1\.1" 200 \d+$')
    (folder / "httpsrv.py").write_text(SCRIPT.replace("You typed", "Echo"))
    running.line(r"changed: httpsrv\.py; serving")
    with urlopen(url, body) as response:  # noqa: S310 - ours
        assert b"Echo: a&lt;b" in response.read()
    (folder / "httpsrv.py").write_text(FAILING)
    running.line(r"changed: httpsrv\.py; serving")
    client = http.client.HTTPConnection(url.split("/")[2], timeout=10)
    client.request("GET", "/", headers={"Accept": "text/html", "Microwsgi-Token": running.token()})
    page = client.getresponse()
    assert page.status == 500
    assert "NameError" in page.read().decode()
    client.close()
    assert running.stop() == 0
    assert "NameError: name 'TITLE' is not defined" in running.output

    checked = command("check", "httpsrv.py", cwd=folder)
    assert checked.wait() == 1
    assert "httpsrv:RequestHandler: " in checked.output
    assert re.search(r"fault  httpsrv\.py:17\n.*NameError: name 'TITLE' is not defined\n  GET /, and ", checked.output)
    assert re.search(r"fault  httpsrv\.py:20\n.*KeyError: 'text'", checked.output)
    assert "RFC 9110 9.3.2: HEAD is answered with 501" in checked.output


def test_a_script_is_served_over_tls_by_several_processes(folder: Path, command: Command) -> None:
    authority = Authority(folder)
    certificate = str(authority.leaf("localhost"))
    running = command(
        "serve", "httpsrv.py", "-p", "0", "--workers", "2", "--tls-cert", certificate, "--access-log", "off", cwd=folder
    )
    port = int(running.url().rpartition(":")[2])
    client = http.client.HTTPSConnection("localhost", port, timeout=10, context=authority.client())
    body = urlencode({"text": "x" * 100_000})
    for _ in range(3):
        client.request("POST", "/", body)
        assert len(client.getresponse().read()) > 100_000
    client.close()
    with pytest.raises(URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urlopen(f"https://localhost:{port}/")
    assert running.stop() == 0


@pytest.mark.slow
def test_a_failing_script_is_read_in_a_browser(folder: Path, command: Command) -> None:
    """The error page shows the line in do_GET, and the corrected script is there without a reload by hand."""
    chromium = need("chromium")
    need_package("playwright")
    from playwright.sync_api import sync_playwright  # a second that other tests need not wait

    (folder / "httpsrv.py").write_text(FAILING)
    running = command("dev", "httpsrv.py", "-p", "0", cwd=folder)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        tab = browser.new_page(viewport={"width": 1000, "height": 800})
        url = running.url()
        tab.goto(f"{url}/?token={running.token()}")
        assert tab.inner_text("h1") == "NameError"
        assert tab.inner_text("details[open] mark") == "TITLE"
        assert 'self.respond(FORM.replace("Echo", TITLE))' in tab.inner_text("details[open] >> nth=0")
        assert "RequestHandler.do_GET" in tab.inner_text("body")
        tab.screenshot(path=folder / "page.png", full_page=True)
        (folder / "httpsrv.py").write_text(SCRIPT)
        tab.wait_for_selector("form")
        tab.fill("input", "<b>hello</b>")
        tab.click("button")
        tab.wait_for_selector("text=You typed: <b>hello</b>")
        browser.close()
