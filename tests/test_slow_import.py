"""An import that does not return, or takes long, is reported with its line: at the start, and when a saved file is reloaded."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.running import Running
from tests.tables import Rows

Command = Callable[..., Running]

SCRIPT = """
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from wsgiref.simple_server import make_server

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]

{line}
"""
SERVES = 'HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler).serve_forever()'
SLOW = {
    "http.server": SERVES,
    "wsgiref": 'make_server("127.0.0.1", 0, app).serve_forever()',
    "a sleep": "time.sleep(60)",
}
CURE = 'Put that line under:  if __name__ == "__main__":'


def check_report(running: Running, line: str) -> None:
    """Fail if the next lines do not name the line of the import, and the cure if it starts a server."""
    running.line("'script' is still being imported after 2 s")
    assert running.line("script.py") == f"  script.py:10: {line}"
    if "serve_forever" in line:
        assert running.line() == f"  It starts its own server. {CURE}"


def test_an_import_that_does_not_return_is_reported_at_the_start(command: Command, tmp_path: Path) -> None:
    started: list[tuple[str, str, Running]] = []
    for number, (name, line) in enumerate(SLOW.items()):
        for more in ([], ["--reload"], ["--workers", "2"]):
            folder = tmp_path / f"{number}{len(started)}"
            folder.mkdir()
            (folder / "script.py").write_text(SCRIPT.format(line=line))
            started.append((f"{name} {more}", line, command("serve", "script:app", "-p", "0", *more, cwd=folder)))
    with Rows() as rows:
        for name, line, running in started:
            with rows(name):
                check_report(running, line)


@pytest.mark.slow
def test_an_import_that_does_not_return_is_reported_at_a_reload(command: Command, tmp_path: Path) -> None:
    """The version before goes on serving, and the corrected file is served."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(line=""))
    running = command("serve", "script:app", "-p", "0", "--reload", cwd=tmp_path)
    url = running.url().removeprefix("http://")
    for line in SLOW.values():
        script.write_text(SCRIPT.format(line=line))
        check_report(running, line)
        client = http.client.HTTPConnection(url, timeout=10)
        client.request("GET", "/")
        assert client.getresponse().read() == b"hello"
        client.close()
    script.write_text(SCRIPT.format(line=f'if __name__ == "__main__":\n    {SERVES}'))
    running.line("changed: script.py; serving")
