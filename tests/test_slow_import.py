"""The import of an application that does not return, or takes long, says where it is."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.running import LIMIT, Running, microwsgi

SCRIPT = """
from http.server import BaseHTTPRequestHandler, HTTPServer
import time

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]

{line}
"""


@pytest.mark.parametrize("more", [[], ["--reload"]], ids=["", "reload"])
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            'HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler).serve_forever()',
            "serves by itself, in script.py:9: HTTPServer",
        ),
        ("time.sleep(60)", "It is at script.py:9: time.sleep"),
    ],
    ids=["serves", "sleeps"],
)
def test_an_import_that_does_not_return_is_described(line: str, said: str, more: list[str], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(line=line))
    command = Running(microwsgi("serve", "script:app", "-p", "0", *more), cwd=tmp_path)
    try:
        assert said in command.line("import of the application", LIMIT)
        if "serves" in said:
            assert "__main__" in command.line("Write")
    finally:
        command.process.send_signal(signal.SIGINT)
        try:
            command.process.wait(LIMIT)
        finally:
            command.process.kill()
